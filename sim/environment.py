"""A real `simpy.Environment` whose heap holds `(time, key, function, argument)`.

SimPy's own events travel in it too, so ordinary processes run beside our callbacks; those cost no event object,
no callback list and no generator, which is what makes a million tasks a matter of seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.core import BoundClass, EmptySchedule, StopSimulation
from simpy.events import URGENT, Event

Callback = Callable[[Any], None]

# Keys order what happens at one time. SimPy's urgent events come first, ours (from 0 to _NORMAL) next, then its others.
_NORMAL = 1 << 200


class Environment(simpy.Environment):
    """Counts its events in `processed`."""

    _queue: list[tuple[float, int, Callback, Any]]  # type: ignore[assignment]

    def __init__(self, initial_time: float = 0) -> None:
        super().__init__(initial_time)
        self.processed = 0
        self.heap = self._queue  # where time is dear, push `(time, key, function, argument)` directly
        BoundClass.bind_early(self)  # SimPy does this for its own class only

    def call_at(self, time: float, key: int, function: Callback, argument: Any) -> None:
        """Call `function(argument)` at `time`; keys, unique among events of one time, give the order there."""
        heappush(self._queue, (time, key, function, argument))

    def schedule(self, event: Event, priority: int = 1, delay: float = 0) -> None:
        key = next(self._eid) + (_NORMAL * priority if priority > URGENT else -_NORMAL * (1 - priority))
        heappush(self._queue, (self._now + delay, key, self._process_event, event))

    def step(self) -> None:
        try:
            self._now, _, function, argument = heappop(self._queue)
        except IndexError:
            raise EmptySchedule from None
        self.processed += 1
        function(argument)

    def run_callbacks(self) -> None:
        """Like `run`, for callers whose own callback raises `StopSimulation`; the loop that a simulation lives in."""
        queue, pop, processed = self._queue, heappop, 0
        try:
            while queue:
                self._now, _, function, argument = pop(queue)
                processed += 1
                function(argument)
        except StopSimulation:
            pass
        finally:
            self.processed += processed

    def _process_event(self, event: Event) -> None:
        """SimPy's own `step`, from the point where it holds the event."""
        callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
        try:
            for callback in callbacks:
                callback(event)
        except StopSimulation:
            event.callbacks = callbacks[callbacks.index(callback) + 1 :]
            self.schedule(event, -1)
            raise
        if not event._ok and not hasattr(event, "_defused"):
            error = type(event._value)(*event._value.args)  # type: ignore[union-attr]
            error.__cause__ = event._value  # type: ignore[assignment]
            raise error
