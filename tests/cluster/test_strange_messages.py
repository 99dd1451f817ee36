"""What a peer says that is no message, or names nobody, or is nothing at all: it is refused, and costs one line."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.services import start
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.frames import ID_CHARACTERS
from orchestrator.cluster.wire.proto.stream_pb2 import (
    FromClient,
    FromWorker,
    Registration,
    Report,
)
from orchestrator.policies.settings import build_coordinator
from tests.cluster.streams import PATIENT, Hand, coordinator, key, play
from tests.cluster.test_hostile_peers import STREAMS, raw, status_of

Code = grpc.StatusCode
LONG = "x" * (ID_CHARACTERS + 1)
CALLS = [
    (rpc.COORDINATOR, "SubmitTask"),
    (rpc.COORDINATOR, "GetTaskStatus"),
    (rpc.COORDINATOR, "GetMetrics"),
    (rpc.REGISTRY, "RegisterWorker"),
    (rpc.REGISTRY, "Heartbeat"),
    (rpc.REGISTRY, "ReportResult"),
    (rpc.CLIENT_STREAM, "CancelTask"),
]


# ---- what is no message


@pytest.mark.parametrize(("service", "method"), [*STREAMS, *CALLS])
def test_a_malformed_message_is_an_invalid_argument(
    service: ServiceDescriptor, method: str, caplog: pytest.LogCaptureFixture
):
    """With one line in the log."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            if (service, method) in STREAMS:
                code, _ = await status_of(raw(channel, service, method), b"\xff\xff")
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(f"/{service.full_name}/{method}", bytes, bytes)(b"\xff\xff")
                code = caught.value.code()
            assert code is Code.INVALID_ARGUMENT

    play(story)
    (line,) = (record for record in caplog.records if record.name.startswith("orchestrator"))
    assert not line.exc_info


@pytest.mark.parametrize(
    "word",
    [
        FromWorker(started=[key(LONG)]),
        FromWorker(confirmed=[key(LONG)]),
        FromWorker(reports=[Report(task_id=LONG, attempt=1)]),
    ],
    ids=["start", "confirmation", "report"],
)
def test_a_worker_that_names_what_no_task_is_called_is_refused(word: FromWorker, caplog: pytest.LogCaptureFixture):
    """Ids have at most 200 characters."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            worker = await Hand(channel, "w").register()
            assert (await status_of(worker.call, word))[0] is Code.INVALID_ARGUMENT

    play(story)
    assert [record.getMessage() for record in caplog.records if "200 characters" in record.getMessage()]
    assert len(caplog.records) <= 2


@pytest.mark.parametrize(
    "registration",
    [
        Registration(worker_id=LONG, capacity=1),
        Registration(worker_id="two\nlines", capacity=1),
        Registration(worker_id="w", capacity=1, incarnation=LONG),
        Registration(worker_id="w", capacity=1, held=[key(LONG)]),
    ],
    ids=["long", "lines", "incarnation", "held"],
)
def test_a_worker_of_an_impossible_name_is_refused(registration: Registration):
    """So is one that holds what no task is called."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
            assert (await status_of(call, FromWorker(registration=registration)))[0] is Code.INVALID_ARGUMENT
            assert not list(live.core.workers())

    play(story)


@pytest.mark.parametrize("session", ["two\nlines", "s" * 101])
def test_a_session_of_an_impossible_name_is_refused(session: str):
    """Its name stands in the log, and in the ids of its tasks."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            assert (await status_of(call, FromClient(session=session)))[0] is Code.INVALID_ARGUMENT

    play(story)


# ---- who says nothing


@pytest.mark.parametrize(("service", "method"), STREAMS)
def test_a_stream_that_says_nothing_is_closed(service: ServiceDescriptor, method: str):
    """After a while; one that has said who it is may be silent."""

    async def story() -> None:
        async with coordinator(first_word_s=0.1) as (live, channel):
            client = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            await client.write(FromClient(session="s"))
            worker = await Hand(channel, "w").register()
            silent = getattr(rpc.Stub(channel, service), method)()
            assert await silent.code() is Code.DEADLINE_EXCEEDED
            assert not client.done()
            assert not worker.call.done()
            assert live.speaks("w", live.workers["w"])  # type: ignore[arg-type]

    play(story)


def test_a_connection_that_says_nothing_is_closed():
    """Bytes are awaited for a while only."""

    async def story() -> None:
        live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx))
        server, port = await start(live, "127.0.0.1", 0, first_word_s=0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while await reader.read(1000):
            pass  # what the server says first
        writer.close()
        live.close()
        await server.stop(0)

    play(story)
