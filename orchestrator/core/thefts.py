"""Which workers are idle, and which attempts were recalled for whom."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.culprit import nonsense
from orchestrator.core.model import Attempt, AttemptState, Worker
from orchestrator.core.ports import Choosy, RoutingPolicy, StealingPolicy


class Thefts:
    """`idle`: workers that have a free slot, and were not looked at since they have it.

    A recalled attempt is abandoned, and its task waits until the worker has given it back, or says that it has begun.
    `kept`: those that went on where they were, as if they had never been recalled. Their worker may hear of it yet.
    """

    __slots__ = ("_fits", "_promised", "_thieves", "idle", "kept", "policy")

    def __init__(self, policy: StealingPolicy, routing: RoutingPolicy) -> None:
        self.policy = policy
        self._fits = routing.fits if isinstance(routing, Choosy) else None
        self.idle: dict[Worker, None] = {}
        self.kept: set[Attempt] = set()
        self._thieves: dict[Attempt, Worker] = {}
        self._promised: dict[Worker, int] = {}  # how many attempts were recalled for it

    # ---- what it hears

    def joined(self, worker: Worker) -> None:
        self.policy.joined(worker)
        self._note_idle(worker)

    def left(self, worker: Worker) -> None:
        self.policy.left(worker)

    def load_changed(self, worker: Worker, before: int) -> None:
        self.policy.load_changed(worker, before)
        self._note_idle(worker)

    # ---- recalls

    def wants(self, worker: Worker) -> bool:
        """It has a free slot, for which nothing was recalled."""
        return worker.assignable and worker.load + self._promised.get(worker, 0) < worker.capacity

    def tail(self, thief: Worker) -> Attempt | None:
        """What the thief may take: the newest attempt of the policy's victim that has not begun, as far as is known,
        and that the thief can take."""
        victim = self.policy.victim(thief)
        if victim is None:
            return None
        if victim.__class__ is not Worker or not victim.assignable or victim is thief:
            raise nonsense(
                "stealing policy", self.policy, "victim", f"gave {victim!r}, not another worker that is here"
            )
        for attempt in reversed(victim.open) if victim.reports_start else ():
            if attempt.started_at is not None:
                break
            movable = attempt.task.live == (attempt,) and not attempt.hedge
            if movable and (self._fits is None or self._fits(thief, attempt.task)):
                return attempt
        return None

    def recalled(self, attempt: Attempt, thief: Worker) -> None:
        self._thieves[attempt] = thief
        self._promised[thief] = self._promised.get(thief, 0) + 1

    def thief_of(self, attempt: Attempt) -> Worker | None:
        return self._thieves.get(attempt)

    def over(self, attempt: Attempt) -> None:
        """The attempt is closed, or goes on where it is."""
        self.kept.discard(attempt)
        thief = self._thieves.pop(attempt, None)
        if thief is not None:
            self._promised[thief] -= 1
            if not self._promised[thief]:
                del self._promised[thief]
            self._note_idle(thief)

    def violations(self) -> Iterator[str]:
        for attempt in self._thieves:
            if attempt.state is not AttemptState.ABANDONED:
                yield f"{attempt} was recalled and is not abandoned"
        if sum(self._promised.values()) != len(self._thieves):
            yield f"{len(self._thieves)} attempts were recalled, and {self._promised} promised"

    def _note_idle(self, worker: Worker) -> None:
        if worker.load < worker.capacity and worker.assignable:
            self.idle[worker] = None
