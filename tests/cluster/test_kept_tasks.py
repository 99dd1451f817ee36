"""A coordinator that keeps what it acknowledged, whenever it is killed and whatever its disk does."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.store import SqliteStore
from orchestrator.cluster.wire import contract, rpc
from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady
from tests.cluster import kill_points
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.kill_points import FOLDER, FORGETTING, KEPT, MOVING, POINTS, RECOVERY
from tests.planted import ROOT

ROUND = 40
RECENT = 2 * ROUND
assert RECENT < KEPT


async def ended(cluster: LocalCluster) -> int:
    """The coordinator's exit status. What it has said until then is read."""
    while cluster.coordinator.status is None:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)
    return cluster.coordinator.status


def require_kept(folder: Path, submissions: list[Submission]) -> None:
    """Whatever the client was told is in the store, which is not touched."""
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.iterdir():
            shutil.copy(file, copy)
        store = SqliteStore(Path(copy))
        kept = {task.id: task for task in store.tasks()}
        store.close()
    accepted = [submission for submission in submissions if submission.id.done()]
    assert {submission.id.result() for submission in accepted} <= set(kept)
    for submission in submissions:
        if submission.outcome.done() and submission.outcome.exception() is None:
            outcome = submission.outcome.result()
            assert (kept[outcome.task_id].state, kept[outcome.task_id].attempt) == (outcome.state, outcome.attempts)


def test_nothing_acknowledged_is_lost_and_nothing_runs_twice(
    make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The coordinator dies at each point of a commit, of moving tasks to their rows, of forgetting what is old, of
    reading what is stored, and between, while its workers work on."""
    rng = random.Random(11)
    data = tmp_path / "data"
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv("PLANTED_BUG", f"{kill_points.__name__}:{kill_points.plant.__name__}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)]))
    plan = [f"{point} {number}" for point, number in zip((*POINTS, *POINTS[::3]), (1, 4, 1, 4, 4, 1), strict=True)]
    rng.shuffle(plan)
    plan += [f"{point} 2" for point in (*MOVING, *FORGETTING)]
    while_it_begins = dict(zip(plan[-len(RECOVERY) :], [f"{point} 0" for point in RECOVERY], strict=True))
    (tmp_path / "kill").write_text(plan[0])
    cluster = make_cluster(3, capacity=4, prefetch=2, policies=(*PATIENT, "--data", str(data)))

    async def story() -> None:
        submissions: list[Submission] = []
        async with AsyncClient(cluster.address) as client:
            for this_kill, next_kill in pairwise([*plan, "never 0"]):
                tasks = [NewTask(str(rng.choice([0, 0, 0.01, 0.1])), kind="sleep") for _ in range(ROUND)]
                submissions += client.submit_batch(tasks)
                assert await ended(cluster) == -signal.SIGKILL
                require_kept(data, submissions[-RECENT:])
                if this_kill in while_it_begins:
                    (tmp_path / "kill").write_text(while_it_begins[this_kill])
                    with pytest.raises(NotReady, match=f"exit status {-signal.SIGKILL}"):
                        cluster.start_coordinator()
                    require_kept(data, submissions[-RECENT:])
                (tmp_path / "kill").write_text(next_kill)
                cluster.start_coordinator()
            submissions += client.submit_batch([NewTask("0.01", kind="sleep")] * ROUND)
            await submissions[-1].id
            cluster.coordinator.kill()
            require_kept(data, submissions[-RECENT:])
            cluster.start_coordinator()
            outcomes = [await submission for submission in submissions]
        assert {outcome.state.name for outcome in outcomes} == {"COMPLETED"}
        executed = Counter((tmp_path / "executed").read_text().splitlines())
        assert executed == Counter(outcome.task_id for outcome in outcomes)
        assert len(outcomes) == ROUND * (len(plan) + 1)

    asyncio.run(asyncio.wait_for(story(), 100))


def test_tasks_in_hand_outlive_a_coordinator_that_ends_in_order(tmp_path: Path):
    """Whoever asks the next one for them by the wire contract learns their results; the log says what was read."""
    data, log = tmp_path / "data", tmp_path / "log"
    with LocalCluster(0, executor="inline", heartbeat_s=0.1, policies=["--data", str(data)], log=log) as cluster:

        async def submitted() -> str:
            async with AsyncClient(cluster.address, contract=True) as client:
                return await client.submit_batch([NewTask("0", kind="sleep")])[0].id

        async def completed(task_id: str) -> None:
            async with rpc.channel(cluster.address) as channel:
                ask = rpc.Stub(channel, rpc.COORDINATOR).GetTaskStatus
                while not contract.outcome_of_status(await ask(contract.status_request(task_id))).settled:
                    await asyncio.sleep(0.01)

        task_id = asyncio.run(asyncio.wait_for(submitted(), 60))
        cluster.coordinator.terminate()
        assert cluster.coordinator.wait(20) == 0
        cluster.start_coordinator()
        cluster.start_worker("w1").ready(cluster.coordinator)
        asyncio.run(asyncio.wait_for(completed(task_id), 60))
        refused = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli.cluster", "coordinator", "--port", "0", "--data", str(data)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        said = f"another process uses the store {data}: its id is {cluster.coordinator.pid}\n"
        assert (refused.returncode, refused.stderr) == (2, said)
    assert "1 tasks in hand and 0 settled ones are as they were" in log.read_text()
    assert "they are lost" not in log.read_text()
