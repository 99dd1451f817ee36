"""What a coordinator tells of itself: which number of the last completions it prints, and under which name."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.metrics import LONGEST_S, REMEMBERED, Window, line
from orchestrator.cluster.wire import contract
from orchestrator.policies.settings import Policies, build_coordinator
from tests.cluster.conftest import MakeCluster


@pytest.fixture
def core():
    return build_coordinator(Policies(), EffectLog())


def test_nearest_rank_is_nearest_rank(core):
    """Of 100 tasks with one of 2 s, p99 is the 99th; of 101 with two of them, it is the 100th."""
    window = Window(0.0)
    for _ in range(99):
        window.add(0.02, 0.01, 1.0)
    window.add(2.0, 2.0, 1.0)
    assert window.summary(core, 1.0).latency_ms == (20, 20, 20)
    assert window.summary(core, 1.0).execution_ms == (10, 10, 10)
    window.add(2.0, 2.0, 1.0)
    assert window.summary(core, 1.0).latency_ms == (20, 20, 2000)
    one = Window(0.0)
    one.add(0.5, 0.25, 1.0)
    assert one.summary(core, 1.0).execution_ms == (250, 250, 250)


def test_ranks_are_those_of_every_count(core):
    """The least value that at least that share of the values does not exceed."""
    for count in (*range(1, 250), 1000, 9999, 10_000):
        window = Window(0.0)
        for number in range(count):
            window.add(0.0, number / 1000, 1.0)
        found = window.summary(core, 1.0).execution_ms
        assert found is not None
        for percent, value in zip((50, 95, 99), found, strict=True):
            covered = round(value) + 1
            assert 100 * covered >= percent * count > 100 * (covered - 1)


def test_throughput_counts_the_last_seconds(core):
    """And is zero when they are over."""
    window = Window(0.0)
    for number in range(100):
        window.add(number / 1000, number / 1000, now=number / 10)
    assert window.summary(core, 10.0).throughput_per_s == pytest.approx(10.0, rel=0.05)
    assert window.summary(core, 20.0).throughput_per_s == 0


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
        window.add(0.02, 0.0005, 1.0)
    window.add(0.02, ran_s, 1.0)
    window.add(0.02, ran_s, 1.0)
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
    assert contract.metrics_of(contract.metrics_message(metrics))[-2:] == (3, 2)


def test_only_the_last_completions_count(core):
    """So that what was long ago is forgotten."""
    window = Window(0.0)
    window.add(9.0, 9.0, 1.0)
    for _ in range(REMEMBERED):
        window.add(0.001, 0.001, 1.0)
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
        assert metrics.execution_ms is not None
        assert metrics.latency_ms.p99 >= metrics.latency_ms.p50 + 2 * 100
        assert metrics.latency_ms.p99 > metrics.execution_ms.p50 + 4 * 100
        assert metrics.execution_ms.p50 != round(metrics.execution_ms.p50), "fractions of a millisecond"

    asyncio.run(asyncio.wait_for(run(), 60))
