"""Driving a cluster by a plan, in real time: tasks and faults at their intended moments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import grpc.aio
import numpy as np

from orchestrator.cluster.client import AsyncClient, CoordinatorStopped, NewTask, Overloaded, Submission
from orchestrator.cluster.figures import Commits
from orchestrator.cluster.tasks import named_kind
from orchestrator.cluster.wire.rpc import pauses
from orchestrator.rehearsal.injector import Injector
from orchestrator.rehearsal.journal import Journal
from orchestrator.rehearsal.local_cluster import LocalCluster
from orchestrator.rehearsal.record import Account, GivenUp, Promised, key_of
from orchestrator.results.sweeps import Progress
from orchestrator.scenario.driving import ClosedClients, Columns, OpenStream, Patience, RunEnd
from orchestrator.scenario.plan import ClosedArrivals, Demand, OpenArrivals, Plan
from orchestrator.scenario.schema import Scenario

log = logging.getLogger("orchestrator.rehearsal")

Payload = Callable[[float], str]
HEAD_START_S = 0.1
COMMON_S = 5.0
WATCH_S = 0.2
LATE_S = 0.05
ASKING_S = 2.0
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
        self._limits = scenario.workload.limits()
        self._given_up: list[GivenUp] = []
        self._promised: dict[int, Promised] | None = None if scenario.coordinator.commit is None else {}
        self._commits: Commits | None = None
        self.began = self.ended = 0.0
        arrivals = plan.arrivals
        due = 0 if isinstance(arrivals, ClosedArrivals) else len(arrivals)
        self._end = RunEnd(due, self._finish, lambda: injector.hopeless)
        resubmit = scenario.workload.resubmit
        self._keys = resubmit is not None and resubmit.keys
        self._patience = None if resubmit is None else Patience(resubmit, self.call_at, self._submit_again)
        self._sent: list[NewTask] = []  # by row
        self._arrivals: _Submissions | _Clients = (
            _Clients(self, arrivals, scenario.duration_s, self._end)
            if isinstance(arrivals, ClosedArrivals)
            else _Submissions(self, arrivals, self._end)
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
        give_up_after_s = self._scenario.workload.give_up_after_s
        async with AsyncClient(self._cluster.address, give_up_after_s=give_up_after_s) as self._client:
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
                self._commits = await self._told_of_commits()
                for task in background:
                    task.cancel()
                self._injector.release()
        if self._late_s > LATE_S:
            log.warning("the driver fell behind: a task was sent up to %.3f s after its arrival", self._late_s)

    async def _told_of_commits(self) -> Commits | None:
        """By the coordinator, if it is there and has a store."""
        if self._promised is not None and self._cluster.coordinator.status is None:
            with contextlib.suppress(grpc.aio.AioRpcError, TimeoutError):
                return (await asyncio.wait_for(self._client.metrics(), ASKING_S)).commits
        return None

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
        faults, promised = self._injector.injections, self._promised or {}
        return Account(self.began, self.ended, *columns, kinds, faults, self._given_up, promised, self._commits)

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

    def submit(self, at_s: float, service_s: float, priority: int, again: bool = False) -> None:
        """The next row, now; `at_s` is when it was to be. `again`: it is the work of another one."""
        self._late_s = max(self._late_s, self.now - at_s)
        row = len(self._sent)
        work = self._scenario.workload.task
        of_kind = service_s.kind if isinstance(service_s, Demand) else None
        kind = work if of_kind is None else named_kind(work, of_kind)
        self._journal.submit(at_s, service_s, priority, of_kind)
        limits = self._limits.get(of_kind or "") or ()
        task = NewTask(self._payload(service_s), priority, kind, key_of(row) if self._keys else "", *limits)
        self._sent.append(task)
        (submission,) = self._client.submit_batch([task])
        submission.outcome.add_done_callback(partial(self._settled, row))
        if self._promised is not None:
            self._note_promises(submission, row, self._promised)
        if self._patience is not None and not again:
            self._patience.submitted(row, at_s)

    def _submit_again(self, row: int, at_s: float) -> int:
        """With a key it is the same task, and its first submission tells how it ends."""
        if self._keys:
            (submission,) = self._client.submit_batch([self._sent[row]])
            submission.outcome.add_done_callback(self._fail_unless_refused)
            return row
        self._arrivals.repeat(row, at_s)
        return len(self._sent) - 1

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

    def _settled(self, row: int, outcome: asyncio.Future[Any]) -> None:
        if _is_refused(outcome):
            given_up = GivenUp(row, self._loop.time())
            self._given_up.append(given_up)
            self._journal.give_up(given_up)
        elif self._fail_with(outcome):
            return
        self._end.settled()
        if self._patience is None or self._patience.settled(row):
            self._arrivals.told(row)

    def _fail_unless_refused(self, outcome: asyncio.Future[Any]) -> None:
        if not _is_refused(outcome):
            self._fail_with(outcome)

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


def _is_refused(outcome: asyncio.Future[Any]) -> bool:
    return not outcome.cancelled() and isinstance(outcome.exception(), Overloaded)


class _Submissions:
    """Open arrivals. One that is sent late delays no later one. Work that is submitted again as another task stands
    among the others, in the order in which they are sent."""

    def __init__(self, drive: Drive, plan: OpenArrivals, end: RunEnd) -> None:
        self._drive = drive
        self._plan = plan
        self._end = end
        self._sent = 0  # of the plan
        self._rows: list[tuple[int, float]] = []  # which of the plan, and when
        columns = (plan.arrival_s.tolist(), plan.demands(slice(None)), plan.priority.tolist())
        rows = ((at_s, 0, service_s, priority) for at_s, service_s, priority in zip(*columns, strict=True))
        self._stream = OpenStream(rows, drive.call_at, self._send)

    def begin(self) -> None:
        self._stream.begin()

    def columns(self) -> Columns:
        """Of the tasks that were sent, in their order."""
        plan, planned = self._plan, [planned for planned, _ in self._rows]
        return np.array([at_s for _, at_s in self._rows]), plan.service_s[planned], plan.priority[planned]

    def kinds(self) -> list[str] | None:
        """Of the same tasks; None without kinds."""
        return self._plan.kinds_of(np.array([planned for planned, _ in self._rows], dtype=np.int64))

    def told(self, row: int) -> None:
        """Nobody waits for it."""

    def repeat(self, row: int, at_s: float) -> None:
        """The work of that row once more."""
        planned, _ = self._rows[row]
        plan = self._plan
        self._end.submitted()
        self._rows.append((planned, at_s))
        self._drive.submit(at_s, plan.demands(slice(planned, planned + 1))[0], int(plan.priority[planned]), again=True)

    def _send(self, row: tuple[float, int, float, int]) -> None:
        at_s, _, service_s, priority = row
        self._rows.append((self._sent, at_s))
        self._sent += 1
        self._drive.submit(at_s, service_s, priority)


class _Clients:
    """Closed arrivals. A client thinks from the moment at which it is told."""

    def __init__(self, drive: Drive, plan: ClosedArrivals, until_s: float, end: RunEnd) -> None:
        self._drive = drive
        self._clients = ClosedClients(plan, until_s, end, drive.call_at, self._send)
        self.begin = self._clients.begin
        self.columns = self._clients.columns
        self.kinds = self._clients.kinds

    def _send(self, number: int, at_s: float, service_s: float, priority: int) -> None:
        self._drive.submit(at_s, service_s, priority)

    def told(self, row: int) -> None:
        """The client of that task hears how it ended."""
        if not self._drive.over:
            self._clients.told(row, self._drive.now)

    def repeat(self, row: int, at_s: float) -> None:
        """The work of that row once more."""
        number = self._clients.repeat(row, at_s)
        _, service_s, priority = self._clients.row(number)
        self._drive.submit(at_s, service_s, priority, again=True)


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
