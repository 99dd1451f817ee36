"""Whom a fault hits, and who is slower in one run than in another of the same tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.analysis.measures import Flags
from orchestrator.core.model import Outcome
from orchestrator.results.executions import end_s
from orchestrator.results.tables import FAULTS, OUTCOMES, FaultEvent, Floats, Tables, codes, event_rows, faults_ended_by
from orchestrator.results.tables import floats as seconds

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

SPREAD = (0.05, 0.95)
"""Between which shares of the tasks their delays are told."""


def hit_tasks(tables: Tables, scenario: Scenario) -> Flags:
    """Whether each task had an attempt at a worker while a fault of it, or of its network, lasted: bool[tasks].

    That includes an attempt whose call failed: its task waits as long as nobody knows whether it runs.
    """
    attempts, names = tables.attempts, scenario.worker_names()
    worker, outcome = codes(attempts, "worker", names), codes(attempts, "outcome", OUTCOMES)
    ended_s = end_s(tables, scenario)
    assigned_s = seconds(attempts, "assigned_s")
    released_s = np.nan_to_num(np.fmin(seconds(attempts, "ended_s"), seconds(attempts, "given_up_s")), nan=ended_s)
    held = outcome != OUTCOMES.index(Outcome.REJECTED.name.lower())
    order = np.argsort(worker, kind="stable")
    first = np.searchsorted(worker[order], np.arange(len(names) + 1))
    hit = np.zeros(len(worker), dtype=np.bool_)
    place = {name: position for position, name in enumerate(names)}
    for name, since_s, until_s in outages(tables, ended_s):
        mine = order[first[place[name]] : first[place[name] + 1]] if name in place else order[:0]
        hit[mine] |= held[mine] & (assigned_s[mine] < until_s) & (released_s[mine] >= since_s)
    struck: Flags = np.isin(tables.tasks.column("task").to_numpy(), attempts.column("task").to_numpy()[hit])
    return struck


def outages(tables: Tables, ended_s: float) -> list[tuple[str, float, float]]:
    """Each fault of a worker: the worker, from when and until when it lasts."""
    since: dict[tuple[str, str], float] = {}
    found = []
    for at_s, kind, name, detail in event_rows(tables.events, (*FAULTS, FaultEvent.HEAL)):
        if name is None:
            continue
        if kind != FaultEvent.HEAL:
            since.setdefault((name, kind), at_s)
            continue
        for ended in faults_ended_by(detail):
            if (name, ended) in since:
                found.append((name, since.pop((name, ended)), at_s))
    return found + [(name, at_s, ended_s) for (name, _), at_s in since.items()]


@dataclass(frozen=True)
class Shift:
    """Tasks of several pairs of runs, whose latencies differ by more than a threshold in one direction."""

    tasks: int
    """All of them, of all pairs."""
    median_s: float | None
    """By how much, always positive; None if there are none, as the next two."""
    low_s: float | None
    high_s: float | None

    @classmethod
    def of(cls, by_s: Floats) -> Shift:
        if not len(by_s):
            return cls(0, None, None, None)
        low_s, median_s, high_s = (float(value) for value in np.quantile(by_s, [SPREAD[0], 0.5, SPREAD[1]]))
        return cls(len(by_s), median_s, low_s, high_s)


@dataclass(frozen=True)
class TaskShifts:
    """The same tasks in two cells: under common random numbers each has its arrival and its demand in both."""

    threshold_s: float
    """Smaller differences do not count: the median latency of the baseline."""
    delayed: Sequence[int]
    """By pair of runs: tasks that took longer than in the baseline by more than the threshold."""
    sped_up: Sequence[int]
    later: Shift
    sooner: Shift
    hit: int
    """Tasks that a fault hit in either cell, of all pairs."""
    hit_later: Shift
    hit_sooner: Shift


@dataclass(frozen=True)
class Trial:
    """The tasks of one run, by their numbers."""

    arrival_s: Floats
    latency_s: Floats
    hit: Flags

    def same_tasks(self, other: Trial) -> bool:
        return np.array_equal(self.arrival_s, other.arrival_s)


def shifts(pairs: Sequence[tuple[Trial, Trial]], threshold_s: float) -> TaskShifts | None:
    """From pairs of a baseline's trial and another; None unless each pair has the same tasks.

    A task that completed in one of them only is lost, not delayed: it is counted among the failed and unfinished.
    """
    if not math.isfinite(threshold_s) or not all(one.same_tasks(other) for one, other in pairs):
        return None
    with np.errstate(invalid="ignore"):
        by_s = [other.latency_s - one.latency_s for one, other in pairs]
    hit = [one.hit | other.hit for one, other in pairs]
    later, sooner = ([_over(sign * each, threshold_s) for each in by_s] for sign in (1, -1))
    return TaskShifts(
        threshold_s,
        [int(np.count_nonzero(each)) for each in later],
        [int(np.count_nonzero(each)) for each in sooner],
        later=_shift(by_s, later),
        sooner=_shift([-each for each in by_s], sooner),
        hit=sum(int(np.count_nonzero(each)) for each in hit),
        hit_later=_shift(by_s, [a & b for a, b in zip(later, hit, strict=True)]),
        hit_sooner=_shift([-each for each in by_s], [a & b for a, b in zip(sooner, hit, strict=True)]),
    )


def _shift(by_s: Sequence[Floats], chosen: Sequence[Flags]) -> Shift:
    return Shift.of(np.concatenate([each[which] for each, which in zip(by_s, chosen, strict=True)]))


def _over(by_s: Floats, threshold_s: float) -> Flags:
    over: Flags = np.isfinite(by_s) & (by_s > threshold_s)
    return over
