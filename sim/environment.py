"""A real `simpy.Environment` whose queue holds `(time, key, function, argument)`.

SimPy's own events travel in it too, so ordinary processes run beside our callbacks; those cost no event object, no
callback list and no generator. What is due soon stands in a heap, as in SimPy; what is due later waits unsorted in a
bucket of its time slot (a calendar queue, Brown 1988), so that the heap stays small enough for the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush
from typing import Any

import simpy
from simpy.core import BoundClass, EmptySchedule, StopSimulation
from simpy.events import Event

Callback = Callable[[Any], None]
Entry = tuple[float, int, Callback, Any]

# Keys order what happens at one time: SimPy's urgent events first, then ours (from 0 to here), then its others.
_NORMAL = 1 << 200
_EVENTS_PER_SLOT = 16


class Environment(simpy.Environment):
    """`events_per_s`: how many events a simulated second will have, roughly; it sets the width of the time slots.

    `processed` counts the events so far.
    """

    _queue: list[Entry]  # type: ignore[assignment]

    def __init__(self, initial_time: float = 0, events_per_s: float = 1.0) -> None:
        super().__init__(initial_time)
        BoundClass.bind_early(self)  # SimPy does this for its own class only
        self.processed = 0
        # A power of two: then slots are cut exactly, without rounding.
        self._width = 2.0 ** round(math.log2(_EVENTS_PER_SLOT / events_per_s))
        self._horizon = float(initial_time)  # the queue holds all that is due before
        self._later: dict[int, list[Entry]] = {}
        self._slots: list[int] = []  # a heap: the keys of `_later`

    def call_at(self, time: float, key: int, function: Callback, argument: Any) -> None:
        """Call `function(argument)` at `time`; keys, unique among events of one time, give the order there."""
        if time < self._horizon:
            heappush(self._queue, (time, key, function, argument))
            return
        slot = int(time / self._width)
        bucket = self._later.get(slot)
        if bucket is None:
            self._later[slot] = [(time, key, function, argument)]
            heappush(self._slots, slot)
        else:
            bucket.append((time, key, function, argument))

    def drop(self, functions: Collection[Callback]) -> None:
        """Nothing that is due calls one of these."""
        self._queue[:] = [entry for entry in self._queue if entry[2] not in functions]
        heapify(self._queue)
        for slot, entries in list(self._later.items()):
            entries[:] = [entry for entry in entries if entry[2] not in functions]
            if not entries:
                del self._later[slot]
        self._slots[:] = sorted(self._later)

    def schedule(self, event: Event, priority: int = 1, delay: float = 0) -> None:
        key = next(self._eid) + (_NORMAL * priority if priority > 0 else _NORMAL * (priority - 1))
        time = self._now + delay
        if time == math.inf:
            return
        self.call_at(time, key, self._process_event, event)

    def peek(self) -> float:
        return self._queue[0][0] if self._queue or self._next_slot() else math.inf

    def step(self) -> None:
        if not self._queue and not self._next_slot():
            raise EmptySchedule
        self._now, _, function, argument = heappop(self._queue)
        self.processed += 1
        function(argument)

    def run_callbacks(self) -> None:
        """`run` for those whose own callback raises `StopSimulation`: the loop in which a simulation lives."""
        queue, pop, processed = self._queue, heappop, 0
        try:
            while True:  # with a condition, Python 3.11 would never specialise this loop
                if not queue and not self._next_slot():
                    break
                self._now, _, function, argument = pop(queue)
                processed += 1
                function(argument)
        except StopSimulation:
            pass
        finally:
            self.processed += processed

    def _next_slot(self) -> bool:
        """The queue is empty: fill it with the next slot that holds anything."""
        if not self._slots:
            return False
        slot = heappop(self._slots)
        self._queue += self._later.pop(slot)
        heapify(self._queue)
        self._horizon = (slot + 1) * self._width
        return True

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
            error = type(event._value)(*event._value.args)
            error.__cause__ = event._value
            raise error
