"""A coordinator that keeps what it acknowledged, whenever it is killed and whatever its disk does."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.store import SqliteStore
from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady
from tests.cluster import kill_points
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.kill_points import FOLDER, POINTS
from tests.planted import ROOT

ROUND = 40


async def ended(cluster: LocalCluster) -> int:
    """The coordinator's exit status. What it has said until then is read."""
    while cluster.coordinator.status is None:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    return cluster.coordinator.status


def require_kept(folder: Path, submissions: list[Submission]) -> None:
    """Whatever the client was told is in the store."""
    store = SqliteStore(folder)
    kept = {task.id: task for task in store.tasks()}
    store.close()
    accepted = [submission for submission in submissions if submission.id.done()]
    assert {submission.id.result() for submission in accepted} <= set(kept)
    for submission in submissions:
        if submission.outcome.done():
            outcome = submission.outcome.result()
            assert (kept[outcome.task_id].state, kept[outcome.task_id].attempt) == (outcome.state, outcome.attempts)


def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(
    make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The coordinator dies at each point of a commit, twice, and between, while its workers work on."""
    rng = random.Random(11)
    data = tmp_path / "data"
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("PLANTED_BUG", f"{kill_points.__name__}:{kill_points.plant.__name__}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)]))
    plan = [f"{point} {number}" for point in POINTS for number in (1, 4)]
    rng.shuffle(plan)
    (tmp_path / "kill").write_text(plan[0])
    cluster = make_cluster(3, capacity=4, prefetch=2, policies=(*PATIENT, "--data", str(data)))

    async def story() -> None:
        submissions: list[Submission] = []
        async with AsyncClient(cluster.address) as client:
            for next_kill in [*plan[1:], "never 0"]:
                tasks = [NewTask(str(rng.choice([0, 0, 0.01, 0.1])), kind="sleep") for _ in range(ROUND)]
                submissions += client.submit_batch(tasks)
                assert await ended(cluster) == -signal.SIGKILL
                require_kept(data, submissions)
                (tmp_path / "kill").write_text(next_kill)
                cluster.start_coordinator()
            submissions += client.submit_batch([NewTask("0.01", kind="sleep")] * ROUND)
            await submissions[-1].id
            cluster.coordinator.kill()
            require_kept(data, submissions)
            cluster.start_coordinator()
            outcomes = [await submission for submission in submissions]
        assert {outcome.state.name for outcome in outcomes} == {"COMPLETED"}
        executed = Counter((tmp_path / "executed").read_text().splitlines())
        assert executed == Counter(outcome.task_id for outcome in outcomes)
        assert len(outcomes) == ROUND * (len(plan) + 1)

    asyncio.run(asyncio.wait_for(story(), 100))
