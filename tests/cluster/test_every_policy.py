"""Every routing policy, queue and way of stealing, in a cluster of real processes: `make_cluster` proves the invariants
as it runs, and decides all of its record again."""

from __future__ import annotations

from typing import get_args

import pytest

from orchestrator.cluster.client import Client, NewTask
from orchestrator.core.model import TaskState
from orchestrator.policies import catalogue
from tests.cluster.conftest import PATIENT, MakeCluster

TASKS = 90


def kinds(family: str) -> list[str]:
    """The names of all that this project brings; the last class stands for the user's own."""
    return [get_args(config.model_fields["kind"].annotation)[0] for config in catalogue()[family][:-1]]


CHOICES = [(family, kind) for family in ("routing", "queue", "stealing") for kind in kinds(family)]


@pytest.mark.parametrize(("family", "kind"), CHOICES, ids=[f"{family}-{kind}" for family, kind in CHOICES])
def test_a_policy_settles_every_task_once_and_decides_alike_again(make_cluster: MakeCluster, family: str, kind: str):
    """Two kinds, four priorities, keys and deadlines, more than the workers hold; another worker comes meanwhile."""
    chosen = f"policies.{family}={{kind: {kind}}}"
    cluster = make_cluster(2, capacity=2, prefetch=8, policies=(*PATIENT, chosen))
    tasks = [
        NewTask(
            "0.01",
            kind=f"sleep:{'ab'[number % 2]}",
            priority=number % 4,
            affinity_key=f"key-{number % 7}",
            deadline_s=60.0 + number % 3,
        )
        for number in range(TASKS)
    ]
    with Client(cluster.address) as client:
        futures = client.submit_batch(tasks)
        cluster.start_worker("w3").ready(cluster.coordinator)
        results = [future.result(60) for future in futures]
        metrics = client.metrics()
    assert {result.state for result in results} == {TaskState.COMPLETED}
    assert (metrics.completed, metrics.failed, metrics.queue_depth) == (TASKS, 0, 0)
