"""Routing by load: how many attempts each worker holds, and nothing else."""

from __future__ import annotations

import random
from array import array
from collections import OrderedDict
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.core.model import Task, Worker
from orchestrator.core.ports import RoutingPolicy
from orchestrator.policies.config import Strict
from orchestrator.policies.routing.index import Routing, compare, with_room


class Random(Routing):
    """Any worker with room, all equally likely."""

    def choose(self, task: Task) -> Worker | None:
        return self.roomy[int(self.rng.random() * len(self.roomy))]


class PowerOfD(Routing):
    """The least loaded of `d` distinct workers drawn at random, ties at random (Mitzenmacher 2001)."""

    def __init__(self, rng: random.Random, d: int) -> None:
        super().__init__(rng)
        self.d = d

    def choose(self, task: Task) -> Worker | None:
        # The sample comes in random order, so that the first minimum is a random one among equals.
        return min(self.sample(), key=_load)

    def sample(self) -> list[Worker]:
        """Those among which the next choice is made, in random order."""
        roomy, draw = self.roomy, self.rng.random
        n = len(roomy)
        if self.d != 2 or n < 2:
            return self.rng.sample(roomy, min(self.d, n))
        first, second = int(draw() * n), int(draw() * (n - 1))
        return [roomy[first], roomy[second + (second >= first)]]


class RoundRobin:
    """Workers with room in turn. A worker that gets room again goes to the end of the turn."""

    def __init__(self) -> None:
        # An OrderedDict is a linked list, so its first key is found in O(1); a dict walks over deleted entries.
        self._turn: OrderedDict[Worker, None] = OrderedDict()

    def joined(self, worker: Worker) -> None:
        if worker.load < worker.limit:
            self._turn[worker] = None

    def left(self, worker: Worker) -> None:
        self._turn.pop(worker, None)

    def load_changed(self, worker: Worker, before: int) -> None:
        if worker.load >= worker.limit:
            self._turn.pop(worker, None)
        elif worker not in self._turn:
            self._turn[worker] = None
        elif worker.load > before:
            self._turn.move_to_end(worker)

    def choose(self, task: Task) -> Worker | None:
        return next(iter(self._turn), None)

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless the turn holds the assignable workers with room."""
        compare(sorted(worker.id for worker in self._turn), with_room(assignable))


class LeastLoaded:
    """The least loaded worker with room, ties at random: buckets of workers by load, with swap-removal.

    Buckets hold slots in plain arrays, so moving one worker touches no other worker's memory. With 10,000 workers
    that is where the time goes.
    """

    def __init__(self, rng: random.Random) -> None:
        self._draw = rng.random
        self._workers: list[Worker | None] = []  # by slot
        self._buckets = [array("l")]  # by load
        self._place = array("l")  # by slot: its index in the bucket of its load, -1 if it is in none
        self._least = 0  # no bucket below this one holds a worker

    def joined(self, worker: Worker) -> None:
        while worker.slot >= len(self._place):
            self._place.append(-1)
            self._workers.append(None)
        self._workers[worker.slot] = worker
        self.load_changed(worker, worker.load)

    def left(self, worker: Worker) -> None:
        if self._place[worker.slot] >= 0:
            self._remove(worker.slot, worker.load)

    def load_changed(self, worker: Worker, before: int) -> None:
        place, buckets, slot, load = self._place, self._buckets, worker.slot, worker.load
        if place[slot] >= 0:
            self._remove(slot, before)
        if load < worker.limit:
            while load >= len(buckets):
                buckets.append(array("l"))
            bucket = buckets[load]
            place[slot] = len(bucket)
            bucket.append(slot)
            if load < self._least:
                self._least = load

    def choose(self, task: Task) -> Worker | None:
        buckets, least = self._buckets, self._least
        while not buckets[least]:
            least += 1
        self._least = least
        bucket = buckets[least]
        return self._workers[bucket[int(self._draw() * len(bucket))]]

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless every assignable worker with room, and no other, stands in the bucket of its load."""
        indexed = [
            (slot, load, place) for load, bucket in enumerate(self._buckets) for place, slot in enumerate(bucket)
        ]
        true = [
            (worker.slot, worker.load, self._place[worker.slot]) for worker in assignable if worker.load < worker.limit
        ]
        compare(sorted(indexed), sorted(true))
        compare(sorted(slot for slot, _, _ in indexed), [slot for slot, at in enumerate(self._place) if at >= 0])

    def _remove(self, slot: int, load: int) -> None:
        place, bucket = self._place, self._buckets[load]
        at, last = place[slot], bucket.pop()
        if last != slot:
            bucket[at] = last
            place[last] = at
        place[slot] = -1


def _load(worker: Worker) -> int:
    return worker.load


class LeastLoadedConfig(Strict):
    """Fewest attempts in hand, ties at random."""

    kind: Literal["least_loaded"] = "least_loaded"

    def build(self, rng: random.Random) -> RoutingPolicy:
        return LeastLoaded(rng)


class RandomConfig(Strict):
    """Any worker with room."""

    kind: Literal["random"]

    def build(self, rng: random.Random) -> RoutingPolicy:
        return Random(rng)


class RoundRobinConfig(Strict):
    """Workers with room, in turn."""

    kind: Literal["round_robin"]

    def build(self, rng: random.Random) -> RoutingPolicy:
        return RoundRobin()


class PowerOfDConfig(Strict):
    """The least loaded of d workers drawn without replacement."""

    kind: Literal["power_of_d"]
    d: Annotated[int, Field(ge=1)] = 2
    """How many workers are drawn; 1 is `random`."""

    def build(self, rng: random.Random) -> RoutingPolicy:
        return PowerOfD(rng, self.d)
