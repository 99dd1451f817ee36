"""Message delays, losses and duplications, drawn in blocks: a number costs a list's `next`, not a call to numpy.

A message has a kind (`MessageKind`), which says what the network does to all messages of that kind. While faults impair
one worker's network, its messages also pass a `Link`, one for each direction, which adds what the faults do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain, repeat
from typing import Generic, TypeVar

import numpy as np

from orchestrator.core.model import AttemptKey, TaskId
from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.faults import Delay, Duplicate, Loss, OfNetwork, Partition
from orchestrator.scenario.schema import Network
from orchestrator.scenario.streams import Stream, generator

Item = TypeVar("Item")

_BLOCK = 64
_ROUNDS = 4
_TASKS, _KEPT = 256, 32

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


def mishaps(
    delay: Distribution, loss: float, duplicate: float, stream: Stream, n: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Which of n messages are lost, bool[n], and after how many seconds the copy of each arrives, float64[n], NaN
    without one; None where messages are not lost, or not repeated."""
    lost = stream("loss").random(n) < loss if loss else None
    if not duplicate:
        return lost, None
    copied = stream("duplicate").random(n) < duplicate
    return lost, np.where(copied, delay.sample(stream("copy"), n), np.nan)


class ByTask(Generic[Item]):
    """What few tasks need and none may share, in blocks of tasks: a generator for each costs more than its numbers."""

    def __init__(self, stream: Stream, draw: Callable[[np.random.Generator, int], Sequence[Item]]) -> None:
        self._stream, self._draw = stream, draw
        self._blocks: dict[tuple[int, ...], Sequence[Item]] = {}

    def of(self, task: TaskId, *name: int) -> Item:
        """The task's; `name` tells apart what it needs several times."""
        number, place = divmod(task, _TASKS)  # type: ignore[operator]  # ids are row numbers here
        key = (*name, number)
        block = self._blocks.get(key)
        if block is None:
            block = self._blocks[key] = self._draw(self._stream("attempt", *key), _TASKS)
            if len(self._blocks) > _KEPT:
                del self._blocks[next(iter(self._blocks))]
        return block[place]


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


class Severed(Impairment):
    """The connection is broken: nothing passes before there is another one."""

    def __init__(self) -> None:
        self.blocks = True
        self.kind = "partition"


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
        self._of_attempts = ByTask(self._stream, self._fates)

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

    def of_attempt(self, attempt: AttemptKey, *name: int) -> Fate:
        """The fate of a message about an attempt; `name` tells it from all others of the kind."""
        task, number = attempt
        return self.certain or self._of_attempts.of(task, number, *name)

    def on(self, link: Link | None, fate: Fate) -> Fate:
        """What happens to a message of that fate where its link may be impaired."""
        return fate if link is None else link.message(self.name, *fate)

    def _fates(self, rng: np.random.Generator, n: int) -> list[Fate]:
        arrives_s: list[float | None] = self._delay.sample(rng, n).tolist()
        lost, copy_s = mishaps(self._delay, self._loss, self._duplicate, lambda *_: rng, n)
        if lost is not None:
            arrives_s = [None if hit else delay_s for delay_s, hit in zip(arrives_s, lost.tolist(), strict=True)]
        if copy_s is None:
            return [(delay_s, None) for delay_s in arrives_s]
        copies_s = [None if math.isnan(seconds) else seconds for seconds in copy_s.tolist()]
        return list(zip(arrives_s, copies_s, strict=True))
