"""Answers and results that hold much, and that their peers may not read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

LARGE_CHARACTERS = 10_000
"""An answer with less costs no more than its call, a result with less no more than its task."""


class Unread:
    """Characters on their way in large answers: until its peer reads, an answer stays in the memory of this process.

    A peer (a connection for its calls, a client's stream) may have as much under way as there is room for still: so one
    that reads nothing takes half of it at most, and leaves the other half to the others.
    """

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._under_way: Counter[Hashable] = Counter()

    def take(self, peer: Hashable, characters: int) -> bool:
        """So many are about to be sent; whether there is room for them."""
        if self._under_way[peer] + characters > self._left:
            return False
        self._left -= characters
        self._under_way[peer] += characters
        return True

    def give_back(self, peer: Hashable, characters: int) -> None:
        self._left += characters
        self._under_way[peer] -= characters
        if not self._under_way[peer]:
            del self._under_way[peer]

    def of(self, peer: Hashable) -> int:
        """How many are under way to it."""
        return self._under_way.get(peer, 0)

    @property
    def scarce(self) -> bool:
        """A quarter of the room is taken."""
        return self._left < 3 * self._most // 4
