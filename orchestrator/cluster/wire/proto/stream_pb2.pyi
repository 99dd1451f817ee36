# mypy: disable-error-code=type-arg
from orchestrator.cluster.wire.proto import wire_pb2 as _wire_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Registration(_message.Message):
    __slots__ = ("worker_id", "capacity", "prefetch", "incarnation", "held", "term", "kinds", "labels")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_FIELD_NUMBER: _ClassVar[int]
    PREFETCH_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    capacity: int
    prefetch: int
    incarnation: str
    held: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    term: int
    kinds: _containers.RepeatedScalarFieldContainer[str]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, worker_id: _Optional[str] = ..., capacity: _Optional[int] = ..., prefetch: _Optional[int] = ..., incarnation: _Optional[str] = ..., held: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., term: _Optional[int] = ..., kinds: _Optional[_Iterable[str]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...

class Registered(_message.Message):
    __slots__ = ("term", "heartbeat_s", "call_timeout_s", "dropped", "silence_s")
    TERM_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    CALL_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    SILENCE_S_FIELD_NUMBER: _ClassVar[int]
    term: int
    heartbeat_s: float
    call_timeout_s: float
    dropped: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    silence_s: float
    def __init__(self, term: _Optional[int] = ..., heartbeat_s: _Optional[float] = ..., call_timeout_s: _Optional[float] = ..., dropped: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., silence_s: _Optional[float] = ...) -> None: ...

class AttemptKey(_message.Message):
    __slots__ = ("task_id", "attempt")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    attempt: int
    def __init__(self, task_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("task_id", "attempt", "succeeded", "result", "error", "retryable", "queued_s", "ran_s", "number", "retry_after_s")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_S_FIELD_NUMBER: _ClassVar[int]
    RAN_S_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    attempt: int
    succeeded: bool
    result: str
    error: str
    retryable: bool
    queued_s: float
    ran_s: float
    number: int
    retry_after_s: float
    def __init__(self, task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., succeeded: _Optional[bool] = ..., result: _Optional[str] = ..., error: _Optional[str] = ..., retryable: _Optional[bool] = ..., queued_s: _Optional[float] = ..., ran_s: _Optional[float] = ..., number: _Optional[int] = ..., retry_after_s: _Optional[float] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("task_id", "attempt", "share", "text")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    attempt: int
    share: float
    text: str
    def __init__(self, task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., share: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("active", "completed")
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_FIELD_NUMBER: _ClassVar[int]
    active: int
    completed: int
    def __init__(self, active: _Optional[int] = ..., completed: _Optional[int] = ...) -> None: ...

class FromWorker(_message.Message):
    __slots__ = ("started", "rejected", "cancelled", "reports", "registration", "beat", "draining", "leaving", "progress", "confirmed")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    started: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    rejected: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    cancelled: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    registration: Registration
    beat: Beat
    draining: bool
    leaving: bool
    progress: _containers.RepeatedCompositeFieldContainer[Progress]
    confirmed: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    def __init__(self, started: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., cancelled: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., registration: _Optional[_Union[Registration, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., draining: _Optional[bool] = ..., leaving: _Optional[bool] = ..., progress: _Optional[_Iterable[_Union[Progress, _Mapping]]] = ..., confirmed: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("task_id", "attempt", "kind", "payload")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    attempt: int
    kind: str
    payload: str
    def __init__(self, task_id: _Optional[str] = ..., attempt: _Optional[int] = ..., kind: _Optional[str] = ..., payload: _Optional[str] = ...) -> None: ...

class ToWorker(_message.Message):
    __slots__ = ("registered", "acknowledged", "assignments", "cancels", "recalls", "drain")
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    CANCELS_FIELD_NUMBER: _ClassVar[int]
    RECALLS_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    registered: Registered
    acknowledged: _containers.RepeatedScalarFieldContainer[int]
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    cancels: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    recalls: _containers.RepeatedCompositeFieldContainer[AttemptKey]
    drain: bool
    def __init__(self, registered: _Optional[_Union[Registered, _Mapping]] = ..., acknowledged: _Optional[_Iterable[int]] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., cancels: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., recalls: _Optional[_Iterable[_Union[AttemptKey, _Mapping]]] = ..., drain: _Optional[bool] = ...) -> None: ...

class TimeLimits(_message.Message):
    __slots__ = ("queue_timeout_s", "execution_timeout_s", "deadline_s")
    QUEUE_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    queue_timeout_s: float
    execution_timeout_s: float
    deadline_s: float
    def __init__(self, queue_timeout_s: _Optional[float] = ..., execution_timeout_s: _Optional[float] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class NewTask(_message.Message):
    __slots__ = ("number", "priority", "kind", "payload", "key", "limits", "affinity_key", "requires")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_KEY_FIELD_NUMBER: _ClassVar[int]
    REQUIRES_FIELD_NUMBER: _ClassVar[int]
    number: int
    priority: _wire_pb2.TaskPriority
    kind: str
    payload: str
    key: str
    limits: TimeLimits
    affinity_key: str
    requires: str
    def __init__(self, number: _Optional[int] = ..., priority: _Optional[_Union[_wire_pb2.TaskPriority, str]] = ..., kind: _Optional[str] = ..., payload: _Optional[str] = ..., key: _Optional[str] = ..., limits: _Optional[_Union[TimeLimits, _Mapping]] = ..., affinity_key: _Optional[str] = ..., requires: _Optional[str] = ...) -> None: ...

class FromClient(_message.Message):
    __slots__ = ("session", "tasks")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    session: str
    tasks: _containers.RepeatedCompositeFieldContainer[NewTask]
    def __init__(self, session: _Optional[str] = ..., tasks: _Optional[_Iterable[_Union[NewTask, _Mapping]]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("number", "reason", "exists", "busy")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    number: int
    reason: str
    exists: bool
    busy: bool
    def __init__(self, number: _Optional[int] = ..., reason: _Optional[str] = ..., exists: _Optional[bool] = ..., busy: _Optional[bool] = ...) -> None: ...

class Settled(_message.Message):
    __slots__ = ("number", "state", "result", "error", "worker_id", "attempts", "latency_s")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_S_FIELD_NUMBER: _ClassVar[int]
    number: int
    state: _wire_pb2.TaskState
    result: str
    error: str
    worker_id: str
    attempts: int
    latency_s: float
    def __init__(self, number: _Optional[int] = ..., state: _Optional[_Union[_wire_pb2.TaskState, str]] = ..., result: _Optional[str] = ..., error: _Optional[str] = ..., worker_id: _Optional[str] = ..., attempts: _Optional[int] = ..., latency_s: _Optional[float] = ...) -> None: ...

class Known(_message.Message):
    __slots__ = ("number", "task_id")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    number: int
    task_id: str
    def __init__(self, number: _Optional[int] = ..., task_id: _Optional[str] = ...) -> None: ...

class TaskProgress(_message.Message):
    __slots__ = ("number", "share", "text")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    number: int
    share: float
    text: str
    def __init__(self, number: _Optional[int] = ..., share: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class ToClient(_message.Message):
    __slots__ = ("accepted", "refused", "results", "known", "progress")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    accepted: _containers.RepeatedScalarFieldContainer[int]
    refused: _containers.RepeatedCompositeFieldContainer[Refusal]
    results: _containers.RepeatedCompositeFieldContainer[Settled]
    known: _containers.RepeatedCompositeFieldContainer[Known]
    progress: _containers.RepeatedCompositeFieldContainer[TaskProgress]
    def __init__(self, accepted: _Optional[_Iterable[int]] = ..., refused: _Optional[_Iterable[_Union[Refusal, _Mapping]]] = ..., results: _Optional[_Iterable[_Union[Settled, _Mapping]]] = ..., known: _Optional[_Iterable[_Union[Known, _Mapping]]] = ..., progress: _Optional[_Iterable[_Union[TaskProgress, _Mapping]]] = ...) -> None: ...

class CancelTaskRequest(_message.Message):
    __slots__ = ("task_id",)
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    def __init__(self, task_id: _Optional[str] = ...) -> None: ...
