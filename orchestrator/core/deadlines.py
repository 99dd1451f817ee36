"""Deadlines behind one alarm.

Deadlines are left in their queue when they lose their meaning; whoever pops them looks whether they still hold.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from orchestrator.core.model import Attempt, AttemptState, Task, TaskId

Item = TypeVar("Item")

_OPEN = AttemptState.OPEN  # read for every task


class Ticks(NamedTuple):
    """A periodic check: the moments phase_s + k * every_s."""

    every_s: float
    phase_s: float

    def at_or_after(self, at: float) -> float:
        """The first tick that is not before `at`."""
        if at == math.inf:
            return at
        k = math.ceil((at - self.phase_s) / self.every_s)
        # The division may round either way, past a whole number.
        for near in (k - 1, k):
            tick = self.phase_s + near * self.every_s
            if tick >= at:
                return tick
        return self.phase_s + (k + 1) * self.every_s


class AnyOrder(Generic[Item]):
    """Deadlines in any order; equal ones fall due in the order in which they were added.

    `earliest`: the first of them, inf if there is none. It is a value, because it is asked for far more often than it
    changes.
    """

    __slots__ = ("_added", "_heap", "earliest")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._added = 0
        self.earliest = math.inf

    def add(self, at: float, item: Item) -> None:
        self._added += 1
        heapq.heappush(self._heap, (at, self._added, item))
        if at < self.earliest:
            self.earliest = at

    def pop(self) -> tuple[float, Item]:
        heap = self._heap
        at, _, item = heapq.heappop(heap)
        self.earliest = heap[0][0] if heap else math.inf
        return at, item

    def drop(self, stale: Callable[[float, Item], bool]) -> None:
        """Forget the earliest ones for as long as they are stale."""
        while self._heap and stale(self._heap[0][0], self._heap[0][2]):
            self.pop()


class Timeouts:
    """When open attempts time out: after the limit of their task, or else after `limit_s` (None: never).

    `ticks`: the periodic check that finds them, None for the exact moment. `tasks`: all that the coordinator knows.
    """

    __slots__ = ("_in_order", "_limit_s", "_own", "_tasks", "_ticks")

    def __init__(self, tasks: Mapping[TaskId, Task], limit_s: float | None, ticks: Ticks | None) -> None:
        self._tasks = tasks
        self._limit_s = limit_s
        self._ticks = ticks
        # One limit for all makes deadlines fall due in the order in which they are set. The task's id, not the
        # attempt: nearly all attempts end long before, and their memory should be free by then.
        self._in_order: deque[tuple[float, TaskId]] = deque()
        self._own: AnyOrder[TaskId] = AnyOrder()

    def limit_s(self, task: Task) -> float | None:
        return self._limit_s if task.execution_timeout_s is None else task.execution_timeout_s

    def start(self, attempt: Attempt, now: float) -> float:
        """The attempt's time begins now. Gives its deadline, inf if it has none."""
        task = attempt.task
        own_s = task.execution_timeout_s
        limit_s = self._limit_s if own_s is None else own_s
        if limit_s is None:
            return math.inf
        at = now + limit_s
        if self._ticks is not None:
            at = self._ticks.at_or_after(at)
        attempt.times_out_at = at
        if own_s is None:
            self._in_order.append((at, task.id))
        else:
            self._own.add(at, task.id)
        return at

    def due(self, now: float) -> Iterator[Attempt]:
        """The open attempts whose deadlines have passed."""
        in_order, own = self._in_order, self._own
        while in_order and in_order[0][0] <= now:
            attempt = self._timing_out(*in_order.popleft())
            if attempt is not None:
                yield attempt
        while own.earliest <= now:
            attempt = self._timing_out(*own.pop())
            if attempt is not None:
                yield attempt

    def earliest(self) -> float:
        own = self._own.earliest
        return min(own, self._in_order[0][0]) if self._in_order else own

    def drop_stale(self) -> None:
        """Forget the earliest deadlines for as long as their attempts are over."""
        in_order = self._in_order
        while in_order and self._timing_out(*in_order[0]) is None:
            in_order.popleft()
        self._own.drop(lambda at, task_id: self._timing_out(at, task_id) is None)

    def _timing_out(self, at: float, task_id: TaskId) -> Attempt | None:
        """The open attempt whose deadline this is. The id may have gone to another task since."""
        task = self._tasks.get(task_id)
        for attempt in task.live if task is not None else ():
            if attempt.state is _OPEN and attempt.times_out_at == at:
                return attempt
        return None
