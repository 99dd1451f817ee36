"""Where and when attempts executed, and so how busy the workers were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.core.model import Outcome
from orchestrator.results.tables import (
    OUTCOMES,
    Codes,
    FaultEvent,
    Floats,
    Tables,
    codes,
    event_rows,
    faults_ended_by,
    floats,
)
from orchestrator.scenario.distributions import longest_s

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

Standstill = tuple[int, float, float]
"""A worker's position, from when and to when its executions stood still."""

_FREEZING = (FaultEvent.PAUSE, FaultEvent.HANG)
_TELLING = (*_FREEZING, FaultEvent.CRASH, FaultEvent.HEAL)
_REPORTED = (Outcome.COMPLETED, Outcome.FAILED)


@dataclass(frozen=True)
class Executions:
    """The execution of each attempt, in the order of the attempts table.

    It is executed for as long as its worker reported, in time or late. Without a report nobody knows more than that it
    ended when its attempt did, when its worker crashed, or with the run, and that it took no more than its demand,
    unless the worker was slowed. An attempt that never started has the empty interval at 0.

    Three things are told apart. An execution is *frozen* while its process stands still (pause, hang), and *executed*
    for the rest of its interval. Its slot is *occupied* from its start until the coordinator hears that it is over, or
    the worker crashes: after a partition, that is long after its end, unless the worker uses the slot again.
    """

    worker: Codes
    """Position of the worker in `scenario.worker_names()`."""
    start_s: Floats
    stop_s: Floats
    free_s: Floats
    """When the slot is free again."""
    frozen: tuple[Codes, Floats, Floats]
    """The pieces of the intervals in which an execution stood still: row, from, to."""

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario) -> Executions:
        attempts, names = tables.attempts, scenario.worker_names()
        worker = codes(attempts, "worker", names)
        start_s, ended_s = floats(attempts, "started_s"), floats(attempts, "ended_s")
        stop_s = start_s + floats(attempts, "ran_s")
        run_ended_s = end_s(tables, scenario)
        free_s = np.where(np.isnan(ended_s), run_ended_s, ended_s)
        standstills = _standstills(tables, names, run_ended_s)
        silent = ~np.isin(codes(attempts, "outcome", OUTCOMES), _REPORTED) & ~np.isnan(start_s)
        rows = np.flatnonzero(silent)
        if len(rows):
            free_s[rows] = np.minimum(free_s[rows], _next_crash(tables, names, worker[rows], start_s[rows]))
        rows = np.flatnonzero(np.isnan(stop_s) & ~np.isnan(start_s))
        if len(rows):
            needed_s = _demanded_until_s(tables, scenario, worker[rows], start_s[rows], standstills, rows)
            stop_s[rows] = np.minimum(free_s[rows], needed_s)
        stop_s = np.maximum(start_s, stop_s)
        free_s = np.where(np.isnan(start_s), np.nan, np.fmax(stop_s, free_s))
        start_s, stop_s, free_s = (np.nan_to_num(moments) for moments in (start_s, stop_s, free_s))
        return cls(worker, start_s, stop_s, free_s, _frozen(standstills, worker, start_s, stop_s))

    @property
    def executed_s(self) -> Floats:
        """Of each attempt, over the whole run."""
        row, since_s, until_s = self.frozen
        return self.stop_s - self.start_s - np.bincount(row, until_s - since_s, minlength=len(self.start_s))

    def busy_s(self, scenario: Scenario) -> Floats:
        """Executed seconds within [warmup_s, duration_s], by worker."""
        row, since_s, until_s = self.frozen
        executed_s = self._within(scenario, self.worker, self.start_s, self.stop_s)
        return executed_s - self._within(scenario, self.worker[row], since_s, until_s)

    def shares_s(self, scenario: Scenario) -> dict[str, float]:
        """Seconds within [warmup_s, duration_s] in which slots executed, were occupied, and stood still."""
        row, since_s, until_s = self.frozen
        return {
            "executed_s": float(np.sum(self.busy_s(scenario))),
            "occupied_s": self._occupied_s(scenario),
            "frozen_s": float(np.sum(self._within(scenario, self.worker[row], since_s, until_s))),
        }

    def _occupied_s(self, scenario: Scenario) -> float:
        """A worker with a queue of its own begins the next attempt before the coordinator hears of the last one's end:
        no more of its slots are occupied than it has."""
        if not any(group.prefetch for group in scenario.cluster.groups) or not np.any(self.free_s > self.stop_s):
            return float(np.sum(self._within(scenario, self.worker, self.start_s, self.free_s)))
        known = self.worker >= 0
        worker = np.tile(self.worker[known], 2)
        moments_s = np.concatenate([self.start_s[known], self.free_s[known]])
        moments_s = np.clip(moments_s, scenario.warmup_s, scenario.duration_s)
        order = np.lexsort((moments_s, worker))
        level = np.cumsum(np.repeat([1, -1], len(order) // 2)[order])  # 0 after the last moment of each worker
        taken = np.minimum(level, per_worker(scenario, "capacity")[worker[order]])
        return float(taken[:-1] @ np.diff(moments_s[order]))

    def changes(self) -> tuple[Floats, Floats]:
        """The moments at which the number of executions that go on changes, and by how much."""
        _, since_s, until_s = self.frozen
        moments = [self.start_s, self.stop_s, since_s, until_s]
        return np.concatenate(moments), np.repeat([1.0, -1.0, -1.0, 1.0], [len(each) for each in moments])

    @staticmethod
    def _within(scenario: Scenario, worker: Codes, since_s: Floats, until_s: Floats) -> Floats:
        since_s, until_s = (np.clip(t, scenario.warmup_s, scenario.duration_s) for t in (since_s, until_s))
        known, workers = worker >= 0, len(scenario.worker_names())
        return np.bincount(worker[known], (until_s - since_s)[known], minlength=workers).astype(np.float64)


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


def stated_load(scenario: Scenario) -> float | None:
    """The offered load, as far as the scenario itself says it: the file of a trace may be gone, or be another."""
    return None if scenario.workload.arrivals.kind == "trace" else scenario.offered_load()


def window_s(scenario: Scenario) -> float:
    """The length of [warmup_s, duration_s], in which rates are measured."""
    return max(scenario.duration_s - scenario.warmup_s, 0.0)


def end_s(tables: Tables, scenario: Scenario) -> float:
    """When the run ended. Tables that do not say it ended with the last thing that happened, at `duration_s` at the
    earliest."""
    if tables.ended_s is not None:
        return tables.ended_s
    columns = [
        floats(tables.tasks, "settled_s"),
        *(floats(tables.attempts, name) for name in ("assigned_s", "started_s", "given_up_s", "ended_s")),
        floats(tables.events, "time_s"),
    ]
    return float(np.fmax.reduce([np.fmax.reduce(column, initial=scenario.duration_s) for column in columns]))


def _standstills(tables: Tables, names: Sequence[str], ended_s: float) -> list[Standstill]:
    """When the executions of each worker stood still, in order of time; those of one worker do not overlap."""
    place = {name: position for position, name in enumerate(names)}
    active: dict[str, set[str]] = {}
    since: dict[str, float] = {}
    found: list[Standstill] = []
    for at_s, kind, name, detail in event_rows(tables.events, _TELLING):
        if name is None or name not in place:
            continue
        faults = active.setdefault(name, set())
        if kind in _FREEZING:
            faults.add(kind)
            since.setdefault(name, at_s)
            continue
        faults.difference_update([FaultEvent.PAUSE] if kind == FaultEvent.CRASH else faults_ended_by(detail))
        if name in since and not faults:
            found.append((place[name], since.pop(name), at_s))
    found += [(place[name], at_s, ended_s) for name, at_s in since.items()]
    return sorted(found, key=lambda standstill: standstill[1])


def _frozen(
    standstills: Sequence[Standstill], worker: Codes, start_s: Floats, stop_s: Floats
) -> tuple[Codes, Floats, Floats]:
    rows, since, until = [np.empty(0, dtype=np.int64)], [np.empty(0)], [np.empty(0)]
    for position, since_s, until_s in standstills:
        mine = np.flatnonzero((worker == position) & (start_s < until_s) & (stop_s > since_s))
        rows.append(mine)
        since.append(np.maximum(start_s[mine], since_s))
        until.append(np.minimum(stop_s[mine], until_s))
    return np.concatenate(rows), np.concatenate(since), np.concatenate(until)


def _demanded_until_s(
    tables: Tables,
    scenario: Scenario,
    worker: Codes,
    start_s: Floats,
    standstills: Sequence[Standstill],
    rows: Codes,
) -> Floats:
    """When the executions of these rows have had what their tasks demand; infinity where their worker was slowed.

    `worker` and `start_s` are those of the rows.
    """
    task = np.searchsorted(tables.tasks.column("task").to_numpy(), tables.attempts.column("task").to_numpy()[rows])
    service_s = np.append(floats(tables.tasks, "service_s"), np.nan)[task]
    overhead = scenario.cluster.overhead
    work_s = service_s / per_worker(scenario, "speed")[worker] + (0.0 if overhead is None else longest_s(overhead))
    until_s: Floats = np.where(np.isnan(work_s), np.inf, start_s + work_s)
    for position, since_s, end in standstills:
        meets = (worker == position) & (start_s < end) & (until_s > since_s)
        until_s[meets] += end - np.maximum(start_s, since_s)[meets]
    slowed = codes(tables.events, "worker", scenario.worker_names())[
        codes(tables.events, "kind", [FaultEvent.SLOW]) == 0
    ]
    until_s[np.isin(worker, slowed)] = np.inf
    return until_s


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
