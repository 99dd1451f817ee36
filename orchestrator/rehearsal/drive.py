"""Driving a cluster by a plan, in real time: tasks and faults at their intended moments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import grpc.aio

from orchestrator.cluster.client import AsyncClient, CoordinatorStopped, NewTask, Submission
from orchestrator.cluster.tasks import named_kind
from orchestrator.cluster.wire.rpc import pauses
from orchestrator.rehearsal.injector import Injector
from orchestrator.rehearsal.journal import Journal
from orchestrator.rehearsal.local_cluster import LocalCluster
from orchestrator.rehearsal.record import Account, Promised
from orchestrator.results.sweeps import Progress
from orchestrator.scenario.driving import ClosedClients, Columns, OpenStream, RunEnd
from orchestrator.scenario.plan import ClosedArrivals, Demand, OpenArrivals, Plan
from orchestrator.scenario.schema import Scenario

log = logging.getLogger("orchestrator.rehearsal")

Payload = Callable[[float], str]
HEAD_START_S = 0.1
COMMON_S = 5.0
WATCH_S = 0.2
LATE_S = 0.05
STOPPED = 70
"""The exit status of a coordinator that a fault of a policy, or of its own, has stopped."""


class ClusterBroke(RuntimeError):
    """A process of the cluster ended without having been told to. `status`: the exit status of the coordinator, if that
    is the one that ended."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


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
        journal: Journal,
        progress: Progress | None,
    ) -> None:
        self._scenario = scenario
        self._cluster = cluster
        self._payload = payload
        self._injector = injector
        self._journal = journal
        self._progress = progress
        self._stopped = False
        self._late_s = 0.0
        self._promised: dict[int, Promised] | None = None if scenario.coordinator.commit is None else {}
        self.began = self.ended = 0.0
        arrivals = plan.arrivals
        due = 0 if isinstance(arrivals, ClosedArrivals) else len(arrivals)
        self._end = RunEnd(due, self._finish, lambda: injector.hopeless)
        self._arrivals: _Submissions | _Clients = (
            _Clients(self, arrivals, scenario.duration_s, self._end)
            if isinstance(arrivals, ClosedArrivals)
            else _Submissions(self, arrivals)
        )

    async def run(self) -> None:
        """Run until everything is settled after the last arrival, or what remains can't be. Raises ClusterBroke."""
        try:
            await self._run()
        except CoordinatorStopped as error:
            raise ClusterBroke(str(error), STOPPED) from error

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        async with AsyncClient(self._cluster.address) as self._client:
            await self._connect()
            self.began = self.ended = beginning(self._scenario, self._loop.time() + HEAD_START_S)
            self._journal.begin(self.began)
            faults = self._injector.run(self.began, self._end.check_hopeless)
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
        self.call_at(duration_s, 0, lambda _: self._end.arrivals_over(), None)
        if drain_s is not None:
            self.call_at(duration_s + drain_s, 0, lambda _: self._finish(), None)

    def account(self) -> Account:
        columns, kinds = self._arrivals.columns(), self._arrivals.kinds()
        return Account(self.began, self.ended, *columns, kinds, self._injector.injections, self._promised or {})

    # ---- for the arrivals

    @property
    def now(self) -> float:
        """Seconds of the run."""
        return self._loop.time() - self.began

    def call_at(self, at_s: float, key: int, function: Callable[[Any], None], argument: Any) -> None:
        """As `scenario.driving.CallAt`; once the run is over, nothing is called."""
        self._loop.call_at(self.began + at_s, self._call, function, argument)

    def _call(self, function: Callable[[Any], None], argument: Any) -> None:
        if not self.over:
            function(argument)

    def submit(self, at_s: float, service_s: float, priority: int) -> Submission:
        """Now; `at_s` is when it was to be."""
        self._late_s = max(self._late_s, self.now - at_s)
        work = self._scenario.workload.task
        of_kind = service_s.kind if isinstance(service_s, Demand) else None
        kind = work if of_kind is None else named_kind(work, of_kind)
        self._journal.submit(at_s, service_s, priority, of_kind)
        task = NewTask(self._payload(service_s), priority, kind)
        (submission,) = self._client.submit_batch([task])
        submission.outcome.add_done_callback(self._settled)
        if self._promised is not None:
            self._note_promises(submission, len(self._promised), self._promised)
        return submission

    def _note_promises(self, submission: Submission, row: int, promised: dict[int, Promised]) -> None:
        """When the coordinator said that it has the task, and how it ended."""
        promised[row] = Promised()

        def acknowledged(_: object) -> None:
            promised[row].acknowledged_at = self._loop.time()

        def told(_: object) -> None:
            promised[row].told_at = self._loop.time()

        submission.id.add_done_callback(acknowledged)
        submission.outcome.add_done_callback(told)

    @property
    def over(self) -> bool:
        return self._over.done()

    def _settled(self, outcome: asyncio.Future[Any]) -> None:
        if not self._fail_with(outcome):
            self._end.settled()

    # ---- the end

    async def _watch(self) -> None:
        """Report how far the run is, and see that no process ends that was not told to."""
        while not self._stopped:
            await asyncio.sleep(WATCH_S)
            if self._progress is not None:
                self._progress(max(0.0, self.now) / self._scenario.duration_s)
            ended = self._injector.look()
            if ended is not None:
                raise ClusterBroke(ended, self._cluster.coordinator.status)
            self._end.check_hopeless()
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
    """Open arrivals. One that is sent late delays no later one."""

    def __init__(self, drive: Drive, plan: OpenArrivals) -> None:
        self._drive = drive
        self._plan = plan
        self._sent = 0
        columns = (plan.arrival_s.tolist(), plan.demands(slice(None)), plan.priority.tolist())
        rows = ((at_s, 0, service_s, priority) for at_s, service_s, priority in zip(*columns, strict=True))
        self._stream = OpenStream(rows, drive.call_at, self._send)

    def begin(self) -> None:
        self._stream.begin()

    def columns(self) -> Columns:
        """Of the tasks that were sent, in their order."""
        plan, sent = self._plan, self._sent
        return plan.arrival_s[:sent], plan.service_s[:sent], plan.priority[:sent]

    def kinds(self) -> list[str] | None:
        """Of the same tasks; None without kinds."""
        return self._plan.kinds_of(slice(self._sent))

    def _send(self, row: tuple[float, int, float, int]) -> None:
        at_s, _, service_s, priority = row
        self._drive.submit(at_s, service_s, priority)
        self._sent += 1


class _Clients:
    """Closed arrivals. A client thinks from the moment at which it is told."""

    def __init__(self, drive: Drive, plan: ClosedArrivals, until_s: float, end: RunEnd) -> None:
        self._drive = drive
        self._clients = ClosedClients(plan, until_s, end, drive.call_at, self._send)
        self.begin = self._clients.begin
        self.columns = self._clients.columns
        self.kinds = self._clients.kinds

    def _send(self, number: int, at_s: float, service_s: float, priority: int) -> None:
        submission = self._drive.submit(at_s, service_s, priority)
        submission.outcome.add_done_callback(lambda _: self._told(number))

    def _told(self, number: int) -> None:
        if not self._drive.over:
            self._clients.told(number, self._drive.now)


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
