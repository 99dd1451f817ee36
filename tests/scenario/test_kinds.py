"""Kinds of tasks: drawn from a stream of their own, or read from a trace; each has its demand and its priority."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.scenario.plan import ClosedArrivals, Demand, OpenArrivals, draw_plan
from orchestrator.scenario.schema import Scenario
from tests.scenario.test_traces import tree_of, written
from tests.scenario.writing import BASE, problems, swap

SHORT = {"kind": "exponential", "mean_s": 0.01}
LONG = {"kind": "uniform", "low_s": 1, "high_s": 3}
KINDS: dict[str, Any] = {
    "lookup": {"share": 0.9},
    "report": {"share": 0.1, "service": LONG, "priority": "low"},
}
POISSON = {"kind": "poisson", "rate_per_s": 100}


def scenario(kinds: Mapping[str, Any], arrivals: Mapping[str, Any] = POISSON, **workload: Any) -> Scenario:
    tree = {"arrivals": arrivals, "service": SHORT, "kinds": kinds} | workload
    return Scenario.model_validate(
        {"name": "t", "seed": 3, "duration_s": 100, "workload": tree, "cluster": {"workers": 40}}
    )


def tasks_of(given: Scenario) -> OpenArrivals:
    arrivals = draw_plan(given).arrivals
    assert isinstance(arrivals, OpenArrivals)
    return arrivals


def traced(folder: Path, text: str, **workload: Any) -> Scenario:
    tree = tree_of({"file": written(folder, text), "columns": {"kind": "Model"}})
    return Scenario.model_validate(tree | {"workload": tree["workload"] | workload})


def test_each_kind_has_its_share_its_demands_and_its_priority():
    """What it does not say is as the workload has it."""
    tasks = tasks_of(scenario(KINDS))
    assert tasks.kinds == ("lookup", "report")
    report = np.array(tasks.kind) == 1
    assert report.mean() == pytest.approx(0.1, abs=0.01)
    assert (tasks.service_s[report] >= 1).all()
    assert tasks.service_s[~report].mean() == pytest.approx(0.01, rel=0.05)
    assert set(tasks.priority[report]) == {0}
    assert set(tasks.priority[~report]) == {1}


def test_kinds_change_nothing_that_they_do_not_say():
    """Arrivals, and demands and priorities of the kind without settings of its own, are those of no kinds at all."""
    with_kinds, without = tasks_of(scenario(KINDS)), tasks_of(scenario({}))
    lookup = np.array(with_kinds.kind) == 0
    assert np.array_equal(with_kinds.arrival_s, without.arrival_s)
    assert np.array_equal(with_kinds.service_s[lookup], without.service_s[lookup])
    assert np.array_equal(with_kinds.priority[lookup], without.priority[lookup])
    assert (without.kind, without.kinds, type(without.demands(slice(1))[0])) == (None, (), float)


def test_a_demand_tells_its_kind():
    """It is the number that it was."""
    tasks = tasks_of(scenario(KINDS))
    demands = tasks.demands(np.arange(50))
    assert demands == tasks.service_s[:50].tolist()
    assert all(isinstance(demand, Demand) for demand in demands)
    assert [demand.kind for demand in demands if isinstance(demand, Demand)] == tasks.kinds_of(slice(50))


def test_closed_clients_draw_kinds_too():
    """Each task of a client tells its kind by its demand."""
    think = {"kind": "constant", "value_s": 1}
    arrivals = draw_plan(scenario(KINDS, {"kind": "closed", "clients": 2, "think": think})).arrivals
    assert isinstance(arrivals, ClosedArrivals)
    rows = list(islice(arrivals.client(1), 500))
    reports = [row for row in rows if isinstance(row[1], Demand) and row[1].kind == "report"]
    assert 25 < len(reports) < 85
    assert {priority for _, _, priority in reports} == {0}
    assert all(service_s >= 1 for _, service_s, _ in reports)


def test_the_offered_load_is_that_of_the_mix():
    """0.9 x 0.01 s and 0.1 x 2 s, a hundred times a second, on 80 slots."""
    assert scenario(KINDS).offered_load() == pytest.approx(100 * (0.9 * 0.01 + 0.1 * 2) / 80)
    closed = {"kind": "closed", "clients": 10, "think": {"kind": "constant", "value_s": 1}}
    assert scenario(KINDS, closed).offered_load() == pytest.approx(10 * 0.209 / 1.209 / 80)


def test_a_trace_tells_the_kind_of_each_task(tmp_path: Path):
    """Its names need no settings, and may have some."""
    given = traced(
        tmp_path,
        "arrival_s,Model\n0,b\n1,a\n2,b\n4,a\n",
        kinds={"b": {"service": {"kind": "constant", "value_s": 2}, "priority": "urgent"}},
    )
    tasks = tasks_of(given)
    assert tasks.kinds_of(slice(None)) == ["b", "a", "b", "a"]
    assert tasks.service_s.tolist() == [2, 0.1, 2, 0.1]
    assert tasks.priority.tolist() == [3, 1, 3, 1]
    assert given.offered_load() == pytest.approx((2 * 2 + 2 * 0.1) / 4 / 8)


def test_what_a_trace_knows_itself_has_precedence_and_is_said(tmp_path: Path):
    """Service and priority of the kind are then not used."""
    given = traced(
        tmp_path,
        "arrival_s,Model,service_s,priority\n0,b,1,low\n1,a,2,high\n",
        service=None,
        kinds={"b": {"service": LONG, "priority": "urgent"}},
    )
    assert (tasks_of(given).service_s.tolist(), tasks_of(given).priority.tolist()) == ([1, 2], [0, 2])
    assert [
        f"workload.kinds.b.{what} is not used" in " ".join(given.warnings()) for what in ("service", "priority")
    ] == [
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("kinds", "place", "words"),
    [
        ("{a: {share: 0.5}, b: {share: 0.4}}", "7:10: workload.kinds", "the shares sum to 0.9, expected a sum of 1"),
        ("{a: {}}", "7:11: workload.kinds.a.share", "is missing, expected the share of these tasks"),
        ("{a: {share: 1, servce: 1}}", "7:25: workload.kinds.a.servce", "did you mean service?"),
        ("{a: {share: 1, priority: now}}", "7:35: workload.kinds.a.priority", "expected 'low', 'normal', 'high'"),
        ('{"": {share: 1}}', "7:11: workload.kinds.", "is no name of a kind"),
        ('{"a\\nb": {share: 1}}', "7:11: workload.kinds.", "all of them printable"),
    ],
)
def test_kinds_that_make_no_sense_are_told_at_their_place(here, kinds: str, place: str, words: str):
    """With what was expected."""
    [line] = problems(swap("value_s: 0.1}\n", f"value_s: 0.1}}\n  kinds: {kinds}\n", BASE))
    assert line.startswith(f"s.yaml:{place}")
    assert words in line


@pytest.mark.parametrize(
    ("text", "kinds", "words"),
    [
        ("arrival_s,Model\n0,a\n1,b\n", {"c": {}}, "is no kind of the trace, expected one of a, b"),
        ("arrival_s,Model\n0,a\n1,b\n", {"a": {"share": 1.0}}, "the trace tells each task's kind"),
        ("arrival_s,Model\n0,a\n1,\n", {}, "line 3 of t.csv has '' as Model, expected a name of at most 100"),
        ("arrival_s,Model\n" + "".join(f"{i},m{i}\n" for i in range(101)), {}, "has 101 kinds, expected at most 100"),
        ("arrival_s,model\n0,a\n", {}, "no column Model in t.csv"),
    ],
)
def test_kinds_that_do_not_fit_the_trace_are_told(tmp_path: Path, text: str, kinds: dict[str, Any], words: str):
    """Names, shares, and what is no kind."""
    with pytest.raises(ValueError, match="does not fit") as raised:
        traced(tmp_path, text, kinds=kinds)
    assert words in str([error["ctx"] for error in raised.value.errors()])  # type: ignore[attr-defined]


def test_a_kind_without_service_needs_one_of_the_workload():
    """The first that has none is named."""
    with pytest.raises(ValueError, match="does not fit") as raised:
        scenario(KINDS, service=None)
    assert "kind lookup has none of its own" in str([e["ctx"] for e in raised.value.errors()])  # type: ignore[attr-defined]
