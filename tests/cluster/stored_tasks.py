"""Tasks as a store keeps them, made by name."""

from __future__ import annotations

from typing import Any

from orchestrator.cluster.store import Kept

PLACES: dict[str, int] = {}
"""Of the tasks that a test has named, in that order."""


def task(name: str, **changed: Any) -> Kept:
    place = PLACES.setdefault(name, len(PLACES) + 1)
    return Kept(name, 1, "sleep", "0", "", 0, None, 100.0, held=[], place=place)._replace(**changed)


def settled(name: str, at: float, **changed: Any) -> Kept:
    return task(name, payload="", state=3, worker_id="w1", result="done", settled_at=at, **changed)
