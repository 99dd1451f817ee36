"""A small scenario whose load is known by hand."""

from __future__ import annotations

from typing import Any

from orchestrator.scenario.schema import Scenario


def ten_slots(**changes: Any) -> Scenario:
    """Ten slots, 1,200 tasks of 5 ms a second: 60 % of them are busy."""
    tree: dict[str, Any] = {
        "name": "small",
        "duration_s": 60,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": 1200},
            "service": {"kind": "exponential", "mean_s": 0.005},
        },
        "cluster": {"workers": 10, "capacity": 1},
    }
    return Scenario.model_validate(tree | changes)
