"""Queue disciplines at their published or exact figures, in the simulator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import sim
from tests.sim.conftest import MakeScenario
from tests.sim.truths import EXPONENTIAL, RARE_HEARTBEATS, assert_truth

RATE = 0.9
PRIORITIES = ("high", "normal", "low")


def waits(make: MakeScenario, discipline: dict[str, Any], tasks: int = 80_000) -> dict[str, tuple[float, float]]:
    """M/M/1 with three classes of load .3: the mean wait of each, and its standard error over four runs."""
    scenario = make(
        duration_s=tasks / RATE,
        warmup_s=tasks / RATE / 10,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": RATE},
            "service": EXPONENTIAL,
            "priorities": {"low": 1 / 3, "normal": 1 / 3, "high": 1 / 3},
        },
        policies={"queue": discipline, "detection": RARE_HEARTBEATS},
    )
    found: dict[str, list[float]] = {name: [] for name in PRIORITIES}
    for number in range(4):
        by_priority = sim.run(scenario, number).summary["by_priority"]
        for name, values in found.items():
            values.append(by_priority[name]["latency_s"]["mean"] - 1)
    return {name: (float(np.mean(values)), float(np.std(values, ddof=1)) / 2) for name, values in found.items()}


@pytest.mark.parametrize(
    "discipline",
    [
        {"kind": "aging", "tau_s": 5},
        {"kind": "weighted_fair", "weights": {"low": 1, "normal": 2, "high": 3}},
    ],
    ids=lambda tree: tree["kind"],
)
def test_kleinrocks_conservation_law(make: MakeScenario, discipline: dict[str, Any]):
    """Whoever goes first, the mean of the classes' waits, weighed by their loads, is that of M/M/1: 9."""
    found = waits(make, discipline, 40_000)
    mean = sum(value for value, _ in found.values()) / 3
    assert_truth((mean, sum(error for _, error in found.values()) / 3), 9.0, floor=0.05, ceiling=0.6)
    assert found["high"][0] < found["normal"][0] < found["low"][0]


def test_aging_without_end_is_strict_priority(make: MakeScenario):
    """If waiting hardly ever counts, Cobham's waits."""
    found = waits(make, {"kind": "aging", "tau_s": 1e6})
    for value, truth in zip(found.values(), (1.286, 3.214, 22.50), strict=True):
        assert_truth(value, truth, floor=0.05, ceiling=0.6)


def test_aging_bounds_how_much_longer_the_low_ones_wait(make: MakeScenario):
    """In a long queue two classes wait tau longer for each step between them (Jackson 1960): 2 tau at most."""
    tau_s = 5.0
    found = waits(make, {"kind": "aging", "tau_s": tau_s}, 40_000)
    assert 0.5 * tau_s < found["low"][0] - found["normal"][0] < tau_s
    assert 0.5 * tau_s < found["normal"][0] - found["high"][0] < tau_s


def test_sjf_serves_the_short_kind_first(make: MakeScenario):
    """Two kinds, means 0.5 and 2, loads .4 and .4, exponential: Cobham's waits with the short kind first.

    W0 = sum of the arrival rates times the mean squares / 2 = 1; short W0 / (1 - .4), long W0 / (1 - .4) / (1 - .8).
    Nothing tells the coordinator how long they take: it learns that.
    """
    rate, tasks = 0.8 + 0.2, 60_000
    scenario = make(
        duration_s=tasks / rate,
        warmup_s=tasks / rate / 10,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": rate},
            "kinds": {
                "short": {"share": 0.8, "service": {"kind": "exponential", "mean_s": 0.5}},
                "long": {"share": 0.2, "service": {"kind": "exponential", "mean_s": 2}},
            },
        },
        policies={"queue": {"kind": "sjf"}, "detection": RARE_HEARTBEATS},
    )
    w0 = (0.8 * 2 * 0.5**2 + 0.2 * 2 * 2**2) / 2
    truths = {"short": 0.5 + w0 / 0.6, "long": 2 + w0 / 0.6 / 0.2}
    runs = [sim.run(scenario, number).summary["by_kind"] for number in range(4)]
    for kind, truth in truths.items():
        values = [run[kind]["latency_s"]["mean"] for run in runs]
        assert_truth((float(np.mean(values)), float(np.std(values, ddof=1)) / 2), truth, floor=0.04, ceiling=0.4)
