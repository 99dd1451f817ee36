"""A worker that speaks the wire contract, and answers that make no sense. The test is its coordinator."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster.called_worker import CalledWorker
from orchestrator.cluster.connection import Connection
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.frames import reader
from orchestrator.cluster.worker import Settings, Unwanted
from tests.cluster.streams import play

NONSENSE = b"\xff\xff\xff"


class Registry:
    """Answers with bytes: to registrations the ones of `registered`, in turn, the last one for ever."""

    def __init__(self, *registered: bytes, beat: bytes = contract.heartbeat_answer(True).SerializeToString()) -> None:
        self.registrations = 0
        self.beats: asyncio.Queue[bytes] = asyncio.Queue()
        self.introduction = b""
        self._registered = list(registered)
        self._beat = beat

    async def _register(self, request: bytes, context: Any) -> bytes:
        answer = self._registered[min(self.registrations, len(self._registered) - 1)]
        self.registrations += 1
        self.introduction = request
        return answer

    async def _hear(self, request: bytes, context: Any) -> bytes:
        self.beats.put_nowait(request)
        return self._beat

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[asyncio.Task[None]]:
        """One that runs at this coordinator."""
        server = grpc.aio.server()
        methods: dict[str, Callable[..., Any]] = {"RegisterWorker": self._register, "Heartbeat": self._hear}
        handlers = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.REGISTRY.full_name, handlers),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with Connection(address) as connection:
            worker = CalledWorker("w1", Settings(address, executor="inline"), lambda: None, connection)
            running = asyncio.create_task(worker.run())
            try:
                yield running
            finally:
                running.cancel()
                await asyncio.wait([running])
                worker.close()
                await server.stop(0)


def test_an_assignment_that_is_no_message_is_refused(caplog: pytest.LogCaptureFixture):
    """With INVALID_ARGUMENT, and the worker beats on; there is no traceback."""

    async def story() -> None:
        registry = Registry(contract.registration_answer(0.05).SerializeToString())
        async with registry.worker() as running:
            await registry.beats.get()
            read = reader(rpc.REGISTRY.methods_by_name["RegisterWorker"].input_type)
            _, address, _ = contract.registration_of(read(registry.introduction))
            async with rpc.channel(address) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await channel.unary_unary(f"/{rpc.WORKER.full_name}/AssignTask", bytes, bytes)(NONSENSE)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            await registry.beats.get()
            assert not running.done()

    play(story)
    assert not any(record.exc_info for record in caplog.records if "AssignTask" in record.getMessage())


def test_an_answer_that_is_no_message_is_none():
    """The worker registers again until there is one, and beats on whatever its beats are answered with."""

    async def story() -> None:
        registry = Registry(NONSENSE, contract.registration_answer(0.05).SerializeToString(), beat=NONSENSE)
        async with registry.worker() as running:
            for _ in range(3):
                await registry.beats.get()
            assert not running.done()
            assert registry.registrations == 2

    play(story)


@pytest.mark.parametrize("heartbeat_s", [-1.0, math.nan, math.inf, 1e-9])
def test_a_rhythm_that_makes_no_sense_is_that_of_the_contract(heartbeat_s: float, monkeypatch: pytest.MonkeyPatch):
    """As where the coordinator says nothing of it."""
    monkeypatch.setattr("orchestrator.cluster.called_worker.HEARTBEAT_S", 0.05)

    async def story() -> None:
        registry = Registry(contract.registration_answer(heartbeat_s).SerializeToString())
        async with registry.worker() as running:
            await registry.beats.get()
            await registry.beats.get()
            assert not running.done()

    play(story)


def test_a_worker_that_is_not_wanted_again_ends():
    """Its coordinator has forgotten it, and refuses the second registration: the worker says why it ends."""

    async def story() -> None:
        refusal = contract.registration_answer(0.05)
        refusal.success = False
        registry = Registry(
            contract.registration_answer(0.05).SerializeToString(),
            refusal.SerializeToString(),
            beat=contract.heartbeat_answer(False).SerializeToString(),
        )
        async with registry.worker() as running:
            with pytest.raises(Unwanted, match="refused the registration"):
                await running

    play(story)
