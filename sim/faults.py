"""A plan's faults, done to the modelled workers, to the network and to the coordinator's process."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.scenario.faults import OfNetwork, Slow
from orchestrator.scenario.plan import FaultAction, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim.network import Impairment
from sim.worker import Rank, SimWorker

if TYPE_CHECKING:
    from sim.world import World


class Faults:
    """`starting`: how many processes are yet to start."""

    def __init__(self, world: World, scenario: Scenario, plan: Plan, replication: int) -> None:
        self._world = world
        self._faults = scenario.faults
        self._network = scenario.network
        self._stream = partial(generator, scenario.seed, replication, "fault")
        self._impairments: dict[tuple[int, str, str], Impairment] = {}
        self._times: dict[str | None, deque[float]] = {None: deque()}
        self.starting = 0
        for number, action in enumerate(plan.faults):
            self.starting += action.starts
            self._times.setdefault(action.worker, deque()).append(action.time_s)
            world.env.call_at(action.time_s, Rank.FAULT + number, self.inject, action)
        for worker in world.workers:
            self._look_ahead(worker)

    def inject(self, action: FaultAction) -> None:
        """Do it."""
        times = self._times.get(action.worker)
        if times:
            times.popleft()
        if action.worker is None:
            self._inject_into_coordinator(action)
        else:
            worker = self._world.by_name[action.worker]
            self._look_ahead(worker)
            self._inject_into_worker(worker, action)
        self._world.end_if_hopeless()

    def _look_ahead(self, worker: SimWorker) -> None:
        """What is next to concern a worker: its own fault, or the coordinator's."""
        mine = self._times.get(worker.name)
        pauses = self._times[None]
        worker.next_fault_s = min(mine[0] if mine else math.inf, pauses[0] if pauses else math.inf)

    def _inject_into_coordinator(self, action: FaultAction) -> None:
        for worker in self._world.workers:
            self._look_ahead(worker)
        self._tell(action)
        if action.heals:
            self._world.go_on()
        else:
            self._world.sleep()

    def _inject_into_worker(self, worker: SimWorker, action: FaultAction) -> None:
        kind, now = action.kind, self._world.now
        self._world.unfuse(worker)  # results that have arrived, but wait until the coordinator turns to them
        if action.starts:
            self._start(worker, action)
            return
        self._tell(action)
        if kind == "crash":
            worker.end()
        elif kind in ("restart", "drain"):
            self._world.drain(worker.name)
        elif kind == "pause":
            (worker.resume if action.heals else worker.pause)(now)
        elif kind in ("slow", "hang"):
            worker.work_at(1.0 if action.heals else self._factor(action), now)
        else:
            self._impair(worker, action)

    def _start(self, worker: SimWorker, action: FaultAction) -> None:
        """A new process; what is left of an old one is killed."""
        self.starting -= 1
        if worker.up:
            self._world.recorder.event(self._world.now, "crash", worker.name)
            worker.end()
        self._tell(action)
        self._world.start_process(worker)

    def _factor(self, action: FaultAction) -> float:
        fault = self._faults[action.index]
        return fault.factor if isinstance(fault, Slow) else 0.0

    def _impair(self, worker: SimWorker, action: FaultAction) -> None:
        fault = self._faults[action.index]
        assert isinstance(fault, OfNetwork)
        for direction in fault.directions:
            worker.impairment(
                direction, fault.kind, None if action.heals else self._drawn(action.index, direction, worker)
            )

    def _drawn(self, index: int, direction: str, worker: SimWorker) -> Impairment:
        """One and the same for each time that a fault strikes there: its streams go on."""
        key = index, direction, worker.name
        if key not in self._impairments:
            fault = self._faults[index]
            assert isinstance(fault, OfNetwork)
            stream = partial(self._stream, index, direction, worker.name)
            self._impairments[key] = Impairment(fault, self._network, stream)
        return self._impairments[key]

    def _tell(self, action: FaultAction) -> None:
        """For the table of events. Of a drain and a join, the coordinator's own events tell."""
        event = self._world.recorder.event
        if action.starts:
            event(self._world.now, "heal", action.worker, "restart")
        elif action.heals:
            event(self._world.now, "heal", action.worker, "resume" if action.kind == "pause" else action.kind)
        elif action.kind != "drain":
            event(self._world.now, action.kind, action.worker)
