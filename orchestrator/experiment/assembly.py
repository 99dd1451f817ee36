"""A coordinator as a scenario describes it, for either world."""

from __future__ import annotations

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import Effects
from orchestrator.experiment.scenario import Scenario
from orchestrator.experiment.streams import python_random


def build_coordinator(
    scenario: Scenario, effects: Effects, replication: int = 0, keep_settled: int = 100_000
) -> Coordinator:
    """The scenario's policies around a fresh core; each policy and each periodic check draws from its own stream."""
    policies = scenario.policies

    def ticks(name: str, every_s: float | None) -> Ticks | None:
        if every_s is None:
            return None
        return Ticks(every_s, every_s * python_random(scenario.seed, replication, "phase", name).random())

    return Coordinator(
        effects,
        routing=policies.routing.build(python_random(scenario.seed, replication, "routing")),
        queue=policies.queue.build(),
        detector=policies.detection.build(),
        retry=policies.retry.build(python_random(scenario.seed, replication, "retry")),
        execution_timeout_s=policies.attempt_timeout_s,
        execution_check=ticks("execution", policies.execution_check_every_s),
        detection_check=ticks("detection", policies.detection.check_every_s),
        on_failed_call=policies.detection.on_failed_call,
        keep_settled=keep_settled,
    )
