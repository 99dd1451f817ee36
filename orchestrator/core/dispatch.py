"""What the workers that have room get: first what waits, then hedges, then what other workers have not begun.

To take an attempt from a worker the coordinator recalls it: the worker gives it back, unless it has begun it meanwhile.
The attempt is abandoned like one that is cancelled, so whatever is lost on the way ends as it does there; but its task
waits for the answer, and nothing is begun twice. A recall consumes no try.
"""

from __future__ import annotations

from orchestrator.core.backlog import Waits
from orchestrator.core.hedges import is_alone, is_orphan
from orchestrator.core.model import Attempt, AttemptState, Hedge, Outcome, Task, Worker
from orchestrator.core.transitions import Transitions


class Dispatch(Transitions):
    """Who gets what. `_thefts` is None where nobody steals."""

    __slots__ = ()

    def waits_for(self, task: Task) -> tuple[Waits, float | None]:
        """What a pending task waits for; and when its next try is, where it waits for that."""
        return self._backlog.waits_for(task)

    @property
    def retries(self) -> int:
        """How many tasks wait for their next try."""
        return self._backlog.retries

    def _dispatch(self, now: float) -> None:
        """Assign waiting tasks while a worker has room."""
        backlog = self._backlog
        if self._room_appeared:
            self._room_appeared = False
            if backlog.lanes:
                backlog.open_all()
        while self._roomy and backlog.size:
            task = backlog.pop()
            if task is None:
                break
            if task.live and self._is_crowded(task):
                backlog.hold(task)
                continue
            worker = self._routing.choose(task)
            if worker is None:
                backlog.refuse(task)
                continue
            if backlog.open_lanes:
                backlog.assigned(task)
            self._assign(task, worker, now)
        if self._hedges.wanted and self._roomy:
            self._start_hedges(now)
        if self._thefts is not None and self._thefts.idle:
            self._steal(now)

    def _is_crowded(self, task: Task) -> bool:
        """Whether the task has as many copies as it may have, or one that was recalled.

        A copy is an attempt, not a hedge, that occupies a worker. One that was declared dead does not count: it may
        never say that the attempt ended.
        """
        copies = [attempt for attempt in task.live if attempt.is_copy]
        if self._thefts is not None and any(self._thefts.thief_of(attempt) for attempt in copies):
            return True
        return len(copies) >= self._max_copies

    # ---- hedges

    def _start_hedges(self, now: float) -> None:
        """In room that no task waits for: first beside the suspects' attempts, then beside slow ones."""
        hedges, is_poison = self._hedges, self._blame.is_poison
        served = []
        for attempt in hedges.orphans:
            if not self._roomy:
                break
            if not is_orphan(attempt) or is_poison(attempt.task) or self._start_hedge(attempt, now):
                served.append(attempt)
        hedges.served(hedges.orphans, served)
        served = []
        for attempt in hedges.slow:
            if not self._roomy:
                break
            if is_alone(attempt) and not is_poison(attempt.task):
                if hedges.policy is None or not hedges.policy.may_begin():
                    break
                if not self._start_hedge(attempt, now):
                    continue
                hedges.hedged(attempt)
            served.append(attempt)
        hedges.served(hedges.slow, served)

    def _start_hedge(self, attempt: Attempt, now: float) -> bool:
        """On a worker that holds no attempt of that task, if there is one with room."""
        task = attempt.task
        holders = [other.worker for other in task.live if other.worker.assignable]
        for worker in holders:
            self._make_unassignable(worker)
        chosen = self._routing.choose(task) if self._roomy else None
        if chosen is not None:
            before = task.state
            self._make_pending(task)
            self._assign(task, chosen, now, Hedge)
            task.state = before
        for worker in holders:
            self._reconsider(worker)
        return chosen is not None

    # ---- stealing

    def _steal(self, now: float) -> None:
        """For workers that have a free slot although nothing waits that they could take."""
        assert self._thefts is not None
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

    def _is_kept(self, attempt: Attempt) -> bool:
        """It was recalled, and its worker said then that it has it; but it may have heard of that afterwards."""
        return self._thefts is not None and attempt in self._thefts.kept

    def _given_back(self, attempt: Attempt, now: float) -> None:
        """Its worker does not have it any more: the thief gets it, if it is idle still, or whoever comes first."""
        if attempt.state is AttemptState.OPEN:
            self._come_to_nothing(attempt, Outcome.CANCELLED, "its worker gave it back", now)
            return
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
