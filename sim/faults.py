"""A plan's faults, done to the modelled workers, to the network and to the coordinator's process."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from orchestrator.results.fault_events import CRASH, Entry, entry_of
from orchestrator.results.recorder import Recorder
from orchestrator.scenario.faults import OfNetwork, Slow
from orchestrator.scenario.plan import FaultAction, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.environment import Environment
from sim.network import Impairment
from sim.worker import SimWorker


class Cluster(Protocol):
    """What faults are injected into."""

    env: Environment
    recorder: Recorder

    @property
    def workers(self) -> Sequence[SimWorker]: ...
    @property
    def by_name(self) -> Mapping[str, SimWorker]: ...

    def unfuse(self, worker: SimWorker, /) -> None: ...
    def start_process(self, worker: SimWorker) -> None: ...
    def drain(self, name: str) -> None: ...
    def inject_into_coordinator(self, action: FaultAction) -> None: ...
    def check_hopeless(self) -> None: ...


class Faults:
    """`starting`: how many processes are yet to start."""

    def __init__(self, cluster: Cluster, scenario: Scenario, plan: Plan, replication: int) -> None:
        self._cluster = cluster
        self._env = cluster.env
        self._faults = scenario.faults
        self._network = scenario.network
        self._stream = partial(generator, scenario.seed, replication, "fault")
        self._impairments: dict[tuple[int, str, str], Impairment] = {}
        self._times: dict[str | None, deque[float]] = {None: deque()}
        self.starting = 0
        for number, action in enumerate(plan.faults):
            self.starting += action.starts
            self._times.setdefault(action.worker, deque()).append(action.time_s)
            self._env.call_at(action.time_s, keys.fault_key(number), self.inject, action)
        for worker in cluster.workers:
            self._look_ahead(worker)

    def inject(self, action: FaultAction) -> None:
        """Do what the action says, now."""
        times = self._times.get(action.worker)
        if times:
            times.popleft()
        if action.worker is None:
            self._inject_into_coordinator(action)
        else:
            worker = self._cluster.by_name[action.worker]
            self._look_ahead(worker)
            self._inject_into_worker(worker, action)
        self._cluster.check_hopeless()

    def _look_ahead(self, worker: SimWorker) -> None:
        """When a fault next concerns a worker: one of its own, or one of the coordinator."""
        mine = self._times.get(worker.name)
        pauses = self._times[None]
        worker.next_fault_s = min(mine[0] if mine else math.inf, pauses[0] if pauses else math.inf)

    def _inject_into_coordinator(self, action: FaultAction) -> None:
        for worker in self._cluster.workers:
            self._look_ahead(worker)
        self._record(action, entry_of(action))
        self._cluster.inject_into_coordinator(action)

    def _inject_into_worker(self, worker: SimWorker, action: FaultAction) -> None:
        kind = action.kind
        self._cluster.unfuse(worker)  # some results have arrived, and wait in the queue of the coordinator's server
        if action.starts:
            self._start(worker, action)
            return
        self._record(action, entry_of(action))
        if kind == "crash":
            worker.end()
        elif kind in ("restart", "drain"):
            self._cluster.drain(worker.name)
        elif kind == "pause":
            (worker.resume if action.heals else worker.pause)()
        elif kind in ("slow", "hang"):
            worker.work_at(1.0 if action.heals else self._speed_factor(action))
        else:
            self._impair(worker, action)

    def _start(self, worker: SimWorker, action: FaultAction) -> None:
        """Start a new process; kill what is left of an old one."""
        self.starting -= 1
        if worker.up:
            self._record(action, CRASH)
            worker.end()
        self._record(action, entry_of(action))
        self._cluster.start_process(worker)

    def _speed_factor(self, action: FaultAction) -> float:
        fault = self._faults[action.index]
        return fault.factor if isinstance(fault, Slow) else 0.0

    def _impair(self, worker: SimWorker, action: FaultAction) -> None:
        fault = self._faults[action.index]
        assert isinstance(fault, OfNetwork)
        for direction in fault.directions:
            impairment = None if action.heals else self._impairment(action.index, direction, worker)
            worker.impair(direction, fault.kind, impairment)

    def _impairment(self, index: int, direction: str, worker: SimWorker) -> Impairment:
        """The same one whenever the fault returns to that worker: its streams go on."""
        key = index, direction, worker.name
        if key not in self._impairments:
            fault = self._faults[index]
            assert isinstance(fault, OfNetwork)
            stream = partial(self._stream, index, direction, worker.name)
            self._impairments[key] = Impairment(fault, self._network, stream)
        return self._impairments[key]

    def _record(self, action: FaultAction, entry: Entry | None) -> None:
        if entry is not None:
            self._cluster.recorder.event(self._env._now, entry.kind, action.worker, entry.detail)
