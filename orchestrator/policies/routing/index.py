"""What routing policies keep of the workers: those with room, and what was learnt of each one."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from orchestrator.core.invariants import raise_if_broken
from orchestrator.core.model import Attempt, Outcome, Task, Worker, WorkerId

Record = TypeVar("Record")


class Indexed:
    """Workers in no particular order, from which one is drawn in O(1) (swap-removal).

    `listed`: all of them, the same list for ever. `place`: of each one in it.
    """

    def __init__(self) -> None:
        self.listed: list[Worker] = []
        self.place: dict[Worker, int] = {}

    def add(self, worker: Worker) -> None:
        if worker not in self.place:
            self.place[worker] = len(self.listed)
            self.listed.append(worker)

    def discard(self, worker: Worker) -> None:
        place = self.place.pop(worker, None)
        if place is not None:
            last = self.listed.pop()
            if last is not worker:
                self.listed[place] = last
                self.place[last] = place


class Routing(ABC):
    """A base class that keeps `self.roomy`: the workers with room, in no particular order."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._with_room = Indexed()
        self.roomy: list[Worker] = self._with_room.listed

    def joined(self, worker: Worker) -> None:
        if worker.load < worker.limit:
            self._with_room.add(worker)

    def left(self, worker: Worker) -> None:
        self._with_room.discard(worker)

    def load_changed(self, worker: Worker, before: int) -> None:
        has_room = worker.load < worker.limit
        if has_room != (worker in self._with_room.place):
            (self._with_room.add if has_room else self._with_room.discard)(worker)

    @abstractmethod
    def choose(self, task: Task) -> Worker | None: ...

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless the index holds the assignable workers with room, each at its place."""
        places = {worker.id: place for worker, place in self._with_room.place.items()}
        compare({worker.id: place for place, worker in enumerate(self.roomy)}, places)
        compare(sorted(places), with_room(assignable))


class BySlot(Generic[Record]):
    """A record of each worker. One that the coordinator has forgotten leaves its slot to another, with a new record."""

    def __init__(self, new: Callable[[], Record]) -> None:
        self._new = new
        self._records: list[tuple[Worker, Record] | None] = []

    def of(self, worker: Worker) -> Record:
        records, slot = self._records, worker.slot
        while slot >= len(records):
            records.append(None)
        found = records[slot]
        if found is None or found[0] is not worker:
            found = records[slot] = worker, self._new()
        return found[1]


def latency_s(attempt: Attempt, now: float) -> float | None:
    """Seconds from the assignment to the result, or to the timeout; None of an attempt that says nothing of its worker.

    Failures say nothing: a worker that fails everything at once would seem to be the fastest.
    """
    if attempt.outcome is Outcome.COMPLETED or attempt.outcome is Outcome.TIMED_OUT:
        return now - attempt.assigned_at
    return None


def with_room(workers: list[Worker]) -> list[WorkerId]:
    return sorted(worker.id for worker in workers if worker.load < worker.limit)


def compare(index: object, true: object) -> None:
    raise_if_broken([] if index == true else [f"the routing policy's index holds {index}, expected {true}"])
