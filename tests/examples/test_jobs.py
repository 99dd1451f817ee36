"""The jobs of `examples`: a cluster that loses a worker does what one process does, and their scenarios run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sim
from orchestrator import Scenario
from tests.test_house import ROOT

SMALL = {"words": ["--files", "60", "--words", "6000"], "images": ["--files", "30", "--side", "120"]}
KINDS = {"words": {"count", "add"}, "images": {"look", "sheet"}}


@pytest.mark.parametrize("job", SMALL)
def test_a_killed_worker_costs_no_result_and_repeats_none(job: str, tmp_path: Path):
    """From anywhere; it says how much faster the cluster was, whatever that is here."""
    command = [sys.executable, str(ROOT / "examples" / job / "run.py"), *SMALL[job]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert told[0].startswith(f"{SMALL[job][1]} files; each takes ")
    assert told[4].startswith("4 workers, one killed: ")
    assert told[5].endswith("; of these after their result had arrived: 0")
    assert told[6] == "every result is right"


@pytest.mark.parametrize("job", SMALL)
def test_a_job_that_has_no_worker_to_lose_is_refused(job: str):
    """In one sentence, and exit 2."""
    command = [sys.executable, str(ROOT / "examples" / job / "run.py"), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("error: argument --workers: 1 is less than 2")


@pytest.mark.parametrize("job", KINDS)
def test_its_scenario_is_simulated(job: str):
    """The same kinds, as many tasks, the same loss: all of them complete."""
    run = sim.run(Scenario.load(ROOT / "examples" / job / f"{job}.yaml"))
    assert run.summary["tasks"]["completed"] == 312
    assert set(run.tasks["kind"].unique()) == KINDS[job]
