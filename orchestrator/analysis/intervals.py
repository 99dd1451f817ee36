"""How sure a statistic is: 95 % confidence intervals of two sides and of the relative errors between them.

No interval takes the tasks of one run as independent. With two or more replications an interval is Student's t over
the replications, and that of an error is taken over the pairs. A single run is resampled in moving blocks (Künsch,
"The jackknife and the bootstrap for general stationary observations", 1989): 20 blocks, each a twentieth of the run,
are drawn with replacement at the same places of both runs, and the statistics are taken of them. The interval is
value -+ t(19) times the standard deviation of the resampled statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.measures import Interval, Measures, Observed
from orchestrator.results.statistics import confidence_interval
from orchestrator.results.tables import Floats

BLOCKS = 20
RESAMPLES = 400
DRAWS = 20_000_000
"""Upper bound of the tasks that are resampled in all: larger runs are resampled less often."""


@dataclass(frozen=True)
class Spread:
    """The intervals of the statistics of one side, of the other side, and of the relative errors, by metric."""

    values: Mapping[str, Interval]
    references: Mapping[str, Interval]
    errors: Mapping[str, Interval]

    @classmethod
    def over_runs(cls, left: Sequence[Measures], right: Sequence[Measures]) -> Spread:
        """Student's t over the replications; that of the errors is taken over the pairs."""
        errors = [_relative_errors(a, b) for a, b in zip(left, right, strict=True)]
        return cls(*(dict(_t_intervals(side)) for side in (left, right, errors)))

    @classmethod
    def over_blocks(cls, left: Observed, right: Observed, rng: np.random.Generator) -> Spread:
        """Resample the same moving blocks of both runs. A run with fewer than two tasks per block has no interval."""
        tasks = [len(side.arrival_s) for side in (left, right)]
        if min(tasks) < 2 * BLOCKS:
            return cls({}, {}, {})
        length_s = left.length_s / BLOCKS
        resamples = int(np.clip(DRAWS / max(tasks), 50, RESAMPLES))
        begins_s = rng.uniform(0, left.length_s - length_s, (resamples, BLOCKS))
        drawn = [[side.measure_blocks(begin_s, length_s) for begin_s in begins_s] for side in (left, right)]
        errors = [_relative_errors(a, b) for a, b in zip(*drawn, strict=True)]
        centres = [left.measure(), right.measure()]
        return cls(
            dict(_block_intervals(centres[0], drawn[0])),
            dict(_block_intervals(centres[1], drawn[1])),
            dict(_block_intervals(_relative_errors(*centres), errors)),
        )


def relative_error(value: float, reference: float) -> float:
    """(value - reference) / |reference|; NaN if the reference is 0, infinite if either is."""
    if math.isinf(value) or math.isinf(reference):
        return math.inf
    return (value - reference) / abs(reference) if reference else math.nan


def _relative_errors(values: Measures, references: Measures) -> Measures:
    return {metric: relative_error(values[metric], references[metric]) for metric in values}


def _t_intervals(measures: Sequence[Measures]) -> Iterator[tuple[str, Interval]]:
    for metric in measures[0]:
        known = _unless_unknown([one[metric] for one in measures])
        if len(known) > 1:
            low, high = confidence_interval(known)
            yield metric, (float(low), float(high))


def _block_intervals(centre: Measures, drawn: Sequence[Measures]) -> Iterator[tuple[str, Interval]]:
    from scipy.special import stdtrit

    for metric, value in centre.items():
        known = _unless_unknown([one[metric] for one in drawn])
        if math.isfinite(value) and len(known) > 1:
            half = float(stdtrit(BLOCKS - 1, 0.975) * np.std(known))
            yield metric, (value - half, value + half)


def _unless_unknown(values: Sequence[float]) -> Floats:
    """The values without the empty statistics; none if one is infinite: the others are not all of the same kind."""
    known = np.array(values)
    known = known[~np.isnan(known)]
    return known if np.isfinite(known).all() else np.empty(0)
