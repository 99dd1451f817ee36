"""Effects are announcements: a driver that delays each of them at random, in order for each peer, shows the same."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.behaviours import BEHAVIOURS, Behaviour
from tests.conformance.cluster import scenario
from tests.conformance.live import Live

MOST_S = 0.02


class Delayed:
    """A release that keeps every effect back for a while of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._waiting: dict[str, deque[tuple[Callable[..., None], tuple[Any, ...]]]] = {}

    def __call__(self, peer: str, call: Callable[..., None], *values: object) -> None:
        waiting = self._waiting.setdefault(peer, deque())
        waiting.append((call, values))
        if len(waiting) == 1:
            self._later(peer)

    def _later(self, peer: str) -> None:
        self._loop.call_later(self._rng.random() * MOST_S, self._release, peer)

    def _release(self, peer: str) -> None:
        waiting = self._waiting[peer]
        call, values = waiting[0]
        call(*values)
        waiting.popleft()
        if waiting:
            self._later(peer)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_live_with_every_effect_delayed(behaviour: Behaviour, loop, tmp_path):
    """With processes, signals and sockets."""
    release = Delayed(loop, random.Random(str(behaviour)))
    with Live(scenario(behaviour.settings), loop, tmp_path, release) as cluster:
        behaviour.show(cluster)
