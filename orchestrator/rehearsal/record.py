"""The tables of a live run, from its decision record: a fresh core decides everything again, heard by the simulator's
recorder.

They cost the run nothing beyond the decision record, and need no coordinator that lives to hand them over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.cluster.decision_record import Recorded
from orchestrator.core.model import Attempt, AttemptKey, Outcome, Task, Worker, WorkerEvent, WorkerId
from orchestrator.results.folders import RunFolderError
from orchestrator.results.recorder import Recorder
from orchestrator.results.tables import FaultEvent, Tables, faults_ended_by
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
    core = recorded.build(watcher)
    inputs = 0
    for item in recorded.inputs(task_id=row_of(recorded)):
        if item.now > account.ended:
            break
        if item.raised is not None:
            raise ValueError(f"{path}:{item.line}: the input {item} raised {item.raised}")
        getattr(core, item.name)(*item.arguments, item.now)
        if item.name == "result" and (report := item.arguments[0]).attempt and report.ran_s is not None:
            recorder.reported(report.task_id, report.attempt, report.started_at, report.ran_s)
        inputs += item.now >= account.began
    if not (recorded.closed or killed):
        raise RunFolderError(f"{path} ends before the run does: {path.with_name('cluster.log')} says why")
    for worker in core.workers():
        for attempt in (*worker.open, *worker.abandoned):
            watcher.presume_start(attempt)
    recorder.close(core)
    for injection in account.faults:
        if injection.kind != "crash" or not watcher.had_left(injection.worker, injection.at):
            recorder.event(*injection)
    for row, at in account.given_up:
        recorder.refused(row, at)
    arrived_at = account.arrival_s + account.began
    tables = recorder.tables(arrived_at, account.service_s, account.priority, scenario.worker_names(), account.ended)
    return Record(_since(tables, account).with_kinds(account.kinds), inputs, core.counters)


def row_of(recorded: Recorded) -> Callable[[str], Hashable]:
    """Of the task with that id, which stays as it is where nobody submitted it: the client numbers its tasks from
    one."""
    rows: dict[str, int] = {}
    for item in recorded.inputs(("submit",)):
        task_id, _, job, _ = item.arguments
        rows[task_id] = job.number - 1
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
    def recall(self, attempt: Attempt, now: float) -> None: ...
    def timed_out(self, attempt: Attempt, now: float) -> None: ...
    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None: ...
    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None: ...
    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None: ...
    def wake_at(self, at: float) -> None: ...
