"""Routing by slots: how many a worker has, how fast they are, and whether one is free."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict
from typing import Literal

from orchestrator.core.model import Attempt, Outcome, Task, Worker
from orchestrator.core.ports import RoutingPolicy
from orchestrator.policies.config import Strict
from orchestrator.policies.means import Mean
from orchestrator.policies.routing.index import BySlot, Routing, compare, with_room

_COMPLETED = Outcome.COMPLETED

Entry = tuple[float, float, int, int]
"""Of one worker: the expected delay of its next task, its load for each slot, when its load changed, its slot."""


class Weighted:
    """The worker where the next task is expected to end first: shortest expected delay.

    With c slots, n attempts in hand and tasks that take s on it, that is s + max(0, n + 1 - c) s / c; among equals the
    worker with the least (n + 1) s / c, then that whose load is unchanged for longest. With one slot it is the rule of
    Linux Virtual Server's `sed`, (n + 1) / weight. s is relative to the mean of all workers, and learnt from the
    seconds of execution that workers report: an average over about the last WINDOW tasks, which begins as if PRIOR
    tasks had taken the mean.

    The workers stand in a heap. An entry that is not its worker's newest is dropped when it comes to the top.
    """

    WINDOW = 100
    PRIOR = 10

    def __init__(self) -> None:
        self._changes = 0
        self._heap: list[Entry] = []
        self._entries: dict[Worker, Entry] = {}  # of the workers with room, the newest
        self._workers: list[Worker | None] = []  # by slot
        self._all = Mean()
        self._means = BySlot(Mean)

    def joined(self, worker: Worker) -> None:
        while worker.slot >= len(self._workers):
            self._workers.append(None)
        self._workers[worker.slot] = worker
        self.load_changed(worker, worker.load)

    def left(self, worker: Worker) -> None:
        self._entries.pop(worker, None)

    def load_changed(self, worker: Worker, before: int) -> None:
        n = worker.load + 1
        if n > worker.limit:
            self._entries.pop(worker, None)
            return
        slots, s = max(1, worker.capacity), self._slowness(worker)
        self._changes += 1
        entry = s * (1 + max(0, n - slots) / slots), s * n / slots, self._changes, worker.slot
        self._entries[worker] = entry
        heapq.heappush(self._heap, entry)
        if len(self._heap) > 4 * len(self._entries) + 64:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def ended(self, attempt: Attempt, now: float) -> None:
        if attempt.outcome is _COMPLETED and attempt.ran_s is not None:
            mean = self._means.of(attempt.worker)
            if not mean.n and self._all.n:
                mean.value, mean.n = self._all.value, self.PRIOR
            mean.add(attempt.ran_s, self.WINDOW)
            self._all.add(attempt.ran_s, self.WINDOW * max(1, len(self._workers)))  # a recovered one has not joined

    def choose(self, task: Task) -> Worker | None:
        heap, workers, newest = self._heap, self._workers, self._entries
        while True:
            worker = workers[heap[0][3]]
            if worker is not None and newest.get(worker) is heap[0]:
                return worker
            heapq.heappop(heap)

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless every assignable worker with room, and no other, has an entry in the heap."""
        compare(sorted(worker.id for worker in self._entries), with_room(assignable))
        heap = dict.fromkeys(self._heap)
        compare([worker.id for worker, entry in self._entries.items() if entry not in heap], [])

    def _slowness(self, worker: Worker) -> float:
        """What a task takes there, of what it takes anywhere."""
        mean = self._means.of(worker)
        return mean.value / self._all.value if mean.n and self._all.value else 1.0


class JoinIdleQueue(Routing):
    """The worker that has been idle longest, and any with room if none is (Lu, Xie, Kliot et al. 2011).

    A worker with a free slot counts as idle. With every task that it gets it goes to the end of the queue.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        # An OrderedDict is a linked list, so its first key is found in O(1); a dict walks over deleted entries.
        self._idle: OrderedDict[Worker, None] = OrderedDict()

    def joined(self, worker: Worker) -> None:
        super().joined(worker)
        if worker.load < worker.capacity:
            self._idle[worker] = None

    def left(self, worker: Worker) -> None:
        super().left(worker)
        self._idle.pop(worker, None)

    def load_changed(self, worker: Worker, before: int) -> None:
        super().load_changed(worker, before)
        if worker.load >= worker.capacity:
            self._idle.pop(worker, None)
        elif worker not in self._idle:
            self._idle[worker] = None
        elif worker.load > before:
            self._idle.move_to_end(worker)

    def choose(self, task: Task) -> Worker | None:
        idle = next(iter(self._idle), None)
        return self.roomy[int(self.rng.random() * len(self.roomy))] if idle is None else idle

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless the queue holds the assignable workers with a free slot."""
        super().check(assignable)
        free = sorted(worker.id for worker in assignable if worker.load < worker.capacity)
        compare(sorted(worker.id for worker in self._idle), free)


class WeightedConfig(Strict):
    """Where the task is expected to end first, by slots, load and learnt speed: for workers that are not alike."""

    kind: Literal["weighted"]

    def build(self, rng: random.Random) -> RoutingPolicy:
        return Weighted()


class JoinIdleQueueConfig(Strict):
    """The worker whose slot has been free longest; any with room, if no slot is free."""

    kind: Literal["join_idle_queue"]

    def build(self, rng: random.Random) -> RoutingPolicy:
        return JoinIdleQueue(rng)
