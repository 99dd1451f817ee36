"""Around every input of a live core: an exception that escapes one, or an invariant that does not hold, stops it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.culprit import explained
from orchestrator.core.invariants import InvariantError

log = logging.getLogger("orchestrator.coordinator")


class Guard:
    """`stop`: called with a sentence; `closed` is true from then on at the latest, and inputs are dropped. `check`:
    prove the invariants after inputs, as often as a tenth of the time allows."""

    def __init__(self, core: Coordinator, stop: Callable[[str], None], check: bool, now: Callable[[], float]) -> None:
        self.closed = False
        self._core = core
        self._stop = stop
        self._check = check
        self._now = now
        self._next_check = 0.0

    def __call__(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """Whoever gives the input, timers included."""
        if self.closed:
            return
        try:
            call(*arguments)
        except Exception as error:  # whatever a policy raises
            policy = explained(self._core, error)
            if policy is None:
                log.error("a fault of the coordinator itself", exc_info=error)
            self._stop(str(policy or f"the input {name} raised {type(error).__name__}: {error}"))
            return
        if self._check:
            self._prove(name, arguments)

    def _prove(self, name: str, arguments: Sequence[Any]) -> None:
        begin = self._now()
        if begin < self._next_check:
            return
        try:
            self._core.check()
        except InvariantError as error:
            self._stop(f"after {name}{arguments!r}: {error}")
        end = self._now()
        self._next_check = end + 10 * (end - begin)
