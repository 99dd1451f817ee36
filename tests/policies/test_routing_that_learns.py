"""Routing by slots, speed and latency: each formula by hand, and what a policy hears of results."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from orchestrator.core.model import Attempt, Outcome, Task
from orchestrator.policies.routing import JoinIdleQueue, PeakEwma, Prequal, Weighted
from tests.policies.test_routing import TASK, Cluster


def cluster_of(routing, *capacities, limit=math.inf):
    """Workers with so many slots, and with queues of their own."""
    cluster = Cluster(routing, [limit] * len(capacities))
    for worker, capacity in zip(cluster.workers, capacities, strict=True):
        worker.capacity = capacity
        cluster.join(worker)
    return cluster


def end(cluster, place, assigned_at, now, outcome=Outcome.COMPLETED, number=1):
    """An attempt of that worker ends, as the coordinator tells it."""
    worker = cluster.workers[place]
    attempt = Attempt(Task(f"t{place}", 0, 1, None, 0.0), worker, number, assigned_at)
    attempt.outcome = outcome
    attempt.ran_s = now - assigned_at
    cluster.routing.ended(attempt, now)
    cluster.load(worker, 0)


@pytest.mark.parametrize(
    "routing", [Weighted(), PeakEwma(random.Random(1), 2, 10.0), Prequal(random.Random(1), 16, 3, 0.84)]
)
def test_what_a_worker_reports_before_it_joins_is_heard(routing):
    """As that of a worker from the coordinator before, which has not registered yet."""
    cluster = Cluster(routing, [math.inf] * 2)
    attempt = Attempt(Task("t", 0, 1, None, 0.0), cluster.workers[1], 1, 0.0)
    attempt.outcome, attempt.ran_s = Outcome.COMPLETED, 1.0
    routing.ended(attempt, 1.0)
    for worker in cluster.workers:
        cluster.join(worker)
    assert cluster.assign() in cluster.workers


# ---- weighted


def test_weighted_splits_by_slots():
    """Of 1,700 tasks that nobody finishes, a worker with 16 slots has 1,600, and one with a single slot 100."""
    cluster = cluster_of(Weighted(), 16, 1)
    for _ in range(1700):
        cluster.assign()
    assert [worker.load for worker in cluster.workers] == [1600, 100]


def test_weighted_splits_by_speed():
    """Three times as fast, once that is known, is three times as many."""
    cluster = cluster_of(Weighted(), 1, 1)
    for task in range(2000):
        end(cluster, 0, task, task + 1.0)
        end(cluster, 1, task, task + 3.0)
    for _ in range(400):
        cluster.assign()
    assert [worker.load for worker in cluster.workers] == pytest.approx([300, 100], abs=1)


def test_weighted_prefers_a_free_slot_to_a_queue():
    """A free slot of a slow worker ends the task in 1.5, the queue of a fast one, twice as fast as it, in 2 x 0.75."""
    cluster = cluster_of(Weighted(), 1, 1)
    for task in range(2000):
        end(cluster, 0, task, task + 1.0)
        end(cluster, 1, task, task + 1.9)
    assert [cluster.assign().id for _ in range(3)] == ["w1", "w2", "w1"]


def test_weighted_goes_round_among_equals():
    """None of them is forgotten."""
    cluster = cluster_of(Weighted(), *[1] * 8)
    chosen: Counter[str] = Counter()
    for _ in range(800):
        worker = cluster.assign()
        chosen[worker.id] += 1
        cluster.load(worker, -1)
    assert set(chosen.values()) == {100}


def test_the_heap_of_weighted_stays_small():
    """Entries that are not the newest are dropped before they are many."""
    cluster = cluster_of(Weighted(), 1, 1, 1)
    for _ in range(10_000):
        cluster.load(cluster.assign(), -1)
    assert len(cluster.routing._heap) <= 4 * 3 + 65


# ---- join_idle_queue


def test_the_longest_idle_is_next():
    """In the order in which slots became free, not in that of names."""
    cluster = cluster_of(JoinIdleQueue(random.Random(1)), 1, 1, 1)
    for _ in range(3):
        cluster.assign()
    for place in (2, 0, 1):
        cluster.load(cluster.workers[place], -1)
    assert [cluster.assign().id for _ in range(3)] == ["w3", "w1", "w2"]


def test_without_an_idle_worker_any_is_chosen():
    """However much it holds: the policy knows who is idle, and nothing more."""
    cluster = cluster_of(JoinIdleQueue(random.Random(1)), 1, 1)
    cluster.load(cluster.workers[0], 50)
    cluster.load(cluster.workers[1], 1)
    assert Counter(cluster.routing.choose(TASK).id for _ in range(2000))["w1"] == pytest.approx(1000, abs=90)


# ---- peak_ewma


def test_a_slow_result_counts_at_once_and_a_fast_one_slowly():
    """cost = 4 after a peak of 4; 1 s later a latency of 1 makes it 4 w + 1 (1 - w), w = exp(-1 / 10)."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 0.0, 1.0)
    end(cluster, 0, 1.0, 5.0)
    assert cluster.routing._costs.of(cluster.workers[0]) == [4.0, 5.0]
    end(cluster, 0, 5.0, 6.0)
    w = math.exp(-1 / 10)
    assert cluster.routing._costs.of(cluster.workers[0])[0] == pytest.approx(4 * w + (1 - w))


def test_the_cost_counts_for_each_task_in_hand():
    """2 x (0 + 1) is more than 0.5 x (2 + 1), and less than 0.5 x (4 + 1)."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 8.0, 10.0)
    end(cluster, 1, 9.5, 10.0)
    for load, chosen in ((2, "w2"), (4, "w1")):
        cluster.load(cluster.workers[1], load - cluster.workers[1].load)
        assert {cluster.routing.choose(TASK).id for _ in range(20)} == {chosen}


def test_what_was_heard_of_a_worker_fades():
    """A cost of 4, ten seconds old, is one of 4 / e: less than one of 2 that is new."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 0.0, 4.0)
    end(cluster, 1, 2.0, 4.0)
    assert cluster.routing.choose(TASK).id == "w2"
    end(cluster, 1, 12.0, 14.0)
    assert cluster.routing.choose(TASK).id == "w1"


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.REJECTED, Outcome.WORKER_DIED, Outcome.CANCELLED])
def test_failures_make_no_worker_fast(outcome):
    """A worker that fails everything at once would get everything."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 0.0, 4.0)
    end(cluster, 0, 4.0, 4.0, outcome)
    assert cluster.routing._costs.of(cluster.workers[0]) == [4.0, 4.0]


def test_a_timeout_is_a_slow_result():
    """It took that long at least."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 0.0, 4.0, Outcome.TIMED_OUT)
    assert cluster.routing._costs.of(cluster.workers[0]) == [4.0, 4.0]


def test_a_worker_in_the_slot_of_a_forgotten_one_is_unknown():
    """What was learnt belongs to the worker, not to its slot."""
    cluster = cluster_of(PeakEwma(random.Random(1), 2, 10.0), 1, 1)
    end(cluster, 0, 0.0, 4.0)
    end(cluster, 1, 3.0, 4.0)
    other = Cluster(cluster.routing, [math.inf]).workers[0]
    other.capacity = 1
    cluster.leave(cluster.workers[0])
    cluster.workers[0] = other
    cluster.join(other)
    assert {cluster.routing.choose(TASK).id for _ in range(20)} == {other.id}


# ---- prequal


def prequal(hot_quantile=0.84):
    """Four workers, all of them probed for each choice."""
    return cluster_of(Prequal(random.Random(1), 4, 4, hot_quantile), 1, 1, 1, 1)


def serve(cluster, place, seconds):
    """The worker gets a task and ends it after so many seconds."""
    worker = cluster.workers[place]
    routing = cluster.routing
    task = Task(f"t{place}", 0, 1, None, 0.0)
    routing._began_at[task.id, 1] = worker.load
    cluster.load(worker, 1)
    cluster.load(worker, -1)
    end(cluster, place, 0.0, seconds)


def test_among_the_cold_the_fastest_is_chosen():
    """Whatever it holds, as long as that is no more than most hold."""
    cluster = prequal()
    for place, seconds in enumerate((3.0, 1.0, 2.0, 4.0)):
        serve(cluster, place, seconds)
    assert {cluster.routing.choose(TASK).id for _ in range(20)} == {"w2"}


def test_a_hot_worker_is_not_chosen_however_fast():
    """More than 84 % of the probes found less than it holds."""
    cluster = prequal()
    for place, seconds in enumerate((3.0, 1.0, 2.0, 4.0)):
        serve(cluster, place, seconds)
    cluster.routing._loads.add(0)
    for _ in range(100):
        cluster.routing._loads.add(0)
    cluster.load(cluster.workers[1], 1)
    assert cluster.routing.choose(TASK).id == "w3"


def test_if_all_are_hot_the_least_loaded_is_chosen():
    """Latency says nothing then."""
    cluster = prequal()
    for place, seconds in enumerate((3.0, 1.0, 2.0, 4.0)):
        serve(cluster, place, seconds)
    for _ in range(128):
        cluster.routing._loads.add(0)
    for worker, load in zip(cluster.workers, (3, 4, 5, 2), strict=True):
        cluster.load(worker, load)
    assert cluster.routing.choose(TASK).id == "w4"


def test_a_probe_tells_the_latency_at_the_load_of_now():
    """A worker that is slow only while it holds much is fast while it holds nothing."""
    cluster = prequal()
    for place in (1, 2, 3):
        serve(cluster, place, 2.0)
    cluster.load(cluster.workers[0], 5)
    serve(cluster, 0, 9.0)
    cluster.load(cluster.workers[0], -5)
    serve(cluster, 0, 1.0)
    assert cluster.routing._probed_latency_s(cluster.workers[0]) == 1.0
    cluster.load(cluster.workers[0], 4)
    assert cluster.routing._probed_latency_s(cluster.workers[0]) == 9.0


def test_prequal_forgets_attempts_that_are_over():
    """It notes the load at the beginning of each, until it ends."""
    cluster = prequal()
    worker = cluster.routing.choose(TASK)
    attempt = Attempt(TASK, worker, TASK.attempt + 1, 0.0)
    assert len(cluster.routing._began_at) == 1
    cluster.routing.ended(attempt, 1.0)
    assert not cluster.routing._began_at
