"""Only so many calls bring their messages at a time, and what was refused is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.services import start
from orchestrator.cluster.turns import LARGE_BYTES, Turns, _forgetful
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.policies.settings import build_coordinator
from tests.cluster.raw_http2 import Unreading
from tests.cluster.streams import PATIENT, play

SUBMIT = f"/{rpc.COORDINATOR.full_name}/SubmitTask"


@contextlib.asynccontextmanager
async def serving(turns: Turns) -> AsyncIterator[tuple[int, grpc.aio.Channel]]:
    live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx))
    server, port = await start(live, "127.0.0.1", 0, turns=turns)
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        yield port, channel
    live.close()
    await server.stop(0)


async def without_message(port: int, turns: Turns) -> Unreading:
    """A call that has its turn, and no message."""
    calling = await Unreading.open(port)
    calling.begin(SUBMIT)
    while not turns.taken(SUBMIT):
        await asyncio.sleep(0.01)
    return calling


def test_a_call_waits_for_its_turn():
    """Until the one before it has brought its message, or has gone. Other methods have turns of their own."""

    async def story() -> None:
        turns = Turns(turn_s=600)
        async with serving(turns) as (port, channel):
            before = await without_message(port, turns)
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            waiting = asyncio.ensure_future(stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7")))
            for _ in range(3):
                await stub.GetMetrics(contract.metrics_request())
            assert not waiting.done()
            before.close()
            assert (await waiting).task_id

    play(story)


def test_a_message_that_takes_long_holds_up_nobody():
    """It goes on arriving beside the others."""

    async def story() -> None:
        turns = Turns(turn_s=0.05)
        async with serving(turns) as (port, channel):
            slow = await without_message(port, turns)
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            assert (await stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7"))).task_id
            slow.message(b"\x0a\x00")  # without a payload
            assert b"the payload is empty" in await slow.reader.readuntil(b"empty")
            slow.close()

    play(story)


@pytest.mark.parametrize("size", [1, LARGE_BYTES, 4 << 20])
def test_every_call_comes_to_its_turn(size: int):
    """Of more of them than there are turns, small ones and large ones, sound ones and refused ones."""

    async def story() -> None:
        turns = Turns()
        async with serving(turns) as (_, channel):
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            calls = [stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7" * size)) for _ in range(12)]
            codes = [await call.code() for call in calls]
            expected = grpc.StatusCode.OK if size <= 1 << 20 else grpc.StatusCode.INVALID_ARGUMENT
            assert codes == [expected] * 12
            while turns.taken(SUBMIT):
                await asyncio.sleep(0.01)

    play(story)


def test_a_refused_call_does_not_keep_its_message():
    """Although gRPC keeps its exception until garbage is collected."""

    class Message:
        pass

    async def refusing(request: Message, context: Any) -> None:
        try:
            raise ValueError(f"{request} makes no sense")
        except ValueError:
            raise grpc.aio.AbortError from None

    async def story() -> None:
        message = Message()
        kept = weakref.ref(message)
        call = _forgetful(refusing)(message, None)
        del message
        error: BaseException | None = None
        try:
            await call
        except grpc.aio.AbortError as raised:
            error = raised
        del call
        assert error is not None
        assert kept() is None

    gc.disable()
    try:
        asyncio.run(story())
    finally:
        gc.enable()
