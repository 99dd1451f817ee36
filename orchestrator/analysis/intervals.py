"""How sure a statistic is: 95 % confidence intervals of two sides and of the relative errors between them.

No interval takes the tasks of one run as independent. With two or more replications the clusters are the replications,
and those of both sides are paired. A single run is cut into 10 blocks of equal length at the same places of both sides;
blocks that follow each other are alike, which widens the interval. The intervals of each side are those of
`results.confidence`. That of an error is the jackknife's, of the logarithm of the ratio of the pooled statistics: two
ratios of 1/2 and 2 are no error, and no error is below -100 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from orchestrator.analysis.measures import (
    EXCESS,
    LATENCY,
    PERCENTILES,
    QUANTILES,
    Clock,
    Measures,
    Observed,
    Together,
    whole_run,
)
from orchestrator.results.confidence import (
    ENOUGH_BEYOND,
    WIDEST,
    Interval,
    effective_number,
    jackknife,
    mean_interval,
    named_percentile_intervals,
    pooled_mean_interval,
    share_interval,
)
from orchestrator.results.runs import Run
from orchestrator.results.tables import Floats

RELAXATIONS = 15
"""How many relaxation times of its queue a single run must last, and the waits that make up its mean."""
UNSEEN = 3
"""If no event is seen, at most so many are to be expected (95 %)."""
BLOCKS = 10
"""Fewer and longer rather than more: in a correlated run short ones are alike."""

Intervals = Mapping[str, Interval]
Errors = Mapping[str, tuple[float, float] | None]
"""None of a metric whose clusters are too few to tell; a metric without a positive statistic is missing."""


@dataclass(frozen=True)
class Spread:
    """The intervals of the statistics of one side, of the other side, and of the relative errors, by metric."""

    values: Intervals = field(default_factory=dict)
    references: Intervals = field(default_factory=dict)
    errors: Errors = field(default_factory=dict)

    @classmethod
    def over_runs(cls, left: Sequence[Observed], right: Sequence[Observed]) -> Spread:
        """From pairs of replications."""
        return cls._over(left, right, serial=False)

    @classmethod
    def over_blocks(cls, left: Observed, right: Observed) -> Spread:
        """From blocks of a pair of runs. A run with fewer than four tasks per block has no interval."""
        if min(len(side.arrival_s) for side in (left, right)) < 4 * BLOCKS:
            return cls()
        return cls._over(left.blocks(BLOCKS), right.blocks(BLOCKS), serial=True)

    @classmethod
    def _over(cls, left: Sequence[Observed], right: Sequence[Observed], serial: bool) -> Spread:
        ours, theirs = dict(_of_side(left, serial)), dict(_of_side(right, serial))
        pooled = Together(left), Together(right)
        counts = {} if serial else _effective_pairs(left, right)
        errors = error_intervals(
            pooled[0].measure, pooled[1].measure, len(left), serial, _least_errors(*pooled), counts
        )
        few = {metric for side in (ours, theirs) for metric, interval in side.items() if interval.too_few}
        return cls(ours, theirs, {metric: None if metric in few else interval for metric, interval in errors.items()})


def intervals_of_run(run: Run) -> Intervals:
    """Those of a single run, by metric, from its blocks; none if it has fewer than four tasks per block."""
    observed = Observed.of(run, Clock.of([whole_run(run)]))
    if len(observed.arrival_s) < 4 * BLOCKS:
        return {}
    return dict(_of_side(observed.blocks(BLOCKS), serial=True))


def error_intervals(
    left: Callable[[int | None], Measures],
    right: Callable[[int | None], Measures],
    clusters: int,
    serial: bool = False,
    least: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    effective: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, tuple[float, float] | None]:
    """Of the relative error of each statistic that is positive on both sides, whichever cluster is left out.

    `left` and `right` give the statistics without one cluster, or of all if it is None. An interval is None, for too
    few, if it is so wide that it says nothing. It holds at least what `least` has of its metric, as logarithms of the
    ratio. `effective`: as how many clusters they count for a metric.
    """
    ratios = [_log_ratios(left(without), right(without)) for without in (None, *range(clusters))]
    found: dict[str, tuple[float, float] | None] = {}
    for metric, whole in ratios[0].items():
        parts = np.array([one[metric] for one in ratios[1:]])
        counted = effective.get(metric, math.inf)
        if math.isfinite(whole) and not counted:
            found[metric] = None
        elif math.isfinite(whole) and np.isfinite(parts).all() and len(parts) > 1:
            low, high = jackknife(whole, parts, serial, counted)
            if metric in least:
                low, high = min(low, least[metric][0]), max(high, least[metric][1])
            wide = max(whole - low, high - whole) > WIDEST
            found[metric] = None if wide else (math.expm1(low), math.expm1(high))
    return found


def relative_error(value: float, reference: float) -> float:
    """(value - reference) / |reference|; NaN if the reference is 0, infinite if either is."""
    if math.isinf(value) or math.isinf(reference):
        return math.inf
    return (value - reference) / abs(reference) if reference else math.nan


def _least_errors(left: Together, right: Together) -> Mapping[str, tuple[float, float]]:
    """How far the logarithm of each ratio of percentiles would move, to either side, by UNSEEN tasks.

    Pairs of runs may have the very same tasks at a percentile. All clusters then agree on the ratio, and yet the true
    one can be another: of the tasks that pass the percentile on one side only, none need be seen where three are to be
    expected.
    """
    (low, at, high), (other_low, other_at, other_high) = (
        [side.ranks_away(ranks) for ranks in (-UNSEEN, 0, UNSEEN)] for side in (left, right)
    )
    pairs = (low, other_at), (at, other_high), (high, other_at), (at, other_low)
    moved = [_log_ratios(*pair) for pair in pairs]
    reached = {metric: [one[metric] for one in moved] for metric in at}
    return {metric: (min(ends), max(ends)) for metric, ends in reached.items() if np.isfinite(ends).all()}


def _log_ratios(values: Measures, references: Measures) -> Measures:
    """NaN where there is none."""
    return {
        metric: math.log(value / references[metric])
        if 0 < value < math.inf and 0 < references[metric] < math.inf
        else math.nan
        for metric, value in values.items()
    }


def _of_side(parts: Sequence[Observed], serial: bool) -> Iterator[tuple[str, Interval]]:
    latency_s, wait_s, excess_s = ([getattr(part, name) for part in parts] for name in PERCENTILES)
    found = {
        **named_percentile_intervals("latency_s", latency_s, QUANTILES, serial),
        "wait_s.mean": pooled_mean_interval(wait_s, serial),
        **named_percentile_intervals("wait_s", wait_s, {"p99": QUANTILES["p99"]}, serial),
        **named_percentile_intervals("excess_s", excess_s, QUANTILES, serial),
    }
    few = _short_for(parts)
    if not serial:
        few.discard("wait_s.mean")  # runs are independent, and their differences tell
    found = {
        metric: interval and Interval(interval.low, None, True) if metric in few else interval
        for metric, interval in found.items()
    }
    length_s = np.array([part.length_s for part in parts])
    busy_s = np.array([float(part.busy_s[-1]) for part in parts])
    completed = np.array([len(part.completed_s) for part in parts], dtype=np.float64)
    found["throughput_per_s"] = mean_interval(completed, length_s, serial)
    found["utilization"] = share_interval(busy_s, parts[0].slots * length_s, serial)
    yield from ((metric, interval) for metric, interval in found.items() if interval is not None)


def _effective_pairs(left: Sequence[Observed], right: Sequence[Observed]) -> Measures:
    """As how many pairs of replications these count, for waits and for the tails of latency, which are long waits.

    Pairs wait together, and then their difference grows as the product of their waits:
    1 / (1 - u) - 1 / (1 - v) = (u - v) / ((1 - u) (1 - v)). Services count each pair as one, by their part of the
    variance.
    """
    waits = effective_number(_waited_s(left) * _waited_s(right))
    waiting = max(_waiting(left), _waiting(right))
    tails = 1 / (waiting / max(waits, 1.0) + (1 - waiting) / len(left))
    return {**dict.fromkeys(["wait_s.mean", "wait_s.p99", *EXCESS], waits), **dict.fromkeys(LATENCY[1:], tails)}


def _waiting(parts: Sequence[Observed]) -> float:
    """The part of the variance of latency that is waiting."""
    latency_s, wait_s = (_finite(parts, what) for what in ("latency_s", "wait_s"))
    varies = float(np.var(latency_s)) if len(latency_s) else 0.0
    return min(float(np.var(wait_s)) / varies, 1.0) if varies else 1.0


def _finite(parts: Sequence[Observed], what: str) -> Floats:
    """Of the tasks of all parts that have it."""
    values: Floats = np.concatenate([getattr(part, what) for part in parts])
    return values[np.isfinite(values)]


def _waited_s(parts: Sequence[Observed]) -> Floats:
    """The sum of the waits in each part."""
    return np.array([np.sum(part.wait_s, where=np.isfinite(part.wait_s)) for part in parts], dtype=np.float64)


def _short_for(parts: Sequence[Observed]) -> set[str]:
    """The times for which a run, or all replications together, are too short at their load, whatever they look like.

    What happens to see no long queue looks settled; only theory knows better. A queue forgets within a relaxation
    time, and n tasks at a utilization of u take n (1 - sqrt(u))^2 / u of them (M/M/1: Cohen, "The single
    server queue", 1982, III.7.3). What waits counts for no more independent tasks than that; the services between are
    independent, and count by their part of the variance. ENOUGH_BEYOND must be beyond a percentile. A mean is made up
    of the long waits, which count by Kish's effective number: (sum of waits)^2 / sum of squares.
    """
    latency_s, wait_s = (_finite(parts, what) for what in ("latency_s", "wait_s"))
    busy_s, could_s = sum(float(part.busy_s[-1]) for part in parts), sum(part.slots * part.length_s for part in parts)
    if busy_s <= 0 or could_s <= 0 or not np.any(wait_s) or not len(latency_s):
        return set()
    used, tasks = busy_s / could_s, len(wait_s)
    relaxations = tasks * (1 - math.sqrt(min(used, 1.0))) ** 2 / used
    if relaxations < RELAXATIONS:
        return {"wait_s.mean", *(f"{what}.{name}" for what in PERCENTILES for name in QUANTILES)}
    waiting = _waiting(parts)
    independent = dict.fromkeys(PERCENTILES, relaxations)
    independent["latency_s"] = 1 / (waiting / relaxations + (1 - waiting) / tasks)
    few = {
        f"{what}.{q}" for what, n in independent.items() for q, at in QUANTILES.items() if n * (1 - at) < ENOUGH_BEYOND
    }
    long_waits = relaxations * effective_number(wait_s) / tasks
    return few | ({"wait_s.mean"} if long_waits < RELAXATIONS else set())
