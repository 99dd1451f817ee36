"""Driving a cluster by a plan, in real time: tasks and faults at their intended moments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import grpc.aio
import numpy as np

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.wire.rpc import pauses
from orchestrator.rehearsal.injector import Injector
from orchestrator.rehearsal.local_cluster import LocalCluster
from orchestrator.rehearsal.record import Account
from orchestrator.scenario.plan import ClosedArrivals, OpenArrivals, Plan
from orchestrator.scenario.schema import Scenario

log = logging.getLogger("orchestrator.rehearsal")

Progress = Callable[[float], None]
Payload = Callable[[float], str]
HEAD_START_S = 0.1
COMMON_S = 5.0
WATCH_S = 0.2
LATE_S = 0.05


class ClusterBroke(RuntimeError):
    """A process of the cluster ended of itself."""


class Drive:
    """One run of a plan against a cluster, on the loop that calls `run`. `payload`: of a task, from its demand in
    seconds."""

    def __init__(
        self,
        scenario: Scenario,
        plan: Plan,
        cluster: LocalCluster,
        payload: Payload,
        injector: Injector,
        progress: Progress | None,
    ) -> None:
        self._scenario = scenario
        self._cluster = cluster
        self._payload = payload
        self._injector = injector
        self._progress = progress
        self._closing = self._stopped = False
        self._late_s = 0.0
        self.due = 0  # tasks that are not settled yet; of open arrivals, those to come included
        self.began = self.ended = 0.0
        arrivals = plan.arrivals
        self._arrivals: _Submissions | _Clients = (
            _Clients(self, arrivals, scenario.duration_s)
            if isinstance(arrivals, ClosedArrivals)
            else _Submissions(self, arrivals)
        )

    async def run(self) -> None:
        """Until everything is settled after the last arrival, or what remains can't be. Raises ClusterBroke."""
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        async with AsyncClient(self._cluster.address) as self._client:
            await self._connect()
            self.began = self.ended = beginning(self._scenario, self._loop.time() + HEAD_START_S)
            faults = self._injector.run(self.began, self._end_if_hopeless)
            background = [asyncio.create_task(part) for part in (faults, self._watch())]
            for task in background:
                task.add_done_callback(self._fail_with)
            self._set_timers()
            self._arrivals.begin()
            try:
                await self._over
            finally:
                self.ended = self._loop.time()
                for task in background:
                    task.cancel()
                self._injector.release()
        if self._late_s > LATE_S:
            log.warning("the driver fell behind: a task was sent up to %.3f s after its arrival", self._late_s)

    def stop(self) -> None:
        """End the run within a moment. May be called from another thread."""
        self._stopped = True

    async def _connect(self) -> None:
        """Before the first task is due; where there is nobody to connect to, the watch will tell."""
        for pause_s in pauses():
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self._client.metrics()
                return
            if self._stopped or self._cluster.coordinator.status is not None:
                return
            await asyncio.sleep(pause_s)

    def _set_timers(self) -> None:
        duration_s, drain_s = self._scenario.duration_s, self._scenario.drain_s
        self.at(duration_s, self._arrivals_over)
        if drain_s is not None:
            self.at(duration_s + drain_s, self._finish)

    def account(self) -> Account:
        arrival_s, service_s, priority = self._arrivals.columns()
        return Account(self.began, self.ended, arrival_s, service_s, priority, self._injector.injections)

    # ---- for the arrivals

    @property
    def now(self) -> float:
        """Seconds of the run."""
        return self._loop.time() - self.began

    def at(self, at_s: float, call: Callable[..., None], *arguments: object) -> None:
        self._loop.call_at(self.began + at_s, call, *arguments)

    def submit(self, at_s: float, service_s: float, priority: int) -> Submission:
        """Now; `at_s` is when it was to be."""
        self._late_s = max(self._late_s, self.now - at_s)
        task = NewTask(self._payload(service_s), priority, self._scenario.workload.task)
        (submission,) = self._client.submit_batch([task])
        submission.outcome.add_done_callback(self._settled)
        return submission

    @property
    def over(self) -> bool:
        return self._over.done()

    def _settled(self, outcome: asyncio.Future[Any]) -> None:
        if self._fail_with(outcome):
            return
        self.due -= 1
        if not self.due and self._closing:
            self._finish()

    # ---- the end

    async def _watch(self) -> None:
        """Show how far the run is, and see that nothing ends which was not told to."""
        while not self._stopped:
            await asyncio.sleep(WATCH_S)
            if self._progress is not None:
                self._progress(max(0.0, self.now) / self._scenario.duration_s)
            ended = self._injector.look()
            if ended is not None:
                raise ClusterBroke(ended)
            self._end_if_hopeless()
        self._finish()

    def _arrivals_over(self) -> None:
        self._closing = True
        if not self.due:
            self._finish()
        self._end_if_hopeless()

    def _end_if_hopeless(self) -> None:
        if self._closing and self._injector.hopeless:
            self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _fail_with(self, done: asyncio.Future[Any]) -> bool:
        error = None if done.cancelled() else done.exception()
        if error is not None and not self._over.done():
            self._over.set_exception(error)
        return error is not None or done.cancelled()


class _Submissions:
    """Open arrivals: each at its own time, whatever becomes of the tasks before it."""

    def __init__(self, drive: Drive, plan: OpenArrivals) -> None:
        self._drive = drive
        self._plan = plan
        self._sent = 0
        self._rows: Iterator[tuple[float, float, int]] = zip(
            plan.arrival_s.tolist(), plan.service_s.tolist(), plan.priority.tolist(), strict=True
        )
        drive.due = len(plan)

    def begin(self) -> None:
        self._next = next(self._rows, None)
        if self._next is not None:
            self._drive.at(self._next[0], self._send)

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival times, demands and priorities of all tasks that were sent, in their order."""
        plan, sent = self._plan, self._sent
        return plan.arrival_s[:sent], plan.service_s[:sent], plan.priority[:sent]

    def _send(self) -> None:
        """Whatever is due; a send that comes late moves no later one."""
        drive, now = self._drive, self._drive.now
        while self._next is not None and self._next[0] <= now and not drive.over:
            drive.submit(*self._next)
            self._sent += 1
            self._next = next(self._rows, None)
        if self._next is not None and not drive.over:
            drive.at(self._next[0], self._send)


class _Clients:
    """Closed arrivals: each client thinks, submits, waits for the result, and thinks again, until time is over."""

    def __init__(self, drive: Drive, plan: ClosedArrivals, until_s: float) -> None:
        self._drive = drive
        self._until_s = until_s
        self._limit = plan.tasks
        self._draws = [plan.client(number) for number in range(plan.clients)]
        self._rows: list[tuple[float, float, int]] = []

    def begin(self) -> None:
        for client in range(len(self._draws)):
            self._think(client, 0.0)

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival times, demands and priorities of all tasks, in the order of their submission."""
        arrival_s, service_s, priority = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return np.array(arrival_s, float), np.array(service_s, float), np.array(priority, np.uint8)

    def _think(self, client: int, since: float) -> None:
        think_s, service_s, priority = next(self._draws[client])
        if since + think_s < self._until_s:
            self._drive.at(since + think_s, self._arrive, client, (since + think_s, service_s, priority))

    def _arrive(self, client: int, row: tuple[float, float, int]) -> None:
        if self._drive.over or (self._limit is not None and len(self._rows) >= self._limit):
            return
        self._rows.append(row)
        self._drive.due += 1
        self._drive.submit(*row).outcome.add_done_callback(partial(self._settled, client))

    def _settled(self, client: int, _: object) -> None:
        if not self._drive.over:
            self._think(client, self._drive.now)


def beginning(scenario: Scenario, at: float) -> float:
    """When a run begins, not before `at`: a multiple of the heartbeat, and of what else the coordinator does in a
    rhythm of its own where they have a common multiple soon. Then phases in the run are phases of the clock."""
    policies = scenario.policies
    rhythms = (policies.detection.heartbeat_s, policies.detection.check_every_s, policies.execution_check_every_s)
    every_s = common_multiple([seconds for seconds in rhythms if seconds is not None])
    return math.ceil(at / every_s) * every_s


def common_multiple(rhythms: Sequence[float]) -> float:
    """The least one of the first, and of the others as long as that is not beyond COMMON_S, or the first itself."""
    common = Fraction(repr(rhythms[0]))
    for seconds in rhythms[1:]:
        own = Fraction(repr(seconds))
        both = Fraction(math.lcm(common.numerator, own.numerator), math.gcd(common.denominator, own.denominator))
        common = both if both <= COMMON_S else common
    return float(common)
