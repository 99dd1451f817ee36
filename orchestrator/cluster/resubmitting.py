"""Submissions that a coordinator refuses while too many tasks wait there: they are made again, later and later."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from logging import Logger

from orchestrator.cluster.silence import MOST_S, NEXT_S
from orchestrator.core.admission import pause_s


class Resubmissions:
    """By the number of their submission. A line says that they wait, and another one now and then while they do.

    `give_up_after_s`: of a client that does not submit for ever.
    """

    def __init__(self, address: str, give_up_after_s: float | None, log: Logger) -> None:
        self._address = address
        self._give_up_after_s = give_up_after_s
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._refused: dict[int, tuple[int, float]] = {}  # how often, and since when
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._tells_at, self._tell_pause_s = 0.0, NEXT_S

    def later(self, number: int, reason: str, again: Callable[[int], None]) -> bool:
        """The submission is refused: `again` is called with its number after a pause. False: it is given up."""
        now = self._loop.time()
        times, since = self._refused.get(number, (0, now))
        pause = pause_s(times + 1, now - since, self._give_up_after_s, random.random())
        if pause is None:
            self.forget(number)
            return False
        self._refused[number] = times + 1, since
        self._stop(number)  # it was sent twice, where a stream broke
        self._timers[number] = self._loop.call_later(pause, self._again, number, again)
        self._tell(reason, now)
        return True

    @property
    def any(self) -> bool:
        """Whether one has been refused, and not accepted since."""
        return bool(self._refused)

    def pauses(self, number: int) -> bool:
        """Whether the coordinator does not have it at present."""
        return number in self._timers

    def forget(self, number: int) -> None:
        """It has been accepted, or nobody wants it any more."""
        if self._refused.pop(number, None) is not None:
            self._stop(number)
            if not self._refused:
                self._tell_pause_s = NEXT_S

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _stop(self, number: int) -> None:
        timer = self._timers.pop(number, None)
        if timer is not None:
            timer.cancel()

    def _again(self, number: int, again: Callable[[int], None]) -> None:
        del self._timers[number]
        again(number)

    def _tell(self, reason: str, now: float) -> None:
        if now >= self._tells_at:
            self._tells_at = now + self._tell_pause_s
            self._tell_pause_s = min(MOST_S, 2 * self._tell_pause_s)
            line = "the coordinator at %s has no room for %d tasks, which are submitted again: %s"
            self._log.warning(line, self._address, len(self._refused), reason)
