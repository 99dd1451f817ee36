"""When whoever lost its coordinator dials again. Both worlds: a process does it, and the simulator draws when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 2.0
"""Between two attempts to begin a stream."""
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 1.0
"""Between two attempts of a channel to connect, below the streams."""
BACKOFF_FACTOR, BACKOFF_JITTER = 1.6, 0.2
"""Those of gRPC (its document "Connection backoff")."""


class Chance(Protocol):
    """A `random.Random`, or the module."""

    def uniform(self, a: float, b: float, /) -> float: ...


def pauses(rng: Chance) -> Iterator[float]:
    """Seconds between attempts to reach a coordinator by a stream: doubling, with jitter."""
    bound_s = PAUSE_MIN_S
    while True:
        yield bound_s * rng.uniform(0.5, 1.0)
        bound_s = min(PAUSE_MAX_S, 2 * bound_s)


def backoffs(rng: Chance) -> Iterator[float]:
    """Seconds between attempts of a channel to connect."""
    bound_s = BACKOFF_MIN_S
    while True:
        yield bound_s * rng.uniform(1 - BACKOFF_JITTER, 1 + BACKOFF_JITTER)
        bound_s = min(BACKOFF_MAX_S, BACKOFF_FACTOR * bound_s)


def reached_after(absent_s: float, rng: Chance) -> float:
    """How long after it lost its coordinator, which is absent for so long, somebody has a stream again, in seconds.

    A stream fails at once while its channel is not connected, so its next attempt after that is the one that counts.
    """
    connected_s = 0.0
    for backoff_s in backoffs(rng):
        if connected_s >= absent_s:
            break
        connected_s += backoff_s
    at_s = 0.0
    for pause_s in pauses(rng):
        at_s += pause_s
        if at_s >= connected_s:
            break
    return at_s
