"""Streams of real processes break: who returns as the same process goes on, who returns as another has nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.decision_record import NAME, Recorded
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract.peers import wait_until


def fragile(make_cluster: MakeCluster) -> LocalCluster:
    """A worker behind a network that breaks when it is told to."""
    cluster = make_cluster(0)
    cluster.start_relay("w1").ready()
    cluster.start_worker("w1", options=("--capacity", "4")).ready()
    return cluster


def outcomes_of(cluster: LocalCluster, tasks: list[NewTask], meanwhile: list[float]) -> list[Outcome]:
    """`meanwhile`: after how many seconds each the network breaks."""

    async def story() -> list[Outcome]:
        relay = cluster.relay("w1")
        assert relay is not None
        async with AsyncClient(cluster.address) as client:
            submissions = client.submit_batch(tasks)
            await submissions[0].id
            for seconds in meanwhile:
                await asyncio.sleep(seconds)
                relay.control({"broken": True})
            return [await submission for submission in submissions]

    return asyncio.run(asyncio.wait_for(story(), 30))


def test_a_worker_whose_stream_breaks_goes_on_with_its_attempts(make_cluster: MakeCluster, tmp_path: Path):
    """Those that it finishes while it is away included: none is started twice."""
    cluster = fragile(make_cluster)
    tasks = [NewTask(seconds, kind="sleep") for seconds in ("0.2", "0.25", "0.6", "1.5")]
    outcomes = outcomes_of(cluster, tasks, [0.2, 0.3])
    assert [(outcome.state.name, outcome.attempts) for outcome in outcomes] == [("COMPLETED", 1)] * 4
    (path,) = tmp_path.glob(f"*{NAME}")
    inputs = list(Recorded(path).inputs())
    assert [item.name for item in inputs if item.name in ("register", "reconnected")] == [
        "register",
        "reconnected",
        "reconnected",
    ]
    assigned = [effect for item in inputs for effect in item.effects or () if effect[0] == "assign"]
    assert len(assigned) == 4


def test_many_breaks_lose_nothing_and_settle_nothing_twice(make_cluster: MakeCluster):
    """What was on its way when the network broke is sent again, as another attempt where it never arrived."""
    cluster = fragile(make_cluster)
    outcomes = outcomes_of(cluster, [NewTask("0.01", kind="sleep")] * 300, [0.05] * 8)
    assert {outcome.state.name for outcome in outcomes} == {"COMPLETED"}


def test_another_process_of_that_name_has_lost_them(make_cluster: MakeCluster, tmp_path: Path):
    """They are requeued at once, long before a detector would have noticed."""
    cluster = make_cluster(1)

    async def story() -> Outcome:
        async with AsyncClient(cluster.address) as client:
            submission = client.submit("0.5", kind="sleep")
            await submission.id
            cluster.worker("w1").kill()
            cluster.start_worker("w1")
            return await submission

    outcome = asyncio.run(asyncio.wait_for(story(), 20))
    assert (outcome.attempts, outcome.worker_id) == (2, "w1")
    wait_until(lambda: "up reregistered" in (tmp_path / "log").read_text())
