"""Why tasks of a need are with no worker: which workers could take them, and what keeps those from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from orchestrator.cluster.app import DEFAULT
from orchestrator.core.model import Worker, WorkerState
from orchestrator.policies.placement import meets

SLICE = 500


class _Alike:
    """Workers that offer the same. `first`: one of them."""

    __slots__ = ("assignable", "first", "present", "roomy")

    def __init__(self, first: Worker) -> None:
        self.first = first
        self.present = self.assignable = self.roomy = 0


class Placeable:
    """The workers that are here, by what they offer, as they were at a moment."""

    def __init__(self) -> None:
        self._alike: dict[tuple[tuple[str, ...], tuple[str, ...]], _Alike] = {}
        self._obstacles: dict[tuple[str, str, bool], str] = {}

    @classmethod
    async def of(cls, workers: Iterable[Worker]) -> Placeable:
        self = cls()
        for number, worker in enumerate(list(workers), 1):
            if worker.state <= WorkerState.SUSPECT:
                offer = worker.kinds, worker.labels
                alike = self._alike.get(offer) or self._alike.setdefault(offer, _Alike(worker))
                alike.present += 1
                alike.assignable += worker.assignable
                alike.roomy += worker.assignable and worker.load < worker.limit
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return self

    def reason(self, kind: str, requires: str, refused: bool) -> str:
        """Why a task of that kind, which requires such labels, is with no worker. `refused`: by the routing policy."""
        obstacle = self.obstacle(kind, requires, refused)
        if obstacle:
            return obstacle
        present, _, roomy = self._count(kind, requires)
        if roomy:
            return "its turn"
        if present == 1:
            return (
                "the worker that can take it to have room"
                if self._is_choosy(kind, requires)
                else "the worker to have room"
            )
        can_take = "that can take it " if self._is_choosy(kind, requires) else ""
        return f"one of {present:,} workers {can_take}to have room"

    def obstacle(self, kind: str, requires: str, refused: bool) -> str:
        """The same where more than room is missing; empty if it is not."""
        found = self._obstacles.get((kind, requires, refused))
        if found is None:
            found = self._obstacles[kind, requires, refused] = self._obstacle(kind, requires, refused)
        return found

    def _obstacle(self, kind: str, requires: str, refused: bool) -> str:
        if not self._alike:
            return "no worker is here"
        present, assignable, roomy = self._count(kind, requires)
        if not present:
            return self._missing(kind, requires)
        if not assignable:
            who = "the worker that can take it" if present == 1 else f"none of the {present:,} workers that can take it"
            return f"{who} gets {'nothing' if present == 1 else 'anything'} new at present"
        if refused and roomy:
            return "the routing policy finds no worker for it"
        return ""

    def _missing(self, kind: str, requires: str) -> str:
        """Which part of the need nobody meets."""
        shown = kind or DEFAULT
        if not any(meets(alike.first, (kind, "")) for alike in self._alike.values()):
            return f"no worker here takes {shown}"
        for label in requires.split(","):
            if not any(label in alike.first.labels for alike in self._alike.values()):
                return f"no worker here has {label}"
        return f"no worker here that takes {shown} has {requires.replace(',', ' and ')}"

    def _is_choosy(self, kind: str, requires: str) -> bool:
        return not all(meets(alike.first, (kind, requires)) for alike in self._alike.values())

    def _count(self, kind: str, requires: str) -> tuple[int, int, int]:
        """Of the workers that meet it: how many are here, get tasks, have room."""
        found = [alike for alike in self._alike.values() if meets(alike.first, (kind, requires))]
        return (
            sum(alike.present for alike in found),
            sum(alike.assignable for alike in found),
            sum(alike.roomy for alike in found),
        )
