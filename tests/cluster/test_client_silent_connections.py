"""A client whose connection has fallen silent makes another one, and gets its results by that."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

import pytest

from orchestrator.cluster import client as client_module
from orchestrator.cluster import link, submitting
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.proxy import Proxy


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SILENCE_S", 0.5), ("ANSWER_S", 0.5)):
        monkeypatch.setattr(link, name, value)
    for module in (client_module, submitting):
        monkeypatch.setattr(module, "DEADLINE_S", 4.0)


@contextlib.asynccontextmanager
async def client_behind_a_proxy(
    cluster: LocalCluster, contract: bool = False
) -> AsyncIterator[tuple[AsyncClient, Proxy]]:
    async with (
        Proxy().passing(int(cluster.address.rpartition(":")[2])) as proxy,
        AsyncClient(f"127.0.0.1:{proxy.port}", contract=contract) as client,
    ):
        yield client, proxy


def test_results_come_by_another_connection(make_cluster: MakeCluster):
    """Those of tasks that were accepted, and of tasks that were sent into the void; each is executed once."""
    cluster = make_cluster(1, capacity=4)

    async def run() -> None:
        async with client_behind_a_proxy(cluster) as (client, proxy):
            accepted = client.submit("1", kind="sleep")
            await accepted.id
            proxy.swallow()
            lost = client.submit("0", kind="sleep")
            for submission in (accepted, lost):
                outcome = await submission
                assert (outcome.state, outcome.attempts) == (TaskState.COMPLETED, 1)
            assert (await client.metrics()).completed == 2, "calls take the new connection, too"
            assert proxy.dialled == 2

    asyncio.run(asyncio.wait_for(run(), 60))


def test_one_that_waited_for_nothing_notices_when_it_does(make_cluster: MakeCluster):
    """Nobody asks by an idle connection; the first task that is submitted finds out."""
    cluster = make_cluster(1)

    async def run() -> None:
        async with client_behind_a_proxy(cluster) as (client, proxy):
            await client.submit("0", kind="sleep")
            proxy.swallow()
            await asyncio.sleep(3 * (link.SILENCE_S + link.ANSWER_S))  # long enough to have noticed
            assert proxy.dialled == 1
            assert (await client.submit("0", kind="sleep")).state is TaskState.COMPLETED
            assert proxy.dialled == 2

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_coordinator_that_stands_still_keeps_its_stream(make_cluster: MakeCluster):
    """It answers nobody, on no connection: when it goes on, the client is where it was."""
    cluster = make_cluster(1, capacity=8)

    async def run() -> None:
        async with client_behind_a_proxy(cluster) as (client, _):
            submissions = client.submit_batch([NewTask("0.5", 1, "sleep")] * 8)
            await submissions[-1].id
            before = client._link.channel
            cluster.coordinator.signal(signal.SIGSTOP)
            await asyncio.sleep(4 * (link.SILENCE_S + link.ANSWER_S))  # the pause itself
            cluster.coordinator.signal(signal.SIGCONT)
            for submission in submissions:
                assert (await submission).attempts == 1
            assert client._link.channel is before

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_that_polls_learns_of_what_was_accepted_by_another_connection(make_cluster: MakeCluster):
    """It executes once, and what is submitted later takes that connection, too."""
    cluster = make_cluster(1, capacity=4)

    async def run() -> None:
        async with client_behind_a_proxy(cluster, contract=True) as (client, proxy):
            accepted = client.submit("1", kind="sleep")
            await accepted.id
            proxy.swallow()
            outcome = await accepted
            assert (outcome.state, outcome.attempts) == (TaskState.COMPLETED, 1)
            assert (await client.submit("0", kind="sleep")).state is TaskState.COMPLETED
            assert proxy.dialled == 2

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
def test_a_question_is_asked_again_by_another_connection(make_cluster: MakeCluster, contract: bool):
    """By a client that waits for no task: its stream is as silent as ever, so the call itself finds out."""
    cluster = make_cluster(1)

    async def run() -> None:
        async with client_behind_a_proxy(cluster, contract) as (client, proxy):
            task_id = (await client.submit("0", kind="sleep")).task_id
            for ask in (client.metrics, lambda: client.status(task_id), lambda: client.cancel(task_id)):
                proxy.swallow()
                before = proxy.dialled
                await ask()
                assert proxy.dialled == before + 1

    asyncio.run(asyncio.wait_for(run(), 60))
