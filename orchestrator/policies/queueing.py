"""Queue disciplines: the order in which waiting tasks are tried, none of them preempting.

Among equals the oldest task goes first. A task that comes back, because its worker died for example, keeps its place.
A configuration builds a maker of queues, because the core also needs one for each lane of refused tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from heapq import heappop, heappush, heapreplace, merge
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from orchestrator.core.hedges import kind_of_payload
from orchestrator.core.model import Attempt, Outcome, Priority, Task
from orchestrator.core.ports import EndAware, QueueDiscipline
from orchestrator.policies.config import Custom, Positive, Strict, tag_of
from orchestrator.policies.means import Mean

MakeQueue = Callable[[], QueueDiscipline]


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


class Ranked(ABC):
    """The lowest rank first, which a task keeps for as long as it waits."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Task]] = []

    @abstractmethod
    def rank(self, task: Task) -> float: ...

    def push(self, task: Task) -> None:
        heappush(self._heap, (self.rank(task), task.seq, task))

    def pop(self) -> Task:
        return heappop(self._heap)[2]

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Task]:
        """In the order in which they would be popped."""
        return (task for _, _, task in sorted(self._heap))


class Aging(Ranked):
    """The lowest class - wait / tau first, where urgent is class 0 and low is class 3 (Jackson 1960).

    What waits ages at the same rate whatever its class, so the order of two tasks never changes: it is that of
    tau class + the time of submission.
    """

    def __init__(self, tau_s: float) -> None:
        super().__init__()
        self._tau_s = tau_s

    def rank(self, task: Task) -> float:
        return task.submitted_at - self._tau_s * task.priority


class EarliestDeadline(Ranked):
    """The earliest deadline first; those without one come last, the oldest first (Jackson 1955; Liu, Layland 1973)."""

    def rank(self, task: Task) -> float:
        return task.deadline_at


class Lanes:
    """First come, first served in each class; from which class the next task comes, the discipline says."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Fifo] = {}  # of the classes that wait
        self._size = 0

    def _push_to(self, name: Hashable, task: Task) -> bool:
        """Whether this class only now begins to wait."""
        lane = self._lanes.get(name)
        begins = lane is None
        if lane is None:
            lane = self._lanes[name] = Fifo()
        lane.push(task)
        self._size += 1
        return begins

    def _pop_from(self, name: Hashable) -> Task:
        lane = self._lanes[name]
        task = lane.pop()
        if not len(lane):
            del self._lanes[name]
        self._size -= 1
        return task

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Task]:
        return chain.from_iterable(self._lanes.values())


class WeightedFair(Lanes):
    """The lowest virtual finish time first, first come, first served in each class (Golestani 1994: self-clocked).

    The first task of a class finishes 1 / weight after the virtual time at which the class began to wait, or after the
    task of its class before it. The virtual time is the finish time of the task that was popped last. So two classes
    that wait all the time get tasks in the ratio of their weights: counted as tasks / weight, each is at most one task
    of either ahead.
    """

    def __init__(self, class_of: Callable[[Task], Hashable], weights: Mapping[Any, float]) -> None:
        super().__init__()
        self._class_of = class_of
        self._weights = weights  # 1 for a class that is not there
        self._first: list[tuple[float, int, Hashable]] = []  # when the first task of each lane finishes
        self._opened = 0
        self._virtual = 0.0

    def push(self, task: Task) -> None:
        name = self._class_of(task)
        if self._push_to(name, task):
            self._opened += 1
            heappush(self._first, (self._virtual + 1 / self._weights.get(name, 1.0), self._opened, name))

    def pop(self) -> Task:
        self._virtual, opened, name = self._first[0]
        task = self._pop_from(name)
        if name in self._lanes:
            heapreplace(self._first, (self._virtual + 1 / self._weights.get(name, 1.0), opened, name))
        else:
            heappop(self._first)
        return task


class ServiceTimes:
    """What tasks of a kind are expected to take: the mean seconds of execution of about the last WINDOW that completed.

    Workers report these, so a live cluster knows them too. A kind of which none has completed is taken for the average.
    """

    WINDOW = 1000

    def __init__(self) -> None:
        self._kinds: dict[Hashable, Mean] = {}
        self._all = Mean()

    def learn(self, kind: Hashable, seconds: float) -> None:
        self._kinds.setdefault(kind, Mean()).add(seconds, self.WINDOW)
        self._all.add(seconds, self.WINDOW)

    def expected_s(self, kind: Hashable) -> float:
        return self._kinds.get(kind, self._all).value


class ShortestFirst(Lanes):
    """The kind with the shortest expected service first, first come, first served in each kind (Cobham 1954: a priority
    for each kind; Phipps 1956). All queues of one coordinator share what is known of the kinds."""

    def __init__(self, times: ServiceTimes) -> None:
        super().__init__()
        self._times = times

    def ended(self, attempt: Attempt, now: float) -> None:
        if attempt.outcome is Outcome.COMPLETED and attempt.ran_s is not None:
            self._times.learn(kind_of_payload(attempt.task.payload), attempt.ran_s)

    def push(self, task: Task) -> None:
        self._push_to(kind_of_payload(task.payload), task)

    def pop(self) -> Task:
        if not self._size:
            raise IndexError("pop from an empty queue")
        return self._pop_from(min(self._lanes, key=self._times.expected_s))


def _seq(task: Task) -> int:
    return task.seq


def _priority(task: Task) -> Hashable:
    return task.priority


def _kind_name(task: Task) -> Hashable:
    """Of `sleep:report` it is `report`, as the scenario has it."""
    return str(kind_of_payload(task.payload) or "").rpartition(":")[2]


class FifoConfig(Strict):
    """Oldest first, whatever the priority."""

    kind: Literal["fifo"]

    def build(self) -> MakeQueue:
        return Fifo


class PriorityConfig(Strict):
    """Highest priority first, oldest first inside a priority."""

    kind: Literal["priority"] = "priority"

    def build(self) -> MakeQueue:
        return StrictPriority


class AgingConfig(Strict):
    """Highest priority first, but a task rises by one priority with every tau_s that it has waited."""

    kind: Literal["aging"]
    tau_s: Positive = 60.0
    """Seconds of waiting that count as much as one priority."""

    def build(self) -> MakeQueue:
        return partial(Aging, self.tau_s)


class EarliestDeadlineConfig(Strict):
    """The task first whose deadline_s ends first; those without one come last."""

    kind: Literal["edf"]

    def build(self) -> MakeQueue:
        return EarliestDeadline


class WeightedFairConfig(Strict):
    """Tasks of each class in the ratio of the weights of those that wait."""

    kind: Literal["weighted_fair"]
    by: Literal["priority", "kind"] = "priority"
    """What makes a class."""
    weights: dict[str, Positive] = Field(default_factory=dict)
    """The weight of a priority or kind by its name; if not given, of a kind 1, of low 1, normal 2, high 4, urgent 8."""

    @model_validator(mode="after")
    def _known(self) -> WeightedFairConfig:
        known = [priority.name.lower() for priority in Priority]
        unknown = [name for name in self.weights if name not in known]
        if self.by == "priority" and unknown:
            raise ValueError(f"weighs {unknown[0]}, which is no priority, expected {', '.join(known)}")
        return self

    def build(self) -> MakeQueue:
        if self.by == "kind":
            return partial(WeightedFair, _kind_name, self.weights)
        weights = {priority: self.weights.get(priority.name.lower(), 2.0**priority) for priority in Priority}
        return partial(WeightedFair, _priority, weights)


class ShortestFirstConfig(Strict):
    """The kind first whose tasks take least, on average of those that have completed."""

    kind: Literal["sjf"]

    def build(self) -> MakeQueue:
        return partial(ShortestFirst, ServiceTimes())


class CustomQueue(Custom):
    """Your own `QueueDiscipline`."""

    protocol = QueueDiscipline
    extensions = (EndAware,)
    role = "a queue"

    def build(self) -> MakeQueue:
        return self.make


QueueConfig = Annotated[
    Annotated[FifoConfig, Tag("fifo")]
    | Annotated[PriorityConfig, Tag("priority")]
    | Annotated[AgingConfig, Tag("aging")]
    | Annotated[WeightedFairConfig, Tag("weighted_fair")]
    | Annotated[EarliestDeadlineConfig, Tag("edf")]
    | Annotated[ShortestFirstConfig, Tag("sjf")]
    | Annotated[CustomQueue, Tag("custom")],
    Discriminator(tag_of),
]
