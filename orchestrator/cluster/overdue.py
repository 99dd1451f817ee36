"""Answers that are waited for: what does not come in time is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
CONFIRM_S = 0.25
AWAKE_S = 0.25  # a busy machine needs so long to read what has come
LATE_S = 0.1  # a timer that rings so late tells that its process stood still
BATCH_S = 0.05  # between two rings on the way


def confirm_s(call_timeout_s: float) -> float:
    """How long a worker keeps an assignment before it says that it is there: most are reported by then."""
    return min(CONFIRM_S, call_timeout_s / 8)


def awake_s(call_timeout_s: float) -> float:
    """How long a process has to have been awake before it calls a peer late: what came while it stood still is read,
    and a message that it had not sent is answered."""
    return max(AWAKE_S, 2 * confirm_s(call_timeout_s))


class Overdue(Generic[Key]):
    """Keys that are expected for `within_s` at most. Those that were not met by then are told in one call, in the
    order in which they were expected.

    One timer serves all, so that a key that is met costs an entry in a dictionary. `awake_s`: a process that stood
    still has unread messages and may not judge: it has to have been awake for so long before it does.
    """

    def __init__(self, within_s: float, tell: Callable[[list[Key]], None], awake_s: float = 0.0) -> None:
        self._within_s = within_s
        self._tell = tell
        self._awake_s = awake_s
        self._loop = asyncio.get_running_loop()
        self._since: dict[Key, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._judges_at = 0.0

    def set_times(self, within_s: float, awake_s: float) -> None:
        """From now on; what is expected already may still be told by the times before."""
        self._within_s = within_s
        self._awake_s = awake_s

    def expect(self, key: Key, now: float) -> None:
        """From now on; of one that is expected already nothing changes."""
        self._since.setdefault(key, now)
        if self._timer is None:
            self._ring_at(now + self._within_s - self._awake_s)

    def met(self, key: Key) -> None:
        self._since.pop(key, None)

    def clear(self) -> None:
        self._since.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring_at(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._ring, at)

    def _ring(self, at: float) -> None:
        self._timer = None
        now = self._loop.time()
        if now - at > LATE_S:
            self._judges_at = now + self._awake_s
        late: list[Key] = []
        for key, since in self._since.items():
            due = max(since + self._within_s, self._judges_at)
            if due > now:
                look = due - self._awake_s
                self._ring_at(max(look, now + BATCH_S) if look > now else due)
                break
            late.append(key)
        for key in late:
            del self._since[key]
        if late:
            self._tell(late)
