"""Which tasks may have killed workers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from orchestrator.core.model import Attempt, Task, Worker, WorkerId


class Blame:
    """Remembers of each task which workers died with it. A task that killed too many is poison.

    A worker's death is blamed on the tasks that it was running when it was declared dead, or when a new process of
    its name registered. A leave, which is the worker's own word, is blamed on nobody, nor is the death of a worker
    that then returns.
    """

    __slots__ = ("killed", "_limit")

    def __init__(self, max_worker_kills: int | None) -> None:
        self._limit = math.inf if max_worker_kills is None else max_worker_kills
        self.killed: dict[Task, tuple[WorkerId, ...]] = {}

    def died(self, worker: Worker, running: Iterable[Attempt]) -> None:
        if self._limit == math.inf:
            return
        for attempt in running:
            killed = self.killed.get(attempt.task, ())
            if worker.id not in killed:
                self.killed[attempt.task] = (*killed, worker.id)
                worker.blamed.append(attempt.task)

    def absolve(self, worker: Worker) -> None:
        """The worker did not die after all."""
        for task in worker.blamed:
            if task in self.killed:
                self.killed[task] = tuple(killed for killed in self.killed[task] if killed != worker.id)
        worker.blamed.clear()

    def forget(self, task: Task) -> None:
        self.killed.pop(task, None)

    def is_poison(self, task: Task) -> bool:
        return len(self.victims(task)) >= self._limit

    def victims(self, task: Task) -> tuple[WorkerId, ...]:
        """The workers that died with the task."""
        return self.killed.get(task, ())

    def violations(self, workers: Iterable[Worker]) -> Iterator[str]:
        for task in self.killed:
            if task.settled:
                yield f"{task} is settled and blamed"
        for worker in workers:
            for task in worker.blamed:
                if not task.settled and worker.id not in self.victims(task):
                    yield f"{worker} is not among the victims of {task}"
