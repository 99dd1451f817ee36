"""Where and when attempts executed, and so how busy the workers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.results.tables import Codes, FaultEvent, Floats, Tables, codes, floats

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario


@dataclass(frozen=True)
class Executions:
    """The execution of each attempt, in the order of the attempts table.

    It lasts from the start for as long as the worker reported. Without a report it lasts until the attempt ended, its
    worker crashed or the run ended. An attempt that never started has the empty interval at 0.
    """

    worker: Codes
    """Position of the worker in `scenario.worker_names()`."""
    start_s: Floats
    stop_s: Floats

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario) -> Executions:
        attempts, names = tables.attempts, scenario.worker_names()
        worker = codes(attempts, "worker", names)
        start_s = floats(attempts, "started_s")
        stop_s = start_s + floats(attempts, "ran_s")
        unreported = np.flatnonzero(np.isnan(stop_s) & ~np.isnan(start_s))
        if len(unreported):
            ended_s = floats(attempts, "ended_s")[unreported]
            last_s = np.where(np.isnan(ended_s), end_s(tables, scenario), ended_s)
            stop_s[unreported] = np.minimum(last_s, _next_crash(tables, names, worker[unreported], start_s[unreported]))
        return cls(worker, np.nan_to_num(start_s), np.nan_to_num(np.maximum(start_s, stop_s)))

    def busy_s(self, scenario: Scenario) -> Floats:
        """Execution seconds within [warmup_s, duration_s], by worker."""
        start_s, stop_s = (np.clip(t, scenario.warmup_s, scenario.duration_s) for t in (self.start_s, self.stop_s))
        known = self.worker >= 0
        workers = len(scenario.worker_names())
        busy_s = np.bincount(self.worker[known], (stop_s - start_s)[known], minlength=workers)
        return busy_s.astype(np.float64)


def worker_utilization(tables: Tables, scenario: Scenario) -> Floats:
    """The busy share of each worker's slots in [warmup_s, duration_s], in the order of `scenario.worker_names()`."""
    available_s = per_worker(scenario, "capacity") * window_s(scenario)
    busy_s = Executions.of(tables, scenario).busy_s(scenario)
    return np.divide(busy_s, available_s, out=np.zeros_like(busy_s), where=available_s > 0)


def per_worker(scenario: Scenario, setting: str) -> Floats:
    """A numeric setting of the groups, such as `capacity` or `speed`, for each of `scenario.worker_names()`."""
    groups = scenario.cluster.groups
    return np.repeat(np.array([float(getattr(g, setting)) for g in groups]), [g.workers for g in groups])


def slots(scenario: Scenario) -> float:
    """How many attempts all workers together can execute at once."""
    return float(np.sum(per_worker(scenario, "capacity")))


def window_s(scenario: Scenario) -> float:
    """The length of [warmup_s, duration_s], in which rates are measured."""
    return max(scenario.duration_s - scenario.warmup_s, 0.0)


def end_s(tables: Tables, scenario: Scenario) -> float:
    """The time of the last thing that happened, and at least `duration_s`."""
    columns = [
        floats(tables.tasks, "settled_s"),
        *(floats(tables.attempts, name) for name in ("assigned_s", "started_s", "given_up_s", "ended_s")),
        floats(tables.events, "time_s"),
    ]
    return float(np.fmax.reduce([np.fmax.reduce(column, initial=scenario.duration_s) for column in columns]))


def _next_crash(tables: Tables, names: Sequence[str], worker: Codes, after_s: Floats) -> Floats:
    """The first crash of each worker at or after each moment; infinity if there is none."""
    crash = codes(tables.events, "kind", [FaultEvent.CRASH]) == 0
    crash_s = floats(tables.events, "time_s")[crash]
    crash_worker = codes(tables.events, "worker", names)[crash]
    # One integer orders (worker, time) exactly; a sum of floats would round.
    moments, rank = np.unique(np.concatenate([crash_s, after_s]), return_inverse=True)
    key = np.concatenate([crash_worker, worker]) * len(moments) + rank
    order = np.argsort(key[: len(crash_s)])
    found = np.searchsorted(key[order], key[len(crash_s) :])
    next_worker = np.append(crash_worker[order], -2)[found]
    return np.where(next_worker == worker, np.append(crash_s[order], np.inf)[found], np.inf)
