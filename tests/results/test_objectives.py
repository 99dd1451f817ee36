"""Objectives: which numbers there are, and when a summary keeps a bound of one."""

from __future__ import annotations

import pytest

from orchestrator.results.confidence import Interval
from orchestrator.results.objectives import Objective, ObjectiveError, metrics, objectives
from orchestrator.results.runs import CellRuns
from orchestrator.results.statistics import flatten
from tests.results.synthetic import mm1, run, scenario, tables, task


def test_every_number_of_a_summary_can_be_asked_for():
    """The keys that objectives know are those of a real summary, no more and no fewer."""
    one = mm1()
    numbers = {
        key
        for key, value in flatten(one.summary).items()
        if not isinstance(value, str | list) and ".at_least." not in key
    }
    assert set(metrics(one.scenario)) == numbers - {"seed"}


def test_kinds_of_tasks_can_be_asked_for():
    """By their names, as priorities can."""
    kinds = {"report": {"share": 0.1}, "lookup": {"share": 0.9}}
    workload = {
        "arrivals": {"kind": "poisson", "rate_per_s": 1},
        "service": {"kind": "constant", "value_s": 1},
        "kinds": kinds,
    }
    (one,) = objectives(["by_kind.report.latency_s.p95 <= 2.5"], scenario(workload=workload))
    assert one == Objective("by_kind.report.latency_s.p95", "<=", 2.5)


def test_limits_can_be_asked_for_where_there_are_some():
    """A scenario whose tasks can't expire has no such number."""
    one = "limits.missed_deadlines < 5"
    workload = {
        "arrivals": {"kind": "poisson", "rate_per_s": 1},
        "service": {"kind": "constant", "value_s": 1},
        "deadline_s": 3,
    }
    assert objectives([one], scenario(workload=workload)) == [Objective("limits.missed_deadlines", "<", 5.0)]
    with pytest.raises(ObjectiveError, match="there is no number"):
        objectives([one], scenario())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latncy_s.p95 < 2", "did you mean latency_s.p95 or"),
        ("by_priority.hgh.latency_s.p95 < 2", "did you mean by_priority.high.latency_s.p95 or"),
        ("latency_s < 2", "expected one of latency_s.p50, latency_s.p90,"),
        ("speed < 2", "expected a number of summary.json; these begin with duration_s, ended_s, tasks,"),
        ("latency_s.p95 == 2", "is no objective, expected KEY < NUMBER"),
        ("latency_s.p95 < nan", "nan is no finite number"),
        ("latency_s.p95 < 2 s", "is no objective"),
    ],
)
def test_what_is_no_objective_is_refused_with_what_exists(text: str, told: str):
    """One sentence, with a key that is alike if there is one."""
    with pytest.raises(ObjectiveError, match=told):
        objectives([text], scenario())


@pytest.mark.parametrize(
    ("text", "met"),
    [("< 3", False), ("<= 3", True), ("> 3", False), (">= 3", True), ("<3.01", True), ("> 2.9", True), ("< 2", False)],
)
def test_a_bound_is_held_against_the_number_itself(text: str, met: bool):
    """Three tasks of 2, 3 and 4 seconds have a median of 3."""
    one = run(tables([task(20.0 + n, 22.0 + 2 * n) for n in range(3)]))
    (objective,) = objectives([f"latency_s.p50 {text}"], one.scenario)
    assert objective.judge(one.summary).met is met


def test_an_unknown_percentile_is_missed_whatever_is_asked():
    """Two of three tasks never ended: the median is not known, only that it is over 60 s."""
    one = run(tables([task(20.0, 22.0), task(30.0), task(40.0)]))
    for text in ("latency_s.p50 < 1000", "latency_s.p50 > 1"):
        verdict = Objective.parse(text).judge(one.summary)
        assert (verdict.met, verdict.value, verdict.sure) == (False, None, None)
        assert verdict.at_least == one.summary["latency_s"]["at_least"]["p50"] >= 60
        assert verdict.in_words() == f"not known, but over {verdict.at_least:.4g}"


def test_a_class_without_a_task_misses_too():
    """No task was urgent, no crash was detected: there is no value."""
    one = run(tables([task(20.0, 22.0)]))
    for metric in ("by_priority.urgent.latency_s.p95", "detection.time_s.p50"):
        verdict = Objective.parse(f"{metric} < 1").judge(one.summary)
        assert (verdict.met, verdict.value, verdict.at_least) == (False, None, None)
        assert verdict.in_words() == "without a value"


@pytest.mark.parametrize(
    ("interval", "limit", "met", "sure"),
    [
        ((1.0, 1.9), "< 2", True, True),
        ((1.0, 2.1), "< 2", True, False),
        ((1.0, None), "< 2", True, False),
        ((1.2, None), "< 1", False, True),
        ((0.9, 2.0), "< 1", False, False),
        ((1.2, None), "> 1", True, True),
    ],
)
def test_a_verdict_is_sure_if_the_whole_interval_says_it(interval, limit: str, met: bool, sure: bool):
    """The value is 1.5; an interval without an upper end reaches over every limit."""
    verdict = Objective.parse(f"latency_s.p50 {limit}").judge(
        {"latency_s": {"p50": 1.5}}, {"latency_s.p50": Interval(*interval)}
    )
    assert (verdict.met, verdict.sure) == (met, sure)


def test_the_interval_of_replications_is_that_of_the_pooled_number():
    """A pooled summary brings its own, which wins over that of one run."""
    cell = CellRuns.of("base", {}, {k: mm1(400, seed=k) for k in range(3)})
    verdict = Objective.parse("latency_s.p50 < 9").judge(cell.pooled, {"latency_s.p50": Interval(0.0, 0.1)})
    assert verdict.interval == tuple(cell.pooled["ci95"]["latency_s.p50"])
    assert verdict.plain()["ci95"] == cell.pooled["ci95"]["latency_s.p50"]
