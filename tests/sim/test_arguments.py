"""Wrong arguments from Python: one sentence names the argument, what it is and what was expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator import Scenario, compare, load
from orchestrator.analysis.answers import answer
from orchestrator.analysis.fidelity import fidelity
from orchestrator.analysis.sizing import Sizing
from orchestrator.pictures import draw
from orchestrator.rehearsal import runs as live
from orchestrator.results.objectives import Objective
from orchestrator.scenario.schema import ScenarioError
from tests.results.synthetic import mm1

TREE: dict[str, Any] = {
    "name": "small",
    "duration_s": 4,
    "workload": {"arrivals": {"kind": "constant", "rate_per_s": 1}, "service": {"kind": "constant", "value_s": 0.5}},
    "cluster": {"workers": 2},
}
SMALL = Scenario.model_validate(TREE)
SWEPT = Scenario.model_validate({**TREE, "sweep": {"seed": [1, 2]}})
GROUPS = Scenario.model_validate({**TREE, "cluster": {"groups": [{"name": "a", "workers": 2}]}})
RUN: Any = mm1(50)
FILE: Any = "x.yaml"
FIVE: Any = 5
NOTHING: Any = None
MAPPING: Any = {"duration_s": 4}
TWO: Any = "two"
LABELS: dict[str, Any] = {"one": ("a",), "other kind": ("a", 1)}
A_SCENARIO = 'expected a Scenario, as Scenario.load("x.yaml") gives one'
P95 = "latency_s.p95 < 5"


def size(scenario: Any = SMALL, key: Any = "cluster.workers", values: Any = (1, 2), objectives: Any = P95) -> Sizing:
    return sim.size(scenario, key, values, objectives)


WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "run of a file": (lambda: sim.run(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "sweep of a file": (lambda: sim.sweep(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "size of a file": (lambda: size(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "heartbeats of a file": (lambda: sim.heartbeats(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "live run of a file": (lambda: live.run(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "live sweep of a file": (lambda: live.sweep(FILE), TypeError, f'scenario is "x.yaml", {A_SCENARIO}'),
    "scenario of a mapping": (
        lambda: Scenario.load(MAPPING),
        TypeError,
        "path is a mapping, expected the name of a YAML file",
    ),
    "result of nothing": (lambda: load(NOTHING), TypeError, "folder is nothing (null), expected the name of a folder"),
    "replication": (lambda: sim.run(SMALL, -1), ValueError, "replication is -1, expected a whole number, 0 or more"),
    "jobs in words": (
        lambda: sim.sweep(SWEPT, jobs=TWO),
        TypeError,
        'jobs is "two", expected a whole number, 1 or more',
    ),
    "no jobs": (lambda: sim.sweep(SWEPT, jobs=0), ValueError, "jobs is 0, expected a whole number, 1 or more"),
    "no replications": (
        lambda: sim.sweep(SWEPT, replications=0),
        ValueError,
        "replications is 0, expected a whole number, 1 or more",
    ),
    "one label": (
        lambda: compare(RUN, RUN, LABELS["one"]),
        ValueError,
        'labels has 1 text, expected two texts, as ("before", "after")',
    ),
    "three results": (
        lambda: compare(RUN, RUN, RUN),
        TypeError,
        'labels is <Run synthetic (sim): 50 of 50 tasks completed>, expected two texts, as ("before", "after")',
    ),
    "label": (lambda: compare(RUN, RUN, LABELS["other kind"]), TypeError, "labels[1] is 1, expected two texts"),
    "labels alike": (lambda: compare(RUN, RUN, ("a", "a")), ValueError, "labels are both 'a', expected two texts"),
    "no result": (lambda: compare(RUN, FIVE), TypeError, "other is 5, expected a Run, a Sweep, or the folder of one"),
    "answer of a run": (lambda: answer(RUN), TypeError, "sweep is <Run synthetic (sim): 50 of 50 tasks completed>, "),
    "fidelity of a run": (lambda: fidelity(RUN), TypeError, "results is <Run synthetic (sim): 50 of 50 tasks comp"),
    "fidelity of a number": (lambda: fidelity([RUN, FIVE]), TypeError, "results[1] is 5, expected a Run, a Sweep, or"),
    "picture of a number": (lambda: draw(FIVE), TypeError, "result is 5, expected a Run, a Sweep, what analysis makes"),
    "unknown number": (
        lambda: size(objectives=[Objective.parse("latenc.p95 < 5")]),
        ValueError,
        'there is no number "latenc.p95" in a summary: ',
    ),
    "no objective": (lambda: size(objectives=[]), ValueError, "objectives is empty, expected one or more, as "),
    "objective": (lambda: size(objectives=5), TypeError, 'objectives is 5, expected a list of texts, as ["latency_s.p'),
    "objectives": (lambda: size(objectives=[5]), TypeError, 'objective is 5, expected a text, as "latency_s.p99 < 2"'),
    "empty range": (
        lambda: size(values=range(3, 3)),
        ValueError,
        "values is empty (range(3, 3)), expected a range or a list, the smallest first, as range(2, 65)",
    ),
    "no values": (lambda: size(values=3), TypeError, "values is 3, expected a range or a list, the smallest first"),
    "values as text": (lambda: size(values="2..5"), TypeError, 'values is "2..5", expected a range or a list'),
    "no key": (lambda: size(key=3), TypeError, 'key is 3, expected a dotted key, as "cluster.workers"'),
    "unknown key": (lambda: size(key="cluster.wrkrs"), ScenarioError, "override of sweep.cluster.wrkrs: "),
    "key beside groups": (lambda: size(GROUPS), ScenarioError, "override of sweep.cluster.workers: "),
    "value out of range": (lambda: size(values=range(3)), ScenarioError, "override of sweep.cluster.workers: "),
    "another sweep": (
        lambda: size(SWEPT),
        ValueError,
        "small sweeps seed, expected a scenario that sweeps nothing else than cluster.workers",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_named_in_one_sentence(case: str):
    """No text of a library, no traceback's last line: what it is, and what was expected."""
    call, kind, told = WRONG[case]
    with pytest.raises(kind, match=f"^{re.escape(told)}") as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)
    assert "sweep.sweep" not in str(caught.value), "its list is given to the sweep already"


@pytest.mark.parametrize(
    ("values", "objectives"),
    [
        (range(1, 4), [Objective.parse(P95)]),
        ([1, 2, 3], [P95]),
        (np.arange(1, 4), P95),
    ],
    ids=["range", "list", "of numpy"],
)
def test_sizing_takes_values_and_objectives_in_every_shape(values: Any, objectives: Any):
    """One worker is enough for a task of half a second every second."""
    found = size(values=values, objectives=objectives)
    assert found.answer is not None
    assert type(found.answer.value) is int
    assert found.sentences()[0].startswith("cluster.workers = 1, the smallest of the range, meets latency_s.p95 < 5")


def test_a_run_is_one_replication():
    """The first, unless another one is asked for; what the scenario says of their number changes nothing."""
    poisson = SMALL.with_({"workload.arrivals.kind": "poisson", "replications": 3})
    first = sim.run(poisson)
    assert first.tables.tasks.equals(sim.run(poisson.with_({"replications": 1})).tables.tasks)
    swept = sim.sweep(poisson)["base"]
    assert [len(one.tasks) for one in swept.runs] == [len(sim.run(poisson, number).tasks) for number in range(3)]
    assert first.tables.tasks.equals(swept.runs[0].tables.tasks)
