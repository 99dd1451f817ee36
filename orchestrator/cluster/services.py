"""The coordinator's services: the wire contract by calls, our own protocol by streams."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

import grpc.aio

from orchestrator.cluster.answers import LARGE_CHARACTERS, Unread
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.health import add_health
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.metrics import WINDOW_S, line
from orchestrator.cluster.newcomers import Newcomers, heard
from orchestrator.cluster.peers import SLICE, UNANSWERED_MAX, ClientPeer, Refused, StreamedWorker
from orchestrator.cluster.service import Code, Context, Service, host_of
from orchestrator.cluster.turns import Turns
from orchestrator.cluster.view_service import ViewService
from orchestrator.cluster.wire import contract, progress, rpc, translate
from orchestrator.cluster.wire.frames import ID_CHARACTERS, Malformed, sound
from orchestrator.cluster.wire.progress import Progress
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import FromClient, FromWorker, Key

log = logging.getLogger("orchestrator.coordinator")

CAPACITY_MAX = 10_000
SESSION_CHARACTERS = 100
ADDRESS_CHARACTERS = 300
BREATH_S = 0.02
"""So long nothing is read of a worker after large results, while clients have much to read: they get a turn."""
FIRST_WORD_S = 30.0
"""How long a stream may say nothing at first, and a connection ask for nothing."""


class WireService(Service):
    """The wire contract: CoordinatorService and WorkerRegistryService."""

    async def SubmitTask(self, request: Any, context: Context) -> Any:
        try:
            task_id = await self._live.accept(*contract.job_of(sound(request)))
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        return contract.submit_answer(task_id)

    async def GetTaskStatus(self, request: Any, context: Context) -> Any:
        try:
            self._live.require_running()
            answer = self._status(self._live.find(sound(request).task_id), context)
            await self._live.may_be_told(context.peer())
            return answer
        except Malformed as refused:
            await self._abort(context, refused)
        except Refused as refused:
            await context.abort(refused.code, str(refused))

    async def GetMetrics(self, request: Any, context: Context) -> Any:
        live = self._live
        try:
            sound(request)
            live.require_running()
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        return contract.metrics_message(live.window.summary(live.core, live.now()))

    async def RegisterWorker(self, request: Any, context: Context) -> Any:
        try:
            worker_id, address, capacity = contract.registration_of(sound(request))
            _require_worker(worker_id, capacity)
            host, _, port = address[:ADDRESS_CHARACTERS].rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < 65536:
                raise Refused(Code.INVALID_ARGUMENT, f"not an address host:port: {address[:80]!r}")
            await self._live.register_called(worker_id, address, capacity)
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        return contract.registration_answer(self._live.core.heartbeat_s)

    async def Heartbeat(self, request: Any, context: Context) -> Any:
        try:
            known = await self._live.answer_heartbeat(*contract.heartbeat_of(sound(request)))
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        return contract.heartbeat_answer(known)

    async def ReportResult(self, request: Any, context: Context) -> Any:
        try:
            worker_id, reported = contract.report_of(sound(request))
            known = await self._live.answer_report(worker_id, reported)
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        if not known:
            line = "worker %r reported on a task that it never had: %.80r"
            self._live.lines.warning(host_of(context), line, worker_id, reported.task_id, worker=worker_id)
        return contract.report_answer(known)


class StreamService(Service):
    """Our own protocol: WorkerStream and ClientStream. `first_word_s`: a stream that says nothing for so long, when it
    begins, is closed."""

    def __init__(self, live: LiveCoordinator, unread: Unread, first_word_s: float = FIRST_WORD_S) -> None:
        super().__init__(live, unread)
        self._first_word_s = first_word_s
        self._newcomers = Newcomers(live.limits.newcomers, "too many streams begin at a time")

    async def _first(self, requests: AsyncIterator[Any]) -> Any:
        """The first message, None where there is none."""
        first = await anext(heard(requests, self._first_word_s), None)
        self._live.require_running()
        return first

    # ---- workers

    async def Work(self, requests: AsyncIterator[FromWorker], context: Context) -> None:
        live = self._live
        try:
            async with self._newcomers.place():
                first = await self._first(requests)
                introduction = None if first is None else translate.introduction(first)
                if first is None or introduction is None:
                    raise Refused(Code.INVALID_ARGUMENT, "the first message has no registration")
                _require_worker(introduction.name, introduction.capacity)
                await context.send_initial_metadata(())  # with a first message that is not read, no status could follow
                await live.admit(introduction)
            live.require_running()
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        name = introduction.name
        peer = live.register_streamed(introduction, first.draining)
        left = False
        try:
            reading = self._read_worker(name, peer, first, requests)
            left = await first_of(reading, peer.write_to(context.write), peer.ended())
        finally:
            peer.close()
            live.detach(name, peer, left is True)
        if peer.reason is not None:
            await self._abort(context, peer.reason)

    async def _read_worker(
        self, name: str, peer: StreamedWorker, first: FromWorker, requests: AsyncIterator[FromWorker]
    ) -> bool:
        """Whether it took its leave."""
        try:
            message: FromWorker | None = first
            while message is not None:
                if message is not first and translate.registers(sound(message)):
                    peer.register_again()
                await self._take(name, peer, message)
                if message.leaving:
                    return True
                if peer.overlooks:
                    await peer.reads()
                if self._unread.scarce and message.ByteSize() >= LARGE_CHARACTERS:
                    await asyncio.sleep(BREATH_S)
                message = await anext(requests, None)
        except Malformed as malformed:
            peer.end(Refused(Code.INVALID_ARGUMENT, str(malformed)))
            await peer.ended()
        return False

    async def _take(self, name: str, peer: StreamedWorker, message: FromWorker) -> None:
        if not self._live.speaks(name, peer):
            return
        taken = 0
        for _ in self._items(name, peer, message):
            taken += 1
            if taken == SLICE:
                taken = 0
                await asyncio.sleep(0)
                if not self._live.speaks(name, peer):
                    return

    def _items(self, name: str, peer: StreamedWorker, message: FromWorker) -> Iterator[None]:
        """Take one after the other."""
        live = self._live
        core = live.core
        for inputs, keys in (
            (core.started, translate.started(message)),
            (core.rejected, translate.rejected(message)),
            (core.cancelled, translate.cancelled(message)),
        ):
            for key in keys:
                peer.confirmed(key)
                inputs(name, *key, live.now())
                yield
        for key, told in progress.of_worker(message):
            self._pass_on(name, key, told)
            yield
        for reported in translate.reports(message):
            peer.confirmed((reported.task_id, reported.attempt or 0))
            live.report(name, reported, peer)
            yield
        active = translate.beat(message)
        if active is not None:
            peer.beats()
            live.lately.heard[name] = now = live.now()
            core.heartbeat(name, max(0, active), None, now)
        if message.draining:
            peer.drains()
            core.drain(name, live.now())  # after the reports, in the record too
        for key in translate.confirmed(message):
            peer.confirmed(key)
            yield

    def _pass_on(self, name: str, key: Key, told: Progress) -> None:
        """How far a task is, to the client that submitted it."""
        task = self._live.core.task(key[0])
        if task is None or task.settled or task.newest(name, key[1]) is None:
            return
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        client = self._live.clients.get(job.session)
        if client is not None:
            client.tell_progress(job.number, told)

    # ---- clients

    async def Submit(self, requests: AsyncIterator[FromClient], context: Context) -> None:
        live = self._live
        try:
            async with self._newcomers.place():
                first = await self._first(requests)
            session = "" if first is None else translate.session(first)
            if not 0 < len(session) <= SESSION_CHARACTERS or not session.isprintable():
                raise Refused(Code.INVALID_ARGUMENT, "the first message names no session")
            if len(live.clients) >= live.limits.clients and session not in live.clients:
                raise Refused(Code.RESOURCE_EXHAUSTED, f"{len(live.clients)} clients are here: no more are taken")
            await context.send_initial_metadata(())
            live.require_running()
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)
        former = live.clients.get(session)
        if former is not None:
            former.end(Refused(Code.ABORTED, f"session {session} goes on by another stream"))
        client = live.clients[session] = ClientPeer(self._unread)
        host = host_of(context)
        try:
            await first_of(
                self._read_client(session, client, first, requests, host),
                client.write_to(context.write, live.room.made),
                client.ended(),
            )
        finally:
            client.close()
            if live.clients.get(session) is client:
                del live.clients[session]
                live.repeats.gone(session)
                live.room.made()
                if client.unsettled > 0:
                    line = "session %s: its client has gone, with %d tasks in hand"
                    live.lines.write(logging.INFO, host, line, session, client.unsettled)
        if client.reason is not None:
            await self._abort(context, client.reason)

    async def CancelTask(self, request: Any, context: Context) -> Any:
        try:
            return self._status(await self._live.cancel_task(sound(request).task_id), context)
        except (Refused, Malformed) as refused:
            await self._abort(context, refused)

    async def _read_client(
        self, session: str, client: ClientPeer, first: FromClient, requests: AsyncIterator[FromClient], host: str
    ) -> None:
        message: FromClient | None = first
        try:
            while message is not None:
                await self._submit(session, client, sound(message), host)
                message = await anext(requests, None)
        except Malformed as malformed:
            client.end(Refused(Code.INVALID_ARGUMENT, str(malformed)))
        await asyncio.Event().wait()  # it submits nothing more, and listens on

    async def _submit(self, session: str, client: ClientPeer, message: FromClient, host: str) -> None:
        live = self._live
        tasks = translate.submitted(session, message)
        left = len(message.tasks)
        while left > 0:
            count = min(SLICE, await live.room.wait_for(client))
            for task_id, job, priority, limits in islice(tasks, count):
                left -= 1
                client.unanswered += 1
                try:
                    live.submit(task_id, job, priority, limits)
                    if client.refused_in_a_row:
                        client.note(taken=True)
                except Refused as refused:
                    live.lines.warning(host, "refused a task of session %s: %s", session, refused, task=task_id)
                    live.refuse(session, client, job.number, refused)
                if client.owes_reading or (len(job.payload) > LARGE_CHARACTERS and live.room.full):
                    break
            if client.unanswered > UNANSWERED_MAX:
                await client.answers()
            elif left > 0:
                await asyncio.sleep(0)


def _require_worker(worker_id: str, capacity: int) -> None:
    if not 0 < len(worker_id) <= ID_CHARACTERS or not worker_id.isprintable():
        raise Refused(Code.INVALID_ARGUMENT, f"a worker's id has 1 to {ID_CHARACTERS} printable characters")
    if not 0 < capacity <= CAPACITY_MAX:
        raise Refused(Code.INVALID_ARGUMENT, f"a worker's capacity is 1 to {CAPACITY_MAX}, not {capacity}")


async def start(
    live: LiveCoordinator, host: str, port: int, first_word_s: float = FIRST_WORD_S, turns: Turns | None = None
) -> tuple[grpc.aio.Server, int]:
    """The server and its port (0 asks for a free one); OSError where it cannot listen."""
    server = rpc.server(first_word_s, [turns or Turns()])
    unread = Unread(live.limits.unread_characters)
    wire, stream = WireService(live, unread), StreamService(live, unread, first_word_s)
    implementations = (
        (rpc.COORDINATOR, wire),
        (rpc.REGISTRY, wire),
        (rpc.WORKER_STREAM, stream),
        (rpc.CLIENT_STREAM, stream),
        (rpc.CLUSTER_VIEW, ViewService(live, unread)),
    )
    for service, implementation in implementations:
        rpc.add_service(server, service, implementation)
    services = [service for service, _ in implementations]
    add_health(server, services, live.parting, watchers=live.limits.watchers, silence_s=first_word_s)
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
