"""Queue disciplines: the order in which waiting tasks are tried.

Both serve the oldest task first. A task that comes back, because its worker died for example, keeps its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush, merge
from itertools import chain
from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from orchestrator.core.model import Priority, Task
from orchestrator.core.ports import QueueDiscipline
from orchestrator.policies.config import Custom, Strict, tag_of


class Fifo:
    """Oldest first, by the order of submission."""

    def __init__(self) -> None:
        # New tasks come in order, so a deque is enough for them; only returned tasks need a heap.
        self.fresh: deque[Task] = deque()
        self.returned: list[tuple[int, Task]] = []
        self._newest = -1

    def push(self, task: Task) -> None:
        if task.seq > self._newest:
            self._newest = task.seq
            self.fresh.append(task)
        else:
            heappush(self.returned, (task.seq, task))

    def pop(self) -> Task:
        fresh, returned = self.fresh, self.returned
        if returned and (not fresh or returned[0][0] < fresh[0].seq):
            return heappop(returned)[1]
        return fresh.popleft()

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned)

    def __iter__(self) -> Iterator[Task]:
        """In the order in which they would be popped."""
        return merge(sorted((task for _, task in self.returned), key=_seq), self.fresh, key=_seq)


class StrictPriority:
    """The highest priority first, oldest first inside a priority, never preempting."""

    def __init__(self) -> None:
        self._lanes = [Fifo() for _ in Priority]
        self._highest_first = self._lanes[::-1]
        self._size = 0

    def push(self, task: Task) -> None:
        self._lanes[task.priority].push(task)
        self._size += 1

    def pop(self) -> Task:
        for lane in self._highest_first:
            if lane.fresh or lane.returned:
                self._size -= 1
                return lane.pop()
        raise IndexError("pop from an empty queue")

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Task]:
        """In the order in which they would be popped."""
        return chain.from_iterable(self._highest_first)


def _seq(task: Task) -> int:
    return task.seq


class FifoConfig(Strict):
    """Oldest first, whatever the priority."""

    kind: Literal["fifo"]

    def build(self) -> QueueDiscipline:
        return Fifo()


class PriorityConfig(Strict):
    """Highest priority first, oldest first inside a priority."""

    kind: Literal["priority"] = "priority"

    def build(self) -> QueueDiscipline:
        return StrictPriority()


class CustomQueue(Custom):
    """Your own `QueueDiscipline`."""

    protocol = QueueDiscipline
    role = "a queue"

    def build(self) -> QueueDiscipline:
        discipline: QueueDiscipline = self.make()
        return discipline


QueueConfig = Annotated[
    Annotated[FifoConfig, Tag("fifo")]
    | Annotated[PriorityConfig, Tag("priority")]
    | Annotated[CustomQueue, Tag("custom")],
    Discriminator(tag_of),
]
