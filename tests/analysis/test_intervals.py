"""How sure a comparison is: what neither blocks nor pairs of runs show."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats.mstats import hdquantiles

from orchestrator.analysis.intervals import Spread
from orchestrator.analysis.measures import EXCESS, LATENCY, Clock, Observed, Ordered
from orchestrator.results.confidence import effective_number, jackknife
from tests.results.synthetic import mm1


def observed(tasks: int, offered_load: float, seed: int = 1) -> Observed:
    run = mm1(tasks, offered_load, seed)
    return Observed.of(run, Clock.of([(0.0, run.scenario.duration_s)]))


def ratio(times_s: np.ndarray, q: float) -> float:
    """The logarithm of the ratio of both sides' quantiles, smoothed by SciPy."""
    (ours,), (theirs,) = (hdquantiles(side.ravel(), [q]) for side in times_s)
    return math.log(ours / theirs)


def used(side: list[Observed]) -> float:
    """The utilisation, which is the power that waits count by."""
    return float(sum(one.busy_s[-1] for one in side) / sum(one.slots * one.length_s for one in side))


@pytest.mark.parametrize("seed", range(5))
def test_a_single_run_that_is_short_at_its_load_says_too_few(seed):
    """1,000 tasks at a load of 0.9 are three relaxation times: no time has an upper end, even of a lucky run."""
    values = Spread.over_blocks(*[observed(1_000, 0.9, seed)] * 2).values
    for metric in ("wait_s.mean", "wait_s.p99", *LATENCY, *EXCESS):
        assert (values[metric].high, values[metric].too_few) == (None, True), metric
    assert values["utilization"].high is not None


def test_a_single_run_that_is_long_at_its_load_has_both_ends():
    """10,000 tasks at a load of 0.5 tell the mean wait, p50 and p90, and so do those that hardly wait."""
    long = observed(10_000, 0.5)
    values = Spread.over_blocks(long, long).values
    for metric in ("wait_s.mean", "latency_s.p50", "latency_s.p90"):
        assert values[metric].high is not None, metric
    brief = replace(long, wait_s=np.zeros_like(long.wait_s))
    assert Spread.over_blocks(brief, brief).values["latency_s.p50"].high is not None


def test_pairs_that_agree_on_a_percentile_are_not_sure_of_it():
    """Every latency is twice that of the other side: the error is 100 %, give or take a rank of either side."""
    ours = [observed(500, 0.5, seed) for seed in range(4)]
    theirs = [replace(one, latency_s=one.latency_s / 2, wait_s=one.wait_s / 2) for one in ours]
    found = Spread.over_runs(ours, theirs).errors["latency_s.p90"]
    assert found is not None
    latency_s = np.concatenate([one.latency_s for one in ours])
    away = 1 / (len(latency_s) - 1)
    low, at, high = np.quantile(latency_s, [0.9 - away, 0.9, 0.9 + away])
    reach = math.log(high / at), math.log(at / low)
    expected = [2 * math.exp(side) - 1 for side in (-max(reach), max(reach))]
    assert found == pytest.approx(expected)
    assert found[0] < 1 < found[1]


def test_pairs_whose_times_are_all_the_same_are_sure():
    """Where each task takes 2 s on one side and 1 s on the other, a rank changes nothing."""
    ours = [
        replace(one, latency_s=np.full_like(one.latency_s, 2.0), wait_s=np.zeros_like(one.wait_s))
        for one in map(observed, (100, 110), (0.5, 0.5))
    ]
    theirs = [replace(one, latency_s=one.latency_s / 2) for one in ours]
    assert Spread.over_runs(ours, theirs).errors["latency_s.p50"] == pytest.approx((1.0, 1.0))


def test_short_replications_say_too_few_for_a_percentile_and_not_for_the_mean():
    """Five runs of 200 tasks at a load of 0.9 are three relaxation times in all, even if they agree by chance."""
    ours = [observed(200, 0.9, seed) for seed in range(5)]
    found = Spread.over_runs(ours, [replace(one, latency_s=one.latency_s / 2) for one in ours])
    assert found.values["latency_s.p95"].too_few
    assert found.errors["latency_s.p95"] is None
    assert Spread.over_runs(ours, ours).errors["wait_s.mean"] == (0.0, 0.0)


def test_tails_count_pairs_by_their_waits():
    """A tail is made up of long waits, as far as latencies differ by them; for the median each pair counts as one."""
    ours, theirs = ([observed(1_000, load, seed) for seed in range(5)] for load in (0.6, 0.5))
    times_s = np.array([[side.latency_s for side in sides] for sides in (ours, theirs)])
    waits_s = np.array([[np.sum(side.wait_s) for side in sides] for sides in (ours, theirs)])
    waiting = max(
        np.var([one.wait_s for one in side]) / np.var([one.latency_s for one in side]) for side in (ours, theirs)
    )
    together = effective_number(np.prod(waits_s, axis=0) ** max(*map(used, (ours, theirs)), 0.5))
    effective = 1 / float(waiting / together + (1 - waiting) / 5)
    assert effective < 4.9
    for metric, q, counted in (("latency_s.p50", 0.5, math.inf), ("latency_s.p90", 0.9, effective)):
        whole, *without = (ratio(np.delete(times_s, left, axis=1), q) for left in ([], *range(5)))
        expected = jackknife(whole, np.array(without), effective=counted)
        assert Spread.over_runs(ours, theirs).errors[metric] == pytest.approx(np.expm1(expected))


def test_pairs_of_the_same_tasks_count_their_tails_by_their_waits_alone():
    """Services are the same on both sides: whatever part of a latency they are, only the waits differ."""
    ours = [observed(1_000, 0.5, seed) for seed in range(5)]
    theirs = [replace(one, latency_s=one.latency_s - one.wait_s / 2, wait_s=one.wait_s / 2) for one in ours]
    times_s = np.array([[side.latency_s for side in sides] for sides in (ours, theirs)])
    whole, *without = (ratio(np.delete(times_s, left, axis=1), 0.9) for left in ([], *range(5)))
    effective = effective_number(np.array([np.sum(one.wait_s) ** 2 for one in ours]) ** max(used(ours), 0.5))
    expected = jackknife(whole, np.array(without), effective=effective)
    assert Spread.over_runs(ours, theirs).errors["latency_s.p90"] == pytest.approx(np.expm1(expected))


def test_pairs_of_the_same_tasks_need_enough_waits():
    """Ten slots at a load of 0.5 for 5,000 tasks are 858 relaxation times: 8.7 waits beyond p99, where 25 are needed.

    Either side's p99 is hardly waiting and has both ends, and so has the error of sides whose tasks are not the same.
    """
    ours, others = (
        [
            replace(one, slots=10, busy_s=10 * one.busy_s, wait_s=one.wait_s / 50, latency_s=one.latency_s - waited_s)
            for one in (observed(1_000, 0.5, seed) for seed in seeds)
            for waited_s in [0.98 * one.wait_s]
        ]
        for seeds in (range(5), range(5, 10))
    )
    same, apart = Spread.over_runs(ours, ours), Spread.over_runs(ours, others)
    assert same.values["latency_s.p99"].high is not None
    assert same.errors["latency_s.p99"] is None
    assert same.errors["latency_s.p90"] is not None
    assert apart.errors["latency_s.p99"] is not None


def test_where_no_task_waits_each_pair_counts_as_one():
    """Their tails are services, which are independent."""
    ours, theirs = (
        [replace(one, wait_s=np.zeros_like(one.wait_s)) for one in (observed(1_000, 0.5, seed) for seed in seeds)]
        for seeds in (range(5), range(5, 10))
    )
    times_s = np.array([[side.latency_s for side in sides] for sides in (ours, theirs)])
    whole, *without = (ratio(np.delete(times_s, left, axis=1), 0.9) for left in ([], *range(5)))
    expected = jackknife(whole, np.array(without))
    assert Spread.over_runs(ours, theirs).errors["latency_s.p90"] == pytest.approx(np.expm1(expected))


def of_waits(waits_s: np.ndarray, load: float = 0.5) -> tuple[list[Observed], list[Observed]]:
    """Both sides of pairs of runs at a load of so much, in each of which every task waits as long."""
    run = observed(200, 0.5)
    run = replace(run, change_s=np.array([0.0, run.length_s]), busy_s=np.array([0.0, load * run.slots * run.length_s]))
    ours, theirs = ([replace(run, wait_s=np.full_like(run.wait_s, wait_s)) for wait_s in side] for side in waits_s)
    return ours, theirs


TOGETHER = np.array([[1.0, 1, 1, 1, 2], [0.9, 0.8, 0.9, 0.8, 1.7]])


@pytest.mark.parametrize(("load", "power"), [(0.3, 1.0), (0.5, 1.0), (0.8, 1.6), (0.9, 1.8)])
def test_pairs_that_wait_together_count_by_a_power_of_their_waits(load, power):
    """For M/M/1 w' = 1 / (1 - u)^2 grows as w = u / (1 - u) to the power 2u: the more one long pair tells."""
    found = Spread.over_runs(*of_waits(TOGETHER, load)).errors["wait_s.mean"]
    without = np.log(np.divide(*(np.sum(TOGETHER, axis=1, keepdims=True) - TOGETHER)))
    effective = effective_number(np.prod(TOGETHER, axis=0) ** (power / 2))
    assert found == pytest.approx(np.expm1(jackknife(math.log(6 / 5.1), without, effective=effective)))


def test_sides_that_wait_by_themselves_count_as_the_one_of_which_fewer_count():
    """No pair is long on both sides, so that its waits are no product: each side's waits count by themselves."""
    waits_s = np.array([[1.0, 1, 1, 1, 2], [0.8, 1.7, 0.9, 0.8, 0.8]])
    found = Spread.over_runs(*of_waits(waits_s, 0.9)).errors["wait_s.mean"]
    without = np.log(np.divide(*(np.sum(waits_s, axis=1, keepdims=True) - waits_s)))
    effective = min(map(effective_number, waits_s))
    assert found == pytest.approx(np.expm1(jackknife(math.log(6 / 5), without, effective=effective)))


def test_pairs_that_never_wait_on_both_sides_tell_nothing_of_waits():
    """Without a wait in any run there is no error of it either."""
    ours, theirs = of_waits(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert Spread.over_runs(ours, theirs).errors["wait_s.mean"] is None
    assert "wait_s.mean" not in Spread.over_runs([ours[0]] * 2, [theirs[1]] * 2).errors


def test_a_pair_with_the_same_arrivals_completes_as_many():
    """A system that takes 10 ms longer for each task has its throughput, but for a task at each end."""
    run = observed(5_000, 0.5)
    later = replace(run, completed_s=run.completed_s + 0.01)
    low, high = Spread.over_blocks(run, later).errors["throughput_per_s"] or (0, 0)
    assert -3 / 5_000 < low <= 0 <= high < 3 / 5_000
    other = observed(5_000, 0.5, seed=2)
    low, high = Spread.over_blocks(run, other).errors["throughput_per_s"] or (0, 0)
    assert high - low > 20 / 5_000


def test_a_percentile_is_smoothed_by_harrell_and_davis():
    """As SciPy has it, of some of the values; what is next to a lost task is not known."""
    rng = np.random.default_rng(1)
    values, times = rng.exponential(1.0, 2_000), rng.integers(0, 2, 2_000)
    points = [0.5, 0.9, 0.99, 0.999]
    found = Ordered.of(values).smooth_quantiles(times, points)
    assert found == pytest.approx(hdquantiles(values[times > 0], points), rel=1e-6)
    lost = np.where(values > np.quantile(values, 0.98), np.inf, values)
    half, tail = Ordered.of(lost).smooth_quantiles(times, [0.5, 0.99])
    assert half == pytest.approx(found[0])
    assert tail == math.inf
    assert math.isnan(Ordered.of(values[:0]).smooth_quantiles(times[:0], [0.5])[0])
