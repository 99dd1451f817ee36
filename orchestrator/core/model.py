"""The records that the coordinator keeps: tasks, their attempts, and workers.

A task's life::

    PENDING --assign--> ASSIGNED --started--> RUNNING --result--> COMPLETED | FAILED
       ^                   |                     |
       +---- rejected, failed call, timeout, death, re-registration ----+

An attempt's life: OPEN (the task counts on it) -> CLOSED, or OPEN -> ABANDONED (given up, but it may still
occupy its worker and may still deliver) -> CLOSED; where the setting `on_return` says so, an attempt that was given
up with its worker is OPEN again when the worker returns. A worker's load is its open and abandoned attempts. A task
may have several open attempts, on different workers: twins.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from orchestrator.core.ports import FailureDetector

TaskId = Hashable
WorkerId = str
Hold = Literal["", "rejected", "failed_call"]


class TaskState(IntEnum):
    """The states of the wire contract, with its numbers."""

    PENDING = 0
    ASSIGNED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4


class Priority(IntEnum):
    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


class AttemptState(IntEnum):
    OPEN = 0
    ABANDONED = 1
    CLOSED = 2


class WorkerState(IntEnum):
    """ALIVE and SUSPECT and DEAD are the detector's opinion; LEFT is the worker's own word. A suspect gets nothing
    new and keeps what it has."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


class Outcome(IntEnum):
    """Why an attempt ended; the numbers are the codes of the attempts table."""

    COMPLETED = 0
    FAILED = 1
    TIMED_OUT = 2
    WORKER_DIED = 3
    REJECTED = 4
    CALL_FAILED = 5
    CANCELLED = 6
    UNFINISHED = 7


class WorkerEvent(StrEnum):
    """What happened to a worker, as the coordinator sees it; the words of the events table."""

    UP = "up"
    SUSPECT = "suspect"
    DEAD = "dead"
    DRAIN = "drain"
    LEFT = "left"
    EJECTED = "ejected"
    READMITTED = "readmitted"
    FORGOTTEN = "forgotten"


class Detail(StrEnum):
    """How it came about: of UP the first four, of DEAD the last two. EJECTED has a reason in words instead."""

    NONE = ""
    REGISTERED = "registered"
    REREGISTERED = "reregistered"
    RECONNECTED = "reconnected"
    REVIVED = "revived"
    DETECTOR = "detector"
    FAILED_CALL = "failed_call"


class Failure(NamedTuple):
    """One line of a task's history: an attempt that did not settle it."""

    attempt: int
    worker_id: WorkerId
    outcome: Outcome
    reason: str
    at: float


class Task:
    """One unit of work. `tries` counts the attempts that were its own fault or its worker's (a rejection and a
    failed call are neither, and a twin is none); `attempt` is the number of the newest one; `live` holds those not
    yet closed."""

    __slots__ = (
        "id", "seq", "priority", "payload", "state", "submitted_at", "settled_at", "attempt", "tries", "live",
        "failures", "worker_id", "result", "error",
    )  # fmt: skip

    def __init__(self, id: TaskId, seq: int, priority: int, payload: object, submitted_at: float) -> None:
        self.id = id
        self.seq = seq
        self.priority = priority
        self.payload = payload
        self.state = TaskState.PENDING
        self.submitted_at = submitted_at
        self.settled_at: float | None = None
        self.attempt = 0
        self.tries = 0
        self.live: tuple[Attempt, ...] = ()
        self.failures: list[Failure] | None = None
        self.worker_id: WorkerId | None = None
        self.result: object = None
        self.error = ""

    @property
    def settled(self) -> bool:
        return self.state >= TaskState.COMPLETED

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.name} attempt {self.attempt}>"


class Attempt:
    """One execution of a task on one worker. Times are the coordinator's, in seconds."""

    __slots__ = (
        "task", "worker", "number", "state", "outcome", "reason", "assigned_at", "started_at", "times_out_at",
        "given_up_at", "ended_at", "ran_s", "settles", "note",
    )  # fmt: skip

    hedge: ClassVar[bool] = False

    def __init__(self, task: Task, worker: Worker, number: int, assigned_at: float) -> None:
        self.task = task
        self.worker = worker
        self.number = number
        self.state = AttemptState.OPEN
        self.outcome = Outcome.UNFINISHED
        self.reason = ""
        self.assigned_at = assigned_at
        self.started_at: float | None = None
        self.times_out_at = math.inf
        self.given_up_at: float | None = None
        self.ended_at: float | None = None
        self.ran_s: float | None = None
        self.settles = False
        self.note: Any = None  # the driver's own; the core never looks

    def __repr__(self) -> str:
        return f"<Attempt {self.task.id}/{self.number} on {self.worker.id} {self.state.name}>"


class Twin(Attempt):
    """One that was started beside another that was still open; its end consumes none of its task's tries."""

    __slots__ = ()

    hedge = True


class Worker:
    """What the coordinator knows of one worker. `slot` is its dense index, for a policy's own tables; `limit` is
    capacity + prefetch; it may be assigned to while `load < limit` and nothing holds it back. `ejected_until`: when
    it is readmitted (-inf: it is not ejected); `blamed`: the tasks that may have killed it, while it may return."""

    __slots__ = (
        "id", "slot", "capacity", "limit", "reports_start", "state", "held", "draining", "ejected_until",
        "assignable", "load", "open", "abandoned", "blamed", "detector", "review_at",
    )  # fmt: skip

    def __init__(self, id: WorkerId, slot: int) -> None:
        self.id = id
        self.slot = slot
        self.capacity = 0
        self.limit: float = 0
        self.reports_start = False
        self.state = WorkerState.LEFT
        self.held: Hold = ""  # why it gets nothing new although it is alive
        self.draining = False
        self.ejected_until = -math.inf
        self.assignable = False
        self.load = 0
        self.open: dict[Attempt, None] = {}
        self.abandoned: dict[Attempt, None] = {}
        self.blamed: list[Task] = []
        self.detector: FailureDetector
        self.review_at = math.inf  # when it is reviewed next

    @property
    def available(self) -> bool:
        """Nothing but its load keeps it from getting tasks."""
        return (
            self.state is WorkerState.ALIVE
            and not self.held
            and not self.draining
            and self.ejected_until == -math.inf
        )

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state.name} load {self.load}/{self.limit}>"
