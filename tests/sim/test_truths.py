"""The published truths of queueing theory and of failure detection come out of the simulator.

Every queue has a service time of mean 1 s and no network delay. N tasks of a run of one queue give a relative
standard error that falls as N^-1/2; the tolerance comes from the replications' own spread, with a small
floor.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import sim
from orchestrator.policies.detection import phi, phi_timeout_s
from orchestrator.results.runs import Run
from orchestrator.scenario.schema import Scenario
from tests.sim.conftest import MakeScenario
from tests.sim.truths import EXPONENTIAL, RARE_HEARTBEATS, assert_truth, measured, queue


@pytest.mark.parametrize(
    ("c", "offered_load", "wait", "response", "w99", "t99"),
    [
        (1, 0.7, 2.333, 3.333, 14.16, 15.35),
        (2, 0.9, 4.263, 5.263, 22.23, 23.34),
        (10, 0.7, 0.07391, 1.074, 1.033, 4.710),
        (10, 0.8, 0.2046, 1.205, 1.856, 4.946),
        (10, 0.9, 0.6687, 1.669, 4.203, 6.250),
        (100, 0.9, 0.02169, 1.022, 0.3077, 4.629),
    ],
)
def test_m_m_c(make: MakeScenario, c: int, offered_load: float, wait: float, response: float, w99: float, t99: float):
    """Erlang's queue: mean wait and response, and their 99th percentiles."""
    tasks = 60_000 if c < 100 else 80_000
    found = measured(
        queue(make, c, offered_load, tasks), "wait_s.mean", "latency_s.mean", "wait_s.p99", "latency_s.p99"
    )
    for value, truth in zip(found, (wait, response, w99, t99), strict=True):
        assert_truth(value, truth, floor=0.04, ceiling=0.5)


@pytest.mark.parametrize(("offered_load", "tasks", "wait"), [(0.7, 25_000, 1.167), (0.9, 60_000, 4.5)])
def test_m_d_1(make: MakeScenario, offered_load: float, tasks: int, wait: float):
    """Pollaczek and Khinchine: with a constant service time the wait is half of the exponential one's."""
    [found] = measured(queue(make, 1, offered_load, tasks, {"kind": "constant", "value_s": 1}), "wait_s.mean")
    assert_truth(found, wait)


def test_m_g_1_with_a_heavy_coefficient_of_variation(make: MakeScenario):
    """W = offered_load (1 + cv^2) / (2 (1 - offered_load)), here for lognormal service with cv 2."""
    [found] = measured(queue(make, 1, 0.5, 80_000, {"kind": "lognormal", "mean_s": 1, "cv": 2}), "wait_s.mean")
    assert_truth(found, 0.5 * (1 + 4) / (2 * 0.5), floor=0.03)


def test_priority_classes(make: MakeScenario):
    """Non-preemptive priorities, c = 1, loads .3/.3/.3 (Cobham 1954)."""
    rate, tasks = 0.9, 100_000
    scenario = make(
        duration_s=tasks / rate,
        warmup_s=tasks / rate / 10,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": rate},
            "service": EXPONENTIAL,
            "priorities": {"low": 1 / 3, "normal": 1 / 3, "high": 1 / 3},
        },
        policies={"detection": RARE_HEARTBEATS},
    )
    waits: dict[str, list[float]] = {"high": [], "normal": [], "low": []}
    for number in range(4):
        by_priority = sim.run(scenario, number).summary["by_priority"]
        for name, values in waits.items():
            values.append(by_priority[name]["latency_s"]["mean"] - 1)
    for (_, values), truth in zip(waits.items(), (1.286, 3.214, 22.50), strict=True):
        assert_truth((float(np.mean(values)), float(np.std(values, ddof=1)) / 2), truth, floor=0.03, ceiling=0.4)


@pytest.mark.parametrize(
    ("routing", "offered_load", "response"),
    [
        ({"kind": "random"}, 0.7, 3.333),
        ({"kind": "random"}, 0.9, 10.00),
        ({"kind": "power_of_d", "d": 2}, 0.7, 1.677),
        ({"kind": "power_of_d", "d": 2}, 0.9, 2.980),
        ({"kind": "least_loaded"}, 0.7, 1.160),
        ({"kind": "least_loaded"}, 0.9, 1.910),
    ],
)
def test_routing_to_ten_queues(make: MakeScenario, routing: dict, offered_load: float, response: float):
    """c = 10 with a queue at each worker: random, two choices without replacement, the least loaded."""
    tasks = 25_000 if offered_load == 0.7 else 100_000 if routing["kind"] == "random" else 40_000
    scenario = queue(make, 10, offered_load, tasks, policies={"routing": routing}, prefetch="unlimited")
    [found] = measured(scenario, "latency_s.mean")
    assert_truth(found, response, floor=0.03, ceiling=0.2)


@pytest.mark.parametrize(
    ("d", "offered_load", "tasks", "response"),
    [(2, 0.7, 20_000, 1.614), (2, 0.9, 60_000, 2.614), (3, 0.7, 20_000, 1.357), (3, 0.9, 60_000, 2.028)],
)
def test_power_of_d_in_the_mean_field(make: MakeScenario, d: int, offered_load: float, tasks: int, response: float):
    """Many queues: T = sum of offered_load^((d^i - d) / (d - 1)) (Mitzenmacher 2001; Vvedenskaya et al. 1996)."""
    policies = {"routing": {"kind": "power_of_d", "d": d}}
    [found] = measured(queue(make, 400, offered_load, tasks, policies=policies, prefetch="unlimited"), "latency_s.mean")
    assert_truth(found, response)


def closed_mean_response(clients: int, think_s: float) -> float:
    """Mean value analysis of one exponential server with a mean of 1 s (Reiser and Lavenberg 1980)."""
    queue_length = 0.0
    for n in range(1, clients + 1):
        response = 1 + queue_length
        queue_length = n / (think_s + response) * response
    return response


def test_closed_clients(make: MakeScenario):
    """Clients that think and wait: the response of mean value analysis."""
    scenario = make(
        duration_s=20_000,
        warmup_s=1_000,
        workload={
            "arrivals": {"kind": "closed", "clients": 5, "think": {"kind": "exponential", "mean_s": 4}},
            "service": EXPONENTIAL,
        },
        policies={"detection": RARE_HEARTBEATS},
    )
    [found] = measured(scenario, "latency_s.mean")
    assert_truth(found, closed_mean_response(5, 4.0))


def test_a_coordinator_that_costs_time_is_a_queue_of_its_own(make: MakeScenario):
    """Two messages a task (submission and result) through a server with constant cost: M/D/1 at load 0.6, about.

    Results are the submissions of a moment before, so that the stream is not quite Poisson: 5 %.
    """
    cost_s, rate = 0.001, 300
    scenario = make(
        duration_s=100,
        warmup_s=10,
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": rate},
            "service": {"kind": "exponential", "mean_s": 1},
        },
        cluster={"workers": 1000, "capacity": 1},
        coordinator={"cost_s": cost_s},
        policies={"detection": RARE_HEARTBEATS},
    )
    [found] = measured(scenario, "accept_s.mean", replications=2)
    load = 2 * rate * cost_s
    assert_truth(found, cost_s * (1 + load / (2 * (1 - load))), floor=0.05)


def crashes(make: MakeScenario, count: int, detection: dict, **network) -> Scenario:
    """Workers that are idle, and each crash once and for good at a random moment."""
    return make(
        duration_s=500,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 0.01}, "service": EXPONENTIAL},
        cluster={"workers": count, "capacity": 1},
        policies={"detection": detection},
        network=network,
        faults=[{"kind": "crash", "mtbf_s": 80, "count": count - 1}],
    )


def detection_times(run: Run) -> pd.Series:
    """Seconds from crash to verdict, of those that crashed after the registration was forgotten: it counts as a beat,
    and out of phase."""
    events = run.events
    crashed = events[events.kind == "crash"].set_index("worker").time_s
    dead = events[(events.kind == "dead") & (events.detail == "detector")].set_index("worker").time_s
    return (dead - crashed[crashed > 10]).dropna()


def test_the_triangular_law_of_detection(make: MakeScenario):
    """h/T/c = 2/6/2 with independent phases: triangular on [4, 8], mean 6, sd .8165, p90 7.106, p99 7.717."""
    detection = {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 6, "check_every_s": 2}
    scenario = crashes(make, 1_000, detection)
    times: list[float] = []
    for number in range(8):
        run = sim.run(scenario, number)
        times.extend(detection_times(run))
        assert run.summary["detection"]["false_positives"] == 0
    found = np.array(times)
    n = len(found)
    assert n > 5_000
    assert found.min() >= 4 - 1e-6
    assert found.max() <= 8 + 1e-6
    # The sweep's phase is one number a run, so the workers of a run are not independent: eight runs, a wide net.
    assert found.mean() == pytest.approx(6, abs=0.1)
    assert found.std() == pytest.approx(0.8165, abs=0.1)
    assert np.percentile(found, 90) == pytest.approx(7.106, abs=0.15)
    assert np.percentile(found, 99) == pytest.approx(7.717, abs=0.15)


def test_detection_without_a_periodic_check(make: MakeScenario):
    """Exact: T minus the age of the last beat at the crash, uniform on [T - h, T]."""
    summary = sim.run(crashes(make, 1_000, {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 6})).summary
    time_s = summary["detection"]["time_s"]
    assert time_s["mean"] == pytest.approx(5, abs=3 * 2 / math.sqrt(12) / math.sqrt(900))
    assert time_s["max"] <= 6 + 1e-6
    assert time_s["p50"] == pytest.approx(5, abs=0.1)


def mistakes_per_s(make: MakeScenario, timeout_s: float, delay: dict, loss: float, duration_s: float) -> float:
    scenario = make(
        duration_s=duration_s,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 0.01}, "service": EXPONENTIAL},
        cluster={"workers": 100, "capacity": 1},
        policies={"detection": {"kind": "timeout", "heartbeat_s": 2, "timeout_s": timeout_s}},
        network={"delay": delay, "loss": loss},
    )
    return sim.run(scenario).summary["detection"]["false_positives"] / (100 * duration_s)


JITTER = {"kind": "exponential", "mean_s": 0.02}


def test_three_heartbeats_is_a_knife_edge(make: MakeScenario):
    """T = 3h: two losses in a row leave the third beat to a coin toss of the jitter; a little more time does not.

    Rates: p^2 (1 - p) / h / 2 + p^3 (1 - p) / h at T = 3h, and p^3 (1 - p) / h between 3h and 4h.
    """
    p, h = 0.1, 2
    two, three = p**2 * (1 - p) / h, p**3 * (1 - p) / h
    at_the_edge = mistakes_per_s(make, 6.0, JITTER, p, 1_000)
    beyond = mistakes_per_s(make, 6.5, JITTER, p, 5_000)
    # Some 250 mistakes each, so that a fifth is three standard errors.
    assert at_the_edge == pytest.approx((1 - p) * two / 2 + three, rel=0.2)
    assert beyond == pytest.approx(three, rel=0.2)


def test_without_jitter_a_beat_at_the_edge_is_in_time(make: MakeScenario):
    """T = 3h with constant delay and no loss makes nobody dead."""
    assert mistakes_per_s(make, 6.0, {"kind": "constant", "value_s": 0.013}, 0.0, 2_000) == 0
    assert mistakes_per_s(make, 2.0, {"kind": "constant", "value_s": 0.013}, 0.0, 2_000) == 0


@pytest.mark.parametrize(("threshold", "timeout_s"), [(3, 2.309), (8, 2.561)])
def test_the_timeout_that_phi_amounts_to(threshold: float, timeout_s: float):
    """Mean gap 2, deviation .1, normal tail."""
    assert phi_timeout_s(threshold, 2, 0.1) == pytest.approx(timeout_s, abs=5e-4)
    assert phi(phi_timeout_s(threshold, 2, 0.1), 2, 0.1) == pytest.approx(threshold)


def test_phi_swallows_single_losses(make: MakeScenario):
    """h = 2, p = .05, threshold 8: the window's deviation makes phi a timeout of about 4.75 s, so that only two
    losses in a row mean death: p^2 (1 - p) / h = 1.19e-3 mistakes per second, and a few more while the window fills."""
    workers, duration_s = 30, 40_000
    scenario = make(
        duration_s=duration_s,
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 0.01}, "service": EXPONENTIAL},
        cluster={"workers": workers, "capacity": 1},
        policies={"detection": {"kind": "phi_accrual", "heartbeat_s": 2, "threshold": 8}},
        network={"delay": {"kind": "exponential", "mean_s": 0.01}, "loss": 0.05},
    )
    mistakes = sim.run(scenario).summary["detection"]["false_positives"]
    assert mistakes / (workers * duration_s) == pytest.approx(1.19e-3, rel=0.12)


def test_phi_detects_a_crash_at_its_equivalent_timeout(make: MakeScenario):
    """Regular beats: the deviation's floor of .1 s and threshold 8 amount to a timeout of 2.561 s."""
    detection = {"kind": "phi_accrual", "heartbeat_s": 2, "threshold": 8}
    time_s = detection_times(sim.run(crashes(make, 500, detection)))
    assert time_s.mean() == pytest.approx(2.561 - 1, abs=3 * 2 / math.sqrt(12) / math.sqrt(400))
    assert time_s.max() == pytest.approx(2.561, abs=0.02)
