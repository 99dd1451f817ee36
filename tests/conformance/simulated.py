"""A cluster in the simulated world, directed by the kit instead of a plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from orchestrator.core.model import Attempt, Priority
from orchestrator.core.worker import Key
from orchestrator.policies.settings import build_coordinator
from orchestrator.scenario.faults import FaultKind, Partition
from orchestrator.scenario.plan import FaultAction, OpenArrivals, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim.network import Impairment
from sim.worker import Job, Rank, SimWorker
from sim.world import World
from tests.conformance.cluster import PATIENCE_S, Cluster, Direction, History


class Stage(World):
    """A world whose workers, faults and tasks come when they are asked for.

    `deaf`: workers that cannot be told to cancel; `failing`: attempts that end badly, why, and whether to try again.
    """

    def __init__(self, scenario: Scenario) -> None:
        nothing = np.zeros(0)
        arrivals = OpenArrivals(nothing, nothing, nothing.astype(np.uint8))
        # Without one to come, the coordinator would be unable to stand still when it is told to.
        never = FaultAction(scenario.duration_s, "coordinator_pause", None, 0)
        super().__init__(scenario, Plan(arrivals, [never]), fuse=False)
        self.history = History(self, lambda: self.now)
        self.coordinator = build_coordinator(scenario.policies, self.history, scenario.seed)
        self.deaf: set[str] = set()
        self.failing: dict[Key, tuple[str, bool]] = {}

    def _make_workers(self, *_: object) -> list[SimWorker]:
        return []

    def begin(self, name: str, capacity: int, prefetch: int) -> None:
        """A worker's first process, or another after a crash."""
        if name in self.by_name:
            self.inject(name, "crash", heals=True)
            return
        worker = SimWorker(self, len(self.workers), name, capacity, prefetch, speed=1.0, may_fuse=False)
        self.workers.append(worker)
        self.by_name[name] = worker
        self.start_process(worker)

    def inject(self, name: str, kind: FaultKind, heals: bool = False) -> None:
        self.faults.inject(FaultAction(self.now, kind, name, 0, heals))

    def kill_executor(self, name: str) -> None:
        worker = self.by_name[name]
        for job in list(worker._running.values()):
            self.failing[job.key] = ("its executor was killed by SIGKILL", True)
            job.run += 1
            worker._finish((job, job.run))

    def cancel(self, attempt: Attempt, now: float) -> None:
        if attempt.worker.id not in self.deaf:
            super().cancel(attempt, now)

    def _result(self, job: Job) -> None:
        if job.key not in self.failing:
            super()._result(job)
            return
        error, retryable = self.failing[job.key]
        task, number = job.key
        job.worker.jobs.pop(job.key, None)
        self.coordinator.result(job.worker.name, task, number, False, None, error, retryable, None, None, self.now)
        self._acknowledge(job)


class Simulated(Cluster):
    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._stage = Stage(scenario)
        self._cut: dict[str, tuple[Direction, ...]] = {}
        self.core = self._stage.coordinator
        self.history = self._stage.history
        self.submitted = []
        self.timeout_s = scenario.policies.detection.timeout_s  # type: ignore[union-attr]  # as the kit's scenario has it

    def start(
        self, *names: str, capacity: int = 1, prefetch: int = 0, contract: bool = False, fragile: bool = False
    ) -> None:
        before = len(self.history.workers)
        for name in names:
            self._stage.begin(name, capacity, prefetch)
            if contract:
                self._stage.deaf.add(name)
        self.until(lambda: {name for name, _ in self.history.workers[before:]} >= set(names))

    def kill(self, *names: str) -> None:
        for name in names:
            self._stage.inject(name, "crash")

    def pause(self, name: str) -> None:
        self._stage.inject(name, "pause")

    def resume(self, name: str) -> None:
        self._stage.inject(name, "pause", heals=True)

    def work_at(self, name: str, factor: float) -> None:
        self._stage.by_name[name].work_at(factor, self._stage.now)

    def cut(self, name: str, *directions: Direction) -> None:
        worker, partition = self._stage.by_name[name], Partition(kind="partition", at_s=1, all=True)
        for direction in self._cut.pop(name, ()):
            worker.impairment(direction, "partition", None)
        for direction in directions:
            impairment = Impairment(partition, self._scenario.network, partial(generator, 0, 0))
            worker.impairment(direction, "partition", impairment)
        self._cut[name] = directions

    def stand_still(self, seconds: float) -> None:
        env = self._stage.env
        end = env.now + seconds
        self._stage.sleep()
        while env.peek() < end:
            env.step()
        env.call_at(end, Rank.FAULT, lambda _: self._stage.go_on(), None)
        env.step()

    def drain(self, name: str) -> None:
        self._stage.drain(name)

    def kill_executor(self, name: str) -> None:
        self._stage.kill_executor(name)

    def submit(self, work_s: float | None, priority: Priority = Priority.NORMAL) -> int:
        task = len(self.submitted) + 1
        self.submitted.append(task)
        self._stage.due += 1
        if work_s is None:
            self._stage.failing[task, 1] = ("invalid payload: it makes no sense", False)
        self.core.submit(task, priority, work_s or 0.0, self._stage.now)
        return task

    def report(self, name: str, task: int, attempt: int) -> None:
        self.core.result(name, self.core_id(task), attempt, True, None, "", False, None, None, self._stage.now)

    def claim(self, name: str, capacity: int) -> None:
        self.core.register(name, capacity, 0, False, self._stage.now)

    def forget(self, name: str) -> None:
        self.core.deregister(name, self._stage.now)

    def until(self, condition: Callable[[], object]) -> None:
        env = self._stage.env
        deadline = env.now + PATIENCE_S
        while not condition():
            if env.peek() > deadline:
                raise self.in_vain()
            env.step()

    def prove(self) -> None:
        super().prove()
        for worker in self._stage.workers:
            worker.agent.check()

    def close(self) -> None:
        pass
