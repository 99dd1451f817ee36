"""Routing by affinity: tasks with the same key go to the same worker, which may have at hand what they need.

Nothing here depends on `hash()`: points and scores come from BLAKE2, the same on every machine. A task without a key
goes to the least loaded worker, and so does one for which no worker is left that its rule would choose.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_right
from collections import OrderedDict
from fractions import Fraction
from hashlib import blake2b
from typing import Literal

from orchestrator.core.model import Task, Worker, WorkerId
from orchestrator.core.ports import RoutingPolicy
from orchestrator.policies.config import Count, NonNegative, Strict
from orchestrator.policies.routing.load import LeastLoaded


def affinity_of(task: Task) -> str:
    """Its key; empty without one."""
    key: str = getattr(task.payload, "affinity_key", "")
    return key


def point(text: str) -> int:
    """A number below 2^64, as if drawn at random."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


class Affinity(LeastLoaded):
    """What both rules have in common: who is here, and the least loaded of those with room for what has no key."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self.here: dict[Worker, None] = {}

    def joined(self, worker: Worker) -> None:
        super().joined(worker)
        self.here[worker] = None

    def left(self, worker: Worker) -> None:
        super().left(worker)
        del self.here[worker]


class ConsistentHash(Affinity):
    """The first worker clockwise from the key's point on a ring that is not above its bound.

    Every worker has `virtual_nodes` points (Karger et al. 1997). With m attempts in hand, this one included, and n
    workers, none gets more than ceil((1 + bound) m / n) (Mirrokni, Thorup, Zadimoghaddam 2018), unless all that have
    room are above that.

    A worker that leaves keeps its points, which are passed over, until there are more of those than of the others: it
    may be back at once. After a walk over WALK points the least loaded is chosen, which is below the mean.
    """

    WALK = 1000

    def __init__(self, rng: random.Random, virtual_nodes: int, bound: float) -> None:
        super().__init__(rng)
        self._virtual_nodes = virtual_nodes
        # In integers, because of floats 1.1 x 10 is above 11, and would be rounded up to 12.
        self._share, self._of = Fraction(1 + bound).limit_denominator(10**6).as_integer_ratio()
        self._held = 0  # by all that are here
        self._points: list[int] = []  # sorted
        self._owners: list[Worker] = []  # of the points
        self._known: dict[Worker, None] = {}  # those that have points, or are to have them
        self._new: list[Worker] = []

    def joined(self, worker: Worker) -> None:
        super().joined(worker)
        self._held += worker.load
        if worker not in self._known:
            self._known[worker] = None
            self._new.append(worker)

    def left(self, worker: Worker) -> None:
        super().left(worker)
        self._held -= worker.load

    def load_changed(self, worker: Worker, before: int) -> None:
        super().load_changed(worker, before)
        if worker in self.here:
            self._held += worker.load - before

    def choose(self, task: Task) -> Worker | None:
        key = affinity_of(task)
        if not key:
            return super().choose(task)
        if self._new or len(self._known) > 2 * len(self.here):
            self._place_points()
        most = -(-self._share * (self._held + 1) // (self._of * len(self.here)))
        owners = self._owners
        at = bisect_right(self._points, point(key))
        for place in range(at, at + min(len(owners), self.WALK)):
            worker = owners[place % len(owners)]
            if worker.load < most and worker.load < worker.limit and worker in self.here:
                return worker
        return super().choose(task)

    def owner(self, key: str) -> Worker:
        """Whose the key is while nobody is above the bound."""
        if self._new:
            self._place_points()
        at = bisect_right(self._points, point(key))
        owners = self._owners
        return next(owner for step in range(len(owners)) if (owner := owners[(at + step) % len(owners)]) in self.here)

    def _place_points(self) -> None:
        """Add the points of the new workers, or drop those of the absent ones."""
        if len(self._known) > 2 * len(self.here):
            self._known = dict.fromkeys(self.here)
            self._new = list(self.here)
            self._points, self._owners = [], []
        placed = list(zip(self._points, self._owners, strict=True))
        for worker in self._new:
            placed += [(point(f"{worker.id}/{node}"), worker) for node in range(self._virtual_nodes)]
        self._new.clear()
        placed.sort(key=_by_point)
        self._points = [at for at, _ in placed]
        self._owners = [worker for _, worker in placed]


class Rendezvous(Affinity):
    """The worker with room whose score with the key is the highest (Thaler and Ravishankar 1998).

    The BEST of a key are remembered, of the last REMEMBERED keys; so only a new key costs a score for each worker.
    """

    BEST = 4
    REMEMBERED = 100_000

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng)
        self._seeds: dict[Worker, int] = {}
        self._joins: list[Worker] = []  # every worker that was new, in order
        self._ranked: OrderedDict[str, tuple[int, list[tuple[int, WorkerId, Worker]]]] = OrderedDict()

    def joined(self, worker: Worker) -> None:
        super().joined(worker)
        if worker not in self._seeds:
            self._seeds[worker] = point(worker.id)
            self._joins.append(worker)

    def choose(self, task: Task) -> Worker | None:
        key = affinity_of(task)
        for _, _, worker in self.best(key) if key else ():
            if worker.load < worker.limit and worker in self.here:
                return worker
        return super().choose(task)

    def best(self, key: str) -> list[tuple[int, WorkerId, Worker]]:
        """The workers with the highest scores, the highest first, some of which may be gone."""
        seen, best = self._ranked.get(key, (0, []))
        if not any(worker in self.here for _, _, worker in best):
            seen, best = 0, []
            if len(self._joins) > 2 * len(self.here):  # those that are gone for good
                self._seeds = {worker: self._seeds[worker] for worker in self.here}
                self._joins = list(self.here)
                self._ranked.clear()
        if seen < len(self._joins):
            at = point(key)
            scored = [(mixed(self._seeds[worker] ^ at), worker.id, worker) for worker in self._joins[seen:]]
            here = [entry for entry in scored if entry[2] in self.here]
            best = heapq.nlargest(self.BEST, [*best, *here])
        self._ranked[key] = len(self._joins), best
        self._ranked.move_to_end(key)
        if len(self._ranked) > self.REMEMBERED:
            self._ranked.popitem(last=False)
        return best


def mixed(number: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the 64 depends on every other."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


def _by_point(placed: tuple[int, Worker]) -> tuple[int, WorkerId]:
    return placed[0], placed[1].id


class ConsistentHashConfig(Strict):
    """The same worker for the same affinity key, as long as it does not hold much more than the others."""

    kind: Literal["consistent_hash"]
    virtual_nodes: Count = 100
    """Points of each worker on the ring: the more, the more equal the shares."""
    bound: NonNegative = 0.25
    """How much more than the mean a worker may hold; beyond that the next one on the ring gets the task."""

    def build(self, rng: random.Random) -> RoutingPolicy:
        return ConsistentHash(rng, self.virtual_nodes, self.bound)


class RendezvousConfig(Strict):
    """The same worker for the same affinity key, as long as it has room."""

    kind: Literal["rendezvous"]

    def build(self, rng: random.Random) -> RoutingPolicy:
        return Rendezvous(rng)
