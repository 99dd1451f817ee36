"""Tasks with keys in the simulator: what a worker gains that remembers them, and what routing makes of it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.scenario.plan import OpenArrivals, draw_plan
from orchestrator.scenario.schema import Scenario, ScenarioError
from tests.sim.conftest import MakeScenario


def keyed(make: MakeScenario, routing: dict[str, Any], affinity: dict[str, Any] | None, **workload: Any) -> Scenario:
    return make(
        duration_s=2000,
        warmup_s=200,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 5},
            "service": {"kind": "constant", "value_s": 1},
            "affinity": affinity,
            **workload,
        },
        cluster={"workers": 10, "capacity": 1, "prefetch": "unlimited"},
        policies={"queue": {"kind": "fifo"}, "routing": routing},
    )


def test_keys_follow_zipfs_law(make: MakeScenario):
    """Of 100 keys with exponent 1 the i-th is drawn in a share 1 / (i H_100) of all tasks."""
    plan = draw_plan(keyed(make, {"kind": "random"}, {"keys": 100, "zipf": 1})).arrivals
    assert isinstance(plan, OpenArrivals)
    assert plan.key is not None
    counts = np.bincount(plan.key, minlength=100)
    shares = 1 / np.arange(1, 101) / sum(1 / np.arange(1, 101))
    expected = shares * len(plan)
    assert ((counts - expected) ** 2 / expected).sum() < 148.2, "chi-square, 99.9 % at 99 degrees of freedom"


def test_keys_shift_no_other_stream(make: MakeScenario):
    """Arrivals, demands and priorities are those of the same scenario without keys."""
    keys, none = (draw_plan(keyed(make, {"kind": "random"}, affinity)).arrivals for affinity in ({"keys": 5}, None))
    assert isinstance(keys, OpenArrivals)
    assert isinstance(none, OpenArrivals)
    assert np.array_equal(keys.arrival_s, none.arrival_s)
    assert np.array_equal(keys.priority, none.priority)
    assert none.key is None


def ran_s(run: Any) -> float:
    """Mean seconds of execution of those that began after the warm-up."""
    attempts = run.attempts
    return float(attempts["ran_s"][attempts["started_s"] > 200].mean())


def test_what_random_routing_gains(make: MakeScenario):
    """Keys that are all alike, 100 of them, of which each worker remembers the last 30: hits in 30 %, so that the mean
    is 1 - .3 x .8 (independent references)."""
    affinity = {"keys": 100, "zipf": 0, "hit_factor": 0.2, "remembers": 30}
    run = sim.run(keyed(make, {"kind": "random"}, affinity))
    assert ran_s(run) == pytest.approx(1 - 0.3 * 0.8, abs=0.02)


@pytest.mark.parametrize("routing", [{"kind": "consistent_hash", "bound": 10}, {"kind": "rendezvous"}])
def test_what_affinity_gains(make: MakeScenario, routing: dict[str, Any]):
    """Each worker remembers all of its own tenth of the keys, so that nearly every task is a hit."""
    affinity = {"keys": 100, "zipf": 0, "hit_factor": 0.2, "remembers": 30}
    run = sim.run(keyed(make, routing, affinity))
    assert ran_s(run) == pytest.approx(0.2, abs=0.01)


def test_the_bound_is_what_a_hot_key_costs(make: MakeScenario):
    """Half of all tasks have one key: without a bound its worker is overloaded, with one others help."""
    affinity = {"keys": 3, "zipf": 1, "hit_factor": 1}
    mean_s = {
        bound: sim.run(keyed(make, {"kind": "consistent_hash", "bound": bound}, affinity)).summary["latency_s"]["mean"]
        for bound in (0.25, 1000)
    }
    assert mean_s[1000] > 50 * mean_s[0.25]


def test_a_process_that_crashed_remembers_nothing(make: MakeScenario):
    """One worker and one key: the first task of each process is a miss."""
    scenario = make(
        duration_s=10,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 0.5},
            "affinity": {"keys": 1, "hit_factor": 0.1},
        },
        faults=[{"kind": "crash", "at_s": 5.7, "workers": ["w1"], "restart_after_s": 0.1}],
    )
    ran = sim.run(scenario).attempts["ran_s"].round(3).tolist()
    assert Counter(ran) == {0.5: 2, 0.05: len(ran) - 2}


def test_a_prime_gets_no_shorter(make: MakeScenario):
    """A live worker can't execute a share of it."""
    with pytest.raises(ScenarioError, match="is prime, which no remembered key makes shorter"):
        keyed(make, {"kind": "random"}, {"keys": 5, "hit_factor": 0.5}, task="prime")
