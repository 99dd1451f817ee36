"""What every worker is, however its messages travel: the core's `WorkerAgent` between an executor and a coordinator.

The loop here never runs a task, so that heartbeats do not wait for one.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.cluster.app import work_of
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.placing import Kind, make_executor
from orchestrator.cluster.programs import Program
from orchestrator.cluster.wire.sizes import sendable
from orchestrator.cluster.wire.translate import Done
from orchestrator.core.model import AttemptKey
from orchestrator.core.recent_keys import RecentKeys
from orchestrator.core.worker import WorkerAgent

SHORTEST_S = 0.001
"""Of the times that a coordinator may ask for."""
REPORT_PAUSE_S = 0.2  # of the wire contract
KEYS_MAX = 100_000  # that a worker remembers, whatever a task says
PAYLOAD_LOOKED_AT = 100  # characters: seconds are no longer
REPORTS_MAX = 2**32 - 1  # the largest number of a report; the next one is 1 again


class ContractOnly(Exception):
    """The coordinator offers no streams."""


class Unwanted(Exception):
    """The coordinator will not have this worker."""


@dataclass(frozen=True)
class Settings:
    """Of every worker of a process. `prefetch` negative: any number. `speed`: of its work, as a share of the usual.
    `beat_phase_s`: of some by name, when they beat: at times of the monotonic clock that leave this remainder; others
    at random. `address`: where a calling coordinator reaches it, host:port; a port 0 stands for a free one.
    `program`: what subprocesses execute. `incarnation`: names the process. `kinds`: of the tasks that it takes, empty
    for all; `labels`: each as name=value.
    """

    coordinator: str
    capacity: int = 2
    prefetch: int = 0
    executor: Kind = "process"
    speed: float = 1.0
    beat_phase_s: Mapping[str, float] = field(default_factory=dict)
    listen_host: str = "127.0.0.1"
    address: str = "127.0.0.1:0"
    program: Program = field(default_factory=Program)
    incarnation: str = field(default_factory=lambda: secrets.token_hex(8))
    kinds: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Held(NamedTuple):
    """An attempt's payload in the agent."""

    kind: str
    payload: str
    arrived_at: float


class Worker(ABC):
    """Implements `core.worker.WorkerEffects`, apart from how messages travel.

    `registered` is called whenever the coordinator has taken it in. How often it beats, it learns then.
    `asked_to_drain` is called when the coordinator says that it is to drain; its process may do more at that.
    """

    def __init__(self, name: str, settings: Settings, registered: Callable[[], None], tries: int | None = None) -> None:
        self.name = name
        self.settings = settings
        self.registered = registered
        self.asked_to_drain: Callable[[], None] = self.drain
        self.gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._queued_s: dict[AttemptKey, float] = {}  # of those that are executed
        self._finishes = 0
        self._recent: RecentKeys | None = None
        self._may_remember = not settings.program.is_own
        self._alarm: asyncio.TimerHandle | None = None
        self._executor = make_executor(
            settings.executor, settings.capacity, self._finished, self._use_slots, settings.program
        )
        self._executor.hear_progress(self.report_progress)
        self.agent = WorkerAgent(
            self,
            capacity=settings.capacity,
            prefetch=self.prefetch,
            heartbeat_s=math.inf,
            first_beat_at=math.inf,
            report_tries=tries,
            report_pause_s=REPORT_PAUSE_S,
            can_stop=self._executor.can_stop,
        )

    @property
    def prefetch(self) -> float:
        return math.inf if self.settings.prefetch < 0 else self.settings.prefetch

    @abstractmethod
    async def run(self) -> None:
        """Until it has left. Raises ContractOnly, Unwanted."""

    def drain(self) -> None:
        self.agent.drain(self.now())

    def give_up(self) -> None:
        """Stop what runs, and leave: the coordinator has others execute it."""
        now = self.now()
        self.agent.start_over(now)
        if not self.agent.gone:
            self.leave(now)

    def close(self) -> None:
        """End what runs, at once."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._executor.close()

    def set_speed(self, speed: float) -> None:
        self._executor.set_speed(speed)

    def frozen(self, seconds: float) -> None:
        self._executor.frozen(seconds)

    def first_beat_at(self, heartbeat_s: float) -> float:
        now = self.now()
        phase_s = self.settings.beat_phase_s.get(self.name)
        in_s = heartbeat_s * random.random() if phase_s is None else phase_s - now
        return now + in_s % heartbeat_s

    def report_progress(self, key: AttemptKey, share: float, text: str) -> None:  # noqa: B027
        """What the wire contract has no message for."""

    # ---- effects of the agent

    def execute(self, key: AttemptKey, payload: Any, now: float) -> None:
        held: Held = payload
        self._queued_s[key] = now - held.arrived_at
        payload = held.payload
        if " " in payload[:PAYLOAD_LOOKED_AT] and self._may_remember and work_of(held.kind) in ("sleep", "spin"):
            payload = self._at_hand(payload)
        self._executor.start(key, held.kind, payload)

    def _at_hand(self, payload: str) -> str:
        """What is to be done of work whose time depends on what this worker has served lately (`tasks.remembering`)."""
        parts = payload.split(" ", 3)
        if len(parts) < 4 or not parts[2].isdecimal():
            return payload  # whoever does the work says that it makes no sense
        usual, shorter, most, key = parts
        if self._recent is None:
            self._recent = RecentKeys(min(int(most[:9]), KEYS_MAX))
        return shorter if self._recent.use(key) else usual

    def stop(self, key: AttemptKey, now: float) -> None:
        del self._queued_s[key]
        self._executor.stop(key)

    def wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if at < math.inf:
            self._alarm = self._loop.call_at(at, self._ring)

    @abstractmethod
    def answer(self, key: AttemptKey, accepted: bool, now: float) -> None: ...

    @abstractmethod
    def report_start(self, key: AttemptKey, now: float) -> None: ...

    @abstractmethod
    def report(self, key: AttemptKey, result: Any, now: float) -> None: ...

    @abstractmethod
    def cancel_done(self, key: AttemptKey, now: float) -> None: ...

    @abstractmethod
    def beat(self, active: int, completed: int, now: float) -> None: ...

    @abstractmethod
    def announce_drain(self, now: float) -> None: ...

    @abstractmethod
    def leave(self, now: float) -> None: ...

    def _ring(self) -> None:
        self.agent.wake(self.now())

    def _use_slots(self, slots: int) -> None:
        self.agent.use_slots(slots, self.now())

    def _finished(self, key: AttemptKey, ended: Ended) -> None:
        self._finishes = self._finishes % REPORTS_MAX + 1
        self.agent.finished(key, Done(sendable(ended), self._queued_s.pop(key), self._finishes), self.now())
