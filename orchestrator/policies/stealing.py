"""Work stealing: from whom a worker takes an attempt that has not begun, when one of its slots becomes free."""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag

from orchestrator.core.model import Worker
from orchestrator.core.ports import StealingPolicy
from orchestrator.policies.config import Count, Custom, Strict, tag_of
from orchestrator.policies.routing.index import Indexed, compare


class RandomVictim:
    """Of `tries` workers drawn at random the first that holds more than its slots (Mitzenmacher 1998: one try)."""

    def __init__(self, rng: random.Random, tries: int) -> None:
        self._draw = rng.random
        self._tries = tries
        self._workers = Indexed()

    def joined(self, worker: Worker) -> None:
        self._workers.add(worker)

    def left(self, worker: Worker) -> None:
        self._workers.discard(worker)

    def load_changed(self, worker: Worker, before: int) -> None:
        pass

    def victim(self, thief: Worker) -> Worker | None:
        workers = self._workers.listed
        for _ in range(self._tries):
            drawn = workers[int(self._draw() * len(workers))]
            if drawn is not thief and drawn.load > drawn.capacity:
                return drawn
        return None


class LoadedVictim:
    """Any worker that holds more than its slots: the coordinator knows who that is."""

    def __init__(self, rng: random.Random) -> None:
        self._draw = rng.random
        self._loaded = Indexed()

    def joined(self, worker: Worker) -> None:
        self.load_changed(worker, worker.load)

    def left(self, worker: Worker) -> None:
        self._loaded.discard(worker)

    def load_changed(self, worker: Worker, before: int) -> None:
        (self._loaded.add if worker.load > worker.capacity else self._loaded.discard)(worker)

    def victim(self, thief: Worker) -> Worker | None:
        loaded = self._loaded.listed
        return loaded[int(self._draw() * len(loaded))] if loaded else None

    def check(self, assignable: list[Worker]) -> None:
        """InvariantError unless the index holds the workers with more than their slots."""
        loaded = sorted(worker.id for worker in assignable if worker.load > worker.capacity)
        compare(sorted(worker.id for worker in self._loaded.listed), loaded)


class LoadedVictimConfig(Strict):
    """From any worker that holds more than its slots."""

    kind: Literal["loaded"] = "loaded"

    def build(self, rng: random.Random) -> StealingPolicy:
        return LoadedVictim(rng)


class RandomVictimConfig(Strict):
    """From a worker drawn at random, if it holds more than its slots."""

    kind: Literal["random"]
    tries: Count = 1
    """How many are drawn until one does."""

    def build(self, rng: random.Random) -> StealingPolicy:
        return RandomVictim(rng, self.tries)


class CustomStealing(Custom):
    """Your own `StealingPolicy`."""

    protocol = StealingPolicy
    role = "a stealing policy"

    def build(self, rng: random.Random) -> StealingPolicy:
        policy: StealingPolicy = self.make(rng)
        return policy


def _tag(value: Any) -> str | None:
    """A mapping without a kind is of the usual one."""
    return "loaded" if isinstance(value, dict) and "kind" not in value else tag_of(value)


StealingConfig = Annotated[
    Annotated[LoadedVictimConfig, Tag("loaded")]
    | Annotated[RandomVictimConfig, Tag("random")]
    | Annotated[CustomStealing, Tag("custom")],
    Discriminator(_tag),
]
