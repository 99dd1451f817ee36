"""A scenario changed from Python: values by dotted key, when it is loaded and afterwards."""

# A case of a table is a line, however long.
# ruff: noqa: E501

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from orchestrator.scenario.schema import Scenario, ScenarioError, require_one_run
from tests.scenario.writing import BASE, load, write

pytestmark = pytest.mark.usefixtures("here")


def changed(overrides: dict[Any, Any]) -> Scenario:
    return Scenario.load(write(), overrides)


def complaints(overrides: dict[Any, Any]) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load().with_(overrides)
    return [str(problem) for problem in caught.value.problems]


SAME: dict[str, tuple[dict[Any, Any], list[str]]] = {
    "number": ({"seed": 7}, ["seed=7"]),
    "below": ({"cluster.workers": 8, "seed": 7}, ["cluster.workers=8", "seed=7"]),
    "null": ({"policies.execution_timeout_s": None}, ["policies.execution_timeout_s=null"]),
    "text": ({"name": "1e3"}, ["name='1e3'"]),
    "mapping": ({"workload.service": {"kind": "exponential", "mean_s": 2}}, ["workload.service={kind: exponential, mean_s: 2}"]),
    "list": ({"faults": []}, ["faults=[]"]),
    "item": ({"faults.0.at_s": 2}, ["faults.0.at_s=2"]),
    "sweep": ({"sweep.cluster.workers": [4, 8]}, ["cluster.workers=4,8"]),
    "whole sweep": ({"sweep": {"seed": range(3)}}, ["sweep={seed: [0, 1, 2]}"]),
    "swept no longer": ({"policies.detection.timeout_s": 3}, ["policies.detection.timeout_s=3"]),
    "of numpy": ({"policies.detection.timeout_s": np.float64(3), "sweep.seed": np.arange(2)}, ["policies.detection.timeout_s=3", "seed=0,1"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_a_value_does_what_its_text_does(case: str):
    """A mapping of Python values gives the scenario that `key=value` gives, loaded or changed later."""
    values, texts = SAME[case]
    expected = load(BASE, *texts)
    assert changed(values) == load().with_(values) == expected
    assert changed(values).dump() == expected.dump()


def test_a_changed_scenario_is_another_one():
    """`with_` leaves its scenario as it is, and a model's own values may be given to another."""
    one = load()
    other = one.with_({"policies": one.policies, "faults": (), "seed": 3})
    assert (one.seed, len(one.faults), other.seed, other.faults) == (1, 2, 3, [])
    assert other.policies == one.policies


REFUSED: dict[str, tuple[dict[Any, Any], str]] = {
    "unknown key": ({"cluster.worker": 8}, "override of cluster.worker: cluster.worker: unknown key, did you mean workers?"),
    "wrong value": ({"seed": "x"}, 'override of seed: seed: is "x", expected a whole number'),
    "list": ({"seed": [1, 2]}, "override of seed: seed: is a list, expected a whole number (to sweep it, give the list to sweep.seed)"),
    "another key": ({"warmup_s": 99}, "override of warmup_s: warmup_s: is 99, expected less than duration_s (10)"),
    "inside": ({"cluster": {"workers": 0}}, "override of cluster: cluster.workers: is 0, expected at least 1"),
    "swept": ({"sweep.seed": [1, "x"]}, 'override of sweep.seed: sweep.seed[1]: is "x", expected a whole number'),
    "infinite": ({"duration_s": float("inf")}, "override of duration_s: duration_s: is inf, expected a finite number"),
    "no value": ({"seed": {1}}, "override of seed: seed: is {1}, expected numbers, text, null, lists, and mappings"),
    "no key": ({3: 4}, "override of 3: 3: is no key, expected text with dots"),
    "dots": ({"a..b": 4}, "override of a..b: a..b: not a key, expected names with dots"),
    "model": ({"model": "m.yaml"}, "scenario:1:1: model: fills in what a scenario does not say"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_told_by_its_key(case: str):
    """One sentence: which override, which key, what it is and what was expected."""
    overrides, told = REFUSED[case]
    [line] = complaints(overrides)
    assert line.startswith(told)


def test_every_override_that_does_not_fit_is_told():
    """Two mistakes, two sentences."""
    assert len(complaints({"seed": {1}, "a..b": 4})) == 2


def test_a_trace_that_decides_the_duration_decides_it_anew(here):
    """A trace at twice the speed is over in half the time."""
    (here / "a.csv").write_text("arrival_s\n1\n8\n")
    arrivals = {"kind": "trace", "file": "a.csv", "until": "trace"}
    one = changed({"workload.arrivals": arrivals, "duration_s": "trace", "faults": [], "sweep": {}})
    assert (one.duration_s, one.with_({"workload.arrivals.speedup": 2}).duration_s) == (8, 4)


def test_a_scenario_says_what_it_is_in_a_line():
    """Name, workers, duration, and how many cells it has; as text too."""
    assert repr(load()) == str(load()) == "<Scenario base: 2 workers, 10 s, 2 cells>"
    assert repr(load().with_({"sweep": {}, "cluster.workers": 1, "faults": []})) == "<Scenario base: 1 worker, 10 s>"


def test_a_scenario_for_one_run_is_told_from_a_sweep():
    """Nothing is swept, or ValueError says what is, and what runs it."""
    require_one_run(load().with_({"sweep": {}}), 0, "sim.sweep")
    with pytest.raises(
        ValueError, match=r"^base sweeps policies\.detection\.timeout_s, .*: sim\.sweep runs all of its 2"
    ):
        require_one_run(load(), 0, "sim.sweep")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (5, 'overrides is 5, expected values by dotted key, as {"seed": 7}, or texts, as ["seed=7"]'),
        (None, "overrides is nothing (null), expected values by dotted key"),
        ([5], "override 1 is 5, expected values by dotted key"),
    ],
)
def test_what_is_no_override_is_refused_in_a_sentence(overrides: Any, told: str):
    """Loaded or changed later."""
    with pytest.raises(TypeError, match=f"^{re.escape(told)}"):
        load().with_(overrides)
    with pytest.raises(TypeError, match=f"^{re.escape(told)}"):
        Scenario.load(write(), overrides)
