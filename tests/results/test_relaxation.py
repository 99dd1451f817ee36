"""What theory says of how many of a queue's times count as independent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orchestrator.results.relaxation import (
    most_independent,
    relaxations,
    tells_mean_wait,
)


def times(tasks: int, service_s: np.ndarray, wait_s: np.ndarray, utilization: float | None) -> float:
    return relaxations(tasks, utilization, [service_s + wait_s], [wait_s])


def test_a_queue_takes_a_relaxation_time_for_so_many_tasks():
    """M/M/1: u / (1 - sqrt(u))^2, which is 72 tasks at 0.8 and 342 at 0.9; nothing executed takes none."""
    exponential = -np.log(1 - (np.arange(10_000) + 0.5) / 10_000)  # a coefficient of variation of 1
    waits = np.ones(10_000)
    assert times(7_200, exponential, waits, 0.8) == pytest.approx(100, rel=0.01)
    assert times(34_200, exponential, waits, 0.9) == pytest.approx(100, rel=0.01)
    assert times(100, exponential, waits, None) == math.inf
    assert times(100, exponential, waits, 0.0) == math.inf


def test_services_that_vary_more_make_a_queue_forget_later():
    """(1 + c) / 2: half the time for constant services, and more than two times as much for those with c = 4."""
    tasks, waits = 1_000, np.full(4, 0.5)
    base = tasks * (1 - math.sqrt(0.8)) ** 2 / 0.8
    assert times(tasks, np.ones(4), waits, 0.8) == pytest.approx(2 * base)
    varied = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 1, 16])  # mean 2.5, variance 20.25
    assert times(tasks, varied, np.zeros(10), 0.8) == pytest.approx(base / ((1 + 3.24) / 2))


def test_what_never_ended_is_left_out():
    """Tasks that failed have no latency, and some never started."""
    latency_s, wait_s = np.array([2.0, np.inf, np.inf]), np.array([1.0, 1.0, np.inf])
    assert relaxations(3, 0.5, [latency_s], [wait_s]) == pytest.approx(relaxations(3, 0.5, [np.ones(1)], [np.zeros(1)]))
    assert most_independent([np.full(2, np.inf)], [np.ones(2)], 100) == math.inf


def test_waits_count_once_in_a_relaxation_time_and_services_each():
    """A wait with half the standard deviation of the latencies counts for half."""
    wait_s = np.array([0.0, 1.0] * 50)
    latency_s = 2 * wait_s
    assert most_independent([wait_s], [wait_s], 20) == pytest.approx(20)
    assert most_independent([latency_s], [wait_s], 20) == pytest.approx(1 / (0.5 / 20 + 0.5 / 100))
    assert most_independent([latency_s], [np.zeros(100)], 20) == math.inf
    assert most_independent([np.full(2, 2.0)], [np.ones(2)], math.inf) == math.inf


def test_a_queue_that_is_always_full_never_forgets():
    """At a utilisation of 1 its waits tell nothing, and only what does not wait counts."""
    wait_s = np.arange(100.0)
    full = times(100, np.ones(100), wait_s, 1.0)
    assert full == 0
    assert most_independent([1 + wait_s], [wait_s], full) == 0
    assert most_independent([np.arange(100.0)], [np.ones(100)], full) == 100
    assert not tells_mean_wait([wait_s], full)


def test_the_mean_of_a_single_run_is_made_up_of_its_long_waits():
    """100 equal waits in 20 relaxation times count as 20 of them; one wait among 100 counts as a fifth of one."""
    assert tells_mean_wait([np.ones(100)], 20)
    assert not tells_mean_wait([np.ones(100)], 19)
    assert not tells_mean_wait([np.append(np.zeros(99), 1.0)], 20)
    assert tells_mean_wait([np.zeros(100)], 0)
