# mypy: disable-error-code=type-arg
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TaskState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PENDING: _ClassVar[TaskState]
    ASSIGNED: _ClassVar[TaskState]
    RUNNING: _ClassVar[TaskState]
    COMPLETED: _ClassVar[TaskState]
    FAILED: _ClassVar[TaskState]

class TaskPriority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOW: _ClassVar[TaskPriority]
    NORMAL: _ClassVar[TaskPriority]
    HIGH: _ClassVar[TaskPriority]
    URGENT: _ClassVar[TaskPriority]
PENDING: TaskState
ASSIGNED: TaskState
RUNNING: TaskState
COMPLETED: TaskState
FAILED: TaskState
LOW: TaskPriority
NORMAL: TaskPriority
HIGH: TaskPriority
URGENT: TaskPriority

class TaskPayload(_message.Message):
    __slots__ = ("task_id", "priority", "payload", "kind")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    priority: TaskPriority
    payload: str
    kind: str
    def __init__(self, task_id: _Optional[str] = ..., priority: _Optional[_Union[TaskPriority, str]] = ..., payload: _Optional[str] = ..., kind: _Optional[str] = ...) -> None: ...

class TaskResult(_message.Message):
    __slots__ = ("task_id", "state", "result", "error", "latency_ms", "attempt", "retryable", "queued_s", "ran_s")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_S_FIELD_NUMBER: _ClassVar[int]
    RAN_S_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: TaskState
    result: str
    error: str
    latency_ms: int
    attempt: int
    retryable: bool
    queued_s: float
    ran_s: float
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., result: _Optional[str] = ..., error: _Optional[str] = ..., latency_ms: _Optional[int] = ..., attempt: _Optional[int] = ..., retryable: _Optional[bool] = ..., queued_s: _Optional[float] = ..., ran_s: _Optional[float] = ...) -> None: ...

class SubmitTaskRequest(_message.Message):
    __slots__ = ("priority", "payload", "kind", "key", "queue_timeout_s", "execution_timeout_s", "deadline_s")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    priority: TaskPriority
    payload: str
    kind: str
    key: str
    queue_timeout_s: float
    execution_timeout_s: float
    deadline_s: float
    def __init__(self, priority: _Optional[_Union[TaskPriority, str]] = ..., payload: _Optional[str] = ..., kind: _Optional[str] = ..., key: _Optional[str] = ..., queue_timeout_s: _Optional[float] = ..., execution_timeout_s: _Optional[float] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class SubmitTaskResponse(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class GetTaskStatusRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...

class GetTaskStatusResponse(_message.Message):
    __slots__ = ("task_id", "state", "result", "error", "latency_ms", "worker_id", "attempts")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    state: TaskState
    result: str
    error: str
    latency_ms: int
    worker_id: str
    attempts: int
    def __init__(self, task_id: _Optional[str] = ..., state: _Optional[_Union[TaskState, str]] = ..., result: _Optional[str] = ..., error: _Optional[str] = ..., latency_ms: _Optional[int] = ..., worker_id: _Optional[str] = ..., attempts: _Optional[int] = ...) -> None: ...

class GetMetricsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PercentilesMs(_message.Message):
    __slots__ = ("p50", "p95", "p99")
    P50_FIELD_NUMBER: _ClassVar[int]
    P95_FIELD_NUMBER: _ClassVar[int]
    P99_FIELD_NUMBER: _ClassVar[int]
    p50: float
    p95: float
    p99: float
    def __init__(self, p50: _Optional[float] = ..., p95: _Optional[float] = ..., p99: _Optional[float] = ...) -> None: ...

class Commits(_message.Message):
    __slots__ = ("per_s", "tasks_each", "latency", "recovery_s")
    PER_S_FIELD_NUMBER: _ClassVar[int]
    TASKS_EACH_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    RECOVERY_S_FIELD_NUMBER: _ClassVar[int]
    per_s: float
    tasks_each: float
    latency: PercentilesMs
    recovery_s: float
    def __init__(self, per_s: _Optional[float] = ..., tasks_each: _Optional[float] = ..., latency: _Optional[_Union[PercentilesMs, _Mapping]] = ..., recovery_s: _Optional[float] = ...) -> None: ...

class GetMetricsResponse(_message.Message):
    __slots__ = ("throughput_tasks_per_sec", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "queue_depth", "alive_workers", "total_ok", "total_err", "execution", "latency", "timeouts", "refused_results", "queue_at_workers", "failed_per_sec", "latency_at_least", "takes_keys", "commits", "queue_timeouts", "missed_deadlines", "refused_submissions")
    THROUGHPUT_TASKS_PER_SEC_FIELD_NUMBER: _ClassVar[int]
    P50_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    P95_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    P99_LATENCY_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    ALIVE_WORKERS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_OK_FIELD_NUMBER: _ClassVar[int]
    TOTAL_ERR_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_RESULTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_AT_WORKERS_FIELD_NUMBER: _ClassVar[int]
    FAILED_PER_SEC_FIELD_NUMBER: _ClassVar[int]
    LATENCY_AT_LEAST_FIELD_NUMBER: _ClassVar[int]
    TAKES_KEYS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIMEOUTS_FIELD_NUMBER: _ClassVar[int]
    MISSED_DEADLINES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    throughput_tasks_per_sec: float
    p50_latency_ms: int
    p95_latency_ms: int
    p99_latency_ms: int
    queue_depth: int
    alive_workers: int
    total_ok: int
    total_err: int
    execution: PercentilesMs
    latency: PercentilesMs
    timeouts: int
    refused_results: int
    queue_at_workers: int
    failed_per_sec: float
    latency_at_least: PercentilesMs
    takes_keys: bool
    commits: Commits
    queue_timeouts: int
    missed_deadlines: int
    refused_submissions: int
    def __init__(self, throughput_tasks_per_sec: _Optional[float] = ..., p50_latency_ms: _Optional[int] = ..., p95_latency_ms: _Optional[int] = ..., p99_latency_ms: _Optional[int] = ..., queue_depth: _Optional[int] = ..., alive_workers: _Optional[int] = ..., total_ok: _Optional[int] = ..., total_err: _Optional[int] = ..., execution: _Optional[_Union[PercentilesMs, _Mapping]] = ..., latency: _Optional[_Union[PercentilesMs, _Mapping]] = ..., timeouts: _Optional[int] = ..., refused_results: _Optional[int] = ..., queue_at_workers: _Optional[int] = ..., failed_per_sec: _Optional[float] = ..., latency_at_least: _Optional[_Union[PercentilesMs, _Mapping]] = ..., takes_keys: _Optional[bool] = ..., commits: _Optional[_Union[Commits, _Mapping]] = ..., queue_timeouts: _Optional[int] = ..., missed_deadlines: _Optional[int] = ..., refused_submissions: _Optional[int] = ...) -> None: ...

class AssignTaskRequest(_message.Message):
    __slots__ = ("task", "attempt")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task: TaskPayload
    attempt: int
    def __init__(self, task: _Optional[_Union[TaskPayload, _Mapping]] = ..., attempt: _Optional[int] = ...) -> None: ...

class AssignTaskResponse(_message.Message):
    __slots__ = ("accepted",)
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    def __init__(self, accepted: _Optional[bool] = ...) -> None: ...

class RegisterWorkerRequest(_message.Message):
    __slots__ = ("worker_id", "address", "capacity")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    address: str
    capacity: int
    def __init__(self, worker_id: _Optional[str] = ..., address: _Optional[str] = ..., capacity: _Optional[int] = ...) -> None: ...

class RegisterWorkerResponse(_message.Message):
    __slots__ = ("success", "heartbeat_s")
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    success: bool
    heartbeat_s: float
    def __init__(self, success: _Optional[bool] = ..., heartbeat_s: _Optional[float] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("worker_id", "active_tasks", "completed_tasks")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_TASKS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_TASKS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    active_tasks: int
    completed_tasks: int
    def __init__(self, worker_id: _Optional[str] = ..., active_tasks: _Optional[int] = ..., completed_tasks: _Optional[int] = ...) -> None: ...

class HeartbeatResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: _Optional[bool] = ...) -> None: ...

class ReportResultRequest(_message.Message):
    __slots__ = ("worker_id", "result")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    result: TaskResult
    def __init__(self, worker_id: _Optional[str] = ..., result: _Optional[_Union[TaskResult, _Mapping]] = ...) -> None: ...

class ReportResultResponse(_message.Message):
    __slots__ = ("acknowledged",)
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    acknowledged: bool
    def __init__(self, acknowledged: _Optional[bool] = ...) -> None: ...
