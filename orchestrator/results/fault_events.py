"""What a fault leaves in the events table, in both worlds."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.results.tables import FaultEvent, HealDetail
from orchestrator.scenario.plan import FaultAction


class Entry(NamedTuple):
    """The kind of an event, and its detail if it has one."""

    kind: FaultEvent
    detail: str | None = None


CRASH = Entry(FaultEvent.CRASH)
"""A process was killed; also one that a new process replaces before it has left."""


def entry_of(action: FaultAction) -> Entry | None:
    """The event of a fault's action. A drain has none: the coordinator's own events show it."""
    if action.starts:
        return Entry(FaultEvent.HEAL, HealDetail.RESTART)
    if action.heals:
        return Entry(FaultEvent.HEAL, HealDetail.RESUME if action.kind == "pause" else action.kind)
    return None if action.kind == "drain" else Entry(FaultEvent(action.kind))
