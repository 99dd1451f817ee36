"""Routing: each index against the plain truth, and each choice against what it promises."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Task, Worker
from orchestrator.policies.routing import (
    ConsistentHash,
    JoinIdleQueue,
    LeastLoaded,
    PeakEwma,
    PowerOfD,
    Prequal,
    Random,
    Rendezvous,
    RoundRobin,
    Weighted,
)
from tests.policies.test_config import FirstFit

TASK = Task("t", 0, 1, None, 0.0)
ROUTINGS = {
    "least_loaded": lambda: LeastLoaded(random.Random(1)),
    "random": lambda: Random(random.Random(1)),
    "round_robin": RoundRobin,
    "power_of_1": lambda: PowerOfD(random.Random(1), 1),
    "power_of_2": lambda: PowerOfD(random.Random(1), 2),
    "power_of_5": lambda: PowerOfD(random.Random(1), 5),
    "weighted": Weighted,
    "join_idle_queue": lambda: JoinIdleQueue(random.Random(1)),
    "peak_ewma": lambda: PeakEwma(random.Random(1), 2, 10.0),
    "consistent_hash": lambda: ConsistentHash(random.Random(1), 20, 0.25),
    "rendezvous": lambda: Rendezvous(random.Random(1)),
    "prequal": lambda: Prequal(random.Random(1), 3, 2, 0.84),
    "first_fit": FirstFit,
}


class Cluster:
    """Workers as the coordinator keeps them, that tell a policy what it must hear and remember only the truth."""

    def __init__(self, routing, limits):
        self.routing = routing
        self.workers = []
        for slot, limit in enumerate(limits):
            worker = Worker(f"w{slot + 1}", slot)
            worker.capacity = min(limit, 2)
            worker.limit = limit
            self.workers.append(worker)

    def join(self, worker):
        if not worker.assignable:
            worker.assignable = True
            self.routing.joined(worker)

    def leave(self, worker):
        if worker.assignable:
            worker.assignable = False
            self.routing.left(worker)

    def load(self, worker, change):
        before = worker.load
        worker.load += change
        if worker.assignable:
            self.routing.load_changed(worker, before)

    def assignable(self):
        return [worker for worker in self.workers if worker.assignable]

    def with_room(self):
        return [worker for worker in self.assignable() if worker.load < worker.limit]

    def assign(self):
        worker = self.routing.choose(TASK)
        self.load(worker, 1)
        return worker


def full_cluster(name, limits):
    cluster = Cluster(ROUTINGS[name](), limits)
    for worker in cluster.workers:
        cluster.join(worker)
    return cluster


STEPS = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "assign", "assign", "finish"]), st.integers(0, 100)), max_size=80
)


@pytest.mark.parametrize("name", ROUTINGS)
@settings(deadline=None, derandomize=True)
@given(limits=st.lists(st.sampled_from([1, 2, 3, float("inf")]), min_size=1, max_size=6), steps=STEPS)
def test_the_index_follows_every_change(name, limits, steps):
    """Whatever joins, leaves, fills and empties: the choice has room, and the index is true."""
    cluster = Cluster(ROUTINGS[name](), limits)
    for what, pick in steps:
        worker = cluster.workers[pick % len(cluster.workers)]
        if what == "join":
            cluster.join(worker)
        elif what == "leave":
            cluster.leave(worker)
        elif what == "finish" and worker.load:
            cluster.load(worker, -1)
        elif what == "assign" and cluster.with_room():
            room = cluster.with_room()
            least = min(worker.load for worker in room)
            chosen = cluster.routing.choose(TASK)
            assert chosen in room
            if name == "least_loaded" or (name == "power_of_5" and len(room) <= 5):
                assert chosen.load == least
            cluster.load(chosen, 1)
        cluster.routing.check(cluster.assignable())


def chi_square(counts, expected):
    return sum((count - expected) ** 2 / expected for count in counts)


@pytest.mark.parametrize(
    "name", ["least_loaded", "random", "power_of_1", "power_of_2", "power_of_5", "peak_ewma", "prequal"]
)
def test_ties_are_broken_uniformly(name):
    """Each of eight equal workers gets an eighth: chi-square of 8,000 draws, 99.9 % at 7 degrees of freedom."""
    cluster = full_cluster(name, [2] * 8)
    chosen = Counter(cluster.routing.choose(TASK).id for _ in range(8000))
    assert len(chosen) == 8
    assert chi_square(chosen.values(), 1000) < 24.32


def test_least_loaded_breaks_ties_uniformly_among_the_least_only():
    """A busier worker is never chosen; the others still share alike after they moved between buckets."""
    cluster = full_cluster("least_loaded", [5] * 6)
    for worker in cluster.workers:
        cluster.load(worker, 2)
    for worker in cluster.workers[1:5]:
        cluster.load(worker, -1)
    chosen = Counter(cluster.routing.choose(TASK).id for _ in range(8000))
    assert sorted(chosen) == ["w2", "w3", "w4", "w5"]
    assert chi_square(chosen.values(), 2000) < 16.27


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_power_of_d_chooses_each_rank_as_theory_says(d):
    """Of n distinct loads, the k-th least is chosen when it is in the sample and none below it is."""
    n, draws = 5, 20_000
    cluster = full_cluster("random", [10] * n)
    routing = PowerOfD(random.Random(2), d)
    for rank, worker in enumerate(cluster.workers):
        worker.load = rank
        routing.joined(worker)
    chosen = Counter(worker.load for _ in range(draws) if (worker := routing.choose(TASK)))
    assert max(chosen) == n - d  # without replacement: the d - 1 most loaded can never win
    for rank in range(n - d + 1):
        expected = draws * choose(n - 1 - rank, d - 1) / choose(n, d)
        assert abs(chosen[rank] - expected) < 4 * expected**0.5


def choose(n, k):
    result = 1
    for i in range(k):
        result = result * (n - i) // (i + 1)
    return result


def test_power_of_d_takes_what_there_is():
    """With fewer than d workers all are compared."""
    cluster = full_cluster("power_of_5", [2, 2])
    cluster.load(cluster.workers[0], 1)
    assert {cluster.routing.choose(TASK).id for _ in range(20)} == {"w2"}


def test_round_robin_goes_round():
    """While all have room the order is exactly cyclic, whatever finishes in between."""
    cluster = full_cluster("round_robin", [10] * 3)
    order = []
    for turn in range(12):
        order.append(cluster.assign().id)
        if turn % 2:
            cluster.load(cluster.workers[turn % 3], -1)
    assert order == ["w1", "w2", "w3"] * 4


def test_round_robin_passes_over_the_full():
    """A worker without room loses its turn, and gets one again, at the end, with its next free slot."""
    cluster = full_cluster("round_robin", [1, 2, 2])
    assert [cluster.assign().id for _ in range(4)] == ["w1", "w2", "w3", "w2"]
    cluster.load(cluster.workers[0], -1)
    assert [cluster.assign().id for _ in range(2)] == ["w3", "w1"]
