"""Configurations of a coordinator, drawn by hypothesis, and how much of it is tried."""

from __future__ import annotations

import math
import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import Verdict
from orchestrator.policies.detection import SLACK_S, PhiAccrualConfig, TimeoutConfig
from orchestrator.policies.ejection import Outlier
from orchestrator.policies.hedging import Quantile
from orchestrator.policies.queueing import Fifo, StrictPriority
from orchestrator.policies.retry import Constant, Retry
from orchestrator.policies.routing import LeastLoaded, PowerOfD, Random, RoundRobin
from tests.core import making
from tests.core.reference_records import Rules

USUAL = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
"""The same runs of a state machine every time, by the same modules: Hypothesis also draws constants from what is
imported, so that the whole suite has other runs than this file alone."""
QUICK = settings(USUAL, max_examples=60, phases=[Phase.generate], report_multiple_bugs=False)
"""Enough to see a gross bug, without the search for its shortest story."""
LONG = settings(USUAL, max_examples=5000, derandomize=False)
SETTINGS = {"usual": USUAL, "quick": QUICK, "long": LONG}[os.environ.get("CORE_EXAMPLES", "usual")]

DEAD_S, SUSPECT_S = 4.0, 2.5
HEARTBEAT_S = 1.0
WORKERS = ["w1", "w2", "w3"]


class TwoStage:
    """Suspects after one silence, and declares dead after a longer one."""

    def __init__(self, now: float) -> None:
        self._heard_at, self._suspected = now, False

    def heard(self, now: float) -> None:
        self._heard_at, self._suspected = now, False

    def verdict(self, now: float) -> Verdict:
        if now >= self._heard_at + DEAD_S:
            return Verdict.DEAD
        self._suspected = now >= self._heard_at + SUSPECT_S
        return Verdict.SUSPECT if self._suspected else Verdict.ALIVE

    def review_at(self) -> float:
        return self._heard_at + (DEAD_S if self._suspected else SUSPECT_S)


def growing(tries: int) -> float:
    return 0.75 * tries


ROUTINGS = {
    "least_loaded": lambda: LeastLoaded(making.rng()),
    "random": lambda: Random(making.rng()),
    "round_robin": RoundRobin,
    "power_of_2": lambda: PowerOfD(making.rng(), 2),
    "power_of_3": lambda: PowerOfD(making.rng(), 3),
}
DETECTORS: dict[str, Any] = {
    "timeout": TimeoutConfig(timeout_s=DEAD_S).build(),
    "phi": PhiAccrualConfig(kind="phi_accrual", heartbeat_s=1.0).build(),
    "two_stage": TwoStage,
    "half": TimeoutConfig(timeout_s=DEAD_S, suspect_after=0.5).build(),
}
SILENCE: dict[str, Any] = {
    "timeout": {"dead_s": (DEAD_S + SLACK_S,) * 2},
    "phi": {"dead_s": (SLACK_S, math.inf)},
    "half": {"dead_s": (DEAD_S + SLACK_S,) * 2, "suspect_s": ((DEAD_S + SLACK_S) / 2,) * 2},
    "two_stage": {"dead_s": (DEAD_S,) * 2, "suspect_s": (SUSPECT_S,) * 2},
}
HEDGING: dict[str, Any] = {
    "none": lambda: None,
    "eager": lambda: Quantile(quantile=0.5, budget=1.0, window=5, min_samples=1),
    "thrifty": lambda: Quantile(quantile=0.9, budget=0.3, window=20, min_samples=2),
}
EJECTION: dict[str, Any] = {
    "none": lambda: None,
    "outlier": lambda: Outlier(interval_s=2.0, min_samples=1, factor=1.5, errors=2, base_s=3.0, max_share=0.4),
}
BACKOFFS: list[Any] = [Constant(0.0), Constant(1.5), growing]
CHECKS = st.sampled_from([None, Ticks(2.0, 0.7)])
RESULTS = {"completed": (True, False), "failed": (False, False), "retryable": (False, True)}
"""How a result is reported: (succeeded, retryable)."""

configurations = st.fixed_dictionaries(
    {
        "routing": st.sampled_from(sorted(ROUTINGS)),
        "by_priority": st.booleans(),
        "detector": st.sampled_from(sorted(SILENCE)),
        "detection_check": CHECKS,
        "execution_timeout_s": st.sampled_from([None, 3.0]),
        "execution_check": CHECKS,
        "max_attempts": st.sampled_from([None, 1, 2, 3]),
        "backoff": st.sampled_from(BACKOFFS),
        "on_failed_call": st.sampled_from(["hold", "dead"]),
        "keep_settled": st.sampled_from([0, 2, 100_000]),
        "own_pause_s": st.sampled_from([math.inf, 0.5]),
        "on_suspect": st.sampled_from(["hold", "hedge"]),
        "max_dead_share": st.sampled_from([None, 0.5, 0.7]),
        "on_return": st.sampled_from(["first_result", "keep_original", "keep_replacement"]),
        "max_worker_kills": st.sampled_from([None, 2, 3]),
        "max_copies": st.sampled_from([1, 2, 2, 3]),
        "hedging": st.sampled_from(sorted(HEDGING)),
        "ejection": st.sampled_from(sorted(EJECTION)),
    }
)


def same_settings(chosen: dict[str, Any]) -> tuple[dict[str, Any], Rules]:
    """A configuration as the coordinator's and as the model's."""
    common = {
        name: chosen[name]
        for name in (
            *("detection_check", "execution_timeout_s", "execution_check", "on_failed_call", "keep_settled"),
            *("own_pause_s", "on_suspect", "max_dead_share", "on_return", "max_worker_kills", "max_copies"),
        )
    }
    policies = {
        "routing": ROUTINGS[chosen["routing"]](),
        "queue": StrictPriority if chosen["by_priority"] else Fifo,
        "detector": DETECTORS[chosen["detector"]],
        "retry": Retry(chosen["max_attempts"], chosen["backoff"]),
        "hedging": HEDGING[chosen["hedging"]](),
        "ejection": EJECTION[chosen["ejection"]](),
        "heartbeat_s": HEARTBEAT_S,
        "remember_workers_s": math.inf,  # the model forgets nobody: tests/core/test_tasks.py is about that
    }
    rules = Rules(
        by_priority=chosen["by_priority"],
        least_loaded=chosen["routing"] == "least_loaded",
        max_attempts=chosen["max_attempts"],
        delay_s=chosen["backoff"],
        hedges=chosen["hedging"] != "none",
        ejects=chosen["ejection"] != "none",
        heartbeat_s=HEARTBEAT_S,
        **SILENCE[chosen["detector"]],
        **common,
    )
    return {**policies, **common}, rules
