"""What peers keep in a coordinator's memory, by answers that they do not read or streams that come to nothing, has a
limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from orchestrator.cluster import peers
from orchestrator.cluster.answers import Unread
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.peers import ClientPeer
from orchestrator.cluster.services import start
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.proto.stream_pb2 import FromClient, FromWorker, NewTask, Registration, Report
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.core.model import TaskState
from orchestrator.policies.settings import build_coordinator
from tests.cluster.raw_http2 import Unreading
from tests.cluster.streams import PATIENT, Hand, coordinator, play

Code = grpc.StatusCode
STREAMS = [(rpc.WORKER_STREAM, "Work"), (rpc.CLIENT_STREAM, "Submit")]
LARGE = 1 << 20


async def large_task(channel: grpc.aio.Channel) -> Any:
    """The request that asks for a task whose result is large."""
    worker = await Hand(channel, "w").register()
    client = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    await client.write(FromClient(session="s", tasks=[NewTask(number=1, payload="7", priority="NORMAL")]))
    (task,) = await worker.hears("assignments")
    await worker.say(reports=[Report(task_id=task.task_id, attempt=1, succeeded=True, result="x" * LARGE, number=1)])
    while not (await client.read()).results:
        pass
    return contract.status_request(task.task_id)


def test_no_more_is_taken_of_a_client_than_is_soon_stored():
    """Refused tasks count like accepted ones: of either, the client is told once that is stored."""

    async def story() -> None:
        waiting: list[Callable[[], None]] = []

        def store_later(_: str, call: Callable[..., None], *values: object) -> None:
            waiting.append(partial(call, *values))

        live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx), release=store_later)
        server, port = await start(live, "127.0.0.1", 0)
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            client, ask = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit(), rpc.Stub(channel, rpc.COORDINATOR).GetMetrics
            for first in range(1, 2001, 500):
                numbers = range(first, first + 500)
                tasks = [NewTask(number=n, payload="1" if n % 5 else "", priority="NORMAL") for n in numbers]
                await client.write(FromClient(session="s", tasks=tasks))
            told, most = 0, peers.UNANSWERED_MAX + peers.SLICE
            while told < 2000:
                for _ in range(5):  # it would have read on by then
                    await ask(contract.metrics_request())
                assert 0 < len(waiting) <= most
                calls, waiting[:] = waiting[:], []
                told += len(calls)
                for call in calls:
                    call()
            assert live.core.submitted == 1600
        live.close()
        await server.stop(0)

    play(story)


def test_large_answers_that_are_not_read_are_limited(caplog: pytest.LogCaptureFixture):
    """Who does not read is refused, and nobody else. When it has gone there is room again, and no fault in the log."""

    async def story() -> None:
        live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx), limits=Limits(unread_characters=6 * LARGE))
        server, port = await start(live, "127.0.0.1", 0)
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            request = await large_task(channel)
            for _ in range(3):
                unreading = await Unreading.open(port)
                for _ in range(20):
                    unreading.call(f"/{rpc.COORDINATOR.full_name}/GetTaskStatus", request.SerializeToString())
                told = b""
                while told.count(b"grpc-message") < 20 - 3:
                    told += await unreading.reader.read(1 << 16)
                assert len((await stub.GetTaskStatus(request)).result) == LARGE
                unreading.close()
                await asyncio.sleep(0.2)
        live.close()
        await server.stop(0)

    with caplog.at_level(logging.WARNING):
        play(story)
    assert not [line for line in caplog.records if line.exc_info]


def test_calls_of_both_services_share_what_may_be_unread():
    """Who reads no status is not answered on cancels either."""

    async def story() -> None:
        live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx), limits=Limits(unread_characters=6 * LARGE))
        server, port = await start(live, "127.0.0.1", 0)
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            request = (await large_task(channel)).SerializeToString()
            unreading = await Unreading.open(port)
            told = b""
            for refused, path in (
                (7, f"{rpc.COORDINATOR.full_name}/GetTaskStatus"),
                (17, f"{rpc.CLIENT_STREAM.full_name}/CancelTask"),
            ):
                for _ in range(10):
                    unreading.call(f"/{path}", request)
                while told.count(b"grpc-message") < refused:
                    told += await unreading.reader.read(1 << 16)
            unreading.close()
        live.close()
        await server.stop(0)

    play(story)


def test_a_client_that_reads_no_results_is_told_to_go(monkeypatch: pytest.MonkeyPatch):
    """The rest of its tasks goes on; where it comes again and reads, it has every result, and nothing runs twice."""
    count = 12
    monkeypatch.setattr(peers, "OWED_MAX", LARGE)

    async def story() -> None:
        async with coordinator(limits=Limits(unread_characters=6 * LARGE)) as (live, channel):
            worker = await Hand(channel, "w").register()
            tasks = [NewTask(number=number, payload="7", priority="NORMAL") for number in range(1, count + 1)]
            unread = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            await unread.write(FromClient(session="s", tasks=tasks))
            for number in range(1, count + 1):
                (task,) = await worker.hears("assignments")
                report = Report(task_id=task.task_id, attempt=1, succeeded=True, result="x" * LARGE, number=number)
                await worker.say(reports=[report])
            await worker.hears("acknowledged")
            while live.clients:
                await asyncio.sleep(0.01)
            assert live.core.completed == count
            again = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            await again.write(FromClient(session="s", tasks=tasks))
            read: dict[int, int] = {}
            while len(read) < count:
                read |= {result.number: len(result.result) for result in (await again.read()).results}
            assert read == dict.fromkeys(range(1, count + 1), LARGE)
            assert (live.core.submitted, live.core.completed) == (count, count)

    play(story)


def test_a_client_that_has_much_to_read_is_read_no_further(monkeypatch: pytest.MonkeyPatch):
    """Until it has read that: more tasks would give it more to read."""
    monkeypatch.setattr(peers, "OWED_MAX", 2 * LARGE)

    async def story() -> None:
        unread = Unread(100 * LARGE)
        client = ClientPeer(unread)
        live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx))
        for number in (1, 2):
            assert await live.room.wait_for(client) > 0
            client.settle(number, Outcome("t", TaskState.COMPLETED, "x" * LARGE, "", "w", 1, 0.0))
        waiting = asyncio.ensure_future(live.room.wait_for(client))
        written = asyncio.Event()

        async def write(message: Any) -> None:
            await written.wait()

        writing = asyncio.ensure_future(client.write_to(write, live.room.made))
        await asyncio.sleep(0)
        assert not waiting.done()
        written.set()
        assert await waiting > 0
        writing.cancel()
        client.close()
        assert unread.of(client) == 0
        live.close()

    play(story)


@pytest.mark.parametrize(("service", "method"), STREAMS)
def test_of_too_many_streams_that_say_nothing_the_oldest_ends(service: ServiceDescriptor, method: str):
    """Others are taken in meanwhile."""

    async def story() -> None:
        async with coordinator(limits=Limits(newcomers=3)) as (_, channel):
            stub = rpc.Stub(channel, service)
            silent = []
            for _ in range(5):
                silent.append(getattr(stub, method)())
                await asyncio.sleep(0.05)
            for call in silent[:2]:
                assert await call.code() is Code.RESOURCE_EXHAUSTED
            worker = await Hand(channel, "w").register()
            assert await silent[2].code() is Code.RESOURCE_EXHAUSTED
            assert not any(call.done() for call in (*silent[3:], worker.call))

    play(story)


def test_of_too_many_that_want_a_name_the_oldest_ends():
    """While it is not known whether the first process of that name still beats."""

    async def story() -> None:
        async with coordinator(limits=Limits(newcomers=3)) as (_, channel):
            first = await Hand(channel, "w").register()
            others = []
            for number in range(5):
                call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
                registration = Registration(worker_id="w", capacity=1, incarnation=str(number))
                await call.write(FromWorker(registration=registration))
                await asyncio.sleep(0.05)
                others.append(call)
            for call in others[:2]:
                assert await call.code() is Code.RESOURCE_EXHAUSTED
            assert not any(call.done() for call in (*others[2:], first.call))

    play(story)


def test_clients_are_taken_up_to_a_limit():
    """Those that are there are served on, and when one goes there is room."""

    async def story() -> None:
        async with coordinator(limits=Limits(clients=2)) as (live, channel):
            stub = rpc.Stub(channel, rpc.CLIENT_STREAM)
            calls = [stub.Submit() for _ in range(3)]
            for number, call in enumerate(calls[:2]):
                await call.write(FromClient(session=f"s{number}", tasks=[NewTask(number=1, payload="7")]))
                assert list((await call.read()).accepted) == [1]
            await calls[2].write(FromClient(session="s2"))
            assert await calls[2].code() is Code.RESOURCE_EXHAUSTED
            again = stub.Submit()  # of a session that is there
            await again.write(FromClient(session="s1", tasks=[NewTask(number=2, payload="7")]))
            assert list((await again.read()).accepted) == [2]
            calls[0].cancel()
            while len(live.clients) > 1:
                await asyncio.sleep(0.01)
            last = stub.Submit()
            await last.write(FromClient(session="s2", tasks=[NewTask(number=1, payload="7")]))
            assert list((await last.read()).accepted) == [1]

    play(story)
