"""What the core asks of the world (effects) and of its policies.

An effect follows the state change that it announces. It never calls back into the core and never raises. Its
arguments are borrowed: the core changes them after the call, so a driver that sends later copies what it needs at
once.
A driver may delay effects (until they are durable, until the peer reads) as long as it keeps their order per peer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    FailureDetector,
    Task,
    Verdict,
    Worker,
    WorkerEvent,
    WorkerId,
)

__all__ = [
    "DetectorFactory",
    "Effects",
    "EjectionPolicy",
    "FailureDetector",
    "HedgingPolicy",
    "LaneAware",
    "PolicyError",
    "QueueDiscipline",
    "RetryPolicy",
    "RoutingPolicy",
    "SleepAware",
    "Verdict",
]


class PolicyError(Exception):
    """A policy raised an exception or answered nonsense: one sentence that names the policy and the method.

    The state of the coordinator is unknown from then on: whoever drives it stops.
    """


class Effects(Protocol):
    """What the coordinator makes happen. `now` is the time of the input that caused it."""

    def accepted(self, task: Task, now: float) -> None:
        """The submitter may be told that the coordinator has the task."""

    def refused(self, task: Task, why: str, now: float) -> None:
        """The submitter may be told that the coordinator does not take the task, while so many wait. It keeps no record
        of it."""

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        """Answer to a registration. `dropped`: what the worker is to stop of the attempts that it said it holds."""

    def assign(self, attempt: Attempt, now: float) -> None:
        """Send `attempt.task` to `attempt.worker`."""

    def cancel(self, attempt: Attempt, now: float) -> None:
        """Tell `attempt.worker` to stop; its answer is the input `cancelled`."""

    def timed_out(self, attempt: Attempt, now: float) -> None:
        """The attempt has exceeded its limit (`attempt.reason`). Its cancel follows."""

    def ended(self, attempt: Attempt, now: float) -> None:
        """The attempt is closed: it no longer occupies its worker."""

    def settled(self, task: Task, now: float) -> None:
        """The task is COMPLETED or FAILED, once and for all."""

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        """Answer to a report: the coordinator has it. `known`: it had heard of the task and the attempt."""

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        """Answer to a heartbeat; `known` false asks the worker to register again."""

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        """Something happened to a worker. `detail`: a `Detail`, or of EJECTED the reason in words."""

    def wake_at(self, at: float) -> None:
        """Call `wake` at that time; only the newest request counts. Early and extra wakes are harmless."""


class RoutingPolicy(Protocol):
    """Chooses the worker for a task.

    It hears of every worker that may be assigned to (`joined`, `left`) and of every change of a joined worker's load,
    so `choose` never scans them all. `choose` returns a joined worker with `load < limit`. It is asked only while
    there is one. It returns None when none of those can take this task: the task then waits in its lane, without
    blocking others, until a worker joins or gets room.
    """

    def joined(self, worker: Worker) -> None: ...
    def left(self, worker: Worker) -> None: ...
    def load_changed(self, worker: Worker, before: int) -> None: ...
    def choose(self, task: Task) -> Worker | None: ...


@runtime_checkable
class LaneAware(Protocol):
    """A routing policy that knows which tasks are alike."""

    def lane(self, task: Task) -> Hashable:
        """Tasks of one lane can be taken by the same workers, so a refusal of one holds for all of them.

        Without this method each refused task is a lane of its own, and all of them are tried again at each change.
        """


class QueueDiscipline(Protocol):
    """The order in which waiting tasks are tried. A requeued task is pushed again and keeps its `seq`.

    Iteration gives every task that stands in the queue once, in any order. Where many that stand in it are settled, all
    are popped, and the others are pushed again in the order in which they were popped.
    """

    def push(self, task: Task) -> None: ...
    def pop(self) -> Task: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Task]: ...


@runtime_checkable
class SleepAware(Protocol):
    """A detector that learns from the times between beats, and must not learn from the coordinator's own pauses."""

    def slept(self, until: float) -> None:
        """The coordinator stood still: the times of what is heard before `until` say nothing about the worker."""


class DetectorFactory(Protocol):
    def __call__(self, now: float) -> FailureDetector:
        """A detector for a worker that was first heard at `now`."""


class RetryPolicy(Protocol):
    """Seconds to wait before the next attempt, or None to give up. `tries` counts attempts consumed: 0 if a hedge came
    to nothing, and its original consumed none."""

    max_attempts: int | None

    def delay_s(self, tries: int) -> float | None: ...


class HedgingPolicy(Protocol):
    """When a slow attempt gets a hedge on another worker, and how many hedges there may be.

    `kind` is what a task's payload says of itself, and seconds count from the assignment, as the coordinator sees
    them.
    """

    def began(self, kind: Hashable, hedge: bool) -> None:
        """An attempt was assigned; `hedge`: to hedge a slow one, at this policy's word."""

    def finished(self, kind: Hashable, seconds: float) -> None:
        """An attempt settled its task, by success."""

    def due_s(self, kind: Hashable) -> float:
        """The age at which an open attempt deserves a hedge; inf while nobody can tell."""

    def may_begin(self) -> bool:
        """Whether one more hedge is within the budget."""


class EjectionPolicy(Protocol):
    """Which workers get nothing for a while although they beat: the gray ones."""

    def ended(self, attempt: Attempt, now: float) -> None:
        """The attempt left its worker, with its outcome."""

    def review_at(self) -> float:
        """When it wants to be asked next; any time in the past means at once."""

    def review(self, workers: Iterable[Worker], now: float) -> Iterable[tuple[Worker, str, float]]:
        """Who is to be ejected now, why, and for how many seconds. Afterwards `review_at` is later than `now`."""
