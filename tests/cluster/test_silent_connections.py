"""A connection by which nothing comes any more, though nobody has closed it: the worker makes another one in time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster import called_worker, streaming_worker
from orchestrator.cluster.called_worker import CalledWorker
from orchestrator.cluster.connection import Connection
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.peers import StreamedWorker
from orchestrator.cluster.services import start
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto.stream_pb2 import FromClient
from orchestrator.cluster.worker import Settings
from orchestrator.core.model import AttemptKey, Task, TaskState, Worker, WorkerId
from orchestrator.policies.settings import Policies, build_coordinator
from tests.cluster.called import Hand, until_settled
from tests.cluster.called import coordinator as called_coordinator
from tests.cluster.proxy import Proxy
from tests.cluster.streams import TIMEOUT_S, Stage, play, worker_on
from tests.cluster.streams import Hand as Streamed

HEARTBEAT_S = 0.5


class Watched(LiveCoordinator):
    """Tells what happens to it."""

    def __init__(self) -> None:
        policies = Policies.model_validate(
            {"detection": {"kind": "timeout", "timeout_s": 2, "heartbeat_s": HEARTBEAT_S}}
        )
        self.registrations = 0
        self.before_the_first_answer: Callable[[], None] = lambda: None
        self.has_reconnected, self.has_settled = asyncio.Event(), asyncio.Event()
        self._beats: asyncio.Queue[str] = asyncio.Queue()
        super().__init__(lambda effects: build_coordinator(policies, effects), call_timeout_s=TIMEOUT_S, check=True)

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        self.registrations += 1
        if self.registrations == 1:
            self.before_the_first_answer()
        else:
            self.has_reconnected.set()
        super().registered(worker, request, dropped, now)

    def settled(self, task: Task, now: float) -> None:
        super().settled(task, now)
        self.has_settled.set()

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        super().heartbeat_answered(worker_id, request, known, now)
        self._beats.put_nowait(str(worker_id))

    async def hears_beats(self, count: int) -> None:
        for _ in range(count):
            await self._beats.get()


@contextlib.asynccontextmanager
async def worker_behind_a_proxy(
    kind: Callable[..., Any] = StreamingWorker, unanswered: bool = False
) -> AsyncIterator[tuple[Watched, Proxy, Any]]:
    """`unanswered`: what answers the first registration is swallowed, and all after it."""
    live = Watched()
    server, port = await start(live, "127.0.0.1", 0)
    async with Proxy().passing(port) as proxy, Connection(f"127.0.0.1:{proxy.port}") as connection:
        if unanswered:
            live.before_the_first_answer = proxy.swallow
        settings = Settings(f"127.0.0.1:{proxy.port}", executor="inline")
        worker = kind("w1", settings, lambda: None, connection)
        running = asyncio.create_task(worker.run())
        try:
            yield live, proxy, worker
        finally:
            running.cancel()
            worker.close()
            live.close()
            await server.stop(0)
            assert not live.failed.done(), live.failed.exception()


def test_a_worker_whose_connection_swallows_everything_makes_another_one_and_keeps_its_attempts():
    """Without waiting for the minutes after which the transport would notice: what it runs is executed once."""

    async def story() -> None:
        async with worker_behind_a_proxy() as (live, proxy, worker):
            await live.hears_beats(1)
            live.submit("t", Job("sleep", "2.5"), 1)
            await live.hears_beats(1)
            assert worker.agent.held == (("t", 1),)
            former = live.workers["w1"]
            proxy.swallow()
            await live.has_reconnected.wait()
            assert live.workers["w1"] is not former
            assert isinstance(former, StreamedWorker)
            assert former.reason is not None, "it is superseded at once, although nobody has closed its connection"
            assert worker.agent.held == (("t", 1),)
            await live.has_settled.wait()
            task = live.core.task("t")
            assert task is not None
            assert (task.state, task.attempt, worker.agent.completed) == (TaskState.COMPLETED, 1, 1)
            assert (live.registrations, proxy.dialled) == (2, 2)

    play(story)


def test_a_coordinator_notices_streams_by_which_nothing_comes_any_more(monkeypatch: pytest.MonkeyPatch):
    """Of clients and of workers, without waiting for hours; one that is merely quiet stays."""
    assert rpc.ALIVE_EVERY_S + rpc.ALIVE_WITHIN_S < 60
    monkeypatch.setattr(rpc, "ALIVE_EVERY_S", 0.2)
    monkeypatch.setattr(rpc, "ALIVE_WITHIN_S", 0.5)

    async def story() -> None:
        async with called_coordinator() as (live, address), rpc.channel(address) as quiet:
            to = int(address.rpartition(":")[2])
            async with Proxy().passing(to) as proxy, rpc.channel(f"127.0.0.1:{proxy.port}") as swallowed:
                streams = []
                for name, channel in (("quiet", quiet), ("swallowed", swallowed)):
                    await Streamed(channel, name).register()
                    streams.append(rpc.Stub(channel, rpc.CLIENT_STREAM).Submit())
                    await streams[-1].write(FromClient(session=name))
                while len(live.clients) < 2:
                    await asyncio.sleep(0.01)
                proxy.swallow()
                while live.clients.keys() != {"quiet"} or live.workers.keys() != {"quiet"}:
                    await asyncio.sleep(0.01)

    play(story)


def test_each_of_the_connections_that_fail_in_turn_is_replaced():
    """The worker learns anew what silence is at each registration."""

    async def story() -> None:
        async with worker_behind_a_proxy() as (live, proxy, _):
            for dialled in (1, 2):
                await live.hears_beats(2)
                assert proxy.dialled == dialled
                proxy.swallow()
                live.has_reconnected.clear()
                await live.has_reconnected.wait()

    play(story)


def test_a_process_that_stood_still_keeps_its_connection():
    """The silence was its own: what came meanwhile is read before it judges."""

    async def story() -> None:
        async with worker_behind_a_proxy() as (live, proxy, worker):
            await live.hears_beats(1)
            time.sleep(2 * worker._silence_s)  # the pause itself
            await live.hears_beats(5)
            assert (live.registrations, proxy.dialled) == (1, 1)

    play(story)


def test_a_coordinator_that_stood_still_keeps_its_streams():
    """It speaks again by the time at which another connection stands: that one is not needed."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            replace = worker._connection.replace

            async def replaced(channel: grpc.aio.Channel) -> None:
                await replace(channel)
                stage.say()
                stands.set()

            worker._connection.replace = replaced  # type: ignore[method-assign]
            stands = asyncio.Event()
            stage.welcome(heartbeat_s=0.1, silence_s=0.2)
            for _ in range(2):
                stands.clear()
                await stands.wait()
            assert stage.streams == 1

    play(story)


def test_workers_of_a_process_dial_once_and_close_what_nobody_uses():
    """However many of them find the same connection silent."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage), Connection(stage.address) as connection:
            async with connection.channel() as first, connection.channel() as again:
                assert first is again
                await asyncio.gather(*(connection.replace(first) for _ in range(3)))
                assert first.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
                async with connection.channel() as second:
                    assert second is not first
                    assert second.get_state() is grpc.ChannelConnectivity.READY
            assert first.get_state() is grpc.ChannelConnectivity.SHUTDOWN

    play(story)


@pytest.mark.parametrize("kind", [StreamingWorker, CalledWorker])
def test_a_registration_whose_answer_is_swallowed_is_made_by_another_connection(
    kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    """Nobody has told the worker yet what silence is."""
    monkeypatch.setattr(streaming_worker, "FIRST_SILENCE_S", 0.5)
    monkeypatch.setattr(called_worker, "REPORT_DEADLINE_S", 0.5)

    async def story() -> None:
        async with worker_behind_a_proxy(kind, unanswered=True) as (live, proxy, _):
            await live.has_reconnected.wait()
            live.submit("t", Job("sleep", "0"), 1)
            await live.has_settled.wait()
            assert proxy.dialled == 2

    play(story)


def test_a_worker_of_the_contract_beats_and_reports_by_another_connection(monkeypatch: pytest.MonkeyPatch):
    """Before it is declared dead, and what it had executed counts."""
    monkeypatch.setattr(called_worker, "REPORT_DEADLINE_S", 0.5)

    async def story() -> None:
        async with worker_behind_a_proxy(CalledWorker) as (live, proxy, worker):
            await live.hears_beats(1)
            live.submit("t", Job("sleep", "0.3"), 1)
            while not worker.agent.active:
                await asyncio.sleep(0.01)
            proxy.swallow()
            await live.has_settled.wait()
            task = live.core.task("t")
            assert task is not None
            assert (task.state, task.attempt, live.registrations, proxy.dialled) == (TaskState.COMPLETED, 1, 1, 2)
            for _ in range(2):
                proxy.swallow()
                await live.hears_beats(2)

    play(story)


def test_a_worker_of_the_contract_is_called_by_another_connection():
    """The first call that is swallowed fails after the call timeout; the next one arrives."""

    async def story() -> None:
        hand = Hand("w1")
        async with Proxy().passing(0) as proxy, called_coordinator(call_timeout_s=TIMEOUT_S) as (live, address):
            async with hand.at_work(address, 1, through=proxy):
                for number in range(3):
                    live.submit(f"t{number}", Job("sleep", "0"), 1)
                    await until_settled(live, number + 1)
                    proxy.swallow()
            assert [hand.taken[f"t{number}"] for number in range(3)] == [1, 1, 1]
            assert proxy.dialled == 3

    play(story)
