"""The intervals of the summary of replications: each of the number that stands in the summary."""

from __future__ import annotations

import pytest

from orchestrator.results.executions import end_s, stated_load
from orchestrator.results.statistics import flatten
from orchestrator.results.summaries import pool
from orchestrator.scenario.workload import Trace
from tests.results.synthetic import mm1, run, scenario, tables, task


def test_replications_give_intervals_by_dotted_name():
    """ci95 has the interval of each pooled number, and names those whose upper end the replications do not tell."""
    runs = [run(tables([task(20.0, 20.0 + latency)])) for latency in (3.0, 4.0, 5.0, 6.0, 7.0)]
    pooled = pool(runs)
    low, high = pooled["ci95"]["latency_s.mean"]
    assert 2.5 < low < 3.5 < pooled["latency_s"]["mean"] < 6.5 < high < 7.5
    assert pooled["ci95"]["latency_s.p99"][1] is None
    assert "latency_s.p99" in pooled["ci95_too_few"]
    assert "latency_s.mean" not in pooled["ci95_too_few"]
    assert pooled["ci95"]["detection.time_s.mean"] is None
    assert pool(runs[:1])["ci95"]["latency_s.p99"] is None
    assert not any(metric.startswith(("engine", "seed", "duration")) for metric in pooled["ci95"])


def test_a_number_lies_within_its_own_interval():
    """Counts are summed and so are their intervals; no maximum has one, and no interval is impossible."""
    runs = [mm1(2000, offered_load=0.8, seed=seed) for seed in range(10)]
    pooled = pool(runs)
    flat = flatten({key: value for key, value in pooled.items() if not key.startswith("ci95")})
    assert "latency_s.max" not in pooled["ci95"]
    known = {metric: interval for metric, interval in pooled["ci95"].items() if interval is not None}
    assert {"latency_s.p99", "tasks.submitted", "utilization", "throughput_per_s", "tasks.wasted_s"} <= known.keys()
    for metric, (low, high) in known.items():
        assert 0 <= low <= flat[metric] + 1e-9, metric
        assert high is None or flat[metric] - 1e-9 <= high, metric
    assert known["utilization"][1] < 1
    assert known["tasks.failed"] == pytest.approx([0.0, 2.9957], abs=1e-4)
    assert known["detection.crashes"] == [10.0, 10.0]
    hours = sum(end_s(run.tables, run.scenario) for run in runs) / 3600
    assert known["detection.false_positives_per_h"] == pytest.approx([0.0, 2.9957 / hours], rel=1e-4)


def test_the_accuracy_of_a_detector_without_a_mistake_is_not_sure():
    """Ten replications without a mistake show that accuracy is at least 0.05^(1/10), not that it is 1."""
    beating = [(0.0, "up", worker, "registered") for worker in (0, 1)]
    pooled = pool([run(tables([task(20.0, 21.0)], events=beating)) for _ in range(10)])
    assert pooled["detection"]["query_accuracy"] == 1
    assert pooled["ci95"]["detection.query_accuracy"] == pytest.approx([0.05**0.1, 1.0])
    judged_s = pooled["detection"]["judged_s"]
    assert pooled["ci95"]["detection.mistake_rate_per_s"] == pytest.approx([0.0, 2.9957 / judged_s], rel=1e-4)


def test_an_interval_that_falls_on_a_lost_task_has_no_upper_end():
    """One replication does not know p99, so nobody knows how long it can be; the mean is of the others."""
    known = [run(tables([task(20.0, 20.0 + latency)])) for latency in (3.0, 4.0)]
    lost = run(tables([task(20.0, 21.0), task(20.0)]))
    pooled = pool([*known, lost])
    assert pooled["latency_s"]["p99"] is None
    assert pooled["ci95"]["latency_s.p99"][1] is None
    assert pooled["latency_s"]["at_least"]["p99"] == 80.0
    assert pooled["ci95"]["latency_s.mean"] is not None
    assert pool([*known, run(tables())])["ci95"]["latency_s.p99"] is not None


def test_theory_is_asked_about_the_load_that_the_scenario_states():
    """A task of 1 s each second on two workers is a load of 0.5; a trace states none, since its file may be gone."""
    assert stated_load(scenario()) == 0.5
    trace = Trace.model_construct(kind="trace", file="gone.csv")
    gone = scenario().workload.model_copy(update={"arrivals": trace})
    assert stated_load(scenario().model_copy(update={"workload": gone})) is None


def test_lucky_replications_tell_no_more_than_others():
    """Five of 200 tasks at a load of 0.9 are three relaxation times, whatever they saw: p90 has no upper end."""
    for seed in range(0, 40, 5):
        pooled = pool([mm1(200, offered_load=0.9, seed=each) for each in range(seed, seed + 5)])
        assert {"latency_s.p90", "latency_s.p99"} <= set(pooled["ci95_too_few"])
