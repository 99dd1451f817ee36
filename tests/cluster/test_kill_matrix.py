"""The bench that kills, restarts and stops parts of a cluster under load, in small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parents[2] / "bench" / "kill_matrix.py"
ROWS = ["workers-killed", "executors-killed", "rolling-restarts", "client-killed"]


def test_whatever_is_killed_every_task_is_settled_once():
    """None FAILED; each row did disturb its batch, and the coordinator proved its invariants."""
    command = [sys.executable, str(BENCH), "--tasks", "1000", "--seconds", "0.1", "--check", "--only", *ROWS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ROWS
    for _, what, once, failed, _, _ in rows:
        assert what != "-"
        assert (once, failed) == ("1000", "0")
