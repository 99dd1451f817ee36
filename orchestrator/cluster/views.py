"""What a coordinator tells those who look at its workers, its tasks and its queue. Seconds are ages, by its clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from orchestrator.cluster.figures import Metrics
from orchestrator.core.model import TaskState, WorkerState

Item = TypeVar("Item")


class WorkerView(NamedTuple):
    """`draining`: it will leave. `hindrance`: why one that is alive and does not drain gets nothing new, empty for
    nothing.

    `load`: attempts that it holds: `running`, `waiting` for a slot, `given_up` (timed out, say, and perhaps still
    there). Where a worker reports no start, an assignment counts as one. `heard_s`: since its last heartbeat;
    `suspicion`: that silence, as a share of the one after which its detector's verdict changes; None where nothing is
    known. `streams`: it holds a stream; else it speaks the wire contract. `kinds`: the first of those that it takes,
    empty for all.
    """

    name: str
    state: WorkerState
    draining: bool = False
    hindrance: str = ""
    capacity: int = 0
    load: int = 0
    running: int = 0
    waiting: int = 0
    given_up: int = 0
    heard_s: float | None = None
    suspicion: float | None = None
    streams: bool = True
    incarnation: str = ""
    kinds: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Workers(NamedTuple):
    """`total`: how many there are, of which `workers` may be the first."""

    workers: tuple[WorkerView, ...]
    total: int


class TaskView(NamedTuple):
    """`state`: RUNNING also where the worker reports no start. `worker`: who has it, or had it when it was settled.

    `since_s`: since it waits, was assigned, began or was settled; `age_s`: since it was accepted. `waits_for`: why it
    is with no worker. `error`: its beginning.
    """

    id: str
    state: TaskState
    kind: str
    priority: int
    key: str
    attempts: int
    worker: str
    since_s: float
    age_s: float
    waits_for: str
    error: str


class Tasks(NamedTuple):
    """`total`: how many there are, of which `tasks` may be the first."""

    tasks: tuple[TaskView, ...]
    total: int


class AttemptView(NamedTuple):
    """An attempt that occupies its worker. `state`: running, waiting or given up, since `since_s`."""

    number: int
    worker: str
    state: str
    since_s: float
    hedge: bool
    reason: str


class FailureView(NamedTuple):
    """An attempt that did not settle its task."""

    attempt: int
    worker: str
    outcome: str
    reason: str
    ago_s: float


class TaskDetail(NamedTuple):
    task: TaskView
    attempts: tuple[AttemptView, ...]
    failures: tuple[FailureView, ...]


class TaskClass(NamedTuple):
    """The tasks of a priority and a kind that wait; the oldest was accepted `oldest_s` ago."""

    priority: int
    kind: str
    tasks: int
    oldest_s: float


class LaneView(NamedTuple):
    """Tasks that no worker can take at present, for one reason."""

    kind: str
    requires: str
    tasks: int
    oldest_s: float
    reason: str


class HeldView(NamedTuple):
    """What waits at a worker; the oldest was assigned `oldest_s` ago."""

    worker: str
    tasks: int
    oldest_s: float


class QueueView(NamedTuple):
    """`tasks` wait at the coordinator, `retries` of them for their next try; `held_tasks` wait at workers.

    `classes`: those with the most urgent tasks first, and `other_classes` are left out. What wants most of a count is
    counted in slices, `counted_s` ago.
    """

    tasks: int
    classes: tuple[TaskClass, ...]
    other_classes: int
    lanes: tuple[LaneView, ...]
    retries: int
    held: tuple[HeldView, ...]
    held_tasks: int
    counted_s: float


class EventView(NamedTuple):
    """What happened to a worker, in the words of the events table, or `timeout` of an attempt; `number` counts them."""

    number: int
    ago_s: float
    event: str
    worker: str
    task_id: str
    detail: str


class Snapshot(NamedTuple):
    """The cluster at a moment. `term`: of the coordinator, `up_s` old. `slots`: of the workers that are alive or
    suspect, who execute `running` attempts. `workers`: where they are too many, those in trouble first, and
    `other_workers` are left out. `deaths`: in the coordinator's life. `events`: the last ones, the oldest first.
    """

    term: int
    up_s: float
    metrics: Metrics
    alive: int
    suspect: int
    dead: int
    draining: int
    slots: int
    running: int
    workers: tuple[WorkerView, ...]
    other_workers: int
    queue: QueueView
    deaths: int
    events: tuple[EventView, ...]


class Lost(NamedTuple):
    """In the place of a snapshot: nothing is heard of the coordinator, and it is dialled again. `ever`: it was heard
    before."""

    reason: str
    ever: bool


class Some(list[Item]):
    """The first of them; `total`: how many there are."""

    def __init__(self, items: Iterable[Item], total: int) -> None:
        super().__init__(items)
        self.total = total
