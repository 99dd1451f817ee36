"""Which tasks may have killed workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from orchestrator.core.model import Attempt, Task, Worker, WorkerId


class Death(NamedTuple):
    """The death of a worker. `share`: 1 / the number of tasks that it was running."""

    worker_id: WorkerId
    share: float


class Blame:
    """Remembers of each task which workers died while they were running it. A task that killed too many is poison.

    A worker's death is blamed on the tasks that it was running when it was declared dead, or when a new process of
    its name registered; on each the less, the more there were. A leave, which is the worker's own word, is blamed on
    nobody, nor is the death of a worker that then returns.
    """

    __slots__ = ("killed", "_limit")

    def __init__(self, max_worker_kills: int | None) -> None:
        self._limit = math.inf if max_worker_kills is None else max_worker_kills
        self.killed: dict[Task, tuple[Death, ...]] = {}

    def died(self, worker: Worker) -> None:
        if self._limit == math.inf:
            return
        running = _running(worker)
        if running:
            death = Death(worker.id, 1 / (len(running) + len(worker.abandoned)))
            for attempt in running:
                self.killed[attempt.task] = (*self.killed.get(attempt.task, ()), death)
                worker.blamed.append(attempt.task)

    def absolve(self, worker: Worker) -> None:
        """The worker did not die after all."""
        for task in worker.blamed:
            deaths = self.killed.get(task, ())
            last = max((i for i, death in enumerate(deaths) if death.worker_id == worker.id), default=None)
            if last is not None:
                self.killed[task] = (*deaths[:last], *deaths[last + 1 :])
        worker.blamed.clear()

    def forget(self, task: Task) -> None:
        self.killed.pop(task, None)

    def is_poison(self, task: Task) -> bool:
        """Whether enough workers died with it, and not each in the company of many other tasks."""
        deaths = self.killed.get(task, ())
        if len(deaths) < self._limit or len(self.victims(task)) < self._limit:
            return False
        # So many thirds, sevenths, ... may come out just below one.
        return sum(death.share for death in deaths) >= 1 - 1e-9

    def victims(self, task: Task) -> tuple[WorkerId, ...]:
        """The workers that died with the task. One that died several times may itself be ill, and is one."""
        return tuple(dict.fromkeys(death.worker_id for death in self.killed.get(task, ())))

    def violations(self, workers: Iterable[Worker]) -> Iterator[str]:
        for task in self.killed:
            if task.settled:
                yield f"{task} is settled and blamed"
        for worker in workers:
            for task in worker.blamed:
                if not task.settled and worker.id not in self.victims(task):
                    yield f"{worker} is not among the victims of {task}"


def _running(worker: Worker) -> Sequence[Attempt]:
    """What it was running as far as anybody knows. One that reports no start begins in the order of assignment."""
    if worker.reports_start:
        return [attempt for attempt in worker.open if attempt.started_at is not None]
    return list(worker.open)[: worker.capacity]
