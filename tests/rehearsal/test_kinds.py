"""Kinds of tasks in a live run: the tasks, the rows and the lines of the simulator."""

from pathlib import Path

import numpy as np

from orchestrator.results.runs import Run
from orchestrator.scenario.plan import OpenArrivals, draw_plan
from tests.rehearsal.runs import executed

POISSON = {"kind": "poisson", "rate_per_s": 40}
KINDS = {
    "short": {"share": 0.8, "service": {"kind": "constant", "value_s": 0.01}},
    "long": {"share": 0.2, "service": {"kind": "constant", "value_s": 0.1}, "priority": "low"},
}


def counts(run: Run) -> dict[str, tuple[int, int]]:
    return {name: (one["submitted"], one["completed"]) for name, one in run.summary["by_kind"].items()}


def test_a_live_run_has_the_kinds_of_the_plan(tmp_path: Path):
    """Each task is of its kind and takes its time, and each kind has its line."""
    finished = executed(tmp_path, duration_s=3, workload={"arrivals": POISSON, "kinds": KINDS})
    planned = draw_plan(finished.scenario).arrivals
    assert isinstance(planned, OpenArrivals)
    assert finished.tasks["kind"].tolist() == planned.kinds_of(slice(None))
    assert np.array_equal(finished.tasks["service_s"], np.where(finished.tasks["kind"] == "long", 0.1, 0.01))
    assert counts(finished) == {
        name: (n := int((finished.tasks["kind"] == name).sum()), n) for name in ("short", "long")
    }
    long = set(finished.tasks.loc[finished.tasks["kind"] == "long", "task"])
    ran_s = finished.attempts["ran_s"][finished.attempts["task"].isin(long)]
    assert (ran_s >= 0.0999).all()
