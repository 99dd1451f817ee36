"""What a coordinator tells of itself: which number of the last completions it prints, and under which name."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.metrics import LONGEST_S, REMEMBERED, Groups, Window, line
from orchestrator.cluster.wire import contract
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.core.inputs import Registration
from orchestrator.policies.settings import Policies, build_coordinator
from tests.cluster.conftest import MakeCluster


@pytest.fixture
def core():
    return build_coordinator(Policies(), EffectLog())


def complete(window: Window, latency_s: float, ran_s: float, now: float = 1.0) -> None:
    """A task completes: the coordinator hears of its execution first."""
    window.executed(ran_s)
    window.settled(True, latency_s, now)


def test_nearest_rank_is_nearest_rank(core):
    """Of 100 tasks with one of 2 s, p99 is the 99th; of 101 with two of them, it is the 100th."""
    window = Window(0.0)
    for _ in range(99):
        complete(window, 0.02, 0.01)
    complete(window, 2.0, 2.0)
    assert window.summary(core, 1.0).latency_ms == (20, 20, 20)
    assert window.summary(core, 1.0).execution_ms == (10, 10, 10)
    complete(window, 2.0, 2.0)
    assert window.summary(core, 1.0).latency_ms == (20, 20, 2000)
    one = Window(0.0)
    complete(one, 0.5, 0.25)
    assert one.summary(core, 1.0).execution_ms == (250, 250, 250)


def test_ranks_are_those_of_every_count(core):
    """The least value that at least that share of the values does not exceed."""
    for count in (*range(1, 250), 1000, 9999, 10_000):
        window = Window(0.0)
        for number in range(count):
            complete(window, 0.0, number / 1000)
        found = window.summary(core, 1.0).execution_ms
        assert found is not None
        for percent, value in zip((50, 95, 99), found, strict=True):
            assert value is not None
            covered = round(value) + 1
            assert 100 * covered >= percent * count > 100 * (covered - 1)


def test_throughput_counts_the_last_seconds(core):
    """And is zero when they are over."""
    window = Window(0.0)
    for number in range(100):
        complete(window, number / 1000, number / 1000, number / 10)
    assert window.summary(core, 10.0).throughput_per_s == pytest.approx(10.0, rel=0.05)
    assert window.summary(core, 20.0).throughput_per_s == 0


def test_a_failed_task_is_slower_than_every_one_that_completed(core):
    """However soon it failed: a percentile that falls on it is not known, but no less than its age, and no less than
    the largest latency. It is no completion."""
    window = Window(0.0)
    for _ in range(90):
        complete(window, 0.02, 0.01)
    for age_s in (0.001, 0.5, *[3.0] * 8):
        window.settled(False, age_s, 1.0)
    metrics = window.summary(core, 1.0)
    assert metrics.latency_ms == (20, None, None)
    assert metrics.latency_at_least_ms == (None, 3000, 3000)
    assert (metrics.throughput_per_s, metrics.failed_per_s) == (90, 10)
    assert metrics.execution_ms == (10, 10, 10)
    assert "latency p50 20.00 ms p95 > 3000.00 ms p99 > 3000.00 ms" in line(metrics)
    assert contract.metrics_of(contract.metrics_message(metrics)) == metrics
    soon = Window(0.0)
    complete(soon, 0.02, 0.01)
    soon.settled(False, 0.001, 1.0)
    assert soon.summary(core, 1.0).latency_at_least_ms == (None, 20, 20)


def test_where_all_failed_no_latency_is_known(core):
    """Only lower bounds are."""
    window = Window(0.0)
    window.settled(False, 0.25, 1.0)
    metrics = window.summary(core, 1.0)
    assert (metrics.latency_ms, metrics.latency_at_least_ms) == ((None, None, None), (250, 250, 250))
    assert (metrics.throughput_per_s, metrics.execution_ms) == (0, None)


def test_what_waits_at_workers_is_told_from_what_waits_at_the_coordinator(core):
    """An attempt waits at its worker until its start is reported; without prefetch no start is, and none waits."""
    core.register(Registration("w1", "i", 1, 2, reports_start=True), 0.0)
    core.register(Registration("w2", "i", 1, 0, reports_start=True), 0.0)
    for number in range(6):
        core.submit(f"t{number}", 1, "7", None, 0.0)
    window = Window(0.0)
    metrics = window.summary(core, 0.0)
    assert (metrics.queue_depth, metrics.queue_at_workers) == (2, 3)
    (worker,) = [worker for worker in core.workers() if worker.id == "w1"]
    core.started("w1", *next(iter(worker.open)).key, 0.0)
    metrics = window.summary(core, 0.0)
    assert (metrics.queue_depth, metrics.queue_at_workers) == (2, 2)
    assert "2 queued, 2 at workers" in line(metrics)
    assert contract.metrics_of(contract.metrics_message(metrics)) == metrics


def test_what_an_older_coordinator_does_not_tell_is_not_known():
    """Neither its failures by the second nor what waits at its workers."""
    told = contract.metrics_of(wire_pb2.GetMetricsResponse(total_ok=1, p50_latency_ms=3))
    assert (told.failed_per_s, told.queue_at_workers, told.latency_ms) == (None, None, None)
    assert told.execution_ms == (3, 0, 0)


def test_what_is_not_known_is_not_zero(core):
    """Over the wire, too."""
    nothing = Window(0.0).summary(core, 1.0)
    assert (nothing.latency_ms, nothing.execution_ms) == (None, None)
    assert "latency unknown, execution unknown" in line(nothing)
    assert contract.metrics_of(contract.metrics_message(nothing)) == nothing


@pytest.mark.parametrize("ran_s", [1e308, math.inf, math.nan, -1.0])
def test_no_value_breaks_the_line(core, ran_s: float):
    """Whatever a worker claims, the other values are told beside it."""
    window = Window(0.0)
    for _ in range(98):
        complete(window, 0.02, 0.0005)
    complete(window, 0.02, ran_s)
    complete(window, 0.02, ran_s)
    metrics = window.summary(core, 1.0)
    assert metrics.execution_ms == (0.5, 0.5, LONGEST_S * 1000)
    assert "latency p50 20.00 ms p95 20.00 ms p99 20.00 ms, execution p50 0.50 ms p95 0.50 ms" in line(metrics)
    assert contract.metrics_of(contract.metrics_message(metrics)) == metrics


def test_timeouts_and_refused_results_are_told(core):
    """In the line only where there are any."""
    window = Window(0.0)
    assert "timeouts" not in line(window.summary(core, 1.0))
    core.counters["timeouts"] = 3
    core.counters["refused_results"] = 2
    metrics = window.summary(core, 1.0)
    assert line(metrics).endswith(", 3 timeouts, 2 results refused")
    told = contract.metrics_of(contract.metrics_message(metrics))
    assert (told.timeouts, told.refused_results) == (3, 2)


def test_commits_are_told_where_there_are_any(core):
    """The rate is of the last five seconds; sizes and times of the last groups; over the wire and in the line."""
    window = Window(0.0)
    assert "commits" not in line(window.summary(core, 1.0))
    window.groups = Groups(0.0)
    nothing = window.summary(core, 1.0)
    assert nothing.commits == (0.0, None, None, 0.0)
    assert line(nothing).endswith(", 0.0 commits/s")
    window.groups.recovery_s = 0.25
    for number in range(20):
        window.groups.stored(1 + number % 2, 0.001 * (1 + number), float(number))
    metrics = window.summary(core, 20.0)
    assert metrics.commits is not None
    per_s, tasks_each, latency_ms, recovery_s = metrics.commits
    assert (per_s, tasks_each, recovery_s) == (4 / 5, 1.5, 0.25)
    assert latency_ms == pytest.approx((10, 19, 20))
    assert line(metrics).endswith(", 0.8 commits/s of 1.5 changed tasks each, p50 10.00 ms p95 19.00 ms p99 20.00 ms")
    for each in (nothing, metrics):
        assert contract.metrics_of(contract.metrics_message(each)) == each


def test_only_the_last_completions_count(core):
    """So that what was long ago is forgotten."""
    window = Window(0.0)
    complete(window, 9.0, 9.0)
    for _ in range(REMEMBERED):
        complete(window, 0.001, 0.001)
    assert window.summary(core, 1.0).latency_ms == (1, 1, 1)


def test_latency_is_not_execution(make_cluster: MakeCluster, tmp_path: Path):
    """One slot and five tasks of a tenth: the last waits for four others, but is executed no longer than they are."""
    cluster = make_cluster(1, capacity=1)

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            for submission in client.submit_batch([NewTask("0.1", 1, "sleep")] * 5):
                await submission
            metrics = await client.metrics()
        assert metrics.latency_ms is not None
        assert metrics.latency_ms.p50 is not None
        assert metrics.latency_ms.p99 is not None
        assert metrics.execution_ms is not None
        assert metrics.execution_ms.p50 is not None
        assert metrics.latency_ms.p99 >= metrics.latency_ms.p50 + 2 * 100
        assert metrics.latency_ms.p99 > metrics.execution_ms.p50 + 4 * 100
        assert metrics.execution_ms.p50 != round(metrics.execution_ms.p50), "fractions of a millisecond"

    asyncio.run(asyncio.wait_for(run(), 60))
