"""Coordinators and workers with the policies of a test, and sound defaults for the rest."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import DetectorFactory, Effects, QueueDiscipline, RetryPolicy, RoutingPolicy
from orchestrator.core.worker import WorkerAgent
from orchestrator.policies.detection import SLACK_S, TimeoutConfig
from orchestrator.policies.queueing import StrictPriority
from orchestrator.policies.retry import Constant, Retry
from orchestrator.policies.routing import RoundRobin

TIMEOUT_S = 6.0
DEAD_AFTER_S = TIMEOUT_S + SLACK_S
"""The silence after which a worker is declared dead, of `coordinator()`."""


def coordinator(
    effects: Effects,
    *,
    routing: RoutingPolicy | None = None,
    queue: Callable[[], QueueDiscipline] = StrictPriority,
    detector: DetectorFactory | None = None,
    retry: RetryPolicy | None = None,
    max_attempts: int | None = None,
    delay_s: float = 0.0,
    execution_timeout_s: float | None = None,
    execution_check: Ticks | None = None,
    detection_check: Ticks | None = None,
    on_failed_call: Literal["hold", "dead"] = "hold",
    keep_settled: float = 100_000,
    **further: Any,
) -> Coordinator:
    """Round robin, strict priority, a detector of 6 s and unlimited attempts at once, unless told otherwise."""
    return Coordinator(
        effects,
        routing=RoundRobin() if routing is None else routing,
        queue=queue,
        detector=detector or TimeoutConfig(timeout_s=TIMEOUT_S).build(),
        retry=retry or Retry(max_attempts, Constant(delay_s)),
        execution_timeout_s=execution_timeout_s,
        execution_check=execution_check,
        detection_check=detection_check,
        on_failed_call=on_failed_call,
        keep_settled=keep_settled,
        **further,
    )


def agent(effects: Any, *, capacity: int = 1, prefetch: float = 0, **settings: Any) -> WorkerAgent:
    """A worker that beats every 2 s, first at 2 s."""
    return WorkerAgent(
        effects, capacity=capacity, prefetch=prefetch, **({"heartbeat_s": 2.0, "first_beat_at": 2.0} | settings)
    )


def rng(name: str = "") -> random.Random:
    return random.Random(f"tests{name}")
