"""How much of the slots' time tasks hold: counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.scenario.loads import coordinator_load, occupancy, over_timeout
from orchestrator.scenario.schema import Scenario
from tests.scenario.ten_slots import ten_slots

DELAY = {"delay": {"kind": "constant", "value_s": 0.002}}
STUCK = {
    "arrivals": {"kind": "poisson", "rate_per_s": 60},
    "kinds": {
        "ok": {"share": 0.99, "service": {"kind": "constant", "value_s": 0.1}},
        "stuck": {"share": 0.01, "service": {"kind": "constant", "value_s": 600}},
    },
}


def stuck(timeout_s: float, max_attempts: int | None, **changes: Any) -> Scenario:
    policies = {"execution_timeout_s": timeout_s, "retry": {"max_attempts": max_attempts}}
    return ten_slots(workload=STUCK, cluster={"workers": 10, "capacity": 2}, policies=policies, **changes)


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, 0.6),
        ({"network": DELAY}, 1200 * 0.009 / 10),
        ({"network": {"message_kinds": {"heartbeat": {"kind": "constant", "value_s": 1}}}}, 0.6),
        ({"network": {"message_kinds": {"result": {"kind": "constant", "value_s": 0.004}}}}, 1200 * 0.009 / 10),
        ({"network": DELAY, "cluster": {"workers": 10, "capacity": 1, "prefetch": 4}}, 0.6),
        ({"network": DELAY, "cluster": {"workers": 10, "capacity": 1, "prefetch": "unlimited"}}, 0.6),
        # Eight slots and a prefetch of 1: nine tasks take 9 ms, of which each executes 5.
        ({"network": DELAY, "cluster": {"workers": 1, "capacity": 8, "prefetch": 1}}, 1200 * 0.009 / 9),
        ({"network": DELAY, "cluster": {"workers": 10, "capacity": 1, "speed": 2}}, 1200 * 0.0065 / 10),
        ({"coordinator": {"cost_s": 0.001}}, 1200 * 0.006 / 10),
        ({"cluster": {"workers": 10, "overhead": {"kind": "constant", "value_s": 0.001}, "capacity": 1}}, 0.72),
        (
            {"cluster": {"groups": [
                {"name": "a", "workers": 5, "capacity": 1}, {"name": "b", "workers": 5, "capacity": 1, "speed": 3}
            ]}},
            1200 / (5 / 0.005 + 15 / 0.005),
        ),
    ],
)  # fmt: skip
def test_a_slot_is_held_by_all_that_keeps_the_next_task_out(changes: dict[str, Any], held: float):
    """Work at the worker's speed, overhead, and where prefetch does not hide them the way there and back."""
    given = ten_slots(**changes)
    assert occupancy(given) == pytest.approx(held)


@pytest.mark.parametrize(
    ("timeout_s", "max_attempts", "held_s"), [(1, 1, 1), (5, 1, 5), (1, 3, 3), (5, 3, 15), (5, None, 30), (20, 3, 30)]
)
def test_a_timeout_cuts_off_what_is_stuck(timeout_s: float, max_attempts: int | None, held_s: float):
    """One task of a hundred holds its slot for the timeout in each attempt, and no longer than half the run."""
    given = stuck(timeout_s, max_attempts, drain_s=5)
    assert occupancy(given) == pytest.approx(60 * (0.99 * 0.1 + 0.01 * held_s) / 20)
    assert over_timeout(given) == pytest.approx(0.01)
    assert len(given.warnings()) == (held_s == 30)
    assert given.offered_load() == pytest.approx(60 * (0.99 * 0.1 + 0.01 * 600) / 20)


def test_a_coordinator_without_news_of_the_start_counts_the_messages_too():
    """With prefetch 0 the timeout of 9 ms runs from the assignment: 5 ms on the way there and back leave 4."""
    network = {"delay": {"kind": "constant", "value_s": 0.0025}}
    policies = {"execution_timeout_s": 0.009, "retry": {"max_attempts": 1}}
    uniform = {"kind": "uniform", "low_s": 0.0, "high_s": 0.008}
    workload = {"arrivals": {"kind": "poisson", "rate_per_s": 100}, "service": uniform}
    assert over_timeout(ten_slots(network=network, policies=policies, workload=workload)) == pytest.approx(0.5)
    early = {"workers": 10, "capacity": 1, "prefetch": 1}
    assert over_timeout(ten_slots(network=network, policies=policies, workload=workload, cluster=early)) == 0
    policies = {"detection": {"kind": "two_level", "start_to_close_s": 0.009}, "retry": {"max_attempts": 1}}
    (warning,) = ten_slots(network=network, policies=policies, workload=workload).warnings()
    assert warning.startswith("policies.detection.start_to_close_s (0.009) is too short for 50% of the tasks: ")
    assert over_timeout(ten_slots()) is None


def test_a_trace_is_taken_as_it_is(tmp_path: Path):
    """Four tasks of 1, 1, 1 and 9 s in 4 s, on four slots: with a timeout of 2 s and two attempts 7 s are held."""
    (tmp_path / "t.csv").write_text("arrival_s,service_s\n1,1\n2,1\n3,1\n4,9\n9,100\n")
    workload = {"arrivals": {"kind": "trace", "file": str(tmp_path / "t.csv")}}
    policies = {"execution_timeout_s": 2, "retry": {"max_attempts": 2}}
    given = ten_slots(workload=workload, duration_s=8, cluster={"workers": 2, "capacity": 2}, policies=policies)
    assert given.offered_load() == pytest.approx(12 / 4 / 4)
    assert occupancy(given) == pytest.approx(7 / 4 / 4)
    assert over_timeout(given) == pytest.approx(1 / 4)


def test_closed_clients_never_ask_for_more_than_there_is():
    """Thirty of them, who think 5 ms, hold all ten slots; five hold 9 ms of each 14."""
    for clients, held in ((30, 1.0), (5, 5 * 0.009 / 0.014 / 10)):
        arrivals = {"kind": "closed", "clients": clients, "think": {"kind": "constant", "value_s": 0.005}}
        workload = {"arrivals": arrivals, "service": {"kind": "constant", "value_s": 0.005}}
        given = ten_slots(workload=workload, network=DELAY)
        assert occupancy(given) == pytest.approx(held)
        assert given.warnings() == []


def test_a_saturated_system_is_a_warning_that_says_why():
    """By its messages, its retries, or a coordinator that is too slow; and none that prefetch keeps busy."""
    (warning,) = ten_slots(network=DELAY).warnings()
    assert warning == (
        "occupancy is 1.08 (offered load 0.6): with messages on their way (0.004 s a task, which more prefetch would "
        "hide), tasks would hold all slots and more, so the queue grows until duration_s and latencies depend on how "
        "long the run is"
    )
    assert ten_slots(network=DELAY, cluster={"workers": 10, "capacity": 1, "prefetch": 1}).warnings() == []
    (warning,) = stuck(10, 4).warnings()
    assert warning.startswith("occupancy is 1.2 (offered load 18.3): with attempts cut off by the timeout, ")
    workers = {"workers": 20, "capacity": 1}
    (warning,) = ten_slots(coordinator={"cost_s": 0.0005}, cluster=workers).warnings()
    assert warning.startswith("coordinator.cost_s (0.0005) is too long: ")
    assert coordinator_load(ten_slots(coordinator={"cost_s": 0.0005}, cluster=workers)) == pytest.approx(
        0.0005 * (2 * 1200 + 20 / 2)
    )


def test_a_load_of_one_is_too_much():
    """The queue of random arrivals grows without end as soon as all slots are held all the time."""
    workload = {
        "arrivals": {"kind": "poisson", "rate_per_s": 2000},
        "service": {"kind": "exponential", "mean_s": 0.005},
    }
    (warning,) = ten_slots(workload=workload).warnings()
    assert warning.startswith("offered load is 1: ")
