"""How long runs will take: events counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.scenario.effort import effort, together
from orchestrator.scenario.schema import Scenario


def scenario(**changes: Any) -> Scenario:
    """5 workers that beat every 2 s and one task a second, for 1,000 s."""
    tree: dict[str, Any] = {
        "name": "small",
        "duration_s": 1000,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": 1},
            "service": {"kind": "constant", "value_s": 0.5},
        },
        "cluster": {"workers": 5, "capacity": 1},
        "policies": {"detection": {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 7}},
    }
    return Scenario.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("changes", "tasks", "task_events", "idle_events"),
    [
        ({}, 1000, 2000, 5000),
        ({"cluster": {"workers": 5, "capacity": 1, "prefetch": 2}}, 1000, 5000, 5000),
        ({"network": {"loss": 0.1}}, 1000, 5000, 5000),
        ({"policies": {"detection": {"kind": "timeout", "timeout_s": 7, "check_every_s": 4}}}, 1000, 2000, 5250),
        ({"duration_s": 10_000}, 10_000, 20_000, 50_000),
    ],
)
def test_events_are_those_of_heartbeats_checks_and_tasks(changes, tasks, task_events, idle_events):
    """2 events a heartbeat, 1 a check, 2 a task, or 5 where attempts may wait at workers or get lost."""
    found = effort(scenario(**changes))
    assert (found.tasks, found.task_events, found.idle_events) == (tasks, task_events, idle_events)


def test_closed_clients_bring_a_task_each_cycle_and_no_more_than_can_be_done():
    """4 clients that think for 1.5 s around 0.5 s of service bring 2 tasks a second; 40 are held up by 5 workers."""
    for clients, tasks in ((4, 2000), (40, 10_000)):
        arrivals = {"kind": "closed", "clients": clients, "think": {"kind": "constant", "value_s": 1.5}}
        workload = {"arrivals": arrivals, "service": {"kind": "constant", "value_s": 0.5}}
        assert effort(scenario(workload=workload)).tasks == tasks


def test_runs_add_up():
    """Two scenarios, three times each."""
    total = together([scenario(), scenario(duration_s=2000)], 3)
    assert (total.tasks, total.events) == (9000, 3 * 3 * 7000)
