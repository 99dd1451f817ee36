"""Many calls at once, by the wire contract: each is served, and each task is executed once."""

from __future__ import annotations

import asyncio
from collections import Counter

import grpc.aio

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.wire import contract, rpc
from orchestrator.core.model import TaskState
from tests.cluster.called import Hand, coordinator

TASKS = 5_000
CLIENTS, EACH = 40, 40


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


def test_a_heartbeat_does_not_wait_behind_a_burst_of_submissions():
    """Each method's calls have a queue of their own: else workers seem dead, and their tasks to run for too long."""

    async def story() -> None:
        hand = Hand("a")
        async with coordinator() as (_, address), hand.at_work(address, 1), rpc.channel(address) as channel:
            submit, registry = rpc.Stub(channel, rpc.COORDINATOR).SubmitTask, rpc.Stub(channel, rpc.REGISTRY)
            submissions = [asyncio.ensure_future(submit(contract.submit_message("", "17", 1))) for _ in range(TASKS)]
            await submissions[0]
            await registry.Heartbeat(contract.heartbeat_message("a", 0, 0))
            assert sum(submission.done() for submission in submissions) < TASKS / 2
            await asyncio.gather(*submissions)

    asyncio.run(asyncio.wait_for(story(), 120))


def test_many_clients_and_workers_of_the_contract_are_all_served():
    """Forty clients that submit all they have at once, and two workers that are called: every task is executed once."""

    async def submit(address: str) -> list[TaskState]:
        async with AsyncClient(address, contract=True) as client:
            return [(await each).state for each in client.submit_batch([NewTask("17")] * EACH)]

    async def story() -> None:
        a, b = Hand("a"), Hand("b")
        async with coordinator() as (_, address), a.at_work(address, 8), b.at_work(address, 8):
            states = await asyncio.gather(*(submit(address) for _ in range(CLIENTS)))
            assert Counter(state for each in states for state in each) == {TaskState.COMPLETED: CLIENTS * EACH}
            executed = a.taken + b.taken
            assert len(executed) == executed.total() == CLIENTS * EACH

    asyncio.run(asyncio.wait_for(story(), 120))
