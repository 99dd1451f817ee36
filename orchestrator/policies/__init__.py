"""Policies: small objects with one formula each, and the configuration that builds them.

They answer the coordinator's questions and never receive the coordinator.
"""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel

from orchestrator.policies.detection import DetectionConfig
from orchestrator.policies.ejection import EjectionConfig
from orchestrator.policies.hedging import HedgingConfig
from orchestrator.policies.queueing import QueueConfig
from orchestrator.policies.retry import BackoffConfig, RetryConfig
from orchestrator.policies.routing import RoutingConfig
from orchestrator.policies.stealing import StealingConfig

__all__ = [
    "BackoffConfig",
    "DetectionConfig",
    "EjectionConfig",
    "HedgingConfig",
    "QueueConfig",
    "RetryConfig",
    "RoutingConfig",
    "StealingConfig",
    "catalogue",
]


def catalogue() -> dict[str, list[type[BaseModel]]]:
    """Every kind of every family: the configuration classes, in the order of the schema, the user's own last.

    `retry` has one form and no kind: its backoff is the family before.
    """
    families = {
        "routing": RoutingConfig,
        "queue": QueueConfig,
        "detection": DetectionConfig,
        "hedging": HedgingConfig,
        "ejection": EjectionConfig,
        "stealing": StealingConfig,
        "backoff": BackoffConfig,
    }
    kinds = {name: [get_args(member)[0] for member in get_args(get_args(union)[0])] for name, union in families.items()}
    return {**kinds, "retry": [RetryConfig]}
