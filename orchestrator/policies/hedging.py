"""Hedging: when a slow attempt gets a hedge, which is a second attempt on another worker.

After Dean, Barroso, "The Tail at Scale", 2013.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from orchestrator.core.ports import HedgingPolicy
from orchestrator.policies.config import Count, Custom, Strict, tag_of


class Durations:
    """The last `window` durations, also sorted, so that adding one and reading a quantile are cheap."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._arrived: deque[float] = deque()
        self._ranked: list[float] = []

    def add(self, seconds: float) -> None:
        self._arrived.append(seconds)
        insort(self._ranked, seconds)
        if len(self._arrived) > self._window:
            del self._ranked[bisect_left(self._ranked, self._arrived.popleft())]

    def __len__(self) -> int:
        return len(self._ranked)

    def quantile(self, q: float) -> float:
        """The smallest duration that at least a share `q` of them do not exceed."""
        return self._ranked[max(0, math.ceil(q * len(self._ranked)) - 1)]


class Quantile:
    """A hedge for an attempt that is older than a quantile of the recent durations of its kind.

    The budget is a credit: each ordinary attempt earns its share of a hedge, and the credit is at most `BURST` hedges.
    As the credit shrinks, attempts must be older to get one, up to twice the quantile, so that the hedges go to the
    slowest attempts and not to those that passed the quantile first. Slow workers may fill so much of the window that
    the quantile is theirs, so a multiple of the median bounds it.
    """

    BURST = 10.0
    MEDIANS = 6.0

    def __init__(self, quantile: float, budget: float, window: int, min_samples: int) -> None:
        self._quantile = quantile
        self._budget = budget
        self._window = window
        self._min_samples = min_samples
        self._kinds: dict[Hashable, Durations] = {}
        self._credit = 0.0

    def began(self, kind: Hashable, hedge: bool) -> None:
        if hedge:
            self._credit -= 1.0
        else:
            self._credit = min(self.BURST, self._credit + self._budget)

    def finished(self, kind: Hashable, seconds: float) -> None:
        durations = self._kinds.get(kind)
        if durations is None:
            durations = self._kinds[kind] = Durations(self._window)
        durations.add(seconds)

    def due_s(self, kind: Hashable) -> float:
        durations = self._kinds.get(kind)
        if durations is None or len(durations) < self._min_samples:
            return math.inf
        slow_s = min(durations.quantile(self._quantile), self.MEDIANS * durations.quantile(0.5))
        return slow_s * (2.0 - max(0.0, self._credit) / self.BURST)

    def may_begin(self) -> bool:
        # The credit is a sum of shares: the last of twenty may come out just below one.
        return self._credit >= 1.0 - 1e-9


class QuantileHedging(Strict):
    """A hedge on another worker for an attempt that is older than most of its kind; the first result counts."""

    kind: Literal["quantile"] = "quantile"
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """An attempt is slow when it is older than this share of the recent durations of its kind."""
    budget: Annotated[float, Field(ge=0, le=1)] = 0.05
    """At most so many hedges for each ordinary attempt."""
    window: Count = 1000
    """How many durations of a kind are remembered."""
    min_samples: Count = 100
    """No hedges before so many durations of a kind are known."""

    def build(self, rng: random.Random) -> HedgingPolicy:
        return Quantile(self.quantile, self.budget, self.window, self.min_samples)


class CustomHedging(Custom):
    """Your own `HedgingPolicy`."""

    protocol = HedgingPolicy
    role = "a hedging policy"

    def build(self, rng: random.Random) -> HedgingPolicy:
        policy: HedgingPolicy = self.make(rng)
        return policy


def _tag(value: Any) -> str | None:
    """A mapping without a kind is of the only kind."""
    return "quantile" if isinstance(value, dict) and "kind" not in value else tag_of(value)


HedgingConfig = Annotated[
    Annotated[QuantileHedging, Tag("quantile")] | Annotated[CustomHedging, Tag("custom")],
    Discriminator(_tag),
]
