"""A coordinator, and workers that speak only the wire contract, on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.services import start
from orchestrator.cluster.wire import contract, rpc
from orchestrator.policies.settings import build_coordinator
from tests.cluster.proxy import Proxy
from tests.cluster.streams import PATIENT


class Hand:
    """A worker that has done its task when it has answered; `taken` counts its executions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: Counter[str] = Counter()
        self._reporting: set[asyncio.Task[None]] = set()

    def serve(self, server: grpc.aio.Server) -> None:
        rpc.add_service(server, rpc.WORKER, self)

    async def AssignTask(self, request: Any, context: Any) -> Any:
        key = contract.assigned(request, 1).key
        self.taken[str(key[0])] += 1
        self._reporting.add(asyncio.create_task(self._report(key)))
        return contract.assign_answer(True)

    async def _report(self, key: tuple[Any, int]) -> None:
        ended = Ended(True, "", "", False, 0.0)
        await self._registry.ReportResult(contract.result_message(self.name, key, ended, 0.0))

    @contextlib.asynccontextmanager
    async def at_work(
        self, address: str, capacity: int, heartbeat_s: float = 0.1, through: Proxy | None = None
    ) -> AsyncIterator[None]:
        server = rpc.server()
        self.serve(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        if through is not None:
            through.to, port = port, through.port
        async with rpc.channel(address) as channel:
            self._registry = rpc.Stub(channel, rpc.REGISTRY)
            await self._registry.RegisterWorker(contract.registration_message(self.name, f"127.0.0.1:{port}", capacity))
            beating = asyncio.create_task(self._beat(heartbeat_s))
            try:
                yield
            finally:
                beating.cancel()
                await server.stop(0)

    async def _beat(self, heartbeat_s: float) -> None:
        while True:
            await asyncio.sleep(heartbeat_s)
            await self._registry.Heartbeat(contract.heartbeat_message(self.name, 0, 0))


class Mute(Hand):
    """Accepts every call and answers none. `most`: so many were under way at once."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.called = self.most = self._calls = 0

    async def AssignTask(self, request: Any, context: Any) -> Any:
        self.called += 1
        self._calls += 1
        self.most = max(self.most, self._calls)
        try:
            await asyncio.Event().wait()
        finally:
            self._calls -= 1


class Babbler(Hand):
    """Answers with bytes that are no message."""

    def serve(self, server: grpc.aio.Server) -> None:
        async def babble(request: bytes, context: Any) -> bytes:
            self.taken["?"] += 1
            return b"\xff\xff\xff"

        handlers = {"AssignTask": grpc.unary_unary_rpc_method_handler(babble)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.WORKER.full_name, handlers),))


@contextlib.asynccontextmanager
async def coordinator(call_timeout_s: float = 30.0) -> AsyncIterator[tuple[LiveCoordinator, str]]:
    """With its address."""
    live = LiveCoordinator(
        lambda fx: build_coordinator(PATIENT, fx, call_timeout_s=call_timeout_s), call_timeout_s=call_timeout_s
    )
    server, port = await start(live, "127.0.0.1", 0)
    try:
        yield live, f"127.0.0.1:{port}"
    finally:
        live.close()
        await server.stop(0)
        assert not live.failed.done(), live.failed.exception()


async def until_settled(live: LiveCoordinator, count: int) -> None:
    """Until so many tasks are COMPLETED."""
    while live.core.completed < count:
        await asyncio.sleep(0.01)
