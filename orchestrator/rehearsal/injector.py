"""Faults on a cluster of real processes, as a plan has them: signals, control lines, and the relays' network."""

from __future__ import annotations

import asyncio
import heapq
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.rehearsal.journal import Journal
from orchestrator.rehearsal.local_cluster import LocalCluster
from orchestrator.rehearsal.record import Injection
from orchestrator.results.fault_events import CRASH, entry_of
from orchestrator.scenario.faults import Delay, Duplicate, FaultKind, Loss, OfNetwork, Partition, Slow
from orchestrator.scenario.plan import FaultAction, Plan
from orchestrator.scenario.schema import Scenario

Step = Callable[[FaultAction], None]
STANDBY_S = 10.0
"""How long before its time a process loads, on standby: many times as long as that takes, since machines are busy. One
that is needed earlier loads before the run."""
DIRECTIONS = ("to_workers", "to_coordinator")
LEFT = (0, -signal.SIGTERM)  # a process that was told to leave before it could hear is gone as well


class Stage(Protocol):
    """What begins the processes that faults bring: `prepare` one on standby, `begin` it when it is the worker's."""

    def prepare(self, action: FaultAction) -> None: ...
    def begin(self, action: FaultAction) -> None: ...
    def begin_coordinator(self, action: FaultAction) -> None: ...


@dataclass
class _Host:
    """Where one worker lives: what is done to the work and the network there outlives its process."""

    gone: bool = False
    """It has no process, or the one that it has was killed or has left."""
    leaving: bool = False
    paused_at: float | None = None
    speed: float = 1.0
    network: dict[FaultKind, OfNetwork] = field(default_factory=dict)


def needs_standby(action: FaultAction) -> bool:
    """Whether a process begins, of a worker or of the coordinator."""
    return action.starts or (action.heals and action.kind == "coordinator_crash")


class Injector:
    """Executes the faults of one run."""

    def __init__(self, scenario: Scenario, plan: Plan, cluster: LocalCluster, stage: Stage, journal: Journal) -> None:
        self.injections: list[Injection] = []
        self._journal = journal
        self._faults = scenario.faults
        self._network = scenario.network
        self._cluster = cluster
        self._stage = stage
        self._hosts = {name: _Host(gone=name in plan.absent) for name in scenario.worker_names()}
        self._actions = plan.faults
        self._starts = sum(action.starts for action in plan.faults)
        self._started = 0
        self._coordinator_paused = self._coordinator_gone = False

    @property
    def hopeless(self) -> bool:
        """No worker is there, and none will come."""
        return self._started == self._starts and all(host.gone for host in self._hosts.values())

    async def run(self, began: float, changed: Callable[[], None]) -> None:
        """Do it all, each at its time since `began`; `changed` is called whenever it may have become hopeless."""
        self._loop = asyncio.get_running_loop()
        self._began = began
        for name, host in self._hosts.items():
            if self._cluster.relay(name) is not None:
                self._impair(name, host)
        steps = self._steps()
        while steps:
            at_s, _, step, action = heapq.heappop(steps)
            await asyncio.sleep(began + at_s - self._loop.time())
            step(action)
            changed()

    def look(self) -> str | None:
        """A process that has ended without having been told to, in a sentence."""
        status = self._cluster.coordinator.status
        if status is not None and not self._coordinator_gone:
            return f"the coordinator ended with status {status}"
        for name, host in self._hosts.items():
            if host.gone:
                continue
            status = self._cluster.worker(name).status
            if status is not None and host.leaving and status in LEFT:
                host.gone = True
            elif status is not None:
                return f"the process of worker {name} ended with status {status}"
            relay = self._cluster.relay(name)
            if relay is not None and relay.status is not None:
                return f"the relay of worker {name} ended with status {relay.status}"
        return None

    def release(self) -> None:
        """Let the coordinator go on, if it stands still, so that it can end."""
        if self._coordinator_paused:
            self._cluster.coordinator.signal(signal.SIGCONT)

    # ---- what is done when

    def _steps(self) -> list[tuple[float, int, Step, FaultAction]]:
        """Moments of the run, in their order. A process is on standby before it is needed."""
        steps: list[tuple[float, int, Step, FaultAction]] = []
        for number, action in enumerate(self._actions):
            steps.append((action.time_s, number, self._begin if action.starts else self._inject, action))
            if needs_standby(action) and action.time_s > STANDBY_S:
                steps.append((action.time_s - STANDBY_S, number, self._stage.prepare, action))
        heapq.heapify(steps)
        return steps

    def _inject(self, action: FaultAction) -> None:
        name, kind = action.worker, action.kind
        if name is None:
            self._inject_into_coordinator(action)
            return
        fault, host = self._faults[action.index], self._hosts[name]
        if kind == "crash":
            self._kill(name)
        elif kind in ("restart", "drain"):
            self._note(action)
            self._cluster.worker(name).terminate()
            host.leaving = True
        elif kind == "pause" and action.heals:
            self._resume(action, host)
        elif kind == "pause":
            host.paused_at = self._note(action)
            self._cluster.worker(name).signal(signal.SIGSTOP)
        elif isinstance(fault, OfNetwork):
            self._note(action)
            if action.heals:
                del host.network[kind]
            else:
                host.network[kind] = fault
            self._impair(name, host)
        else:
            host.speed = 1.0 if action.heals else fault.factor if isinstance(fault, Slow) else 0.0
            self._note(action)
            self._tell_speed(name, host)

    def _inject_into_coordinator(self, action: FaultAction) -> None:
        coordinator = self._cluster.coordinator
        if action.kind == "coordinator_crash" and not action.heals:
            self._coordinator_gone = True
            coordinator.kill()
            self._note(action)  # when it is dead: it goes on deciding for some milliseconds after the signal
            return
        self._note(action)
        if action.kind == "coordinator_pause":
            coordinator.signal(signal.SIGCONT if action.heals else signal.SIGSTOP)
            self._coordinator_paused = not action.heals
        else:
            self._stage.begin_coordinator(action)
            self._coordinator_gone = False

    # ---- processes

    def _kill(self, name: str) -> None:
        self._record(Injection(self._loop.time(), CRASH.kind, name))
        self._cluster.worker(name).signal(signal.SIGKILL)
        self._hosts[name].gone = True

    def _begin(self, action: FaultAction) -> None:
        """A new process. It is time that the one before it were gone."""
        name = action.worker
        assert name is not None
        host = self._hosts[name]
        if not host.gone and self._cluster.worker(name).status is None:
            self._kill(name)
        self._started += 1
        host.gone = host.leaving = False
        self._note(action)
        self._stage.begin(action)
        if host.speed != 1.0:
            self._tell_speed(name, host)

    def _resume(self, action: FaultAction, host: _Host) -> None:
        """The process is told how long it stood still before it can look at its clock."""
        name = action.worker
        assert name is not None
        assert host.paused_at is not None
        process = self._cluster.worker(name)
        process.control({"frozen_s": self._loop.time() - host.paused_at})
        host.paused_at = None
        self._tell_speed(name, host)
        self._note(action)
        process.signal(signal.SIGCONT)

    def _tell_speed(self, name: str, host: _Host) -> None:
        """A process that stands still is told as it goes on: until then it does nothing at any speed."""
        if not host.gone and host.paused_at is None:
            self._cluster.worker(name).control({"speed": host.speed})

    # ---- network

    def _impair(self, name: str, host: _Host) -> None:
        """The network of that worker as it is now: the scenario's own, and the faults under way."""
        relay = self._cluster.relay(name)
        assert relay is not None
        blocked: set[str] = set()
        loss = dict.fromkeys(DIRECTIONS, self._network.loss)
        duplicate = dict.fromkeys(DIRECTIONS, self._network.duplicate)
        delay: dict[str, Any] = {}
        for fault in host.network.values():
            for direction in fault.directions:
                if isinstance(fault, Partition):
                    blocked.add(direction)
                elif isinstance(fault, Loss):
                    loss[direction] = _either(loss[direction], fault.probability)
                elif isinstance(fault, Duplicate):
                    duplicate[direction] = _either(duplicate[direction], fault.probability)
                elif isinstance(fault, Delay):
                    delay[direction] = fault.delay.model_dump()
        relay.control({"blocked": sorted(blocked), "loss": loss, "duplicate": duplicate, "delay": delay})

    def _note(self, action: FaultAction) -> float:
        """Record that it is done now, before anybody can notice; the time on the driver's clock."""
        now = self._loop.time()
        entry = entry_of(action)
        if entry is not None:
            self._record(Injection(now, entry.kind, action.worker, entry.detail))
        return now

    def _record(self, injection: Injection) -> None:
        self._journal.inject(injection)
        self.injections.append(injection)


def _either(one: float, other: float) -> float:
    """The probability that at least one of two independent things happens."""
    return 1 - (1 - one) * (1 - other)
