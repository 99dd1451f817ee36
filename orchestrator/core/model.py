"""The records that the coordinator keeps: tasks, their attempts, and workers.

A task's life::

    PENDING --assign--> ASSIGNED --started--> RUNNING --result--> COMPLETED | FAILED
       ^                   |                     |
       +---- rejected, failed call, timeout, death, re-registration ----+

An attempt's life: OPEN (the task counts on it) -> CLOSED, or OPEN -> ABANDONED (given up, but it may still occupy its
worker and may still deliver) -> CLOSED. Where the setting `on_return` says so, an attempt that was given up with its
worker is OPEN again when the worker returns. A worker's load is its open and abandoned attempts. A task may have
several open attempts, on different workers: the first one and its hedges.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from enum import IntEnum, StrEnum
from typing import Any, ClassVar, NamedTuple, Protocol

TaskId = Hashable
WorkerId = str
AttemptKey = tuple[TaskId, int]
"""A task's id and the number of one attempt at it."""


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
    """ALIVE, SUSPECT and DEAD are the detector's opinion, LEFT is the worker's own word. A suspect keeps what it has
    and gets nothing new."""

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


# Read for every task: a module's global is found faster than a member of an enum.
_PENDING, _OPEN, _UNFINISHED = TaskState.PENDING, AttemptState.OPEN, Outcome.UNFINISHED


class Quarantine(StrEnum):
    """Why a worker that is alive gets nothing new."""

    REJECTED = "rejected"
    """Until its next heartbeat or result."""
    FAILED_CALL = "failed_call"
    """Until a heartbeat after a pause that grows with every failure, or a registration. Then it is on trial."""
    TRIAL = "trial"
    """Until it says a word of the one attempt that it got on trial, or holds it for longer than a call may take."""


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


class Verdict(IntEnum):
    ALIVE = 0
    SUSPECT = 1
    DEAD = 2


class FailureDetector(Protocol):
    """Judges one worker. `review_at`: the earliest time at which its verdict can change without another heartbeat.

    So once `verdict(now)` has answered anything but DEAD, `review_at` is later than `now`.
    """

    def heard(self, now: float) -> None: ...
    def verdict(self, now: float) -> Verdict: ...
    def review_at(self) -> float: ...


class Failure(NamedTuple):
    """One line of a task's history: an attempt that did not settle it."""

    attempt: int
    worker_id: WorkerId
    outcome: Outcome
    reason: str
    at: float


class TimeLimits(NamedTuple):
    """How long a task may take, in seconds; None for no limit.

    `queue_timeout_s`: from its acceptance until its execution begins for the first time. `execution_timeout_s`: each
    execution, instead of the coordinator's limit. `deadline_s`: from its acceptance until it is settled.
    """

    queue_timeout_s: float | None = None
    execution_timeout_s: float | None = None
    deadline_s: float | None = None


class Task:
    """One unit of work.

    `tries`: attempts that counted against the task's limit; a rejection, a failed call and a hedge do not.
    `attempt`: the number of the newest attempt. `live`: the attempts that are not closed yet.
    `past`: who had which of the attempts that were closed before the task was settled, the newest PAST.
    `limits`: its own, None for none; once it has begun, without `queue_timeout_s`. `queued`: the task has a place in
    the queue, which may be stale.
    """

    PAST = 1000

    __slots__ = (
        "attempt", "error", "failures", "id", "limits", "live", "past", "payload", "priority", "queued", "result",
        "seq", "settled_at", "state", "submitted_at", "tries", "worker_id",
    )  # fmt: skip

    def __init__(
        self,
        id: TaskId,
        seq: int,
        priority: int,
        payload: object,
        submitted_at: float,
        limits: TimeLimits | None = None,
    ) -> None:
        self.id = id
        self.seq = seq
        self.priority = priority
        self.payload = payload
        self.state = _PENDING
        self.submitted_at = submitted_at
        self.settled_at: float | None = None
        self.limits = limits
        self.attempt = 0
        self.tries = 0
        self.queued = False
        self.live: tuple[Attempt, ...] = ()
        self.past: dict[int, WorkerId] | None = None
        self.failures: list[Failure] | None = None
        self.worker_id: WorkerId | None = None
        self.result: object = None
        self.error = ""

    @property
    def settled(self) -> bool:
        return self.state >= TaskState.COMPLETED

    @property
    def has_open(self) -> bool:
        """Whether the task counts on an attempt."""
        return any(attempt.state is AttemptState.OPEN for attempt in self.live)

    @property
    def deadline_at(self) -> float:
        """When it has to be settled; inf without a deadline."""
        deadline_s = None if self.limits is None else self.limits.deadline_s
        return math.inf if deadline_s is None else self.submitted_at + deadline_s

    def begin(self) -> None:
        """Its execution has begun: it has not waited for too long."""
        if self.limits is not None and self.limits.queue_timeout_s is not None:
            self.limits = self.limits._replace(queue_timeout_s=None)

    def newest(self, worker_id: WorkerId, number: int | None) -> Attempt | None:
        """The worker's live attempt of that number, or the newest that it has."""
        for attempt in reversed(self.live):
            if attempt.worker.id == worker_id and (number is None or attempt.number == number):
                return attempt
        return None

    def keep_past(self, attempt: Attempt) -> None:
        """The attempt is closed. A report of it may still come, and settle the task."""
        if self.past is None:
            self.past = {}
        elif len(self.past) >= Task.PAST:
            del self.past[min(self.past)]
        self.past[attempt.number] = attempt.worker.id

    def had(self, worker_id: WorkerId, number: int | None) -> bool:
        """Whether that worker had the task, in the attempt of that number or in any, and has it no more."""
        past = self.past or {}
        return worker_id in past.values() if number is None else past.get(number) == worker_id

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.state.name} attempt {self.attempt}>"


class Attempt:
    """One execution of a task on one worker. Times are the coordinator's, in seconds."""

    __slots__ = (
        "assigned_at", "ended_at", "given_up_at", "note", "number", "outcome", "ran_s", "reason", "settles",
        "started_at", "state", "task", "times_out_at", "worker",
    )  # fmt: skip

    hedge: ClassVar[bool] = False

    def __init__(self, task: Task, worker: Worker, number: int, assigned_at: float) -> None:
        self.task = task
        self.worker = worker
        self.number = number
        self.state = _OPEN
        self.outcome = _UNFINISHED
        self.reason = ""
        self.assigned_at = assigned_at
        self.started_at: float | None = None
        self.times_out_at = math.inf
        self.given_up_at: float | None = None
        self.ended_at: float | None = None
        self.ran_s: float | None = None
        self.settles = False
        self.note: Any = None  # the driver's own; the core never looks

    @property
    def is_copy(self) -> bool:
        """It is no hedge, and occupies a worker that may still say so."""
        return not self.hedge and self.worker.state is not WorkerState.DEAD

    @property
    def has_begun(self) -> bool:
        """An assignment counts as the start where a worker does not say when it starts."""
        return self.started_at is not None or not self.worker.reports_start

    @property
    def key(self) -> AttemptKey:
        return self.task.id, self.number

    def __repr__(self) -> str:
        return f"<Attempt {self.task.id}/{self.number} on {self.worker.id} {self.state.name}>"


class Hedge(Attempt):
    """An attempt that was started beside another open one. Its end counts against no limit of the task."""

    __slots__ = ()

    hedge = True


class Worker:
    """What the coordinator knows of one worker.

    `slot`: a small index of its own, for a policy's tables; the slot of a forgotten worker is used again.
    `incarnation`: names the process; empty where its protocol has none. `limit`: capacity + prefetch.
    The coordinator assigns to it while `load < limit` and nothing else is in the way (`available`).
    `ejected_until`: when an ejected worker is readmitted, -inf for one that is not ejected.
    `awaited`: an earlier coordinator knew it; it has not registered with this one yet.
    `blamed`: the tasks that may have killed it, for as long as it may return. `gone_at`: when it left or was declared
    dead, inf while it is neither. `on_trial`: since a failed call it has not yet shown that it takes what it is given;
    `trial_at`: when it may be tried again. `trial_pause_s`: the pause after the next failure, 0 for a sound worker.
    """

    __slots__ = (
        "abandoned", "assignable", "awaited", "blamed", "capacity", "detector", "draining", "ejected_until", "gone_at",
        "id", "incarnation", "limit", "load", "on_trial", "open", "quarantined", "reports_start", "review_at", "slot",
        "state", "trial_at", "trial_pause_s",
    )  # fmt: skip

    def __init__(self, id: WorkerId, slot: int) -> None:
        self.id = id
        self.slot = slot
        self.incarnation = ""
        self.capacity = 0
        self.limit: float = 0
        self.reports_start = False
        self.state = WorkerState.LEFT
        self.awaited = False
        self.quarantined: Quarantine | None = None
        self.draining = False
        self.ejected_until = -math.inf
        self.gone_at = math.inf
        self.on_trial = False
        self.trial_at = -math.inf
        self.trial_pause_s = 0.0
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
            and not self.quarantined
            and not self.draining
            and self.ejected_until == -math.inf
        )

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.state.name} load {self.load}/{self.limit:g}>"
