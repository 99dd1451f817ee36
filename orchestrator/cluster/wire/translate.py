"""Between messages on the wire and what the state machines speak of. Nothing else builds or reads their parts."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.cluster.executor import Ended
from orchestrator.cluster.wire.proto import stream_pb2, wire_pb2
from orchestrator.core.model import Attempt, Priority, Task, TaskState

Key = tuple[str, int]  # a task's id and the number of an attempt at it


@dataclass(slots=True)
class Job:
    """A task's payload in the core. `session`, `number`: whose client's stream it came by, empty for none."""

    kind: str
    payload: str
    session: str = ""
    number: int = 0


class Report(NamedTuple):
    """A worker's word on an attempt; `attempt` None: its newest of the task. `number`: of the report, among those of
    its process; 0: it came by a call, whose answer is its acknowledgement."""

    task_id: str
    attempt: int | None
    ended: Ended
    queued_s: float
    number: int = 0


class Done(NamedTuple):
    """A finished attempt as its worker reports it; `number`: of the report, the same in every repetition."""

    ended: Ended
    queued_s: float
    number: int


class Assigned(NamedTuple):
    """An attempt as its worker sees it."""

    key: Key
    kind: str
    payload: str


class Outcome(NamedTuple):
    """What a client learns of a task. `latency_s`: accepted to settled."""

    task_id: str
    state: TaskState
    result: str
    error: str
    worker_id: str
    attempts: int
    latency_s: float

    @property
    def settled(self) -> bool:
        return self.state >= TaskState.COMPLETED


class Metrics(NamedTuple):
    """The fields of GetMetrics; the percentiles are of execution times, over the last completions."""

    throughput_per_s: float
    p50_ms: int
    p95_ms: int
    p99_ms: int
    queue_depth: int
    alive_workers: int
    completed: int
    failed: int


@dataclass(slots=True)
class WorkerNews:
    """What a worker has for its coordinator. `registration`: name, capacity, prefetch; `beat`: active, completed."""

    started: list[Key] = field(default_factory=list)
    rejected: list[Key] = field(default_factory=list)
    cancelled: list[Key] = field(default_factory=list)
    confirmed: list[Key] = field(default_factory=list)
    reports: deque[tuple[Key, Done]] = field(default_factory=deque)
    registration: tuple[str, int, int] | None = None
    beat: tuple[int, int] | None = None
    draining: bool = False
    leaving: bool = False


def _duration(seconds: float) -> float:
    """What a stranger claims, where it can be one."""
    return seconds if 0 <= seconds < math.inf else 0.0


def is_priority(value: int) -> bool:
    return 0 <= value < len(Priority)


# ---- the wire contract


def report_of(result: wire_pb2.TaskResult) -> Report:
    """ValueError for a state that is no end."""
    if result.state not in (wire_pb2.COMPLETED, wire_pb2.FAILED):
        raise ValueError(f"a result's state is COMPLETED or FAILED, not {result.state}")
    succeeded = result.state == wire_pb2.COMPLETED
    ran_s = result.ran_s if result.HasField("ran_s") else result.latency_ms / 1000
    ended = Ended(succeeded, result.result, result.error, result.retryable, _duration(ran_s))
    return Report(result.task_id, result.attempt or None, ended, _duration(result.queued_s))


def result_message(worker_id: str, key: Key, ended: Ended, queued_s: float) -> wire_pb2.ReportResultRequest:
    task_id, attempt = key
    result = wire_pb2.TaskResult(
        task_id=task_id,
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


def assign_message(attempt: Attempt) -> wire_pb2.AssignTaskRequest:
    task, job = attempt.task, _job(attempt.task)
    payload = wire_pb2.TaskPayload(
        task_id=str(task.id),
        priority=task.priority,  # type: ignore[arg-type]  # the same numbers
        payload=job.payload,
        kind=job.kind,
    )
    return wire_pb2.AssignTaskRequest(task=payload, attempt=attempt.number)


def submit_message(kind: str, payload: str, priority: int) -> wire_pb2.SubmitTaskRequest:
    return wire_pb2.SubmitTaskRequest(
        kind=kind,
        payload=payload,
        priority=priority,  # type: ignore[arg-type]  # the same numbers
    )


def status_request(task_id: str) -> wire_pb2.GetTaskStatusRequest:
    return wire_pb2.GetTaskStatusRequest(task_id=task_id)


def metrics_request() -> wire_pb2.GetMetricsRequest:
    return wire_pb2.GetMetricsRequest()


def assigned_by_call(request: wire_pb2.AssignTaskRequest, number: int) -> Assigned:
    """`number` serves where the coordinator gives none."""
    task = request.task
    return Assigned((task.task_id, request.attempt or number), task.kind, task.payload)


def assign_answer(accepted: bool) -> wire_pb2.AssignTaskResponse:
    return wire_pb2.AssignTaskResponse(accepted=accepted)


def registration_message(worker_id: str, address: str, capacity: int) -> wire_pb2.RegisterWorkerRequest:
    return wire_pb2.RegisterWorkerRequest(worker_id=worker_id, address=address, capacity=capacity)


def heartbeat_message(worker_id: str, active: int, completed: int) -> wire_pb2.HeartbeatRequest:
    return wire_pb2.HeartbeatRequest(worker_id=worker_id, active_tasks=active, completed_tasks=completed)


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
    return wire_pb2.GetMetricsResponse(
        throughput_tasks_per_sec=metrics.throughput_per_s,
        p50_latency_ms=metrics.p50_ms,
        p95_latency_ms=metrics.p95_ms,
        p99_latency_ms=metrics.p99_ms,
        queue_depth=metrics.queue_depth,
        alive_workers=metrics.alive_workers,
        total_ok=metrics.completed,
        total_err=metrics.failed,
    )


def metrics_of(message: wire_pb2.GetMetricsResponse) -> Metrics:
    return Metrics(
        message.throughput_tasks_per_sec,
        message.p50_latency_ms,
        message.p95_latency_ms,
        message.p99_latency_ms,
        message.queue_depth,
        message.alive_workers,
        message.total_ok,
        message.total_err,
    )


# ---- streams of workers


def to_worker(
    registered: bool, acknowledged: Sequence[int], assignments: Iterable[Attempt], cancels: Iterable[Attempt]
) -> stream_pb2.ToWorker:
    return stream_pb2.ToWorker(
        registered=registered,
        acknowledged=acknowledged,
        assignments=[_assignment(attempt) for attempt in assignments],
        cancels=[
            stream_pb2.AttemptKey(task_id=attempt.task.id, attempt=attempt.number)  # type: ignore[arg-type]
            for attempt in cancels
        ],
    )


def acknowledged(message: stream_pb2.ToWorker) -> Sequence[int]:
    return message.acknowledged


def assigned(message: stream_pb2.ToWorker) -> Iterator[Assigned]:
    for item in message.assignments:
        yield Assigned((item.task_id, item.attempt), item.kind, item.payload)


def keys(items: Iterable[stream_pb2.AttemptKey]) -> Iterator[Key]:
    for item in items:
        yield item.task_id, item.attempt


def from_worker(news: WorkerNews, reports: Iterable[tuple[Key, Done]]) -> stream_pb2.FromWorker:
    """`reports`: as many of the news' as fit."""
    message = stream_pb2.FromWorker(
        started=_key_messages(news.started),
        rejected=_key_messages(news.rejected),
        cancelled=_key_messages(news.cancelled),
        confirmed=_key_messages(news.confirmed),
        reports=[_report(*report) for report in reports],
        draining=news.draining,
        leaving=news.leaving,
    )
    if news.registration is not None:
        name, capacity, prefetch = news.registration
        message.registration.CopyFrom(stream_pb2.Registration(worker_id=name, capacity=capacity, prefetch=prefetch))
    if news.beat is not None:
        active, completed = news.beat
        message.beat.CopyFrom(stream_pb2.Beat(active=active, completed=completed))
    return message


def _key_messages(keys: Sequence[Key]) -> list[stream_pb2.AttemptKey]:
    return [stream_pb2.AttemptKey(task_id=task_id, attempt=attempt) for task_id, attempt in keys]


def _report(key: Key, done: Done) -> stream_pb2.Report:
    ended = done.ended
    return stream_pb2.Report(
        task_id=key[0],
        attempt=key[1],
        succeeded=ended.succeeded,
        result=ended.result,
        error=ended.error,
        retryable=ended.retryable,
        queued_s=done.queued_s,
        ran_s=ended.ran_s,
        number=done.number,
    )


def reports(message: stream_pb2.FromWorker) -> Iterator[Report]:
    for item in message.reports:
        ended = Ended(item.succeeded, item.result, item.error, item.retryable, _duration(item.ran_s))
        yield Report(item.task_id, item.attempt or None, ended, _duration(item.queued_s), item.number)


# ---- streams of clients


def new_task(number: int, kind: str, payload: str, priority: int) -> stream_pb2.NewTask:
    return stream_pb2.NewTask(
        number=number,
        kind=kind,
        payload=payload,
        priority=priority,  # type: ignore[arg-type]  # the same numbers
    )


def from_client(session: str, tasks: Iterable[stream_pb2.NewTask]) -> stream_pb2.FromClient:
    return stream_pb2.FromClient(session=session, tasks=tasks)


def to_client(
    accepted: Sequence[int], refused: Sequence[tuple[int, str]], settled: Iterable[Task]
) -> stream_pb2.ToClient:
    return stream_pb2.ToClient(
        accepted=accepted,
        refused=[stream_pb2.Refusal(number=number, reason=reason) for number, reason in refused],
        results=[_settled(task) for task in settled],
    )


def accepted(message: stream_pb2.ToClient) -> Sequence[int]:
    return message.accepted


def refused(message: stream_pb2.ToClient) -> Iterator[tuple[int, str]]:
    for item in message.refused:
        yield item.number, item.reason


def outcomes(session: str, message: stream_pb2.ToClient) -> Iterator[tuple[int, Outcome]]:
    for item in message.results:
        yield (
            item.number,
            Outcome(
                f"{session}-{item.number}",
                TaskState(item.state),
                item.result,
                item.error,
                item.worker_id,
                item.attempts,
                item.latency_s,
            ),
        )


def outcome_of(task: Task) -> Outcome:
    latency_s = 0.0 if task.settled_at is None else task.settled_at - task.submitted_at
    result = "" if task.result is None else str(task.result)
    return Outcome(str(task.id), task.state, result, task.error, task.worker_id or "", task.attempt, latency_s)


def _settled(task: Task) -> stream_pb2.Settled:
    _, state, result, error, worker_id, attempts, latency_s = outcome_of(task)
    return stream_pb2.Settled(
        number=_job(task).number,
        state=state,  # type: ignore[arg-type]  # the same numbers
        result=result,
        error=error,
        worker_id=worker_id,
        attempts=attempts,
        latency_s=latency_s,
    )


def _assignment(attempt: Attempt) -> stream_pb2.Assignment:
    job = _job(attempt.task)
    return stream_pb2.Assignment(
        task_id=attempt.task.id,  # type: ignore[arg-type]  # a string in this world
        attempt=attempt.number,
        kind=job.kind,
        payload=job.payload,
    )


def _job(task: Task) -> Job:
    assert isinstance(task.payload, Job)
    return task.payload
