"""Affinity: a key stays with its worker, shares are as theory says, and nobody is above the bound."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Task
from orchestrator.policies.routing import ConsistentHash, Rendezvous
from orchestrator.policies.routing.affinity import mixed, point
from tests.policies.test_routing import TASK, Cluster


class Keyed:
    def __init__(self, key):
        self.affinity_key = key


def task(key):
    return Task(f"t-{key}", 0, 1, Keyed(key), 0.0)


def cluster_of(routing, count, limit=math.inf):
    cluster = Cluster(routing, [limit] * count)
    for worker in cluster.workers:
        cluster.join(worker)
    return cluster


def ring(virtual_nodes=100, bound=1e9):
    return ConsistentHash(random.Random(1), virtual_nodes, bound)


def owners(cluster, keys):
    return {key: cluster.routing.choose(task(key)).id for key in keys}


KEYS = [f"key-{number}" for number in range(20_000)]


def test_points_and_scores_are_the_same_everywhere():
    """Not those of `hash()`: these numbers hold on any machine and for every PYTHONHASHSEED."""
    assert point("w1/0") == 4139367155572900725
    assert mixed(point("w1") ^ point("key-1")) == 1735704789464314693


@pytest.mark.parametrize("make", [ring, lambda: Rendezvous(random.Random(1))])
def test_a_key_stays_with_its_worker(make):
    """Whoever joins or leaves: the others keep their keys, and about 1 / N of all move."""
    cluster = cluster_of(make(), 10)
    keys = KEYS[:5000]
    before = owners(cluster, keys)
    assert owners(cluster, keys) == before
    cluster.leave(cluster.workers[3])
    without = owners(cluster, keys)
    moved = [key for key in keys if without[key] != before[key]]
    assert {before[key] for key in moved} == {"w4"}
    assert "w4" not in without.values()
    assert len(moved) / len(keys) == pytest.approx(1 / 10, abs=3 * 0.0948 / 10 + 0.01)
    assert len({without[key] for key in moved}) == 9, "they go to all the others"
    cluster.join(cluster.workers[3])
    assert owners(cluster, keys) == before


@pytest.mark.parametrize("make", [ring, lambda: Rendezvous(random.Random(1))])
def test_a_new_worker_takes_its_share_and_nothing_else_moves(make):
    """From ten to eleven workers: what moves goes to the new one, about 1 / 11 of the keys."""
    cluster = Cluster(make(), [math.inf] * 11)
    for worker in cluster.workers[:10]:
        cluster.join(worker)
    keys = KEYS[:5000]
    before = owners(cluster, keys)
    cluster.join(cluster.workers[10])
    after = owners(cluster, keys)
    moved = [key for key in keys if after[key] != before[key]]
    assert {after[key] for key in moved} == {"w11"}
    assert len(moved) / len(keys) == pytest.approx(1 / 11, abs=3 * 0.0948 / 11 + 0.01)


def shares_of_rings(workers, virtual_nodes, rings):
    """What part of the ring each worker owns, of so many rings with workers of other names: exactly, without keys."""
    found = []
    for number in range(rings):
        routing = ring(virtual_nodes)
        cluster = Cluster(routing, [math.inf] * workers)
        for worker in cluster.workers:
            worker.id = f"{number}-{worker.id}"
            cluster.join(worker)
        routing.choose(task("any"))
        share: Counter[str] = Counter()
        last = routing._points[-1] - 2**64
        for at, owner in zip(routing._points, routing._owners, strict=True):
            share[owner.id] += (at - last) / 2**64
            last = at
        found.append([share[worker.id] for worker in cluster.workers])
    return found


def test_the_shares_of_a_ring_spread_as_theory_says():
    """cv = sqrt((N - 1) / (N V + 1)), of ten workers with a hundred points .0948, and the largest is 1.160 of the mean:
    shares are sums of spacings, Dirichlet distributed."""
    workers, nodes = 10, 100
    shares = shares_of_rings(workers, nodes, 200)
    assert all(math.isclose(sum(share), 1) for share in shares)
    theory = math.sqrt((workers - 1) / (workers * nodes + 1))
    assert theory == pytest.approx(0.0948, abs=5e-5)
    squares = [(one * workers - 1) ** 2 for share in shares for one in share]
    cv = math.sqrt(sum(squares) / len(squares))
    assert cv == pytest.approx(theory, rel=0.06)
    largest = sum(max(share) * workers for share in shares) / len(shares)
    assert largest == pytest.approx(1.160, abs=0.015)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    workers=st.integers(1, 12),
    bound=st.sampled_from([0.0, 0.1, 0.25, 1.0]),
    keys=st.lists(st.integers(0, 5), max_size=200),
    seed=st.integers(0, 100),
)
def test_nobody_is_ever_above_the_bound(workers, bound, keys, seed):
    """ceil((1 + bound) m / n), whatever is wanted and ends (Mirrokni et al. 2018)."""
    cluster = cluster_of(ring(20, bound), workers)
    rng = random.Random(seed)
    for number in keys:
        worker = cluster.routing.choose(task(f"key-{number}"))
        cluster.load(worker, 1)
        held = sum(one.load for one in cluster.workers)
        assert worker.load <= most(bound, held, workers)
        for one in cluster.workers:
            if one.load and rng.random() < 0.1:
                cluster.load(one, -1)
        cluster.routing.check(cluster.assignable())


def most(bound, held, workers):
    """ceil((1 + bound) m / n), of the decimal number that the bound is."""
    return math.ceil((1 + Fraction(str(bound))) * held / workers)


MOVES = st.lists(
    st.tuples(st.sampled_from(["task", "task", "task", "end", "leave", "join"]), st.integers(0, 1000)), max_size=150
)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(workers=st.integers(2, 12), nodes=st.integers(1, 50), bound=st.decimals(0, 3, places=3), moves=MOVES)
def test_the_bound_holds_while_workers_come_and_go(workers, nodes, bound, moves):
    """Whoever gets a task then holds at most ceil((1 + bound) m / n), of the m tasks of the n workers that are here."""
    cluster = cluster_of(ring(nodes, float(bound)), workers)
    for what, pick in moves:
        worker = cluster.workers[pick % workers]
        here = cluster.assignable()
        if what == "join":
            cluster.join(worker)
        elif what == "leave" and len(here) > 1:
            cluster.leave(worker)
        elif what == "end" and worker.load:
            cluster.load(worker, -1)
        elif what == "task":
            chosen = cluster.routing.choose(task(f"key-{pick % 4}"))
            assert chosen in here
            cluster.load(chosen, 1)
            assert chosen.load <= most(bound, sum(one.load for one in here), len(here))
        cluster.routing.check(cluster.assignable())


@pytest.mark.parametrize(("workers", "nodes"), [(2, 50), (5, 40), (20, 20), (50, 100)])
def test_other_rings_spread_as_theory_says(workers, nodes):
    """cv = sqrt((N - 1) / (N V + 1)), within four standard errors of 1,000 / N rings or more."""
    squares = [
        sum((one * workers - 1) ** 2 for one in share) / workers
        for share in shares_of_rings(workers, nodes, max(40, 1000 // workers))
    ]
    mean = sum(squares) / len(squares)
    error = math.sqrt(sum((one - mean) ** 2 for one in squares)) / len(squares)
    assert abs(mean - (workers - 1) / (workers * nodes + 1)) < 4 * error


@pytest.mark.parametrize("workers", [2, 5, 25])
@pytest.mark.parametrize("make", [ring, lambda: Rendezvous(random.Random(1))])
def test_as_many_keys_move_as_the_worker_had(make, workers):
    """About 1 / N of them, as it leaves and as it comes back: four standard errors of ring and keys together."""
    cluster = cluster_of(make(), workers)
    keys = KEYS[:4000]
    before = owners(cluster, keys)
    cluster.leave(cluster.workers[0])
    without = owners(cluster, keys)
    moved = {key for key in keys if without[key] != before[key]}
    assert moved == {key for key in keys if before[key] == "w1"}
    share = 1 / workers
    error = math.sqrt(share * (1 - share) * (1 / len(keys) + 1 / (100 * workers + 1)))
    assert len(moved) / len(keys) == pytest.approx(share, abs=4 * error)
    cluster.join(cluster.workers[0])
    assert owners(cluster, keys) == before


@pytest.mark.parametrize("bound", [0.1, 0.2, 0.3, 0.7])
@pytest.mark.parametrize("workers", [1, 3, 10])
def test_the_bound_is_not_rounded_up(bound, workers):
    """Of one hot key the owner holds the bound itself: as floats 1.1 x 10 is above 11, and its ceiling 12."""
    cluster = cluster_of(ring(20, bound), workers)
    for held in range(1, 301):
        worker = cluster.routing.choose(task("hot"))
        cluster.load(worker, 1)
        assert max(one.load for one in cluster.workers) <= most(bound, held, workers)


def test_what_is_beyond_the_bound_goes_to_the_next_on_the_ring():
    """The first task of a hot key goes to its owner, the others from there on: always to the same ones."""
    walks = []
    for _ in range(2):
        cluster = cluster_of(ring(100, 0.25), 10)
        walk = []
        for _ in range(100):
            worker = cluster.routing.choose(task("hot"))
            cluster.load(worker, 1)
            walk.append(worker.id)
        walks.append(walk)
        assert walk[0] == cluster.routing.owner("hot").id
        assert max(Counter(walk).values()) == math.ceil(1.25 * 100 / 10)
    assert walks[0] == walks[1]


@pytest.mark.parametrize("make", [ring, lambda: Rendezvous(random.Random(1))])
def test_a_task_without_a_key_goes_to_the_least_loaded(make):
    """And so does one whose workers have no room."""
    cluster = cluster_of(make(), 4, limit=1)
    taken = [cluster.assign() for _ in range(3)]
    (last,) = [worker for worker in cluster.workers if worker not in taken]
    assert cluster.routing.choose(TASK) is last
    assert {cluster.routing.choose(task(key)).id for key in KEYS[:50]} == {last.id}


def test_points_of_those_that_are_gone_for_good_are_dropped():
    """A ring on which many have come and gone has no more than twice the points of those that are there."""
    routing = ring(20)
    cluster = Cluster(routing, [math.inf] * 200)
    for place, worker in enumerate(cluster.workers):
        cluster.join(worker)
        routing.choose(task("any"))
        if place >= 10:
            cluster.leave(cluster.workers[place - 10])
            routing.choose(task("any"))
    assert len(routing._points) <= 2 * 10 * 20 + 20


def test_rendezvous_shares_alike():
    """Each of ten workers is the best for a tenth of the keys: chi-square of 5,000, 99.9 % at 9 degrees of freedom."""
    cluster = cluster_of(Rendezvous(random.Random(1)), 10)
    counts = Counter(owners(cluster, KEYS[:5000]).values())
    assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 27.88


def test_rendezvous_remembers_what_it_has_ranked():
    """Only a new key, and what joined since, costs scores."""
    cluster = cluster_of(Rendezvous(random.Random(1)), 10)
    best = cluster.routing.best("a")
    assert [score for score, _, _ in best] == sorted((score for score, _, _ in best), reverse=True)
    assert cluster.routing.best("a") is best
    cluster.routing.REMEMBERED = 3
    for key in "bcde":
        cluster.routing.best(key)
    assert list(cluster.routing._ranked) == ["c", "d", "e"]
