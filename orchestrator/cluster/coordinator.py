"""The coordinator's process: the core behind the services of both protocols.

Everything here runs on one event loop, and nothing awaits between an input to the core and its effects.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio

from orchestrator.cluster.decision_record import Journal, intercepted
from orchestrator.cluster.metrics import WINDOW_S, Window, line
from orchestrator.cluster.peers import CalledWorker, ClientPeer, StreamedWorker, WorkerPeer
from orchestrator.cluster.wire import rpc, translate
from orchestrator.cluster.wire.proto import stream_pb2, wire_pb2
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import Job, Report
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt, Task, TaskId, Worker, WorkerId
from orchestrator.core.ports import Effects

log = logging.getLogger("orchestrator.coordinator")

Context = grpc.aio.ServicerContext[Any, Any]
Code = grpc.StatusCode
CAPACITY_MAX = 1_000_000
KIND_CHARACTERS = 200
SLICE = 256  # tasks of a client's message between two turns of the loop


@dataclass(frozen=True)
class Limits:
    """Beyond them a unary submit is RESOURCE_EXHAUSTED, and a client's stream is not read on."""

    unsettled: int = 200_000
    unsettled_characters: int = 256 << 20
    payload_characters: int = 1 << 20


class Observer(Protocol):
    """Hears some of the core's effects as they happen, such as the recorder."""

    def ended(self, attempt: Attempt, now: float) -> None: ...
    def settled(self, task: Task, now: float) -> None: ...
    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None: ...


class Refused(Exception):
    """A request that is answered with a status."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class LiveCoordinator:
    """Implements the core's `Effects`: what is for a peer goes to that peer's outbox.

    `rpc_timeout_s`: an assignment of which nothing is heard for so long is a failed call.
    `check`: prove the core's invariants after inputs, as often as a tenth of the time allows; `failed` is set with
    the first that does not hold.
    """

    def __init__(
        self,
        build: Callable[[Effects], Coordinator],
        *,
        rpc_timeout_s: float = 2.0,
        limits: Limits | None = None,
        journal: Journal | None = None,
        check: bool = False,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.rpc_timeout_s = rpc_timeout_s
        self.limits = limits or Limits()
        self.core = journal.open(build, self) if journal else build(self)
        if check:
            self.core = intercepted(self.core, self._checked)
        self.window = Window(self.now())
        self.workers: dict[WorkerId, WorkerPeer] = {}
        self.clients: dict[str, ClientPeer] = {}
        self.failed: asyncio.Future[NoReturn] = self._loop.create_future()
        self._observers = observers
        self._alarm: asyncio.TimerHandle | None = None
        self._characters = 0  # of payloads not settled
        self._room = asyncio.Event()
        self._known = False
        self._reporter: tuple[StreamedWorker, int] | None = None
        self._closing = False
        self._next_check = 0.0

    # ---- effects of the core

    def accepted(self, task: Task, now: float) -> None:
        job = _job(task)
        client = self.clients.get(job.session)
        if client is not None:
            client.accept(job.number)
            if task.settled:
                client.settle(task)

    def assign(self, attempt: Attempt, now: float) -> None:
        peer = self.workers.get(attempt.worker.id)
        if peer is None:
            self._loop.call_soon(self._cannot_reach, attempt)
        else:
            peer.assign(attempt)

    def _cannot_reach(self, attempt: Attempt) -> None:
        self.core.call_failed(attempt.worker.id, attempt.task.id, attempt.number, self.now())

    def cancel(self, attempt: Attempt, now: float) -> None:
        peer = self.workers.get(attempt.worker.id)
        if peer is not None:
            peer.cancel(attempt)

    def ended(self, attempt: Attempt, now: float) -> None:
        if attempt.settles and attempt.ran_s is not None:
            self.window.add(attempt.ran_s, now)
        for observer in self._observers:
            observer.ended(attempt, now)

    def settled(self, task: Task, now: float) -> None:
        job = _job(task)
        self._characters -= len(job.payload)
        job.payload = ""  # nobody needs it any more, and settled tasks are many
        client = self.clients.get(job.session)
        if client is not None:
            client.settle(task)
        self._room.set()
        for observer in self._observers:
            observer.settled(task, now)

    def acknowledged(self, worker_id: WorkerId, task_id: TaskId, number: int | None, known: bool) -> None:
        self._known = known
        if self._reporter is not None:
            reporter, report = self._reporter
            reporter.acknowledge(report)

    def heartbeat_answered(self, worker_id: WorkerId, known: bool) -> None:
        self._known = known
        peer = self.workers.get(worker_id)
        if peer is not None:
            peer.answer_beat()

    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None:
        level = logging.WARNING if kind == "dead" else logging.INFO
        log.log(level, "worker %s: %s", worker.id, f"{kind} {detail}".rstrip())
        peer = self.workers.get(worker.id)
        if kind == "drain" and peer is not None:
            peer.hurry()
        for observer in self._observers:
            observer.worker_changed(worker, kind, detail, now)

    def wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self.core.wake(self.now())

    # ---- what the services do

    def submit(self, task_id: str, job: Job, priority: int) -> None:
        """Raises Refused for a task that makes no sense."""
        payload = job.payload
        if not payload:
            raise Refused(Code.INVALID_ARGUMENT, "the payload is empty")
        if len(payload) > self.limits.payload_characters:
            wanted = f"{len(payload)} characters, the limit is {self.limits.payload_characters}"
            raise Refused(Code.INVALID_ARGUMENT, f"the payload is too large: {wanted}")
        if len(job.kind) > KIND_CHARACTERS:
            raise Refused(Code.INVALID_ARGUMENT, f"unknown kind: {job.kind[:KIND_CHARACTERS]}...")
        if not translate.is_priority(priority):
            raise Refused(Code.INVALID_ARGUMENT, f"unknown priority: {priority}")
        if self.core.task(task_id) is None:
            self._characters += len(payload)
        self.core.submit(task_id, priority, job, self.now())

    @property
    def full(self) -> bool:
        core, limits = self.core, self.limits
        unsettled = core.submitted - core.completed - core.failed
        return unsettled >= limits.unsettled or self._characters >= limits.unsettled_characters

    async def room_for(self, client: ClientPeer) -> None:
        """Wait until the coordinator, and what waits for this client, are below their limits."""
        while self.full or client.waiting >= self.limits.unsettled:
            self._room.clear()
            await self._room.wait()

    def made_room(self) -> None:
        self._room.set()

    def report(self, worker_id: str, report: Report, reporter: StreamedWorker | None = None) -> bool:
        """Whether the task is known. The acknowledgement goes to the stream by which the report came, if any."""
        task_id, attempt, ended, queued_s, number = report
        self._reporter = None if reporter is None else (reporter, number)
        now = self.now()
        if len(ended.result) > self.limits.payload_characters:
            ended = ended._replace(succeeded=False, result="", error="the result is too large")
        started_at = self._started_at(task_id, attempt, queued_s, ended.ran_s, now)
        self.core.result(
            worker_id,
            task_id,
            attempt,
            ended.succeeded,
            ended.result,
            ended.error[: self.limits.payload_characters],
            ended.retryable,
            started_at,
            ended.ran_s,
            now,
        )
        return self._known

    def heartbeat(self, worker_id: str, active: int) -> bool:
        """Whether the worker is known."""
        self.core.heartbeat(worker_id, max(0, active), self.now())
        return self._known

    def attach(self, worker_id: str, peer: WorkerPeer) -> None:
        former = self.workers.get(worker_id)
        if former is not None:
            former.end()
        self.workers[worker_id] = peer

    def detach(self, worker_id: str, peer: WorkerPeer, left: bool) -> None:
        """The peer's stream has ended."""
        if self.workers.get(worker_id) is not peer:
            return
        if left:
            self.core.deregister(worker_id, self.now())
        else:
            log.warning("worker %s: its stream broke", worker_id)
            self.core.connection_lost(worker_id, self.now())
        del self.workers[worker_id]

    def close(self) -> None:
        """What ends from now on is this process, not its peers."""
        self._closing = True
        for worker in self.workers.values():
            worker.end()
        for client in self.clients.values():
            client.ended.set()
        self.workers.clear()
        self.clients.clear()
        if self._alarm is not None:
            self._alarm.cancel()

    def parting(self, reason: str) -> Refused:
        """The status of a stream that the coordinator ends; `reason`: if it is not closing."""
        if self._closing:
            return Refused(Code.UNAVAILABLE, "the coordinator is shutting down")
        return Refused(Code.ABORTED, reason)

    def _started_at(
        self, task_id: str, number: int | None, queued_s: float, ran_s: float, now: float
    ) -> float | None:
        task = self.core.task(task_id)
        for attempt in task.live if task else ():
            if attempt.number == number or number is None:
                return started_at(attempt.assigned_at, queued_s, ran_s, now)
        return None

    def _checked(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        call(*arguments)
        begin = self.now()
        if begin < self._next_check or self.failed.done():
            return
        try:
            self.core.check()
        except AssertionError as error:
            log.critical("after %s%r: %s", name, arguments, error)
            self.failed.set_exception(error)
        end = self.now()
        self._next_check = end + 10 * (end - begin)


def started_at(assigned_at: float, queued_s: float, ran_s: float, now: float) -> float:
    """When an execution reported `now` began, from durations alone: both legs are taken to last equally long."""
    legs_s = max(0.0, now - assigned_at - queued_s - ran_s)
    return min(now, assigned_at + legs_s / 2 + queued_s)


def _job(task: Task) -> Job:
    assert isinstance(task.payload, Job)
    return task.payload


class WireService:
    """The wire contract: CoordinatorService and WorkerRegistryService."""

    def __init__(self, live: LiveCoordinator) -> None:
        self._live = live

    async def SubmitTask(self, request: wire_pb2.SubmitTaskRequest, context: Context) -> wire_pb2.SubmitTaskResponse:
        task_id = secrets.token_hex(8)
        try:
            if self._live.full:
                raise Refused(Code.RESOURCE_EXHAUSTED, "too many tasks are waiting")
            self._live.submit(task_id, Job(request.kind, request.payload), request.priority)
        except Refused as refused:
            await _abort(context, refused)
        return wire_pb2.SubmitTaskResponse(task_id=task_id)

    async def GetTaskStatus(
        self, request: wire_pb2.GetTaskStatusRequest, context: Context
    ) -> wire_pb2.GetTaskStatusResponse:
        task = self._live.core.task(request.task_id)
        if task is None:
            await context.abort(Code.NOT_FOUND, f"no task {request.task_id[:80]!r}")
        return translate.status_message(task)

    async def GetMetrics(self, request: wire_pb2.GetMetricsRequest, context: Context) -> wire_pb2.GetMetricsResponse:
        return translate.metrics_message(self._live.window.summary(self._live.core, self._live.now()))

    async def RegisterWorker(
        self, request: wire_pb2.RegisterWorkerRequest, context: Context
    ) -> wire_pb2.RegisterWorkerResponse:
        live = self._live
        try:
            _require_worker(request.worker_id, request.capacity)
            host, _, port = request.address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise Refused(Code.INVALID_ARGUMENT, f"not an address host:port: {request.address[:80]!r}")
        except Refused as refused:
            await _abort(context, refused)
        live.attach(
            request.worker_id, CalledWorker(request.worker_id, request.address, live.core, live.rpc_timeout_s)
        )
        live.core.register(request.worker_id, request.capacity, 0, False, live.now())
        return wire_pb2.RegisterWorkerResponse(success=True)

    async def Heartbeat(self, request: wire_pb2.HeartbeatRequest, context: Context) -> wire_pb2.HeartbeatResponse:
        known = self._live.heartbeat(request.worker_id, request.active_tasks)
        return wire_pb2.HeartbeatResponse(acknowledged=known)

    async def ReportResult(
        self, request: wire_pb2.ReportResultRequest, context: Context
    ) -> wire_pb2.ReportResultResponse:
        try:
            report = translate.report_of(request.result)
        except ValueError as error:
            await _abort(context, Refused(Code.INVALID_ARGUMENT, str(error)))
        known = self._live.report(request.worker_id, report)
        if not known:
            log.warning("worker %s reported on an unknown task %.80r", request.worker_id, request.result.task_id)
        return wire_pb2.ReportResultResponse(acknowledged=known)


class StreamService:
    """Our own protocol: WorkerStream and ClientStream."""

    def __init__(self, live: LiveCoordinator) -> None:
        self._live = live

    async def Work(self, requests: AsyncIterator[stream_pb2.FromWorker], context: Context) -> None:
        live = self._live
        first = await anext(requests, None)
        try:
            if first is None or not first.HasField("registration"):
                raise Refused(Code.INVALID_ARGUMENT, "the first message has no registration")
            registration = first.registration
            _require_worker(registration.worker_id, registration.capacity)
        except Refused as refused:
            await _abort(context, refused)
        worker_id = registration.worker_id
        prefetch = float("inf") if registration.prefetch < 0 else registration.prefetch
        peer = StreamedWorker(worker_id, live.core, live.rpc_timeout_s)
        live.attach(worker_id, peer)
        self._take(worker_id, peer, first)
        live.core.register(worker_id, registration.capacity, prefetch, True, live.now())
        if first.draining:
            live.core.drain(worker_id, live.now())
        left = False
        try:
            left = await first_of(
                self._read_worker(worker_id, peer, requests), peer.write_to(context.write), peer.ended.wait()
            )
        finally:
            peer.close()
            live.detach(worker_id, peer, left)
        if peer.ended.is_set():
            await _abort(context, live.parting(f"another process registered as worker {worker_id}"))

    async def _read_worker(
        self, worker_id: str, peer: StreamedWorker, requests: AsyncIterator[stream_pb2.FromWorker]
    ) -> bool:
        """Whether it took its leave."""
        async for message in requests:
            if message.HasField("registration"):
                peer.answer_registration()
            self._take(worker_id, peer, message)
            if message.leaving:
                return True
        return False

    def _take(self, worker_id: str, peer: StreamedWorker, message: stream_pb2.FromWorker) -> None:
        live = self._live
        core, now = live.core, live.now()
        for inputs, items in (
            (core.started, message.started),
            (core.rejected, message.rejected),
            (core.cancelled, message.cancelled),
        ):
            for key in translate.keys(items):
                peer.confirmed(key)
                inputs(worker_id, *key, now)
        for report in translate.reports(message):
            peer.confirmed((report.task_id, report.attempt or 0))
            live.report(worker_id, report, peer)
        if message.HasField("beat"):
            live.heartbeat(worker_id, message.beat.active)
        if message.draining:
            core.drain(worker_id, live.now())  # after the reports, in the record too
        for key in translate.keys(message.confirmed):
            peer.confirmed(key)

    async def Submit(self, requests: AsyncIterator[stream_pb2.FromClient], context: Context) -> None:
        live = self._live
        first = await anext(requests, None)
        if first is None or not first.session or len(first.session) > 100:
            await _abort(context, Refused(Code.INVALID_ARGUMENT, "the first message names no session"))
        session = first.session
        former = live.clients.get(session)
        if former is not None:
            former.ended.set()
        client = live.clients[session] = ClientPeer()
        try:
            await first_of(
                self._read_client(session, client, first, requests),
                client.write_to(context.write, live.made_room),
                client.ended.wait(),
            )
        finally:
            if live.clients.get(session) is client:
                del live.clients[session]
                log.info("session %s: its client has gone", session)
        await _abort(context, live.parting(f"session {session} goes on by another stream"))

    async def _read_client(
        self,
        session: str,
        client: ClientPeer,
        first: stream_pb2.FromClient,
        requests: AsyncIterator[stream_pb2.FromClient],
    ) -> None:
        message: stream_pb2.FromClient | None = first
        while message is not None:
            tasks = message.tasks
            for begin in range(0, len(tasks), SLICE):
                await self._live.room_for(client)
                for task in tasks[begin : begin + SLICE]:
                    self._submit(session, client, task)
            message = await anext(requests, None)
        await asyncio.Event().wait()  # it submits nothing more, and listens on

    def _submit(self, session: str, client: ClientPeer, task: stream_pb2.NewTask) -> None:
        try:
            task_id = f"{session}-{task.number}"
            self._live.submit(task_id, Job(task.kind, task.payload, session, task.number), task.priority)
        except Refused as refused:
            log.warning("refused a task of session %s: %s", session, refused)
            client.refuse(task.number, str(refused))


def _require_worker(worker_id: str, capacity: int) -> None:
    if not worker_id or len(worker_id) > 200:
        raise Refused(Code.INVALID_ARGUMENT, "a worker's id has 1 to 200 characters")
    if not 0 < capacity <= CAPACITY_MAX:
        raise Refused(Code.INVALID_ARGUMENT, f"a worker's capacity is 1 to {CAPACITY_MAX}, not {capacity}")


async def _abort(context: Context, refused: Refused) -> NoReturn:
    if refused.code is not Code.UNAVAILABLE:
        log.warning("refused a request of %s: %s", context.peer(), refused)
    await context.abort(refused.code, str(refused))
    raise AssertionError("abort raises")


async def start(live: LiveCoordinator, host: str, port: int) -> tuple[grpc.aio.Server, int]:
    """The server and its port (0 asks for a free one); OSError where it cannot listen."""
    server = rpc.server()
    wire, stream = WireService(live), StreamService(live)
    for service, implementation in (
        (rpc.COORDINATOR, wire),
        (rpc.REGISTRY, wire),
        (rpc.WORKER_STREAM, stream),
        (rpc.CLIENT_STREAM, stream),
    ):
        rpc.add_service(server, service, implementation)
    try:
        bound = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"cannot listen on {host}:{port}")
    await server.start()
    return server, bound


async def log_metrics(live: LiveCoordinator) -> None:
    """A line every five seconds, for ever."""
    while True:
        await asyncio.sleep(WINDOW_S)
        log.info("%s", line(live.window.summary(live.core, live.now())))
