"""Whether latency had settled when the warm-up ended: what begins otherwise is said, and chance alone is not."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.results.summaries import pool
from orchestrator.results.transient import Batches, batches, mser, unsettled_until_s
from tests.results.synthetic import mm1, run, scenario, tables, task


def settling(seed: int, slow: int, tasks: int = 4_000) -> Batches:
    """One task a second; the first `slow` take five times as long as the others."""
    took_s = np.random.default_rng(seed).gamma(4, 0.25, tasks)
    took_s[:slow] *= 5
    return Batches.of(np.arange(tasks, dtype=np.float64), took_s)


def test_batches_are_means_of_five_in_the_order_of_arrival():
    """Tasks that are left over belong to none."""
    found = Batches.of(np.array([6.0, 1, 2, 3, 4, 5, 7]), np.array([100.0, 1, 2, 3, 4, 5, 100]))
    assert (found.until_s.tolist(), found.mean_s.tolist()) == ([5.0], [3.0])


def test_mser_cuts_where_the_error_of_the_mean_is_smallest():
    """By brute force; a flat beginning is not cut at all."""
    values = np.concatenate([[9.0, 8.0, 5.0], np.random.default_rng(1).normal(2, 0.1, 60)])
    costs = [np.var(values[cut:]) / len(values[cut:]) for cut in range(len(values) // 2 + 1)]
    assert mser(values) == int(np.argmin(costs)) == 3
    assert mser(np.array([1.0, 2.0, 1.0, 2.0, 1.0, 2.0])) == 0


def test_a_beginning_that_differs_is_said():
    """In a single run and over replications: until the last of the slow tasks arrived."""
    assert unsettled_until_s([settling(1, slow=300)]) == pytest.approx(299, abs=10)
    assert unsettled_until_s([settling(seed, slow=300) for seed in range(5)]) == pytest.approx(299, abs=10)


def test_chance_alone_is_not_accused_often():
    """Of runs without a transient, at most 3 % are said to have one, and of replications as well."""
    alone = [unsettled_until_s([settling(seed, slow=0)]) for seed in range(200)]
    together = [unsettled_until_s([settling(5 * k + n, slow=0) for n in range(5)]) for k in range(100)]
    assert sum(found is not None for found in alone) <= 6
    assert sum(found is not None for found in together) <= 3


def test_an_empty_start_shows_over_replications():
    """M/M/1 at a load of 0.9 begins empty: without a warm-up ten replications see it, with a long one they don't."""
    empty = [mm1(2_000, offered_load=0.9, seed=seed).tables for seed in range(10)]
    with_none, with_long = scenario(duration_s=3_000, warmup_s=0), scenario(duration_s=3_000, warmup_s=500)
    assert unsettled_until_s([batches(made, with_none, 3_000) for made in empty]) is not None
    assert unsettled_until_s([batches(made, with_long, 3_000) for made in empty]) is None


def test_what_is_not_steady_is_not_judged():
    """Neither arrivals that burst by design, nor what comes after a fault, nor a short run."""
    slow = [task(float(k), float(k) + (50.0 if k < 300 else 1.0)) for k in range(4_000)]
    steady = scenario(duration_s=5_000, warmup_s=0)
    assert run(tables(slow), steady).summary["unsettled_until_s"] == pytest.approx(299, abs=10)
    assert run(tables(slow, events=[(100.0, "crash", 0, None)]), steady).summary["unsettled_until_s"] is None
    assert unsettled_until_s([settling(1, slow=50, tasks=400)]) is None
    bursts = {"kind": "on_off", "rate_on_per_s": 2, "rate_off_per_s": 1, "mean_on_s": 5, "mean_off_s": 5}
    workload = {"arrivals": bursts, "service": {"kind": "exponential", "mean_s": 1}}
    assert len(batches(tables(slow), scenario(duration_s=5_000, warmup_s=0, workload=workload), 5_000).mean_s) == 0


def test_the_pooled_summary_judges_all_replications():
    """It has the key, and no interval of it."""
    pooled = pool([mm1(2_000, seed=seed) for seed in (1, 2)])
    assert pooled["unsettled_until_s"] is None
    assert "unsettled_until_s" not in pooled["ci95"]
