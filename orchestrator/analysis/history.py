"""A run's tables as arrays for the history checker, and the sentences that name their rows.
The arrays come from the tables and the resolved scenario only, never from the coordinator: the tables may be wrong in
any way. Rows of tasks are in the order of their ids, rows of attempts in the order of (task, number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.absences import Absence, Parting, absences_of
from orchestrator.core.model import Outcome
from orchestrator.policies.retry import ConstantBackoff
from orchestrator.results.runs import Run
from orchestrator.results.summaries import kind_codes
from orchestrator.results.tables import OUTCOMES, PRIORITIES, STATES, Codes, Event, Floats, codes, event_rows, floats
from orchestrator.scenario.schema import Scenario

Rows = Codes
Mask = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.int64, np.float64)
Text = Callable[[int], str]

_LOST = (Outcome.TIMED_OUT, Outcome.WORKER_DIED)


@dataclass(frozen=True)
class Violation:
    """One sentence about a broken promise, with the task, the worker and the time if they are known."""

    promise: str
    sentence: str
    task: int | None = None
    worker: str | None = None
    at_s: float | None = None

    def __str__(self) -> str:
        return f"{self.promise}: {self.sentence}"


class Breach(NamedTuple):
    """Rows that break a promise, and a function that describes one of them."""

    rows: Rows
    say: Callable[[int], Violation]


class History:
    """A run as arrays. `healed` and `grace_s`: as in `promises.check`."""

    def __init__(self, run: Run, healed: bool = False, grace_s: float = 0.0) -> None:
        self.scenario, self.summary = run.scenario, run.summary
        self.healed, self.grace_s = healed, grace_s
        self.workers = run.scenario.worker_names()
        tables = run.tables
        tasks, attempts = tables.tasks, tables.attempts
        self._events = tables.events

        self.task: Codes = tasks.column("task").to_numpy()
        self.state = codes(tasks, "state", STATES)
        self.priority = codes(tasks, "priority", PRIORITIES)
        self.kind = kind_codes(tables, run.scenario)
        self.settled_by = codes(tasks, "worker", self.workers)
        self.counted: Codes = tasks.column("attempts").to_numpy().astype(np.int64)
        self.arrival_s, self.accepted_s = floats(tasks, "arrival_s"), floats(tasks, "accepted_s")
        self.settled_s, self.service_s = floats(tasks, "settled_s"), floats(tasks, "service_s")

        self.of: Codes = attempts.column("task").to_numpy()
        self.number: Codes = attempts.column("attempt").to_numpy().astype(np.int64)
        self.worker = codes(attempts, "worker", self.workers)
        self.outcome = codes(attempts, "outcome", OUTCOMES)
        self.settles: Mask = attempts.column("settled").to_numpy()
        self.assigned_s, self.started_s = floats(attempts, "assigned_s"), floats(attempts, "started_s")
        self.given_up_s, self.ended_s = floats(attempts, "given_up_s"), floats(attempts, "ended_s")
        self.ran_s = floats(attempts, "ran_s")
        self.released_s = or_never(np.fmin(self.given_up_s, self.ended_s))
        """When the task stopped counting on each attempt; infinity if it never did."""

        place = np.searchsorted(self.task, self.of)
        self.known = np.isin(self.of, self.task)
        """Whether the task of each attempt was submitted."""
        self.row: Rows = np.where(self.known, place, 0)
        """The row of each attempt's task; 0 if there is none."""

    # ---- facts about tasks and attempts

    def of_task(self, column: Floats) -> Floats:
        """A column of the tasks for each attempt; NaN if there is no task."""
        return np.where(self.known, np.append(column, np.nan)[self.row], np.nan)

    def per_task(self, mask: Mask) -> Codes:
        """The number of attempts in the mask, by row of the tasks."""
        return np.bincount(self.row[mask & self.known], minlength=len(self.task))

    @cached_property
    def settling(self) -> Rows:
        """The row of the attempt that settled each task, -1 if none did."""
        found = np.full(len(self.task), -1)
        which = np.flatnonzero(self.settles & self.known)
        found[self.row[which]] = which
        return found

    @cached_property
    def follows(self) -> Mask:
        """Whether the row before each attempt's row is of the same task."""
        follows: Mask = self.of == shifted(self.of, -1)
        return follows

    @cached_property
    def first(self) -> Rows:
        """For each attempt, the row of the first attempt of its task."""
        rows = np.arange(len(self.follows))
        first: Rows = np.maximum.accumulate(np.where(self.follows, 0, rows))
        return first

    @cached_property
    def hedge(self) -> Mask:
        """Attempts that were assigned while their task may still have counted on an earlier one."""
        hedge: Mask = self._counted_until(self.released_s) > self.assigned_s
        return hedge

    @cached_property
    def certain_hedge(self) -> Mask:
        """`hedge`, without those that may have been assigned while the earlier one did not count."""
        certain_s = self.released_s.copy()
        for parting, rows in self._returns():
            certain_s[rows] = np.minimum(certain_s[rows], parting.at_s)
        hedge: Mask = self._counted_until(certain_s) > self.assigned_s
        return hedge

    @cached_property
    def perhaps_hedge(self) -> Mask:
        """`hedge`, and if tasks may be hedged or count again, also attempts assigned at the end of an earlier one."""
        if hedged(self.scenario) or self.reopened.any():
            perhaps: Mask = self.follows & (self._counted_until(self.released_s) >= self.assigned_s)
            return perhaps
        return self.hedge

    @cached_property
    def reopened(self) -> Mask:
        """Attempts on which their task may have counted again after their worker was declared dead and returned.

        The row of such an attempt does not show that it was given up before.
        """
        reopened = np.zeros(len(self.of), dtype=np.bool_)
        for _, rows in self._returns():
            reopened[rows] = True
        return reopened

    def _returns(self) -> Iterator[tuple[Parting, Rows]]:
        """Deaths from which the same process returned, and the attempts that it may have kept."""
        for parting in self.partings:
            if not math.isinf(parting.back_s):
                rows = self.given(parting.worker, -math.inf, math.nextafter(parting.at_s, math.inf))
                released_s = self.released_s[rows]
                # Everything may be of one moment, when a coordinator hears what came while it stood still.
                yield parting, rows[(released_s >= parting.at_s) & (released_s >= parting.back_s)]

    def _counted_until(self, released_s: Floats) -> Floats:
        """For each attempt, when its task had stopped counting on every earlier one; -infinity for the first."""
        latest_s, step = released_s.copy(), 1  # the latest release of each attempt and the `step` - 1 before
        while step < len(latest_s):
            same = np.flatnonzero(self.of[step:] == self.of[:-step]) + step
            if not len(same):
                break
            latest_s[same] = np.maximum(latest_s[same], latest_s[same - step])
            step *= 2
        return np.where(self.follows, shifted(latest_s, -np.inf), -np.inf)

    @cached_property
    def consumed(self) -> Mask:
        """Attempts that consumed one of their task's tries."""
        consumed: Mask = np.isin(self.outcome, _LOST) | ((self.outcome == Outcome.FAILED) & ~self.settles)
        return consumed

    def was_given(self, task: int) -> bool:
        """Whether the task had been assigned to the worker that settled it, before it was settled."""
        mine = slice(*np.searchsorted(self.of, [self.task[task], self.task[task] + 1]))
        there = (self.worker[mine] == self.settled_by[task]) & (self.assigned_s[mine] <= self.settled_s[task])
        return bool(there.any())

    def waits(self) -> tuple[Rows, Floats, Floats]:
        """Stretches of time in which a task certainly stood in the queue: its row, begin, end (infinity: never)."""
        settled_s = or_never(self.settled_s)
        first = self.known & ~self.follows
        assigned_s = np.full(len(self.task), np.inf)
        assigned_s[self.row[first]] = self.assigned_s[first]
        tasks = np.flatnonzero(~np.isnan(self.accepted_s))
        # A task also waits after an attempt that it stopped counting on. With hedges, that moment is not certain.
        backoff = self.scenario.policies.retry.backoff
        at_once = [Outcome.REJECTED]
        if isinstance(backoff, ConstantBackoff) and backoff.delay_s == 0:
            at_once += [Outcome.CALL_FAILED, *_LOST, Outcome.FAILED]
        simple = self.per_task(self.hedge) == 0
        back = np.flatnonzero(self.known & np.isin(self.outcome, at_once) & ~self.settles)
        back = back[simple[self.row[back]]]
        next_s = np.where(
            np.append(self.follows, False)[back + 1], np.append(self.assigned_s, np.inf)[back + 1], np.inf
        )
        return (
            np.concatenate([tasks, self.row[back]]),
            np.concatenate([self.accepted_s[tasks], self._room_for_copy_s(back)]),
            np.minimum(
                np.concatenate([assigned_s[tasks], next_s]),
                np.concatenate([settled_s[tasks], settled_s[self.row[back]]]),
            ),
        )

    def _room_for_copy_s(self, back: Rows) -> Floats:
        """For attempts that their tasks stopped counting on: when each task certainly had fewer than `max_copies`
        attempts on workers, from that moment on."""
        room_s = self.released_s[back].copy()
        ended_s = or_never(self.ended_s)
        most = self.scenario.policies.retry.max_copies
        first = self.first[back]
        for place in np.flatnonzero(back - first + 1 >= most):
            copies_s = ended_s[first[place] : back[place] + 1]
            copies_s = np.sort(copies_s[copies_s > room_s[place]])
            if len(copies_s) >= most:
                room_s[place] = copies_s[len(copies_s) - most]
        return room_s

    @cached_property
    def limit(self) -> Floats:
        """How many attempts each worker may hold: capacity + prefetch."""
        groups = self.scenario.cluster.groups
        limits = [group.capacity + (math.inf if group.prefetch == "unlimited" else group.prefetch) for group in groups]
        return np.repeat(limits, [group.workers for group in groups])

    def given(self, worker: int, since_s: float, until_s: float) -> Rows:
        """The attempts that were assigned to a worker strictly between two moments, in order of time."""
        order, at_s, begins = self._by_worker
        mine = slice(begins[worker], begins[worker + 1])
        begin = np.searchsorted(at_s[mine], since_s, side="right")
        return order[mine][begin : np.searchsorted(at_s[mine], until_s, side="left")]

    @cached_property
    def _by_worker(self) -> tuple[Rows, Floats, Rows]:
        """Attempt rows sorted by worker and time, their times, and where the rows of each worker begin."""
        order = np.lexsort((self.assigned_s, self.worker))
        begins = np.searchsorted(self.worker[order], np.arange(len(self.workers) + 1))
        return order, self.assigned_s[order], begins

    def events(self) -> Iterator[tuple[int, Event]]:
        """The position of the worker (-1: the coordinator) and the event, in the order of time."""
        return zip(codes(self._events, "worker", self.workers).tolist(), event_rows(self._events), strict=True)

    def events_of(self, kind: str) -> list[Event]:
        """Those of one kind, in the order of time. It costs little where they are few."""
        return list(event_rows(self._events, [kind]))

    @property
    def absences(self) -> list[Absence]:
        """When nothing may be assigned to a worker."""
        return self._away[0]

    @property
    def partings(self) -> list[Parting]:
        """When the coordinator stopped counting on what a worker held."""
        return self._away[1]

    @cached_property
    def _away(self) -> tuple[list[Absence], list[Parting]]:
        return absences_of(len(self.workers), self.events())

    # ---- sentences

    def tasks(self, rows: Rows, text: Text) -> Breach:
        return Breach(rows, lambda i: self.about_task(i, text(i)))

    def attempts(self, rows: Rows, text: Text) -> Breach:
        return Breach(rows, lambda i: self.about_attempt(i, text(i)))

    def about_task(self, i: int, text: str) -> Violation:
        worker = self.workers[self.settled_by[i]] if self.settled_by[i] >= 0 else None
        at_s = None if np.isnan(self.settled_s[i]) else float(self.settled_s[i])
        return Violation("", f"task {self.task[i]} {text}", int(self.task[i]), worker, at_s)

    def about_attempt(self, i: int, text: str) -> Violation:
        worker = self.workers[self.worker[i]] if self.worker[i] >= 0 else None
        return Violation("", f"{self.attempt_name(i)} {text}", int(self.of[i]), worker, float(self.assigned_s[i]))

    def attempt_name(self, i: int) -> str:
        worker = self.workers[self.worker[i]] if self.worker[i] >= 0 else "an unknown worker"
        return f"attempt {self.number[i]} of task {self.of[i]} on {worker}"

    def numbers(self, task: int, mask: Mask) -> str:
        """The numbers of the task's attempts in the mask, in words."""
        return " and ".join(str(number) for number in self.number[mask & (self.of == self.task[task])])

    def settled_how(self, i: int) -> str:
        worker = self.workers[self.settled_by[i]] if self.settled_by[i] >= 0 else "no worker"
        return f"at {at_time(self.settled_s[i])} by {worker}"


def hedged(scenario: Scenario) -> bool:
    """Whether a task of this scenario may have two attempts on purpose."""
    return scenario.policies.hedging is not None or scenario.policies.detection.on_suspect == "hedge"


def or_never(time_s: Floats) -> Floats:
    """Infinity instead of NaN."""
    return np.where(np.isnan(time_s), np.inf, time_s)


def shifted(column: npt.NDArray[Number], first: float) -> npt.NDArray[Number]:
    """The value of the row before; `first` for the first row."""
    return np.concatenate([np.array([first], dtype=column.dtype), column])[:-1]


def range_max(values: Floats, begin: Rows, end: Rows) -> Floats:
    """The maximum of values[begin:end] for each pair of begin and end; -inf for an empty range.

    A sparse table, computed row by row: two ranges of 2^k values that may overlap cover any range of up to 2^(k+1).
    """
    found = np.full(len(begin), -np.inf)
    length = end - begin
    most, width = values, 1  # most[i]: of values[i : i + width]
    while len(most) and (length >= width).any():
        of = np.flatnonzero((length >= width) & (length < 2 * width))
        found[of] = np.maximum(most[begin[of]], most[end[of] - width])
        most, width = np.maximum(most[:-width], most[width:]), 2 * width
    return found


def at_time(time_s: float) -> str:
    """A time in words, to the microsecond."""
    return "no time" if np.isnan(time_s) else f"{time_s:.6f}".rstrip("0").rstrip(".") + " s"
