"""Between messages of the wire contract and what the state machines speak of; `translate` serves our streams."""

from __future__ import annotations

from typing import Literal

from orchestrator.cluster.figures import Commits, Metrics, Percentiles
from orchestrator.cluster.jobs import Ended, Job
from orchestrator.cluster.wire.frames import Malformed, require_id, require_key
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.cluster.wire.translate import (
    Assignment,
    Key,
    Outcome,
    Reported,
    duration_s,
    outcome_of,
    time_limits,
)
from orchestrator.core.model import Task, TaskState, TimeLimits


def report_of(request: wire_pb2.ReportResultRequest) -> tuple[str, Reported]:
    """The worker's name, and what it reports. Malformed for a state that is no end, and for ids that are too long."""
    result = request.result
    if result.state not in (wire_pb2.COMPLETED, wire_pb2.FAILED):
        raise Malformed(f"a result's state is COMPLETED or FAILED, not {result.state}")
    require_id(result.task_id, "a task's id")
    succeeded = result.state == wire_pb2.COMPLETED
    ran_s = result.ran_s if result.HasField("ran_s") else result.latency_ms / 1000
    reported = Reported(
        result.task_id,
        result.attempt or None,
        succeeded,
        result.result,
        result.error,
        result.retryable,
        duration_s(result.queued_s),
        duration_s(ran_s),
    )
    return require_id(request.worker_id, "a worker's id"), reported


def result_message(worker_id: str, key: Key, ended: Ended, queued_s: float) -> wire_pb2.ReportResultRequest:
    task_id, attempt = key
    result = wire_pb2.TaskResult(
        task_id=task_id,  # type: ignore[arg-type]
        state=wire_pb2.COMPLETED if ended.succeeded else wire_pb2.FAILED,
        result=ended.result,
        error=ended.error,
        latency_ms=round(ended.ran_s * 1000),
        attempt=attempt,
        retryable=ended.retryable,
        queued_s=queued_s,
        ran_s=ended.ran_s,
    )
    return wire_pb2.ReportResultRequest(worker_id=worker_id, result=result)


def assign_message(assignment: Assignment) -> wire_pb2.AssignTaskRequest:
    (task_id, attempt), kind, payload, priority = assignment
    task = wire_pb2.TaskPayload(
        task_id=task_id,  # type: ignore[arg-type]
        priority=priority,  # type: ignore[arg-type]  # the same numbers
        payload=payload,
        kind=kind,
    )
    return wire_pb2.AssignTaskRequest(task=task, attempt=attempt)


def submit_message(
    kind: str, payload: str, priority: int, key: str = "", limits: TimeLimits | None = None
) -> wire_pb2.SubmitTaskRequest:
    return wire_pb2.SubmitTaskRequest(
        kind=kind,
        payload=payload,
        priority=priority,  # type: ignore[arg-type]  # the same numbers
        key=key,
        **(limits._asdict() if limits else {}),
    )


def takes_keys(metrics: wire_pb2.GetMetricsResponse | None) -> bool:
    """Whether the coordinator knows a submission that is made again by its key."""
    return metrics is not None and metrics.takes_keys


def job_of(request: wire_pb2.SubmitTaskRequest) -> tuple[Job, int, TimeLimits | None]:
    """With its priority and its own limits. Raises Malformed at a key that can't be one."""
    job = Job(request.kind, request.payload, key=require_key(request.key))
    return job, request.priority, time_limits(request)


def submit_answer(task_id: str) -> wire_pb2.SubmitTaskResponse:
    return wire_pb2.SubmitTaskResponse(task_id=task_id)


def status_request(task_id: str) -> wire_pb2.GetTaskStatusRequest:
    return wire_pb2.GetTaskStatusRequest(task_id=task_id)


def metrics_request() -> wire_pb2.GetMetricsRequest:
    return wire_pb2.GetMetricsRequest()


def assigned(request: wire_pb2.AssignTaskRequest, number: int) -> Assignment:
    """`number` serves where the coordinator gives none."""
    task = request.task
    return Assignment((task.task_id, request.attempt or number), task.kind, task.payload, task.priority)


def assign_answer(accepted: bool) -> wire_pb2.AssignTaskResponse:
    return wire_pb2.AssignTaskResponse(accepted=accepted)


def registration_message(worker_id: str, address: str, capacity: int) -> wire_pb2.RegisterWorkerRequest:
    return wire_pb2.RegisterWorkerRequest(worker_id=worker_id, address=address, capacity=capacity)


def registration_of(request: wire_pb2.RegisterWorkerRequest) -> tuple[str, str, int]:
    """Name, address, capacity."""
    return request.worker_id, request.address, request.capacity


def registration_answer(heartbeat_s: float) -> wire_pb2.RegisterWorkerResponse:
    return wire_pb2.RegisterWorkerResponse(success=True, heartbeat_s=heartbeat_s)


def heartbeat_message(worker_id: str, active: int, completed: int) -> wire_pb2.HeartbeatRequest:
    return wire_pb2.HeartbeatRequest(worker_id=worker_id, active_tasks=active, completed_tasks=completed)


def heartbeat_of(request: wire_pb2.HeartbeatRequest) -> tuple[str, int]:
    """Name, attempts that it holds. Raises Malformed at a name that is too long."""
    return require_id(request.worker_id, "a worker's id"), request.active_tasks


def heartbeat_answer(known: bool) -> wire_pb2.HeartbeatResponse:
    return wire_pb2.HeartbeatResponse(acknowledged=known)


def report_answer(known: bool) -> wire_pb2.ReportResultResponse:
    return wire_pb2.ReportResultResponse(acknowledged=known)


def status_message(task: Task) -> wire_pb2.GetTaskStatusResponse:
    outcome = outcome_of(task)
    return wire_pb2.GetTaskStatusResponse(
        task_id=outcome.task_id,
        state=outcome.state,  # type: ignore[arg-type]  # the same numbers
        result=outcome.result,
        error=outcome.error,
        latency_ms=round(outcome.latency_s * 1000),
        worker_id=outcome.worker_id,
        attempts=outcome.attempts,
    )


def outcome_of_status(status: wire_pb2.GetTaskStatusResponse) -> Outcome:
    return Outcome(
        status.task_id,
        TaskState(status.state),
        status.result,
        status.error,
        status.worker_id,
        status.attempts,
        status.latency_ms / 1000,
    )


def metrics_message(metrics: Metrics) -> wire_pb2.GetMetricsResponse:
    message = wire_pb2.GetMetricsResponse(
        throughput_tasks_per_sec=metrics.throughput_per_s,
        failed_per_sec=metrics.failed_per_s,
        queue_depth=metrics.queue_depth,
        queue_at_workers=metrics.queue_at_workers,
        alive_workers=metrics.alive_workers,
        total_ok=metrics.completed,
        total_err=metrics.failed,
        timeouts=metrics.timeouts,
        refused_results=metrics.refused_results,
        queue_timeouts=metrics.queue_timeouts,
        missed_deadlines=metrics.missed_deadlines,
        refused_submissions=metrics.refused_submissions,
        latency=_percentiles_message(metrics.latency_ms),
        latency_at_least=_percentiles_message(metrics.latency_at_least_ms),
        execution=_percentiles_message(metrics.execution_ms),
        takes_keys=True,
    )
    if metrics.commits is not None:
        per_s, tasks_each, latency_ms, recovery_s = metrics.commits
        latency = _percentiles_message(latency_ms)
        commits = wire_pb2.Commits(per_s=per_s, tasks_each=tasks_each, latency=latency, recovery_s=recovery_s)
        message.commits.CopyFrom(commits)
    if metrics.execution_ms is not None:
        rounded = (round(value or 0) for value in metrics.execution_ms)
        message.p50_latency_ms, message.p95_latency_ms, message.p99_latency_ms = rounded
    return message


def _percentiles_message(percentiles: Percentiles | None) -> wire_pb2.PercentilesMs | None:
    return None if percentiles is None else wire_pb2.PercentilesMs(**percentiles._asdict())


def metrics_of(message: wire_pb2.GetMetricsResponse) -> Metrics:
    execution = _percentiles_of(message, "execution")
    if execution is None and (message.total_ok or message.total_err):
        execution = Percentiles(message.p50_latency_ms, message.p95_latency_ms, message.p99_latency_ms)
    return Metrics(
        message.throughput_tasks_per_sec,
        message.failed_per_sec if message.HasField("failed_per_sec") else None,
        _percentiles_of(message, "latency"),
        _percentiles_of(message, "latency_at_least"),
        execution,
        message.queue_depth,
        message.queue_at_workers if message.HasField("queue_at_workers") else None,
        message.alive_workers,
        message.total_ok,
        message.total_err,
        message.timeouts,
        message.refused_results,
        message.queue_timeouts,
        message.missed_deadlines,
        message.refused_submissions,
        _commits_of(message.commits) if message.HasField("commits") else None,
    )


def _commits_of(message: wire_pb2.Commits) -> Commits:
    tasks_each = message.tasks_each if message.HasField("tasks_each") else None
    return Commits(message.per_s, tasks_each, _percentiles_of(message, "latency"), message.recovery_s)


def _percentiles_of(
    message: wire_pb2.GetMetricsResponse | wire_pb2.Commits, name: Literal["latency", "latency_at_least", "execution"]
) -> Percentiles | None:
    if not message.HasField(name):
        return None
    told = getattr(message, name)
    return Percentiles(*(getattr(told, each) if told.HasField(each) else None for each in Percentiles._fields))
