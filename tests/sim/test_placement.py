"""Kinds and labels in a scenario: groups of workers offer them, kinds of tasks require them."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from orchestrator.scenario.schema import Scenario, ScenarioError
from tests.sim.conftest import MakeScenario

GROUPS = [
    {"name": "plain", "workers": 3, "capacity": 2},
    {"name": "gpu", "workers": 2, "capacity": 1, "labels": {"gpu": "a100"}, "kinds": ["train"]},
]
KINDS: dict[str, Any] = {
    "train": {"share": 0.2, "requires": {"gpu": "a100"}, "service": {"kind": "exponential", "mean_s": 2}},
    "serve": {"share": 0.8},
}


def mixed(make: MakeScenario, groups: Any = GROUPS, kinds: Any = KINDS, **keys: Any) -> Scenario:
    return make(
        duration_s=500,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 3},
            "service": {"kind": "exponential", "mean_s": 1},
            "kinds": kinds,
        },
        cluster={"groups": groups},
        **keys,
    )


@pytest.mark.parametrize("prefetch", [0, 3])
def test_each_kind_is_executed_where_it_can_be(make: MakeScenario, prefetch: int):
    """And a full group of workers delays nobody else's tasks."""
    groups = [{**group, "prefetch": prefetch} for group in GROUPS]
    run = sim.run(mixed(make, groups))
    kinds = run.tasks["kind"].to_numpy()[run.attempts["task"]]
    gpu = run.attempts["worker"].isin(["w4", "w5"])
    assert set(kinds[gpu]) == {"train"}
    assert set(kinds[~gpu]) == {"serve"}
    assert run.summary["tasks"]["completed"] == run.summary["tasks"]["submitted"]


def test_what_waits_for_its_own_workers_holds_nobody_up(make: MakeScenario):
    """The tasks that need the one slow accelerator wait for it; the others never wait."""
    kinds = {**KINDS, "train": {**KINDS["train"], "service": {"kind": "constant", "value_s": 60}}}
    run = sim.run(mixed(make, [{**GROUPS[0], "workers": 30}, {**GROUPS[1], "workers": 1}], kinds, drain_s=0))
    assert run.summary["by_kind"]["serve"]["latency_s"]["p50"] < 1
    assert run.summary["by_kind"]["train"]["unfinished"] > 50
    waited = (run.tasks["started_s"] - run.tasks["arrival_s"])[run.tasks["kind"] == "serve"]
    assert waited.max() == 0


@pytest.mark.parametrize(
    ("groups", "kinds", "sentence"),
    [
        ([GROUPS[0]], KINDS, "workload.kinds.train: leaves tasks that wait for ever: no group of workers"),
        ([{**GROUPS[0], "kinds": ["other"]}], KINDS, "cluster.groups.*kinds: names other, expected train, serve"),
        ([GROUPS[1]], KINDS, "workload.kinds.serve: leaves tasks that wait for ever"),
        ([{**GROUPS[0], "labels": {"gpu": "a 100"}}], KINDS, "labels.*a label is 'gpu=a 100', expected name=value"),
    ],
)
def test_tasks_that_nobody_could_ever_take_are_an_error(make: MakeScenario, groups: Any, kinds: Any, sentence: str):
    """Before the run, which would never end."""
    with pytest.raises(ScenarioError, match=sentence):
        mixed(make, groups, kinds)
