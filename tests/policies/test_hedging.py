"""Hedging: the age at which an attempt is slow, and what hedges may cost."""

from __future__ import annotations

import math
import random

import pytest

from orchestrator.policies.hedging import Durations, Quantile, QuantileHedging


def policy(**settings):
    return QuantileHedging(**settings).build(random.Random(0))


def taught(durations, **settings):
    """A policy that knows these durations, and has all the credit that it may have."""
    hedging = policy(**settings)
    for seconds in durations:
        hedging.began("k", False)
        hedging.finished("k", seconds)
    hedging._credit = Quantile.BURST
    return hedging


def test_the_quantile_of_the_last_durations():
    """As a sort of the window would give it, whatever came and went."""
    rng = random.Random(2)
    durations, all_of_them = Durations(50), []
    for _ in range(1000):
        all_of_them.append(rng.choice([rng.expovariate(1.0), 0.5]))
        durations.add(all_of_them[-1])
    window = sorted(all_of_them[-50:])
    assert [durations.quantile(q) for q in (0.02, 0.5, 0.95, 0.999)] == [
        window[0],
        window[24],
        window[47],
        window[49],
    ]


def test_an_attempt_is_slow_at_the_quantile_of_its_kind():
    """Each kind has its own durations; nobody can tell before there are enough."""
    hedging = taught([0.01 * n for n in range(1, 101)], quantile=0.95, min_samples=100)
    assert hedging.due_s("k") == pytest.approx(0.95)
    assert hedging.due_s("other") == math.inf


def test_a_window_full_of_slow_ones_does_not_hide_them():
    """A fifth of the durations are ten times as long: the quantile is theirs, six medians are not."""
    hedging = taught([1.0] * 80 + [10.0] * 20)
    assert hedging.due_s("k") == pytest.approx(6.0)


def test_credit_that_runs_short_goes_to_the_slowest():
    """Without any an attempt must be twice as old."""
    hedging = taught([1.0] * 100)
    assert hedging.due_s("k") == pytest.approx(1.0)
    for _ in range(5):
        hedging.began("k", True)
    assert hedging.due_s("k") == pytest.approx(1.5)
    for _ in range(5):
        hedging.began("k", True)
    assert (hedging.due_s("k"), hedging.may_begin()) == (pytest.approx(2.0), False)


@pytest.mark.parametrize("budget", [0.0, 0.01, 0.05, 0.3, 1.0])
def test_hedges_are_at_most_the_budgets_share_of_the_attempts(budget):
    """At every moment, and no less than that if they are always wanted."""
    hedging, hedges = policy(budget=budget), 0
    for attempts in range(1, 2001):
        hedging.began(None, False)
        while hedging.may_begin():
            hedging.began(None, True)
            hedges += 1
        assert hedges <= budget * attempts + 1e-6
    assert hedges == pytest.approx(budget * 2000, abs=1)


def test_a_long_calm_saves_only_so_much():
    """After a million attempts without one, a storm gets ten hedges at once and its share from then on."""
    hedging = policy(budget=0.05)
    for _ in range(100_000):
        hedging.began(None, False)
    hedges = 0
    while hedging.may_begin():
        hedging.began(None, True)
        hedges += 1
    assert hedges == 10
