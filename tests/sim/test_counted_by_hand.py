"""Tiny scenarios of constants, one for each kind of fault, whose numbers a person can count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.results.runs import Run
from tests.sim.conftest import MakeScenario, assert_same_run, world_of

W1 = {"at_s": 2, "workers": ["w1"]}


def alone(make: MakeScenario, *faults: dict[str, Any], **changes: Any) -> Run:
    """One worker with one slot; task k arrives at second k + 1 and takes 2 s; no message takes time. 20 s long."""
    tree: dict[str, Any] = {
        "duration_s": 20,
        "workload": {
            "arrivals": {"kind": "constant", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 2},
            "tasks": 1,
        },
        "policies": {"detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 3}},
        "faults": list(faults),
    }
    scenario = make(**{**tree, **changes})
    assert_same_run(world_of(scenario), world_of(scenario, fuse=False))
    return sim.run(scenario)


def seconds(run: Run) -> tuple[float, float, float, float]:
    """Executed, occupied, frozen and wasted, rounded."""
    slots = run.summary["slots"]
    told = (slots["executed_s"], slots["occupied_s"], slots["frozen_s"], run.summary["tasks"]["wasted_s"])
    return tuple(round(value, 6) for value in told)


@pytest.mark.parametrize(
    ("fault", "executed", "occupied", "frozen", "wasted"),
    [
        # Runs from 1 to 2, and again from 7, when the next process registers, to 9.
        ({"kind": "crash", **W1, "restart_after_s": 5}, 3, 3, 0, 1),
        # Runs from 1 to 2 and from 4 to 5.
        ({"kind": "pause", **W1, "for_s": 2}, 2, 4, 2, 0),
        # Is given up meanwhile, and nobody else can have it: runs from 1 to 2 and from 10 to 11.
        ({"kind": "pause", **W1, "for_s": 8}, 2, 10, 8, 0),
        # The execution hangs from 2 to 5, so it ends at 6.
        ({"kind": "hang", **W1, "for_s": 3}, 2, 5, 3, 0),
        # Ends at 3; its report is sent every 2.2 s, and passes at 10.2.
        ({"kind": "partition", **W1, "for_s": 8}, 2, 9.2, 0, 0),
        ({"kind": "loss", **W1, "for_s": 8, "probability": 1}, 2, 9.2, 0, 0),
        # The second half takes four times as long.
        ({"kind": "slow", **W1, "for_s": 8, "factor": 0.25}, 5, 5, 0, 0),
        # The task ends before its worker goes.
        ({"kind": "restart", **W1}, 2, 2, 0, 0),
        # ... or is killed with it at 2.5, and the next process begins anew.
        ({"kind": "restart", **W1, "grace_s": 0.5}, 3.5, 3.5, 0, 1.5),
        ({"kind": "drain", **W1}, 2, 2, 0, 0),
        # Waits a second for its worker.
        ({"kind": "join", **W1}, 2, 2, 0, 0),
        # The report is half a second on its way.
        ({"kind": "delay", **W1, "for_s": 8, "delay": {"kind": "constant", "value_s": 0.5}}, 2, 2.5, 0, 0),
        ({"kind": "duplicate", **W1, "for_s": 8, "probability": 1}, 2, 2, 0, 0),
        # The report waits until 10.
        ({"kind": "coordinator_pause", "at_s": 2, "for_s": 8}, 2, 9, 0, 0),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_executed_occupied_and_frozen_seconds(
    make: MakeScenario, fault: dict[str, Any], executed: float, occupied: float, frozen: float, wasted: float
):
    """What ran, how long the slot was taken, and how long the process stood still are three things."""
    run = alone(make, fault)
    assert seconds(run) == (executed, occupied, frozen, wasted)
    assert run.summary["utilization"] == pytest.approx(executed / 20)
    assert run.summary["tasks"]["completed"] == 1


@pytest.mark.parametrize("kind", ["partition", "pause"])
def test_work_that_comes_back_late_is_charged_for_what_it_took(make: MakeScenario, kind: str):
    """w2 is away from 2 to 12, and w1 does its task again: 2 s are wasted, not what passes until the return."""
    fault = {"kind": kind, "at_s": 2, "workers": ["w2"], "for_s": 10}
    run = alone(make, fault, cluster={"workers": 2, "capacity": 1})
    cut_off, again = run.attempts.itertuples()
    assert (cut_off.worker, again.worker, cut_off.settled, again.settled) == ("w2", "w1", False, True)
    ran = 2 if kind == "partition" else 1  # a task that stands still is cancelled when its worker goes on
    assert run.summary["tasks"]["wasted_s"] == pytest.approx(ran)
    assert run.summary["slots"]["executed_s"] == pytest.approx(ran + 2)
    assert run.summary["slots"]["frozen_s"] == pytest.approx(0 if kind == "partition" else 10)


def test_a_late_report_says_how_long_a_closed_attempt_ran(make: MakeScenario):
    """The heartbeat that ends a partition says that nothing runs, which closes the attempt; its report comes after."""
    fault = {"kind": "partition", "at_s": 2, "workers": ["w2"], "for_s": 10}
    run = alone(
        make,
        fault,
        cluster={"workers": 2, "capacity": 1},
        network={"message_kinds": {"result": {"kind": "constant", "value_s": 1.5}}, "rpc_timeout_s": 2},
    )
    cut_off = run.attempts.iloc[0]
    assert cut_off.ran_s == pytest.approx(2)
    assert cut_off.ended_s < 13.5
    assert run.summary["tasks"]["late_results"] == 1
    assert run.summary["tasks"]["wasted_s"] == pytest.approx(2)


def test_an_attempt_that_nobody_hears_of_took_no_more_than_its_demand(make: MakeScenario):
    """w2 is cut off for good, and has done the task when the run ends."""
    run = alone(
        make,
        {"kind": "partition", "at_s": 2, "workers": ["w2"], "for_s": 1000},
        cluster={"workers": 2, "capacity": 1},
        drain_s=5,
    )
    assert run.summary["tasks"]["wasted_s"] == pytest.approx(2)
    assert np.isnan(run.attempts.iloc[0].ran_s)


@pytest.mark.parametrize(
    ("fault", "changes", "ended_s"),
    [
        # The worker is cut off beyond the end of the drain: nothing happens in it after the verdict.
        ({"kind": "partition", **W1, "for_s": 1000}, {"drain_s": 5}, 25),
        ({"kind": "pause", **W1, "for_s": 1000}, {"drain_s": 5}, 25),
        # The only worker is gone for good, which ends the run with its arrivals.
        ({"kind": "crash", **W1}, {}, 20),
        ({"kind": "crash", **W1}, {"drain_s": 5}, 20),
        # All is settled before the arrivals end.
        ({"kind": "hang", **W1, "for_s": 3}, {"drain_s": 5}, 20),
        # ... and after.
        ({"kind": "hang", **W1, "for_s": 40}, {}, 43),
    ],
)
def test_a_run_ends_when_it_ends(make: MakeScenario, fault: dict[str, Any], changes: dict[str, Any], ended_s: float):
    """Its end is recorded, and not inferred from the last thing that happened."""
    run = alone(make, fault, **changes)
    assert (run.summary["ended_s"], run.tables.ended_s) == (ended_s, ended_s)
    up_s = 2 if fault["kind"] == "crash" else ended_s
    assert run.summary["detection"]["judged_s"] == pytest.approx(up_s)


def test_what_stands_still_at_the_end_is_frozen_until_then(make: MakeScenario):
    """And what is executed at the end is executed until then: of 5 s of drain, none are missing."""
    paused = alone(make, {"kind": "pause", **W1, "for_s": 1000}, drain_s=5)
    assert seconds(paused) == (1, 19, 18, 1)
    long = alone(make, drain_s=5, workload={**_one_task(1000), "tasks": 1})
    assert long.summary["tasks"]["wasted_s"] == pytest.approx(24)  # from 1 to 25
    assert long.summary["tasks"]["unfinished"] == 1


def test_the_recorded_end_is_kept_in_the_folder(make: MakeScenario, tmp_path):
    """Tables that are read again end when they did."""
    from orchestrator.results import folders

    scenario = make("drain_s=5", duration_s=20, faults=[{"kind": "partition", **W1, "for_s": 1000}])
    made = sim.run(scenario, out=tmp_path / "run")
    read = folders.load_run(tmp_path / "run")
    assert made.tables.ended_s == read.tables.ended_s == 25


def test_a_slot_that_is_used_again_is_occupied_once(make: MakeScenario):
    """w1 is cut off from 2.25 to 12.25 with a task in its slot until 3, and another one behind it until 5.

    The coordinator hears of both ends with the next heartbeat, 12.457875, so its only slot is taken from 1 until then.
    w2 works from 0.5 to 8.5: on two tasks of its own, and on both of w1's again.
    """
    run = alone(
        make,
        {"kind": "partition", "at_s": 2.25, "workers": ["w1"], "for_s": 10},
        cluster={"workers": 2, "capacity": 1, "prefetch": 1},
        workload={**_one_task(2, rate_per_s=2), "tasks": 4},
        seed=0,
    )
    back_s = _time_s(run, run.events["detail"] == "revived")
    executed, occupied, frozen, wasted = seconds(run)
    assert (executed, frozen, wasted) == (12, 0, 4)
    assert occupied == pytest.approx(8 + (back_s - 1), abs=1e-6)
    assert run.summary["queue"]["at_workers"] == pytest.approx(
        (1 + 1 + (4.5 - _time_s(run, run.events["kind"] == "dead")) + 2) / 20
    )


def _time_s(run: Run, chosen: Any) -> float:
    return float(run.events.loc[chosen, "time_s"].iloc[0])


def _one_task(service_s: float, rate_per_s: float = 1) -> dict[str, Any]:
    return {
        "arrivals": {"kind": "constant", "rate_per_s": rate_per_s},
        "service": {"kind": "constant", "value_s": service_s},
    }


def test_no_task_at_all(make: MakeScenario):
    """It would arrive after 100 s. Every number has a value or is null, amid a crash too."""
    summary = alone(make, {"kind": "crash", **W1}, workload=_one_task(2, rate_per_s=0.01)).summary
    assert summary["tasks"]["submitted"] == summary["tasks"]["attempts"] == 0
    assert summary["latency_s"]["mean"] is None
    assert summary["utilization"] == 0
    assert (summary["ended_s"], summary["detection"]["detected"]) == (20, 1)
