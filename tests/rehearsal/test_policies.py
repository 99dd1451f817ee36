"""Every routing policy, every queue and stealing in a live cluster: nothing is lost, and the record replays alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.cluster import decision_record
from orchestrator.policies import catalogue
from tests.rehearsal.runs import BASE, executed

KINDS: dict[str, Any] = {
    "lookup": {"share": 0.8, "service": {"kind": "exponential", "mean_s": 0.01}, "deadline_s": 100},
    "report": {"share": 0.2, "service": {"kind": "exponential", "mean_s": 0.1}, "priority": "low", "deadline_s": 99},
}


BLIND = ("random", "round_robin")
"""These fill the queue of the slow worker, whatever it holds."""
KEYS = {"keys": 30, "zipf": 1, "hit_factor": 0.5, "remembers": 8}


def names(family: str) -> list[str]:
    """The kinds of a family, without the user's own."""
    kinds = (get_args(config.model_fields["kind"].annotation) for config in catalogue()[family])
    return [kind[0] for kind in kinds if kind]


def together() -> list[tuple[str, str, str | None]]:
    """Each kind of each family in one run at least."""
    routings, queues, thefts = names("routing"), names("queue"), [None, *names("stealing")]
    runs = max(len(routings), len(queues))
    return [(routings[i % len(routings)], queues[i % len(queues)], thefts[i % len(thefts)]) for i in range(runs)]


@pytest.mark.parametrize(("routing", "queue", "stealing"), together())
def test_a_policy_works_in_the_live_cluster(routing: str, queue: str, stealing: str | None, tmp_path: Path):
    """With queues at the workers, two kinds of tasks, a slow worker and one that dies and comes back."""
    policies = {
        **BASE["policies"],
        "routing": {"kind": routing},
        "queue": {"kind": queue},
        "stealing": None if stealing is None else {"kind": stealing},
    }
    finished = executed(
        tmp_path,
        duration_s=2.5,
        policies=policies,
        cluster={"workers": 4, "capacity": 2, "prefetch": 3},
        workload={"arrivals": {"kind": "poisson", "rate_per_s": 120}, "kinds": KINDS, "affinity": KEYS},
        faults=[
            {"kind": "slow", "at_s": 0.3, "workers": ["w2"], "factor": 0.3, "for_s": 1},
            {"kind": "crash", "at_s": 0.8, "workers": ["w3"], "restart_after_s": 0.3},
        ],
    )
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] > 200
    if stealing and routing in BLIND:
        assert '"recall"' in (tmp_path / "out" / decision_record.NAME).read_text(), "a thief has taken something"


def test_a_remembered_key_makes_a_live_task_shorter(tmp_path: Path):
    """The first task of a key sleeps its demand at the worker; those after it a twentieth of that."""
    finished = executed(
        tmp_path,
        duration_s=1.5,
        policies={**BASE["policies"], "routing": {"kind": "rendezvous"}},
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 40},
            "service": {"kind": "constant", "value_s": 0.4},
            "affinity": {"keys": 6, "hit_factor": 0.05},
        },
        cluster={"workers": 4, "capacity": 4, "prefetch": 4},
    )
    ran_s = finished.attempts["ran_s"]
    assert (ran_s >= 0.4).sum() >= 6, "each key is new once"
    assert (ran_s < 0.4).sum() > len(ran_s) / 4


def test_labels_and_kinds_in_the_live_cluster(tmp_path: Path):
    """Each kind is executed by the group that takes it and has what it requires, and nothing is lost."""
    groups = [
        {"name": "plain", "workers": 2, "capacity": 2, "kinds": ["lookup"]},
        {"name": "gpu", "workers": 2, "capacity": 2, "labels": {"gpu": "a100", "zone": "b"}},
    ]
    finished = executed(
        tmp_path,
        duration_s=1.5,
        cluster={"groups": groups},
        workload={
            "arrivals": {"kind": "poisson", "rate_per_s": 60},
            "kinds": {**KINDS, "report": {**KINDS["report"], "requires": {"gpu": "a100"}}},
        },
        faults=[{"kind": "crash", "at_s": 0.5, "workers": ["w3"], "restart_after_s": 0.3}],
    )
    counts = finished.summary["tasks"]
    assert counts["completed"] == counts["submitted"] > 50
    kinds = finished.tasks["kind"].to_numpy()[finished.attempts["task"]]
    assert set(finished.attempts["worker"][kinds == "report"]) <= {"w3", "w4"}
    assert set(finished.attempts["worker"][kinds == "lookup"]) >= {"w1", "w2"}
