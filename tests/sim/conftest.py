"""Scenarios in a line, and what a run of them must keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from orchestrator.experiment import Scenario

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
