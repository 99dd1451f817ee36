"""Routing: which worker gets the next task. No `choose` scans the workers: each is O(1), or O(log W) of W workers.

The coordinator tells each policy of every change, and each policy keeps its own index of the workers with room. A
policy of your own subclasses `Routing` or implements `core.ports.RoutingPolicy`; `kind: package.module:Class` names it.
"""

from __future__ import annotations

import random
from typing import Annotated

from pydantic import Discriminator, Tag

from orchestrator.core.ports import EndAware, LaneAware, RoutingPolicy
from orchestrator.policies.config import Custom, tag_of
from orchestrator.policies.routing.affinity import (
    ConsistentHash,
    ConsistentHashConfig,
    Rendezvous,
    RendezvousConfig,
)
from orchestrator.policies.routing.index import Routing
from orchestrator.policies.routing.latency import PeakEwma, PeakEwmaConfig, Prequal, PrequalConfig
from orchestrator.policies.routing.load import (
    LeastLoaded,
    LeastLoadedConfig,
    PowerOfD,
    PowerOfDConfig,
    Random,
    RandomConfig,
    RoundRobin,
    RoundRobinConfig,
)
from orchestrator.policies.routing.slots import JoinIdleQueue, JoinIdleQueueConfig, Weighted, WeightedConfig

__all__ = [
    "ConsistentHash",
    "ConsistentHashConfig",
    "CustomRouting",
    "JoinIdleQueue",
    "JoinIdleQueueConfig",
    "LeastLoaded",
    "LeastLoadedConfig",
    "PeakEwma",
    "PeakEwmaConfig",
    "PowerOfD",
    "PowerOfDConfig",
    "Prequal",
    "PrequalConfig",
    "Random",
    "RandomConfig",
    "Rendezvous",
    "RendezvousConfig",
    "RoundRobin",
    "RoundRobinConfig",
    "Routing",
    "RoutingConfig",
    "Weighted",
    "WeightedConfig",
]


class CustomRouting(Custom):
    """Your own `RoutingPolicy`."""

    protocol = RoutingPolicy
    extensions = (LaneAware, EndAware)
    role = "a routing policy"

    def build(self, rng: random.Random) -> RoutingPolicy:
        policy: RoutingPolicy = self.make(rng)
        return policy


RoutingConfig = Annotated[
    Annotated[LeastLoadedConfig, Tag("least_loaded")]
    | Annotated[RandomConfig, Tag("random")]
    | Annotated[RoundRobinConfig, Tag("round_robin")]
    | Annotated[PowerOfDConfig, Tag("power_of_d")]
    | Annotated[WeightedConfig, Tag("weighted")]
    | Annotated[JoinIdleQueueConfig, Tag("join_idle_queue")]
    | Annotated[PeakEwmaConfig, Tag("peak_ewma")]
    | Annotated[PrequalConfig, Tag("prequal")]
    | Annotated[ConsistentHashConfig, Tag("consistent_hash")]
    | Annotated[RendezvousConfig, Tag("rendezvous")]
    | Annotated[CustomRouting, Tag("custom")],
    Discriminator(tag_of),
]
