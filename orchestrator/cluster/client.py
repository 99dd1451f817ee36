"""Clients: submit tasks, and learn how they ended.

A client holds one stream to its coordinator, by which submissions go out in batches and results come back as they
happen. A stream that breaks is dialled again, and what is not settled is submitted again: the coordinator knows it,
or, being a new process, executes it (again). Where the coordinator offers no streams, the client polls.

What the coordinator refuses while too many tasks wait there is submitted again after pauses that grow, and the client
says so in a line of the log.

Whoever cancels a future of a task cancels the task: the coordinator is told, and a worker that runs it stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar, overload

import grpc
import grpc.aio

from orchestrator.cluster.app import Task
from orchestrator.cluster.figures import Metrics
from orchestrator.cluster.futures import AsyncCall, AsyncCalls, Call, Calls, TaskFailed, TaskFuture, copied, required
from orchestrator.cluster.link import Link
from orchestrator.cluster.resubmitting import Resubmissions
from orchestrator.cluster.shown import Shown
from orchestrator.cluster.silence import Silence
from orchestrator.cluster.submissions import (
    CoordinatorStopped,
    KeyTaken,
    NewTask,
    Overloaded,
    Submission,
    TaskRefused,
    Unanswered,
    checked,
)
from orchestrator.cluster.submitting import DEADLINE_S, NoStreams, Polling, Streaming, Unsettled, Way
from orchestrator.cluster.view_client import AsyncViews, Undrained, Views
from orchestrator.cluster.wire import contract, translate
from orchestrator.cluster.wire.rpc import last_turns, pauses
from orchestrator.cluster.wire.translate import Outcome

__all__ = [
    "AsyncClient",
    "Client",
    "CoordinatorStopped",
    "KeyTaken",
    "NewTask",
    "Overloaded",
    "Submission",
    "TaskFailed",
    "TaskRefused",
    "Unanswered",
    "Undrained",
]

log = logging.getLogger("orchestrator.client")

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
CANCELS_AT_ONCE = 64
PARTING_S = 2.0
"""For how long a client that ends waits until its coordinator knows what was cancelled."""


class AsyncClient(Shown, AsyncCalls, AsyncViews):
    """Asynchronous; use as `async with AsyncClient(address) as client`. `contract`: do not try streams.

    What it has submitted goes on after the block, and what is not settled by then is cancelled here only.

    `give_up_after_s`: a task that the coordinator refuses for so long, because too many wait, raises Overloaded; None:
    it is submitted again for ever.
    """

    def __init__(
        self, address: str = "localhost:50051", *, contract: bool = False, give_up_after_s: float | None = None
    ) -> None:
        self.address = address
        self._contract = contract
        self._give_up_after_s = give_up_after_s
        self._unsettled: Unsettled = {}

    async def __aenter__(self) -> AsyncClient:
        self._loop = asyncio.get_running_loop()
        self._link = Link(self.address)
        self._silence = Silence(self.address, log)
        self._submitted = 0
        self._unsettled = {}
        way: type[Polling | Streaming] = Polling if self._contract else Streaming
        self._resubmissions = Resubmissions(self.address, self._give_up_after_s, log)
        self._way: Way = way(self._link, self._unsettled, self._silence, self._resubmissions)
        self._cancelling: set[asyncio.Task[None]] = set()
        self._cancels = asyncio.Semaphore(CANCELS_AT_ONCE)
        self._running = self._loop.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._cancelling and not self._running.done():
            await asyncio.wait(self._cancelling, timeout=PARTING_S)
        self._running.cancel()
        for task in self._cancelling:
            task.cancel()
        self._silence.close()
        self._resubmissions.close()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        finally:
            for submission in list(self._unsettled.values()):  # nobody would ever tell whoever waits for one
                submission.id.cancel()
                submission.cancel()
            await self._link.close()

    def _facts(self) -> dict[str, str]:
        running: asyncio.Task[None] | None = getattr(self, "_running", None)  # there is none before `async with`
        if running is not None and running.done() and not running.cancelled():
            return {"address": self.address, "state": "failed", "error": str(running._exception)}
        if running is None:
            state = "not begun"
        elif running.done():
            state = "closed"
        else:
            state = "connected" if self._silence.over else "not connected"
        return {"address": self.address, "state": state, "unsettled": str(len(self._unsettled))}

    @overload
    def submit(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> AsyncCall[R]: ...
    @overload
    def submit(
        self,
        payload: str,
        priority: int = ...,
        kind: str = ...,
        key: str = ...,
        queue_timeout_s: float | None = ...,
        execution_timeout_s: float | None = ...,
        deadline_s: float | None = ...,
        affinity_key: str = ...,
        requires: Mapping[str, str] | str = ...,
    ) -> Submission: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it takes whatever there is
        """A task of an App with its arguments: its value. Or what a NewTask is made of, as `submit_batch`."""
        if args and callable(args[0]):
            return self.submit_calls([Call(required(args[0]), args[1:], kwargs)])[0]
        return self.submit_batch([NewTask(*args, **kwargs)])[0]

    def submit_batch(self, tasks: Iterable[NewTask]) -> list[Submission]:
        """Sent as fast as the coordinator takes them; await `submission.id` to know that one has been accepted.

        Raises TypeError or ValueError where one of the tasks can't be sent; then none is.
        """
        if self._running.done():
            raise self._running.exception() or RuntimeError("the client is closed")
        tasks = [checked(task) for task in tasks]
        loop, forsake, now = self._loop, self._forsake, self._loop.time()
        first = self._submitted + 1
        submissions = [Submission(task, number, now, forsake, loop) for number, task in enumerate(tasks, first)]
        self._unsettled.update(enumerate(submissions, first))
        self._submitted += len(tasks)
        self._way.submit(range(first, self._submitted + 1))
        return submissions

    async def results(self, submissions: Sequence[Submission]) -> AsyncIterator[tuple[Submission, Outcome]]:
        """Each with its outcome, as they settle, without those that are cancelled. Raises TaskRefused at the first
        that was refused."""
        done: asyncio.Queue[Submission] = asyncio.Queue()
        for submission in submissions:
            submission.outcome.add_done_callback(partial(_put, done, submission))
        for _ in submissions:
            submission = await done.get()
            if not submission.outcome.cancelled():
                yield submission, submission.outcome.result()

    async def status(self, task_id: str) -> Outcome:
        """KeyError for a task that the coordinator does not know (any more)."""
        request = contract.status_request(task_id)
        return await self._outcome(task_id, lambda: self._link.coordinator.GetTaskStatus(request, timeout=DEADLINE_S))

    async def cancel(self, task_id: str) -> Outcome:
        """Whoever submitted it. FAILED from now on, or as it was settled before. KeyError for a task that the
        coordinator does not know (any more)."""
        request = translate.cancel_request(task_id)
        return await self._outcome(task_id, lambda: self._link.streams.CancelTask(request, timeout=DEADLINE_S))

    async def _outcome(self, task_id: str, call: Callable[[], Awaitable[Any]]) -> Outcome:
        try:
            return contract.outcome_of_status(await self._link.ask_again(call))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise KeyError(task_id) from None
            raise

    async def metrics(self) -> Metrics:
        request = contract.metrics_request()
        answer = await self._link.ask_again(lambda: self._link.coordinator.GetMetrics(request, timeout=DEADLINE_S))
        return contract.metrics_of(answer)

    async def _run(self) -> None:
        try:
            try:
                await self._way.run()
            except NoStreams:
                self._silence.reached()
                log.info("the coordinator offers no streams: polling")
                self._way = Polling(self._link, self._unsettled, self._silence, self._resubmissions)
                await self._way.run()
        except Exception as error:
            for submission in self._unsettled.values():
                submission.fail(error)
            raise

    def _forsake(self, number: int) -> None:
        """Its outcome has been cancelled."""
        submission = self._unsettled.pop(number, None)
        if submission is None or self._running.done():
            return
        if self._way.forsake(number, submission):
            task = self._loop.create_task(self._tell_cancelled(submission))
            self._cancelling.add(task)
            task.add_done_callback(self._cancelling.discard)
        else:
            submission.id.cancel()

    async def _tell_cancelled(self, submission: Submission) -> None:
        """Until the coordinator has heard it, or knows nothing of the task."""
        try:
            task_id = await submission.id
        except (TaskRefused, CoordinatorStopped, Unanswered, grpc.aio.AioRpcError):
            return
        for pause_s in pauses():
            try:
                async with self._cancels:
                    await self.cancel(task_id)
                return
            except KeyError:
                return
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    log.warning(
                        "the coordinator can't cancel: task %s goes on, and nobody waits for it",
                        task_id,
                        extra={"task": task_id},
                    )
                    return
            await asyncio.sleep(pause_s)


class Client(Shown, Calls, Views):
    """The same for callers without an event loop: it runs one in a thread of its own.

    It begins with the `with` block, or with the first call, as in a notebook; then `close` ends it. What is called back
    by its futures runs in that thread, and may submit, but not wait.
    """

    def __init__(
        self, address: str = "localhost:50051", *, contract: bool = False, give_up_after_s: float | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="orchestrator-client", daemon=True)
        self._beginning = threading.Lock()
        self._views = self._client = AsyncClient(address, contract=contract, give_up_after_s=give_up_after_s)

    def __enter__(self) -> Client:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """It serves no more calls. What it has submitted goes on, and its futures are cancelled."""
        if self._loop.is_closed():
            return
        try:
            if self._thread.is_alive():
                self._do(self._end())
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
        finally:
            self._loop.close()

    def _begin(self) -> None:
        """Once."""
        with self._beginning:
            if self._loop.is_closed():
                raise RuntimeError("this client is closed")
            if not self._thread.is_alive():
                self._thread.start()
                asyncio.run_coroutine_threadsafe(self._client.__aenter__(), self._loop).result()

    async def _end(self) -> None:
        await self._client.__aexit__()
        await last_turns()

    def _facts(self) -> dict[str, str]:
        return self._client._facts()

    @overload
    def submit(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]: ...
    @overload
    def submit(
        self,
        payload: str,
        priority: int = ...,
        kind: str = ...,
        key: str = ...,
        queue_timeout_s: float | None = ...,
        execution_timeout_s: float | None = ...,
        deadline_s: float | None = ...,
        affinity_key: str = ...,
        requires: Mapping[str, str] | str = ...,
    ) -> TaskFuture[Outcome]: ...
    def submit(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # it takes whatever there is
        """A task of an App with its arguments: a future of its value. Or what a NewTask is made of, as
        `submit_batch`."""
        if args and callable(args[0]):
            return self.submit_calls([Call(required(args[0]), args[1:], kwargs)])[0]
        return self.submit_batch([NewTask(*args, **kwargs)])[0]

    def submit_calls(self, calls: Iterable[Call]) -> list[TaskFuture[Any]]:
        """A future of each call's value. TypeError or ValueError where one can't be sent; then none is."""
        calls = list(calls)
        return self._submit([call.new_task() for call in calls], [call.value for call in calls])

    def submit_batch(self, tasks: Iterable[NewTask]) -> list[TaskFuture[Outcome]]:
        """A future each; concurrent.futures.as_completed gives them as they settle. `cancel()` of one cancels its task.

        Raises TypeError or ValueError where one of the tasks can't be sent; then none is.
        """
        tasks = list(tasks)
        return self._submit(tasks, [None] * len(tasks))

    def _submit(
        self, tasks: Sequence[NewTask], reads: Sequence[Callable[[Outcome], Any] | None]
    ) -> list[TaskFuture[Any]]:
        """`reads`: what a future holds of its outcome, None for all."""
        futures: list[TaskFuture[Any]] = []

        def submit() -> None:
            for submission, read in zip(self._client.submit_batch(tasks), reads, strict=True):
                future: TaskFuture[Any] = TaskFuture()
                future.submission = submission
                future.add_done_callback(partial(_cancel, submission, self._loop))
                submission.outcome.add_done_callback(partial(copied, future, read))
                futures.append(future)

        async def submit_there() -> None:
            submit()

        if threading.current_thread() is self._thread:
            submit()
        else:
            self._do(submit_there())
        return futures

    def status(self, task_id: str) -> Outcome:
        return self._do(self._client.status(task_id))

    def cancel(self, task_id: str) -> Outcome:
        return self._do(self._client.cancel(task_id))

    def metrics(self) -> Metrics:
        return self._do(self._client.metrics())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            if threading.current_thread() is self._thread:
                raise RuntimeError("what a future calls back must not wait for the client: ask it in another thread")
            self._begin()
        except RuntimeError:
            coroutine.close()
            raise
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _put(queue: asyncio.Queue[Submission], submission: Submission, _: object) -> None:
    queue.put_nowait(submission)


def _cancel(submission: Submission, loop: asyncio.AbstractEventLoop, future: Future[Outcome]) -> None:
    if future.cancelled():
        future.set_running_or_notify_cancel()  # whoever waits for several futures learns it only so
        with contextlib.suppress(RuntimeError):  # the client has ended
            loop.call_soon_threadsafe(submission.cancel)
