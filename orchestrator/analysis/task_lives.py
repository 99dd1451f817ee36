"""The life of one task, from the tables of its run: what happened to it and to whoever had it, step by step."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from orchestrator.analysis.choices import Choice, reason
from orchestrator.core.model import WorkerEvent
from orchestrator.results.columns import WORDS
from orchestrator.results.durations import age_s, latency_s
from orchestrator.results.executions import end_s
from orchestrator.results.queues import at_coordinator
from orchestrator.results.runs import Run
from orchestrator.results.tables import STATES, FaultEvent, State, codes, event_rows
from orchestrator.results.words import count, duration

_COMPLETED = STATES.index(State.COMPLETED)
_LATE = "late result"
_IN_WORDS = {WorkerEvent.DEAD: "declared dead", WorkerEvent.UP: "counts as alive"}


class UnknownTask(Exception):
    """There is no such task. One sentence."""


@dataclass(frozen=True)
class Try:
    """One attempt. Seconds since the arrival of its task; None for what never happened."""

    number: int
    worker: str
    assigned_s: float
    started_s: float | None
    given_up_s: float | None
    ended_s: float | None
    outcome: str
    settled: bool
    hedge: bool
    """It was assigned while the task still counted on another one."""
    lost_s: float | None
    """When its worker crashed with it."""
    late: bool
    """Its result came after the task had been settled."""

    @property
    def fate(self) -> str:
        """How it ended, in words."""
        return _LATE if self.late else self.outcome.replace("_", " ")


@dataclass(frozen=True)
class Step:
    """`after_s`: since the arrival of the task."""

    after_s: float
    what: str
    attempt: int | None = None


@dataclass(frozen=True)
class Life:
    """All that is known of one task."""

    task: int
    priority: str
    kind: str | None
    arrival_s: float
    """Since the start of the run, as nothing else here."""
    service_s: float | None
    accepted_s: float | None
    settled_s: float | None
    """None if it was never settled."""
    until_s: float
    """When it was settled, or when the run ended."""
    state: str
    tries: Sequence[Try]
    steps: Sequence[Step]
    choices: Sequence[Choice]

    @property
    def title(self) -> str:
        took = f"{self.state} after {duration(self.settled_s)}" if self.settled_s is not None else "never settled"
        kind = f", kind {self.kind}" if self.kind else ""
        return f"task {self.task:,} ({self.priority}{kind}): {took}, {count(len(self.tries), 'attempt')}"

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        found = asdict(self)
        made = {choice.attempt: choice.summary() for choice in self.choices}
        found["attempts"] = [one | {"choice": made.get(one["number"])} for one in found.pop("tries")]
        del found["choices"]
        return found


def find(run: Run, name: str) -> int:
    """The number of the task that a person means: `42`, `slowest`, `slowest:3` or `first-failed`. UnknownTask."""
    tasks = run.tables.tasks
    numbers = tasks.column("task").to_numpy()
    if not len(numbers):
        raise UnknownTask("this run has no task")
    if name.isdecimal():
        if int(name) not in numbers:
            raise UnknownTask(f"there is no task {name}, expected {numbers[0]} to {numbers[-1]}")
        return int(name)
    if name == "first-failed":
        lost = np.flatnonzero(codes(tasks, "state", STATES) != _COMPLETED)
        if not len(lost):
            raise UnknownTask(f"no task failed: all {len(numbers):,} completed")
        return int(numbers[lost[0]])
    if match := re.fullmatch(r"slowest(?::([1-9]\d*))?", name):
        rank = int(match[1] or 1)
        if rank > len(numbers):
            raise UnknownTask(f"there is no {name}, expected slowest:1 to slowest:{len(numbers)}")
        return slowest(run, rank)[-1]
    expected = f"a number from {numbers[0]} to {numbers[-1]}, slowest, slowest:N or first-failed"
    raise UnknownTask(f"there is no task {name}, expected {expected}")


def slowest(run: Run, most: int, lost: int | None = None) -> list[int]:
    """The tasks that took longest, the slowest first. One that never completed is slower than any that did; among
    these the oldest comes first. `lost`: at most so many of them."""
    tables = run.tables
    latencies_s = latency_s(tables.tasks)
    order = np.lexsort([-age_s(tables.tasks, end_s(tables, run.scenario)), -latencies_s])
    never = int(np.count_nonzero(np.isinf(latencies_s)))
    if lost is not None:
        order = np.concatenate([order[: min(lost, never)], order[never:]])
    numbers = tables.tasks.column("task").to_numpy()
    return [int(number) for number in numbers[order[:most]]]


def life(run: Run, task: int, choices: Sequence[Choice] = ()) -> Life:
    """The life of the task with that number. `choices`: of its workers, where they are known; they are matched with
    its attempts by number and worker. UnknownTask."""
    tables = run.tables
    found = tables.tasks.filter(pc.equal(tables.tasks.column("task"), task)).to_pylist()
    if not found:
        raise UnknownTask(f"there is no task {task}")
    row, ended_s = found[0], end_s(tables, run.scenario)
    rows = tables.attempts.filter(pc.equal(tables.attempts.column("task"), task)).to_pylist()
    zero_s, settled_s = row["arrival_s"], row["settled_s"]
    crashes = [(event.worker, event.time_s) for event in event_rows(tables.events, [FaultEvent.CRASH])]
    tries = [_try(each, rows[:place], zero_s, settled_s, crashes) for place, each in enumerate(rows)]
    made = {choice.attempt: choice for choice in choices}
    known = [made[one.number] for one in tries if one.number in made and made[one.number].worker == one.worker]
    steps = [*_begun(run, row), *_befell(run, tries, zero_s, _until(row, ended_s) - zero_s), *_tried(run, tries, known)]
    if settled_s is not None:
        by = f" by {row['worker']}" if row["worker"] and row["state"] == State.COMPLETED else ""
        how = f"{row['state']}{by}" if row["accepted_s"] is not None else "refused until its client gave up"
        steps.append(Step(settled_s - zero_s, f"{how}: {duration(settled_s - zero_s)} after its arrival"))
    else:
        steps.append(Step(ended_s - zero_s, "the run ends, and the task is not settled"))
    return Life(
        task,
        row["priority"],
        row.get("kind"),
        zero_s,
        row["service_s"],
        _since(row["accepted_s"], zero_s),
        _since(settled_s, zero_s),
        _until(row, ended_s) - zero_s,
        row["state"],
        tries,
        sorted(steps, key=lambda step: step.after_s),
        known,
    )


def _try(
    row: dict[str, Any],
    earlier: Sequence[dict[str, Any]],
    zero_s: float,
    settled_s: float | None,
    crashes: Sequence[tuple[str | None, float]],
) -> Try:
    at = row["assigned_s"]
    open_still = [min(_or_inf(one["given_up_s"]), _or_inf(one["ended_s"])) > at for one in earlier]
    # A worker that stops an attempt because it is told to says nothing of how long it ran.
    late = row["ran_s"] is not None and not row["settled"] and _or_inf(row["ended_s"]) >= _or_inf(settled_s)
    ended_s = _or_inf(row["ended_s"])
    lost_s = [at_s for worker, at_s in crashes if worker == row["worker"] and at <= at_s < ended_s]
    return Try(
        row["attempt"],
        row["worker"],
        at - zero_s,
        _since(row["started_s"], zero_s),
        _since(row["given_up_s"], zero_s),
        _since(row["ended_s"], zero_s),
        row["outcome"],
        row["settled"],
        hedge=any(open_still),
        lost_s=_since(lost_s[0], zero_s) if lost_s and row["ran_s"] is None else None,
        late=late,
    )


def _begun(run: Run, row: dict[str, Any]) -> Iterator[Step]:
    named = f", kind {row['kind']}" if row.get("kind") else ""
    demand = f"; it needs {duration(row['service_s'])} on a worker of speed 1" if row["service_s"] is not None else ""
    yield Step(0.0, f"arrives with priority {row['priority']}{named}{demand}")
    if row["accepted_s"] is None:
        return
    time_s, change = at_coordinator(run.tables)
    waiting = round(float(change[time_s < row["accepted_s"]].sum()))
    queue = f"{count(waiting, 'other task')} waits there" if waiting == 1 else f"{waiting:,} other tasks wait there"
    yield Step(
        row["accepted_s"] - row["arrival_s"], f"the coordinator accepts it; {queue if waiting else 'none waits'}"
    )


def _tried(run: Run, tries: Sequence[Try], choices: Sequence[Choice]) -> Iterator[Step]:
    made = {choice.attempt: choice for choice in choices}
    for one in tries:
        name = f"attempt {one.number}"
        beside = ", a hedge beside another attempt" if one.hedge else ""
        why = f": {reason(made[one.number], run.scenario.policies.routing.kind)}" if one.number in made else ""
        yield Step(one.assigned_s, f"{name} is assigned to {one.worker}{beside}{why}", one.number)
        if one.started_s is not None:
            yield Step(one.started_s, f"{name} begins at {one.worker}", one.number)
        if one.given_up_s is not None and one.given_up_s < _or_inf(one.ended_s):
            yield Step(one.given_up_s, f"{name} is given up: {_meaning(one.outcome)}", one.number)
        if one.ended_s is not None:
            yield Step(one.ended_s, f"{name} ends: {_end_of(one)}", one.number)


def _end_of(one: Try) -> str:
    if one.late:
        return "a late result, counted and dropped"
    if one.given_up_s is not None and one.given_up_s < _or_inf(one.ended_s):
        return "it no longer occupies its worker"
    return _meaning(one.outcome)


def _meaning(outcome: str) -> str:
    text = WORDS["outcome"][outcome].rstrip(".")
    return text[0].lower() + text[1:]


def _befell(run: Run, tries: Sequence[Try], zero_s: float, until_s: float) -> Iterator[Step]:
    """What happened to a worker while it had an attempt of the task, and to the coordinator meanwhile."""
    for time_s, kind, worker, detail in event_rows(run.tables.events):
        after_s = time_s - zero_s
        having = [one for one in tries if one.worker == worker and one.assigned_s <= after_s <= _or_inf(one.ended_s)]
        if not 0 <= after_s <= until_s or not (having or worker is None):
            continue
        what = _IN_WORDS.get(WorkerEvent(kind)) if kind in set(WorkerEvent) else None
        about = f" ({detail.replace('_', ' ')})" if detail else ""
        name = (what or kind.replace("_", " ")) + about
        yield Step(after_s, f"{worker or 'the coordinator'}: {name}", having[0].number if having else None)


def _until(row: dict[str, Any], ended_s: float) -> float:
    return float(ended_s if row["settled_s"] is None else row["settled_s"])


def _since(time_s: float | None, zero_s: float) -> float | None:
    return None if time_s is None else time_s - zero_s


def _or_inf(time_s: float | None) -> float:
    return math.inf if time_s is None else time_s
