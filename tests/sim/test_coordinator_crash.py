"""A simulated coordinator that stores what it promises, and crashes: tiny scenarios of constants, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.analysis import outages
from orchestrator.analysis.promises import check
from orchestrator.core import redialling
from orchestrator.results.runs import Run
from orchestrator.results.tables import event_rows
from orchestrator.scenario.loading import ScenarioError
from tests.sim.conftest import MakeScenario

CRASH = {"kind": "coordinator_crash"}
COMMIT_S = 0.125
BACK_S = 0.375
"""Here everybody has a connection again so long after the next coordinator begins."""


@pytest.fixture(autouse=True)
def dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim.durable.reached_after", lambda absent_s, rng: absent_s + BACK_S)


def played(make: MakeScenario, *faults: dict[str, Any], tasks: int = 1, **changes: Any) -> Run:
    """One worker with one slot; task k arrives at second k + 1 and takes 2 s; no message takes time."""
    tree: dict[str, Any] = {
        "duration_s": 40,
        "workload": {
            "arrivals": {"kind": "constant", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 2},
            "tasks": tasks,
        },
        "coordinator": {"commit": {"kind": "constant", "value_s": COMMIT_S}},
        "policies": {"detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 3}},
        "faults": list(faults),
    }
    run = sim.run(make(**{**tree, **changes}), check=True)
    assert check(run, healed=True) == []
    return run


def rows(run: Run, *columns: str) -> list[list[Any]]:
    return run.attempts[list(columns)].round(6).values.tolist()


def story(run: Run) -> list[str]:
    return [
        f"{at_s:g} {kind} {detail or ''}".rstrip()
        for at_s, kind, who, detail in event_rows(run.tables.events)
        if not who
    ]


def test_an_assignment_leaves_when_it_is_stored(make: MakeScenario):
    """What gathers while a group is written is the next one: the second task's waits for two."""
    run = played(make, tasks=2, workload={
        "arrivals": {"kind": "constant", "rate_per_s": 16},
        "service": {"kind": "constant", "value_s": 1},
        "tasks": 2,
    }, cluster={"workers": 1, "capacity": 2})  # fmt: skip
    assert rows(run, "assigned_s", "started_s", "ended_s") == [
        [0.0625, 0.0625 + COMMIT_S, 1.0625 + COMMIT_S],
        [0.125, 0.0625 + 2 * COMMIT_S, 1.0625 + 2 * COMMIT_S],
    ]


def test_what_a_worker_runs_goes_on_without_a_coordinator(make: MakeScenario):
    """Assigned by the first one, and settled by the second, which is told when its answer to the worker is stored."""
    run = played(make, {**CRASH, "at_s": 2, "restart_after_s": 4})
    assert story(run) == ["2 coordinator_crash", "6 heal coordinator_crash", "6 recovered term 2"]
    assert rows(run, "attempt", "assigned_s", "started_s", "ran_s", "ended_s", "outcome") == [
        [1, 1.0, 1.0 + COMMIT_S, 2.0, 6 + BACK_S + COMMIT_S, "completed"]
    ]
    assert run.tasks["accepted_s"].tolist() == [1.0]


def test_what_was_not_stored_did_not_happen(make: MakeScenario):
    """The client was never told that its task is taken, so it submits it again; so does one whose task came later."""
    run = played(make, {**CRASH, "at_s": 1.0625, "restart_after_s": 4}, tasks=2)
    taken_s = 5.0625 + BACK_S
    accepted_s = run.tasks["accepted_s"].tolist()
    assert accepted_s[1] == taken_s
    assert accepted_s[0] in (1.0, taken_s)  # chance says whether the group under way is durable
    assert set(run.attempts["outcome"]) <= {"completed", "call_failed"}  # the latter one was stored, and never left


def test_chance_decides_whether_the_group_under_way_is_durable(make: MakeScenario):
    """Over twenty seeds both happen, and either way the task is settled once."""
    fault = {**CRASH, "at_s": 1.0625, "restart_after_s": 1}
    accepted = {played(make, fault, seed=seed).tasks["accepted_s"].tolist()[0] for seed in range(20)}
    assert accepted == {1.0, 2.0625 + BACK_S}


def test_a_worker_that_dies_meanwhile_has_lost_its_task(make: MakeScenario):
    """Its next process registers with the second coordinator: another attempt, and a try less."""
    run = played(
        make,
        {**CRASH, "at_s": 2, "restart_after_s": 4},
        {"kind": "crash", "at_s": 3, "workers": ["w1"], "restart_after_s": 1},
    )
    assert rows(run, "attempt", "outcome") == [[1, "worker_died"], [2, "completed"]]


def test_a_worker_that_never_returns_is_waited_for_as_long_as_its_detector_says(make: MakeScenario):
    """Then another worker gets its task."""
    run = played(
        make,
        {**CRASH, "at_s": 2, "restart_after_s": 4},
        {"kind": "crash", "at_s": 3, "workers": ["w1"]},
        cluster={"workers": 2, "capacity": 1},
        policies={
            "routing": {"kind": "round_robin"},
            "detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 3},
        },
    )
    assert rows(run, "attempt", "worker", "given_up_s", "outcome") == [
        [1, "w1", 9.0, "worker_died"],
        [2, "w2", pytest.approx(np.nan, nan_ok=True), "completed"],
    ]


def test_terms_rise_with_every_crash(make: MakeScenario):
    """And a coordinator may crash before anybody has reached it."""
    run = played(make, {**CRASH, "every_s": 5, "restart_after_s": 0.125}, tasks=20)
    told = [line.split()[-1] for line in story(run) if "term" in line]
    assert told == [str(term) for term in range(2, 2 + len(told))]
    twice = [{**CRASH, "at_s": at_s, "restart_after_s": 0.125} for at_s in (2, 2.25, 2.5)]
    assert played(make, *twice, tasks=3).summary["tasks"]["completed"] == 3


def test_closed_clients_get_what_they_missed(make: MakeScenario):
    """A result that came while they had no connection, and then they go on."""
    run = played(
        make,
        {**CRASH, "every_s": 7, "restart_after_s": 2},
        workload={
            "arrivals": {"kind": "closed", "clients": 3, "think": {"kind": "constant", "value_s": 0.5}},
            "service": {"kind": "constant", "value_s": 1},
        },
        cluster={"workers": 2, "capacity": 1},
    )
    assert run.summary["tasks"]["unfinished"] == 0
    gaps_s = np.diff(np.sort(run.tasks["arrival_s"].to_numpy()))
    assert gaps_s.max() < 5


def test_the_outage_the_backlog_and_the_recovery_are_told(make: MakeScenario):
    """Nothing is settled from the crash at 20 s until the workers are back; then more than arrives."""
    run = played(
        make,
        {**CRASH, "at_s": 20, "restart_after_s": 4},
        duration_s=60,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 4},
            "service": {"kind": "constant", "value_s": 0.25},
        },
        cluster={"workers": 2, "capacity": 1},
    )
    told = outages.measure([run])
    assert told["outage_s.mean"] == 4 + BACK_S + COMMIT_S
    # 4 a second arrive for 4.5 s, beside the one that was in hand.
    assert 16 <= told["backlog.mean"] <= 19
    # While 4 a second come, 5.3 go (0.25 s and a commit each): 1.3 s for each second of the outage.
    assert told["recovery_s.half"] < told["recovery_s.quarter"] < told["recovery_s.tenth"]
    assert 12 < told["recovery_s.tenth"] < 22
    assert outages.measure([played(make)]) == {}


def test_a_crash_needs_a_store(make: MakeScenario):
    """The error says what to add."""
    with pytest.raises(ScenarioError, match="stores nothing, so that every task would be lost, expected coord"):
        make(faults=[{**CRASH, "at_s": 2, "restart_after_s": 4}])
    with pytest.raises(ScenarioError, match="has not a length, expected exactly one of restart_after_s, mttr_s"):
        make(faults=[{**CRASH, "at_s": 2}], coordinator={"commit": {"kind": "constant", "value_s": 0.1}})


def test_equal_seeds_give_equal_crashes(make: MakeScenario):
    """Whatever chance has a part in."""
    scenario = make(
        duration_s=60,
        coordinator={"commit": {"kind": "exponential", "mean_s": 0.05}},
        faults=[{**CRASH, "mtbf_s": 8, "mttr_s": 2}],
    )
    one, other = sim.run(scenario), sim.run(scenario)
    assert one.tables.tasks.equals(other.tables.tasks)
    assert one.tables.attempts.equals(other.tables.attempts)
    assert one.tables.events.equals(other.tables.events)


def test_who_lost_its_coordinator_is_back_soon_after_the_next_one_begins():
    """By pauses that grow to two seconds, and a channel that connects again within one."""
    import random

    for seed in range(200):
        rng = random.Random(seed)
        absent_s = rng.uniform(0, 20)
        after_s = redialling.reached_after(absent_s, rng) - absent_s
        assert 0 <= after_s < redialling.PAUSE_MAX_S + redialling.BACKOFF_MAX_S * (1 + redialling.BACKOFF_JITTER)
