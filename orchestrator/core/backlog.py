"""The tasks that wait: for a free slot, for a worker that can take them, or for their retry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator

from orchestrator.core.culprit import nonsense
from orchestrator.core.deadlines import AnyOrder
from orchestrator.core.model import Task, TaskState
from orchestrator.core.ports import LaneAware, QueueDiscipline, RoutingPolicy

_PENDING = TaskState.PENDING


class Backlog:
    """Says which task is tried next. Of a task it changes nothing but the mark `queued`.

    A task that the routing policy refuses moves from the queue to a lane, which holds tasks that the same workers
    can take. A closed lane waits without blocking anybody. When it opens, the first of its tasks returns to the queue
    and stands there for all of them: if it is assigned the next one follows, if it is refused the lane closes again.

    A task that is settled, or goes on elsewhere, while it waits leaves a stale place behind. If the task comes
    back it gets that place again.
    """

    __slots__ = (
        "_lane_of", "_new_queue", "_retries", "_retry_at", "closed_lanes", "lanes", "open_lanes", "queue", "size",
    )  # fmt: skip

    def __init__(self, new_queue: Callable[[], QueueDiscipline], routing: RoutingPolicy) -> None:
        self._new_queue = new_queue
        self.queue = new_queue()
        self.size = 0  # places in the queue, stale ones too, without those in lanes
        self._lane_of: Callable[[Task], Hashable] = routing.lane if isinstance(routing, LaneAware) else _itself
        self.lanes: dict[Hashable, QueueDiscipline] = {}
        self.open_lanes: dict[Task, Hashable] = {}  # the open lanes, by the task that stands in the queue for them
        self.closed_lanes: dict[Hashable, None] = {}
        self._retry_at: dict[Task, float] = {}
        self._retries: AnyOrder[Task] = AnyOrder()

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
        queue, size = self.queue, self.size
        while size:
            task = queue.pop()
            self.size = size = size - 1
            if task.__class__ is not Task or not task.queued or len(queue) != size:
                raise self._broken("pop", f"gave {task!r} and says that {len(queue)} of {size} remain")
            task.queued = False
            if task.state is _PENDING and not (self._retry_at and task in self._retry_at):
                return task
            self.assigned(task)
            size = self.size  # the next task of its lane may have followed
        return None

    def assigned(self, task: Task) -> None:
        """The task has left the queue for good. If it stood there for a lane, the next one follows."""
        lane = self.open_lanes.pop(task, None)
        if lane is not None:
            self._open(lane)

    def refuse(self, task: Task) -> None:
        """No worker can take the task now: its lane closes."""
        lane = self._lane_of(task)
        stood_for = self.open_lanes.pop(task, lane)
        self._push_to_lane(lane, task)
        self.closed_lanes[lane] = None
        if stood_for != lane:
            self.closed_lanes[stood_for] = None  # a policy may have changed its mind about which tasks are alike

    def open_all(self) -> None:
        """Something may have changed for those that were refused."""
        lanes = list(self.closed_lanes)
        self.closed_lanes.clear()
        stands = set(self.open_lanes.values())
        for lane in lanes:
            if lane not in stands:
                self._open(lane)

    def retry_later(self, task: Task, at: float) -> None:
        self._retry_at[task] = at
        self._retries.add(at, task)

    def forget_retry(self, task: Task) -> None:
        """The task is settled, or goes on elsewhere."""
        self._retry_at.pop(task, None)

    def next_retry_at(self) -> float:
        return self._retries.earliest()

    def retries_due(self, now: float) -> Iterator[Task]:
        while self._retries.earliest() <= now:
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
            if task.state is _PENDING and not task.queued and task not in self._retry_at:
                yield f"{task} waits nowhere"
            if task.state is not _PENDING and task in self._retry_at:
                yield f"{task} waits for a retry"
        for lane in self.lanes:
            if (lane in self.closed_lanes) == (lane in self.open_lanes.values()):
                yield f"the lane {lane} is open and closed, or neither"

    def _push(self, task: Task) -> None:
        task.queued = True
        queue = self.queue
        queue.push(task)
        self.size = size = self.size + 1
        if len(queue) != size:
            raise self._broken("push", f"was given {task} and says that it holds {len(queue)} of {size}")

    def _push_to_lane(self, lane: Hashable, task: Task) -> None:
        queue = self.lanes.get(lane)
        if queue is None:
            queue = self.lanes[lane] = self._new_queue()
        before = len(queue)
        task.queued = True
        queue.push(task)
        if len(queue) != before + 1:
            raise self._broken("push", f"was given {task} and says that it holds {len(queue)} of {before + 1}")

    def _open(self, lane: Hashable) -> None:
        """Put the first task of the lane into the queue; the lane ends with its last task."""
        queue = self.lanes[lane]
        while len(queue):
            before = len(queue)
            task = queue.pop()
            if task.__class__ is not Task or not task.queued or len(queue) != before - 1:
                raise self._broken("pop", f"gave {task!r} and says that {len(queue)} of {before - 1} remain")
            task.queued = False
            if task.state is _PENDING and task not in self._retry_at:
                self.open_lanes[task] = lane
                self._push(task)
                return
        del self.lanes[lane]

    def _broken(self, method: str, what: str) -> Exception:
        return nonsense("queue", self.queue, method, what)


def _itself(task: Task) -> Hashable:
    return task
