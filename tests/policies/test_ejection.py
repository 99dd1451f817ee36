"""Ejection: which workers are gray, by their own durations and errors."""

from __future__ import annotations

import math
import random

import pytest

from orchestrator.core.model import Attempt, AttemptState, Outcome, Task, Worker, WorkerState
from orchestrator.policies.ejection import OutlierEjection, mean_duration_s


class Cluster:
    """Workers, and the attempts that end on them."""

    def __init__(self, number: int, **settings) -> None:
        self.policy = OutlierEjection(**settings).build(random.Random(0))
        self.workers = [Worker(f"w{k + 1}", k) for k in range(number)]
        for worker in self.workers:
            worker.state = WorkerState.ALIVE
        self.tasks = 0

    def attempt(self, k: int, began: float) -> Attempt:
        self.tasks += 1
        attempt = Attempt(Task(self.tasks, self.tasks, 1, None, began), self.workers[k - 1], 1, began)
        self.workers[k - 1].open[attempt] = None
        return attempt

    def end(self, attempt: Attempt, now: float, outcome: Outcome = Outcome.COMPLETED) -> None:
        attempt.outcome, attempt.state = outcome, AttemptState.CLOSED
        del attempt.worker.open[attempt]
        self.policy.ended(attempt, now)

    def work(
        self, k: int, seconds: float, times: int, until: float = 10.0, outcome: Outcome = Outcome.COMPLETED
    ) -> None:
        for _ in range(times):
            self.end(self.attempt(k, until - seconds), until, outcome)

    def review(self, now: float = 10.0) -> list[tuple[str, float]]:
        ejected = []
        for worker, _, for_s in self.policy.review(self.workers, now):
            worker.ejected_until = now + for_s
            ejected.append((worker.id, for_s))
        assert self.policy.review_at() > now
        return ejected


@pytest.fixture
def make():
    """`make(4, **settings)`: four workers, looked at every 10 s; the first look is over."""

    def make(number, **settings):
        cluster = Cluster(number, **settings)
        assert cluster.review(0.0) == []
        return cluster

    return make


@pytest.mark.parametrize(("spent_s", "done", "mean_s"), [(10.0, 5, 2.0), (10.0, 0, 10.0), (0.0, 0, 0.0)])
def test_time_spent_over_results(spent_s, done, mean_s):
    """An attempt without a result yet has spent its time as well."""
    assert mean_duration_s(spent_s, done) == mean_s


def test_a_worker_far_slower_than_the_median_is_out(make):
    """Four times as slow, at a factor of three."""
    cluster = make(4)
    for k, seconds in enumerate((0.1, 0.12, 0.4, 0.09), 1):
        cluster.work(k, seconds, 30)
    assert cluster.review() == [("w3", 30.0)]


def test_all_slow_together_is_not_gray(make):
    """A load that slows down everybody ejects nobody."""
    cluster = make(4)
    for k in range(1, 5):
        cluster.work(k, 5.0, 30)
    assert cluster.review() == []


def test_of_two_nobody_is_the_outlier(make):
    """There is no majority."""
    cluster = make(2)
    cluster.work(1, 0.1, 30)
    cluster.work(2, 9.0, 30)
    assert cluster.review() == []


def test_running_attempts_count_with_their_age(make):
    """One that reports nothing at all is seen."""
    cluster = make(4)
    for k in (1, 2, 3):
        cluster.work(k, 0.1, 30)
    cluster.attempt(4, began=2.0)
    assert cluster.review() == [("w4", 30.0)]


def test_one_long_task_is_no_evidence(make):
    """The worker had not the time for twenty usual attempts in it."""
    cluster = make(4)
    for k in (1, 2, 3):
        cluster.work(k, 1.0, 30)
    cluster.attempt(4, began=2.0)
    assert cluster.review() == []


def test_a_cancelled_attempt_has_spent_its_time(make):
    """A worker whose slow attempts are all overtaken by their hedges does not hide behind that."""
    cluster = make(4)
    for k in (1, 2, 3):
        cluster.work(k, 0.1, 30)
    cluster.work(4, 0.3, 10, outcome=Outcome.CANCELLED)
    assert cluster.review() == [("w4", 30.0)]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.TIMED_OUT])
def test_errors_in_a_row_are_enough(make, outcome):
    """Without waiting for the next look."""
    cluster = make(4, consecutive_errors=3)
    cluster.work(1, 0.1, 2, outcome=outcome)
    cluster.work(1, 0.1, 1)
    cluster.work(1, 0.1, 2, outcome=outcome)
    assert cluster.policy.review_at() == 10.0
    cluster.work(1, 0.1, 1, outcome=outcome)
    assert cluster.policy.review_at() == -math.inf
    assert cluster.review(3.0) == [("w1", 30.0)]


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.CALL_FAILED, Outcome.WORKER_DIED])
def test_what_never_ran_and_a_death_are_no_errors(make, outcome):
    """Nor is the time that passed with it the worker's."""
    cluster = make(4, consecutive_errors=1)
    cluster.work(1, 0.1, 3, outcome=outcome)
    assert cluster.policy.review_at() == 10.0


def test_each_time_it_stays_out_longer(make):
    """The base, twice the base, ..."""
    cluster = make(4, consecutive_errors=1, base_s=5.0)
    for times, now in enumerate((10.0, 20.0, 40.0), 1):
        cluster.work(1, 0.1, 1, until=now, outcome=Outcome.FAILED)
        assert cluster.review(now) == [("w1", 5.0 * times)]
        cluster.workers[0].ejected_until = -math.inf


@pytest.mark.parametrize(("share", "out"), [(0.1, 1), (0.3, 3), (1.0, 6)])
def test_at_most_a_share_is_out_at_once(make, share, out):
    """One always may be; those that are out already count."""
    cluster = make(10, consecutive_errors=1, max_share=share)
    for k in range(1, 7):
        cluster.work(k, 0.1, 1, outcome=Outcome.FAILED)
    assert len(cluster.review()) == out
    for k in range(1, 7):
        cluster.work(k, 0.1, 1, until=11.0, outcome=Outcome.FAILED)
    assert cluster.review(11.0) == []


def test_a_look_forgets_what_was_before_the_last(make):
    """What was slow once is judged by what it does now."""
    cluster = make(4)
    for k in range(1, 5):
        cluster.work(k, 9.0 if k == 4 else 0.1, 10, until=9.0)
    cluster.policy.review([], 10.0)
    for k in range(1, 5):
        cluster.work(k, 0.1, 30, until=20.0)
    assert cluster.review(20.0) == []


def test_the_coordinators_forgotten_workers_are_forgotten_here_too(make):
    """Names come and go for ever, and memory does not grow with them."""
    cluster = make(4)
    for k in (1, 2, 3, 4):
        cluster.work(k, 0.1, 1)
    del cluster.workers[3]
    cluster.review(10.0)
    assert {worker.id for worker in cluster.policy._records} == {"w1", "w2", "w3"}
