"""Message delays, losses and duplications, drawn in blocks: a number costs a list's `next`, not a call to numpy.

A message has a kind (`MessageKind`), which says what the network does to all messages of that kind. While faults impair
one worker's network, its messages also pass a `Link`, one for each direction, which adds what the faults do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain, repeat
from typing import TypeVar

import numpy as np

from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.faults import Delay, Duplicate, Loss, OfNetwork, Partition
from orchestrator.scenario.schema import Network
from orchestrator.scenario.streams import Stream, generator

Item = TypeVar("Item")

_BLOCK = 4096
_SMALL_BLOCK = 64
"""For streams that every worker may have of its own."""

REPEATED = ("assign", "result", "heartbeat")
"""The kinds of message that the network may deliver twice."""

Fate = tuple[float | None, float | None]
"""Seconds until a message arrives, and until its copy does; None for one that never arrives."""


def draws(distribution: Distribution, rng: np.random.Generator, block: int = _BLOCK) -> Callable[[], float]:
    """A function that returns the distribution's next number."""
    if isinstance(distribution, Constant):
        return repeat(distribution.value_s).__next__
    return _one_by_one(lambda: distribution.sample(rng, block).tolist())


def chances(probability: float, rng: np.random.Generator, block: int = _BLOCK) -> Callable[[], bool]:
    """A function that says whether the next message is hit."""
    if probability == 0:
        return repeat(False).__next__
    return _one_by_one(lambda: (rng.random(block) < probability).tolist())


def _one_by_one(draw_block: Callable[[], list[Item]]) -> Callable[[], Item]:
    """A function that returns the next item of the blocks. No call of it runs Python, except for a new block."""
    return chain.from_iterable(iter(draw_block, None)).__next__


class Impairment:
    """What one fault does to one direction of one worker's network. It draws from streams of its own."""

    def __init__(self, fault: OfNetwork, network: Network, stream: Stream) -> None:
        self.blocks = isinstance(fault, Partition)
        self.kind = fault.kind
        self._lost = self._duplicated = repeat(False).__next__
        self._extra_s = repeat(0.0).__next__
        self._copy_s: dict[str, Callable[[], float]] = {}
        if isinstance(fault, Delay):
            self._extra_s = draws(fault.delay, stream("delay"), _SMALL_BLOCK)
        elif isinstance(fault, Loss):
            self._lost = chances(fault.probability, stream("loss"), _SMALL_BLOCK)
        elif isinstance(fault, Duplicate):
            self._duplicated = chances(fault.probability, stream("duplicate"), _SMALL_BLOCK)
            self._copy_s = {
                message_kind: draws(network.delay_of(message_kind), stream("copy", message_kind), _SMALL_BLOCK)
                for message_kind in REPEATED
            }

    def message(self, message_kind: str, arrives_s: float | None, copy_s: float | None) -> Fate:
        if self._lost():
            arrives_s = None
        if copy_s is None and message_kind in self._copy_s and self._duplicated():
            copy_s = self._copy_s[message_kind]()
        return self.delayed(arrives_s), self.delayed(copy_s)

    def delayed(self, arrives_s: float | None) -> float | None:
        return None if arrives_s is None else arrives_s + self._extra_s()


_ORDER = ("partition", "loss", "duplicate", "delay")  # the delay comes last: it applies to copies too


class Link:
    """One direction of one worker's network while it is impaired."""

    def __init__(self, impairments: Iterable[Impairment]) -> None:
        self._impairments = sorted(impairments, key=lambda impairment: _ORDER.index(impairment.kind))
        self._blocked = any(impairment.blocks for impairment in self._impairments)

    def message(self, message_kind: str, arrives_s: float | None, copy_s: float | None) -> Fate:
        """What happens to a message, and to the copy that the network makes of it."""
        if self._blocked:
            return None, None
        for impairment in self._impairments:
            arrives_s, copy_s = impairment.message(message_kind, arrives_s, copy_s)
        return arrives_s, copy_s

    def answer(self, arrives_s: float) -> float | None:
        """What happens to the answer of a call: a partition stops it and a delay delays it, chance never loses it."""
        if self._blocked:
            return None
        delay_s: float | None = arrives_s
        for impairment in self._impairments:
            delay_s = impairment.delayed(delay_s)
        return delay_s


class MessageKind:
    """One kind of message. It has streams of its own, so a new kind changes the draws of no other."""

    def __init__(self, network: Network, seed: int, replication: int, name: str) -> None:
        self.name = name
        self.delay = draws(network.delay_of(name), generator(seed, replication, "delay", name))
        self.lost = chances(network.loss, generator(seed, replication, "loss", name))
        self.duplicated = chances(network.duplicate, generator(seed, replication, "duplicate", name))

    def fate(self, link: Link | None, delay_s: float) -> Fate:
        """What happens to a message that takes `delay_s` on a network in order."""
        arrives_s = None if self.lost() else delay_s
        copy_s = self.delay() if self.duplicated() else None
        return (arrives_s, copy_s) if link is None else link.message(self.name, arrives_s, copy_s)

    def once(self, link: Link | None) -> float | None:
        """The same for a kind that the network never repeats: seconds until it arrives, or None."""
        delay_s = self.delay()
        arrives_s = None if self.lost() else delay_s
        return arrives_s if link is None else link.message(self.name, arrives_s, None)[0]
