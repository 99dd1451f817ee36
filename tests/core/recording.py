"""Doubles that write down what the core makes happen, so that a test reads `fx.take() == [Assign("t1", "w1", 1)]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt, Outcome, Task, TaskId, TaskState, Worker, WorkerId
from orchestrator.core.worker import Key


@dataclass(frozen=True)
class Accepted:
    task: TaskId

    def __str__(self) -> str:
        return f"accepted {self.task}"


@dataclass(frozen=True)
class Assign:
    task: TaskId
    worker: WorkerId
    number: int

    def __str__(self) -> str:
        return f"assign {self.task}/{self.number} to {self.worker}"


@dataclass(frozen=True)
class Cancel:
    task: TaskId
    worker: WorkerId
    number: int

    def __str__(self) -> str:
        return f"cancel {self.task}/{self.number} on {self.worker}"


@dataclass(frozen=True)
class Ended:
    task: TaskId
    worker: WorkerId
    number: int
    outcome: Outcome

    def __str__(self) -> str:
        return f"ended {self.task}/{self.number} on {self.worker}: {self.outcome.name}"


@dataclass(frozen=True)
class Settled:
    task: TaskId
    state: TaskState
    worker: WorkerId

    def __str__(self) -> str:
        return f"settled {self.task} {self.state.name} by {self.worker}"


@dataclass(frozen=True)
class Acknowledged:
    worker: WorkerId
    task: TaskId
    number: int | None
    known: bool

    def __str__(self) -> str:
        number = "" if self.number is None else self.number
        return f"acknowledge {self.task}/{number} to {self.worker}{'' if self.known else ': unknown'}"


@dataclass(frozen=True)
class Answered:
    """A heartbeat's answer."""

    worker: WorkerId
    known: bool

    def __str__(self) -> str:
        return f"answer heartbeat of {self.worker}{'' if self.known else ': unknown'}"


@dataclass(frozen=True)
class Changed:
    worker: WorkerId
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.worker} is {self.kind}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class WakeAt:
    at: float

    def __str__(self) -> str:
        return f"wake at {self.at:.6g}"


class Record:
    """What happened, in order."""

    def __init__(self) -> None:
        self.effects: list[Any] = []

    def take(self, *kinds: type) -> list[Any]:
        """What happened since the last call, in order; with `kinds`, only of those."""
        effects, self.effects = self.effects, []
        return [effect for effect in effects if not kinds or isinstance(effect, kinds)]


class Recorder(Record):
    """Implements `core.ports.Effects`."""

    def accepted(self, task: Task, now: float) -> None:
        self.effects.append(Accepted(task.id))

    def assign(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Assign(attempt.task.id, attempt.worker.id, attempt.number))

    def cancel(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Cancel(attempt.task.id, attempt.worker.id, attempt.number))

    def ended(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Ended(attempt.task.id, attempt.worker.id, attempt.number, attempt.outcome))

    def settled(self, task: Task, now: float) -> None:
        assert task.worker_id is not None
        self.effects.append(Settled(task.id, task.state, task.worker_id))

    def acknowledged(self, worker_id: WorkerId, task_id: TaskId, number: int | None, known: bool) -> None:
        self.effects.append(Acknowledged(worker_id, task_id, number, known))

    def heartbeat_answered(self, worker_id: WorkerId, known: bool) -> None:
        self.effects.append(Answered(worker_id, known))

    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None:
        self.effects.append(Changed(worker.id, kind, detail))

    def wake_at(self, at: float) -> None:
        self.effects.append(WakeAt(at))


def complete(core: Coordinator, worker: str, task: TaskId, number: int | None, now: float) -> None:
    """The worker reports success."""
    core.result(worker, task, number, True, "value", "", False, None, None, now)


def fail(
    core: Coordinator, worker: str, task: TaskId, number: int | None, now: float, retryable: bool = False
) -> None:
    """The worker reports that the task's work went wrong."""
    core.result(worker, task, number, False, None, "it broke", retryable, None, None, now)


@dataclass(frozen=True)
class Answer:
    """A worker's answer to an assignment."""

    key: Key
    accepted: bool


@dataclass(frozen=True)
class Execute:
    key: Key


@dataclass(frozen=True)
class Stop:
    key: Key


@dataclass(frozen=True)
class ReportStart:
    key: Key


@dataclass(frozen=True)
class Report:
    key: Key
    result: object


@dataclass(frozen=True)
class CancelDone:
    key: Key


@dataclass(frozen=True)
class Beat:
    active: int
    completed: int


@dataclass(frozen=True)
class AnnounceDrain:
    pass


@dataclass(frozen=True)
class Leave:
    pass


class WorkerRecorder(Record):
    """Implements `core.worker.WorkerEffects`."""

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        self.effects.append(Answer(key, accepted))

    def execute(self, key: Key, payload: object, now: float) -> None:
        self.effects.append(Execute(key))

    def stop(self, key: Key, now: float) -> None:
        self.effects.append(Stop(key))

    def report_start(self, key: Key, now: float) -> None:
        self.effects.append(ReportStart(key))

    def report(self, key: Key, result: object, now: float) -> None:
        self.effects.append(Report(key, result))

    def cancel_done(self, key: Key, now: float) -> None:
        self.effects.append(CancelDone(key))

    def beat(self, active: int, completed: int, now: float) -> None:
        self.effects.append(Beat(active, completed))

    def announce_drain(self, now: float) -> None:
        self.effects.append(AnnounceDrain())

    def leave(self, now: float) -> None:
        self.effects.append(Leave())

    def wake_at(self, at: float) -> None:
        self.effects.append(WakeAt(at))
