"""What theory says of how many of a queue's times count as independent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.results.confidence import Interval
from orchestrator.results.relaxation import Queue, erlang_c, likely_load, waiting_part


def theory(tasks: int, service_s: np.ndarray, wait_s: np.ndarray, load: float | None, slots: float = 1) -> Queue:
    return Queue.of(tasks, load, slots, [service_s + wait_s], [wait_s])


def exponential(many: int = 10_000) -> np.ndarray:
    return -np.log(1 - (np.arange(many) + 0.5) / many)  # a coefficient of variation of 1


def test_a_queue_takes_a_relaxation_time_for_so_many_tasks():
    """M/M/1: u / (1 - sqrt(u))^2, which is 72 tasks at 0.8 and 342 at 0.9; nothing executed takes none."""
    waits = np.ones(10_000)
    assert theory(7_200, exponential(), waits, 0.8).times == pytest.approx(100, rel=0.01)
    assert theory(34_200, exponential(), waits, 0.9).times == pytest.approx(100, rel=0.01)
    assert theory(100, exponential(), waits, None).times == math.inf
    assert theory(100, exponential(), waits, 0.0).times == math.inf


def test_services_that_vary_more_make_a_queue_forget_later():
    """(1 + c) / 2: half the time for constant services, and more than two times as much for those with c = 4."""
    tasks, waits = 1_000, np.full(4, 0.5)
    base = tasks * (1 - math.sqrt(0.8)) ** 2 / 0.8
    assert theory(tasks, np.ones(4), waits, 0.8).times == pytest.approx(2 * base)
    varied = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 16])  # mean 2.5, variance 20.25
    assert theory(tasks, varied, np.zeros(10), 0.8).times == pytest.approx(base / ((1 + 3.24) / 2))


def test_so_many_tasks_wait():
    """Erlang's C: the load of a single server, 0.5 * 2 / 3 of two at a load of 0.5, and 0.409 of ten at 0.8."""
    assert erlang_c(1, 0.7) == pytest.approx(0.7)
    assert erlang_c(2, 0.5) == pytest.approx(1 / 3)
    assert erlang_c(10, 0.8) == pytest.approx(0.4092, abs=1e-4)
    assert erlang_c(3, 1.0) == pytest.approx(1.0)
    assert 0 < erlang_c(5_000, 0.99) < 1


def test_the_offered_load_counts_as_far_as_the_utilization_allows():
    """Runs that had less to do by chance count as what they were offered; those that do more work count as they do."""
    measured = Interval(0.7, 0.8)
    assert likely_load(0.75, measured) == 0.75
    assert likely_load(0.9, measured) == 0.8
    assert likely_load(0.5, measured) == 0.7
    assert likely_load(None, measured) == 0.8
    assert likely_load(0.5, None) == 0.5
    assert likely_load(0.5, Interval(0.0, 0.3)) is None


def test_waits_that_vary_less_than_they_should_count_as_theory_says():
    """M/M/1 at 0.8 has waits of variance 24 and services of variance 1: a lucky sample has less, and counts as if not.

    Of a sample that waits longer than theory says, such as one with faults, the sample tells.
    """
    lucky = np.resize([0.0, 1.0], 10_000)
    queue = theory(20_000, exponential(), lucky, 0.8)
    assert queue.understated == pytest.approx(24 / 0.25, rel=0.01)
    assert waiting_part([exponential() + lucky], [lucky], queue.understated) == pytest.approx(24 / 25, rel=0.01)
    long = np.resize([0.0, 100.0], 10_000)
    assert theory(20_000, exponential(), long, 0.8).understated == 1


def test_what_never_ended_is_left_out():
    """Tasks that failed have no latency, and some never started."""
    latency_s, wait_s = np.array([2.0, np.inf, np.inf]), np.array([1.0, 1.0, np.inf])
    queue = Queue.of(3, 0.5, 1, [latency_s], [wait_s])
    assert queue.times == pytest.approx(Queue.of(3, 0.5, 1, [np.ones(1)], [np.zeros(1)]).times)
    assert queue.most_independent([np.full(2, np.inf)], [np.ones(2)]) == math.inf


def test_waits_count_once_in_a_relaxation_time_and_services_each():
    """A wait with half the standard deviation of the latencies counts for half."""
    wait_s = np.array([0.0, 1.0] * 50)
    latency_s = np.array([0.0, 1.0, 0.0, 1.0] * 25) + math.sqrt(3) * np.array([0.0, 0.0, 1.0, 1.0] * 25)
    queue = Queue(20, 0.5, 1.0)
    assert queue.most_independent([wait_s], [wait_s]) == pytest.approx(20)
    assert queue.most_independent([latency_s], [wait_s]) == pytest.approx(1 / (0.5 / 20 + 0.5 / 100))
    assert queue.most_independent([latency_s], [np.zeros(100)]) == math.inf
    assert Queue(math.inf, 0.0, 1.0).most_independent([np.full(2, 2.0)], [np.ones(2)]) == math.inf


def test_a_queue_that_is_always_full_never_forgets():
    """At a load of 1 its waits tell nothing, and only what does not wait counts."""
    wait_s = np.arange(100.0)
    full = theory(100, np.ones(100), wait_s, 1.0)
    assert full.times == 0
    assert full.most_independent([1 + wait_s], [wait_s]) == 0
    assert full.most_independent([np.arange(100.0)], [np.ones(100)]) == 100
    assert not full.tells_mean_wait([wait_s])


def test_the_mean_of_a_single_run_is_made_up_of_its_long_waits():
    """Half of those that wait count, by theory: 25 in 100 relaxation times if half of all wait. A sample of which not
    even half as many count tells that theory is wrong."""
    assert Queue(100, 0.5, 1.0).tells_mean_wait([np.ones(100)])
    assert not Queue(99, 0.5, 1.0).tells_mean_wait([np.ones(100)])
    assert not Queue(100, 0.5, 1.0).tells_mean_wait([np.append(np.zeros(99), 1.0)])
    assert Queue(0, 0.5, 1.0).tells_mean_wait([np.zeros(100)])
