"""How many workers the detector may declare dead at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from orchestrator.core.model import Worker, WorkerState


class DeadShare:
    """Counts the workers that are present, and those that the detector declared dead.

    `limit`: the share of the present workers, though at least one worker, that may be dead at once; None for all.
    Suspects that only the limit spares stay suspects until one of the dead is back or gone, and are then judged anew.
    """

    __slots__ = ("_dead", "_limit", "_spared", "present")

    def __init__(self, limit: float | None) -> None:
        self._limit = limit
        self.present = 0  # workers that have not left
        self._dead: dict[Worker, None] = {}
        self._spared: dict[Worker, None] = {}

    @property
    def has_room(self) -> bool:
        """Whether one more may be declared dead."""
        if self._limit is None:
            return True
        # The product of a share and a whole number may come out just below one.
        return len(self._dead) < max(1, math.floor(self._limit * self.present + 1e-9))

    def declared_dead(self, worker: Worker, by_detector: bool) -> None:
        self._spared.pop(worker, None)
        if by_detector:
            self._dead[worker] = None

    def spare(self, worker: Worker) -> None:
        self._spared[worker] = None

    def spares(self, worker: Worker) -> bool:
        return worker in self._spared

    def release(self, worker: Worker) -> list[Worker]:
        """The worker is not, or not any more, dead by the detector. Gives those that are to be judged again."""
        self._dead.pop(worker, None)
        self._spared.pop(worker, None)
        if not self._spared or not self.has_room:
            return []
        spared = list(self._spared)
        self._spared.clear()
        return spared

    def violations(self, workers: Iterable[Worker]) -> Iterator[str]:
        present = sum(worker.state is not WorkerState.LEFT for worker in workers)
        if self.present != present:
            yield f"{present} workers are present, not {self.present}"
        for worker in self._dead:
            if worker.state is not WorkerState.DEAD:
                yield f"{worker} counts as dead"
        for worker in self._spared:
            if worker.state is not WorkerState.SUSPECT:
                yield f"{worker} counts as a spared suspect"
        if self._spared and self.has_room:
            yield f"{len(self._spared)} suspects are spared although there is room for one more dead"
