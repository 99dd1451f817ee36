"""Retries: how long a task waits before its next attempt, and when it is given up."""

from __future__ import annotations

import random
from typing import Annotated, Literal, Protocol

from pydantic import Discriminator, Tag

from orchestrator.core.ports import RetryPolicy
from orchestrator.policies.config import Count, Custom, NonNegative, Positive, Strict, tag_of


class BackoffPolicy(Protocol):
    """How long a task waits before its next attempt."""

    def __call__(self, tries: int) -> float:
        """Seconds to wait after so many attempts were consumed (at least 1)."""


class Retry:
    """A backoff, and a limit on attempts (None: none)."""

    def __init__(self, max_attempts: int | None, backoff: BackoffPolicy) -> None:
        self.max_attempts = max_attempts
        self._backoff = backoff

    def delay_s(self, tries: int) -> float | None:
        if self.max_attempts is not None and tries >= self.max_attempts:
            return None
        return self._backoff(max(1, tries))


class Constant:
    """Always the same delay."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def __call__(self, tries: int) -> float:
        return self._delay_s


class FullJitter:
    """U(0, min(cap, base * 2^(tries - 1))): "full jitter" (Brooker, "Exponential Backoff and Jitter", 2015)."""

    def __init__(self, rng: random.Random, base_s: float, cap_s: float) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s

    def __call__(self, tries: int) -> float:
        # 2^1000 is over any cap, and still a float.
        return self._rng.random() * min(self._cap_s, self._base_s * 2.0 ** min(tries - 1, 1000))


class ConstantBackoff(Strict):
    """The same delay before every attempt."""

    kind: Literal["constant"] = "constant"
    delay_s: NonNegative = 0.0
    """Seconds before the next attempt."""

    def build(self, rng: random.Random) -> BackoffPolicy:
        return Constant(self.delay_s)


class ExponentialBackoff(Strict):
    """Doubling, with full jitter: uniform between 0 and min(cap_s, base_s * 2^(tries - 1))."""

    kind: Literal["exponential"]
    base_s: Positive = 0.1
    """The first delay's upper end."""
    cap_s: Positive = 30.0
    """No delay is longer."""

    def build(self, rng: random.Random) -> BackoffPolicy:
        return FullJitter(rng, self.base_s, self.cap_s)


class CustomBackoff(Custom):
    """Your own: called with the number of attempts consumed (from 1), returns seconds."""

    protocol = BackoffPolicy
    role = "a backoff"

    def build(self, rng: random.Random) -> BackoffPolicy:
        policy: BackoffPolicy = self.make(rng)
        return policy


BackoffConfig = Annotated[
    Annotated[ConstantBackoff, Tag("constant")]
    | Annotated[ExponentialBackoff, Tag("exponential")]
    | Annotated[CustomBackoff, Tag("custom")],
    Discriminator(tag_of),
]


class RetryConfig(Strict):
    """How often a task is tried, and how long it waits in between."""

    max_attempts: Count | None = None
    """Attempts before a task is FAILED; null: no limit."""
    backoff: BackoffConfig = ConstantBackoff()
    """How long a task waits before it is tried again: one of the family `backoff`."""
    max_copies: Count = 2
    """Attempts of one task, hedges apart, that may occupy workers at once; a task that has as many waits."""
    max_worker_kills: Count | None = 3
    """A task is FAILED when so many workers died while they were running it; null: it is tried on. A death counts for
    each of n tasks that were running as 1/n: it takes as many deaths, and one in all."""

    def build(self, rng: random.Random) -> RetryPolicy:
        return Retry(self.max_attempts, self.backoff.build(rng))
