"""The tasks that wait: for a worker with room, for one that can take them, for their retry, for their own attempts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from enum import StrEnum

from orchestrator.core.culprit import nonsense
from orchestrator.core.deadlines import AnyOrder
from orchestrator.core.model import Task, TaskState
from orchestrator.core.ports import LaneAware, QueueDiscipline, RoutingPolicy

_PENDING = TaskState.PENDING
_WEED_BEYOND = 1000


class Waits(StrEnum):
    """What a pending task waits for."""

    WORKER = "a worker"
    """With room; it stands in the queue, or in a lane that is open."""
    LANE = "a worker that can take it"
    RETRY = "its next try"
    ATTEMPT = "one of its own attempts"
    """To end: it has as many copies as it may have, or one that was recalled."""


class Backlog:
    """Says which task is tried next. Of a task it changes nothing but the mark `queued`.

    A task that the routing policy refuses moves from the queue to a lane, which holds tasks that the same workers
    can take. A closed lane waits without blocking anybody. When it opens, the first of its tasks returns to the queue
    and stands there for all of them: if it is assigned the next one follows, if it is refused the lane closes again.

    A task that is settled, or goes on elsewhere, while it waits leaves a stale place behind. If the task comes
    back it gets that place again. Places of settled tasks are weeded out when there are many.
    """

    __slots__ = (
        "_lane_of", "_left_behind", "_new_queue", "_retries", "_retry_at", "_weed_beyond", "crowded", "lanes",
        "open_lanes", "queue", "size",
    )  # fmt: skip

    def __init__(self, new_queue: Callable[[], QueueDiscipline], routing: RoutingPolicy) -> None:
        self._new_queue = new_queue
        self.queue = new_queue()
        self.size = 0  # places in the queue, stale ones too, without those in lanes
        self._lane_of: Callable[[Task], Hashable] = routing.lane if isinstance(routing, LaneAware) else _itself
        self.lanes: dict[Hashable, QueueDiscipline] = {}
        self.open_lanes: dict[Task, Hashable] = {}  # the open lanes, by the task that stands in the queue for them
        self._left_behind = 0  # places, some of which their tasks may have got again
        self._weed_beyond = _WEED_BEYOND
        self._retry_at: dict[Task, float] = {}
        self._retries: AnyOrder[Task] = AnyOrder()
        self.crowded: dict[Task, None] = {}  # those that wait until one of their attempts ends

    def add(self, task: Task) -> None:
        """The task waits for a worker."""
        if task.queued:
            return
        if self.lanes:
            lane = self._lane_of(task)
            if lane in self.lanes:
                self._push_to_lane(lane, task)
                return
        self._push(task)

    def pop(self) -> Task | None:
        """The task that is tried next, None if none waits. Tell what became of it: `assigned` or `refuse`."""
        while self.size:
            task = self._take(self.queue, self.size)
            self.size -= 1
            if task.state is _PENDING and not (self._retry_at and task in self._retry_at):
                return task
            self.assigned(task)
        return None

    def assigned(self, task: Task) -> None:
        """The task has left the queue for good. If it stood there for a lane, the next one follows."""
        if task in self.open_lanes:
            self._open(self.open_lanes.pop(task))

    def refuse(self, task: Task) -> None:
        """No worker can take the task now. If it stood in the queue for a lane, that one closes."""
        self.open_lanes.pop(task, None)
        self._push_to_lane(self._lane_of(task), task)

    def open_all(self) -> None:
        """Something may have changed for those that were refused: open every lane that is closed."""
        already_open = set(self.open_lanes.values())
        for lane in list(self.lanes):
            if lane not in already_open:
                self._open(lane)

    def hold(self, task: Task) -> None:
        """The task that was tried may not have one more attempt, until it is told to `release` it."""
        self.assigned(task)
        self.crowded[task] = None

    def release(self, task: Task) -> None:
        """One of the task's attempts has ended."""
        if task in self.crowded:
            del self.crowded[task]
            self.add(task)

    def retry_later(self, task: Task, at: float) -> None:
        self._retry_at[task] = at
        self._retries.add(at, task)

    def forget(self, task: Task) -> None:
        """The task is settled, or goes on elsewhere. Its place in the queue, if it has one, is stale."""
        self._retry_at.pop(task, None)
        self.crowded.pop(task, None)
        if task.queued:
            self._left_behind += 1
            if self._left_behind > self._weed_beyond:
                self._weed()

    def waits_for(self, task: Task) -> tuple[Waits, float | None]:
        """Of a pending task; and when its next try is, where it waits for that."""
        if task in self._retry_at:
            return Waits.RETRY, self._retry_at[task]
        if task in self.crowded:
            return Waits.ATTEMPT, None
        if self.lanes and task not in self.open_lanes and self._lane_of(task) in self.lanes:
            return Waits.LANE, None
        return Waits.WORKER, None

    @property
    def retries(self) -> int:
        """How many wait for their next try."""
        return len(self._retry_at)

    def next_retry_at(self) -> float:
        return self._retries.earliest

    def retries_due(self, now: float) -> Iterator[Task]:
        while self._retries.earliest <= now:
            at, task = self._retries.pop()
            if self._retry_at.get(task) == at:
                del self._retry_at[task]
                yield task

    def violations(self, tasks: Iterable[Task]) -> Iterator[str]:
        """A sentence for each invariant that does not hold; `tasks` are all that the coordinator knows."""
        standing = list(self.queue)
        if not self.size == len(standing) == len(self.queue):
            yield f"{len(standing)} tasks stand in the queue, which says {len(self.queue)}, not {self.size}"
        for queue in self.lanes.values():
            standing += queue
        places = Counter(standing)
        for task, times in places.items():
            if not task.queued:
                yield f"{task} stands in the queue and is not known to"
            if times > 1:
                yield f"{task} stands in the queue {times} times"
        for task in tasks:
            if task.queued and task not in places:
                yield f"the queue lost {task}"
            waits = (task in self._retry_at) + (task in self.crowded)
            if task.state is _PENDING and not task.queued and not waits:
                yield f"{task} waits nowhere"
            if waits > (task.state is _PENDING):
                yield f"{task} waits for a retry or for one of its attempts, {waits} times"
        for lane, times in Counter(self.open_lanes.values()).items():
            if lane not in self.lanes or times > 1:
                yield f"{times} tasks stand in the queue for the lane {lane}"
        for task in self.open_lanes:
            if not task.queued:
                yield f"{task} stands for a lane, and not in the queue"

    def _weed(self) -> None:
        """Take settled tasks out of the queue and the lanes, which may never come to them. One that stands for a lane
        is left where it is."""
        for queue in (self.queue, *self.lanes.values()):
            self._weed_queue(queue)
        self.size = len(self.queue)
        still_open = dict.fromkeys(self.open_lanes.values())
        for lane in [lane for lane, queue in self.lanes.items() if not len(queue) and lane not in still_open]:
            del self.lanes[lane]
        self._left_behind = 0
        self._weed_beyond = self.size + sum(map(len, self.lanes.values())) + _WEED_BEYOND

    def _weed_queue(self, queue: QueueDiscipline) -> None:
        kept = []
        for left in range(len(queue), 0, -1):
            task = self._take(queue, left)
            if not task.settled or task in self.open_lanes:
                kept.append(task)
        for size, task in enumerate(kept):
            self._put(queue, size, task)

    def _push(self, task: Task) -> None:
        self._put(self.queue, self.size, task)
        self.size += 1

    def _push_to_lane(self, lane: Hashable, task: Task) -> None:
        queue = self.lanes.get(lane)
        if queue is None:
            queue = self.lanes[lane] = self._new_queue()
        self._put(queue, len(queue), task)

    def _open(self, lane: Hashable) -> None:
        """Put the first task of the lane into the queue; the lane ends with its last task."""
        queue = self.lanes[lane]
        while size := len(queue):
            task = self._take(queue, size)
            if task.state is _PENDING and task not in self._retry_at:
                self.open_lanes[task] = lane
                self._push(task)
                return
        del self.lanes[lane]

    @staticmethod
    def _put(queue: QueueDiscipline, size: int, task: Task) -> None:
        """Push a task into a queue that holds `size`. PolicyError if it then does not hold one more."""
        task.queued = True
        queue.push(task)
        if len(queue) != size + 1:
            said = f"was given {task} and says that it holds {len(queue)} of {size + 1}"
            raise nonsense("queue", queue, "push", said)

    @staticmethod
    def _take(queue: QueueDiscipline, size: int) -> Task:
        """Pop a task from a queue that holds `size`. PolicyError if it gives what is not in it, or loses one."""
        task = queue.pop()
        if task.__class__ is not Task or not task.queued or len(queue) != size - 1:
            raise nonsense("queue", queue, "pop", f"gave {task!r} and says that {len(queue)} of {size - 1} remain")
        task.queued = False
        return task


def _itself(task: Task) -> Hashable:
    return task
