"""Deadlines behind one alarm.

Deadlines are left in their queue when they lose their meaning; whoever pops them looks whether they still hold.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Ticks(NamedTuple):
    """A periodic check: the moments phase_s + k * every_s."""

    every_s: float
    phase_s: float

    def at_or_after(self, at: float) -> float:
        """The first tick that is not before `at`."""
        if at == math.inf:
            return at
        k = math.ceil((at - self.phase_s) / self.every_s)
        # The division may round either way, past a whole number.
        for near in (k - 1, k):
            tick = self.phase_s + near * self.every_s
            if tick >= at:
                return tick
        return self.phase_s + (k + 1) * self.every_s


class AnyOrder(Generic[Item]):
    """Deadlines in any order; equal ones fall due in the order in which they were added."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._added = 0

    def add(self, at: float, item: Item) -> None:
        self._added += 1
        heapq.heappush(self._heap, (at, self._added, item))

    def earliest(self) -> float:
        return self._heap[0][0] if self._heap else math.inf

    def pop(self) -> tuple[float, Item]:
        at, _, item = heapq.heappop(self._heap)
        return at, item

    def drop(self, void: Callable[[Item], bool]) -> None:
        """Forget the earliest ones for as long as they are void."""
        while self._heap and void(self._heap[0][2]):
            heapq.heappop(self._heap)
