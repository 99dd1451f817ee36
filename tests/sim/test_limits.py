"""Tasks that wait, run or live for too long, or find no room: scenarios that a person can count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.results import queues
from orchestrator.results.runs import Run
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario, ScenarioError
from sim.world import World
from tests.sim.conftest import MakeScenario, assert_same_run, world_of

ARRIVALS = {"kind": "constant", "rate_per_s": 2}
ONE_SECOND = {"kind": "constant", "value_s": 1}


def crowded(make: MakeScenario, coordinator: dict[str, Any] | None = None, **workload: Any) -> Scenario:
    """One slot; task k arrives at (k + 1) / 2 s and takes 1 s; six in all. No message takes time."""
    workload = {"arrivals": ARRIVALS, "service": ONE_SECOND, **workload}
    return make(duration_s=3, workload=workload, coordinator=coordinator or {})


def counted(scenario: Scenario) -> Run:
    """The run, the same by both paths; every task is somewhere."""
    assert_same_run(world_of(scenario), world_of(scenario, fuse=False))
    run = sim.run(scenario)
    tasks = run.summary["tasks"]
    assert tasks["submitted"] == tasks["completed"] + tasks["failed"] + tasks["unfinished"]
    return run


def states(run: Run) -> str:
    """Of each task in its order: c, f or u."""
    return "".join(state[0] for state in run.tasks["state"])


def settled(run: Run) -> list[float]:
    return [round(at, 6) for at in run.tasks["settled_s"]]


# ---- limits


def test_queue_timeout_by_hand(make: MakeScenario):
    """Tasks begin at 0.5, 1.5, 2.5 and 3.5; the two that would have to wait for longer than 0.75 s fail then."""
    run = counted(crowded(make, queue_timeout_s=0.75))
    assert (states(run), settled(run)) == ("ccfcfc", [1.5, 2.5, 2.25, 3.5, 3.25, 4.5])
    assert run.summary["limits"] == {"queue_timeouts": 2, "missed_deadlines": 0, "refused": 0}
    assert run.tasks["started_s"].isna().tolist() == [False, False, True, False, True, False]


def test_deadline_by_hand(make: MakeScenario):
    """Whatever runs 1.25 s after its arrival is cancelled, and its slot serves the next one."""
    run = counted(crowded(make, deadline_s=1.25))
    assert (states(run), settled(run)) == ("cfffff", [1.5, 2.25, 2.75, 3.25, 3.75, 4.25])
    assert run.summary["limits"]["missed_deadlines"] == 5
    assert run.attempts["outcome"].tolist().count("cancelled") == 5
    assert run.summary["tasks"]["wasted_s"] == pytest.approx(0.75 + 4 * 0.5)


def test_execution_timeout_by_hand(make: MakeScenario):
    """The workload's own comes before that of the policies."""
    scenario = crowded(make, execution_timeout_s=0.4).with_(
        {"policies.retry.max_attempts": 1, "policies.execution_timeout_s": 5}
    )
    run = counted(scenario)
    assert (states(run), settled(run)) == ("ffffff", [0.9, 1.4, 1.9, 2.4, 2.9, 3.4])
    assert set(run.attempts["outcome"]) == {"timed_out"}


def test_each_kind_has_limits_of_its_own(make: MakeScenario):
    """What a kind does not say is as the workload has it."""
    kinds = {"hasty": {"share": 0.5, "queue_timeout_s": 0.1}, "usual": {"share": 0.5}}
    scenario = crowded(make, kinds=kinds, queue_timeout_s=60, deadline_s=100)
    workload = scenario.workload
    assert workload.limits_of("hasty") == (0.1, None, 100)
    assert workload.limits_of("usual") == (60, None, 100)
    run = counted(scenario)
    late = run.tasks[run.tasks["state"] == "failed"]
    assert set(late["kind"]) == {"hasty"}
    assert run.summary["by_kind"]["usual"]["failed"] == 0
    assert run.summary["limits"]["queue_timeouts"] == len(late) > 0


def test_a_summary_without_limits_says_nothing_of_them(make: MakeScenario):
    """A result of before is as it was."""
    assert "limits" not in sim.run(crowded(make)).summary


def test_a_task_that_is_tried_for_ever_may_have_a_deadline(make: MakeScenario):
    """Where none has one, such a run would never end, and is refused."""
    endless: dict[str, Any] = {"execution_timeout_s": 0.5}
    with pytest.raises(ScenarioError, match=r"6 of 6 tasks take longer than the timeout of an attempt \(0\.5 s\)"):
        sim.run(crowded(make, **endless))
    run = counted(crowded(make, **endless, deadline_s=3.2))
    assert states(run) == "ffffff"


# ---- no room


def test_refusals_by_hand(make: MakeScenario):
    """One may wait. The tasks of 2 s and 3 s find one waiting, and their clients give up at once."""
    run = counted(crowded(make, {"max_waiting": 1}, give_up_after_s=0))
    assert (states(run), settled(run)) == ("cccfcf", [1.5, 2.5, 3.5, 2.0, 4.5, 3.0])
    assert run.summary["limits"] == {"queue_timeouts": 0, "missed_deadlines": 0, "refused": 2}
    assert run.tasks["accepted_s"].isna().tolist() == [False, False, False, True, False, True]
    assert run.tasks["attempts"].tolist() == [1, 1, 1, 0, 1, 0]


def test_what_is_refused_waits_at_the_door(make: MakeScenario):
    """And not in the queue, of which it never is a part: there waits one from 1 to 3.5 s."""
    tables = counted(crowded(make, {"max_waiting": 1}, give_up_after_s=0)).tables
    moments_s = np.array([0.75, 1.25, 2.25, 3.25, 3.75])
    assert queues.levels(queues.at_coordinator(tables), moments_s).tolist() == [0, 1, 1, 1, 0]
    assert queues.levels(queues.everywhere(tables), moments_s).tolist() == [0, 1, 1, 1, 0]
    patient = counted(crowded(make, {"max_waiting": 1})).tables
    assert queues.levels(queues.everywhere(patient), np.array([2.05])).tolist() == [2]


def test_a_patient_client_is_served_in_the_end(make: MakeScenario):
    """It submits again after pauses that are drawn with its task; the wait for room counts in its latency."""
    run = counted(crowded(make, {"max_waiting": 1}))
    assert states(run) == "cccccc"
    assert run.summary["limits"]["refused"] == 0
    assert max(run.tasks["accepted_s"] - run.tasks["arrival_s"]) > 0


@pytest.mark.parametrize("arrivals", [ARRIVALS, {"kind": "closed", "clients": 6, "think": ONE_SECOND}])
@pytest.mark.parametrize("network", [{}, {"loss": 0.2, "duplicate": 0.2, "rpc_timeout_s": 0.3}])
@pytest.mark.parametrize("give_up_after_s", [0, 0.5, None])
def test_no_task_is_lost_or_settled_twice(
    make: MakeScenario, arrivals: dict[str, Any], network: dict[str, Any], give_up_after_s: float | None
):
    """On a network that loses and repeats messages too, from open arrivals and from clients that wait."""
    scenario = crowded(
        make,
        {"max_waiting": 2},
        arrivals=arrivals,
        give_up_after_s=give_up_after_s,
        priorities={"low": 0.5, "urgent": 0.5},
        queue_timeout_s=2.5,
        deadline_s=4,
    ).with_({"duration_s": 30, "network": {"delay": {"kind": "exponential", "mean_s": 0.02}, **network}})
    run = counted(scenario)
    assert run.tasks["task"].is_unique
    assert run.summary["tasks"]["unfinished"] == 0
    assert run.summary["tasks"]["failed"] == sum(run.summary["limits"].values())
    assert (run.summary["limits"]["refused"] > 0) == (give_up_after_s is not None)


def test_low_priority_is_refused_first(make: MakeScenario):
    """Under an overload, with room for few."""
    scenario = crowded(
        make,
        {"max_waiting": 8},
        arrivals={"kind": "poisson", "rate_per_s": 3},
        priorities={"low": 0.5, "urgent": 0.25, "normal": 0.25},
        give_up_after_s=0,
    ).with_({"duration_s": 300})
    run = counted(scenario)
    refused = run.tasks["accepted_s"].isna()
    share = {name: refused[run.tasks["priority"] == name].mean() for name in ("low", "normal", "urgent")}
    assert share["low"] > share["normal"] > share["urgent"]


def test_the_queue_holds_no_more_than_may_wait(make: MakeScenario):
    """At no moment."""
    scenario = crowded(make, {"max_waiting": 4}, arrivals={"kind": "poisson", "rate_per_s": 5}).with_({"drain_s": 0})
    world = World(scenario, draw_plan(scenario))
    most = 0
    submit = world.coordinator.submit

    def watched(*arguments: Any) -> None:
        nonlocal most
        submit(*arguments)
        most = max(most, world.coordinator.pending)

    arrivals: Any = world.arrivals
    arrivals.coordinator = type("Watched", (), {"submit": staticmethod(watched)})()
    world.run()
    assert most == 3  # three quarters, of normal priority
    assert np.isfinite(world.now)
