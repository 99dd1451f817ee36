"""The stream between a worker and its coordinator, with either end played by a test that speaks the protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.connection import Connection
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.services import start
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto.stream_pb2 import (
    Assignment,
    AttemptKey,
    FromWorker,
    Registered,
    Registration,
    Report,
    ToWorker,
)
from orchestrator.cluster.worker import Settings
from orchestrator.policies.settings import Policies, build_coordinator

TIMEOUT_S = 0.4  # of a call; a worker confirms after an eighth of that
PATIENT = Policies.model_validate({"detection": {"kind": "timeout", "timeout_s": 30}})


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story, for some seconds at most."""
    asyncio.run(asyncio.wait_for(story(), 20))


class Stage:
    """The other end of a worker's stream."""

    def __init__(self) -> None:
        self.address = ""
        self.streams = 0
        self.heard: asyncio.Queue[FromWorker] = asyncio.Queue()
        self._to_say: asyncio.Queue[ToWorker | None] = asyncio.Queue()

    async def Work(self, requests: AsyncIterator[FromWorker], context: Any) -> None:
        self.streams += 1

        async def hear() -> None:
            async for message in requests:
                self.heard.put_nowait(message)

        hearing = asyncio.create_task(hear())
        while (message := await self._to_say.get()) is not None:
            await context.write(message)
        hearing.cancel()

    def serve(self, server: grpc.aio.Server) -> None:
        rpc.add_service(server, rpc.WORKER_STREAM, self)

    def say(self, **parts: Any) -> None:
        self._to_say.put_nowait(ToWorker(**parts))

    def welcome(
        self, term: int = 1, heartbeat_s: float = 60.0, dropped: Sequence[AttemptKey] = (), silence_s: float = 0.0
    ) -> None:
        answer = Registered(
            term=term, heartbeat_s=heartbeat_s, call_timeout_s=TIMEOUT_S, dropped=dropped, silence_s=silence_s
        )
        self.say(registered=answer)

    def assign(self, task_id: str, seconds: float, attempt: int = 1) -> None:
        job = Assignment(task_id=task_id, attempt=attempt, kind="sleep", payload=str(seconds))
        self.say(assignments=[job])

    def end_the_stream(self) -> None:
        self._to_say.put_nowait(None)

    async def hears(self, part: str) -> Any:
        """The next message that has this part: its value."""
        while True:
            message = await self.heard.get()
            for field, value in message.ListFields():
                if field.name == part:
                    return value


@contextlib.asynccontextmanager
async def worker_on(stage: Stage, **settings: Any) -> AsyncIterator[StreamingWorker]:
    server = rpc.server()
    stage.serve(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stage.address = f"127.0.0.1:{port}"
    settings = {"executor": "inline", "incarnation": "this", **settings}
    async with Connection(stage.address) as connection:
        worker = StreamingWorker("w1", Settings(stage.address, **settings), lambda: None, connection)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            running.cancel()
            worker.close()
            await server.stop(0)


def key(task_id: str, attempt: int = 1) -> AttemptKey:
    return AttemptKey(task_id=task_id, attempt=attempt)


class Hand:
    """A worker's stream. `beside`: what its first message says beside the registration."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        name: str,
        capacity: int = 1,
        process: str = "a",
        held: Sequence[AttemptKey] = (),
        **beside: bool,
    ) -> None:
        self.call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
        self._beside = beside
        self._registration = Registration(worker_id=name, capacity=capacity, incarnation=process, held=held)
        self._first: ToWorker | None = None

    async def begin(self) -> None:
        await self.say(registration=self._registration, **self._beside)

    async def register(self) -> Hand:
        """`self.told` is the answer."""
        await self.begin()
        self._first = await self.call.read()
        assert self._first.HasField("registered")
        self.told = self._first.registered
        return self

    async def say(self, **parts: Any) -> None:
        await self.call.write(FromWorker(**parts))

    async def hears(self, part: str) -> Any:
        while True:
            message, self._first = self._first or await self.call.read(), None
            value = getattr(message, part)
            if value:
                return value

    async def report(self, number: int, task: AttemptKey) -> list[int]:
        """What is acknowledged."""
        report = Report(task_id=task.task_id, attempt=task.attempt, succeeded=True, number=number)
        await self.say(reports=[report])
        return list(await self.hears("acknowledged"))


@contextlib.asynccontextmanager
async def coordinator(
    first_word_s: float = 30.0, limits: Limits | None = None
) -> AsyncIterator[tuple[LiveCoordinator, grpc.aio.Channel]]:
    live = LiveCoordinator(
        lambda fx: build_coordinator(PATIENT, fx), call_timeout_s=TIMEOUT_S, limits=limits, check=True
    )
    server, port = await start(live, "127.0.0.1", 0, first_word_s)
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        try:
            yield live, channel
        finally:
            live.close()
            await server.stop(0)
            assert not live.failed.done(), live.failed.exception()
