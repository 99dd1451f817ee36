"""Routing policies at their published or exact figures, in the simulator."""

from __future__ import annotations

import pytest

import sim
from tests.sim.conftest import MakeScenario
from tests.sim.truths import EXPONENTIAL, RARE_HEARTBEATS, assert_truth, measured, queue
from tests.sim.two_queues import mean_response_s


def test_join_idle_queue_with_two_workers(make: MakeScenario):
    """To the idle one, and to either if none is or both are: the exact mean of the Markov chain."""

    def share(a: int, b: int) -> float:
        return 0.5 if (a == 0) == (b == 0) else float(a == 0)

    exact = mean_response_s(share, 1.4, (1.0, 1.0))
    scenario = queue(make, 2, 0.7, 25_000, policies={"routing": {"kind": "join_idle_queue"}}, prefetch="unlimited")
    [found] = measured(scenario, "latency_s.mean")
    assert_truth(found, exact, floor=0.03)


def test_weighted_with_two_speeds(make: MakeScenario):
    """Shortest expected delay of two servers, one 1.7 times as fast: the exact mean of the Markov chain."""

    def share(a: int, b: int) -> float:
        return float((a + 1) / 1.7 < b + 1)

    exact = mean_response_s(share, 0.7 * 2.7, (1.7, 1.0))
    rate, tasks = 0.7 * 2.7, 25_000
    scenario = make(
        duration_s=tasks / rate,
        warmup_s=tasks / rate / 10,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": rate}, "service": EXPONENTIAL},
        cluster={
            "groups": [
                {"name": "fast", "workers": 1, "capacity": 1, "speed": 1.7, "prefetch": "unlimited"},
                {"name": "slow", "workers": 1, "capacity": 1, "prefetch": "unlimited"},
            ]
        },
        policies={"queue": {"kind": "fifo"}, "routing": {"kind": "weighted"}, "detection": RARE_HEARTBEATS},
    )
    [found] = measured(scenario, "latency_s.mean")
    assert_truth(found, exact, floor=0.03)


UNLIKE = {
    "groups": [
        {"name": "large", "workers": 2, "capacity": 16, "prefetch": "unlimited"},
        {"name": "small", "workers": 8, "capacity": 1, "prefetch": "unlimited"},
    ]
}


def unlike(make: MakeScenario, routing: str, **keys) -> dict:
    rate = 0.8 * 40
    scenario = make(
        duration_s=1_000,
        warmup_s=100,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": rate}, "service": EXPONENTIAL},
        policies={"queue": {"kind": "fifo"}, "routing": {"kind": routing}},
        **{"cluster": UNLIKE, **keys},
    )
    return sim.run(scenario).summary


def test_weighted_knows_large_workers_from_small_ones(make: MakeScenario):
    """Slots 16 and 1, queues at the workers: least_loaded gives each as many, and those of a single slot wait."""
    counted, weighed = unlike(make, "least_loaded"), unlike(make, "weighted")
    assert counted["latency_s"]["p99"] > 2 * weighed["latency_s"]["p99"]
    central = unlike(make, "least_loaded", cluster={"workers": 1, "capacity": 40})
    assert weighed["latency_s"]["p99"] == pytest.approx(central["latency_s"]["p99"], rel=0.1)


def test_prequal_that_looks_at_load_alone_is_power_of_d(make: MakeScenario):
    """Every worker that holds more than the least loaded is hot: the mean field of d = 16 at .9 is 1.185."""
    routing = {"kind": "prequal", "hot_quantile": 0, "probes": 16}
    scenario = queue(make, 400, 0.9, 30_000, policies={"routing": routing}, prefetch="unlimited")
    [found] = measured(scenario, "latency_s.mean", replications=2)
    assert_truth(found, 1 + 0.9**16 + 0.9**272, floor=0.03)


SLOWED = [{"kind": "slow", "at_s": 0, "workers": ["w1", "w2"], "factor": 0.2}]


@pytest.mark.parametrize("routing", ["peak_ewma", "prequal", "weighted"])
def test_slow_workers_get_less(make: MakeScenario, routing: str):
    """Two of ten work at a fifth of their speed: power of two, which counts tasks, has twice the p99."""

    def p99(kind: str) -> float:
        scenario = make(
            duration_s=75,
            warmup_s=10,
            workload={
                "arrivals": {"kind": "poisson", "rate_per_s": 100},
                "service": {"kind": "exponential", "mean_s": 0.05},
            },
            cluster={"workers": 10, "capacity": 1, "prefetch": "unlimited"},
            policies={"queue": {"kind": "fifo"}, "routing": {"kind": kind}},
            faults=SLOWED,
        )
        return float(sim.run(scenario).summary["latency_s"]["p99"])

    assert p99("power_of_d") > 2 * p99(routing)


def mean_field_with_stealing(load: float) -> float:
    """Mean response where an empty server takes the tail of one random server that holds two at least, at no cost
    (Mitzenmacher 1998, "Analyses of load stealing models based on differential equations")."""
    p2 = (1 + load - (1 + 2 * load - 3 * load**2) ** 0.5) / 2
    return 1 + p2 / (load * (1 - load / (1 + load - p2)))


@pytest.mark.parametrize(("load", "response"), [(0.5, 1.618), (0.9, 3.541)])
def test_stealing_in_the_mean_field(make: MakeScenario, load: float, response: float):
    """Random routing to many queues, which would take 2 and 10."""
    assert mean_field_with_stealing(load) == pytest.approx(response, abs=5e-4)
    policies = {"routing": {"kind": "random"}, "stealing": {"kind": "random", "tries": 1}}
    tasks = 20_000 if load == 0.5 else 60_000
    [found] = measured(
        queue(make, 400, load, tasks, policies=policies, prefetch="unlimited"), "latency_s.mean", replications=2
    )
    assert_truth(found, response)


def test_a_worker_that_joins_late_does_not_idle_beside_a_full_queue(make: MakeScenario):
    """Twelve tasks of 10 s at one worker; the other one joins after 5 s, and takes what has not begun."""

    def last_s(stealing: dict | None) -> float:
        scenario = make(
            duration_s=1,
            workload={
                "arrivals": {"kind": "constant", "rate_per_s": 12},
                "service": {"kind": "constant", "value_s": 10},
            },
            cluster={"workers": 2, "capacity": 1, "prefetch": "unlimited"},
            policies={"stealing": stealing},
            faults=[{"kind": "join", "at_s": 5, "workers": ["w2"]}],
        )
        return float(sim.run(scenario).summary["latency_s"]["max"])

    assert last_s(None) > 115
    assert last_s({"kind": "loaded"}) < 75
