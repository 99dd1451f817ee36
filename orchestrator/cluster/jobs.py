"""A user's work as the product passes it around: what is to be done, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PAYLOAD_CHARACTERS = 1 << 20
KIND_CHARACTERS = 200
"""What a task may have at most, by default; a client refuses more at once, the coordinator whoever sends it."""


@dataclass(slots=True)
class Job:
    """A task's payload in the core. `session`, `number`: by which client's stream it came, empty for none."""

    kind: str
    payload: str
    session: str = ""
    number: int = 0


class Ended(NamedTuple):
    """How an execution ended; `ran_s` is its duration in seconds by the worker's clock."""

    succeeded: bool
    result: str
    error: str
    retryable: bool
    ran_s: float
