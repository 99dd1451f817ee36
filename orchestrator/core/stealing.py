"""Work stealing: an idle worker gets what another one has not begun.

The coordinator recalls an attempt: its worker gives it back, unless it has begun it meanwhile. The attempt is abandoned
like one that is cancelled, so whatever is lost on the way ends as it does there; but its task waits for the answer, and
nothing is begun twice. A recall consumes no try.
"""

from __future__ import annotations

from orchestrator.core.model import Attempt, Outcome, Task, TaskState, Worker
from orchestrator.core.transitions import Transitions


class Stealing(Transitions):
    """What becomes of an attempt that is recalled. `_thefts` is None where nobody steals."""

    __slots__ = ()

    def _dispatch(self, now: float) -> None:
        """What no waiting task wants is for those who steal."""
        super()._dispatch(now)
        if self._thefts is not None and self._thefts.idle:
            idle, self._thefts.idle = self._thefts.idle, {}
            for thief in idle:
                while self._thefts.wants(thief) and (tail := self._thefts.tail(thief)) is not None:
                    self._recall(tail, thief, now)

    def _recall(self, attempt: Attempt, thief: Worker, now: float) -> None:
        assert self._thefts is not None
        self._give_up(attempt, Outcome.CANCELLED, f"recalled for {thief.id}", now)
        self._make_pending(attempt.task)
        self._backlog.hold(attempt.task)
        self._thefts.recalled(attempt, thief)
        self._fx.recall(attempt, now)

    def _given_back(self, attempt: Attempt, now: float) -> None:
        """Its worker does not have it any more: the thief gets it, if it is idle still, or whoever comes first."""
        thief = None if self._thefts is None else self._thefts.thief_of(attempt)
        task = attempt.task
        if thief is not None and task in self._backlog.crowded:
            self._backlog.forget(task)
            self._close(attempt, now)
            if thief.assignable and thief.load < thief.capacity:
                self._assign(task, thief, now)
            else:
                self._backlog.add(task)
        else:
            self._close(attempt, now)

    def _keep_recalled(self, attempt: Attempt, now: float) -> None:
        """Its worker has begun it, or has it although the recall may be lost: if nobody else has it, it goes on."""
        if self._thefts is not None and self._thefts.thief_of(attempt) is not None:
            self._thefts.over(attempt)
            if attempt.task in self._backlog.crowded:
                self._reopen(attempt, now)

    def _is_crowded(self, task: Task) -> bool:
        return super()._is_crowded(task) or (self._thefts is not None and self._is_recalled(task))

    def _is_recalled(self, task: Task) -> bool:
        """Whether a worker that is not dead has yet to say what became of it."""
        assert self._thefts is not None
        return task.state is TaskState.PENDING and any(
            self._thefts.thief_of(attempt) is not None and attempt.is_copy for attempt in task.live
        )

    def _reconsider(self, worker: Worker) -> None:
        was = worker.assignable
        super()._reconsider(worker)
        if self._thefts is not None and worker.assignable and not was:
            self._thefts.joined(worker)

    def _make_unassignable(self, worker: Worker) -> None:
        if self._thefts is not None and worker.assignable:
            self._thefts.left(worker)
        super()._make_unassignable(worker)
