"""The coordinator's services: the wire contract by calls, our own protocol by streams."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.metrics import WINDOW_S, line
from orchestrator.cluster.peers import ClientPeer, Refused, StreamedWorker
from orchestrator.cluster.wire import contract, rpc, translate
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import FromClient, FromWorker

log = logging.getLogger("orchestrator.coordinator")

Context = grpc.aio.ServicerContext[Any, Any]
Code = grpc.StatusCode
CAPACITY_MAX = 1_000_000
SLICE = 256  # tasks of a client's message between two turns of the loop


class WireService:
    """The wire contract: CoordinatorService and WorkerRegistryService."""

    def __init__(self, live: LiveCoordinator) -> None:
        self._live = live

    async def SubmitTask(self, request: Any, context: Context) -> Any:
        task_id = secrets.token_hex(8)
        try:
            await self._live.accept(task_id, *contract.job_of(request))
        except Refused as refused:
            await _abort(context, refused)
        return contract.submit_answer(task_id)

    async def GetTaskStatus(self, request: Any, context: Context) -> Any:
        try:
            self._live.require_running()
            task = self._live.core.task(request.task_id)
            if task is None:
                raise Refused(Code.NOT_FOUND, f"no task {request.task_id[:80]!r}")
        except Refused as refused:
            await context.abort(refused.code, str(refused))
        return contract.status_message(task)

    async def GetMetrics(self, request: Any, context: Context) -> Any:
        live = self._live
        try:
            live.require_running()
        except Refused as refused:
            await context.abort(refused.code, str(refused))
        return contract.metrics_message(live.window.summary(live.core, live.now()))

    async def RegisterWorker(self, request: Any, context: Context) -> Any:
        worker_id, address, capacity = contract.registration_of(request)
        try:
            _require_worker(worker_id, capacity)
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise Refused(Code.INVALID_ARGUMENT, f"not an address host:port: {address[:80]!r}")
            await self._live.register_called(worker_id, address, capacity)
        except Refused as refused:
            await _abort(context, refused)
        return contract.registration_answer(self._live.core.heartbeat_s)

    async def Heartbeat(self, request: Any, context: Context) -> Any:
        try:
            known = await self._live.answer_heartbeat(*contract.heartbeat_of(request))
        except Refused as refused:
            await _abort(context, refused)
        return contract.heartbeat_answer(known)

    async def ReportResult(self, request: Any, context: Context) -> Any:
        try:
            worker_id, reported = contract.report_of(request)
            known = await self._live.answer_report(worker_id, reported)
        except ValueError as error:
            await _abort(context, Refused(Code.INVALID_ARGUMENT, str(error)))
        except Refused as refused:
            await _abort(context, refused)
        if not known:
            log.warning("worker %s reported on an unknown task %.80r", worker_id, reported.task_id)
        return contract.report_answer(known)


class StreamService:
    """Our own protocol: WorkerStream and ClientStream."""

    def __init__(self, live: LiveCoordinator) -> None:
        self._live = live

    async def Work(self, requests: AsyncIterator[FromWorker], context: Context) -> None:
        live = self._live
        first = await anext(requests, None)
        try:
            live.require_running()
            introduction = None if first is None else translate.introduction(first)
            if first is None or introduction is None:
                raise Refused(Code.INVALID_ARGUMENT, "the first message has no registration")
            _require_worker(introduction.name, introduction.capacity)
            await live.admit(introduction)
            live.require_running()
        except Refused as refused:
            await _abort(context, refused)
        name = introduction.name
        peer = live.register_streamed(introduction)
        self._take(name, peer, first)
        left = False
        try:
            left = await first_of(self._read_worker(name, peer, requests), peer.write_to(context.write), peer.ended())
        finally:
            peer.close()
            live.detach(name, peer, left is True)
        if peer.reason is not None:
            await _abort(context, peer.reason)

    async def _read_worker(self, name: str, peer: StreamedWorker, requests: AsyncIterator[FromWorker]) -> bool:
        """Whether it took its leave."""
        async for message in requests:
            if translate.introduction(message) is not None:
                peer.register_again()
            self._take(name, peer, message)
            if message.leaving:
                return True
        return False

    def _take(self, name: str, peer: StreamedWorker, message: FromWorker) -> None:
        live = self._live
        core, now = live.core, live.now()
        for inputs, keys in (
            (core.started, translate.started(message)),
            (core.rejected, translate.rejected(message)),
            (core.cancelled, translate.cancelled(message)),
        ):
            for key in keys:
                peer.confirmed(key)
                inputs(name, *key, now)
        for reported in translate.reports(message):
            peer.confirmed((reported.task_id, reported.attempt or 0))
            live.report(name, reported, peer)
        active = translate.beat(message)
        if active is not None:
            peer.beats()
            core.heartbeat(name, max(0, active), None, live.now())
        if message.draining:
            core.drain(name, live.now())  # after the reports, in the record too
        for key in translate.confirmed(message):
            peer.confirmed(key)

    async def Submit(self, requests: AsyncIterator[FromClient], context: Context) -> None:
        live = self._live
        first = await anext(requests, None)
        session = "" if first is None else translate.session(first)
        try:
            live.require_running()
            if first is None or not 0 < len(session) <= 100:
                raise Refused(Code.INVALID_ARGUMENT, "the first message names no session")
        except Refused as refused:
            await _abort(context, refused)
        former = live.clients.get(session)
        if former is not None:
            former.end(Refused(Code.ABORTED, f"session {session} goes on by another stream"))
        client = live.clients[session] = ClientPeer()
        try:
            await first_of(
                self._read_client(session, client, first, requests),
                client.write_to(context.write, live.made_room),
                client.ended(),
            )
        finally:
            if live.clients.get(session) is client:
                del live.clients[session]
                if client.unsettled > 0:
                    log.info("session %s: its client has gone, with %d tasks in hand", session, client.unsettled)
        if client.reason is not None:
            await _abort(context, client.reason)

    async def CancelTask(self, request: Any, context: Context) -> Any:
        try:
            task = await self._live.cancel_task(request.task_id)
        except Refused as refused:
            await context.abort(refused.code, str(refused))
        return contract.status_message(task)

    async def _read_client(
        self, session: str, client: ClientPeer, first: FromClient, requests: AsyncIterator[FromClient]
    ) -> None:
        message: FromClient | None = first
        while message is not None:
            tasks = translate.submitted(session, message)
            for count, (job, priority) in enumerate(tasks):
                if not count % SLICE or self._live.full:
                    await self._live.room_for(client)
                try:
                    self._live.submit(f"{session}-{job.number}", job, priority)
                except Refused as refused:
                    log.warning("refused a task of session %s: %s", session, refused)
                    client.refuse(job.number, str(refused))
            message = await anext(requests, None)
        await asyncio.Event().wait()  # it submits nothing more, and listens on


def _require_worker(worker_id: str, capacity: int) -> None:
    if not worker_id or len(worker_id) > 200:
        raise Refused(Code.INVALID_ARGUMENT, "a worker's id has 1 to 200 characters")
    if not 0 < capacity <= CAPACITY_MAX:
        raise Refused(Code.INVALID_ARGUMENT, f"a worker's capacity is 1 to {CAPACITY_MAX}, not {capacity}")


async def _abort(context: Context, refused: Refused) -> NoReturn:
    if refused.code not in (Code.UNAVAILABLE, Code.INTERNAL):
        log.warning("refused a request of %s: %s", context.peer(), refused)
    try:
        await context.abort(refused.code, str(refused))
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None  # the peer has gone in this moment
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
    """A line every five seconds in which something has happened to a task, for ever."""
    core = live.core
    before = (0, 0)
    while True:
        await asyncio.sleep(WINDOW_S)
        happened = (core.submitted, core.completed + core.failed)
        if happened != before:
            before = happened
            log.info("%s", line(live.window.summary(core, live.now())))
