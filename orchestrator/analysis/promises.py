"""The history checker: what the tables of a run show, compared with what the coordinator promises, in either world.

    check(run)                  every violation, one sentence each
    check(run, healed=True)     and no task may be left unfinished

Each promise is checked as far as the tables can show it. A sentence is a bug; silence is no proof. The tables do not
show everything, so these questions stay open:

- In which order things happened at one moment. All comparisons are strict, so any order that is possible is accepted.
- Heartbeats, and so the end of a quarantine after a rejection or a failed call. An assignment to a quarantined worker
  is never a violation. Suspicion, ejection, drain, death and leave are events, and they are checked.
- When a task joins the queue again after a backoff. Only waits without a backoff are checked for their order.
- Whether a cancel was sent. An attempt that runs on after its task was settled is a violation only if its worker must
  have heard the cancel: no loss, a bounded delay, and no fault of that worker at about that time.
- What a worker did with an attempt that it never reported.
- When a task counts again on an attempt whose worker was declared dead and returned. It may at any time after that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from orchestrator.analysis import limits, recovery
from orchestrator.analysis.absences import Absence, Parting
from orchestrator.analysis.history import (
    Breach,
    History,
    Rows,
    Text,
    Violation,
    at_time,
    hedged,
    or_never,
    range_max,
    shifted,
)
from orchestrator.core.model import Outcome, WorkerEvent
from orchestrator.policies.queueing import FifoConfig, PriorityConfig
from orchestrator.results.runs import Run
from orchestrator.results.tables import FAULTS, STATES, CoordinatorEvent, FaultEvent, Floats, State, faults_ended_by
from orchestrator.scenario.distributions import longest_s
from orchestrator.scenario.schema import Scenario

MOST = 20
"""How many sentences are written about one promise; further violations are counted."""
EPSILON_S = 1e-6
"""Sums of floats differ in their last digits, and nothing that matters happens within a microsecond."""
CLOCKS_S = 1e-3
"""What a live coordinator recovers has been told by the wall clock, which is adjusted to others all the time."""

_FAILED, _UNFINISHED = STATES.index(State.FAILED), STATES.index(State.UNFINISHED)


class Promise(NamedTuple):
    """A rule that every run keeps. `unless` gives the reason why a scenario's tables cannot show it, or ""."""

    name: str
    meaning: str
    breaches: Callable[[History], Iterator[Breach]]
    unless: Callable[[Scenario], str] = lambda scenario: ""


def check(run: Run, healed: bool = False, grace_s: float = 0.0) -> list[Violation]:
    """Every violation that the run shows: at most MOST sentences per promise, then the number of further ones.

    `healed`: every fault has ended and enough time has passed, so that no task may be unfinished. `grace_s`: seconds
    that a message or a process of a live run may take beyond what the scenario says.
    """
    history = History(run, healed, grace_s)
    return [
        violation
        for promise in PROMISES
        if not promise.unless(run.scenario)
        for violation in _violations(promise, history)
    ]


def left_out(scenario: Scenario, healed: bool = False) -> dict[str, str]:
    """The promises that `check` does not check for this scenario, each with the reason."""
    reasons = {promise.name: promise.unless(scenario) for promise in PROMISES}
    if not healed:
        reasons["progress"] = "faults may have lasted to the end"
    return {name: reason for name, reason in reasons.items() if reason}


def _violations(promise: Promise, history: History) -> Iterator[Violation]:
    room, further = MOST, 0
    for rows, say in promise.breaches(history):
        for row in rows[:room]:
            yield replace(say(int(row)), promise=promise.name)
        further += max(0, len(rows) - room)
        room = max(0, room - len(rows))
    if further:
        yield Violation(promise.name, f"and {further:,} more")


# ---- promises about tasks


def _outcomes(h: History) -> Iterator[Breach]:
    """Every submitted task has one row, and at most one attempt settled it."""
    again = np.flatnonzero(np.diff(h.task, prepend=-1) == 0)
    yield h.tasks(again, lambda i: f"was settled {np.sum(h.task == h.task[i])} times")
    settled, by = h.state != _UNFINISHED, h.per_task(h.settles)
    odd = np.flatnonzero(settled == np.isnan(h.settled_s))
    yield h.tasks(odd, lambda i: f"is {STATES[h.state[i]]}, but was settled at {at_time(h.settled_s[i])}")
    yield h.tasks(np.flatnonzero(by > 1), lambda i: f"was settled by {by[i]} attempts: {h.numbers(i, h.settles)}")
    neither = np.flatnonzero((by > 0) & ~settled)
    yield h.tasks(neither, lambda i: f"is unfinished, but was settled by its attempt {h.numbers(i, h.settles)}")
    summary = h.summary["tasks"]
    found = {"submitted": len(h.task)} | {name: int(np.sum(h.state == code)) for code, name in enumerate(STATES)}
    wrong = [name for name in found if found[name] != summary[name]]
    yield _whole(bool(wrong), f"the summary and the table count {', '.join(wrong)} tasks differently")
    lost = summary["submitted"] - sum(summary[name] for name in STATES)
    yield _whole(lost != 0, f"of {summary['submitted']:,} tasks submitted, {lost:,} are in no state")


def _results(h: History) -> Iterator[Breach]:
    """What settled a task came from an attempt that had been assigned to that worker."""
    settled = h.state != _UNFINISHED
    named = np.flatnonzero(settled & (h.settling >= 0))
    by = h.settling[named]
    differ = (h.ended_s[by] != h.settled_s[named]) | (h.worker[by] != h.settled_by[named])
    yield h.tasks(
        named[differ], lambda i: f"was settled {h.settled_how(i)}, but not by its {h.attempt_name(h.settling[i])}"
    )
    # A report may come from a process that has been replaced since. It settles the task, and no row shows it.
    unnamed = np.flatnonzero(settled & (h.settling < 0) & ~limits.given_up(h))
    strange = np.array([i for i in unnamed.tolist() if not h.was_given(i)], dtype=np.int64)
    yield h.tasks(strange, lambda i: f"was settled {h.settled_how(i)}, which had not been given it")


def _numbering(h: History) -> Iterator[Breach]:
    """The attempts of a task are numbered 1, 2, ... in the order of assignment, and all of them are recorded."""
    yield h.attempts(np.flatnonzero(~h.known), lambda i: "is of no task that was submitted")
    yield h.attempts(np.flatnonzero(h.worker < 0), lambda i: "is on no worker of the cluster")
    before = np.where(h.follows, shifted(h.number, 0), 0)
    gaps = np.flatnonzero(h.number != before + 1)
    yield h.attempts(gaps, lambda i: f"stands in the place of number {before[i] + 1}")
    counted = h.per_task(h.known)
    differ = np.flatnonzero(counted != h.counted)
    yield h.tasks(differ, lambda i: f"counts {h.counted[i]} attempts, and {counted[i]} are recorded")
    swapped = np.flatnonzero(h.follows & (h.assigned_s < shifted(h.assigned_s, 0.0)))
    yield h.attempts(swapped, lambda i: f"was assigned at {at_time(h.assigned_s[i])}, before the attempt ahead of it")


def _times(h: History) -> Iterator[Breach]:
    """arrival <= accepted <= assigned <= started <= ended, assigned <= given up <= ended, accepted <= settled."""
    moments = {"arrived": h.arrival_s, "was accepted": h.accepted_s, "was settled": h.settled_s}
    for first, then in (("arrived", "was accepted"), ("was accepted", "was settled")):
        yield h.tasks(*_disordered(h, first, then, moments))
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
        yield h.attempts(*_disordered(h, first, then, moments))


def _disordered(h: History, first: str, then: str, moments: Mapping[str, Floats]) -> tuple[Rows, Text]:
    first_s, then_s = moments[first], moments[then]
    rows = np.flatnonzero(then_s < first_s - (CLOCKS_S if h.grace_s else EPSILON_S))
    return rows, lambda i: f"{then} at {at_time(then_s[i])}, but {first} only at {at_time(first_s[i])}"


def _settled(h: History) -> Iterator[Breach]:
    """A settled task is not assigned again."""
    settled_s = h.of_task(h.settled_s)
    late = np.flatnonzero(h.assigned_s > settled_s)
    yield h.attempts(
        late,
        lambda i: (
            f"was assigned at {at_time(h.assigned_s[i])}, when its task had been settled at {at_time(settled_s[i])}"
        ),
    )


def _tries(h: History) -> Iterator[Breach]:
    """Without hedges, at most `max_attempts` attempts consume a try, and no task fails before it had as many."""
    retry = h.scenario.policies.retry
    most = math.inf if retry.max_attempts is None else retry.max_attempts
    used = h.per_task(h.consumed & ~h.perhaps_hedge)
    yield h.tasks(np.flatnonzero(used > most), lambda i: f"used {used[i]} tries, of {most} that it had")
    # If a call failed after its worker was declared dead, or the worker returned and was told to stop the attempt, that
    # had consumed a try.
    stopped = (h.outcome == Outcome.CANCELLED) & (h.given_up_s < h.of_task(h.settled_s))
    may_consume = h.per_task(h.consumed | (h.outcome == Outcome.CALL_FAILED) | stopped)
    enough = min(most, retry.max_worker_kills or math.inf)
    # A reported failure may come from a process that has been replaced since. It is final, and no row shows it.
    reported = np.isin(h.outcome, (Outcome.COMPLETED, Outcome.FAILED))
    closed_early = ~reported & (h.ended_s < h.of_task(h.settled_s))
    clear = h.per_task(closed_early | h.reopened) == 0  # one attempt that was opened again consumed several tries
    early = (h.state == _FAILED) & (h.settling < 0) & (may_consume < enough) & clear & ~limits.given_up(h)
    yield h.tasks(
        np.flatnonzero(early),
        lambda i: f"failed at {at_time(h.settled_s[i])} after {may_consume[i]} tries of {enough}",
    )


def _hedges(h: History) -> Iterator[Breach]:
    """A task counts on one attempt at a time."""
    yield h.attempts(
        np.flatnonzero(h.certain_hedge),
        lambda i: f"was assigned at {at_time(h.assigned_s[i])}, while an earlier one was still open",
    )


def _copies(h: History) -> Iterator[Breach]:
    """A task that is assigned again has fewer than `max_copies` attempts on workers that are not away."""
    most = h.scenario.policies.retry.max_copies
    away: dict[int, list[Absence]] = {}
    for absence in h.absences:
        away.setdefault(absence.worker, []).append(absence)
    ended_s = or_never(h.ended_s)
    later = np.flatnonzero(h.known & ~h.perhaps_hedge & (np.arange(len(h.first)) - h.first >= most))

    def occupying(i: int) -> int:
        before = np.arange(h.first[i], i)
        copies = before[(ended_s[before] > h.assigned_s[i]) & ~h.perhaps_hedge[before]]
        return sum(
            not any(absence.since_s <= h.assigned_s[i] <= absence.until_s for absence in away.get(worker, ()))
            for worker in h.worker[copies].tolist()
        )

    too_many = np.array([i for i in later.tolist() if occupying(i) >= most], dtype=np.int64)
    yield h.attempts(too_many, lambda i: f"was assigned beside {occupying(i)} others that occupied workers")


def _order(h: History) -> Iterator[Breach]:
    """The assigned task was first in the queue: no task of a higher priority waited, and no older one of its own."""
    lane = h.priority if isinstance(h.scenario.policies.queue, PriorityConfig) else np.zeros_like(h.priority)
    row, enter_s, leave_s = h.waits()
    taken = np.flatnonzero(h.known & ~h.hedge)
    taken = taken[np.argsort(h.assigned_s[taken], kind="stable")]
    for level in np.unique(lane):
        mine = lane[row] == level
        waits = row[mine], enter_s[mine], leave_s[mine]
        yield _overtaken(h, waits, taken[lane[h.row[taken]] < level], "a task of a lower priority")
        yield _overtaken(h, waits, taken[lane[h.row[taken]] == level], "a younger task", h.accepted_s)


def _overtaken(
    h: History, waits: tuple[Rows, Floats, Floats], taken: Rows, whom: str, age_s: Floats | None = None
) -> Breach:
    """Waits during which one of `taken` (in time order) was assigned; with `age_s`, only one of a younger task."""
    row, enter_s, leave_s = waits
    at_s = h.assigned_s[taken]
    begin, end = np.searchsorted(at_s, enter_s, side="right"), np.searchsorted(at_s, leave_s, side="left")
    if age_s is None:
        youngest, own = np.where(begin < end, np.inf, -np.inf), np.zeros(len(row))
    else:
        youngest, own = range_max(age_s[h.row[taken]], begin, end), age_s[row]
    wrong = np.flatnonzero(youngest > own)

    def say(i: int) -> str:
        among = taken[begin[i] : end[i]]
        other = among[0] if age_s is None else among[np.argmax(age_s[h.row[among]] > own[i])]
        return f"waited from {at_time(enter_s[i])}, and was overtaken by {whom}: {h.attempt_name(other)}"

    return Breach(wrong, lambda i: h.about_task(row[i], say(i)))


# ---- promises about workers


def _membership(h: History) -> Iterator[Breach]:
    """Nothing is assigned to a worker that is dead, suspect, ejected, draining, gone or not yet registered.

    No task counts on what a worker holds after the worker was declared dead, left, or registered a new process.
    """
    for absence in h.absences:
        yield h.attempts(
            h.given(absence.worker, absence.since_s, absence.until_s), partial(_given_while_absent, h, absence)
        )
    ended_s = or_never(h.ended_s)
    for parting in h.partings:
        rows = h.given(parting.worker, -math.inf, parting.at_s)
        counted_s = (ended_s if parting.gone else h.released_s)[rows]
        # What was released after the worker was back may have counted again, and then its row shows no earlier release.
        kept = rows[(counted_s > parting.at_s) & ((counted_s < parting.back_s) | math.isinf(parting.back_s))]
        yield h.attempts(kept, partial(_kept, h, parting))


def _given_while_absent(h: History, absence: Absence, i: int) -> str:
    since = f" at {at_time(absence.since_s)}" if absence.since_s >= 0 else ""
    until = f" and came back at {at_time(absence.until_s)}" if absence.until_s < math.inf else ""
    return f"was assigned at {at_time(h.assigned_s[i])} to a worker that {absence.why}{since}{until}"


def _kept(h: History, parting: Parting, i: int) -> str:
    return f"from {at_time(h.assigned_s[i])} was kept when its worker {parting.why} at {at_time(parting.at_s)}"


def _load(h: History) -> Iterator[Breach]:
    """No worker holds more than capacity + prefetch attempts; an attempt is held from its assignment to its end."""
    rows = np.flatnonzero((h.worker >= 0) & np.isfinite(h.limit[h.worker]))
    ended = rows[~np.isnan(h.ended_s[rows])]
    at_s = np.concatenate([h.assigned_s[rows], h.ended_s[ended]])
    change = np.repeat([1, -1], [len(rows), len(ended)])
    attempt = np.concatenate([rows, ended])
    worker = h.worker[attempt]
    order = np.lexsort((change, at_s, worker))  # at one moment, ends come first
    load = np.cumsum(change[order])
    begins = np.searchsorted(worker[order], np.arange(len(h.workers) + 1))[:-1]
    load -= np.append(0, load)[begins][worker[order]]
    sent = np.ones(len(order), dtype=np.bool_)
    if h.grace_s:  # what a live coordinator decided in its last moments is recorded, and may never have left it
        for _, (crash_s, kind, _, _) in h.events():
            if kind == FaultEvent.COORDINATOR_CRASH:
                sent &= ~((at_s[order] <= crash_s) & (at_s[order] >= crash_s - h.grace_s))
    over = np.flatnonzero(sent & (change[order] > 0) & (load > h.limit[worker[order]]))
    of = attempt[order]

    def say(k: int) -> str:
        limit = h.limit[h.worker[of[k]]]
        return f"was number {load[k]:,} there at {at_time(h.assigned_s[of[k]])}, of {limit:,.0f} that it may hold"

    yield Breach(over, lambda k: h.about_attempt(of[k], say(k)))


def _cancels(h: History) -> Iterator[Breach]:
    """When a task is settled, its other attempts are stopped."""
    settled_s = h.of_task(h.settled_s)
    commit = h.scenario.coordinator.commit
    # A cancel leaves when the group is stored that is written at that moment, and then its own.
    leaves_s = 0.0 if commit is None else 2 * longest_s(commit)
    heard_s = settled_s + leaves_s + longest_s(h.scenario.network.delay_of("cancel")) + h.grace_s
    ran_on = ~h.settles & (h.started_s + h.ran_s > heard_s + EPSILON_S) & (or_never(h.ended_s) > settled_s)
    rows = np.flatnonzero(ran_on)
    if len(rows):
        impairments = _impairments(h)
        rows = np.array(
            [i for i in rows if not _disturbed(impairments, h.worker[i], settled_s[i], heard_s[i])], dtype=np.int64
        )
    yield h.attempts(
        rows,
        lambda i: (
            f"ran on until {at_time(h.started_s[i] + h.ran_s[i])}, "
            f"although its task was settled at {at_time(settled_s[i])}"
        ),
    )


def _impairments(h: History) -> dict[int, list[tuple[float, float]]]:
    """The stretches in which each worker (-1: the coordinator) has at least one fault that has not ended, or is not
    connected yet to a coordinator that has begun anew."""
    impairments: dict[int, list[tuple[float, float]]] = {}
    active: dict[int, set[str]] = {worker: set() for worker in range(-1, len(h.workers))}
    since: dict[int, float] = {}
    for worker, (at_s, kind, _, detail) in h.events():
        if kind == CoordinatorEvent.RECOVERED:
            for each in range(len(h.workers)):
                active[each].add(kind)
                since.setdefault(each, at_s)
        elif kind in FAULTS:
            active[worker].add(kind)
            since.setdefault(worker, at_s)
        elif kind in (FaultEvent.HEAL, WorkerEvent.UP):
            ended = faults_ended_by(detail) if kind == FaultEvent.HEAL else (CoordinatorEvent.RECOVERED,)
            active[worker].difference_update(ended)
            if not active[worker] and worker in since:
                impairments.setdefault(worker, []).append((since.pop(worker), at_s))
    for worker, since_s in since.items():
        impairments.setdefault(worker, []).append((since_s, math.inf))
    return impairments


def _disturbed(
    impairments: Mapping[int, list[tuple[float, float]]], worker: int, since_s: float, until_s: float
) -> bool:
    both = (*impairments.get(worker, ()), *impairments.get(-1, ()))
    return any(begin_s <= until_s and end_s >= since_s for begin_s, end_s in both)


# ---- the end of the run


def _progress(h: History) -> Iterator[Breach]:
    """After the faults, every task is settled, unless it alone takes longer than the run goes on."""
    drain_s = h.scenario.drain_s
    endless = h.service_s > (math.inf if drain_s is None else drain_s)
    left = np.flatnonzero((h.state == _UNFINISHED) & ~endless & h.healed)
    yield h.tasks(
        left,
        lambda i: f"was never settled: it arrived at {at_time(h.arrival_s[i])}, and {h.counted[i]} attempts were made",
    )


# ---- all promises


def _hedges_possible(scenario: Scenario) -> str:
    return "tasks may be hedged" if hedged(scenario) else ""


def _queue_unknown(scenario: Scenario) -> str:
    queue = scenario.policies.queue
    if scenario.places:
        return "tasks wait for workers that can take them"
    if scenario.policies.stealing is not None:
        return "what was recalled is assigned at once"
    return "" if isinstance(queue, FifoConfig | PriorityConfig) else f"the queue is {queue.kind}"


def _cancels_uncertain(scenario: Scenario) -> str:
    network, commit = scenario.network, scenario.coordinator.commit
    if network.loss:
        return "messages are lost"
    if commit is not None and not math.isfinite(longest_s(commit)):
        return "commits may take any time"
    return "" if math.isfinite(longest_s(network.delay_of("cancel"))) else "messages may take any time"


PROMISES = (
    Promise("outcome", "every task submitted has one outcome", _outcomes),
    Promise("result", "a task is settled by an attempt that was assigned", _results),
    Promise("numbering", "attempts are numbered without gaps, and all of them are recorded", _numbering),
    Promise("times", "nothing happens before its cause", _times),
    Promise("settled", "no task is assigned after it was settled", _settled),
    Promise("tries", "no task is tried too often, and none is given up too early", _tries),
    Promise("limits", "no task waits or lives for longer than it may", limits.breaches, limits.unless),
    Promise("hedges", "no task has two open attempts", _hedges, _hedges_possible),
    Promise("copies", "no task occupies more workers than its copies may", _copies),
    Promise("order", "tasks are assigned in the order of the queue", _order, _queue_unknown),
    Promise("membership", "nothing is assigned to a worker that is away, or left with one that is dead", _membership),
    Promise("load", "no worker holds more than its capacity and prefetch", _load),
    Promise("cancel", "other attempts at a settled task are stopped", _cancels, _cancels_uncertain),
    Promise("durable", "nothing is lost that a client was told", recovery.durable),
    Promise("terms", "each coordinator has a higher term than the one before", recovery.terms),
    Promise("adopted", "what workers hold outlives the coordinator", recovery.adopted),
    Promise("progress", "after the faults, every task is settled", _progress),
)


def _whole(broken: bool, sentence: str) -> Breach:
    """A violation of the whole run, not of one of its rows."""
    return Breach(np.arange(int(broken)), lambda _: Violation("", sentence))
