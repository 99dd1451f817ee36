"""The benches that kill, restart and stop parts of a cluster under load, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench"
ROWS = ["workers-killed", "executors-killed", "rolling-restarts", "client-killed"]


def test_whatever_is_killed_every_task_is_settled_once():
    """None FAILED; each row did disturb its batch, and the coordinator proved its invariants."""
    command = [
        sys.executable,
        str(BENCH / "kill_matrix.py"),
        "--tasks",
        "1000",
        "--seconds",
        "0.1",
        "--check",
        "--only",
        *ROWS,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ROWS
    for _, what, once, failed, _, _ in rows:
        assert what != "-"
        assert (once, failed) == ("1000", "0")


def test_whenever_the_coordinator_is_killed_each_key_is_settled_and_executed_once():
    """Of clients that submit the same keys, and again; also one that is killed while it is starting."""
    command = [sys.executable, str(BENCH / "coordinator_kills.py"), "--tasks", "600", "--kills", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert "2 kills of the coordinator" in lines
    assert lines[-1] == "nothing lost, nothing done twice"
