"""Message delays, losses and duplications, drawn in blocks: a number costs a list's `next`, not a call to numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat

import numpy as np

from orchestrator.experiment.distributions import Constant, Distribution
from orchestrator.experiment.scenario import Network
from orchestrator.experiment.streams import generator

_BLOCK = 4096


def draws(distribution: Distribution, rng: np.random.Generator) -> Callable[[], float]:
    """A function that returns the distribution's next number."""
    if isinstance(distribution, Constant):
        return repeat(distribution.value_s).__next__

    def blocks() -> Iterator[float]:
        while True:
            yield from distribution.sample(rng, _BLOCK).tolist()

    return blocks().__next__


def chances(probability: float, rng: np.random.Generator) -> Callable[[], bool]:
    """A function that tells whether the next message meets its fate."""
    if probability == 0:
        return repeat(False).__next__

    def blocks() -> Iterator[bool]:
        while True:
            yield from (rng.random(_BLOCK) < probability).tolist()

    return blocks().__next__


class Leg:
    """One kind of message, with streams of its own: adding a kind shifts no other."""

    def __init__(self, network: Network, seed: int, replication: int, name: str) -> None:
        self.delay = draws(network.delay_of(name), generator(seed, replication, "delay", name))
        self.lost = chances(network.loss, generator(seed, replication, "loss", name))
        self.duplicated = chances(network.duplicate, generator(seed, replication, "duplicate", name))
