"""SIGKILL of a rehearsal's coordinator, which goes on in the next process with what it had stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from orchestrator.cluster import decision_record
from orchestrator.rehearsal.choices import choices
from orchestrator.results.tables import event_rows
from tests.rehearsal.runs import executed

COMMIT = {"commit": {"kind": "constant", "value_s": 0.002}}
WORK = {
    "arrivals": {"kind": "poisson", "rate_per_s": 40},
    "service": {"kind": "exponential", "mean_s": 0.08},
    "task": "sleep",
}


def test_a_run_outlives_its_coordinators(tmp_path: Path):
    """Killed twice, and a worker with it: every task is settled once, the tables are of the whole run, and each
    coordinator's decisions are decided the same again."""
    faults = [
        {"kind": "coordinator_crash", "at_s": 1, "restart_after_s": 0.5},
        {"kind": "crash", "at_s": 1.2, "workers": ["w2"], "restart_after_s": 0.6},
        {"kind": "coordinator_crash", "at_s": 4, "restart_after_s": 0.2},
    ]
    finished = executed(tmp_path, coordinator=COMMIT, workload=WORK, faults=faults, duration_s=6)
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] > 100
    told = [(kind, detail) for _, kind, who, detail in event_rows(finished.tables.events) if who is None]
    assert [kind for kind, _ in told] == ["coordinator_crash", "heal", "recovered"] * 2
    terms = [int(str(detail).split()[-1]) for kind, detail in told if kind == "recovered"]
    assert terms == sorted(set(terms))
    replays = list(decision_record.replays(tmp_path / "out" / decision_record.NAME))
    assert [again.difference for _, again in replays] == [None] * 3
    assert not list((tmp_path / "out").glob(".store-*"))

    attempts, crash_s = finished.attempts, 1.0
    across = attempts[(attempts["assigned_s"] < crash_s) & (attempts["ended_s"] > crash_s)]
    assert len(across), "some task was under way"
    adopted = across[across["outcome"] == "completed"]
    assert np.all(adopted["worker"] != "w2")
    task = int(finished.tasks["task"][finished.tasks["attempts"] == 1].iloc[-1])
    assert choices(tmp_path / "out", task), "a choice of the last coordinator can be explained"
