"""What a client asks of the cluster itself: its workers, tasks and queue; and how it has a worker drain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Coroutine, Iterator
from typing import Any, TypeVar

import grpc
import grpc.aio

from orchestrator.cluster.link import UNANSWERED, Link
from orchestrator.cluster.submitting import DEADLINE_S
from orchestrator.cluster.views import (
    Lost,
    QueueView,
    Snapshot,
    Some,
    TaskDetail,
    Tasks,
    TaskView,
    Workers,
    WorkerView,
)
from orchestrator.cluster.wire import rpc, watching
from orchestrator.core.model import TaskState, WorkerState

Code = grpc.StatusCode
T = TypeVar("T")
LIMIT = 1000
SILENT_S = 5.0
"""One who watches makes another connection, when nothing comes for so long and for three intervals."""
LOOK_S = (0.05, 1.0)
"""Between two looks whether a worker has left, at first and at most."""
GONE_S = 5.0
"""A worker that drained, and that the coordinator does not know for so long, has left: before, the coordinator may be a
new one, which its workers are still dialling."""


class Undrained(Exception):
    """A worker that can't be told to drain, or that did not leave as one does that drains. One sentence."""


class AsyncViews:
    """The part of an AsyncClient that looks at the cluster. Questions raise AioRpcError where the coordinator can't be
    reached, or knows none of these (UNIMPLEMENTED)."""

    address: str
    _link: Link

    async def workers(self, limit: int = LIMIT) -> Some[WorkerView]:
        """Those that have not left, by their names; `limit`: at most 1,000."""
        answer = watching.view_of(Workers, await self._ask("GetWorkers", watching.workers_request("", limit)))
        return Some(*answer)

    async def worker(self, name: str) -> WorkerView | None:
        """None for one that the coordinator does not know. One that has left it knows for an hour."""
        answer = watching.view_of(Workers, await self._ask("GetWorkers", watching.workers_request(name, 1)))
        return next(iter(answer.workers), None)

    async def tasks(self, state: TaskState | str | None = None, limit: int = LIMIT) -> Some[TaskView]:
        """Those in that state ("running", say); if none is given, all that are not settled. Settled ones come newest
        first, the others oldest first; `limit`: at most 1,000. ValueError for a state that there is not."""
        states = [] if state is None else [_state(state)]
        answer = watching.view_of(Tasks, await self._ask("GetTasks", watching.tasks_request(states, limit)))
        return Some(*answer)

    async def task(self, task_id: str) -> TaskDetail:
        """By its id or its key: where it is, or why it waits. KeyError for one that the coordinator does not know."""
        try:
            return watching.view_of(TaskDetail, await self._ask("GetTask", watching.task_request(task_id)))
        except grpc.aio.AioRpcError as error:
            if error.code() is Code.NOT_FOUND:
                raise KeyError(task_id) from None
            raise

    async def queue(self) -> QueueView:
        """What waits at the coordinator, and at workers."""
        return watching.view_of(QueueView, await self._ask("GetQueue", watching.queue_request()))

    async def drain(self, name: str, wait: bool = True) -> None:
        """The worker finishes what it has begun, hands back the rest, and leaves, as at SIGTERM. `wait`: until it has
        left. Raises Undrained."""
        async for _ in self.draining(name):
            if not wait:
                return

    async def draining(self, name: str) -> AsyncIterator[WorkerView]:
        """The same: the worker as it is while it drains, until it has left. Who stops listening does not stop it."""
        incarnation = await self._tell_to_drain(name)
        known_at = asyncio.get_running_loop().time()
        for pause_s in _pauses():
            with contextlib.suppress(_Unanswered):
                worker = await _answered(self.worker(name))
                now = asyncio.get_running_loop().time()
                if worker is None:
                    if now - known_at >= GONE_S:
                        return
                else:
                    known_at = now
                    if worker.incarnation != incarnation or worker.state is WorkerState.LEFT:
                        return
                    if worker.state is WorkerState.DEAD:
                        raise Undrained(f"worker {name} was declared dead while it drained")
                    if worker.state is WorkerState.ALIVE and not worker.draining:  # to another coordinator
                        with contextlib.suppress(Undrained):
                            await _answered(self._tell_to_drain(name))
                    yield worker
            await asyncio.sleep(pause_s)

    async def _tell_to_drain(self, name: str) -> str:
        try:
            return watching.incarnation_of(await self._ask("Drain", watching.drain_request(name)))
        except grpc.aio.AioRpcError as error:
            if error.code() in (Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT):
                raise Undrained(error.details()) from None
            raise

    async def _ask(self, method: str, request: Any) -> Any:
        return await self._link.ask_again(lambda: getattr(self._link.views, method)(request, timeout=DEADLINE_S))

    def watch(self, interval_s: float = 1.0) -> AsyncGenerator[Snapshot | Lost]:
        """The cluster at once and after each interval. A coordinator that is lost is dialled again, for ever: there is
        a Lost, and later a Snapshot again. Raises AioRpcError where it can't be watched."""
        return watch(self.address, interval_s)


class Views:
    """The part of a Client that looks at the cluster: an AsyncClient's, for callers without an event loop."""

    _views: AsyncViews

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError

    def workers(self, limit: int = LIMIT) -> Some[WorkerView]:
        return self._do(self._views.workers(limit))

    def tasks(self, state: TaskState | str | None = None, limit: int = LIMIT) -> Some[TaskView]:
        return self._do(self._views.tasks(state, limit))

    def task(self, task_id: str) -> TaskDetail:
        return self._do(self._views.task(task_id))

    def queue(self) -> QueueView:
        return self._do(self._views.queue())

    def drain(self, name: str, wait: bool = True) -> None:
        self._do(self._views.drain(name, wait))


def _state(given: TaskState | str) -> TaskState:
    if isinstance(given, TaskState):
        return given
    if given.upper() not in TaskState.__members__:
        names = ", ".join(name.lower() for name in TaskState.__members__)
        raise ValueError(f"no task is {given!r:.80}, expected one of {names}")
    return TaskState[given.upper()]


class _Unanswered(Exception):
    """The coordinator can't be reached at present."""


async def _answered(question: Awaitable[T]) -> T:
    try:
        return await question
    except grpc.aio.AioRpcError as error:
        if error.code() in UNANSWERED:
            raise _Unanswered from None
        raise


def _pauses() -> Iterator[float]:
    pause_s, most_s = LOOK_S
    while True:
        yield pause_s
        pause_s = min(most_s, 1.5 * pause_s)


async def watch(address: str, interval_s: float) -> AsyncGenerator[Snapshot | Lost]:
    ever = False
    growing = rpc.pauses()
    patience_s = max(SILENT_S, 3 * interval_s)
    while True:
        async with rpc.channel(address) as channel:
            call = rpc.Stub(channel, rpc.CLUSTER_VIEW).Watch(watching.watch_request(interval_s))
            try:
                async for snapshot in _in_time(call, patience_s):
                    ever, growing = True, rpc.pauses()
                    yield snapshot
                reason = "it ended the stream"
            except TimeoutError:
                reason = f"nothing was heard for {patience_s:g} s"
            except grpc.aio.AioRpcError as error:
                if error.code() in (Code.UNIMPLEMENTED, Code.INVALID_ARGUMENT):
                    raise
                reason = error.details() or error.code().name
            finally:
                call.cancel()
        yield Lost(reason, ever)
        await asyncio.sleep(next(growing))


async def _in_time(call: Any, patience_s: float) -> AsyncIterator[Snapshot]:
    """Raises TimeoutError at a silence."""
    while True:
        async with asyncio.timeout(patience_s):
            message = await call.read()
        if message is grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs have it not
            return
        if message is not None:
            yield watching.view_of(Snapshot, message)
