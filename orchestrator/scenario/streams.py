"""Named random streams for numpy, seeded as in `policies.streams`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from orchestrator.policies.streams import entropy

Stream = Callable[..., np.random.Generator]
"""`stream(*name)`: the generators of one seed and replication."""


def generator(seed: int, replication: int, *name: str | int) -> np.random.Generator:
    """The numpy generator of that name."""
    return np.random.Generator(np.random.PCG64(entropy(seed, replication, name)))
