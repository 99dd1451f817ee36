"""Who cancels a future cancels its task, wherever the task is by then."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from orchestrator.cluster.client import AsyncClient, Client, NewTask, Submission
from orchestrator.cluster.wire import rpc, translate
from orchestrator.core.model import TaskState
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract import peers
from tests.cluster.contract.peers import wait_until

CANCELLED = "cancelled by its submitter"
HANG = ("100000", 1, "sleep")


async def until(true: Callable[[Any], bool], client: AsyncClient) -> None:
    """Until the metrics say so."""
    while not true(await client.metrics()):
        await asyncio.sleep(0.01)


async def cancelled(client: AsyncClient, task_id: str) -> bool:
    """Wait until the coordinator says so."""
    while not (outcome := await client.status(task_id)).settled:
        await asyncio.sleep(0.01)
    return (outcome.state, outcome.error) == (TaskState.FAILED, CANCELLED)


def children(pid: int) -> set[int]:
    return {child.pid for child in psutil.Process(pid).children()}


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_a_task_that_runs_is_stopped(make_cluster: MakeCluster, contract: bool):
    """Its subprocess is killed, and its slot serves the next task."""
    cluster = make_cluster(1, capacity=1, executor="process")

    async def run() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            (before,) = children(cluster.worker("w1").pid)
            submission = client.submit(*HANG)
            task_id = await submission.id
            while (await client.status(task_id)).state is TaskState.PENDING:
                await asyncio.sleep(0.01)
            assert submission.cancel()
            assert not submission.cancel(), "once is enough"
            with pytest.raises(asyncio.CancelledError):
                await submission
            assert await cancelled(client, task_id)
            assert (await client.submit("0", kind="sleep")).state is TaskState.COMPLETED
            assert before not in children(cluster.worker("w1").pid)

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_a_task_that_waits_is_never_begun(make_cluster: MakeCluster, contract: bool):
    """At the coordinator, where no worker is; whoever awaits it and gives up cancels it just so."""
    cluster = make_cluster(0)

    async def run() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            submissions = client.submit_batch([NewTask(*HANG)] * 3)
            ids = [await submission.id for submission in submissions]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(submissions[0], 0.01)
            waiting = asyncio.ensure_future(submissions[1].outcome)
            waiting.cancel()
            submissions[2].outcome.cancel()
            for task_id in ids:
                assert await cancelled(client, task_id)
            await until(lambda metrics: metrics.queue_depth == 0, client)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_task_that_has_not_left_is_never_sent(make_cluster: MakeCluster):
    """It is taken out of the client's outbox; the coordinator never hears of it."""
    cluster = make_cluster(1)

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            await client.submit("0", kind="sleep")
            under_way = client.submit("0", kind="sleep")  # until it is written, the next ones wait
            kept, forsaken = client.submit_batch([NewTask("0", 1, "sleep"), NewTask(*HANG)])
            forsaken.cancel()
            assert (await kept).settled
            assert (await under_way).settled
            assert forsaken.id.cancelled()
            metrics = await client.metrics()
            assert (metrics.completed, metrics.failed, metrics.queue_depth) == (3, 0, 0)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_task_on_its_way_to_a_full_coordinator_is_cancelled_when_it_arrives(make_cluster: MakeCluster):
    """What the coordinator has can be cancelled although it reads no more submissions."""
    cluster = make_cluster(0, policies=("--max-unsettled", "10", "policies.execution_timeout_s=null"))

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            submissions = client.submit_batch([NewTask(*HANG)] * 100)
            await until(lambda metrics: metrics.queue_depth == 10, client)
            for submission in submissions:
                submission.cancel()
            await until(lambda metrics: metrics.failed == 100, client)
            assert (await client.metrics()).queue_depth == 0

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_cancel_outlives_a_lost_coordinator(make_cluster: MakeCluster):
    """The next coordinator never hears of the cancelled task, and executes the others."""
    cluster = make_cluster(0)

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            kept, forsaken = client.submit_batch([NewTask("0", 1, "sleep"), NewTask(*HANG)])
            await forsaken.id
            cluster.coordinator.kill()
            forsaken.cancel()
            cluster.start_coordinator()
            cluster.start_worker("w1")
            assert (await kept).state is TaskState.COMPLETED
            assert (await client.metrics()).queue_depth == 0

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_that_ends_has_told_what_it_cancelled(make_cluster: MakeCluster):
    """Although nothing gave it the time before."""
    cluster = make_cluster(0)

    async def run() -> tuple[str, Submission]:
        async with AsyncClient(cluster.address) as client:
            submission = client.submit(*HANG)
            task_id = await submission.id
            submission.cancel()
        async with AsyncClient(cluster.address) as client:
            assert (await client.status(task_id)).error == CANCELLED
        return task_id, submission

    asyncio.run(asyncio.wait_for(run(), 60))


def test_the_future_of_a_caller_without_a_loop_cancels_its_task(make_cluster: MakeCluster):
    """Who waits for several futures hears of it; a settled one can't be cancelled."""
    cluster = make_cluster(1, capacity=1)
    with Client(cluster.address) as client:
        (first, second) = client.submit_batch([NewTask(*HANG)] * 2)
        wait_until(lambda: client.metrics().queue_depth == 1)
        assert second.cancel()
        assert first.cancel()
        done, waiting = concurrent.futures.wait([first, second], timeout=30)
        assert (len(done), len(waiting)) == (2, 0)
        wait_until(lambda: client.metrics().failed == 2)
        third = client.submit("0", kind="sleep")
        assert third.result(timeout=30).state is TaskState.COMPLETED
        assert not third.cancel()


def test_anybody_cancels_by_id(make_cluster: MakeCluster):
    """Its submitter is told that it FAILED; a settled task keeps its state; an unknown one is NOT_FOUND."""
    cluster = make_cluster(1, capacity=1)

    async def run() -> None:
        async with AsyncClient(cluster.address) as submitter, AsyncClient(cluster.address) as other:
            settled = await submitter.submit("0", kind="sleep")
            hanging = submitter.submit(*HANG)
            outcome = await other.cancel(await hanging.id)
            assert (outcome.state, outcome.error) == (TaskState.FAILED, CANCELLED)
            assert (await hanging).error == CANCELLED
            assert (await other.cancel(settled.task_id)).state is TaskState.COMPLETED
            with pytest.raises(KeyError):
                await other.cancel("nobody's")
        async with rpc.channel(cluster.address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc.Stub(channel, rpc.CLIENT_STREAM).CancelTask(translate.cancel_request("nobody's"))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_coordinator_that_knows_no_cancel_goes_on(stranger: peers.Coordinator, caplog: pytest.LogCaptureFixture):
    """The caller's future is cancelled all the same, and one line says what that means."""

    async def run() -> None:
        async with AsyncClient(stranger.address) as client:
            submission = client.submit("7")
            await submission.id
            submission.cancel()
        assert [record.message for record in caplog.records if "can't cancel" in record.message] != []

    asyncio.run(asyncio.wait_for(run(), 60))


def test_outcomes_pass_over_what_was_cancelled(make_cluster: MakeCluster, tmp_path: Path):
    """`results` ends although one of the tasks will never have one."""
    cluster = make_cluster(1)

    async def run() -> int:
        async with AsyncClient(cluster.address) as client:
            submissions = client.submit_batch([NewTask("0", 1, "sleep"), NewTask(*HANG), NewTask("0", 1, "sleep")])
            submissions[1].cancel()
            return len([outcome async for _, outcome in client.results(submissions)])

    assert asyncio.run(asyncio.wait_for(run(), 60)) == 2
