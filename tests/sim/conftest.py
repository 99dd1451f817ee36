"""Scenarios in a line, and what a run of them must keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.results.tables import Tables
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario
from sim.world import World

REPOSITORY = Path(__file__).parents[2]
TRACE = REPOSITORY.parent / "shared" / "data" / "azure-llm-code-2023.csv"

MakeScenario = Callable[..., Scenario]


@pytest.fixture
def make(tmp_path: Path) -> MakeScenario:
    """A scenario from nested mappings; one M/M/1-like queue where nothing is said."""

    def make_scenario(*overrides: str, **tree: Any) -> Scenario:
        tree = {
            "name": "test",
            "seed": 1,
            "duration_s": 100,
            "workload": {
                "arrivals": {"kind": "poisson", "rate_per_s": 0.7},
                "service": {"kind": "exponential", "mean_s": 1},
            },
            "cluster": {"workers": 1, "capacity": 1},
            **tree,
        }
        path = tmp_path / "test.yaml"
        YAML().dump(tree, path)
        return Scenario.load(path, overrides)

    return make_scenario


def world_of(scenario: Scenario, replication: int = 0, fuse: bool = True) -> World:
    """A run to its end, with the core's invariants and the agents' proved there."""
    world = World(scenario, draw_plan(scenario, replication), replication, fuse)
    world.run()
    world.check()
    return world


def assert_same_run(one: World, other: World) -> Tables:
    """Task by task, attempt by attempt and event by event; and the coordinators counted alike."""
    a, b = one.tables(), other.tables()
    assert a.tasks.equals(b.tasks)
    assert a.attempts.equals(b.attempts)
    assert a.events.equals(b.events)
    assert one.coordinator.counters == other.coordinator.counters
    return a
