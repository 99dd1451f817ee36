"""Named random streams: a consumer more, or one that draws more, shifts no other stream.

A stream is seeded from (seed, replication, name) by SHA-256, so it is the same on every machine and under
every PYTHONHASHSEED. Scenarios that share a seed share the streams of the same names (common random numbers).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import numpy as np

Stream = Callable[..., np.random.Generator]
"""`stream(*name)`: the generators of one seed and replication."""


def generator(seed: int, replication: int, *name: str | int) -> np.random.Generator:
    """The numpy generator of that name."""
    return np.random.Generator(np.random.PCG64(_entropy(seed, replication, name)))


def python_random(seed: int, replication: int, *name: str | int) -> random.Random:
    """The standard library's generator of that name, for consumers that draw one number at a time."""
    return random.Random(_entropy(seed, replication, name))


def _entropy(seed: int, replication: int, name: tuple[str | int, ...]) -> int:
    # repr tells 1 from "1" and ("a", "b") from ("a/b",).
    return int.from_bytes(hashlib.sha256(repr((seed, replication, *name)).encode()).digest())
