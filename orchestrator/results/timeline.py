"""A run over time: latency, rates and the queue in equal bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.results.durations import latency_s
from orchestrator.results.executions import end_s
from orchestrator.results.queues import Changes, at_coordinator, at_the_door, at_workers
from orchestrator.results.tables import STATES, Codes, Floats, State, Tables, codes, floats

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

_COMPLETED = STATES.index(State.COMPLETED)


@dataclass(frozen=True)
class Series:
    """The bins of a run; `duration_s` is an edge. NaN in a bin without a value, infinite where it is not known."""

    edges_s: Floats
    """float64[bins + 1]; the other arrays are float64[bins]."""
    p50_s: Floats
    """Latency of the tasks that arrived in each bin, so that a wait shows where it began. All of them: a percentile
    that falls on a task without a result is not known."""
    p99_s: Floats
    slowest_s: Floats
    arrivals_per_s: Floats
    completions_per_s: Floats
    waiting: Floats
    """Mean number of tasks that have arrived, are not executed and not settled, wherever they are: at a coordinator
    that does not accept them yet, in its queue, between two attempts, or at a worker."""
    waiting_at_workers: Floats
    """Those of them that are assigned to a worker and have not begun."""


def series(tables: Tables, scenario: Scenario) -> Series:
    """The run in about 120 bins."""
    until_s = max(end_s(tables, scenario), scenario.duration_s)  # later than a run that was interrupted
    edges_s = _edges(scenario.duration_s, until_s, tables.tasks.num_rows)
    n, width_s = len(edges_s) - 1, edges_s[1]
    arrival_s = floats(tables.tasks, "arrival_s")
    completed = codes(tables.tasks, "state", STATES) == _COMPLETED
    settled_s = floats(tables.tasks, "settled_s")[completed]
    arrival_bin = _bins(arrival_s, width_s, n)
    quantiles = _binned_quantiles(arrival_bin, latency_s(tables.tasks), n, (0.5, 0.99, 1.0))
    at_workers_mean = _mean_level(at_workers(tables), edges_s)
    elsewhere = _mean_level(at_the_door(tables), edges_s) + _mean_level(at_coordinator(tables), edges_s)
    return Series(
        edges_s=edges_s,
        p50_s=quantiles[0],
        p99_s=quantiles[1],
        slowest_s=quantiles[2],
        arrivals_per_s=np.bincount(arrival_bin, minlength=n) / width_s,
        completions_per_s=np.bincount(_bins(settled_s, width_s, n), minlength=n) / width_s,
        waiting=elsewhere + at_workers_mean,
        waiting_at_workers=at_workers_mean,
    )


def _mean_level(changes: Changes, edges_s: Floats) -> Floats:
    """The time average, in each bin, of a level that starts at 0."""
    time_s, change = changes
    n, width_s = len(edges_s) - 1, edges_s[1]
    where = _bins(time_s, width_s, n)
    net = np.bincount(where, change, minlength=n)
    within = np.bincount(where, change * (edges_s[where + 1] - time_s), minlength=n) / width_s
    level: Floats = np.maximum(np.cumsum(net) - net + within, 0.0)
    return level


def _binned_quantiles(where: Codes, values: Floats, n: int, quantiles: Sequence[float]) -> Floats:
    """float64[quantiles, n]: quantiles of the values in each bin, NaN in an empty bin, infinite as in `quantile`."""
    ordered = np.append(values[np.lexsort((values, where))], np.nan)
    count = np.bincount(where, minlength=n)
    position = (np.cumsum(count) - count) + np.multiply.outer(quantiles, np.maximum(count - 1, 0))
    low = np.floor(position).astype(np.int64)
    high = np.ceil(position).astype(np.int64)
    with np.errstate(invalid="ignore"):
        points: Floats = ordered[low] + (position - low) * (ordered[high] - ordered[low])
    points[np.isinf(ordered[high])] = np.inf
    points[:, count == 0] = np.nan
    return points


def _edges(duration_s: float, until_s: float, tasks: int) -> Floats:
    """About 120 bins; fewer if there are few tasks, so that a bin holds enough of them."""
    most = min(max(tasks / 60, 12), 120)
    width_s = duration_s / max(round(most * duration_s / until_s), 1)
    # What happens at the very end belongs to the last bin. Without the margin, rounding could add an empty bin.
    return np.arange(int(np.ceil(until_s / width_s - 1e-9)) + 1, dtype=np.float64) * width_s


def _bins(time_s: Floats, width_s: float, n: int) -> Codes:
    return np.clip((time_s / width_s).astype(np.int64), 0, n - 1)
