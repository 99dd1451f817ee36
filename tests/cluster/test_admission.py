"""A coordinator for which too many tasks wait: it refuses submissions, and clients make them again or give up."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import pytest

from orchestrator.cluster.client import AsyncClient, NewTask, Overloaded
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.core.model import Priority, TaskState
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.test_commands import at, command, facts
from tests.cluster.test_time_limits import BOTH, run

FULL = (*PATIENT, "--max-waiting", "2")
QUICK = NewTask("0", kind="sleep")
WHY = "2 tasks wait: no more of normal priority are taken at present"


def test_the_contract_says_resource_exhausted(make_cluster: MakeCluster):
    """While two tasks wait, and of low priority while one does; nothing that was accepted is lost."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> None:
        async with rpc.channel(cluster.address) as channel, AsyncClient(cluster.address) as client:
            submit = rpc.Stub(channel, rpc.COORDINATOR).SubmitTask

            async def accepted(priority: Priority) -> str:
                request = wire_pb2.SubmitTaskRequest(payload="0", kind="sleep", priority=priority.name)
                return str((await submit(request)).task_id)

            first, second = await accepted(Priority.LOW), await accepted(Priority.NORMAL)
            for priority in (Priority.LOW, Priority.URGENT):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await accepted(priority)
                assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert refused.value.details() == WHY.replace("normal", priority.name.lower())
            metrics = await client.metrics()
            assert (metrics.queue_depth, metrics.refused_submissions) == (2, 2)
            cluster.start_worker("w1").ready(cluster.coordinator)
            outcomes = [(await client.status(task_id)).state for task_id in (first, second)]
            while set(outcomes) != {TaskState.COMPLETED}:
                outcomes = [(await client.status(task_id)).state for task_id in (first, second)]
            assert await accepted(Priority.LOW)

    run(story())


@BOTH
def test_a_client_submits_again_until_there_is_room(
    make_cluster: MakeCluster, by_contract: bool, caplog: pytest.LogCaptureFixture
):
    """Every task is executed once, and a line says that they wait."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> list[Any]:
        async with AsyncClient(cluster.address, contract=by_contract) as client:
            submissions = client.submit_batch([QUICK] * 20)
            while (await client.metrics()).refused_submissions < 20:
                await asyncio.sleep(0.01)
            cluster.start_worker("w1").ready(cluster.coordinator)
            return [await submission for submission in submissions]

    with caplog.at_level(logging.WARNING):
        outcomes = run(story())
    assert [(outcome.state, outcome.attempts) for outcome in outcomes] == [(TaskState.COMPLETED, 1)] * 20
    told = [record.getMessage() for record in caplog.records if "has no room for" in record.getMessage()]
    assert told[0].endswith(f"tasks, which are submitted again: {WHY}")
    assert len(told) == 1


@BOTH
def test_a_client_gives_up_when_its_time_is_over(make_cluster: MakeCluster, by_contract: bool):
    """What was accepted goes on, and what is submitted afterwards has its own time."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> None:
        async with AsyncClient(cluster.address, contract=by_contract, give_up_after_s=0.2) as client:
            accepted = client.submit_batch([QUICK] * 2)
            ids = [await submission.id for submission in accepted]
            refused = client.submit_batch([QUICK] * 5)
            for submission in refused:
                with pytest.raises(Overloaded, match=WHY):
                    await submission
            cluster.start_worker("w1").ready(cluster.coordinator)
            assert [(await submission).task_id for submission in accepted] == ids
            assert (await client.submit(*QUICK)).state is TaskState.COMPLETED
            metrics = await client.metrics()
            assert (metrics.completed, metrics.refused_submissions >= 5) == (3, True)

    run(story())


@BOTH
def test_a_task_that_is_cancelled_while_it_is_refused_is_never_executed(make_cluster: MakeCluster, by_contract: bool):
    """Nobody has to be told."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> None:
        async with AsyncClient(cluster.address, contract=by_contract) as client:
            accepted = client.submit_batch([QUICK] * 2)
            for submission in accepted:
                await submission.id
            refused = client.submit_batch([QUICK] * 3)
            while len(client._resubmissions._timers) < 3:  # or else one may be on its way, again or for the first time
                await asyncio.sleep(0.001)
            for submission in refused:
                submission.cancel()
            cluster.start_worker("w1").ready(cluster.coordinator)
            for submission in accepted:
                await submission
            await client.submit(*QUICK)
            assert (await client.metrics()).completed == 3
            for submission in refused:
                assert submission.id.cancelled()

    run(story())


def test_what_was_refused_survives_a_restart_of_the_coordinator(make_cluster: MakeCluster):
    """The client submits it to the next one, which has room."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            submissions = client.submit_batch([QUICK] * 6)
            while (await client.metrics()).refused_submissions < 4:
                await asyncio.sleep(0.01)
            cluster.coordinator.kill()
            cluster.coordinator.wait(20)
            cluster.start_coordinator()
            cluster.start_worker("w1").ready(cluster.coordinator)
            assert {(await submission).state for submission in submissions} == {TaskState.COMPLETED}

    run(story())


def test_a_key_that_was_refused_is_free(make_cluster: MakeCluster):
    """It is the key of the task that is accepted in the end."""
    cluster = make_cluster(0, policies=FULL)

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            accepted = client.submit_batch([QUICK] * 2)
            for submission in accepted:
                await submission.id
            keyed = client.submit_batch([QUICK._replace(key="order"), QUICK._replace(key="order")])
            while (await client.metrics()).refused_submissions < 2:
                await asyncio.sleep(0.01)
            cluster.start_worker("w1").ready(cluster.coordinator)
            first, second = [await submission for submission in keyed]
            assert first.task_id == second.task_id
            assert (await client.metrics()).completed == 3

    run(story())


def test_giving_up_on_the_command_line(make_cluster: MakeCluster):
    """In a sentence, exit 1, and a line before says what is waited for."""
    cluster = make_cluster(0, policies=FULL)
    at(cluster, "submit", "--kind", "sleep", "--payload", "0", "--batch", "2", "--timeout", "0.5")
    given_up = at(cluster, "submit", "--kind", "sleep", "--payload", "0", "--give-up-after", "0.5")
    first, last = given_up.stderr.splitlines()[:1], given_up.stderr.splitlines()[-1]
    assert (given_up.returncode, last) == (1, f"given up: {WHY}")
    assert "has no room for 1 tasks" in first[0]
    assert int(facts(at(cluster, "metrics").stdout)["refused_submissions"]) >= 1
    wrong = command("coordinator", "--port", "0", "--max-waiting", "0")
    assert (wrong.returncode, "--max-waiting 0: 1 to 10,000,000 tasks may wait" in wrong.stderr) == (2, True)
