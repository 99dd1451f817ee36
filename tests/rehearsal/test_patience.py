"""Clients of a live run that lose patience and submit again, with and without keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import decision_record
from orchestrator.results.runs import Run
from tests.rehearsal.runs import executed


def played(folder: Path, keys: bool, arrivals: dict[str, Any]) -> Run:
    """Of two slots, both busy: every task takes 0.4 s, and its client waits for 0.3 s, twice."""
    work = {
        "arrivals": arrivals,
        "service": {"kind": "constant", "value_s": 0.4},
        "resubmit": {"after_s": 0.3, "most": 2, "keys": keys},
        "tasks": 12,
    }
    return executed(folder, workload=work, cluster={"workers": 2, "capacity": 1}, duration_s=2)


@pytest.mark.parametrize("keys", [True, False])
def test_a_task_that_comes_again_is_known_by_its_key(keys: bool, tmp_path: Path):
    """Without one, each repetition is a row of its own, executed as well."""
    finished = played(tmp_path, keys, {"kind": "constant", "rate_per_s": 8})
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] == counts["attempts"]
    submitted = decision_record.Recorded(tmp_path / "out" / decision_record.NAME).inputs(("submit",))
    assert len(list(submitted)) == counts["submitted"]
    assert (counts["submitted"] == 12) is keys
    if not keys:
        assert set(finished.tasks["service_s"]) == {0.4}


def test_a_closed_client_goes_on_with_its_first_result(tmp_path: Path):
    """Whatever else it had submitted: between its own tasks it thinks."""
    clients = {"kind": "closed", "clients": 3, "think": {"kind": "constant", "value_s": 0.1}}
    finished = played(tmp_path, False, clients)
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] >= 12
