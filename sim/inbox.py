"""What reaches the coordinator: one server where a message costs it time, in a process that may stand still."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sim import keys
from sim.environment import Environment

Handler = Callable[[Any], None]


@dataclass(slots=True)
class Handlers:
    """What the coordinator does with each kind of message, behind the queue of its server."""

    result: Handler
    start: Handler
    refusal: Handler
    call_failed: Handler
    call_ended: Handler
    """Its own timer of a call: this waits for the end of a pause, but not in the queue."""
    cancelled: Handler
    heartbeat: Handler
    register: Handler
    connection_lost: Handler
    drain: Handler
    leave: Handler


class Inbox:
    """`may_sleep`: there will be pauses; without any, messages skip the question."""

    def __init__(self, env: Environment, cost_s: float, may_sleep: bool) -> None:
        self.asleep = False
        self.queues = cost_s > 0
        self._env = env
        self._cost_s = cost_s
        self._may_sleep = may_sleep
        self._free_at, self._number = 0.0, 0
        self._asleep_since, self._slept_s = 0.0, 0.0
        self._held: list[tuple[Handler, Any]] = []
        self._ways_in: list[Handler] = []

    def received(self, handler: Handler, held: Handler | None = None) -> Handler:
        """The handler behind the server's queue. `held` is called at once with what arrives during a pause."""
        if self._cost_s:
            handler = self._queued(handler)
        return self.awake(handler, held) if self._may_sleep else handler

    def close(self) -> list[Handler]:
        """The process is gone, with all that waits here. Gives what must not be called until there is another one."""
        self._held.clear()
        return self._ways_in

    def open(self, now: float) -> None:
        """There is another process, which has nothing to do yet."""
        self._free_at = now

    def awake(self, handler: Handler, held: Handler | None = None) -> Handler:
        """The handler; what arrives during a pause waits for its end."""

        def arrive(argument: Any) -> None:
            if not self.asleep:
                handler(argument)
                return
            self._held.append((handler, argument))
            if held is not None:
                held(argument)

        self._ways_in.append(arrive)
        return arrive

    def sleep(self, now: float) -> None:
        self.asleep = True
        self._asleep_since = now

    def wake(self, now: float) -> None:
        """Handle everything that was held, in the order of its arrival."""
        self.asleep = False
        self._slept_s += now - self._asleep_since
        if self._free_at > self._asleep_since:
            self._free_at += now - self._asleep_since
        held, self._held = self._held, []
        for handler, argument in held:
            handler(argument)

    def _queued(self, handler: Handler) -> Handler:
        """One server, first come first served. A pause prolongs the service of every message that it meets."""

        def wait(argument: Any) -> None:
            self._free_at = max(self._env._now, self._free_at) + self._cost_s
            self._number += 1
            served(argument, self._free_at, self._number)

        def served(argument: Any, at: float, number: int) -> None:
            if self._may_sleep:
                self._env.call_at(at, keys.served_key(number), end, (argument, at, number, self._slept_s))
            else:
                self._env.call_at(at, keys.served_key(number), handler, argument)

        def end(event: tuple[Any, float, int, float]) -> None:
            argument, at, number, slept_s = event
            if self.asleep:
                self._held.append((end, event))
            elif slept_s < self._slept_s:
                served(argument, max(self._env._now, at + self._slept_s - slept_s), number)
            else:
                handler(argument)

        self._ways_in.append(end)
        return wait
