"""Queues whose truth is known, measured over replications and held against it."""

from __future__ import annotations

import math

import numpy as np

import sim
from orchestrator.scenario.schema import Scenario
from tests.sim.conftest import MakeScenario

EXPONENTIAL = {"kind": "exponential", "mean_s": 1}
RARE_HEARTBEATS = {"kind": "timeout", "heartbeat_s": 1000, "timeout_s": 10_000}
"""Where nobody dies, they change no queue; usual ones would be a third of a run's events."""


def queue(
    make: MakeScenario, c: int, offered_load: float, tasks: int, service=EXPONENTIAL, policies=None, **cluster
) -> Scenario:
    """M/G/c in a central queue, or with prefetch at the workers; a tenth of it is warm-up."""
    rate = offered_load * c
    return make(
        duration_s=tasks / rate,
        warmup_s=tasks / rate / 10,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": rate}, "service": service},
        cluster={"workers": c, "capacity": 1, **cluster},
        policies={"queue": {"kind": "fifo"}, "detection": RARE_HEARTBEATS, **(policies or {})},
    )


def measured(scenario: Scenario, *metrics: str, replications: int = 4) -> list[tuple[float, float]]:
    """Mean over replications of each metric (`wait_s.mean`) and its standard error."""
    rows = []
    for number in range(replications):
        summary = sim.run(scenario, number).summary
        assert summary["tasks"]["completed"] == summary["tasks"]["submitted"]
        rows.append([summary[group][moment] for group, moment in (metric.split(".") for metric in metrics)])
    values = np.array(rows)
    return list(zip(values.mean(axis=0), values.std(axis=0, ddof=1) / math.sqrt(replications), strict=True))


def assert_truth(found: tuple[float, float], truth: float, floor: float = 0.02, ceiling: float = 0.25) -> None:
    """Within what chance allows, which must itself be small enough to say anything.

    An error estimated from four runs is uncertain itself: five of it are what three of a known one would be
    (Student's t with three degrees of freedom).
    """
    value, error = found
    tolerance = max(floor * truth, 5 * error)
    assert tolerance <= ceiling * truth, f"{value:.4g} +- {error:.2g} is too uncertain to tell"
    assert abs(value - truth) <= tolerance, f"{value:.4g} +- {error:.2g}, expected {truth}"
