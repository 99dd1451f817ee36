"""A small scenario, and how a test changes it and reads what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.scenario.schema import Scenario, ScenarioError

BASE = """\
name: base
seed: 1
duration_s: 10
workload:
  arrivals: {kind: poisson, rate_per_s: 10}
  service: {kind: constant, value_s: 0.1}
cluster: {workers: 2}
policies:
  detection: {kind: timeout, timeout_s: 6.5}
faults:
  - {kind: crash, at_s: 4, workers: [w1]}
  - {kind: pause, at_s: 4, all: true, for_s: 3}
sweep:
  policies.detection.timeout_s: [2.5, 4.5]
"""


def write(text: str = BASE, **replaced: str) -> str:
    Path("s.yaml").write_text(text, encoding="utf-8")
    return "s.yaml"


def swap(old: str, new: str, text: str = BASE) -> str:
    assert old in text
    return text.replace(old, new)


def load(text: str = BASE, *overrides: str) -> Scenario:
    return Scenario.load(write(text), overrides)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        load(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


ARRIVALS = "{kind: poisson, rate_per_s: 10}"
SERVICE = "{kind: constant, value_s: 0.1}"
SWEPT = "policies.detection.timeout_s: [2.5, 4.5]"
