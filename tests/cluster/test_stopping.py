"""A fault inside the coordinator ends its process, loudly: nothing is served on from a state of unknown worth."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from orchestrator.cluster.client import AsyncClient, CoordinatorStopped, NewTask
from orchestrator.cluster.decision_record import Recorded, replay
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.lines import lines

SENTENCE = "the routing policy tests.cluster.lame:Lame raised in choose: ZeroDivisionError: by zero"


@pytest.fixture
def broken(tmp_path: Path):
    """A cluster whose routing policy raises at its hundredth call."""
    policies = [
        *("routing.kind=tests.cluster.lame:Lame", "routing.after=100"),
        *("--decision-record", str(tmp_path / "record")),
    ]
    with LocalCluster(2, capacity=4, executor="inline", policies=policies, log=tmp_path / "log") as cluster:
        yield cluster


def test_a_policy_that_raises_ends_the_coordinator_and_everybody_is_told(broken: LocalCluster, tmp_path: Path):
    """Exit 70, one sentence that names policy, method and what was raised, and a record that is complete to there."""

    async def submit(count: int, contract: bool) -> None:
        async with AsyncClient(broken.address, contract=contract) as client:
            submissions = client.submit_batch([NewTask("0.01", kind="sleep")] * count)
            for submission in submissions:
                await submission

    async def story() -> list[object]:
        clients = [submit(200, False), submit(200, False), submit(400, True)]
        return list(await asyncio.gather(*clients, return_exceptions=True))

    told = asyncio.run(asyncio.wait_for(story(), 30))
    assert [(type(error), str(error)) for error in told[:2]] == [
        (CoordinatorStopped, f"the coordinator stopped: {SENTENCE}")
    ] * 2
    assert isinstance(told[2], CoordinatorStopped | grpc.aio.AioRpcError)
    assert broken.coordinator.wait(10) == 70
    critical = [line["event"] for line in lines(tmp_path / "log") if line.get("level") == "critical"]
    assert critical == [f"the coordinator stopped: {SENTENCE}"]
    last = list(Recorded(tmp_path / "record").inputs())[-1]
    assert last.raised == "ZeroDivisionError: by zero"
    _, difference, remark = replay(tmp_path / "record")
    assert difference is None
    assert remark is not None
    assert f"the input {last.name}(" in remark
    assert remark.endswith("raised ZeroDivisionError: by zero; the replay raises the same")


def test_workers_outlive_their_coordinator(broken: LocalCluster):
    """They wait for the next one, which need not know of the fault."""

    async def two_hundred() -> None:
        async with AsyncClient(broken.address) as client:
            for submission in client.submit_batch([NewTask("0", kind="sleep")] * 200):
                await submission

    async def one_more() -> bool:
        async with AsyncClient(broken.address) as client:
            return (await client.submit("0", kind="sleep")).settled

    with pytest.raises(CoordinatorStopped):
        asyncio.run(asyncio.wait_for(two_hundred(), 30))
    assert broken.coordinator.wait(10) == 70
    broken.start_coordinator()
    assert asyncio.run(asyncio.wait_for(one_more(), 30))
    assert [broken.worker(name).status for name in broken.names] == [None, None]
