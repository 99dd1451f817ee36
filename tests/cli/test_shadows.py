"""Files named like modules of the standard library, or like this package, break no command in their folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.rehearsal.local_cluster import Process
from tests.cli.test_cli import SCENARIO

ROOT = Path(__file__).parents[2]
LIBRARY = ("logging", "queue", "random", "socket", "json")
NOT_WITH_M = ("types", "orchestrator", "sim")
"""With -m the interpreter itself imports the one and would run the other, before any line of ours."""

POLICY = """\
from orchestrator.policies.routing import Random


class Mine(Random):
    pass
"""
QUICK = ["duration_s=1", "workload.task=sleep", "policies.routing.kind=mine:Mine"]

CONSOLE = """\
import sys

from orchestrator.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
"""
"""As an installer writes it."""


@pytest.fixture(params=["console script", "-m", "-P -m"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Three ways to call the command, in a folder full of such files."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in LIBRARY if request.param == "-m" else (*LIBRARY, *NOT_WITH_M):
        (folder / f"{name}.py").write_text(f"raise SystemExit('the {name}.py of the current folder was imported')\n")
    (folder / "small.yaml").write_text(SCENARIO)
    (folder / "mine.py").write_text(POLICY)
    if request.param == "console script":
        script = tmp_path / "bin/orchestrator"
        script.parent.mkdir()
        script.write_text(CONSOLE)
        return [sys.executable, str(script)]
    return [sys.executable, *request.param.split(), "orchestrator"]


def environment() -> dict[str, str]:
    """In which this package is found, as if it had been installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(command: list[str], folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*command, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    progress = ("small (sim): ", "small (live): ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(progress)] == []
    return done.stdout


def test_scenarios_run_in_both_worlds(command: list[str], tmp_path: Path):
    """In the processes of a sweep and of a live cluster too, with a policy of that folder."""
    folder = tmp_path / "folder"
    swept = run(command, folder, "simulate", "small.yaml", *QUICK, "replications=2", "--jobs", "2", "--no-plots")
    assert "runs        2, pooled" in swept
    if command[1] == "-P":
        return  # as of a console script: of neither is the folder on the path
    compared = run(command, folder, "fidelity", "small.yaml", *QUICK, "--no-plots")
    assert "results in out/small-fidelity/1" in compared
    assert "decided the same" in run(command, folder, "replay", "out/small-fidelity/1/live")


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes, which are killed at the end."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_a_cluster_executes_tasks(command: list[str], tmp_path: Path, started: list[subprocess.Popen[bytes]]):
    """Coordinator, worker with its subprocesses, and client, each in that folder."""
    folder = tmp_path / "folder"

    def start(*arguments: str) -> str:
        """What it says once it is ready."""
        ready, tell = os.pipe()
        process = subprocess.Popen(
            [*command, *arguments, "--ready-fd", str(tell)], cwd=folder, env=environment(), pass_fds=[tell]
        )
        os.close(tell)
        started.append(process)
        with os.fdopen(ready) as lines:
            return lines.readline().strip()

    address = start("coordinator", "--port", "0", "routing.kind=mine:Mine", "--decision-record", "record")
    assert start("worker", "--coordinator", address, "--port", "0") == "ready"
    assert "completed: 5" in run(command, folder, "submit", "--batch", "5", "--coordinator", address)
    assert "decided the same" in run(command, folder, "replay", "record")


def test_processes_of_a_rehearsal_take_no_module_of_the_current_folder(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever starts them, and although they are started by -m."""
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    process = Process(["coordinator", "--port", "0"])
    try:
        assert process.ready()
    finally:
        process.close()
