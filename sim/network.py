"""Message delays, losses and duplications, drawn in blocks: a number costs a list's `next`, not a call to numpy.

A message has a kind (`MessageKind`), which says what the network does to all messages of that kind. While faults impair
one worker's network, its messages also pass a `Link`, one for each direction, which adds what the faults do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import numpy as np

from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.faults import Delay, Duplicate, Loss, OfNetwork, Partition
from orchestrator.scenario.schema import Network
from orchestrator.scenario.streams import Stream, generator

Item = TypeVar("Item")

_BLOCK = 64
_ROUNDS = 4

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
            self._extra_s = draws(fault.delay, stream("delay"))
        elif isinstance(fault, Loss):
            self._lost = chances(fault.probability, stream("loss"))
        elif isinstance(fault, Duplicate):
            self._duplicated = chances(fault.probability, stream("duplicate"))
            self._copy_s = {
                message_kind: draws(network.delay_of(message_kind), stream("copy", message_kind))
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
    """One kind of message. What chance does to a message belongs to who sends or gets it, a worker or a client, and to
    how many of the kind it had before; or to the attempt that it is about. No message changes the draws of another
    one's owner, and a new kind changes those of no other."""

    def __init__(self, network: Network, seed: int, replication: int, name: str) -> None:
        self.name = name
        self._stream = partial(generator, seed, replication, "message", name)
        self._delay, self._loss = network.delay_of(name), network.loss
        self._duplicate = network.duplicate if name in (*REPEATED, "submit") else 0.0
        self.certain: Fate | None = None
        """What becomes of every message, where chance has no part."""
        if isinstance(self._delay, Constant) and not self._loss and not self._duplicate:
            self.certain = self._delay.value_s, None
        self._next: dict[int, Callable[[], Fate]] = {}
        self._rounds: dict[int, list[Fate]] = {}

    def of_owner(self, owner: int) -> Fate:
        """The fate of the owner's next message, on a network in order."""
        if self.certain is not None:
            return self.certain
        following = self._next.get(owner)
        if following is None:
            rng = self._stream(owner)
            following = self._next[owner] = _one_by_one(lambda: self._fates(rng, _BLOCK))
        return following()

    def delay_s(self, owner: int) -> float:
        """The delay of the owner's next message, of a kind that is never lost."""
        delay_s = self.of_owner(owner)[0]
        assert delay_s is not None
        return delay_s

    def of_round(self, number: int, owner: int, owners: int) -> Fate:
        """The same where all owners send in rounds: one block for each round costs less than a stream for each owner.
        The rounds of one moment are few."""
        fates = self._rounds.get(number)
        if fates is None:
            fates = self._rounds[number] = self._fates(self._stream("round", number), owners)
            if len(self._rounds) > _ROUNDS:
                del self._rounds[next(iter(self._rounds))]
        return fates[owner]

    def of_attempt(self, *name: str | int) -> Fate:
        """The fate of a message about an attempt; `name` tells it from all others of the kind."""
        if self.certain is not None:
            return self.certain
        return self._fates(self._stream("attempt", *name), 1)[0]

    def on(self, link: Link | None, fate: Fate) -> Fate:
        """What happens to a message of that fate where its link may be impaired."""
        return fate if link is None else link.message(self.name, *fate)

    def _fates(self, rng: np.random.Generator, n: int) -> list[Fate]:
        arrives_s: list[float | None] = self._delay.sample(rng, n).tolist()
        if self._loss:
            lost = (rng.random(n) < self._loss).tolist()
            arrives_s = [None if hit else delay_s for delay_s, hit in zip(arrives_s, lost, strict=True)]
        if not self._duplicate:
            return [(delay_s, None) for delay_s in arrives_s]
        copied, copies_s = (rng.random(n) < self._duplicate).tolist(), self._delay.sample(rng, n).tolist()
        return [
            (delay_s, copy_s if hit else None) for delay_s, copy_s, hit in zip(arrives_s, copies_s, copied, strict=True)
        ]
