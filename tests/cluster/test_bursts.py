"""Many calls at once, by the wire contract: each is served, and each task is executed once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.services import start
from orchestrator.cluster.wire import contract, rpc
from orchestrator.core.model import TaskState
from orchestrator.policies.settings import build_coordinator
from tests.cluster.streams import PATIENT

TASKS = 5_000
CLIENTS, EACH = 40, 40


class Hand:
    """A worker of the contract that has done its task when it has answered; `taken` counts them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken: Counter[str] = Counter()
        self._reporting: set[asyncio.Task[None]] = set()

    async def AssignTask(self, request: Any, context: Any) -> Any:
        self.taken[request.task.task_id] += 1
        self._reporting.add(asyncio.create_task(self._report(contract.assigned(request, 1).key)))
        return contract.assign_answer(True)

    async def _report(self, key: tuple[Any, int]) -> None:
        ended = Ended(True, "", "", False, 0.0)
        await self._registry.ReportResult(contract.result_message(self.name, key, ended, 0.0))

    @contextlib.asynccontextmanager
    async def at_work(self, channel: grpc.aio.Channel, capacity: int) -> AsyncIterator[None]:
        server = rpc.server()
        rpc.add_service(server, rpc.WORKER, self)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        self._registry = rpc.Stub(channel, rpc.REGISTRY)
        await self._registry.RegisterWorker(contract.registration_message(self.name, f"127.0.0.1:{port}", capacity))
        try:
            yield
        finally:
            await server.stop(0)


@contextlib.asynccontextmanager
async def coordinator() -> AsyncIterator[tuple[LiveCoordinator, str]]:
    live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx), call_timeout_s=30)
    server, port = await start(live, "127.0.0.1", 0)
    try:
        yield live, f"127.0.0.1:{port}"
    finally:
        live.close()
        await server.stop(0)
        assert not live.failed.done(), live.failed.exception()


def test_thousands_of_submissions_at_once_are_all_accepted():
    """No call comes back as CANCELLED, and none is lost."""

    async def story() -> None:
        async with coordinator() as (live, address), rpc.channel(address) as channel:
            stub = rpc.Stub(channel, rpc.COORDINATOR)
            request = contract.submit_message("", "17", 1)
            answers = await asyncio.gather(*(stub.SubmitTask(request) for _ in range(TASKS)), return_exceptions=True)
            refusals = Counter(answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError))
            assert not refusals
            assert len({str(answer) for answer in answers}) == live.core.submitted == TASKS

    asyncio.run(asyncio.wait_for(story(), 120))


def test_many_clients_and_workers_of_the_contract_are_all_served():
    """Forty clients that submit all they have at once, and two workers that are called: every task is executed once."""

    async def submit(address: str) -> list[TaskState]:
        async with AsyncClient(address, contract=True) as client:
            return [(await each).state for each in client.submit_batch([NewTask("17")] * EACH)]

    async def story() -> None:
        async with coordinator() as (_, address), rpc.channel(address) as channel:
            a, b = Hand("a"), Hand("b")
            async with a.at_work(channel, 8), b.at_work(channel, 8):
                states = await asyncio.gather(*(submit(address) for _ in range(CLIENTS)))
                assert Counter(state for each in states for state in each) == {TaskState.COMPLETED: CLIENTS * EACH}
                executed = a.taken + b.taken
                assert len(executed) == executed.total() == CLIENTS * EACH

    asyncio.run(asyncio.wait_for(story(), 120))
