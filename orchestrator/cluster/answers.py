"""Answers to calls that hold much, and that their callers may not read."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.peers import Refused

LARGE_CHARACTERS = 10_000
"""An answer with less costs no more than its call."""


class Unread:
    """Characters on their way in large answers: until its peer reads, an answer stays in the memory of this process.

    A connection may have as much under way as there is room for still: so one that reads nothing takes half of it at
    most, and leaves the other half to the others.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self._under_way: Counter[str] = Counter()

    def answer(self, call: grpc.aio.ServicerContext[Any, Any], characters: int) -> None:
        """So many are about to be sent, until the call is over. Raises Refused."""
        if characters < LARGE_CHARACTERS:
            return
        peer = call.peer()
        if self._under_way[peer] + characters > self._left:
            reason = f"{self._under_way[peer]} characters of other answers are not read yet"
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        self._left -= characters
        self._under_way[peer] += characters
        call.add_done_callback(lambda _: self._over(peer, characters))  # type: ignore[arg-type]  # of a plain call

    def _over(self, peer: str, characters: int) -> None:
        self._left += characters
        self._under_way[peer] -= characters
        if not self._under_way[peer]:
            del self._under_way[peer]
