"""The live cluster's commands, as their users call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.cluster", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def at(cluster: LocalCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command(*arguments, "--coordinator", cluster.address)


def facts(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_a_task_is_submitted_and_asked_for(make_cluster: MakeCluster):
    """Its id, its state, its result, its latency; the same by `status`."""
    cluster = make_cluster(1, executor="thread")
    submitted = facts(at(cluster, "submit", "--payload", "97", "--priority", "3").stdout)
    assert (submitted["state"], submitted["result"]) == ("COMPLETED", "97 is prime")
    asked = at(cluster, "status", "--id", submitted["id"])
    assert facts(asked.stdout)["result"] == "97 is prime"


def test_a_batch_draws_its_own_numbers(make_cluster: MakeCluster):
    """Submitted, completed, failed, total time and latencies; the metrics count them too."""
    cluster = make_cluster(2, executor="thread")
    batch = facts(at(cluster, "submit", "--batch", "50", "--random-priority").stdout)
    assert (batch["submitted"], batch["completed"], batch["failed"]) == ("50", "50", "0")
    assert batch["total time"].endswith(" s")
    assert batch["latency"].startswith("average ")
    assert facts(at(cluster, "metrics").stdout)["completed"] == "50"


def test_failures_are_told(make_cluster: MakeCluster):
    """A failed task, an unknown one, a refused one, and no coordinator at all: a sentence and a status each."""
    cluster = make_cluster(1, executor="thread")
    failed = at(cluster, "submit", "--payload", "seven")
    assert failed.returncode == 1
    assert facts(failed.stdout)["error"].startswith("invalid payload: ")
    unknown = at(cluster, "status", "--id", "nobody")
    assert (unknown.returncode, unknown.stderr) == (1, "no task nobody\n")
    refused = at(cluster, "submit", "--payload", "")
    assert (refused.returncode, refused.stderr) == (2, "refused: the payload is empty\n")
    alone = command("metrics", "--coordinator", "127.0.0.1:1")
    assert alone.returncode == 1
    assert alone.stderr.startswith("UNAVAILABLE: ")
    assert "Traceback" not in failed.stderr + unknown.stderr + refused.stderr + alone.stderr


def test_broken_policies_are_explained():
    """Exit 2, with the key."""
    done = command("coordinator", "--port", "0", "policies.routing.kind=astrology")
    assert done.returncode == 2
    assert "routing.kind: unknown kind" in done.stderr


def test_a_decision_record_is_replayed(make_cluster: MakeCluster, tmp_path: Path):
    """By its folder or its file."""
    cluster = make_cluster(1)
    at(cluster, "submit", "--batch", "20", "--kind", "sleep", "--payload", "0")
    cluster.coordinator.terminate()
    assert cluster.coordinator.wait(10) == 0
    (record,) = tmp_path.glob("*decisions*")
    done = command("replay", str(record))
    assert done.returncode == 0
    assert "decided the same" in done.stdout
    assert [one["same"] for one in json.loads(command("replay", str(record), "--json").stdout)] == [True]
    assert command("replay", str(tmp_path / "nothing")).returncode == 2
