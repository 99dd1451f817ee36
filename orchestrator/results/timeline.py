"""A run over time: latency, rates and the queue in equal bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.results.executions import end_s
from orchestrator.results.tables import STATES, Codes, Floats, State, Tables, codes, floats

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

_COMPLETED = STATES.index(State.COMPLETED)


@dataclass(frozen=True)
class Series:
    """The bins of a run; `duration_s` is an edge. NaN in a bin without a value."""

    edges_s: Floats
    """float64[bins + 1]; the other arrays are float64[bins]."""
    p50_s: Floats
    """Latency of the tasks that arrived in each bin, so that a wait shows where it began."""
    p99_s: Floats
    slowest_s: Floats
    arrivals_per_s: Floats
    completions_per_s: Floats
    waiting: Floats
    """Mean number of accepted tasks that no worker holds, including tasks between two attempts."""


def series(tables: Tables, scenario: Scenario) -> Series:
    """The run in about 120 bins."""
    edges_s = _edges(scenario.duration_s, end_s(tables, scenario), tables.tasks.num_rows)
    n, width_s = len(edges_s) - 1, edges_s[1]
    arrival_s = floats(tables.tasks, "arrival_s")
    completed = codes(tables.tasks, "state", STATES) == _COMPLETED
    settled_s = floats(tables.tasks, "settled_s")[completed]
    arrival_bin = _bins(arrival_s, width_s, n)
    latency_s = floats(tables.tasks, "latency_s")[completed]
    quantiles = _binned_quantiles(arrival_bin[completed], latency_s, n, (0.5, 0.99, 1.0))
    return Series(
        edges_s=edges_s,
        p50_s=quantiles[0],
        p99_s=quantiles[1],
        slowest_s=quantiles[2],
        arrivals_per_s=np.bincount(arrival_bin, minlength=n) / width_s,
        completions_per_s=np.bincount(_bins(settled_s, width_s, n), minlength=n) / width_s,
        waiting=_mean_level(*_queue_changes(tables), edges_s),
    )


def _queue_changes(tables: Tables) -> tuple[Floats, Floats]:
    """The moments at which the number of waiting tasks changes, and by how much.

    A task waits while it is accepted, not settled and not held by an attempt. An attempt holds it from its assignment
    until the attempt is given up or ends, or another attempt settles the task.
    """
    tasks, attempts = tables.tasks, tables.attempts
    settled_s = floats(tasks, "settled_s")
    task_row = np.searchsorted(tasks.column("task").to_numpy(), attempts.column("task").to_numpy())
    released_s = np.fmin(floats(attempts, "given_up_s"), floats(attempts, "ended_s"))
    released_s = np.fmin(released_s, settled_s[task_row])
    moments = [floats(tasks, "accepted_s"), settled_s, floats(attempts, "assigned_s"), released_s]
    change = np.repeat([1.0, -1.0, -1.0, 1.0], [len(m) for m in moments])
    time_s = np.concatenate(moments)
    happened = ~np.isnan(time_s)
    return time_s[happened], change[happened]


def _mean_level(time_s: Floats, change: Floats, edges_s: Floats) -> Floats:
    """The time average, in each bin, of a level that starts at 0 and changes at the given moments."""
    n, width_s = len(edges_s) - 1, edges_s[1]
    where = _bins(time_s, width_s, n)
    net = np.bincount(where, change, minlength=n)
    within = np.bincount(where, change * (edges_s[where + 1] - time_s), minlength=n) / width_s
    level: Floats = np.maximum(np.cumsum(net) - net + within, 0.0)
    return level


def _binned_quantiles(where: Codes, values: Floats, n: int, quantiles: Sequence[float]) -> Floats:
    """float64[quantiles, n]: quantiles of the values in each bin, NaN in an empty bin."""
    ordered = np.append(values[np.lexsort((values, where))], np.nan)
    count = np.bincount(where, minlength=n)
    position = (np.cumsum(count) - count) + np.multiply.outer(quantiles, np.maximum(count - 1, 0))
    low = np.floor(position).astype(np.int64)
    high = np.ceil(position).astype(np.int64)
    points: Floats = ordered[low] + (position - low) * (ordered[high] - ordered[low])
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
