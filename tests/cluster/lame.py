"""Policies of a user's own that fail."""

from __future__ import annotations

import random

from orchestrator.core.model import Task, Worker
from orchestrator.policies.routing import Random


class Lame(Random):
    """Raises when it is asked for the nth time; n is `after`."""

    def __init__(self, rng: random.Random, after: int = 100) -> None:
        super().__init__(rng)
        self._left = after

    def choose(self, task: Task) -> Worker | None:
        self._left -= 1
        if not self._left:
            raise ZeroDivisionError("by zero")
        return super().choose(task)
