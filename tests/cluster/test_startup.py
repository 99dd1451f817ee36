"""What a process of the product needs: no scenario, and nothing that is heavy."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady, Process
from tests.cluster.test_commands import command

HEAVY = {"numpy", "pandas", "pyarrow", "matplotlib", "scipy", "simpy", "orchestrator.scenario.schema"}


@pytest.mark.parametrize("keys", [[], ["routing.kind=random"]], ids=["by default", "with policies"])
def test_no_process_of_the_product_imports_what_is_heavy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: list[str]
):
    """Coordinator and worker, from their start until they have ended. Only keys need the reader of scenarios."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    policies = [*keys, "--decision-record", str(tmp_path / "record")]
    with LocalCluster(1, policies=policies, log=tmp_path / "log") as cluster:
        cluster.worker("w1").terminate()
        assert cluster.worker("w1").wait(10) == 0
        cluster.coordinator.terminate()
        assert cluster.coordinator.wait(10) == 0
    lines = (tmp_path / "log").read_text().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert {"orchestrator.cluster.worker_process", "orchestrator.cluster.services"} <= imported
    assert not imported & HEAVY
    assert keys or "orchestrator.scenario" not in imported


def test_policies_come_from_a_file_and_from_the_command_line(tmp_path: Path):
    """The line wins; with a scenario there is no file of policies besides."""
    file = tmp_path / "policies.yaml"
    file.write_text("detection: {kind: timeout, heartbeat_s: 0.5}\nrouting: {kind: astrology}\n")
    done = command("coordinator", "--port", "0", "--policies", str(file))
    assert done.returncode == 2
    assert f"{file}:2:17: routing.kind: unknown kind" in done.stderr
    with LocalCluster(1, policies=["--policies", str(file), "routing.kind=random"], log=tmp_path / "log") as cluster:
        assert cluster.worker("w1").status is None
    both = command("coordinator", "--policies", str(file), "--scenario", str(file))
    assert both.returncode == 2
    assert "both given" in both.stderr


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (("worker", "--heartbeat", "1"), "detection.heartbeat_s=SECONDS"),
        (("worker", "--rpc-timeout", "1"), "--call-timeout SECONDS"),
        (("coordinator", "--journal", "x"), "--decision-record FILE"),
    ],
)
def test_a_flag_of_former_versions_says_what_to_give_instead(arguments: tuple[str, ...], instead: str):
    """Exit 2."""
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{instead}\n")


def test_a_second_worker_of_a_name_ends_with_a_sentence(tmp_path: Path):
    """Exit 1, while the first one goes on."""
    log = tmp_path / "log"
    with LocalCluster(1, policies=["detection.heartbeat_s=0.1"], log=log) as cluster:
        with log.open("ab") as theirs:
            second = Process(["worker", "--coordinator", cluster.address, "--id", "w1"], theirs)
        with pytest.raises(NotReady, match="exit status 1"):
            second.ready()
        second.close()
        assert "worker w1: a worker w1 is connected, and beats: give this one another name" in log.read_text()
        assert cluster.worker("w1").status is None


def test_a_port_that_is_taken_is_one_sentence():
    """What gRPC has to say of it is left out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        coordinator = [sys.executable, "-m", "orchestrator", "coordinator", "--port", str(port)]
        done = subprocess.run(coordinator, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (1, f"cannot listen on 127.0.0.1:{port}\n")
