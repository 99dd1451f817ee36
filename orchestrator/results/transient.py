"""Whether latency had settled when the warm-up ended.

A run starts empty, or with a burst, and what comes early is not what comes later. Two judges must agree. MSER-5 (White,
"An effective truncation heuristic for bias reduction in simulation output", 1997) takes the means of five tasks each in
the order of their arrival, and finds the point from which on their mean has the smallest error. It also cuts something
off four of ten runs that have nothing to cut. So the logarithms of the first fiftieth are compared with those of the
second half (Geweke, "Evaluating the accuracy of sampling-based approaches", 1992), at a level of 1 %: over
replications, by Student's t of their differences; in a single run, by the spread of 20 blocks. docs/intervals.md tells
how often they are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from orchestrator.results.confidence import inflation
from orchestrator.results.durations import age_s, latency_s
from orchestrator.results.tables import FAULTS, Floats, Tables, event_rows, floats

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

BATCH = 5
FEWEST = 100
"""Batches: a shorter run is not judged."""
BLOCKS = 20
EARLY = 1 / 50
LEVEL = 0.99


class Batches(NamedTuple):
    """Means of BATCH latencies each, in the order of arrival: float64[n]."""

    until_s: Floats
    """When the last task of each batch arrived."""
    mean_s: Floats

    @classmethod
    def of(cls, arrival_s: Floats, latency_s: Floats) -> Batches:
        order = np.argsort(arrival_s, kind="stable")[: len(arrival_s) // BATCH * BATCH].reshape(-1, BATCH)
        return cls(arrival_s[order[:, -1]], np.mean(latency_s[order], axis=1))


def batches(tables: Tables, scenario: Scenario, ended_s: float) -> Batches:
    """Of what arrived from the warm-up until the first fault; none if arrivals come by design at no steady rate.

    A task that never completed took as long as it is old.
    """
    faults_s = (event.time_s for event in event_rows(tables.events, FAULTS))
    arrival_s = floats(tables.tasks, "arrival_s")
    steady = scenario.workload.arrivals.kind not in ("on_off", "trace")
    judged = (arrival_s >= scenario.warmup_s) & (arrival_s < min(faults_s, default=np.inf)) & steady
    took_s = np.minimum(latency_s(tables.tasks), age_s(tables.tasks, ended_s))
    return Batches.of(arrival_s[judged], took_s[judged])


def unsettled_until_s(runs: Sequence[Batches]) -> float | None:
    """Until when latency had not settled, over the replications of a scenario; None if that is not seen."""
    n = min(len(run.mean_s) for run in runs)
    if n < FEWEST:
        return None
    means_s = np.array([run.mean_s[:n] for run in runs])
    cut = mser(np.mean(means_s, axis=0))
    if not 0 < cut < n // 2 or not np.all(means_s > 0) or not _begins_otherwise(np.log(means_s)):
        return None
    return float(np.mean([run.until_s[cut - 1] for run in runs]))


def mser(means: Floats) -> int:
    """How many of these to cut off: what minimises the variance of the others divided by their number.

    At most half; if it is half, there are too few to tell.
    """
    n = len(means)
    left = np.arange(n, 0, -1)
    sums, squares = (np.cumsum(values[::-1])[::-1] for values in (means, means**2))
    return int(np.argmin(((squares - sums**2 / left) / left**2)[: n // 2 + 1]))


def _begins_otherwise(values: Floats) -> bool:
    """Whether the mean of the first values differs from that of the second half; float64[runs, n]."""
    runs, n = values.shape
    early, late = values[:, : max(int(EARLY * n), 1)], values[:, n // 2 :]
    differences = np.mean(early, axis=1) - np.mean(late, axis=1)
    if runs > 1:
        error, freedom = float(np.std(differences, ddof=1)) / np.sqrt(runs), runs - 1
    else:
        blocks = np.array([np.mean(block) for block in np.array_split(late[0], BLOCKS)])
        of_one = float(np.var(blocks, ddof=1)) * inflation(blocks - np.mean(blocks)) * late.shape[1] / BLOCKS
        error, freedom = float(np.sqrt(of_one * (1 / early.shape[1] + 1 / late.shape[1]))), BLOCKS - 1
    off = abs(float(np.mean(differences)))
    if off <= NormalDist().inv_cdf((1 + LEVEL) / 2) * error:
        return False  # by Student's t even less, and importing it takes longer than many a run
    from scipy.special import stdtrit

    return bool(off > stdtrit(freedom, (1 + LEVEL) / 2) * error)
