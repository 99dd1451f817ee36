"""How long a client waited, and how much a coordinator takes at a time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from orchestrator.cluster import submitting
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.services import start
from orchestrator.policies.settings import Policies, build_coordinator
from tests.cluster.conftest import MakeCluster

ROUNDING_S = 0.001


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_latency_counts_from_submission(make_cluster: MakeCluster, contract: bool):
    """What the caller waited, for a worker too, and not only what the coordinator did for it."""
    cluster = make_cluster(0)

    async def run() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            begin = time.monotonic()
            submission = client.submit("0", kind="sleep")
            await submission.id
            await asyncio.sleep(0.5)  # the wait itself
            cluster.start_worker("w1")
            outcome = await submission
            assert 0.5 <= outcome.latency_s <= time.monotonic() - begin

    asyncio.run(asyncio.wait_for(run(), 60))


def test_latency_counts_across_coordinators(make_cluster: MakeCluster):
    """The second coordinator knows nothing of the wait for the first; the caller does."""
    cluster = make_cluster(0)

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            begin = time.monotonic()
            submission = client.submit("0", kind="sleep")
            await submission.id
            cluster.coordinator.kill()
            lost_s = time.monotonic() - begin
            cluster.start_coordinator()
            cluster.start_worker("w1").ready()
            again_s = time.monotonic() - begin
            outcome = await submission
            assert lost_s < again_s - ROUNDING_S < outcome.latency_s <= time.monotonic() - begin
            assert (await client.status(outcome.task_id)).latency_s < outcome.latency_s

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_call_has_no_deadline_before_it_can_be_made(make_cluster: MakeCluster, monkeypatch: pytest.MonkeyPatch):
    """A client that polls waits for its coordinator as one with a stream does; who gives up meanwhile has given up."""
    monkeypatch.setattr(submitting, "DEADLINE_S", 1.0)
    cluster = make_cluster(0)
    cluster.coordinator.kill()

    async def run() -> None:
        async with AsyncClient(cluster.address, contract=True) as client:
            kept, forsaken = client.submit_batch([NewTask("0", 1, "sleep")] * 2)
            await asyncio.sleep(2 * submitting.DEADLINE_S)  # the wait itself
            assert not kept.outcome.done()
            forsaken.cancel()
            cluster.start_coordinator()
            cluster.start_worker("w1")
            assert (await kept).settled
            assert (await client.metrics()).failed == 0, "the other one was never sent"

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("clients", [1, 3])
def test_a_coordinator_takes_as_many_tasks_as_it_may(clients: int):
    """--max-unsettled to the task, however many clients push, and whatever their messages hold."""
    most = 10

    async def run() -> None:
        deepest = 0

        class Watching(LiveCoordinator):
            def submit(self, *arguments: Any) -> None:
                nonlocal deepest
                super().submit(*arguments)
                core = self.core
                deepest = max(deepest, core.submitted - core.completed - core.failed)

        live = Watching(lambda effects: build_coordinator(Policies(), effects), limits=Limits(unsettled=most))
        server, port = await start(live, "127.0.0.1", 0)
        try:
            pushing = [asyncio.create_task(push(f"127.0.0.1:{port}")) for _ in range(clients)]
            await asyncio.gather(*pushing)
        finally:
            live.close()
            await server.stop(0)
        assert deepest == most
        assert live.core.failed == 600 * clients

    async def push(address: str) -> None:
        """Six hundred tasks that nobody executes: whatever is accepted is cancelled, so that there is room again."""
        async with AsyncClient(address) as client:
            for submission in client.submit_batch([NewTask("0", 1, "sleep")] * 600):
                await client.cancel(await submission.id)

    asyncio.run(asyncio.wait_for(run(), 60))
