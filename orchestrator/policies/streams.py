"""Named random streams: one consumer more, or one that draws more, shifts no other stream.

A stream is seeded from (seed, replication, name) by SHA-256, so it is the same on every machine and under
every PYTHONHASHSEED. Runs that share a seed share the streams of the same names (common random numbers).
"""

from __future__ import annotations

import hashlib
import random


def python_random(seed: int, replication: int, *name: str | int) -> random.Random:
    """The standard library's generator of that name, for consumers that draw one number at a time."""
    return random.Random(entropy(seed, replication, name))


def entropy(seed: int, replication: int, name: tuple[str | int, ...]) -> int:
    """The seed of the stream of that name: 256 bits."""
    # repr tells 1 from "1" and ("a", "b") from ("a/b",).
    return int.from_bytes(hashlib.sha256(repr((seed, replication, *name)).encode()).digest())
