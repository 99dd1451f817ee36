"""A disk that fails while a coordinator serves: it stops before it says anything that is not stored."""

from __future__ import annotations

import asyncio
import errno
import os
from collections import Counter, defaultdict
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.submissions import CoordinatorStopped
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster import kill_points
from tests.cluster.conftest import PATIENT
from tests.cluster.faulty_disk import FaultyDisk, Written, lay
from tests.cluster.test_kept_tasks import require_kept
from tests.planted import ROOT

TASKS = [NewTask("0.01", kind="sleep", key=f"k{number}") for number in range(200)]


def certain(disk: FaultyDisk, folder: Path) -> Path:
    """The store as it would be if the power failed now."""
    files: defaultdict[str, Written] = defaultdict(Written)
    for change in disk.changes():
        files[change.file].take(change)
    return lay(folder, {name: bytes(file.durable) for name, file in files.items()})


@pytest.mark.parametrize(
    ("calls", "error", "said"),
    [("s", errno.EIO, "disk I/O error"), ("w", errno.ENOSPC, "database or disk is full")],
    ids=["EIO", "full"],
)
def test_a_disk_that_fails_stops_the_coordinator_before_it_acknowledges(
    calls: str, error: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Exit 70, and clients are told why. If the power failed then, nothing would be missing of which anybody was told;
    the next coordinator on the healed disk has it all, and every task is executed once. Nothing of what could not be
    synced is taken for stored, although it can be read."""
    data, log = tmp_path / "data", tmp_path / "log"
    disk = FaultyDisk(data, tmp_path)
    for name, value in disk.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(kill_points.FOLDER, str(tmp_path))
    monkeypatch.setenv("PLANTED_BUG", f"{kill_points.__name__}:{kill_points.tell.__name__}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)]))
    policies = [*PATIENT, "--check", "--data", str(data)]
    with LocalCluster(2, capacity=4, executor="inline", heartbeat_s=0.1, policies=policies, log=log) as cluster:
        submissions: list[Submission] = []

        async def until_it_fails() -> None:
            async with AsyncClient(cluster.address) as client:
                submissions.extend(client.submit_batch(TASKS))
                await submissions[20]
                disk.fail(calls, error)
                await asyncio.gather(*(submission.outcome for submission in submissions))

        async def again() -> list[Submission]:
            async with AsyncClient(cluster.address) as client:
                submissions = client.submit_batch(TASKS)
                await asyncio.gather(*(submission.outcome for submission in submissions))
            return submissions

        with pytest.raises(CoordinatorStopped, match=rf"cannot write the store .*tasks\.sqlite: {said}"):
            asyncio.run(asyncio.wait_for(until_it_fails(), 60))
        told = [one for one in submissions if one.id.done() and one.id.exception() is None]
        assert cluster.coordinator.wait(20) == 70
        assert any(submission.outcome.exception() is None for submission in told)
        require_kept(certain(disk, tmp_path / "then"), told)
        disk.heal()
        cluster.start_coordinator()
        found = asyncio.run(asyncio.wait_for(again(), 60))
        cluster.coordinator.kill()
    require_kept(certain(disk, tmp_path / "at the end"), found)
    ids = {submission.task.key: submission.id.result() for submission in found}
    assert all(ids[submission.task.key] == submission.id.result() for submission in told)
    assert Counter((tmp_path / "executed").read_text().splitlines()) == Counter(ids.values())
    assert "Traceback" not in log.read_text()


def test_a_coordinator_whose_store_is_no_longer_written_stops_at_once(tmp_path: Path):
    """Exit 70, although nothing is to be stored: the process that writes for it was killed."""
    log = tmp_path / "log"
    policies = [*PATIENT, "--check", "--data", str(tmp_path / "data")]
    with LocalCluster(1, heartbeat_s=0.1, policies=policies, log=log) as cluster:
        (writer,) = psutil.Process(cluster.coordinator.pid).children()
        writer.kill()
        assert cluster.coordinator.wait(20) == 70
    assert "the process that writes it was killed by SIGKILL" in log.read_text()
    assert "Traceback" not in log.read_text()
