"""The history checker: what a run left behind, held against what the coordinator promises. The same for both worlds.

    check(run)                  every violation, a sentence each
    check(run, healed=True)     and nothing may be left unfinished

It reads the tables and the resolved scenario, never the coordinator: whoever made the tables may be wrong in any way.
Each promise is checked as far as the tables can tell, and no further: a sentence is a bug, silence is no proof.

What the tables do not tell, and what is therefore left open:

- The order of what happened at one moment. All comparisons are strict, so that whatever may have been in order, was.
- Heartbeats, and so the end of a hold after a rejection or a failed call: nobody is accused of assigning to a worker
  that is held. Suspicion, ejection, drain, death and leave are events, and checked.
- When a task joins the queue again after a backoff: only waits without one are held to an order.
- Whether a cancel was sent. An attempt that lives on after its task was settled is a violation only where its worker
  must have heard the cancel: no loss, a bounded delay, and no fault of that worker about that time.
- What a worker did with an attempt of which it never reported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from orchestrator.policies.queueing import FifoConfig, PriorityConfig
from orchestrator.policies.retry import ConstantBackoff
from orchestrator.results.tables import FAULTS, HEALS, OUTCOMES, PRIORITIES, STATES, Codes, Floats, codes, floats
from orchestrator.scenario.distributions import Constant, Distribution, Empirical, Uniform

if TYPE_CHECKING:
    from orchestrator.results.runs import Run
    from orchestrator.scenario.schema import Scenario

MOST = 20
"""Sentences on one promise; the rest is counted."""
EPSILON_S = 1e-6
"""Sums of floats differ in their last digits; nothing that matters happens in a microsecond."""

Rows = Codes
Mask = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.int64, np.float64)
Text = Callable[[int], str]

_COMPLETED, _FAILED, _UNFINISHED = range(len(STATES))
_LOST = [OUTCOMES.index(name) for name in ("timed_out", "worker_died")]
_REJECTED, _CALL_FAILED = OUTCOMES.index("rejected"), OUTCOMES.index("call_failed")
_REPORTED_FAILURE = OUTCOMES.index("failed")
_NEW_PROCESS = ("registered", "reregistered")


@dataclass(frozen=True)
class Violation:
    """One sentence on a promise that was broken: which, of what task or worker, and when."""

    promise: str
    sentence: str
    task: int | None = None
    worker: str | None = None
    at_s: float | None = None

    def __str__(self) -> str:
        return f"{self.promise}: {self.sentence}"


class Breach(NamedTuple):
    """Rows in which a promise is broken, and how to say it of one of them."""

    rows: Rows
    say: Callable[[int], Violation]


class Promise(NamedTuple):
    """Something that holds in every run; `unless` says why a scenario's tables can't show it, or nothing."""

    name: str
    meaning: str
    breaches: Callable[[History], Iterator[Breach]]
    unless: Callable[[Scenario], str] = lambda scenario: ""


def check(run: Run, healed: bool = False, grace_s: float = 0.0) -> list[Violation]:
    """All that a run shows to be wrong, at most MOST sentences on each promise and then their number.

    `healed`: every fault has ended and time enough has passed, so that no task may be unfinished. `grace_s`: seconds
    that a message or a process of a live run may take of itself, beyond what the scenario says.
    """
    history = History(run, healed, grace_s)
    return [
        violation for promise in PROMISES if not promise.unless(run.scenario) for violation in _told(promise, history)
    ]


def left_out(scenario: Scenario, healed: bool = False) -> dict[str, str]:
    """The promises that `check` does not hold a run of this scenario to, each with the reason."""
    reasons = {promise.name: promise.unless(scenario) for promise in PROMISES}
    if not healed:
        reasons["progress"] = "faults may have lasted to the end"
    return {name: reason for name, reason in reasons.items() if reason}


def _told(promise: Promise, history: History) -> Iterator[Violation]:
    room, untold = MOST, 0
    for rows, say in promise.breaches(history):
        for row in rows[:room]:
            yield replace(say(int(row)), promise=promise.name)
        untold += max(0, len(rows) - room)
        room = max(0, room - len(rows))
    if untold:
        yield Violation(promise.name, f"and {untold:,} more")


class Absence(NamedTuple):
    """From `since_s` to `until_s` nothing may be assigned to that worker."""

    worker: int
    since_s: float
    until_s: float
    why: str


class Parting(NamedTuple):
    """At this time the coordinator counts no more on what the worker holds; `gone`: and knows that it is lost."""

    worker: int
    at_s: float
    gone: bool
    why: str


class History:
    """A run's tables as arrays: rows of tasks in the order of their ids, those of attempts by (task, number)."""

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
        self.settled_by = codes(tasks, "worker", self.workers)
        self.counted: Codes = tasks.column("attempts").to_numpy().astype(np.int64)
        self.arrival_s, self.accepted_s = floats(tasks, "arrival_s"), floats(tasks, "accepted_s")
        self.settled_s = floats(tasks, "settled_s")

        self.of: Codes = attempts.column("task").to_numpy()
        self.number: Codes = attempts.column("attempt").to_numpy().astype(np.int64)
        self.worker = codes(attempts, "worker", self.workers)
        self.outcome = codes(attempts, "outcome", OUTCOMES)
        self.settles: Mask = attempts.column("settled").to_numpy()
        self.assigned_s, self.started_s = floats(attempts, "assigned_s"), floats(attempts, "started_s")
        self.given_up_s, self.ended_s = floats(attempts, "given_up_s"), floats(attempts, "ended_s")
        self.ran_s = floats(attempts, "ran_s")
        self.released_s = _or_never(np.fmin(self.given_up_s, self.ended_s))
        """When its task no longer counts on an attempt."""

        place = np.searchsorted(self.task, self.of)
        self.known = np.isin(self.of, self.task)
        """Attempts at tasks that were submitted."""
        self.row: Rows = np.where(self.known, place, 0)
        """The row of each attempt's task; 0 where there is none."""

    # ---- what the rows mean

    def of_task(self, column: Floats) -> Floats:
        """The task's moment for each attempt; NaN where there is no task."""
        return np.where(self.known, np.append(column, np.nan)[self.row], np.nan)

    def per_task(self, mask: Mask) -> Codes:
        """How many of the attempts are so, by row of the tasks."""
        return np.bincount(self.row[mask & self.known], minlength=len(self.task))

    @cached_property
    def settling(self) -> Rows:
        """The attempt that settled each task, -1 where none did."""
        found = np.full(len(self.task), -1)
        which = np.flatnonzero(self.settles & self.known)
        found[self.row[which]] = which
        return found

    @cached_property
    def follows(self) -> Mask:
        """Attempts whose row stands behind one of the same task."""
        follows: Mask = self.of == _shifted(self.of, -1)
        return follows

    @cached_property
    def twin(self) -> Mask:
        """Attempts that were assigned while their task still counted on an earlier one."""
        twin: Mask = self.follows & (self._counted_until_s > self.assigned_s)
        return twin

    @cached_property
    def perhaps_twin(self) -> Mask:
        """And those that were assigned at the moment at which it stopped to do so, if there may be twins at all."""
        perhaps: Mask = self.follows & (self._counted_until_s >= self.assigned_s)
        return perhaps if _without_twins(self.scenario) else self.twin

    @cached_property
    def _counted_until_s(self) -> Floats:
        """For each attempt, when its task had stopped to count on every earlier one."""
        latest_s, step = self.released_s.copy(), 1  # the last release of each attempt and the `step` - 1 before it
        while step < len(latest_s):
            same = np.flatnonzero(self.of[step:] == self.of[:-step]) + step
            if not len(same):
                break
            latest_s[same] = np.maximum(latest_s[same], latest_s[same - step])
            step *= 2
        return _shifted(latest_s, -np.inf)

    @cached_property
    def consumed(self) -> Mask:
        """Attempts that cost their task one of its tries."""
        consumed: Mask = np.isin(self.outcome, _LOST) | ((self.outcome == _REPORTED_FAILURE) & ~self.settles)
        return consumed

    def was_given(self, task: int) -> bool:
        """Whether the worker that settled this task had been assigned to it by then."""
        mine = slice(*np.searchsorted(self.of, [self.task[task], self.task[task] + 1]))
        there = (self.worker[mine] == self.settled_by[task]) & (self.assigned_s[mine] <= self.settled_s[task])
        return bool(there.any())

    def waits(self) -> tuple[Rows, Floats, Floats]:
        """When tasks stood in the queue for certain: their rows, from when, until when (infinity: to the end)."""
        settled_s = _or_never(self.settled_s)
        first = self.known & ~self.follows
        assigned_s = np.full(len(self.task), np.inf)
        assigned_s[self.row[first]] = self.assigned_s[first]
        tasks = np.flatnonzero(~np.isnan(self.accepted_s))
        # Again, after an attempt that its task counts on no more; how a task with twins came back is not certain.
        backoff = self.scenario.policies.retry.backoff
        at_once = [_REJECTED]
        if isinstance(backoff, ConstantBackoff) and backoff.delay_s == 0:
            at_once += [_CALL_FAILED, *_LOST, _REPORTED_FAILURE]
        simple = self.per_task(self.twin) == 0
        back = np.flatnonzero(self.known & np.isin(self.outcome, at_once) & ~self.settles)
        back = back[simple[self.row[back]]]
        next_s = np.where(
            np.append(self.follows, False)[back + 1], np.append(self.assigned_s, np.inf)[back + 1], np.inf
        )
        return (
            np.concatenate([tasks, self.row[back]]),
            np.concatenate([self.accepted_s[tasks], self.released_s[back]]),
            np.minimum(
                np.concatenate([assigned_s[tasks], next_s]),
                np.concatenate([settled_s[tasks], settled_s[self.row[back]]]),
            ),
        )

    @property
    def reopens(self) -> bool:
        """Whether an attempt that was given up may be counted on again, of which its row then tells nothing."""
        return self.scenario.policies.on_return != "first_result"

    @cached_property
    def limit(self) -> Floats:
        """Attempts that each worker may hold."""
        groups = self.scenario.cluster.groups
        limits = [
            group.capacity + (math.inf if group.prefetch == "unlimited" else group.prefetch) for group in groups
        ]
        return np.repeat(limits, [group.workers for group in groups])

    def given(self, worker: int, since_s: float, until_s: float) -> Rows:
        """The attempts that were assigned to a worker between two moments, in order."""
        order, at_s, begins = self._by_worker
        mine = slice(begins[worker], begins[worker + 1])
        begin = np.searchsorted(at_s[mine], since_s, side="right")
        return order[mine][begin : np.searchsorted(at_s[mine], until_s, side="left")]

    @cached_property
    def _by_worker(self) -> tuple[Rows, Floats, Rows]:
        """The attempts by worker and time, these times, and where each worker begins there (and the last ends)."""
        order = np.lexsort((self.assigned_s, self.worker))
        begins = np.searchsorted(self.worker[order], np.arange(len(self.workers) + 1))
        return order, self.assigned_s[order], begins

    def happened(self) -> Iterator[tuple[float, str, int, str]]:
        """Time, kind, worker (-1: the coordinator) and detail of each event, in order."""
        at_s = floats(self._events, "time_s").tolist()
        kinds, details = (self._events.column(name).to_pylist() for name in ("kind", "detail"))
        yield from zip(at_s, kinds, codes(self._events, "worker", self.workers).tolist(), details, strict=True)

    # ---- how to say it

    def tasks(self, rows: Rows, text: Text) -> Breach:
        return Breach(rows, lambda i: self.task_says(i, text(i)))

    def attempts(self, rows: Rows, text: Text) -> Breach:
        return Breach(rows, lambda i: self.attempt_says(i, text(i)))

    def task_says(self, i: int, text: str) -> Violation:
        worker = self.workers[self.settled_by[i]] if self.settled_by[i] >= 0 else None
        at_s = None if np.isnan(self.settled_s[i]) else float(self.settled_s[i])
        return Violation("", f"task {self.task[i]} {text}", int(self.task[i]), worker, at_s)

    def attempt_says(self, i: int, text: str) -> Violation:
        worker = self.workers[self.worker[i]] if self.worker[i] >= 0 else None
        return Violation("", f"{self.named(i)} {text}", int(self.of[i]), worker, float(self.assigned_s[i]))

    def named(self, i: int) -> str:
        worker = self.workers[self.worker[i]] if self.worker[i] >= 0 else "an unknown worker"
        return f"attempt {self.number[i]} of task {self.of[i]} on {worker}"

    def numbers(self, task: int, mask: Mask) -> str:
        """Of the task's attempts that are so."""
        return " and ".join(str(number) for number in self.number[mask & (self.of == self.task[task])])

    def verdict(self, i: int) -> str:
        worker = self.workers[self.settled_by[i]] if self.settled_by[i] >= 0 else "no worker"
        return f"at {_at(self.settled_s[i])} by {worker}"


# ---- what happens to a task


def _outcomes(h: History) -> Iterator[Breach]:
    """Every task that was submitted has one row, which is settled or not, by one attempt at most."""
    again = np.flatnonzero(np.diff(h.task, prepend=-1) == 0)
    yield h.tasks(again, lambda i: f"was settled {np.sum(h.task == h.task[i])} times")
    settled, by = h.state != _UNFINISHED, h.per_task(h.settles)
    odd = np.flatnonzero(settled == np.isnan(h.settled_s))
    yield h.tasks(odd, lambda i: f"is {STATES[h.state[i]]}, but was settled at {_at(h.settled_s[i])}")
    yield h.tasks(np.flatnonzero(by > 1), lambda i: f"was settled by {by[i]} attempts: {h.numbers(i, h.settles)}")
    neither = np.flatnonzero((by > 0) & ~settled)
    yield h.tasks(neither, lambda i: f"is unfinished, but was settled by its attempt {h.numbers(i, h.settles)}")
    told = h.summary["tasks"]
    found = {"submitted": len(h.task)} | {name: int(np.sum(h.state == code)) for code, name in enumerate(STATES)}
    wrong = [name for name in found if found[name] != told[name]]
    yield _whole(bool(wrong), f"the summary and the table count {', '.join(wrong)} tasks differently")
    lost = told["submitted"] - sum(told[name] for name in STATES)
    yield _whole(lost != 0, f"of {told['submitted']:,} tasks submitted, {lost:,} are in no state")


def _results(h: History) -> Iterator[Breach]:
    """What settled a task came from an attempt that was assigned: to that worker, before."""
    settled = h.state != _UNFINISHED
    named = np.flatnonzero(settled & (h.settling >= 0))
    by = h.settling[named]
    differ = (h.ended_s[by] != h.settled_s[named]) | (h.worker[by] != h.settled_by[named])
    yield h.tasks(named[differ], lambda i: f"was settled {h.verdict(i)}, but not by its {h.named(h.settling[i])}")
    # A report from a process that has begun anew since settles its task too, and no attempt's row tells of it.
    unnamed = np.flatnonzero(settled & (h.settling < 0))
    strange = np.array([i for i in unnamed.tolist() if not h.was_given(i)], dtype=np.int64)
    yield h.tasks(strange, lambda i: f"was settled {h.verdict(i)}, which had not been given it")


def _numbering(h: History) -> Iterator[Breach]:
    """The attempts of a task are numbered 1, 2, ... as they are assigned, and all of them are recorded."""
    yield h.attempts(np.flatnonzero(~h.known), lambda i: "is of no task that was submitted")
    yield h.attempts(np.flatnonzero(h.worker < 0), lambda i: "is on no worker of the cluster")
    before = np.where(h.follows, _shifted(h.number, 0), 0)
    gaps = np.flatnonzero(h.number != before + 1)
    yield h.attempts(gaps, lambda i: f"stands in the place of number {before[i] + 1}")
    counted = h.per_task(h.known)
    differ = np.flatnonzero(counted != h.counted)
    yield h.tasks(differ, lambda i: f"counts {h.counted[i]} attempts, and {counted[i]} are recorded")
    swapped = np.flatnonzero(h.follows & (h.assigned_s < _shifted(h.assigned_s, 0.0)))
    yield h.attempts(swapped, lambda i: f"was assigned at {_at(h.assigned_s[i])}, before the attempt ahead of it")


def _times(h: History) -> Iterator[Breach]:
    """arrival <= accepted <= assigned <= started <= ended, assigned <= given up <= ended, accepted <= settled."""
    moments = {"arrived": h.arrival_s, "was accepted": h.accepted_s, "was settled": h.settled_s}
    for first, then in (("arrived", "was accepted"), ("was accepted", "was settled")):
        yield h.tasks(*_disordered(first, then, moments))
    moments = {
        "was accepted with its task": h.of_task(h.accepted_s),
        "was assigned": h.assigned_s,
        "started": h.started_s,
        "was given up": h.given_up_s,
        "ended": h.ended_s,
    }
    for first, then in (
        ("was accepted with its task", "was assigned"),
        ("was assigned", "started"),
        ("was assigned", "was given up"),
        ("was assigned", "ended"),
        ("started", "ended"),
        ("was given up", "ended"),
    ):
        yield h.attempts(*_disordered(first, then, moments))


def _disordered(first: str, then: str, moments: Mapping[str, Floats]) -> tuple[Rows, Text]:
    first_s, then_s = moments[first], moments[then]
    rows = np.flatnonzero(then_s < first_s - EPSILON_S)
    return rows, lambda i: f"{then} at {_at(then_s[i])}, but {first} only at {_at(first_s[i])}"


def _settled(h: History) -> Iterator[Breach]:
    """A task that is settled is not assigned again."""
    settled_s = h.of_task(h.settled_s)
    late = np.flatnonzero(h.assigned_s > settled_s)
    yield h.attempts(
        late,
        lambda i: f"was assigned at {_at(h.assigned_s[i])}, when its task had been settled at {_at(settled_s[i])}",
    )


def _tries(h: History) -> Iterator[Breach]:
    """Attempts that cost a try are at most `max_attempts`, twins apart; and nothing fails before it had as many."""
    retry = h.scenario.policies.retry
    most = math.inf if retry.max_attempts is None else retry.max_attempts
    used = h.per_task(h.consumed & ~h.perhaps_twin)
    yield h.tasks(np.flatnonzero(used > most), lambda i: f"used {used[i]} tries, of {most} that it had")
    if h.reopens:
        return  # one attempt may have cost several tries
    # A call that failed after its worker was declared dead had cost one.
    may_cost = h.per_task(h.consumed | (h.outcome == _CALL_FAILED))
    enough = min(most, retry.max_worker_kills or math.inf)
    # A report of a failure from a process that has begun anew since is final, and no attempt's row tells of it.
    closed_early = np.isnan(h.ran_s) & (h.ended_s < h.of_task(h.settled_s))
    early = (h.state == _FAILED) & (h.settling < 0) & (may_cost < enough) & (h.per_task(closed_early) == 0)
    yield h.tasks(
        np.flatnonzero(early), lambda i: f"failed at {_at(h.settled_s[i])} after {may_cost[i]} tries of {enough}"
    )


def _twins(h: History) -> Iterator[Breach]:
    """A task counts on one attempt at a time."""
    yield h.attempts(
        np.flatnonzero(h.twin),
        lambda i: f"was assigned at {_at(h.assigned_s[i])}, while an earlier one was still open",
    )


def _order(h: History) -> Iterator[Breach]:
    """Whoever is assigned stood first in the queue: no older task of its priority waited, and none of a higher."""
    lane = h.priority if isinstance(h.scenario.policies.queue, PriorityConfig) else np.zeros_like(h.priority)
    row, enter_s, leave_s = h.waits()
    taken = np.flatnonzero(h.known & ~h.twin)
    taken = taken[np.argsort(h.assigned_s[taken], kind="stable")]
    for level in np.unique(lane):
        mine = lane[row] == level
        waits = row[mine], enter_s[mine], leave_s[mine]
        yield _overtaken(h, waits, taken[lane[h.row[taken]] < level], "a task of a lower priority")
        yield _overtaken(h, waits, taken[lane[h.row[taken]] == level], "a younger task", h.accepted_s)


def _overtaken(
    h: History, waits: tuple[Rows, Floats, Floats], taken: Rows, whom: str, age_s: Floats | None = None
) -> Breach:
    """Waits during which one of `taken`, in order of time, was assigned; with `age_s`, one of a younger task."""
    row, enter_s, leave_s = waits
    at_s = h.assigned_s[taken]
    begin, end = np.searchsorted(at_s, enter_s, side="right"), np.searchsorted(at_s, leave_s, side="left")
    if age_s is None:
        youngest, own = np.where(begin < end, np.inf, -np.inf), np.zeros(len(row))
    else:
        youngest, own = _range_max(age_s[h.row[taken]], begin, end), age_s[row]
    wrong = np.flatnonzero(youngest > own)

    def say(i: int) -> str:
        among = taken[begin[i] : end[i]]
        other = among[0] if age_s is None else among[np.argmax(age_s[h.row[among]] > own[i])]
        return f"waited from {_at(enter_s[i])}, and was overtaken by {whom}: {h.named(other)}"

    return Breach(wrong, lambda i: h.task_says(row[i], say(i)))


# ---- what happens to a worker


def _membership(h: History) -> Iterator[Breach]:
    """Nothing is assigned to a worker that is dead, suspect, ejected, drains, has left or has not come yet; and
    nobody counts on what a worker holds that was declared dead, left, or began anew."""
    absences, partings = _absences(h)
    for absence in absences:
        yield h.attempts(
            h.given(absence.worker, absence.since_s, absence.until_s), partial(_given_to_nobody, h, absence)
        )
    ended_s = _or_never(h.ended_s)
    for parting in partings:
        if h.reopens and not parting.gone:
            continue  # what was given up may be counted on again
        rows = h.given(parting.worker, -math.inf, parting.at_s)
        kept = rows[(ended_s if parting.gone else h.released_s)[rows] > parting.at_s]
        yield h.attempts(kept, partial(_kept, h, parting))


def _given_to_nobody(h: History, absence: Absence, i: int) -> str:
    since = f" at {_at(absence.since_s)}" if absence.since_s >= 0 else ""
    until = f" and came back at {_at(absence.until_s)}" if absence.until_s < math.inf else ""
    return f"was assigned at {_at(h.assigned_s[i])} to a worker that {absence.why}{since}{until}"


def _kept(h: History, parting: Parting, i: int) -> str:
    return f"from {_at(h.assigned_s[i])} was kept when its worker {parting.why} at {_at(parting.at_s)}"


def _absences(h: History) -> tuple[list[Absence], list[Parting]]:
    absences: list[Absence] = []
    partings: list[Parting] = []
    away: dict[tuple[int, str], tuple[float, str]] = {
        (worker, "dead"): (-math.inf, "had never registered") for worker in range(len(h.workers))
    }

    def back(worker: int, which: str, at_s: float) -> None:
        if (worker, which) in away:
            since_s, why = away.pop((worker, which))
            absences.append(Absence(worker, since_s, at_s, why))

    for at_s, kind, worker, detail in h.happened():
        if kind == "up":
            back(worker, "dead", at_s)
            if detail in _NEW_PROCESS:
                back(worker, "drain", at_s)
                back(worker, "ejected", at_s)
            if detail == "reregistered":
                partings.append(Parting(worker, at_s, True, "began anew"))
        elif kind == "readmitted":
            back(worker, "ejected", at_s)
        elif kind in _AWAY:
            which, why = _AWAY[kind]
            away.setdefault((worker, which), (at_s, why))
            if kind in ("dead", "left"):
                partings.append(Parting(worker, at_s, kind == "left", why))
    for worker, which in list(away):
        back(worker, which, math.inf)
    return absences, partings


_AWAY = {
    "suspect": ("dead", "was suspect"),
    "dead": ("dead", "was declared dead"),
    "left": ("dead", "had left"),
    "drain": ("drain", "drained"),
    "ejected": ("ejected", "was ejected"),
}
"""Which absence begins with an event, and how it is called. One of the first three ends with any `up`."""


def _load(h: History) -> Iterator[Breach]:
    """No worker holds more than capacity + prefetch attempts, from their assignment to their last word."""
    rows = np.flatnonzero((h.worker >= 0) & np.isfinite(h.limit[h.worker]))
    ended = rows[~np.isnan(h.ended_s[rows])]
    at_s = np.concatenate([h.assigned_s[rows], h.ended_s[ended]])
    change = np.repeat([1, -1], [len(rows), len(ended)])
    attempt = np.concatenate([rows, ended])
    worker = h.worker[attempt]
    order = np.lexsort((change, at_s, worker))  # of one moment, ends first
    held = np.cumsum(change[order])
    begins = np.searchsorted(worker[order], np.arange(len(h.workers) + 1))[:-1]
    held -= np.append(0, held)[begins][worker[order]]
    over = np.flatnonzero((change[order] > 0) & (held > h.limit[worker[order]]))
    of = attempt[order]

    def say(k: int) -> str:
        limit = h.limit[h.worker[of[k]]]
        return f"was number {held[k]:,} there at {_at(h.assigned_s[of[k]])}, of {limit:,.0f} that it may hold"

    yield Breach(over, lambda k: h.attempt_says(of[k], say(k)))


def _cancels(h: History) -> Iterator[Breach]:
    """When a task is settled, what else runs for it is stopped."""
    settled_s = h.of_task(h.settled_s)
    heard_s = settled_s + _slowest_s(h.scenario.network.delay_of("cancel")) + h.grace_s
    ran_on = ~h.settles & (h.started_s + h.ran_s > heard_s + EPSILON_S) & (_or_never(h.ended_s) > settled_s)
    rows = np.flatnonzero(ran_on)
    if len(rows):
        impairments = _impairments(h)
        rows = np.array(
            [i for i in rows if not _disturbed(impairments, h.worker[i], settled_s[i], heard_s[i])], dtype=np.int64
        )
    yield h.attempts(
        rows,
        lambda i: (
            f"ran on until {_at(h.started_s[i] + h.ran_s[i])}, although its task was settled at {_at(settled_s[i])}"
        ),
    )


def _impairments(h: History) -> dict[int, list[tuple[float, float]]]:
    """From the first fault of each worker (-1: the coordinator) to the last one's end, again and again."""
    impairments: dict[int, list[tuple[float, float]]] = {}
    active: dict[int, set[str]] = {}
    since: dict[int, float] = {}
    for at_s, kind, worker, detail in h.happened():
        faults = active.setdefault(worker, set())
        if kind == "heal":
            faults.difference_update(HEALS.get(detail, (detail,)))
            if not faults and worker in since:
                impairments.setdefault(worker, []).append((since.pop(worker), at_s))
        elif kind in FAULTS:
            faults.add(kind)
            since.setdefault(worker, at_s)
    for worker, since_s in since.items():
        impairments.setdefault(worker, []).append((since_s, math.inf))
    return impairments


def _disturbed(
    impairments: Mapping[int, list[tuple[float, float]]], worker: int, since_s: float, until_s: float
) -> bool:
    both = (*impairments.get(worker, ()), *impairments.get(-1, ()))
    return any(begin_s <= until_s and end_s >= since_s for begin_s, end_s in both)


# ---- what happens in the end


def _progress(h: History) -> Iterator[Breach]:
    """After the faults, everything is settled."""
    left = np.flatnonzero((h.state == _UNFINISHED) & h.healed)
    yield h.tasks(
        left,
        lambda i: f"was never settled: it arrived at {_at(h.arrival_s[i])}, and {h.counted[i]} attempts were made",
    )


# ---- all of it


def _without_twins(scenario: Scenario) -> str:
    policies = scenario.policies
    if policies.hedging is not None or policies.detection.on_suspect == "hedge":
        return "tasks may have twins"
    return "" if policies.on_return == "first_result" else "an attempt that was given up may go on"


def _known_queue(scenario: Scenario) -> str:
    queue = scenario.policies.queue
    return "" if isinstance(queue, FifoConfig | PriorityConfig) else f"the queue is {queue.kind}"


def _cancels_arrive(scenario: Scenario) -> str:
    network = scenario.network
    if network.loss:
        return "messages are lost"
    return "" if math.isfinite(_slowest_s(network.delay_of("cancel"))) else "messages may take any time"


PROMISES = (
    Promise("outcome", "every task submitted has one outcome", _outcomes),
    Promise("result", "what settled a task came from an attempt that was assigned", _results),
    Promise("numbering", "attempts are numbered without gaps, and all are there", _numbering),
    Promise("times", "nothing happened before what it follows from", _times),
    Promise("settled", "no task is assigned after it was settled", _settled),
    Promise("tries", "no task is tried too often, and none is given up too early", _tries),
    Promise("twins", "no task has two open attempts", _twins, _without_twins),
    Promise("order", "whoever is assigned stood first in the queue", _order, _known_queue),
    Promise("membership", "nothing is with a worker that is dead, suspect, ejected, draining or gone", _membership),
    Promise("load", "no worker holds more than its capacity and prefetch", _load),
    Promise("cancel", "what runs for a settled task is stopped", _cancels, _cancels_arrive),
    Promise("progress", "after the faults, every task is settled", _progress),
)


# ---- small parts


def _whole(broken: bool, sentence: str) -> Breach:
    """Something about the run, not about one of its rows."""
    return Breach(np.arange(int(broken)), lambda _: Violation("", sentence))


def _or_never(time_s: Floats) -> Floats:
    return np.where(np.isnan(time_s), np.inf, time_s)


def _shifted(column: npt.NDArray[Number], first: float) -> npt.NDArray[Number]:
    """The value of the row before; `first` for the first one."""
    return np.concatenate([np.array([first], dtype=column.dtype), column])[:-1]


def _range_max(values: Floats, begin: Rows, end: Rows) -> Floats:
    """The maximum of values[begin:end] for each pair, -inf where it is empty.

    Of ranges of at most 2^k values, two that overlap and have 2^k / 2 cover each: a sparse table, row by row.
    """
    found = np.full(len(begin), -np.inf)
    length = end - begin
    most, width = values, 1  # most[i]: of values[i : i + width]
    while len(most) and (length >= width).any():
        of = np.flatnonzero((length >= width) & (length < 2 * width))
        found[of] = np.maximum(most[begin[of]], most[end[of] - width])
        most, width = np.maximum(most[:-width], most[width:]), 2 * width
    return found


def _slowest_s(delay: Distribution) -> float:
    """No draw is longer; infinity where any may be."""
    match delay:
        case Constant():
            return delay.value_s
        case Uniform():
            return delay.high_s
        case Empirical():
            return float(delay.values().max())
    return math.inf


def _at(time_s: float) -> str:
    return "no time" if np.isnan(time_s) else f"{time_s:.6f}".rstrip("0").rstrip(".") + " s"
