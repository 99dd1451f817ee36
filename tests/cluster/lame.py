"""Policies of a user's own that fail."""

from __future__ import annotations

import random
from typing import cast

from orchestrator.core.model import Task, Verdict, Worker
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


class Impatient:
    """A detector that trusts its worker, and wants to be asked again at a moment that is past."""

    def __init__(self, now: float) -> None:
        pass

    def heard(self, now: float) -> None:
        pass

    def verdict(self, now: float) -> Verdict:
        return Verdict.ALIVE

    def review_at(self) -> float:
        return 0.0


class Undecided(Impatient):
    """It does not say when it wants to be asked again."""

    def review_at(self) -> float:
        return cast(float, None)
