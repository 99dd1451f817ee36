"""Who can take a task: workers offer kinds and labels, and tasks require them.

Around a routing policy stands one more for every need that some tasks have: an instance of its own, which hears only of
the workers that meet it. A task that no worker with room can take is refused, and waits in the lane of its need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from orchestrator.core.hedges import kind_of_payload
from orchestrator.core.model import Attempt, Task, Worker
from orchestrator.core.ports import EndAware, LaneAware, RoutingPolicy
from orchestrator.policies.routing.index import compare

Need = tuple[Hashable, str]
"""The kind of a task, None where every worker takes every kind, and the labels that it requires."""
MOST_NAMED = 100_000
"""Kinds that are remembered although their workers may be gone."""
OTHER = ""
"""In the place of a kind that no worker names: those take it that take every kind."""


def meets(worker: Worker, need: Need) -> bool:
    kind, requires = need
    if worker.kinds and kind is not None and kind not in worker.kinds:
        return False
    return not requires or all(label in worker.labels for label in requires.split(","))


class Placement:
    """`base` chooses for tasks that any worker can take, and what `new` makes for each other need.

    `new`: is told a name for the stream of random numbers. A need that no worker meets costs nothing. Submitters may
    make up needs: kinds that no worker names are one, and beyond MOST needs those that come again are met anew.
    """

    MOST = 200

    def __init__(self, base: RoutingPolicy, new: Callable[[str], RoutingPolicy]) -> None:
        self.base = base
        self._new = new
        self._here: dict[Worker, list[_Pool]] = {}  # with the pools that each stands in
        self._pools: dict[Need, _Pool] = {}
        self._named: dict[str, None] = {}  # the kinds of workers that do not take every kind
        self._learns = isinstance(base, EndAware)
        self._lane_of: Callable[[Task], Hashable] = base.lane if isinstance(base, LaneAware) else _nowhere

    def joined(self, worker: Worker) -> None:
        self.base.joined(worker)
        self._named.update(dict.fromkeys(worker.kinds))
        if len(self._named) > MOST_NAMED:  # by workers that have registered again and again
            self._named = dict.fromkeys(kind for here in (worker, *self._here) for kind in here.kinds)
        self._here[worker] = pools = [pool for need, pool in self._pools.items() if meets(worker, need)]
        for pool in pools:
            pool.joined(worker)

    def left(self, worker: Worker) -> None:
        self.base.left(worker)
        for pool in self._here.pop(worker):
            pool.left(worker)

    def load_changed(self, worker: Worker, before: int) -> None:
        self.base.load_changed(worker, before)
        if pools := self._here[worker]:
            for pool in pools:
                pool.load_changed(worker, before)

    def choose(self, task: Task) -> Worker | None:
        requires = getattr(task.payload, "requires", "")
        if not requires and not self._named:
            return self.base.choose(task)
        need = self._need_of(task)
        pool = self._pools.get(need) or self._new_pool(need)
        return None if pool is None or not pool.roomy else pool.policy.choose(task)

    def lane(self, task: Task) -> Hashable:
        # By the kind itself: which kinds workers name changes, and no task may wait behind one that is of no use to it.
        kind, requires = kind_of_payload(task.payload), getattr(task.payload, "requires", "")
        return kind, requires, self._lane_of(task)

    def fits(self, worker: Worker, task: Task) -> bool:
        """Whether the worker can take the task at all."""
        return meets(worker, self._need_of(task))

    def ended(self, attempt: Attempt, now: float) -> None:
        if self._learns:
            for policy in (self.base, *(pool.policy for pool in self._here.get(attempt.worker, ()))):
                policy.ended(attempt, now)  # type: ignore[attr-defined]  # all are of one class

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless the policy, and that of each need, knows the workers that it is for."""
        for need, policy in [(None, self.base), *((need, pool.policy) for need, pool in self._pools.items())]:
            check = getattr(policy, "check", None)
            if check is not None:
                check([worker for worker in assignable if need is None or meets(worker, need)])
        for need, pool in self._pools.items():
            roomy = sum(worker.load < worker.limit and meets(worker, need) for worker in assignable)
            compare((need, pool.roomy), (need, roomy))

    def _need_of(self, task: Task) -> Need:
        requires = getattr(task.payload, "requires", "")
        if not self._named:
            return None, requires
        kind = kind_of_payload(task.payload)
        return kind if kind in self._named else OTHER, requires

    def _new_pool(self, need: Need) -> _Pool | None:
        members = [worker for worker in self._here if meets(worker, need)]
        if not members:
            return None
        if len(self._pools) >= self.MOST:
            self._pools.clear()
            for pools in self._here.values():
                pools.clear()
        pool = self._pools[need] = _Pool(self._new(f"{need[0]} {need[1]}"))
        for worker in members:
            self._here[worker].append(pool)
            pool.joined(worker)
        return pool


def _nowhere(task: Task) -> Hashable:
    return None


class _Pool:
    """The workers that meet a need. `roomy`: how many of them have room."""

    __slots__ = ("policy", "roomy")

    def __init__(self, policy: RoutingPolicy) -> None:
        self.policy = policy
        self.roomy = 0

    def joined(self, worker: Worker) -> None:
        self.policy.joined(worker)
        self.roomy += worker.load < worker.limit

    def left(self, worker: Worker) -> None:
        self.policy.left(worker)
        self.roomy -= worker.load < worker.limit

    def load_changed(self, worker: Worker, before: int) -> None:
        self.policy.load_changed(worker, before)
        self.roomy += (worker.load < worker.limit) - (before < worker.limit)
