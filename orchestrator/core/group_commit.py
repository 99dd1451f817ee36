"""Group commit: nothing that depends on a change leaves before the change is stored.

Which tasks a decision changes, what of a task is stored, and what waits for it: for every driver that keeps a store,
whatever that is. What the core decides is noted as it happens; what is for a peer waits, all of it in one order, until
everything that was noted before it is stored. What changed while the store was writing is the next group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.core.inputs import Holding, Recovered
from orchestrator.core.model import Attempt, AttemptKey, AttemptState, Task, TaskState, Worker, WorkerEvent
from orchestrator.core.ports import Effects

_OPEN, _PENDING = AttemptState.OPEN, TaskState.PENDING
Calls = deque[tuple[Callable[..., None], tuple[Any, ...]]]


def stored(task: Task) -> Recovered:
    """All of a task that outlives its coordinator. Times are on the clock of that one."""
    return Recovered(
        task.id,
        task.priority,
        task.payload,
        task.limits,
        task.submitted_at,
        task.tries,
        task.attempt,
        tuple(
            Holding(attempt.number, attempt.worker.id, attempt.worker.incarnation, attempt.assigned_at)
            for attempt in task.live
            if attempt.state is _OPEN
        ),
        int(task.state),
        task.worker_id,
        task.result,
        task.error,
        task.settled_at,
    )


class GroupCommit:
    """The changes that are not stored yet, and the calls that wait for them. Its driver writes one group at a time.

    `wanted` is called when something has changed and no group is being written: the driver is to begin one, between two
    inputs.
    """

    __slots__ = ("_changed", "_covered", "_held", "_wanted", "writing")

    def __init__(self, wanted: Callable[[], None]) -> None:
        self.writing = False
        self._wanted = wanted
        self._changed: dict[Task, None] = {}  # since the last group
        self._held: Calls = deque()  # until that is stored
        self._covered: Calls = deque()  # until the last group is stored

    @property
    def due(self) -> bool:
        """A group is to be written."""
        return bool(self._changed) and not self.writing

    def note(self, task: Task) -> None:
        """It has changed, and is of the next group."""
        if not self._changed and not self.writing:
            self._wanted()
        self._changed[task] = None

    def release(self, peer: object, call: Callable[..., None], *values: object) -> None:
        """Make the call as soon as everything is stored that has been noted by now; all in one order, whatever peer
        they are for."""
        if self._changed:
            self._held.append((call, values))
        elif self.writing:
            self._covered.append((call, values))
        else:
            call(*values)

    def begin(self, copied: Callable[[Task], Any] = stored) -> list[Any]:
        """The next group, to be written: of each task that has changed a copy, as the store wants it. Between two
        inputs, so that it is the state after a whole number of them."""
        self.writing = True
        group = list(map(copied, self._changed))
        self._changed.clear()
        self._covered, self._held = self._held, deque()
        return group

    def end(self) -> Calls:
        """The group is stored: the calls that waited for it, in their order."""
        self.writing = False
        covered, self._covered = self._covered, deque()
        return covered

    def close(self) -> None:
        """What waits is never called, nor what comes; no other group begins."""
        self.writing = True
        self._changed.clear()
        self._held.clear()
        self._covered.clear()


class Noting:
    """Implements `Effects`: tells which tasks change, before whatever depends on it is passed on.

    A change that no effect announces is one that may be forgotten: an attempt that was given up and may still run.
    """

    def __init__(self, note: Callable[[Task], None], onward: Effects) -> None:
        self._note = note
        self._onward = onward
        self.refused = onward.refused
        self.acknowledged = onward.acknowledged
        self.heartbeat_answered = onward.heartbeat_answered
        self.wake_at = onward.wake_at

    def accepted(self, task: Task, now: float) -> None:
        if task.state is _PENDING and not task.attempt:  # or else it was known before
            self._note(task)
        self._onward.accepted(task, now)

    def assign(self, attempt: Attempt, now: float) -> None:
        self._note(attempt.task)
        self._onward.assign(attempt, now)

    def ended(self, attempt: Attempt, now: float) -> None:
        if not attempt.task.settled:
            self._note(attempt.task)
        self._onward.ended(attempt, now)

    def settled(self, task: Task, now: float) -> None:
        self._note(task)
        self._onward.settled(task, now)

    def cancel(self, attempt: Attempt, now: float) -> None:
        self._note_unsettled((attempt,))
        self._onward.cancel(attempt, now)

    def recall(self, attempt: Attempt, now: float) -> None:
        self._note_unsettled((attempt,))
        self._onward.recall(attempt, now)

    def timed_out(self, attempt: Attempt, now: float) -> None:
        self._note_unsettled((attempt,))
        self._onward.timed_out(attempt, now)

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        self._note_unsettled((*worker.open, *worker.abandoned))
        self._onward.registered(worker, request, dropped, now)

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        if event in (WorkerEvent.UP, WorkerEvent.DEAD):  # its attempts are counted on again, or not any more
            self._note_unsettled((*worker.open, *worker.abandoned))
        self._onward.worker_changed(worker, event, detail, now)

    def _note_unsettled(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if not attempt.task.settled:
                self._note(attempt.task)
