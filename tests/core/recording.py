"""Doubles that write down what the core makes happen, so that a test reads `fx.take() == [Assign("t1", "w1", 1)]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    Outcome,
    Priority,
    Task,
    TaskId,
    TaskState,
    TimeLimits,
    Worker,
    WorkerEvent,
    WorkerId,
)
from orchestrator.core.worker import Key


@dataclass(frozen=True)
class Accepted:
    task: TaskId

    def __str__(self) -> str:
        return f"accepted {self.task}"


@dataclass(frozen=True)
class Refused:
    task: TaskId

    def __str__(self) -> str:
        return f"refused {self.task}"


@dataclass(frozen=True)
class OfAttempt:
    task: TaskId
    worker: WorkerId
    number: int


class Assign(OfAttempt):
    def __str__(self) -> str:
        return f"assign {self.task}/{self.number} to {self.worker}"


class Cancel(OfAttempt):
    def __str__(self) -> str:
        return f"cancel {self.task}/{self.number} on {self.worker}"


class TimedOut(OfAttempt):
    def __str__(self) -> str:
        return f"timed out {self.task}/{self.number} on {self.worker}"


@dataclass(frozen=True)
class Ended(OfAttempt):
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
class Registered:
    """The answer to a registration with a request."""

    worker: WorkerId
    request: int
    dropped: tuple[Key, ...]

    def __str__(self) -> str:
        dropped = ", ".join(f"{task}/{number}" for task, number in self.dropped)
        return f"answer registration of {self.worker}{f', which drops {dropped}' if dropped else ''}"


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

    def refused(self, task: Task, why: str, now: float) -> None:
        self.effects.append(Refused(task.id))

    def assign(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Assign(attempt.task.id, attempt.worker.id, attempt.number))

    def cancel(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Cancel(attempt.task.id, attempt.worker.id, attempt.number))

    def timed_out(self, attempt: Attempt, now: float) -> None:
        self.effects.append(TimedOut(attempt.task.id, attempt.worker.id, attempt.number))

    def ended(self, attempt: Attempt, now: float) -> None:
        self.effects.append(Ended(attempt.task.id, attempt.worker.id, attempt.number, attempt.outcome))

    def settled(self, task: Task, now: float) -> None:
        self.effects.append(Settled(task.id, task.state, task.worker_id or ""))

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        if request is not None:
            self.effects.append(Registered(worker.id, request, tuple(dropped)))

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        self.effects.append(Acknowledged(worker_id, *_reports[request], known))

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        self.effects.append(Answered(worker_id, known))

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        self.effects.append(Changed(worker.id, event, detail))

    def wake_at(self, at: float) -> None:
        self.effects.append(WakeAt(at))


_reports: list[tuple[TaskId, int | None]] = []  # what each request of a report was about


def tell(core: Coordinator, name: str, *arguments: Any) -> None:
    """An input by its name, its records given flat: `register` with worker, capacity, prefetch and whether it reports
    starts, `result` with all of a report but the request. The last argument is `now`."""
    *given, now = arguments
    if name == "submit":
        task, priority, payload, *limits = given
        core.submit(task, priority, payload, limits[0] if limits else None, now)
    elif name == "register":
        worker, *of_worker = given
        core.register(Registration(worker, "", *of_worker), now)
    elif name == "heartbeat":
        worker, active = given
        core.heartbeat(worker, active, None, now)
    elif name == "result":
        _reports.append((given[1], given[2]))
        core.result(Report(*given)._replace(request=len(_reports) - 1), now)
    else:
        getattr(core, name)(*given, now)


def reported(request: int) -> Key:
    """The attempt that a report was about; it had a number."""
    task, number = _reports[request]
    assert number is not None
    return task, number


def register(
    core: Coordinator, worker: WorkerId, capacity: int, prefetch: float, reports_start: bool, now: float
) -> None:
    """A process of which the protocol tells no incarnation."""
    tell(core, "register", worker, capacity, prefetch, reports_start, now)


def heartbeat(core: Coordinator, worker: WorkerId, active: int, now: float) -> None:
    tell(core, "heartbeat", worker, active, now)


def beat(core: Coordinator, *workers: WorkerId, now: float, active: int = 0) -> None:
    for worker in workers:
        heartbeat(core, worker, active, now)


def submit(
    core: Coordinator,
    *tasks: TaskId,
    now: float = 0.0,
    priority: int = Priority.NORMAL,
    limits: TimeLimits | None = None,
) -> None:
    for task in tasks:
        core.submit(task, priority, f"payload of {task}", limits, now)


def assigned(core: Coordinator, *tasks: TaskId, now: float = 0.0) -> None:
    """Submit, and forget what that caused."""
    submit(core, *tasks, now=now)
    core._fx.take()  # type: ignore[attr-defined]


def complete(core: Coordinator, worker: str, task: TaskId, number: int | None, now: float) -> None:
    """The worker reports success."""
    tell(core, "result", worker, task, number, True, "value", "", False, None, None, now)


def fail(core: Coordinator, worker: str, task: TaskId, number: int | None, now: float, retryable: bool = False) -> None:
    """The worker reports that the task's work went wrong."""
    tell(core, "result", worker, task, number, False, None, "it broke", retryable, None, None, now)


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
class SendReport:
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
        self.effects.append(SendReport(key, result))

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
