"""A modelled worker that is asked to leave."""

from __future__ import annotations

import pytest

from orchestrator.results.tables import Tables
from orchestrator.scenario.plan import draw_plan
from sim.world import World
from tests.sim.conftest import MakeScenario

AT_S = 50.0
ALL_BUSY = {
    "workload": {
        "arrivals": {"kind": "poisson", "rate_per_s": 3},
        "service": {"kind": "exponential", "mean_s": 1},
    },
    "network": {"delay": {"kind": "exponential", "mean_s": 0.05}},
}


def drained(make: MakeScenario, fuse: bool, prefetch: int) -> Tables:
    """w1 of three workers is asked at AT_S."""
    scenario = make(f"cluster={{workers: 3, capacity: 2, prefetch: {prefetch}}}", **ALL_BUSY)
    world = World(scenario, draw_plan(scenario), fuse=fuse)
    world.env.call_at(AT_S, 0, world.drain, "w1")
    world.run()
    world.coordinator.check()
    return world.tables()


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_drained_worker_leaves_and_loses_nothing(make: MakeScenario, prefetch: int):
    """It finishes what it executes, gets nothing any more, and is not declared dead."""
    tables = drained(make, True, prefetch)
    events = tables.events.to_pandas()
    attempts = tables.attempts.to_pandas()
    own = events[events.worker == "w1"]
    assert list(own.kind) == ["up", "drain", "left"]
    assert set(attempts[attempts.worker == "w1"].outcome) <= {"completed", "rejected", "call_failed"}
    assert attempts[attempts.worker == "w1"].assigned_s.max() <= own.time_s[own.kind == "drain"].iloc[0]
    assert set(tables.tasks.to_pandas().state) == {"completed"}


def test_the_fused_path_changes_nothing_about_a_drain(make: MakeScenario):
    """Task by task and attempt by attempt the same."""
    fused, unfused = drained(make, True, 0), drained(make, False, 0)
    assert fused.tasks.equals(unfused.tasks)
    assert fused.attempts.equals(unfused.attempts)
    assert fused.events.equals(unfused.events)
