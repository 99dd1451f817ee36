"""A coordinator that can't be reached: whoever dials it says so soon, and then rarely."""

from __future__ import annotations

import asyncio
from logging import Logger

FIRST_S = 1.5
NEXT_S, MOST_S = 10.0, 600.0
"""Between one line and the next: twice as long each time."""


class Silence:
    """Lasts from `failed`, or `begin`, until `reached`. One that is over within a moment is not mentioned."""

    def __init__(self, address: str, log: Logger) -> None:
        self._address = address
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._pause_s = 0.0
        self._reason = "it does not answer"
        self._ever_reached = self._told = False

    def begin(self) -> None:
        """Somebody dials, and nobody has answered yet."""
        if self._timer is None:
            self._since, self._pause_s = self._loop.time(), NEXT_S
            self._timer = self._loop.call_later(FIRST_S, self._tell)

    def failed(self, reason: str) -> None:
        self._reason = reason
        self.begin()

    @property
    def lasts_s(self) -> float:
        """For how long it has lasted; 0 if there is none."""
        return 0.0 if self._timer is None else self._loop.time() - self._since

    @property
    def over(self) -> bool:
        """Somebody has answered, and nothing has failed since."""
        return self._ever_reached and self._timer is None

    def reached(self) -> None:
        if self._told:
            self._log.info("reached the coordinator at %s", self._address)
        self._ever_reached, self._told = True, False
        self.close()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        self._told = True
        for_s = self._loop.time() - self._since
        self._timer = self._loop.call_later(self._pause_s, self._tell)
        self._pause_s = min(MOST_S, 2 * self._pause_s)
        address, reason = self._address, self._reason
        if self._ever_reached:
            self._log.warning("lost the coordinator at %s %.0f s ago, and dial on: %s", address, for_s, reason)
        else:
            self._log.warning("never reached a coordinator at %s in %.0f s, and dial on: %s", address, for_s, reason)
