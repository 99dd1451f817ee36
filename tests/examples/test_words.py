"""The text job of `examples/words`: a cluster that loses a worker does what one process does, and its scenario runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import sim
from orchestrator import Scenario
from tests.test_house import ROOT

FOLDER = ROOT / "examples/words"


def test_a_killed_worker_costs_no_result_and_repeats_none(tmp_path: Path):
    """From anywhere; it says how much faster the cluster was, whatever that is here."""
    command = [sys.executable, str(FOLDER / "run.py"), "--files", "60", "--words", "6000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert told[0].startswith("60 files; each takes ")
    assert told[2].startswith("4 workers, one killed: ")
    assert told[3].endswith("; of these after their result had arrived: 0")
    assert told[4] == "every result is right"


def test_its_scenario_is_simulated():
    """The same kinds, as many tasks, the same loss: all of them complete."""
    run = sim.run(Scenario.load(FOLDER / "words.yaml"))
    assert run.summary["tasks"]["completed"] == 312
    assert {"count", "add"} == set(run.tasks["kind"].unique())
