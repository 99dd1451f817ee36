"""Coordinators that record what they decide, as processes: killed, started again, and where nothing can be written."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.decision_record import NAME, Recorded, told
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.test_commands import command


def settle(cluster: LocalCluster, count: int) -> None:
    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            for submission in client.submit_batch([NewTask("0", kind="sleep")] * count):
                assert (await submission).state.name == "COMPLETED"

    asyncio.run(asyncio.wait_for(story(), 60))


def results(path: Path) -> int:
    return sum(item.arguments[0].succeeded for item in Recorded(path).inputs(["result"]))


def test_a_killed_coordinator_has_recorded_all_but_its_last_second(make_cluster: MakeCluster, tmp_path: Path):
    """Also what happened before it became idle. The next one appends, and both are decided again."""
    cluster = make_cluster(2)
    path = tmp_path / f"0-{NAME}"
    settle(cluster, 30)
    wait_until(lambda: results(path) == 30)  # although nothing but heartbeats follows
    cluster.coordinator.kill()
    cluster.start_coordinator()
    settle(cluster, 20)
    cluster.coordinator.terminate()
    assert cluster.coordinator.wait(20) == 0
    assert results(path) == 50
    killed, ended = told(path)
    assert killed[0]
    assert "it did not end in order" in killed[1]
    assert ended[0]
    assert ended[1].endswith("inputs decided the same")
    said = command("replay", str(path))
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.splitlines() == [killed[1], ended[1]]


def test_what_came_before_nothing_happens_any_more_is_recorded(make_cluster: MakeCluster, tmp_path: Path):
    """Tasks of one message, of which nothing follows for want of a worker: a timer flushes."""
    cluster = make_cluster(0)

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            submissions = client.submit_batch([NewTask("0", kind="sleep")] * 10)
            for submission in submissions:
                await submission.id
            while len(list(Recorded(tmp_path / f"0-{NAME}").inputs(["submit"]))) < 10:
                await asyncio.sleep(0.05)

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_coordinator_whose_disk_is_full_serves_on(tmp_path: Path):
    """It says once that nothing is recorded any more, and what was recorded until then is decided again."""
    path, log = tmp_path / NAME, tmp_path / "log"
    with LocalCluster(
        1, executor="inline", heartbeat_s=0.1, policies=["--decision-record", str(path)], log=log
    ) as cluster:
        settle(cluster, 1)
        wait_until(lambda: results(path) == 1)
        resource.prlimit(cluster.coordinator.pid, resource.RLIMIT_FSIZE, (path.stat().st_size + 10_000,) * 2)
        settle(cluster, 300)
        wait_until(lambda: "cannot write the decision record" in log.read_text())
        settle(cluster, 300)
        cluster.coordinator.terminate()
        assert cluster.coordinator.wait(20) == 0
    assert log.read_text().count("cannot write the decision record") == 1
    assert "Traceback" not in log.read_text()
    [(same, sentence)] = told(path)
    assert same
    assert "it did not end in order" in sentence


def test_a_coordinator_that_cannot_record_does_not_begin(tmp_path: Path):
    """Exit 2 and one sentence, the same for a record that another one writes to; the old option names the new one."""
    run = partial(subprocess.run, capture_output=True, text=True, timeout=60, check=False)
    coordinator = (sys.executable, "-m", "orchestrator.cli.cluster", "coordinator", "--port", "0")
    for where, reason in ((tmp_path, "Is a directory"), (Path("/dev/full"), "No space left on device")):
        done = run([*coordinator, "--decision-record", str(where)])
        assert (done.returncode, done.stderr) == (2, f"cannot write the decision record {where}: {reason}\n")
    done = run([*coordinator, "--journal", "x"])
    assert (done.returncode, done.stderr) == (2, "--journal is no longer an option: give --decision-record FILE\n")
    with LocalCluster(policies=["--decision-record", str(tmp_path / NAME)], log=tmp_path / "log"):
        done = run([*coordinator, "--decision-record", str(tmp_path / NAME)])
        assert (done.returncode, done.stderr) == (
            2,
            f"cannot write the decision record {tmp_path / NAME}: another process writes to it\n",
        )


def test_a_difference_is_told_with_exit_code_1(make_cluster: MakeCluster, tmp_path: Path):
    """Its place, both decisions, and that others were the same."""
    cluster = make_cluster(1)
    settle(cluster, 3)
    cluster.coordinator.terminate()
    assert cluster.coordinator.wait(20) == 0
    path = tmp_path / f"0-{NAME}"
    changed = tmp_path / "changed"
    changed.write_text(path.read_text().replace('"COMPLETED"', '"FAILED"', 1))
    done = command("replay", str(changed))
    assert done.returncode == 1
    assert f"then otherwise:\n{changed}:" in done.stdout
    assert "Traceback" not in done.stderr
    for nothing in (tmp_path / "nothing", tmp_path / "log"):
        done = command("replay", str(nothing))
        assert done.returncode == 2
        assert done.stderr.startswith(str(nothing))
        assert len(done.stderr.splitlines()) == 1
