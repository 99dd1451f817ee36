# mypy: disable-error-code=type-arg
from orchestrator.cluster.wire.proto import wire_pb2 as _wire_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALIVE: _ClassVar[WorkerState]
    SUSPECT: _ClassVar[WorkerState]
    DEAD: _ClassVar[WorkerState]
    LEFT: _ClassVar[WorkerState]
ALIVE: WorkerState
SUSPECT: WorkerState
DEAD: WorkerState
LEFT: WorkerState

class Worker(_message.Message):
    __slots__ = ("name", "state", "draining", "hindrance", "capacity", "load", "running", "waiting", "given_up", "heard_s", "suspicion", "streams", "incarnation", "kinds", "labels")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    HINDRANCE_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    GIVEN_UP_FIELD_NUMBER: _ClassVar[int]
    HEARD_S_FIELD_NUMBER: _ClassVar[int]
    SUSPICION_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    state: WorkerState
    draining: bool
    hindrance: str
    capacity: int
    load: int
    running: int
    waiting: int
    given_up: int
    heard_s: float
    suspicion: float
    streams: bool
    incarnation: str
    kinds: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., draining: _Optional[bool] = ..., hindrance: _Optional[str] = ..., capacity: _Optional[int] = ..., load: _Optional[int] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., given_up: _Optional[int] = ..., heard_s: _Optional[float] = ..., suspicion: _Optional[float] = ..., streams: _Optional[bool] = ..., incarnation: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class WorkersRequest(_message.Message):
    __slots__ = ("name", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    limit: int
    def __init__(self, name: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Workers(_message.Message):
    __slots__ = ("workers", "total")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    total: int
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("id", "state", "kind", "priority", "key", "attempts", "worker", "since_s", "age_s", "waits_for", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    WAITS_FOR_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: _wire_pb2.TaskState
    kind: str
    priority: int
    key: str
    attempts: int
    worker: str
    since_s: float
    age_s: float
    waits_for: str
    error: str
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[_wire_pb2.TaskState, str]] = ..., kind: _Optional[str] = ..., priority: _Optional[int] = ..., key: _Optional[str] = ..., attempts: _Optional[int] = ..., worker: _Optional[str] = ..., since_s: _Optional[float] = ..., age_s: _Optional[float] = ..., waits_for: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class TasksRequest(_message.Message):
    __slots__ = ("states", "limit")
    STATES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedScalarFieldContainer[_wire_pb2.TaskState]
    limit: int
    def __init__(self, states: _Optional[_Iterable[_Union[_wire_pb2.TaskState, str]]] = ..., limit: _Optional[int] = ...) -> None: ...

class Tasks(_message.Message):
    __slots__ = ("tasks", "total")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[Task]
    total: int
    def __init__(self, tasks: _Optional[_Iterable[_Union[Task, _Mapping]]] = ..., total: _Optional[int] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "worker", "state", "since_s", "hedge", "reason")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    HEDGE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    number: int
    worker: str
    state: str
    since_s: float
    hedge: bool
    reason: str
    def __init__(self, number: _Optional[int] = ..., worker: _Optional[str] = ..., state: _Optional[str] = ..., since_s: _Optional[float] = ..., hedge: _Optional[bool] = ..., reason: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("attempt", "worker", "outcome", "reason", "ago_s")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    AGO_S_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    worker: str
    outcome: str
    reason: str
    ago_s: float
    def __init__(self, attempt: _Optional[int] = ..., worker: _Optional[str] = ..., outcome: _Optional[str] = ..., reason: _Optional[str] = ..., ago_s: _Optional[float] = ...) -> None: ...

class TaskRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class TaskDetail(_message.Message):
    __slots__ = ("task", "attempts", "failures")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    task: Task
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ...) -> None: ...

class TaskClass(_message.Message):
    __slots__ = ("priority", "kind", "tasks", "oldest_s")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    priority: int
    kind: str
    tasks: int
    oldest_s: float
    def __init__(self, priority: _Optional[int] = ..., kind: _Optional[str] = ..., tasks: _Optional[int] = ..., oldest_s: _Optional[float] = ...) -> None: ...

class Lane(_message.Message):
    __slots__ = ("kind", "requires", "tasks", "oldest_s", "reason")
    KIND_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    kind: str
    requires: str
    tasks: int
    oldest_s: float
    reason: str
    def __init__(self, kind: _Optional[str] = ..., requires: _Optional[str] = ..., tasks: _Optional[int] = ..., oldest_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Held(_message.Message):
    __slots__ = ("worker", "tasks", "oldest_s")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    OLDEST_S_FIELD_NUMBER: _ClassVar[int]
    worker: str
    tasks: int
    oldest_s: float
    def __init__(self, worker: _Optional[str] = ..., tasks: _Optional[int] = ..., oldest_s: _Optional[float] = ...) -> None: ...

class Queue(_message.Message):
    __slots__ = ("tasks", "classes", "other_classes", "lanes", "retries", "held", "held_tasks", "counted_s")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    OTHER_CLASSES_FIELD_NUMBER: _ClassVar[int]
    LANES_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    HELD_TASKS_FIELD_NUMBER: _ClassVar[int]
    COUNTED_S_FIELD_NUMBER: _ClassVar[int]
    tasks: int
    classes: _containers.RepeatedCompositeFieldContainer[TaskClass]
    other_classes: int
    lanes: _containers.RepeatedCompositeFieldContainer[Lane]
    retries: int
    held: _containers.RepeatedCompositeFieldContainer[Held]
    held_tasks: int
    counted_s: float
    def __init__(self, tasks: _Optional[int] = ..., classes: _Optional[_Iterable[_Union[TaskClass, _Mapping]]] = ..., other_classes: _Optional[int] = ..., lanes: _Optional[_Iterable[_Union[Lane, _Mapping]]] = ..., retries: _Optional[int] = ..., held: _Optional[_Iterable[_Union[Held, _Mapping]]] = ..., held_tasks: _Optional[int] = ..., counted_s: _Optional[float] = ...) -> None: ...

class QueueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Event(_message.Message):
    __slots__ = ("number", "ago_s", "event", "worker", "task_id", "detail")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    AGO_S_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    number: int
    ago_s: float
    event: str
    worker: str
    task_id: str
    detail: str
    def __init__(self, number: _Optional[int] = ..., ago_s: _Optional[float] = ..., event: _Optional[str] = ..., worker: _Optional[str] = ..., task_id: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("interval_s",)
    INTERVAL_S_FIELD_NUMBER: _ClassVar[int]
    interval_s: float
    def __init__(self, interval_s: _Optional[float] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("term", "up_s", "metrics", "alive", "suspect", "dead", "draining", "slots", "running", "workers", "other_workers", "queue", "deaths", "events")
    TERM_FIELD_NUMBER: _ClassVar[int]
    UP_S_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    ALIVE_FIELD_NUMBER: _ClassVar[int]
    SUSPECT_FIELD_NUMBER: _ClassVar[int]
    DEAD_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    OTHER_WORKERS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DEATHS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    term: int
    up_s: float
    metrics: _wire_pb2.GetMetricsResponse
    alive: int
    suspect: int
    dead: int
    draining: int
    slots: int
    running: int
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    other_workers: int
    queue: Queue
    deaths: int
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, term: _Optional[int] = ..., up_s: _Optional[float] = ..., metrics: _Optional[_Union[_wire_pb2.GetMetricsResponse, _Mapping]] = ..., alive: _Optional[int] = ..., suspect: _Optional[int] = ..., dead: _Optional[int] = ..., draining: _Optional[int] = ..., slots: _Optional[int] = ..., running: _Optional[int] = ..., workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., other_workers: _Optional[int] = ..., queue: _Optional[_Union[Queue, _Mapping]] = ..., deaths: _Optional[int] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("worker",)
    WORKER_FIELD_NUMBER: _ClassVar[int]
    worker: str
    def __init__(self, worker: _Optional[str] = ...) -> None: ...

class DrainAnswer(_message.Message):
    __slots__ = ("incarnation",)
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    def __init__(self, incarnation: _Optional[str] = ...) -> None: ...
