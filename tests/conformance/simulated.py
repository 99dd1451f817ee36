"""A cluster in the simulated world, directed by the kit instead of a plan."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random
from typing import Any, cast

import numpy as np

from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import Attempt, AttemptKey, Priority, TimeLimits
from orchestrator.policies.settings import build_coordinator
from orchestrator.scenario.faults import FaultKind, Partition
from orchestrator.scenario.plan import FaultAction, OpenArrivals, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.draws import Draws
from sim.network import Impairment
from sim.worker import Job
from sim.world import World
from tests.conformance.cluster import PATIENCE_S, Cluster, Direction, History

MOST_DELAYED_S = 0.05
"""How long an effect is delayed at most, a multiple of what a message takes."""


class Stage(World):
    """A world whose workers, faults and tasks come when they are asked for.

    `deaf`: workers that cannot be told to cancel. `failing`: attempts that end badly, why, and whether to try again.
    """

    def __init__(self, scenario: Scenario) -> None:
        nothing = np.zeros(0)
        arrivals = OpenArrivals(nothing, nothing, nothing.astype(np.uint8))
        # Without one to come, the coordinator would be unable to stand still when it is told to.
        never = FaultAction(scenario.duration_s, "coordinator_pause", None, 0)
        super().__init__(scenario, Plan(arrivals, [never]), fuse=False)
        self.history = History(self, lambda: self.now, lambda task: int(cast(int, task.id)))
        self.coordinator = build_coordinator(
            scenario.policies,
            self.history,
            scenario.seed,
            call_timeout_s=scenario.network.rpc_timeout_s,
            max_waiting=scenario.coordinator.max_waiting,
        )
        self.deaf: set[str] = set()
        self.failing: dict[AttemptKey, tuple[str, bool]] = {}

    def _make_workers(self, scenario: Scenario, may_fuse: bool) -> None:
        pass

    def begin(self, name: str, capacity: int, prefetch: int) -> None:
        """A worker's first process, or another after a crash."""
        if name in self.by_name:
            self.inject(name, "crash", heals=True)
        else:
            self.start_process(self.add_worker(name, capacity, prefetch))

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

    def _report_of(self, job: Job, request: int) -> Report:
        report = super()._report_of(job, request)
        if job.key not in self.failing:
            return report
        error, retryable = self.failing[job.key]
        return report._replace(succeeded=False, error=error, retryable=retryable)


class DelayedStage(Stage):
    """Every effect that goes to a peer is delayed at random; those to the same peer keep their order."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self._chance = Random(scenario.seed)
        self._waiting: defaultdict[str, deque[Callable[[], None]]] = defaultdict(deque)
        self._numbers = count()

    def _release(self, peer: str, send: Callable[..., None], *values: object) -> None:
        self._waiting[peer].append(partial(send, *values))
        if len(self._waiting[peer]) == 1:
            self._release_later(peer)

    def _release_later(self, peer: str) -> None:
        at = self.now + self._chance.random() * MOST_DELAYED_S
        self.env.call_at(at, keys.Rank.PROGRESS + next(self._numbers), self._release_first, peer)

    def _release_first(self, peer: Any) -> None:
        waiting = self._waiting[peer]
        waiting[0]()
        waiting.popleft()
        if waiting:
            self._release_later(peer)


class Simulated(Cluster):
    """`stage`: what kind of world the cluster is in."""

    def __init__(self, scenario: Scenario, stage: Callable[[Scenario], Stage] = Stage) -> None:
        self._scenario = scenario
        self._stage = stage(scenario)
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
        self._stage.by_name[name].work_at(factor)

    def cut(self, name: str, *directions: Direction) -> None:
        worker, partition = self._stage.by_name[name], Partition(kind="partition", at_s=1, all=True)
        for direction in self._cut.pop(name, ()):
            worker.impair(direction, "partition", None)
        for direction in directions:
            impairment = Impairment(partition, self._scenario.network, partial(generator, 0, 0))
            worker.impair(direction, "partition", impairment)
        self._cut[name] = directions

    def break_connection(self, name: str) -> None:
        self._stage.disconnect(name)

    def stand_still(self, seconds: float) -> None:
        env = self._stage.env
        end = env.now + seconds
        self._stage.sleep()
        while env.peek() < end:
            env.step()
        env.call_at(end, keys.Rank.FAULT, lambda _: self._stage.go_on(), None)
        env.step()

    def drain(self, name: str) -> None:
        self._stage.drain(name)

    def kill_executor(self, name: str) -> None:
        self._stage.kill_executor(name)

    def submit(
        self, work_s: float | None, priority: Priority = Priority.NORMAL, limits: TimeLimits | None = None
    ) -> int:
        task = len(self.submitted) + 1
        self.submitted.append(task)
        self._stage.end.submitted()
        if work_s is None:
            self._stage.failing[task, 1] = ("invalid payload: it makes no sense", False)
        payload: Draws = work_s or 0.0, 0.0, 0.0, 0.0, 0.0, None  # no overhead, and no message takes time
        self.core.submit(task, priority, payload, limits, self._stage.now)
        return task

    def report(self, name: str, task: int, attempt: int) -> None:
        self.core.result(Report(name, self.core_id(task), attempt, succeeded=True), self._stage.now)

    def claim(self, name: str, capacity: int) -> None:
        self.core.register(Registration(name, "", capacity, 0, reports_start=False), self._stage.now)

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
