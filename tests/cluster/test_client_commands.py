"""Commands that ask a running coordinator: what they print, and with which status they end."""

from __future__ import annotations

import asyncio
import json

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.test_commands import at, facts

HANG = NewTask("100000", 1, "sleep")


def submitted(cluster: LocalCluster, *tasks: NewTask) -> list[str]:
    """Their ids."""

    async def run() -> list[str]:
        async with AsyncClient(cluster.address) as client:
            return [await submission.id for submission in client.submit_batch(tasks)]

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_tasks_are_cancelled_by_their_ids(make_cluster: MakeCluster):
    """Those that run and those that wait; one that is settled stays; an unknown one is told, exit 1."""
    cluster = make_cluster(1, capacity=1)
    done = facts(at(cluster, "submit", "--kind", "sleep", "--payload", "0").stdout)["id"]
    running, waiting, other = submitted(cluster, HANG, HANG, HANG)
    told = at(cluster, "cancel", running, waiting)
    assert told.stdout.splitlines() == [
        f"{running}: FAILED, cancelled by its submitter",
        f"{waiting}: FAILED, cancelled by its submitter",
    ]
    assert (told.returncode, told.stderr) == (0, "")
    mixed = at(cluster, "cancel", "nobody", done, other)
    assert mixed.stdout.splitlines() == [f"{done}: COMPLETED", f"{other}: FAILED, cancelled by its submitter"]
    assert (mixed.returncode, mixed.stderr) == (1, "no task nobody\n")
    assert facts(at(cluster, "status", "--id", running).stdout)["error"] == "cancelled by its submitter"


def test_what_became_of_tasks_is_told_to_programs(make_cluster: MakeCluster):
    """By all that ask for them; what a task does not have is null, and so is the state of one that is unknown."""
    cluster = make_cluster(1, capacity=1)
    done = json.loads(at(cluster, "submit", "--kind", "sleep", "--payload", "0", "--json").stdout)
    assert (done["state"], done["error"]) == ("COMPLETED", None)
    asked = json.loads(at(cluster, "status", "--id", done["id"], "--json").stdout)
    assert {name: asked[name] for name in done} | {"latency_s": None} == done | {"latency_s": None}
    assert (asked["attempts"], asked["worker"], asked["held"], asked["failures"]) == (1, "w1", [], [])
    [hanging] = submitted(cluster, HANG)
    told = json.loads(at(cluster, "cancel", "nobody", hanging, "--json").stdout)
    assert told[0] == {"id": "nobody", "state": None}
    assert (told[1]["state"], told[1]["result"]) == ("FAILED", None)
    batch = json.loads(at(cluster, "submit", "--batch", "3", "--kind", "sleep", "--payload", "0", "--json").stdout)
    assert [task["state"] for task in batch["tasks"]] == ["COMPLETED"] * 3


def test_metrics_are_told_to_people_and_to_programs(make_cluster: MakeCluster):
    """The same names; what is not known is `unknown` and null; milliseconds have fractions."""
    cluster = make_cluster(1, capacity=1)
    before = at(cluster, "metrics", "--json")
    assert json.loads(before.stdout)["latency_p99_ms"] is None
    assert facts(at(cluster, "metrics").stdout)["execution_p50_ms"] == "unknown"
    at(cluster, "submit", "--batch", "5", "--kind", "sleep", "--payload", "0.05")
    told = json.loads(at(cluster, "metrics", "--json").stdout)
    assert [name for name in told if "at_least" not in name] == list(facts(at(cluster, "metrics").stdout))
    assert (told["completed"], told["failed"], told["timeouts"], told["refused_results"]) == (5, 0, 0, 0)
    assert 50 <= told["execution_p50_ms"] < told["latency_p99_ms"]
    assert told["execution_p50_ms"] % 1 != 0
    at(cluster, "submit", "--batch", "5", "--payload", "none")
    told = json.loads(at(cluster, "metrics", "--json").stdout)
    assert (told["completed"], told["failed"], told["latency_p99_ms"]) == (5, 5, None)
    assert told["latency_p99_at_least_ms"] >= told["latency_p50_ms"]
    shown = facts(at(cluster, "metrics").stdout)
    assert shown["latency_p99_ms"] == f"> {told['latency_p99_at_least_ms']:.3f}"
    assert (shown["queue_depth"], shown["queue_at_workers"]) == ("0", "0")
