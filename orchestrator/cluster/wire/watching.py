"""Between the messages of `watch.proto` and the views that they carry: fields of one name hold one thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from orchestrator.cluster import views
from orchestrator.cluster.figures import Metrics
from orchestrator.cluster.wire import contract
from orchestrator.cluster.wire.frames import Malformed, require_id
from orchestrator.cluster.wire.proto import watch_pb2, wire_pb2
from orchestrator.core.model import TaskState, WorkerState

View = TypeVar("View", bound=tuple[Any, ...])

_MESSAGES: dict[type, Any] = {
    views.WorkerView: watch_pb2.Worker,
    views.Workers: watch_pb2.Workers,
    views.TaskView: watch_pb2.Task,
    views.Tasks: watch_pb2.Tasks,
    views.AttemptView: watch_pb2.Attempt,
    views.FailureView: watch_pb2.Failure,
    views.TaskDetail: watch_pb2.TaskDetail,
    views.TaskClass: watch_pb2.TaskClass,
    views.LaneView: watch_pb2.Lane,
    views.HeldView: watch_pb2.Held,
    views.QueueView: watch_pb2.Queue,
    views.EventView: watch_pb2.Event,
    views.Snapshot: watch_pb2.Snapshot,
}
_VIEWS = {message.DESCRIPTOR.full_name: view for view, message in _MESSAGES.items()}
_ENUMS: dict[str, Any] = {
    watch_pb2.WorkerState.DESCRIPTOR.full_name: WorkerState,
    wire_pb2.TaskState.DESCRIPTOR.full_name: TaskState,
}


def message_of(view: tuple[Any, ...]) -> Any:
    """What is None is left out."""
    fields = zip(type(view)._fields, view, strict=True)  # type: ignore[attr-defined]  # it is a named tuple
    return _MESSAGES[type(view)](**{name: _said(value) for name, value in fields if value is not None})


def _said(value: Any) -> Any:
    if isinstance(value, Metrics):
        return contract.metrics_message(value)
    if type(value) in _MESSAGES:
        return message_of(value)
    if isinstance(value, tuple):
        return [_said(each) for each in value]
    return value


def view_of(kind: type[View], message: Any) -> View:
    """The inverse. Raises ValueError at a state that there is not."""
    known = message.DESCRIPTOR.fields_by_name
    return kind(*(_read(message, known[name]) for name in cast(Any, kind)._fields))


def _read(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        return tuple(_meant(each, field) for each in value)
    if field.message_type is None and field.has_presence and not message.HasField(field.name):
        return None
    return _meant(value, field)


def _meant(value: Any, field: Any) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        return view_of(_VIEWS[name], value) if name in _VIEWS else contract.metrics_of(value)
    return _ENUMS[field.enum_type.full_name](value) if field.enum_type is not None else value


# ---- questions


def workers_request(name: str, limit: int) -> watch_pb2.WorkersRequest:
    return watch_pb2.WorkersRequest(name=name, limit=limit)


def wanted_workers(request: watch_pb2.WorkersRequest) -> tuple[str, int]:
    """A name, empty for all, and how many at most. Raises Malformed."""
    return require_id(request.name, "a worker's id"), request.limit


def tasks_request(states: Sequence[TaskState], limit: int) -> watch_pb2.TasksRequest:
    return watch_pb2.TasksRequest(states=states, limit=limit)  # type: ignore[arg-type]  # the same numbers


def wanted_tasks(request: watch_pb2.TasksRequest) -> tuple[frozenset[TaskState], int]:
    """The states, and how many tasks at most. Raises Malformed at a state that there is not."""
    try:
        return frozenset(map(TaskState, request.states)), request.limit
    except ValueError as error:
        raise Malformed(str(error)) from None


def task_request(task_id: str) -> watch_pb2.TaskRequest:
    return watch_pb2.TaskRequest(task_id=task_id)


def queue_request() -> watch_pb2.QueueRequest:
    return watch_pb2.QueueRequest()


def watch_request(interval_s: float) -> watch_pb2.WatchRequest:
    return watch_pb2.WatchRequest(interval_s=interval_s)


def incarnation_of(answer: watch_pb2.DrainAnswer) -> str:
    """Of the worker that drains."""
    return answer.incarnation


def drain_request(worker: str) -> watch_pb2.DrainRequest:
    return watch_pb2.DrainRequest(worker=worker)


def drain_answer(incarnation: str) -> watch_pb2.DrainAnswer:
    return watch_pb2.DrainAnswer(incarnation=incarnation)
