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

SUBMIT, STATUS = (f"/{rpc.COORDINATOR.full_name}/{method}" for method in ("SubmitTask", "GetTaskStatus"))
TOO_LITTLE = b"\x0a\x00"  # a submission without a payload


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
    """Until the one before it on its connection has brought its message. Other methods have turns of their own."""

    async def story() -> None:
        turns = Turns(turn_s=600)
        async with serving(turns) as (port, _):
            calling = await without_message(port, turns)
            calling.call(SUBMIT, TOO_LITTLE)
            calling.call(STATUS, b"")
            answered = await calling.reader.readuntil(b"no task")
            assert b"the payload is empty" not in answered
            calling.message(TOO_LITTLE, stream=1)
            for _ in range(2):
                await calling.reader.readuntil(b"the payload is empty")
            calling.close()

    play(story)


def test_calls_without_a_message_hold_up_no_other_connection():
    """However many there are on one."""

    async def story() -> None:
        turns = Turns(turn_s=600)
        async with serving(turns) as (port, channel):
            calling = await without_message(port, turns)
            for _ in range(500):
                calling.begin(SUBMIT)
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            assert (await stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7"))).task_id
            calling.close()

    play(story)


def test_a_message_that_takes_long_holds_up_nobody():
    """It goes on arriving beside the others, of its connection too."""

    async def story() -> None:
        turns = Turns(turn_s=0.05)
        async with serving(turns) as (port, _):
            slow = await without_message(port, turns)
            slow.call(SUBMIT, TOO_LITTLE)
            await slow.reader.readuntil(b"the payload is empty")
            slow.message(TOO_LITTLE, stream=1)
            await slow.reader.readuntil(b"the payload is empty")
            slow.close()

    play(story)


def test_only_so_many_messages_arrive_at_a_time():
    """Where others want its place, a message that takes too long is refused: of whoever brings most of them."""

    async def story() -> None:
        turns = Turns(turn_s=0.01, slow_s=0.05, places=3)
        async with serving(turns) as (port, channel):
            alone, greedy = [await Unreading.open(port) for _ in range(2)]
            alone.begin(SUBMIT)
            for _ in range(12):
                greedy.begin(SUBMIT)
            for _ in range(10):
                await greedy.reader.readuntil(b"its message takes too long")
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            assert (await stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7"))).task_id
            alone.message(TOO_LITTLE)
            await alone.reader.readuntil(b"the payload is empty")
            for each in (alone, greedy):
                each.close()

    play(story)


def test_who_comes_anew_does_not_wait_for_connections_that_bring_their_messages_late():
    """However many of them wait: the last places are not for them. Theirs go on."""

    async def story() -> None:
        turns = Turns(turn_s=0.01, slow_s=600, places=4)
        async with serving(turns) as (port, channel):
            late = [await Unreading.open(port) for _ in range(3)]
            for each in late:
                for _ in range(5):
                    each.begin(SUBMIT)
            while turns.waiting < len(late):
                await asyncio.sleep(0.01)
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            assert (await stub.SubmitTask(wire_pb2.SubmitTaskRequest(payload="7"))).task_id
            assert turns.waiting == len(late)
            for each in late:
                each.close()

    play(story)


def test_callers_that_go_leave_their_turns_and_places():
    """Whether they had them, or waited for them."""

    async def story() -> None:
        turns = Turns(turn_s=600, places=1)
        async with serving(turns) as (port, channel):
            gone = [await without_message(port, turns) for _ in range(2)]
            gone[0].begin(SUBMIT)
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            waiting = asyncio.ensure_future(stub.GetMetrics(contract.metrics_request()))
            for each in reversed(gone):
                each.close()
            await waiting
            while turns.taken(SUBMIT):
                await asyncio.sleep(0.01)

    play(story)


def test_a_call_without_a_message_is_refused():
    """It ends before it has brought one."""

    async def story() -> None:
        turns = Turns()
        async with serving(turns) as (port, _):
            calling = await Unreading.open(port)
            calling.begin(SUBMIT)
            calling.end()
            await calling.reader.readuntil(b"there is no message")
            calling.close()

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


@pytest.mark.parametrize("refused", [False, True])
def test_a_call_that_is_over_does_not_keep_its_message(refused: bool):
    """Although gRPC keeps what it has read it by until garbage is collected."""

    class Message:
        """A mere object has no weak references."""

    kept: list[weakref.ref[Message]] = []

    def deserialize(data: bytes) -> Message:
        message = Message()
        kept.append(weakref.ref(message))
        return message

    async def behave(request: Message, context: Any) -> bytes:
        if refused:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it makes no sense")
        return b""

    async def story() -> None:
        server = grpc.aio.server(interceptors=[Turns()])
        handlers = {"Call": grpc.unary_unary_rpc_method_handler(behave, deserialize, None)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Service", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with rpc.channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/Service/Call", None, None)
            for _ in range(5):
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call(b"something")
            assert len(kept) == 5
            while any(message() is not None for message in kept):
                await asyncio.sleep(0.01)
        await server.stop(0)

    gc.disable()
    try:
        asyncio.run(asyncio.wait_for(story(), 20))
    finally:
        gc.enable()


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
