"""What an answer rests on: the load on what is left of the cluster while a fault lasts."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.analysis.answers import between
from orchestrator.results.runs import Run
from orchestrator.scenario.schema import Scenario
from tests.results.synthetic import run, tables, task


def told(**fault: Any) -> list[str]:
    """Of a load of 80 % on ten workers, which the fault hits."""
    scenario = Scenario.model_validate(
        {
            "name": "rolling",
            "seed": 1,
            "duration_s": 100,
            "workload": {
                "arrivals": {"kind": "poisson", "rate_per_s": 8},
                "service": {"kind": "constant", "value_s": 1},
            },
            "cluster": {"workers": 10, "capacity": 1},
            "faults": [fault],
        }
    )
    names = scenario.worker_names()

    def made(latency_s: float) -> Run:
        return run(tables([task(15.0, 15.0 + latency_s)], workers=names), scenario)

    return between([("A", made(1.0)), ("B", made(2.0))]).assumptions


CRASH = {"kind": "crash", "at_s": 20, "all": True, "restart_after_s": 10}


@pytest.mark.parametrize(
    ("fault", "percent"),
    [
        (CRASH | {"stagger_s": 10}, 89),  # one of ten at a time
        (CRASH | {"stagger_s": 5}, 100),  # two
        (CRASH | {"stagger_s": 4}, 114),  # the third is hit before the first is back
        ({"kind": "restart", "at_s": 20, "all": True, "grace_s": 10, "stagger_s": 5}, 100),
        ({"kind": "crash", "at_s": 20, "count": 3, "restart_after_s": 10, "stagger_s": 5}, 100),
        ({"kind": "drain", "at_s": 20, "workers": ["w1", "w2", "w3"], "stagger_s": 5}, 114),  # none comes back
    ],
)
def test_a_staggered_fault_takes_away_as_many_as_it_holds_at_once(fault: dict[str, Any], percent: int):
    """The load is told on what all of them together leave, and that the queue grows where that is too little."""
    (load,) = [one for one in told(**fault) if one.startswith("the load is 80 %")]
    assert f"the load is 80 %, and {percent} % of what the fault leaves" in load
    assert ", staggered)" in load
    assert ("so that the queue grows" in load) == (percent > 100)
