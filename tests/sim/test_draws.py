"""Chance belongs to the task and its attempt, and to the worker and its beat: runs of one seed stay paired."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import sim
from orchestrator.scenario.schema import Scenario
from sim.draws import AttemptDraws, fates_of
from tests.sim.conftest import MakeScenario, assert_same_run, world_of

DELAYED: dict[str, Any] = {
    "duration_s": 60,
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 8},
        "service": {"kind": "exponential", "mean_s": 0.5},
        "priorities": {"normal": 0.5, "urgent": 0.5},
    },
    "cluster": {
        "groups": [{"name": "some", "workers": 6, "capacity": 1}],
        "overhead": {"kind": "exponential", "mean_s": 0.01},
    },
    "network": {"delay": {"kind": "exponential", "mean_s": 0.05}},
    "policies": {"detection": {"kind": "timeout", "heartbeat_s": 1, "timeout_s": 3}},
}
DRAWN = ["assign_s", "result_s", "overhead_s"]
CRASH = {"kind": "crash", "at_s": 5, "workers": ["w1"], "restart_after_s": 20}


def drawn(scenario: Scenario) -> pd.DataFrame:
    """By task and attempt, of those that completed: what its messages took, and its execution beyond its demand."""
    run = sim.run(scenario)
    rows = run.attempts[run.attempts.outcome == "completed"].merge(run.tasks[["task", "service_s"]], on="task")
    return pd.DataFrame(
        {
            "assign_s": rows.started_s - rows.assigned_s,
            "result_s": rows.ended_s - rows.started_s - rows.ran_s,
            "overhead_s": rows.ran_s - rows.service_s,
            "worker": rows.worker.astype(str),
        }
    ).set_index(pd.MultiIndex.from_frame(rows[["task", "attempt"]]))


@pytest.mark.parametrize(
    "changes",
    [
        {"faults": [CRASH]},
        {"policies": DELAYED["policies"] | {"queue": {"kind": "fifo"}}},
        {"policies": DELAYED["policies"] | {"routing": {"kind": "round_robin"}}},
        {"policies": DELAYED["policies"] | {"execution_timeout_s": 0.8, "retry": {"max_attempts": 3}}},
    ],
    ids=["a crash", "another queue", "another routing", "timeouts"],
)
def test_what_an_attempt_draws_does_not_depend_on_what_else_happens(make: MakeScenario, changes: dict[str, Any]):
    """The delays of both its messages and its overhead are the same with a fault or another policy."""
    one, other = drawn(make(**DELAYED)), drawn(make(**DELAYED | changes))
    both = one.index.intersection(other.index)
    assert len(both) > 200
    assert (one.loc[both].worker != other.loc[both].worker).any()
    np.testing.assert_allclose(one.loc[both, DRAWN], other.loc[both, DRAWN], rtol=0, atol=1e-9)
    assert one.assign_s.std() > 0.03  # they are drawn


def test_later_attempts_draw_by_their_number(make: MakeScenario):
    """A second attempt draws the same, whichever tasks have one."""
    crash = DELAYED | {"faults": [CRASH]}
    more = DELAYED | {"faults": [CRASH, {"kind": "crash", "at_s": 6, "workers": ["w2"]}]}
    one, other = drawn(make(**crash)), drawn(make(**more))
    seconds = [key for key in one.index.intersection(other.index) if key[1] > 1]
    assert seconds
    np.testing.assert_allclose(one.loc[seconds, DRAWN], other.loc[seconds, DRAWN], rtol=0, atol=1e-9)
    first = [(task, 1) for task, _ in seconds]
    draws = AttemptDraws(make(**crash), 0)
    columns = list(draws.of_tasks(np.ones(1000)).payloads(np.arange(1000)))
    assert all(
        abs(columns[task][2] - one.loc[key].assign_s) > 1e-6 for (task, _), key in zip(first, seconds, strict=True)
    )


def test_the_beats_of_a_worker_do_not_depend_on_the_others(make: MakeScenario):
    """Loss, delay and copies of every other worker's heartbeats are the same when one crashes and comes back."""
    lossy = DELAYED | {"network": {"delay": {"kind": "exponential", "mean_s": 0.2}, "loss": 0.1, "duplicate": 0.1}}
    well, crashed = (sim.heartbeats(make(**lossy, faults=faults)) for faults in ([], [CRASH]))

    def beats(trace: Any) -> dict[str, list[float]]:
        return {life.worker: life.beats_s[life.beats_s < 59].tolist() for life in trace.lives}

    ours, theirs = beats(well), beats(crashed)
    assert len(ours["w2"]) > 40
    assert all(ours[name] == theirs[name] for name in ours if name != "w1")
    assert len({tuple(np.diff(times)[:5]) for times in ours.values()}) == 6  # each has its own


def test_losses_and_copies_belong_to_the_attempt_too(make: MakeScenario):
    """The fates of two orders of asking are the same, and as frequent as the scenario says."""
    lossy = DELAYED | {"network": {"delay": {"kind": "exponential", "mean_s": 0.2}, "loss": 0.2, "duplicate": 0.1}}
    columns = AttemptDraws(make(**lossy), 0).of_tasks(np.ones(4_000))
    forward, backward = (list(map(fates_of, columns.payloads(np.arange(4_000)[::step]))) for step in (1, -1))
    assert backward[::-1] == forward
    there, back, _ = zip(*forward, strict=True)
    for fates in (there, back):
        assert sum(arrives is None for arrives, _ in fates) / 4_000 == pytest.approx(0.2, abs=0.02)
        assert sum(copy is not None for _, copy in fates) / 4_000 == pytest.approx(0.1, abs=0.015)


def test_a_closed_client_draws_its_own(make: MakeScenario):
    """Whatever the other clients do, and however many there are."""
    closed = DELAYED | {
        "workload": DELAYED["workload"]
        | {"arrivals": {"kind": "closed", "clients": 3, "think": {"kind": "exponential", "mean_s": 1}}}
    }
    one, other = (AttemptDraws(make(**closed), 0) for _ in range(2))
    first, second = one.of_client(0), one.of_client(1)
    mine = [next(first) for _ in range(100) if next(second)]
    again = other.of_client(0)
    assert [next(again) for _ in range(100)] == mine
    assert len({row[1] for row in mine}) == 100
    assert_same_run(world_of(make(**closed)), world_of(make(**closed), fuse=False))
