"""Which attempts deserve a hedge: those of suspects, and slow ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator

from orchestrator.core.culprit import nonsense
from orchestrator.core.deadlines import AnyOrder
from orchestrator.core.model import Attempt, AttemptState, Task, Worker, WorkerState
from orchestrator.core.ports import HedgingPolicy

_OPEN = AttemptState.OPEN


def kind_of_payload(payload: object) -> Hashable:
    """What a payload calls its own kind; all that say nothing are of one kind."""
    kind: Hashable = getattr(payload, "kind", None)
    return kind


def is_alone(attempt: Attempt) -> bool:
    """Its task counts on no other attempt."""
    return attempt.state is _OPEN and all(other is attempt or other.state is not _OPEN for other in attempt.task.live)


def is_orphan(attempt: Attempt) -> bool:
    """Its task counts on nothing but suspects."""
    alive = WorkerState.ALIVE
    return all(other.state is not _OPEN or other.worker.state is not alive for other in attempt.task.live)


class Hedges:
    """Keeps the attempts that wait for a hedge: `orphans`, of suspects, and `slow`, which the policy must allow.

    `policy`: None where slow attempts get none. `of_suspects`: whether a suspect's attempts get hedges.
    """

    __slots__ = (
        "_ages",
        "_kind_of",
        "_known_kinds",
        "of_suspects",
        "orphans",
        "policy",
        "possible",
        "slow",
        "wanted",
    )

    def __init__(self, policy: HedgingPolicy | None, of_suspects: bool, kind_of: Callable[[object], Hashable]) -> None:
        self.policy = policy
        self.of_suspects = of_suspects
        self.possible = policy is not None or of_suspects
        self.orphans: dict[Attempt, None] = {}
        self.slow: dict[Attempt, None] = {}
        self.wanted = False  # whether any of these may be there
        self._kind_of = kind_of
        self._known_kinds: dict[Hashable, None] = {}
        self._ages: AnyOrder[Attempt] = AnyOrder()

    # ---- what became of an attempt

    def began(self, attempt: Attempt, workers: Iterable[Worker]) -> float:
        """An attempt begins. Gives the time at which the first one may be slow, inf if nobody can tell."""
        if self.policy is None or attempt.hedge:
            return math.inf
        now, kind = attempt.assigned_at, self._kind_of(attempt.task.payload)
        self.policy.began(kind, False)
        due_s = self._due_s(kind)
        if due_s == math.inf:
            return due_s
        if kind not in self._known_kinds:  # for those that began before anybody could tell when they are slow
            self._known_kinds[kind] = None
            for worker in workers:
                for other in worker.open:
                    if self._kind_of(other.task.payload) == kind:
                        self._ages.add(max(now, other.assigned_at + due_s), other)
        else:
            self._ages.add(now + due_s, attempt)
        return max(now, self._ages.earliest)

    def over(self, attempt: Attempt, now: float, succeeded: bool) -> None:
        """An attempt ended or was given up. `succeeded`: it settled its task, by success."""
        if self.wanted:
            self.orphans.pop(attempt, None)
            self.slow.pop(attempt, None)
        if succeeded and self.policy is not None:
            self.policy.finished(self._kind_of(attempt.task.payload), now - attempt.assigned_at)

    def look_again(self, attempt: Attempt, now: float) -> None:
        """It is open again, or alone again: it may want a hedge."""
        if self.policy is not None:
            self._ages.add(now, attempt)

    def lost_one(self, task: Task, now: float) -> bool:
        """One of a task's attempts came to nothing. Whether `find_slow` is to look at once at those that remain."""
        for attempt in task.live:
            if attempt.state is _OPEN:
                if attempt.worker.state is WorkerState.SUSPECT and self.of_suspects:
                    self.orphans[attempt] = None
                    self.wanted = True
                self.look_again(attempt, now)
        return self.policy is not None

    def suspected(self, worker: Worker) -> None:
        if self.of_suspects:
            for attempt in worker.open:
                self.orphans[attempt] = None
                self.wanted = True

    def revived(self, worker: Worker) -> None:
        if self.wanted:
            for attempt in worker.open:
                self.orphans.pop(attempt, None)

    # ---- which are slow

    def find_slow(self, now: float) -> None:
        """Move the attempts that have come to their age to `slow`."""
        while self._ages.earliest <= now:
            _, attempt = self._ages.pop()
            if is_alone(attempt):
                at = attempt.assigned_at + self._due_s(self._kind_of(attempt.task.payload))
                if at > now:
                    self._ages.add(at, attempt)
                else:
                    self.slow[attempt] = None
                    self.wanted = True

    def next_age_at(self) -> float:
        return self._ages.earliest

    def drop_stale_ages(self) -> None:
        self._ages.drop(lambda _, attempt: not is_alone(attempt))

    def hedged(self, attempt: Attempt) -> None:
        """A slow attempt got its hedge."""
        if self.policy is not None:
            self.policy.began(self._kind_of(attempt.task.payload), True)

    def served(self, waiting: dict[Attempt, None], attempts: Iterable[Attempt]) -> None:
        """These don't wait any more, in `orphans` or `slow`."""
        for attempt in attempts:
            del waiting[attempt]
        self.wanted = bool(self.orphans or self.slow)

    def violations(self) -> Iterator[str]:
        if not self.wanted and (self.orphans or self.slow):
            yield "hedges are wanted, and nobody knows"
        for attempt in (*self.orphans, *self.slow):
            if attempt.state is not _OPEN:
                yield f"{attempt} waits for a hedge and is over"

    def _due_s(self, kind: Hashable) -> float:
        assert self.policy is not None
        due_s = self.policy.due_s(kind)
        if not isinstance(due_s, (int, float)) or not due_s >= 0:
            raise nonsense("hedging policy", self.policy, "due_s", f"gave {due_s!r}, not a number of seconds")
        return due_s
