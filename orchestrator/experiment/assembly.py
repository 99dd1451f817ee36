"""A coordinator as a scenario describes it, for either world."""

from __future__ import annotations

import math
import random
from typing import Protocol, TypeVar

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import Effects
from orchestrator.experiment.scenario import Scenario
from orchestrator.experiment.streams import python_random

Policy = TypeVar("Policy", covariant=True)


class Config(Protocol[Policy]):
    def build(self, rng: random.Random) -> Policy: ...


def build_coordinator(
    scenario: Scenario, effects: Effects, replication: int = 0, keep_settled: int = 100_000
) -> Coordinator:
    """The scenario's policies around a fresh core; each policy and each periodic check draws from its own stream."""
    policies = scenario.policies
    detection = policies.detection

    def ticks(name: str, every_s: float | None) -> Ticks | None:
        if every_s is None:
            return None
        return Ticks(every_s, every_s * python_random(scenario.seed, replication, "phase", name).random())

    def chosen(name: str, config: Config[Policy] | None) -> Policy | None:
        return None if config is None else config.build(python_random(scenario.seed, replication, name))

    return Coordinator(
        effects,
        routing=policies.routing.build(python_random(scenario.seed, replication, "routing")),
        queue=policies.queue.build(),
        detector=detection.build(),
        retry=policies.retry.build(python_random(scenario.seed, replication, "retry")),
        execution_timeout_s=policies.attempt_timeout_s,
        execution_check=ticks("execution", policies.execution_check_every_s),
        detection_check=ticks("detection", detection.check_every_s),
        on_failed_call=detection.on_failed_call,
        heartbeat_s=detection.heartbeat_s,
        own_pause_s=math.inf if detection.own_pause_s is None else detection.own_pause_s,
        on_suspect=detection.on_suspect,
        max_ejected=detection.max_ejected,
        on_return=policies.on_return,
        poison_after=policies.retry.poison_after,
        hedging=chosen("hedging", policies.hedging),
        ejection=chosen("ejection", policies.ejection),
        keep_settled=keep_settled,
    )
