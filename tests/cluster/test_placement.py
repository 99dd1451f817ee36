"""Labels, kinds and affinity keys, live: by streams and by the contract, and across a coordinator's end."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest

from orchestrator.cluster.client import Client, NewTask
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.test_commands import command

BOTH = pytest.mark.parametrize("by_contract", [False, True], ids=["streams", "contract"])
GPU = ("--label", "gpu=a100", "--label", "zone=b")


@BOTH
def test_a_task_waits_for_a_worker_that_has_what_it_requires(make_cluster: MakeCluster, by_contract: bool):
    """Others go on meanwhile, and it goes to that worker as soon as that is there."""
    cluster = make_cluster(1)
    with Client(cluster.address, contract=by_contract) as client:
        demanding = client.submit("0", kind="sleep", requires={"zone": "b", "gpu": "a100"})
        others = client.submit_batch([NewTask("0", kind="sleep")] * 5)
        assert {other.result(30).worker_id for other in others} == {"w1"}
        assert not demanding.done()
        cluster.start_worker("w2", options=GPU).ready(cluster.coordinator)
        assert (demanding.result(30).state, demanding.result().worker_id) == (TaskState.COMPLETED, "w2")


def test_a_worker_gets_only_the_kinds_that_it_takes(make_cluster: MakeCluster):
    """Of those that nobody else takes none is lost."""
    cluster = make_cluster(0)
    cluster.start_worker("w1", options=("--kind", "sleep:a")).ready(cluster.coordinator)
    with Client(cluster.address) as client:
        first, second = client.submit("0", kind="sleep:a"), client.submit("0", kind="sleep:b")
        assert first.result(30).worker_id == "w1"
        cluster.start_worker("w2").ready(cluster.coordinator)
        assert second.result(30).worker_id == "w2"


@BOTH
def test_tasks_of_one_key_go_to_one_worker(make_cluster: MakeCluster, by_contract: bool):
    """And tasks of other keys to others."""
    cluster = make_cluster(4, capacity=50, policies=(*PATIENT, "policies.routing.kind=rendezvous"))
    with Client(cluster.address, contract=by_contract) as client:
        futures = [
            (number % 8, client.submit("0", kind="sleep", affinity_key=f"key-{number % 8}")) for number in range(80)
        ]
        found: dict[int, set[str]] = {}
        for key, future in futures:
            found.setdefault(key, set()).add(future.result(30).worker_id)
    assert all(len(workers) == 1 for workers in found.values())
    assert len(set.union(*found.values())) > 1


def test_what_a_task_requires_survives_its_coordinator(tmp_path: Path):
    """The next one still knows which worker may have it."""
    options = (*PATIENT, "--data", str(tmp_path / "data"))
    with (
        LocalCluster(1, executor="inline", heartbeat_s=0.1, policies=options, log=tmp_path / "log") as cluster,
        Client(cluster.address) as client,
    ):
        demanding = client.submit("0", kind="sleep", key="k", requires="gpu=a100", affinity_key="a")
        client.submit("0", kind="sleep").result(30)
        cluster.coordinator.signal(signal.SIGKILL)
        cluster.coordinator.wait(30)
        cluster.start_coordinator()
        client.submit("0", kind="sleep").result(30)
        assert not demanding.done()
        cluster.start_worker("w2", options=GPU).ready(cluster.coordinator)
        assert demanding.result(30).worker_id == "w2"


@pytest.mark.parametrize("requires", ["gpu", "gpu=a 100", "a=1,a=2"])
def test_what_is_no_label_is_refused_wherever_it_is_given(make_cluster: MakeCluster, requires: str):
    """By the client at once, and by the coordinator whoever sends it."""
    cluster = make_cluster(0)
    with Client(cluster.address) as client, pytest.raises(ValueError, match="a label is"):
        client.submit("0", requires=requires)
    with grpc.insecure_channel(cluster.address) as channel:
        submit = channel.unary_unary(
            f"/{rpc.COORDINATOR.full_name}/SubmitTask",
            wire_pb2.SubmitTaskRequest.SerializeToString,
            wire_pb2.SubmitTaskResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as refused:
            submit(wire_pb2.SubmitTaskRequest(payload="7", requires=requires), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "a label is" in (refused.value.details() or "")


def test_a_worker_with_a_label_that_is_none_is_refused():
    """On the command line, in a sentence."""
    done = command("worker", "--label", "gpu")
    assert done.returncode == 2
    assert "--label: a label is 'gpu', expected name=value" in done.stderr
