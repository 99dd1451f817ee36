"""Between the messages of our streams and what the state machines speak of; `contract` does it for the wire contract.

Nothing else builds or reads parts of messages. Where there are many, an item is made by `add` inside its message, and
empty texts are left out: an item that is made first and copied then costs twice as much.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from orchestrator.cluster.jobs import Ended, Job
from orchestrator.cluster.wire.frames import ID_CHARACTERS, Malformed, require_id, require_key, require_labels
from orchestrator.cluster.wire.progress import Progress, add_of_client, add_of_worker, some
from orchestrator.cluster.wire.proto import stream_pb2, wire_pb2
from orchestrator.cluster.wire.rpc import Room
from orchestrator.cluster.wire.sizes import key_bytes, keys_bytes, report_bytes
from orchestrator.core.model import Attempt, AttemptKey, Priority, Task, TaskState, TimeLimits

Key = AttemptKey  # on the wire, and in the cluster, a task's id is a string
FromWorker = stream_pb2.FromWorker
ToWorker = stream_pb2.ToWorker
FromClient = stream_pb2.FromClient
KINDS_MAX = 1000
_LOWEST, _HIGHEST = min(Priority), max(Priority)
_LIMITS: tuple[Any, ...] = TimeLimits._fields
NO_LIMITS = TimeLimits()
_STATES = {state.value: state for state in TaskState}
Fields = TypeVar("Fields", bound=tuple[Any, ...])


make: Callable[[type[Fields], tuple[Any, ...]], Fields] = tuple.__new__
"""A named tuple from all its fields. Its own constructor is a function in Python, for which every task would pay."""


class Reported(NamedTuple):
    """A worker's word on an attempt; `attempt` None: its newest of the task. `number`: of the report, among those of
    its process; 0: it came by a call, whose answer is its acknowledgement."""

    task_id: str
    attempt: int | None
    succeeded: bool
    result: str
    error: str
    retryable: bool
    queued_s: float
    ran_s: float
    number: int = 0
    retry_after_s: float = 0.0


class Done(NamedTuple):
    """A finished attempt as its worker reports it; `number`: of the report, the same in every repetition."""

    ended: Ended
    queued_s: float
    number: int


class Assignment(NamedTuple):
    """An attempt on its way to its worker: copied, so that it says what was true when it was assigned."""

    key: Key
    kind: str
    payload: str
    priority: int = Priority.NORMAL


class Introduction(NamedTuple):
    """A worker's registration, as its stream begins. `prefetch`: inf for any number. `term`: of the newest
    coordinator that it has registered with, 0 for none."""

    name: str
    incarnation: str
    capacity: int
    prefetch: float
    held: tuple[Key, ...] = ()
    term: int = 0
    kinds: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


class Registered(NamedTuple):
    """The coordinator's answer to a registration: its term, the rhythm it wants, and what the worker is to stop.
    `silence_s`: after which the worker takes the connection for broken, 0 for never."""

    term: int
    heartbeat_s: float
    call_timeout_s: float
    dropped: tuple[Key, ...] = ()
    silence_s: float = 0.0


class Outcome(NamedTuple):
    """What a client learns of a task. `latency_s`: accepted to settled; to who awaits a submission, from the moment at
    which it was submitted until its result was there."""

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


class Refusal(NamedTuple):
    """Of the task that a client submitted by that number. `exists`: its key is that of a task with other content.
    `busy`: too many tasks wait, and it may be submitted again."""

    number: int
    reason: str
    exists: bool = False
    busy: bool = False


@dataclass(slots=True)
class WorkerNews:
    """What a worker has for its coordinator. `beat`: active, completed."""

    started: deque[Key] = field(default_factory=deque)
    rejected: deque[Key] = field(default_factory=deque)
    cancelled: deque[Key] = field(default_factory=deque)
    confirmed: deque[Key] = field(default_factory=deque)
    reports: deque[tuple[Key, Done]] = field(default_factory=deque)
    progress: dict[Key, Progress] = field(default_factory=dict)
    introduction: Introduction | None = None
    beat: tuple[int, int] | None = None
    draining: bool = False
    leaving: bool = False

    def take(self) -> WorkerNews:
        """What fits into the next message, in the order in which the coordinator reads it; the rest stays."""
        room = Room()
        taken = WorkerNews(introduction=self.introduction, beat=self.beat)
        self.introduction = self.beat = None
        if taken.introduction is not None:
            room.charge(keys_bytes(taken.introduction.held))
        parts: tuple[tuple[deque[Any], deque[Any], Callable[[Any], int]], ...] = (
            (self.started, taken.started, key_bytes),
            (self.rejected, taken.rejected, key_bytes),
            (self.cancelled, taken.cancelled, key_bytes),
            (self.reports, taken.reports, report_bytes),
            (self.confirmed, taken.confirmed, key_bytes),
        )
        for waiting, into, size in parts:
            if waiting:
                into.extend(room.take(waiting, size))
        taken.progress.update(some(self.progress))
        return taken

    @property
    def keys_wait(self) -> bool:
        """Whether there is something to say, of an attempt."""
        return bool(self.started or self.rejected or self.cancelled or self.reports or self.confirmed or self.progress)


def duration_s(seconds: float) -> float:
    """What a stranger claims, where it can be one."""
    return seconds if 0 <= seconds < math.inf else 0.0


def is_priority(value: int) -> bool:
    return _LOWEST <= value <= _HIGHEST


# ---- streams of workers


def to_worker(
    registered: Registered | None,
    acknowledged: Sequence[int],
    assignments: Iterable[Assignment],
    cancels: Iterable[Key],
    recalls: Iterable[Key] = (),
    drain: bool = False,
) -> ToWorker:
    message = ToWorker(acknowledged=acknowledged, drain=drain)
    add = message.assignments.add
    for (task_id, attempt), kind, payload, _ in assignments:
        add(task_id=task_id, attempt=attempt, kind=kind, payload=payload)
    _add_keys(message.cancels, cancels)
    _add_keys(message.recalls, recalls)
    if registered is not None:
        term, heartbeat_s, call_timeout_s, dropped, silence_s = registered
        answer = stream_pb2.Registered(
            term=term, heartbeat_s=heartbeat_s, call_timeout_s=call_timeout_s, silence_s=silence_s
        )
        _add_keys(answer.dropped, dropped)
        message.registered.CopyFrom(answer)
    return message


def registered(message: ToWorker) -> Registered | None:
    """None where the message does not answer a registration."""
    if not message.HasField("registered"):
        return None
    answer = message.registered
    dropped = tuple(_keys(answer.dropped))
    return Registered(answer.term, answer.heartbeat_s, answer.call_timeout_s, dropped, answer.silence_s)


def acknowledged(message: ToWorker) -> Sequence[int]:
    return message.acknowledged


def assigned(message: ToWorker) -> Iterator[Assignment]:
    for item in message.assignments:
        yield Assignment((item.task_id, item.attempt), item.kind, item.payload)


def _keys(items: Sequence[stream_pb2.AttemptKey]) -> Iterable[Key]:
    """Raises Malformed at an id that is too long, once it comes to it."""
    return map(_key, items) if items else ()


def _key(item: stream_pb2.AttemptKey) -> Key:
    task_id = item.task_id
    if len(task_id) > ID_CHARACTERS:
        require_id(task_id, "a task's id")
    return task_id, item.attempt


def registers(message: FromWorker) -> bool:
    return message.HasField("registration")


def introduction(message: FromWorker) -> Introduction | None:
    """None where the message registers nobody. Raises Malformed at an id that is too long."""
    if not message.HasField("registration"):
        return None
    of = message.registration
    require_id(of.incarnation, "an incarnation")
    prefetch = math.inf if of.prefetch < 0 else of.prefetch
    if len(of.kinds) > KINDS_MAX:
        raise Malformed(f"a worker names at most {KINDS_MAX} kinds, not {len(of.kinds)}")
    kinds = tuple(require_id(kind, "a kind") for kind in of.kinds)
    labels = tuple(require_labels(",".join(of.labels)).split(",")) if of.labels else ()
    held = tuple(_keys(of.held))
    return Introduction(of.worker_id, of.incarnation, of.capacity, prefetch, held, of.term, kinds, labels)


def beat(message: FromWorker) -> int | None:
    """The number of attempts that the worker holds, if the message is a heartbeat."""
    return message.beat.active if message.HasField("beat") else None


def from_worker(news: WorkerNews, reports: Iterable[tuple[Key, Done]]) -> FromWorker:
    """`reports`: those of the news that are still wanted."""
    message = FromWorker(draining=news.draining, leaving=news.leaving)
    _add_keys(message.started, news.started)
    _add_keys(message.rejected, news.rejected)
    _add_keys(message.cancelled, news.cancelled)
    _add_keys(message.confirmed, news.confirmed)
    add_of_worker(message, news.progress.items())
    for report in reports:
        _add_report(message, *report)
    if news.introduction is not None:
        name, incarnation, capacity, prefetch, held, term, kinds, labels = news.introduction
        registration = stream_pb2.Registration(
            worker_id=name,
            incarnation=incarnation,
            capacity=capacity,
            prefetch=-1 if prefetch == math.inf else int(prefetch),
            term=term,
            kinds=kinds,
            labels=labels,
        )
        _add_keys(registration.held, held)
        message.registration.CopyFrom(registration)
    if news.beat is not None:
        active, completed = news.beat
        message.beat.CopyFrom(stream_pb2.Beat(active=active, completed=completed))
    return message


def _add_keys(items: Any, keys: Iterable[Key]) -> None:
    """`items`: a message's AttemptKeys."""
    for task_id, attempt in keys:
        items.add(task_id=task_id, attempt=attempt)


def _add_report(message: FromWorker, key: Key, done: Done) -> None:
    (task_id, attempt), (ended, queued_s, number) = key, done
    succeeded, result, error, retryable, ran_s, after_s = ended
    item = message.reports.add(
        task_id=task_id,
        attempt=attempt,
        succeeded=succeeded,
        result=result,
        queued_s=queued_s,
        ran_s=ran_s,
        number=number,
    )
    if error:
        item.error = error
    if retryable:
        item.retryable = retryable
        item.retry_after_s = after_s


def started(message: FromWorker) -> Iterable[Key]:
    return _keys(message.started)


def rejected(message: FromWorker) -> Iterable[Key]:
    return _keys(message.rejected)


def cancelled(message: FromWorker) -> Iterable[Key]:
    return _keys(message.cancelled)


def confirmed(message: FromWorker) -> Iterable[Key]:
    return _keys(message.confirmed)


def cancels(message: ToWorker) -> Iterable[Key]:
    return _keys(message.cancels)


def recalls(message: ToWorker) -> Iterable[Key]:
    return _keys(message.recalls)


def reports(message: FromWorker) -> Iterator[Reported]:
    """Raises Malformed at an id that is too long."""
    for item in message.reports:
        task_id, succeeded = item.task_id, item.succeeded
        if len(task_id) > ID_CHARACTERS:
            require_id(task_id, "a task's id")
        fields = (
            task_id,
            item.attempt or None,
            succeeded,
            item.result,
            "" if succeeded else item.error,
            not succeeded and item.retryable,
            duration_s(item.queued_s),
            duration_s(item.ran_s),
            item.number,
            0.0 if succeeded else duration_s(item.retry_after_s),
        )
        yield make(Reported, fields)


# ---- streams of clients


def session(message: FromClient) -> str:
    """The name that a client gives itself in its first message; empty in the others."""
    return message.session


def submitted(session: str, message: FromClient) -> Iterator[tuple[str, Job, int, TimeLimits | None]]:
    """Each task with its id, its priority and its own limits. Raises Malformed at a key that can't be one."""
    for task in message.tasks:
        key, number = task.key, task.number
        if key:
            require_key(key)
        limits = time_limits(task.limits) if task.HasField("limits") else None
        job = Job(task.kind, task.payload, session, number, key)
        if affinity_key := task.affinity_key:
            job.affinity_key = require_id(affinity_key, "an affinity key")
        if requires := task.requires:
            job.requires = require_labels(requires)
        yield f"{session}-{number}", job, task.priority, limits


def time_limits(message: stream_pb2.TimeLimits | wire_pb2.SubmitTaskRequest) -> TimeLimits | None:
    """None where it has none."""
    limits = TimeLimits(*(getattr(message, name) if message.HasField(name) else None for name in _LIMITS))
    return None if limits == NO_LIMITS else limits


def id_of(session: str, number: int) -> str:
    """Of the task that a client submits by that number, if it is a new one."""
    return f"{session}-{number}"


def from_client(
    session: str, tasks: Iterable[tuple[int, str, str, int, str, TimeLimits | None, str, str]]
) -> FromClient:
    """`tasks`: number, kind, payload, priority, key, limits, affinity key, required labels."""
    message = FromClient(session=session)
    add = message.tasks.add
    for number, kind, payload, priority, key, limits, affinity_key, requires in tasks:
        item = add(number=number, kind=kind, payload=payload, priority=priority)  # the same numbers
        if key:
            item.key = key
        if limits is not None:
            item.limits.CopyFrom(stream_pb2.TimeLimits(**limits._asdict()))
        if affinity_key:
            item.affinity_key = affinity_key
        if requires:
            item.requires = requires
    return message


def cancel_request(task_id: str) -> stream_pb2.CancelTaskRequest:
    return stream_pb2.CancelTaskRequest(task_id=task_id)


def to_client(
    accepted: Sequence[int],
    known: Sequence[tuple[int, str]],
    refused: Sequence[Refusal],
    settled: Iterable[tuple[int, Outcome]],
    progress: Iterable[tuple[int, Progress]] = (),
) -> stream_pb2.ToClient:
    message = stream_pb2.ToClient(accepted=accepted)
    add_of_client(message, progress)
    for number, task_id in known:
        message.known.add(number=number, task_id=task_id)
    for refusal in refused:
        message.refused.add(**refusal._asdict())
    add = message.results.add
    for number, (_, state, result, error, worker_id, attempts, latency_s) in settled:
        item = add(
            number=number,
            state=state,  # the same numbers
            worker_id=worker_id,
            attempts=attempts,
            latency_s=latency_s,
        )
        if result:
            item.result = result
        if error:
            item.error = error
    return message


def accepted(message: stream_pb2.ToClient) -> Sequence[int]:
    return message.accepted


def known(message: stream_pb2.ToClient) -> Iterator[tuple[int, str]]:
    for item in message.known:
        yield item.number, item.task_id


def refused(message: stream_pb2.ToClient) -> Iterator[Refusal]:
    for item in message.refused:
        yield Refusal(item.number, item.reason, item.exists, item.busy)


def outcomes(message: stream_pb2.ToClient) -> Iterator[tuple[int, Outcome]]:
    """Without ids: the client knows them. Raises ValueError at a state that there is not."""
    for item in message.results:
        yield (
            item.number,
            Outcome(
                "",
                _STATES.get(item.state) or TaskState(item.state),
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
    fields = str(task.id), task.state, result, task.error, task.worker_id or "", task.attempt, latency_s
    return make(Outcome, fields)


def assignment_of(attempt: Attempt) -> Assignment:
    task = attempt.task
    job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
    return make(Assignment, ((task.id, attempt.number), job.kind, job.payload, task.priority))
