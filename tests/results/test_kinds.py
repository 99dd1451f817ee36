"""Kinds in tables and summaries: a column and a key each, and neither without kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import sim
from orchestrator.results.runs import Run
from orchestrator.results.summaries import pool
from orchestrator.results.tables import SCHEMAS, Tables
from orchestrator.scenario.schema import Scenario

TREE: dict[str, Any] = {
    "name": "mixed",
    "seed": 2,
    "duration_s": 30,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 40},
        "kinds": {
            "rare": {"share": 0.1, "service": {"kind": "constant", "value_s": 1}},
            "often": {"share": 0.9, "service": {"kind": "constant", "value_s": 0.01}},
        },
    },
    "cluster": {"workers": 2, "capacity": 2},
    "drain_s": 0,
}
CLOSED = {"kind": "closed", "clients": 5, "think": {"kind": "constant", "value_s": 0.5}}


@pytest.fixture(scope="module")
def mixed() -> Run:
    return sim.run(Scenario.model_validate(TREE))


def test_each_kind_states_what_became_of_its_tasks(mixed: Run):
    """Counted in the table, kind by kind; together they are all tasks."""
    by_kind, tasks = mixed.summary["by_kind"], mixed.tasks
    assert list(by_kind) == ["rare", "often"]
    for name, one in by_kind.items():
        mine = tasks[tasks["kind"] == name]
        assert one["submitted"] == len(mine) == one["completed"] + one["failed"] + one["unfinished"]
        assert one["completed"] == (mine["state"] == "completed").sum()
        assert one["latency_s"]["n"] == len(mine)
    assert sum(one["submitted"] for one in by_kind.values()) == len(tasks)
    assert by_kind["rare"]["unfinished"] > 0
    assert by_kind["rare"]["latency_s"]["mean"] > by_kind["often"]["latency_s"]["mean"] + 0.5


def test_the_kind_of_a_task_is_in_its_row_and_fits_its_demand(mixed: Run):
    """Whoever submits it."""
    closed = Scenario.model_validate(TREE | {"workload": TREE["workload"] | {"arrivals": CLOSED}})
    for tasks in (mixed.tasks, sim.run(closed).tasks):
        assert set(tasks.loc[tasks["kind"] == "rare", "service_s"]) == {1.0}
        assert set(tasks.loc[tasks["kind"] == "often", "service_s"]) == {0.01}


def test_tables_with_kinds_are_read_as_they_were_written(mixed: Run, tmp_path: Path):
    """And those of a run without kinds have no such column."""
    mixed.tables.write(tmp_path)
    assert Tables.read(tmp_path, mixed.scenario.worker_names()).tasks.equals(mixed.tables.tasks)
    plain = sim.run(Scenario.model_validate(TREE | {"workload": {"arrivals": CLOSED, "service": CLOSED["think"]}}))
    assert plain.tables.tasks.schema.names == SCHEMAS["tasks"].names
    assert "by_kind" not in plain.summary


def test_a_column_that_is_none_of_a_run_is_still_refused(mixed: Run, tmp_path: Path):
    """Only the kind may be there or not."""
    mixed.tables.write(tmp_path)
    table = mixed.tables.tasks
    wrong = Tables(table.append_column("color", pa.array([1] * len(table))), mixed.tables.attempts, mixed.tables.events)
    wrong.write(tmp_path)
    with pytest.raises(pa.ArrowException, match="does not have the columns of a run"):
        Tables.read(tmp_path, mixed.scenario.worker_names())


def test_replications_are_pooled_by_kind():
    """Counts are summed, and latencies are of all of them together."""
    runs = [sim.run(Scenario.model_validate(TREE), replication) for replication in range(2)]
    pooled = pool(runs)["by_kind"]
    for name in ("rare", "often"):
        each = [run.summary["by_kind"][name] for run in runs]
        assert pooled[name]["submitted"] == sum(one["submitted"] for one in each)
        assert pooled[name]["latency_s"]["n"] == sum(one["latency_s"]["n"] for one in each)


def test_hedging_compares_a_task_with_its_own_kind(tmp_path: Path):
    """A long task is no slow short one. The same mix without kinds gets hedges for the long ones."""
    (tmp_path / "mix.csv").write_text("s\n1\n" + "0.01\n" * 9)
    mix = {"kind": "empirical", "file": str(tmp_path / "mix.csv"), "column": "s"}
    hedging = {"policies": {"hedging": {"kind": "quantile", "min_samples": 10, "quantile": 0.8}}}
    tree = TREE | hedging | {"cluster": {"workers": 50}, "drain_s": None}
    arrivals = {"arrivals": {"kind": "poisson", "rate_per_s": 40}}
    alike = sim.run(Scenario.model_validate(tree)).summary["tasks"]
    few = alike["attempts"] - alike["submitted"]  # those that are longer than their like by rounding
    mixed_up = sim.run(Scenario.model_validate(tree | {"workload": {**arrivals, "service": mix}})).summary["tasks"]
    assert mixed_up["attempts"] - mixed_up["submitted"] > 10 * max(1, few)
