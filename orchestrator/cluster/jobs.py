"""A user's work as the product passes it around: what is to be done, and how it ended."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.core.model import TimeLimits

PAYLOAD_CHARACTERS = 1 << 20
KIND_CHARACTERS = 200
"""What a task may have at most, by default; a client refuses more at once, the coordinator whoever sends it."""


@dataclass(slots=True)
class Job:
    """A task's payload in the core. `session`, `number`: by which client's stream it came, empty for none.

    `key`: by which it may be submitted again, empty for none. `digest`: of its payload, once that is dropped.
    `affinity_key`: tasks of one key are best executed by one worker. `requires`: labels that its worker must have, as
    `labels_text` writes them. `place`: by which the task is stored, 0 until then.
    """

    kind: str
    payload: str
    session: str = ""
    number: int = 0
    key: str = ""
    digest: str = ""
    affinity_key: str = ""
    requires: str = ""
    place: int = field(default=0, compare=False)

    def is_same(self, other: Job) -> bool:
        """Whether the other one, whose payload is there, is the same work."""
        same = self.digest == digest_of(other.payload) if self.digest else self.payload == other.payload
        return same and self.kind == other.kind


def unsound(limits: TimeLimits) -> str:
    """What is wrong with a task's own limits, empty for nothing."""
    for name, seconds in zip(limits._fields, limits, strict=True):
        if seconds is not None and not 0 < seconds < math.inf:
            return f"a task's {name} is a number of seconds above 0, not {seconds:g}"
    return ""


def digest_of(payload: str) -> str:
    return hashlib.blake2b(payload.encode(), digest_size=16).hexdigest()


class Ended(NamedTuple):
    """How an execution ended; `ran_s` is its duration in seconds by the worker's clock. `retry_after_s`: the least
    delay before the task's next attempt, where the failure is retryable."""

    succeeded: bool
    result: str
    error: str
    retryable: bool
    ran_s: float
    retry_after_s: float = 0.0
