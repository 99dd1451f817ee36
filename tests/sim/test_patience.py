"""Clients that lose patience and submit again, with and without keys."""

from __future__ import annotations

from typing import Any

import sim
from orchestrator.analysis.promises import check
from orchestrator.results.runs import Run
from tests.sim.conftest import MakeScenario, assert_same_run, world_of


def played(make: MakeScenario, resubmit: dict[str, Any], **changes: Any) -> Run:
    """One worker with one slot; tasks arrive at seconds 1 and 2 and take 4 s; no message takes time."""
    tree: dict[str, Any] = {
        "duration_s": 40,
        "workload": {
            "arrivals": {"kind": "constant", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 4},
            "tasks": 2,
            "resubmit": resubmit,
        },
        "policies": {"queue": {"kind": "fifo"}},
    }
    scenario = make(**{**tree, **changes})
    if scenario.coordinator.commit is None:
        assert_same_run(world_of(scenario), world_of(scenario, fuse=False))
    run = sim.run(scenario, check=True)
    assert check(run, healed=True) == []
    return run


def lives(run: Run) -> list[tuple[float, float]]:
    return list(run.tasks[["arrival_s", "settled_s"]].itertuples(index=False, name=None))


def test_with_keys_a_task_that_comes_again_is_the_same(make: MakeScenario):
    """However often its client asks for it."""
    assert lives(played(make, {"after_s": 1, "most": 5})) == [(1, 5), (2, 9)]


def test_without_keys_it_is_another_one(make: MakeScenario):
    """The first task waits for 5 s, so its client comes again at 4.5; the second one at 5.5, and at 9 s it has its
    result. The others are executed for nobody."""
    run = played(make, {"after_s": 3.5, "keys": False})
    assert lives(run) == [(1, 5), (2, 9), (4.5, 13), (5.5, 17)]
    assert run.summary["tasks"]["submitted"] == 4


def test_a_client_comes_again_so_many_times_at_most(make: MakeScenario):
    """And no more once it has a result, of whichever of its tasks."""
    run = played(make, {"after_s": 1, "most": 3, "keys": False})
    assert run.tasks["arrival_s"].tolist() == [1, 2, 2, 3, 3, 4, 4, 5]
    run = played(make, {"after_s": 3, "most": 9, "keys": False})
    assert run.tasks["arrival_s"].tolist() == [1, 2, 4, 5, 8]


def test_a_closed_client_goes_on_with_its_first_result(make: MakeScenario):
    """It thinks once, whatever else it had submitted."""
    workload = {
        "arrivals": {"kind": "closed", "clients": 1, "think": {"kind": "constant", "value_s": 1}},
        "service": {"kind": "constant", "value_s": 4},
        "resubmit": {"after_s": 3, "keys": False},
        "tasks": 4,
    }
    run = played(make, {}, workload=workload, cluster={"workers": 2, "capacity": 1})
    assert run.tasks["arrival_s"].tolist() == [1, 4, 6, 9]
    assert run.tasks["settled_s"].tolist() == [5, 8, 10, 13]


def test_a_repetition_outlives_a_coordinator_as_any_task_does(make: MakeScenario):
    """What is known by its key is not executed again, and what has none is, after a crash as before."""
    crash = [{"kind": "coordinator_crash", "at_s": 3, "restart_after_s": 2}]
    stored = {"commit": {"kind": "constant", "value_s": 0.01}}
    with_keys = played(make, {"after_s": 1, "most": 9}, faults=crash, coordinator=stored)
    without = played(make, {"after_s": 4.5, "keys": False}, faults=crash, coordinator=stored)
    assert [run.summary["tasks"]["completed"] for run in (with_keys, without)] == [2, 4]
    assert with_keys.summary["tasks"]["attempts"] == 2
