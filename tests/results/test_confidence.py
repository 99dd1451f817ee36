"""Intervals of pooled statistics: of the number itself, possible ones, and none of what too few replications tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.results.confidence import (
    Interval,
    bounds,
    count_interval,
    effective_number,
    inflation,
    jackknife,
    mean_interval,
    percentile_intervals,
    share_interval,
    student,
)

T9 = 2.262157  # t tables, 9 degrees of freedom, 95 % two-sided


def replications(runs: int, tasks: int, seed: int = 1) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.exponential(1.0, tasks) for _ in range(runs)]


def test_a_percentile_lies_within_its_interval_and_the_interval_holds_the_truth():
    """Of independent exponential values, p50 to p99.9 are -log(1 - q); the pooled percentile is always inside."""
    quantiles, held = [0.5, 0.9, 0.99, 0.999], 0
    for seed in range(100):
        samples = replications(10, 4_000, seed)
        for q, found in zip(quantiles, percentile_intervals(samples, quantiles), strict=True):
            assert found is not None
            high = math.inf if found.high is None else found.high
            assert found.low <= np.quantile(np.concatenate(samples), q) <= high
            held += found.low <= -math.log(1 - q) <= high
    assert 0.92 <= held / 400 <= 0.99


def test_independent_values_have_the_exact_interval_of_order_statistics():
    """Replications of one value each vary as binomials do, but for Student's t: the ranks are those of the beta."""
    values = np.arange(1.0, 1_001.0)
    (found,) = percentile_intervals([np.array([value]) for value in values], [0.5])
    assert found is not None
    assert found.high is not None
    low, high = (float(stats.binom.ppf(tail, 1_000, 0.5)) for tail in (0.025, 0.975))
    assert found.low == pytest.approx(low, abs=2)
    assert found.high == pytest.approx(high, abs=2)


def test_replications_that_differ_widen_the_interval():
    """Shifted against each other, the same values count as few; the plain ones count as many."""
    alike = replications(10, 1_000)
    apart = [values + shift / 20 for shift, values in enumerate(alike)]
    (one,), (other,) = percentile_intervals(alike, [0.5]), percentile_intervals(apart, [0.5])
    assert one is not None
    assert other is not None
    assert one.high is not None
    assert other.high is not None
    assert other.high - other.low > 3 * (one.high - one.low)


def test_a_tail_of_too_few_independent_values_has_no_upper_end():
    """Of 50,000 values p99.9 has 50 beyond it, which is enough if they are independent but not in bursts of 20."""
    samples = replications(10, 5_000)
    (alone,) = percentile_intervals(samples, [0.999])
    assert alone is not None
    assert (alone.high is None, alone.too_few) == (False, False)
    (bursts,) = percentile_intervals([np.repeat(values[:250], 20) for values in samples], [0.999])
    assert bursts is not None
    assert (bursts.high, bursts.too_few) == (None, True)
    assert bursts.low <= np.quantile(np.concatenate([values[:250] for values in samples]), 0.999)


def test_a_tail_is_no_less_clustered_than_the_body():
    """Medians that differ between replications are seen; the rare slow tasks that did not come as often are not."""
    rng = np.random.default_rng(1)
    rare = [np.concatenate([rng.normal(busy, 0.1, 950), rng.uniform(90, 99, 50)]) for busy in (1, 2) * 5]
    (p99,) = percentile_intervals(rare, [0.99])
    assert p99 is not None
    assert p99.too_few


def test_a_tail_counts_as_the_mean_of_the_body_below_it():
    """Shares beyond p95 that hardly differ are widened by those of the body: p95 counts as few as its mean says."""
    rng = np.random.default_rng(1)
    samples = [np.concatenate([rng.normal(at, 1.0, 950), rng.uniform(90, 99, 50)]) for at in (1.0, 1.2) * 5]
    (found,) = percentile_intervals(samples, [0.95])
    values, n = np.sort(np.concatenate(samples)), 10_000
    shares = np.array([[np.mean(one > values[int(q * (n - 1))]) for one in samples] for q in (0.5, 0.75, 0.9, 0.95)])
    means = np.mean(shares, axis=1)
    independent = np.mean(np.var(shares, axis=1, ddof=1) / 10 / (means * (1 - means) / n))
    known = n / independent
    beyond = [float(stats.beta.ppf(at, known * 0.05 + k, known * 0.95 + 1 - k)) for k, at in enumerate((0.025, 0.975))]
    assert found is not None
    assert not found.too_few
    assert found.low == pytest.approx(np.quantile(values, 1 - beyond[1]))
    assert found.high == pytest.approx(np.quantile(values, 1 - beyond[0]))


def test_a_tail_that_is_no_waits_is_not_clustered_by_them():
    """Runs differ by their waits, and the slowest tasks are those with long services: p99 counts as they do.

    The body alone would take it to be as clustered as the medians are.
    """
    rng = np.random.default_rng(1)
    waits_s = [rng.exponential(0.3 + busy / 10, 2_000) for busy in range(10)]
    served_s = [np.where(rng.random(2_000) < 0.03, 10 + rng.exponential(10.0, 2_000), 0.0) for _ in range(10)]
    latency_s = [waited + served for waited, served in zip(waits_s, served_s, strict=True)]
    (by_body,) = percentile_intervals(latency_s, [0.99])
    (known,) = percentile_intervals(latency_s, [0.99], wait_s=waits_s)
    (alike,) = percentile_intervals([np.sort(np.concatenate(latency_s))[k::10] for k in range(10)], [0.99])
    assert by_body is not None
    assert by_body.too_few
    assert known is not None
    assert alike is not None
    assert not known.too_few
    assert by_body.low < known.low < alike.low
    waiting = [np.sort(waited) for waited in waits_s]
    assert percentile_intervals(waiting, [0.99], wait_s=waiting) == percentile_intervals(waiting, [0.99])


def test_theory_may_know_of_fewer_independent_values():
    """If it knows of 25 beyond p90, for 225 others, an upper end is told, else none; the lower end stays."""
    samples = replications(10, 1_000)
    (found,), (short,), (long,) = (
        percentile_intervals(samples, [0.9], independent=number) for number in (math.inf, 224, 226)
    )
    assert found is not None
    assert found.high is not None
    assert short == (found.low, None, True)
    assert long == found


def test_replications_that_are_copies_do_not_tell_how_sure_their_percentiles_are():
    """Not surer than by as many independent values."""
    values = replications(1, 1_000)[0]
    (copies,), (one,) = percentile_intervals([values] * 4, [0.5]), percentile_intervals([values[:1]] * 2, [0.5])
    low, high = (float(stats.beta.ppf(at, 2_000 + k, 2_001 - k)) for k, at in enumerate((0.025, 0.975)))
    assert copies is not None
    assert copies.low == pytest.approx(np.quantile(values, 1 - high), rel=0.01)
    assert copies.high == pytest.approx(np.quantile(values, 1 - low), rel=0.01)
    assert one is not None
    assert one.too_few


def test_what_falls_on_a_task_that_never_completed_is_not_known():
    """2 % never completed: p50 has both ends, p95 a lower one at most, and p99.9 none."""
    samples = [np.where(np.arange(len(values)) % 50 == 0, np.inf, values) for values in replications(10, 2_000)]
    p50, p97, p999 = percentile_intervals(samples, [0.5, 0.979, 0.999])
    assert p50 is not None
    assert p50.high is not None
    assert p97 is not None
    assert (p97.high, p97.too_few) == (None, False)
    assert p999 is None


def test_one_replication_has_no_interval():
    """Nor have several of which only one has values; what is not there says nothing."""
    values = np.arange(100.0)
    assert percentile_intervals([values], [0.5, 0.9]) == [None, None]
    assert percentile_intervals([values, np.empty(0)], [0.5]) == [None]
    assert mean_interval(np.array([5.0]), np.array([1.0])) is None
    assert mean_interval(np.array([5.0, 0.0]), np.array([1.0, 0.0])) is None
    assert share_interval(np.array([0.5]), np.ones(1)) is None
    assert count_interval(np.array([3.0])) is None


def test_values_that_are_all_alike_are_sure():
    """No spread is no width, for percentiles and for means."""
    samples = [np.full(100, 2.0)] * 3
    assert percentile_intervals(samples, [0.5]) == [Interval(2.0, 2.0)]
    assert mean_interval(np.full(3, 200.0), np.full(3, 100.0)) == (2.0, 2.0, False)


def test_a_mean_has_student_s_interval_on_a_logarithmic_scale():
    """Of means that differ by nothing but a symmetric spread s: mean times exp(-+ t s / (mean sqrt(n)))."""
    means = np.array([9.0, 11.0] * 5)
    found = mean_interval(means, np.ones(10))
    assert found is not None
    assert found.high is not None
    half = T9 * np.std(means, ddof=1) / np.sqrt(10) / 10
    assert found.low == pytest.approx(min(10 * math.exp(-half), 10 - 10 * half))
    assert found.high == pytest.approx(max(10 * math.exp(half), 10 + 10 * half))


def test_skewed_means_reach_farther_up():
    """One replication of ten is ten times as slow: more of the interval lies above the mean than below."""
    means = np.array([1.0] * 9 + [2.0])
    found = mean_interval(means, np.ones(10))
    assert found is not None
    assert found.high is not None
    assert found.high - 1.1 > 1.5 * (1.1 - found.low)


def test_no_interval_is_impossible():
    """No time is negative, no share is above 1, and what differs too much has no upper end instead of a huge one."""
    wide = mean_interval(np.array([0.0, 0.0, 9.0]), np.ones(3))
    assert wide is not None
    assert wide.low > 0
    assert (wide.high, wide.too_few) == (None, True)
    busy = share_interval(np.array([0.99, 0.9999, 1.0]), np.ones(3))
    assert busy is not None
    assert busy.high is not None
    assert 0 < busy.low < 0.9966 < busy.high < 1


def test_shares_that_are_all_1_are_not_sure():
    """Ten replications without a mistake: with a mean below 0.05^(1/10) = 0.741 that would come in under 5 %."""
    assert share_interval(np.ones(10), np.ones(10)) == pytest.approx((0.05**0.1, 1.0, False))
    assert share_interval(np.zeros(10), np.ones(10)) == pytest.approx((0.0, 1 - 0.05**0.1, False))


def test_no_event_in_any_run_is_a_bound():
    """The rule of three: -log(0.05) = 3.0 events in all, however many runs there are."""
    assert count_interval(np.zeros(10)) == pytest.approx((0.0, 2.9957, False), abs=1e-4)
    assert mean_interval(np.zeros(10), np.ones(10)) == (0.0, None, False)


def test_counts_have_poisson_bounds_of_their_sum():
    """30 events that vary as a Poisson's do: about the exact bounds 20.2 to 42.8, a little wider by Student's t."""
    counts = np.array([1.0, 5.0, 3.0, 2.0, 4.0, 3.0, 0.0, 5.0, 3.0, 4.0])
    found = count_interval(counts)
    assert found is not None
    assert found.high is not None
    assert 17 < found.low < 20.5
    assert 42 < found.high < 48
    assert count_interval(np.full(10, 2.0)) == (20.0, 20.0, False)


def test_neighbouring_blocks_that_are_alike_widen_an_interval():
    """(1 + r) / (1 - r) for a correlation r; blocks that alternate do not narrow it."""
    trend = np.repeat([1.0, -1.0], 10)
    assert inflation(trend) == pytest.approx((1 + 0.85) / (1 - 0.85))  # of 19 pairs 18 are alike: 17 / 20
    assert inflation(np.array([1.0, -1.0] * 10)) == 1.0
    assert inflation(np.zeros(20)) == 1.0
    one, other = (mean_interval(100 + trend, np.ones(20), serial) for serial in (False, True))
    assert one is not None
    assert other is not None
    assert one.high is not None
    assert other.high is not None
    assert other.high - other.low > 3 * (one.high - one.low)


def test_differences_that_cancel_vary_as_one_block_does():
    """What one block lacks the next one has: the sum of ten varies as one of them, not as ten; and they tell their
    variance as well as two thirds as many that are independent."""
    without = np.arange(10.0)
    (low, high), (near, far) = (jackknife(4.5, without, cancel=cancel) for cancel in (False, True))
    assert (far - near) / (high - low) == pytest.approx(math.sqrt(1 / 10) * student(10 / 1.5) / student(10))


def test_ends_that_are_not_known_are_not_drawn():
    """NaN, which is not drawn, for what is None."""
    low, high = bounds([Interval(1.0, None, True), None, [2.0, 3.0]])
    assert low.tolist()[::2] == [1.0, 2.0]
    assert np.isnan(low[1])
    assert np.isnan(high[:2]).all()
    assert high[2] == 3.0


def test_clusters_that_count_as_fewer_are_less_sure():
    """Ten clusters of which one has nearly all count as one: the jackknife reaches farther than for ten equal ones."""
    assert effective_number(np.ones(10)) == pytest.approx(10)
    assert effective_number(np.array([99.0, *np.full(9, 0.1)])) == pytest.approx(1.02, abs=0.01)
    assert effective_number(np.zeros(3)) == 0
    without = np.array([1.0, 2.0, 3.0, 2.0])
    (low, high), (lower, higher) = (jackknife(2.0, without, effective=number) for number in (4.0, 2.0))
    assert lower < low < high < higher


def test_two_runs_that_agree_on_one_event_each_are_not_sure_of_two():
    """Independent events are that alike in half of the cases; ten runs with one planned crash each are no chance."""
    found = count_interval(np.ones(2))
    assert found is not None
    assert found[:2] == pytest.approx(stats.chi2.ppf([0.025, 0.975], [4, 6]) / 2)
    assert count_interval(np.ones(10)) == Interval(10, 10)
