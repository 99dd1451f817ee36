"""How sure a statistic is: 95 % confidence intervals of two sides and of the relative errors between them.

No interval takes the tasks of one run as independent. With two or more replications the clusters are the replications,
and those of both sides are paired. A single run is cut into 10 blocks of equal length at the same places of both sides;
blocks that follow each other may be alike, which widens the interval. The intervals of each side are those of
`results.confidence`. That of an error is the jackknife's, of the logarithm of the ratio of the pooled statistics: two
ratios of 1/2 and 2 are no error, and no error is below -100 %. Percentiles are smoothed for it (`Together.measure`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
    ENOUGH_BY_THEORY,
    WIDEST,
    Interval,
    effective_number,
    jackknife,
    mean_interval,
    named_percentile_intervals,
    pooled_mean_interval,
    share_interval,
)
from orchestrator.results.relaxation import Queue, likely_load, waiting_part
from orchestrator.results.runs import Run
from orchestrator.results.tables import Floats

BLOCKS = 10
"""Fewer and longer rather than more: in a correlated run short ones are alike."""
PIECES = 100
"""Of a pair of single runs, to see whether their differences cancel."""
CANCEL = 0.0248
"""The Cramér-von Mises statistic that independent differences exceed in 99 %."""

TOGETHER = 0.8
"""The correlation of the waits of pairs that do the same work; ten independent pairs reach it in 0.3 %."""

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
        return cls._over(left, right, effective=_effective_pairs(left, right))

    @classmethod
    def over_blocks(cls, left: Observed, right: Observed) -> Spread:
        """From blocks of a pair of runs. A run with fewer than four tasks per block has no interval."""
        if min(len(side.arrival_s) for side in (left, right)) < 4 * BLOCKS:
            return cls()
        cancel = _cancelling(left.blocks(PIECES), right.blocks(PIECES))
        sides = left.blocks(BLOCKS), right.blocks(BLOCKS)
        effective = _effective_pairs(*sides) if _same_arrivals(*sides) else {}
        return cls._over(*sides, serial=True, effective=effective, cancel=cancel)

    @classmethod
    def _over(
        cls,
        left: Sequence[Observed],
        right: Sequence[Observed],
        serial: bool = False,
        effective: Mapping[str, float] = MappingProxyType({}),
        cancel: Collection[str] = (),
    ) -> Spread:
        ours, theirs = dict(_of_side(left, serial)), dict(_of_side(right, serial))
        sides = Together(left), Together(right)
        smooth = partial(sides[0].measure, smooth=True), partial(sides[1].measure, smooth=True)
        errors = error_intervals(*smooth, len(left), serial, _least_errors(*sides), effective, cancel)
        few = {metric for side in (ours, theirs) for metric, interval in side.items() if interval.too_few}
        if _same_arrivals(left, right):
            few |= _too_few_waits(left, serial) | _too_few_waits(right, serial)
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
    cancel: Collection[str] = (),
) -> dict[str, tuple[float, float] | None]:
    """Of the relative error of each statistic that is positive on both sides, whichever cluster is left out.

    `left` and `right` give the statistics without one cluster, or of all if it is None. An interval is None, for too
    few, if it is so wide that it says nothing. It holds at least what `least` has of its metric, as logarithms of the
    ratio. `effective`: as how many clusters they count for a metric. `cancel`: the metrics whose differences cancel,
    see `jackknife`.
    """
    ratios = [_log_ratios(left(without), right(without)) for without in (None, *range(clusters))]
    found: dict[str, tuple[float, float] | None] = {}
    for metric, whole in ratios[0].items():
        parts = np.array([one[metric] for one in ratios[1:]])
        counted = effective.get(metric, math.inf)
        if math.isfinite(whole) and not counted:
            found[metric] = None
        elif math.isfinite(whole) and np.isfinite(parts).all() and len(parts) > 1:
            low, high = jackknife(whole, parts, serial, counted, metric in cancel)
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
    """How far the logarithm of each ratio of percentiles would move, to either side, by one task more or less.

    Pairs of runs may have the very same tasks at a percentile. All clusters then agree on the ratio, but no sample
    tells a percentile closer than to the next of its tasks.
    """
    (low, at, high), (other_low, other_at, other_high) = (
        [side.ranks_away(ranks) for ranks in (-1, 0, 1)] for side in (left, right)
    )
    pairs = (low, other_at), (at, other_high), (high, other_at), (at, other_low)
    moved = [_log_ratios(*pair) for pair in pairs]
    reached = {metric: [one[metric] for one in moved] for metric in at}
    return {metric: (min(ends), max(ends)) for metric, ends in reached.items() if np.isfinite(ends).all()}


def _cancelling(left: Sequence[Observed], right: Sequence[Observed]) -> set[str]:
    """The rates of which both sides of a pair have the same, but for the moment at which they have it.

    Two systems with the same arrivals complete the same tasks: what one piece lacks the next one has. Their sums over
    time then stay closer together than those of independent differences (Cramér-von Mises).
    """
    rates = {"throughput_per_s": _completed, "utilization": _busy_s}
    return {metric for metric, rate in rates.items() if _cancel(rate(left), rate(right))}


def _cancel(ours: Floats, theirs: Floats) -> bool:
    if not np.sum(ours) or not np.sum(theirs):
        return False
    differences = ours / np.sum(ours) - theirs / np.sum(theirs)
    return float(np.mean(np.cumsum(differences) ** 2)) < CANCEL * float(np.sum(differences**2))


def _completed(parts: Sequence[Observed]) -> Floats:
    return np.array([len(part.completed_s) for part in parts], dtype=np.float64)


def _busy_s(parts: Sequence[Observed]) -> Floats:
    return np.array([float(part.busy_s[-1]) for part in parts])


def _log_ratios(values: Measures, references: Measures) -> Measures:
    """NaN where there is none."""
    return {
        metric: math.log(value / references[metric])
        if 0 < value < math.inf and 0 < references[metric] < math.inf
        else math.nan
        for metric, value in values.items()
    }


def _of_side(parts: Sequence[Observed], serial: bool) -> Iterator[tuple[str, Interval]]:
    length_s, busy_s = np.array([part.length_s for part in parts]), _busy_s(parts)
    could_s, queue = parts[0].slots * length_s, _queue(parts, serial)
    times = {name: [getattr(part, name) for part in parts] for name in PERCENTILES}
    found: dict[str, Interval | None] = {}
    for name, values in times.items():
        quantiles = {"p99": QUANTILES["p99"]} if name == "wait_s" else QUANTILES
        independent = queue.most_independent(values, times["wait_s"])
        found |= named_percentile_intervals(name, values, quantiles, serial, independent, times["wait_s"])
    mean = pooled_mean_interval(times["wait_s"], serial)
    if mean and serial and not queue.tells_mean_wait(times["wait_s"]):
        mean = Interval(mean.low, None, True)  # of replications, which are independent, the differences tell
    found["wait_s.mean"] = mean
    found["throughput_per_s"] = mean_interval(_completed(parts), length_s, serial)
    found["utilization"] = share_interval(busy_s, could_s, serial)
    yield from ((metric, interval) for metric, interval in found.items() if interval is not None)


def _queue(parts: Sequence[Observed], serial: bool) -> Queue:
    busy_s, could_s = _busy_s(parts), np.array([part.slots * part.length_s for part in parts])
    used = share_interval(busy_s, could_s, serial)
    load = likely_load(parts[0].offered_load, used) if np.any(busy_s) else None
    latency_s, wait_s = ([getattr(part, name) for part in parts] for name in ("latency_s", "wait_s"))
    return Queue.of(int(np.sum(_completed(parts))), load, parts[0].slots, latency_s, wait_s)


def _too_few_waits(parts: Sequence[Observed], serial: bool) -> set[str]:
    """The percentiles whose error the waits of this side do not tell if nothing else differs between both sides."""
    wait_s = [part.wait_s for part in parts]
    waits = _queue(parts, serial).most_independent(wait_s, wait_s)
    few = [name for name, q in QUANTILES.items() if waits * (1 - q) / q < ENOUGH_BY_THEORY]
    return {f"{what}.{name}" for what in PERCENTILES for name in few}


def _effective_pairs(left: Sequence[Observed], right: Sequence[Observed]) -> Measures:
    """As how many pairs of runs these count, for waits and for the tails of latency, which are long waits.

    Services count each pair as one, by their part of the variance, unless both sides have the same tasks: then only
    their waits differ.
    """
    waits = _effective_waits(_waited_s(left), _waited_s(right), max(map(_used, (left, right))))
    waiting = max(waiting_part([one.latency_s for one in side], [one.wait_s for one in side]) for side in (left, right))
    waiting = 1.0 if _same_arrivals(left, right) else waiting
    tails = 1 / (waiting / max(waits, 1.0) + (1 - waiting) / len(left))
    return {**dict.fromkeys(["wait_s.mean", "wait_s.p99", *EXCESS], waits), **dict.fromkeys(LATENCY[1:], tails)}


def _effective_waits(ours: Floats, theirs: Floats, load: float) -> float:
    """As how many pairs these count for the ratio of their waits; 0 if none waits on both sides.

    Pairs that wait together differ by the derivative of the wait w at a load of u, which for M/M/1, w = u / (1 - u),
    grows as w to the power 2u (that is d ln w' / d ln w), and no slower than w. Other sides err each by itself.
    """
    if len(ours) > 2 and _correlation(ours, theirs) < TOGETHER and np.any(ours * theirs):
        return min(effective_number(ours), effective_number(theirs))
    return effective_number((ours * theirs) ** max(load, 0.5))


def _correlation(ours: Floats, theirs: Floats) -> float:
    ours, theirs = ours - np.mean(ours), theirs - np.mean(theirs)
    size = float(np.sqrt(np.sum(ours**2) * np.sum(theirs**2)))
    return float(np.sum(ours * theirs)) / size if size else 1.0


def _used(parts: Sequence[Observed]) -> float:
    """The utilization, at most 1."""
    could_s = sum(part.slots * part.length_s for part in parts)
    return min(float(np.sum(_busy_s(parts))) / could_s, 1.0) if could_s else 0.0


def _same_arrivals(left: Sequence[Observed], right: Sequence[Observed]) -> bool:
    return all(np.array_equal(ours.arrival_s, theirs.arrival_s) for ours, theirs in zip(left, right, strict=True))


def _waited_s(parts: Sequence[Observed]) -> Floats:
    """The sum of the waits in each part."""
    return np.array([np.sum(part.wait_s, where=np.isfinite(part.wait_s)) for part in parts], dtype=np.float64)
