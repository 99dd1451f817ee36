"""Small live runs for tests: a scenario of a few seconds, and what holds of every run whatever happened in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from orchestrator.analysis import promises
from orchestrator.cli.judging import LIVE_GRACE_S
from orchestrator.cluster import decision_record
from orchestrator.rehearsal.runs import run
from orchestrator.results import folders
from orchestrator.results.runs import Run
from orchestrator.scenario.schema import Scenario

HEARTBEAT_S, TIMEOUT_S = 0.2, 1.1
BASE: dict[str, Any] = {
    "name": "small",
    "seed": 5,
    "duration_s": 4,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 60},
        "service": {"kind": "exponential", "mean_s": 0.03},
        "priorities": {"normal": 0.8, "urgent": 0.2},
    },
    "cluster": {"workers": 4, "capacity": 2},
    "policies": {"detection": {"kind": "timeout", "heartbeat_s": HEARTBEAT_S, "timeout_s": TIMEOUT_S}},
    "live": {"workers_per_process": 4},
}


def scenario(folder: Path, *overrides: str, **keys: Any) -> Scenario:
    path = folder / "small.yaml"
    YAML().dump({**BASE, **keys}, path)
    return Scenario.load(path, overrides)


def executed(folder: Path, *overrides: str, **keys: Any) -> Run:
    """A run whose coordinator proved its invariants, of which nothing is lost and whose decisions replay alike."""
    finished = run(scenario(folder, *overrides, **keys), folder / "out", check=True)
    assert_sound(finished, folder / "out")
    return finished


def assert_sound(finished: Run, out: Path) -> None:
    counts = finished.summary["tasks"]
    assert counts["submitted"] == counts["completed"] + counts["failed"] + counts["unfinished"]
    assert counts["attempts"] == finished.tables.attempts.num_rows
    assert promises.check(finished, grace_s=LIVE_GRACE_S) == []
    same, difference, remark = decision_record.replay(out / decision_record.NAME)
    assert same > 0
    assert difference is None, str(difference)
    assert remark is None, remark
    assert folders.load_run(out).summary == finished.summary


def story(finished: Run, worker: str) -> list[str]:
    events = finished.events
    of_worker = events[events["worker"] == worker]
    return [
        f"{kind} {detail}" if isinstance(detail, str) else kind
        for kind, detail in zip(of_worker["kind"], of_worker["detail"], strict=True)
    ]
