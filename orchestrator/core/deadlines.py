"""Deadlines behind one alarm.

Deadlines are left in their queue when they lose their meaning; whoever pops them looks whether they still hold.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from orchestrator.core.model import Attempt, AttemptState, Task, TaskId

Item = TypeVar("Item")

EXPIRED = "expired: "
"""The error of a task that expired begins so, and names its limit."""
_MISSED = {
    "queue_timeout_s": ("queue_timeouts", "did not begin"),
    "deadline_s": ("missed_deadlines", "was not settled"),
}
"""What counts the tasks that expired by a limit, and what they did not do in time."""
_OPEN = AttemptState.OPEN  # read for every task
_WEED_BEYOND = 1000


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

    __slots__ = ("_added", "_heap", "_weed_beyond", "earliest")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Item]] = []
        self._added = 0
        self._weed_beyond = _WEED_BEYOND
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

    def weed(self, stale: Callable[[float, Item], bool]) -> None:
        """Forget all that are stale, whenever there are twice as many as were left the last time: those that lose
        their meaning long before they are due then take no more room than the others."""
        if len(self._heap) > self._weed_beyond:
            self._heap = [entry for entry in self._heap if not stale(entry[0], entry[2])]
            heapq.heapify(self._heap)
            self.earliest = self._heap[0][0] if self._heap else math.inf
            self._weed_beyond = 2 * len(self._heap) + _WEED_BEYOND

    def __iter__(self) -> Iterator[tuple[float, Item]]:
        return ((at, item) for at, _, item in self._heap)


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
        own_s = None if task.limits is None else task.limits.execution_timeout_s
        return self._limit_s if own_s is None else own_s

    def start(self, attempt: Attempt, now: float) -> float:
        """The attempt's time begins now. Gives its deadline, inf if it has none."""
        task = attempt.task
        own_s = None if task.limits is None else task.limits.execution_timeout_s
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
            self._own.weed(self._is_stale)
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
        self._own.drop(self._is_stale)

    def _is_stale(self, at: float, task_id: TaskId) -> bool:
        return self._timing_out(at, task_id) is None

    def _timing_out(self, at: float, task_id: TaskId) -> Attempt | None:
        """The open attempt whose deadline this is. The id may have gone to another task since."""
        task = self._tasks.get(task_id)
        for attempt in task.live if task is not None else ():
            if attempt.state is _OPEN and attempt.times_out_at == at:
                return attempt
        return None


class Limit(NamedTuple):
    """One of a task's own limits: a field of TimeLimits."""

    task_id: TaskId
    name: str


class Expiries(AnyOrder[Limit]):
    """When tasks with limits of their own expire, which did not begin in time, or are not settled in time.

    `tasks`: all that the coordinator knows.
    """

    __slots__ = ("_tasks",)

    def __init__(self, tasks: Mapping[TaskId, Task]) -> None:
        super().__init__()
        self._tasks = tasks

    def begin(self, task: Task, now: float) -> float:
        """The task has been accepted. Gives when it is looked at first, inf for never."""
        earliest = math.inf
        for at, limit in _ends(task):
            at = max(now, at)
            self.add(at, limit)
            earliest = min(earliest, at)
        self.weed(self._is_stale)
        return earliest

    def wait_again(self, task: Task, now: float) -> float:
        """An attempt that counted as its start is over, and was none: an end of the waiting that passed meanwhile
        counts now. Gives now, or inf."""
        for at, limit in _ends(task):
            if limit.name == "queue_timeout_s" and at <= now:
                self.add(now, limit)
                return now
        return math.inf

    def due(self, now: float) -> Iterator[tuple[Task, str, str]]:
        """The tasks that expire, each with what counts it, and why."""
        while self.earliest <= now:
            at, limit = self.pop()
            if self._is_stale(at, limit):
                continue
            task = self._tasks[limit.task_id]
            if _holds(task, limit):
                seconds, (counter, what) = getattr(task.limits, limit.name), _MISSED[limit.name]
                yield task, counter, f"{EXPIRED}it {what} within {seconds:g} s ({limit.name})"

    def drop_stale(self) -> None:
        self.drop(self._is_stale)

    def violations(self, tasks: Iterable[Task]) -> Iterator[str]:
        """A sentence for each limit of a task that nothing keeps; `tasks` are all that the coordinator knows."""
        kept: dict[Limit, float] = {}
        for at, limit in self:
            kept[limit] = max(at, kept.get(limit, -math.inf))
        for task in tasks:
            for at, limit in () if task.settled else _ends(task):
                if kept.get(limit, -math.inf) < at and _holds(task, limit):
                    yield f"{task} has a {limit.name} that is not kept"

    def _is_stale(self, at: float, limit: Limit) -> bool:
        """It is settled, or has begun. The id may have gone to another task since."""
        task = self._tasks.get(limit.task_id)
        return task is None or task.settled or all(other != limit or end > at for end, other in _ends(task))


def _ends(task: Task) -> list[tuple[float, Limit]]:
    """When which limit of the task is over."""
    if task.limits is None:
        return []
    named = zip(task.limits._fields, task.limits, strict=True)
    return [
        (task.submitted_at + seconds, Limit(task.id, name))
        for name, seconds in named
        if seconds is not None and name in _MISSED
    ]


def _holds(task: Task, limit: Limit) -> bool:
    """Not a limit of the waiting of a task that seems to run: should it turn out that it does not, it waits again."""
    runs = any(attempt.state is _OPEN and attempt.has_begun for attempt in task.live)
    return limit.name == "deadline_s" or not runs
