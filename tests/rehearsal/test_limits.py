"""Tasks that expire and tasks that are refused, in a live run: the rows and the counts of the simulator."""

from __future__ import annotations

from pathlib import Path

import sim
from orchestrator.rehearsal import journal
from orchestrator.rehearsal.record import GivenUp
from orchestrator.results.runs import Run
from tests.rehearsal.runs import executed

WORKLOAD = {"arrivals": {"kind": "constant", "rate_per_s": 10}, "service": {"kind": "constant", "value_s": 0.4}}
ONE_SLOT = {"workers": 1, "capacity": 1}


def states(run: Run) -> dict[str, int]:
    return {key: run.summary["tasks"][key] for key in ("submitted", "completed", "failed", "unfinished")}


def test_what_expires_is_counted_and_said(tmp_path: Path):
    """Four times what the only slot can do arrives: most tasks wait for too long."""
    workload = {**WORKLOAD, "queue_timeout_s": 0.55, "deadline_s": 0.85}
    finished = executed(tmp_path, duration_s=3, workload=workload, cluster=ONE_SLOT)
    counts, limits = states(finished), finished.summary["limits"]
    assert counts["failed"] == limits["queue_timeouts"] + limits["missed_deadlines"]
    assert limits["queue_timeouts"] > 0
    assert set(finished.tasks.loc[finished.tasks["attempts"] == 0, "state"]) == {"failed"}
    assert states(sim.run(finished.scenario))["submitted"] == counts["submitted"] == 30


def test_what_is_refused_is_given_up_by_its_client(tmp_path: Path):
    """It was never accepted, has no attempt, and counts as failed; the decisions replay, and the run ends."""
    coordinator = {"max_waiting": 2}
    workload = {**WORKLOAD, "give_up_after_s": 0.2}
    finished = executed(tmp_path, duration_s=3, workload=workload, cluster=ONE_SLOT, coordinator=coordinator)
    counts = states(finished)
    assert counts["failed"] == finished.summary["limits"]["refused"] > 0
    refused = finished.tasks[finished.tasks["state"] == "failed"]
    assert refused["accepted_s"].isna().all()
    assert (refused["settled_s"] >= refused["arrival_s"]).all()
    assert (refused["attempts"] == 0).all()
    simulated = states(sim.run(finished.scenario))
    assert abs(simulated["completed"] - counts["completed"]) <= 2


def test_closed_clients_think_again_when_they_have_given_up(tmp_path: Path):
    """Each of them submits its next task."""
    closed = {"kind": "closed", "clients": 6, "think": {"kind": "constant", "value_s": 0.1}}
    workload = {**WORKLOAD, "arrivals": closed, "give_up_after_s": 0}
    finished = executed(tmp_path, duration_s=2, workload=workload, cluster=ONE_SLOT, coordinator={"max_waiting": 2})
    counts = states(finished)
    assert counts["submitted"] > 6
    assert counts["failed"] == finished.summary["limits"]["refused"] > 0
    assert counts["unfinished"] == 0


def test_the_journal_tells_who_has_given_up(tmp_path: Path):
    """Of a run whose processes were all killed."""
    book = journal.Journal(tmp_path / "driver.jsonl")
    book.begin(10.0)
    book.submit(0.5, 1.0, 1, None)
    book.give_up(GivenUp(0, 10.7))
    book.close()
    assert journal.read(tmp_path / "driver.jsonl", 20.0, kinds=False).given_up == [GivenUp(0, 10.7)]
