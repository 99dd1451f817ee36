"""Scenarios, traces and points to judge failure detectors by."""

from __future__ import annotations

from typing import Any

import numpy as np

from orchestrator.analysis.detectors import (
    Candidate,
    Point,
    judge,
)
from orchestrator.analysis.traces import Trace
from orchestrator.policies.detection import Detection, TimeoutConfig
from orchestrator.results.tables import Event
from orchestrator.scenario.schema import Scenario

DAY_S = 86400.0


def scenario(**changes: Any) -> Scenario:
    tree: dict[str, Any] = {
        "name": "beating",
        "seed": 3,
        "duration_s": 600,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": 2},
            "service": {"kind": "exponential", "mean_s": 0.5},
        },
        "cluster": {"workers": 8},
        "policies": {"detection": {"kind": "timeout", "heartbeat_s": 2, "timeout_s": 6.5}},
    }
    return Scenario.model_validate(tree | changes)


def trace(
    beats: dict[str, Any],
    until_s: float,
    *events: tuple[float, str, str | None, str | None],
    sent: dict[str, Any] | None = None,
) -> Trace:
    """Workers that were registered at 0 and heard at these times."""
    ups = [Event(0.0, "up", worker, "registered") for worker in beats]
    return Trace.of("sim", 2.0, [*ups, *map(Event._make, events)], beats, until_s, sent=sent)


def judged(traces: list[Trace], *configs: Detection, **changes: Any) -> list[Point]:
    tried = [Candidate("tried", "", None, config, False) for config in configs]
    return list(judge(scenario(**changes), traces, tried=tried).points)


def point(p99_s: float, mistakes: int, days: float = 1.0, value: float = 0.0) -> Point:
    """A setting that finds every crash within `p99_s`, with mistakes of one second in so many worker-days."""
    candidate = Candidate("timeout", "timeout_s", value, TimeoutConfig(), False)
    return Point(candidate, days * DAY_S, np.ones(mistakes), np.full(100, p99_s), np.empty(0), 0)
