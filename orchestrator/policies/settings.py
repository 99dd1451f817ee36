"""All that a coordinator decides by, and the one place that builds a core from it, for either world."""

from __future__ import annotations

import math
import random
from typing import Literal, Protocol, TypeVar

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import Effects
from orchestrator.policies import (
    DetectionConfig,
    EjectionConfig,
    HedgingConfig,
    QueueConfig,
    RetryConfig,
    RoutingConfig,
)
from orchestrator.policies.config import Positive, Strict
from orchestrator.policies.detection import TimeoutConfig, TwoLevelConfig
from orchestrator.policies.queueing import PriorityConfig
from orchestrator.policies.routing import LeastLoadedConfig
from orchestrator.policies.streams import python_random

Policy = TypeVar("Policy", covariant=True)

KEEP_SETTLED = 100_000
"""How many settled tasks a coordinator remembers, if it is not told otherwise."""
KEEP_SETTLED_BYTES = 512 << 20
"""A live coordinator remembers them as long as they take no more than that."""


class Policies(Strict):
    """The coordinator's decisions."""

    routing: RoutingConfig = LeastLoadedConfig()
    """Which worker gets the next task."""
    queue: QueueConfig = PriorityConfig()
    """Which task is next."""
    detection: DetectionConfig = TimeoutConfig()
    """When a silent worker is dead."""
    execution_timeout_s: Positive | None = None
    """Seconds of execution after which an attempt is given up; null: never."""
    execution_check_every_s: Positive | None = None
    """Look for such attempts only every so many seconds; null: at the exact moment."""
    retry: RetryConfig = RetryConfig()
    """What follows a lost attempt."""
    on_return: Literal["first_result", "keep_original", "keep_replacement"] = "first_result"
    """Which attempt goes on when a worker that was given up returns with its attempt: both, and the first result counts
    (first_result); the returned one (keep_original); or its replacement, if that runs by then (keep_replacement)."""
    hedging: HedgingConfig | None = None
    """When a slow attempt gets a hedge on another worker; null: never."""
    ejection: EjectionConfig | None = None
    """When a worker that beats gets no new tasks for a while; null: never."""

    @property
    def attempt_timeout_s(self) -> float | None:
        """Seconds of execution after which an attempt is given up: the smaller of the policies' limits, if any."""
        limits = [self.execution_timeout_s]
        if isinstance(self.detection, TwoLevelConfig):
            limits.append(self.detection.start_to_close_s)
        return min((limit for limit in limits if limit is not None), default=None)


class _Config(Protocol[Policy]):
    def build(self, rng: random.Random) -> Policy: ...


def build_coordinator(
    policies: Policies,
    effects: Effects,
    seed: int = 0,
    replication: int = 0,
    *,
    keep_settled: float = KEEP_SETTLED,
    keep_settled_s: float = math.inf,
    keep_settled_bytes: float = math.inf,
    keep_keyed_s: float = math.inf,
    term: int = 1,
    call_timeout_s: float = 2.0,
    max_waiting: int | None = None,
) -> Coordinator:
    """The policies around a fresh core; each policy and each periodic check draws from a stream of its own.

    `term`: of the coordinator's process, higher than that of the one before it. `call_timeout_s`: the driver's.
    `max_waiting`: when so many tasks wait, submissions are refused, of lower priorities sooner.
    """
    detection = policies.detection

    def ticks(name: str, every_s: float | None) -> Ticks | None:
        if every_s is None:
            return None
        return Ticks(every_s, every_s * python_random(seed, replication, "phase", name).random())

    def chosen(name: str, config: _Config[Policy] | None) -> Policy | None:
        return None if config is None else config.build(python_random(seed, replication, name))

    return Coordinator(
        effects,
        routing=policies.routing.build(python_random(seed, replication, "routing")),
        queue=policies.queue.build,
        detector=detection.build(),
        retry=policies.retry.build(python_random(seed, replication, "retry")),
        execution_timeout_s=policies.attempt_timeout_s,
        execution_check=ticks("execution", policies.execution_check_every_s),
        detection_check=ticks("detection", detection.check_every_s),
        on_failed_call=detection.on_failed_call,
        heartbeat_s=detection.heartbeat_s,
        own_pause_s=math.inf if detection.own_pause_s is None else detection.own_pause_s,
        on_suspect=detection.on_suspect,
        max_dead_share=detection.max_dead_share,
        on_return=policies.on_return,
        max_worker_kills=policies.retry.max_worker_kills,
        max_copies=policies.retry.max_copies,
        hedging=chosen("hedging", policies.hedging),
        ejection=chosen("ejection", policies.ejection),
        call_timeout_s=call_timeout_s,
        max_waiting=max_waiting,
        keep_settled=keep_settled,
        keep_settled_s=keep_settled_s,
        keep_settled_bytes=keep_settled_bytes,
        keep_keyed_s=keep_keyed_s,
        term=term,
    )
