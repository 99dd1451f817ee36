"""The tables of a live run, from its decision record: a fresh core decides everything again, heard by the simulator's
recorder.

They cost the run nothing beyond the decision record, and need no coordinator that lives to hand them over.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.cluster.decision_record import Input, Process, Recorded
from orchestrator.cluster.figures import Commits
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import Recovered
from orchestrator.core.model import Attempt, AttemptKey, Outcome, Task, TaskState, Worker, WorkerEvent, WorkerId
from orchestrator.results.folders import RunFolderError
from orchestrator.results.recorder import Recorder
from orchestrator.results.tables import CoordinatorEvent, FaultEvent, Tables, faults_ended_by
from orchestrator.scenario.schema import Scenario

MOMENTS = {
    "tasks": ("accepted_s", "started_s", "settled_s"),
    "attempts": ("assigned_s", "started_s", "given_up_s", "ended_s"),
    "events": ("time_s",),
}
"""The columns that are moments of the run; `arrival_s` is one already."""
_KEEPS_FROM_BEGINNING = ("crash", "pause", "partition")
_NEVER_BEGAN = (Outcome.REJECTED, Outcome.CALL_FAILED)


class Injection(NamedTuple):
    """What was done for a fault, as the events tell it, at a moment of the driver's clock; None: the coordinator."""

    at: float
    kind: str
    worker: str | None
    detail: str | None = None


class GivenUp(NamedTuple):
    """A task that was refused until its client wanted it no more: its row, and that moment of the driver's clock."""

    row: int
    at: float


@dataclass
class Promised:
    """When a client was told that the coordinator has its task, and how that ended, on the driver's clock."""

    acknowledged_at: float = math.inf
    told_at: float = math.inf


@dataclass
class Account:
    """What only the driver knows. Its clock is the coordinator's: both are the one monotonic clock of their host.

    Row i of the columns is the task that was submitted as number i + 1: intended arrival, demand, priority code.
    """

    began: float
    ended: float
    arrival_s: npt.NDArray[np.float64]
    service_s: npt.NDArray[np.float64]
    priority: npt.NDArray[np.uint8]
    kinds: Sequence[str] | None = None
    """The kind of each; None without kinds."""
    faults: list[Injection] = field(default_factory=list)
    given_up: list[GivenUp] = field(default_factory=list)
    promised: Mapping[int, Promised] = field(default_factory=dict)
    """By task, where the coordinator may crash."""
    commits: Commits | None = None
    """What the coordinator told at the end of the groups that it had stored."""


class Record(NamedTuple):
    """`inputs`: how many the coordinator handled during the run; `counters`: its own."""

    tables: Tables
    inputs: int
    counters: Counter[str]


def last_moment(path: Path) -> float:
    """When the last input of a decision record was handled, on the clock of its coordinator."""
    return max((item.now for item in Recorded(path).inputs()), default=0.0)


def record(path: Path, scenario: Scenario, account: Account, killed: bool = False) -> Record:
    """What happened between the beginning of the run and its end, in seconds since the beginning.

    `path`: of the coordinator's decision record; `killed`: it ends where the coordinator was killed. Raises ValueError
    where an input of it ended in an exception, RunFolderError where it could not be written to its end.
    """
    recorder = Recorder()
    watcher = _Watcher(recorder, account.faults)
    recorded = Recorded(path)
    lives, task_id = _Lives(path, recorder, watcher, account), row_of(recorded)
    for process in recorded.processes:
        lives.decide(process, task_id)
    core = lives.core
    if not (recorded.closed or killed or lives.killed_at_the_end):
        raise RunFolderError(f"{path} ends before the run does: {path.with_name('cluster.log')} says why")
    watcher.presume_starts(core)
    recorder.close(core)
    for injection in account.faults:
        if injection.kind != "crash" or not watcher.had_left(injection.worker, injection.at):
            recorder.event(*injection)
    for row, at in account.given_up:
        recorder.refused(row, at)
    arrived_at = account.arrival_s + account.began
    tables = recorder.tables(arrived_at, account.service_s, account.priority, scenario.worker_names(), account.ended)
    return Record(_since(tables, account).with_kinds(account.kinds), lives.inputs, lives.counters)


class _Lives:
    """What the processes of a coordinator decided, one after the other. `core`: of the last one.

    Each that follows another begins with what is stored: what the one before had decided beyond that did not happen.
    """

    def __init__(self, path: Path, recorder: Recorder, watcher: _Watcher, account: Account) -> None:
        self.inputs = 0
        self.counters: Counter[str] = Counter()
        self._path = path
        self._recorder = recorder
        self._watcher = watcher
        self._account = account
        self._crashes = [fault.at for fault in account.faults if fault.kind == FaultEvent.COORDINATOR_CRASH]
        self._core: Coordinator | None = None

    @property
    def core(self) -> Coordinator:
        assert self._core is not None
        return self._core

    @property
    def killed_at_the_end(self) -> bool:
        """The run ended while there was no coordinator."""
        of_coordinator = [fault.kind for fault in self._account.faults if fault.worker is None]
        return of_coordinator[-1:] == [FaultEvent.COORDINATOR_CRASH]

    def decide(self, process: Process, task_id: Callable[[str], Hashable]) -> None:
        inputs = (item for item in process.inputs(task_id=task_id) if item.now <= self._account.ended)
        first = next(inputs, None)
        if first is None and self._core is not None:
            return  # it was killed before it had done anything
        former, self._core = self._core, process.build(self._watcher)
        read: dict[Hashable, Recovered] = {}
        others = chain(() if first is None else (first,), inputs)
        for item in others:
            if item.name != "recovered":
                others = chain((item,), others)
                break
            self._require_sound(item)
            read[item.arguments[0].task_id] = item.arguments[0]
        if former is not None and first is not None:
            self._follow(former, read, first.now, process.head.built["term"])
        for item in others:
            self._apply(item)
        self.counters.update(self.core.counters)

    def _follow(self, former: Coordinator, read: Mapping[Hashable, Recovered], now: float, term: int) -> None:
        """A coordinator of that term goes on with what it has read."""
        for worker in former.workers():
            for attempt in worker.abandoned:  # of one that counts it is known when it has ended
                self._watcher.presume_start(attempt)
        crashed_at = max((at for at in self._crashes if at <= now), default=now)
        self._recorder.crashed(former, read, crashed_at)
        for stored in read.values():
            self.core.recovered(_by_one_clock(stored, former.task(stored.task_id)), now)
        self._recorder.recovered(self.core)
        self._recorder.event(now, CoordinatorEvent.RECOVERED, None, f"term {term}")
        for task, promised in self._account.promised.items():
            known = read.get(task)
            settled = known is not None and known.state >= TaskState.COMPLETED
            if (known is None and promised.acknowledged_at < crashed_at) or (
                not settled and promised.told_at < crashed_at
            ):
                self._recorder.event(now, CoordinatorEvent.LOST, None, str(task))

    def _apply(self, item: Input) -> None:
        self._require_sound(item)
        getattr(self.core, item.name)(*item.arguments, item.now)
        if item.name == "result" and (report := item.arguments[0]).attempt and report.ran_s is not None:
            self._recorder.reported(report.task_id, report.attempt, report.started_at, report.ran_s)
        self.inputs += item.now >= self._account.began

    def _require_sound(self, item: Input) -> None:
        if item.raised is not None:
            raise ValueError(f"{self._path}:{item.line}: the input {item} raised {item.raised}")


def _by_one_clock(stored: Recovered, known: Task | None) -> Recovered:
    """Times as the coordinator before knew them: on their way by the wall clock they may have changed a little."""
    if known is None:
        return stored
    assigned_at = {attempt.number: attempt.assigned_at for attempt in known.live}
    held = tuple(each._replace(assigned_at=assigned_at.get(each.number, each.assigned_at)) for each in stored.held)
    settled_at = known.settled_at if stored.settled_at is not None and known.settled else stored.settled_at
    return stored._replace(submitted_at=known.submitted_at, settled_at=settled_at, held=held)


def key_of(row: int) -> str:
    """Where tasks have keys."""
    return f"task-{row}"


def row_of(recorded: Recorded) -> Callable[[str], Hashable]:
    """Of the task with that id, which stays as it is where nobody submitted it: the client numbers its tasks from one,
    but those with a key may have come again, by another number."""
    rows: dict[str, int] = {}
    for item in recorded.inputs(("submit",)):
        task_id, _, job, _ = item.arguments
        rows[task_id] = int(job.key.rpartition("-")[2]) if job.key else job.number - 1
    return lambda task_id: rows.get(task_id, task_id)


def _since(tables: Tables, account: Account) -> Tables:
    """The same with moments counted from the beginning of the run, before which there is nothing but registrations:
    these stand at 0."""
    shifted = {}
    for name, columns in MOMENTS.items():
        table = getattr(tables, name)
        for column in columns:
            since = pc.subtract(table.column(column), account.began)
            table = _replaced(table, column, pc.if_else(pc.less(since, 0.0), 0.0, since))
        shifted[name] = table
    arrival_s = account.arrival_s[shifted["tasks"].column("task").to_numpy()]  # as they were, not less by rounding
    shifted["tasks"] = _replaced(shifted["tasks"], "arrival_s", pa.array(arrival_s))
    return Tables(**shifted, ended_s=account.ended - account.began)


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)


class _Watcher:
    """Implements `Effects` for the recorder; nothing else is to be done, it has been done."""

    def __init__(self, recorder: Recorder, faults: Sequence[Injection]) -> None:
        self._recorder = recorder
        self.settled = recorder.settled
        self._left: dict[WorkerId | None, list[tuple[float, bool]]] = {}
        self._faults: dict[str | None, list[Injection]] = {}
        for injection in faults:
            self._faults.setdefault(injection.worker, []).append(injection)

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        if event in (WorkerEvent.UP, WorkerEvent.LEFT):
            self._left.setdefault(worker.id, []).append((now, event is WorkerEvent.LEFT))
        self._recorder.worker_changed(worker, event, detail, now)

    def had_left(self, worker_id: WorkerId | None, at: float) -> bool:
        """Whether a process that was killed then was but a shell: its worker had taken its leave."""
        before = [left for moment, left in self._left.get(worker_id, ()) if moment <= at]
        return before[-1:] == [True]

    def ended(self, attempt: Attempt, now: float) -> None:
        self.presume_start(attempt)
        self._recorder.ended(attempt, now)

    def presume_starts(self, core: Coordinator) -> None:
        """Of all attempts that are with a worker."""
        for worker in core.workers():
            for attempt in (*worker.open, *worker.abandoned):
                self.presume_start(attempt)

    def presume_start(self, attempt: Attempt) -> None:
        """Of one that never told: without prefetch its execution began as it was assigned, if its worker was well."""
        worker = attempt.worker
        told = attempt.started_at is not None or attempt.outcome in _NEVER_BEGAN
        if not told and worker.limit == worker.capacity and not self._under_way(worker.id, attempt.assigned_at):
            attempt.started_at = attempt.assigned_at

    def _under_way(self, worker_id: WorkerId, at: float) -> set[str]:
        """Faults that keep an assignment of that moment from being begun at once."""
        found = set()
        for injection in self._faults.get(worker_id, ()):
            if injection.at > at:
                break
            if injection.kind in _KEEPS_FROM_BEGINNING:
                found.add(injection.kind)
            elif injection.kind == FaultEvent.HEAL:
                found.difference_update(faults_ended_by(injection.detail))
        return found

    def accepted(self, task: Task, now: float) -> None: ...
    def refused(self, task: Task, why: str, now: float) -> None: ...
    def assign(self, attempt: Attempt, now: float) -> None: ...
    def cancel(self, attempt: Attempt, now: float) -> None: ...
    def timed_out(self, attempt: Attempt, now: float) -> None: ...
    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None: ...
    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None: ...
    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None: ...
    def wake_at(self, at: float) -> None: ...
