"""A modelled cache: which keys a worker has at hand."""

from __future__ import annotations

from collections import OrderedDict


class RecentKeys:
    """The last `most` keys that were used; the one that was not used for longest goes first (LRU)."""

    __slots__ = ("_keys", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[str, None] = OrderedDict()

    def use(self, key: str) -> bool:
        """Whether it was there."""
        was_there = key in self._keys
        self._keys[key] = None
        self._keys.move_to_end(key)
        if len(self._keys) > self._most:
            self._keys.popitem(last=False)
        return was_there
