"""What a fault leaves in the events table, in both worlds."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.scenario.plan import FaultAction


class FaultEvent(NamedTuple):
    """The kind of an event, and its detail where it has one."""

    kind: str
    detail: str | None = None


CRASH = FaultEvent("crash")
"""A process was killed; also one that a new process replaces before it has left."""


def event_of(action: FaultAction) -> FaultEvent | None:
    """The event of a fault's action. A drain has none: the coordinator's own events show it."""
    if action.starts:
        return FaultEvent("heal", "restart")
    if action.heals:
        return FaultEvent("heal", "resume" if action.kind == "pause" else action.kind)
    return None if action.kind == "drain" else FaultEvent(action.kind)
