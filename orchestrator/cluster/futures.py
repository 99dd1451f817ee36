"""Calls of an app's tasks: arguments in, a value or an exception out. Both kinds of client have them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from orchestrator.cluster.app import TRACEBACK, Task
from orchestrator.cluster.shown import Shown
from orchestrator.cluster.submissions import NewTask
from orchestrator.core.model import TaskState

if TYPE_CHECKING:
    from orchestrator.cluster.submissions import Submission
    from orchestrator.cluster.wire.progress import Progress
    from orchestrator.cluster.wire.translate import Outcome

R = TypeVar("R")

AHEAD = 1000
"""How many calls `map` has under way, if it is not told otherwise."""
_EXCEPTION = re.compile(r"([^\W\d][\w.<>]*)(?:: (.*))?", re.DOTALL)


class TaskFailed(Exception):
    """A task that failed. `type` and `message`: of the exception that it raised; `traceback`: where, as text. Where no
    exception of its own ended it, `type` and `traceback` are empty, and `message` says what did."""

    def __init__(self, error: str, task_id: str, kind: str, attempts: int) -> None:
        self.task_id = task_id
        self.kind = kind
        self.attempts = attempts
        head, found, rest = error.partition(TRACEBACK)
        self.traceback = f"{found}{rest}".lstrip("\n")
        match = _EXCEPTION.fullmatch(head) if found else None
        self.type, self.message = (match[1], match[2] or "") if match else ("", head)
        super().__init__(error, task_id, kind, attempts)

    def __str__(self) -> str:
        named = f"{self.type}: {self.message}" if self.type and self.message else self.type or self.message
        where = f"task {self.task_id}, {self.kind}"
        return f"{where}: {named}" + (f"\n\n{self.traceback.rstrip()}" if self.traceback else "")


class Call(NamedTuple):
    """A task of an app, with its arguments."""

    task: Task[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def new_task(self) -> NewTask:
        """TypeError where the arguments do not fit, or what it is submitted with is nothing."""
        task = self.task
        payload = task.signature.dump_arguments(self.args, self.kwargs)
        if task.requires and "requires" not in task.submitted_with:
            return NewTask(payload, kind=task.name, requires=task.requires, **task.submitted_with)
        return NewTask(payload, kind=task.name, **task.submitted_with)

    def value(self, outcome: Outcome) -> Any:
        """Raises TaskFailed."""
        if outcome.state is not TaskState.COMPLETED:
            raise TaskFailed(outcome.error, outcome.task_id, self.task.name, outcome.attempts)
        return self.task.signature.result(outcome.result)


def required(task: object) -> Task[..., Any]:
    """TypeError where it is no task: a function can't travel."""
    if isinstance(task, Task):
        return task
    name = getattr(task, "__qualname__", None) or repr(task)
    raise TypeError(f"{name:.80} is no task of an App: only those have a name that workers know")


# ---- without an event loop


class TaskFuture(Shown, Future[R]):
    """Of a task; `cancel()` cancels the task."""

    submission: Submission

    @property
    def task_id(self) -> str | None:
        """None while the coordinator has not taken it."""
        return self.submission.task_id

    @property
    def progress(self) -> Progress | None:
        """The newest word of the task itself on how far it is; None before there is one."""
        return self.submission.progress

    def _facts(self) -> dict[str, str]:
        return self.submission.facts(self)


class Calls:
    """What a client without an event loop offers beside single submissions."""

    def submit_calls(self, calls: Iterable[Call]) -> list[TaskFuture[Any]]:
        """A future of each call's value. TypeError or ValueError where one can't be sent; then none is."""
        raise NotImplementedError

    def map(self, task: Task[..., R], *iterables: Iterable[Any], ahead: int = AHEAD) -> Iterator[R]:
        """The values of the calls with one argument of each iterable, in their order; `ahead`: calls that are under
        way at most. Raises TaskFailed where its turn comes. Who stops taking them cancels the rest."""
        arguments = zip(*iterables, strict=False)
        required(task)
        futures: deque[TaskFuture[Any]] = deque()

        def more(count: int) -> None:
            calls = [Call(task, args, {}) for _, args in zip(range(count), arguments, strict=False)]
            if calls:
                futures.extend(self.submit_calls(calls))

        try:
            more(ahead)
            while futures:
                yield futures.popleft().result()
                if len(futures) <= ahead // 2:
                    more(ahead - len(futures))
        finally:
            for future in futures:
                future.cancel()

    @staticmethod
    def as_completed(futures: Iterable[Future[R]], timeout: float | None = None) -> Iterator[Future[R]]:
        """The futures, as they settle. TimeoutError where that takes longer."""
        return concurrent.futures.as_completed(futures, timeout)

    @staticmethod
    def gather(futures: Iterable[Future[Any]], *, return_exceptions: bool = False) -> list[Any]:
        """All values, in the order of the futures. Raises an exception as soon as one has it, or has it among the
        values."""
        futures, wait = list(futures), concurrent.futures.wait
        if return_exceptions:
            wait(futures)
            cancelled = concurrent.futures.CancelledError
            return [cancelled() if one.cancelled() else one.exception() or one.result() for one in futures]
        for future in wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION).done:
            future.result()
        return [future.result() for future in futures]

    def executor(self) -> ClusterExecutor:
        """The cluster as a pool of the standard library."""
        return ClusterExecutor(self)


class ClusterExecutor(concurrent.futures.Executor):
    """`concurrent.futures.Executor` whose functions are tasks of an App. `shutdown` leaves the client as it is."""

    def __init__(self, client: Calls) -> None:
        self._client = client
        self._futures: set[Future[Any]] = set()
        self._shut = False

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        (future,) = self._client.submit_calls([Call(required(fn), args, kwargs)])
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._shut = True
        left = list(self._futures)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait:
            concurrent.futures.wait(left)


# ---- with one


class AsyncCall(Shown, asyncio.Future[R]):
    """Of a task, on its way; awaiting it gives its value, or raises TaskFailed. Cancelling it cancels the task."""

    submission: Submission

    @property
    def task_id(self) -> str | None:
        """As `TaskFuture.task_id`."""
        return self.submission.task_id

    @property
    def progress(self) -> Progress | None:
        """As `TaskFuture.progress`."""
        return self.submission.progress

    def _facts(self) -> dict[str, str]:
        return self.submission.facts(self)

    def cancel(self, msg: Any | None = None) -> bool:
        self.submission.cancel()
        return super().cancel(msg)


class AsyncCalls:
    """What a client on an event loop offers beside single submissions."""

    def submit_batch(self, tasks: Iterable[NewTask]) -> list[Submission]:
        raise NotImplementedError

    def submit_calls(self, calls: Iterable[Call]) -> list[AsyncCall[Any]]:
        """TypeError or ValueError where one can't be sent; then none is."""
        calls = list(calls)
        submissions = self.submit_batch([call.new_task() for call in calls])
        loop = asyncio.get_running_loop()
        made: list[AsyncCall[Any]] = []
        for call, submission in zip(calls, submissions, strict=True):
            value: AsyncCall[Any] = AsyncCall(loop=loop)
            value.submission = submission
            submission.outcome.add_done_callback(partial(_read, value, call))
            made.append(value)
        return made

    async def map(self, task: Task[..., R], *iterables: Iterable[Any], ahead: int = AHEAD) -> AsyncIterator[R]:
        """As `Calls.map`."""
        arguments = zip(*iterables, strict=False)
        required(task)
        calls: deque[AsyncCall[Any]] = deque()
        try:
            while True:
                if len(calls) <= ahead // 2:
                    some = zip(range(ahead - len(calls)), arguments, strict=False)
                    calls.extend(self.submit_calls([Call(task, args, {}) for _, args in some]))
                if not calls:
                    return
                yield await calls.popleft()
        finally:
            for call in calls:
                call.cancel()

    @staticmethod
    async def as_completed(
        calls: Iterable[asyncio.Future[R]], timeout: float | None = None
    ) -> AsyncIterator[asyncio.Future[R]]:
        """The calls, as they settle. TimeoutError where that takes longer."""
        end = None if timeout is None else asyncio.get_running_loop().time() + timeout
        settled: asyncio.Queue[asyncio.Future[R]] = asyncio.Queue()
        waiting, put = set(calls), settled.put_nowait
        for call in waiting:
            call.add_done_callback(put)
        try:
            for _ in range(len(waiting)):
                async with asyncio.timeout_at(end):
                    call = await settled.get()
                yield call
        finally:
            for call in waiting:
                call.remove_done_callback(put)

    @staticmethod
    async def gather(calls: Iterable[asyncio.Future[Any]], *, return_exceptions: bool = False) -> list[Any]:
        """All values, in the order of the calls. Raises the first one's exception, or has it among the values."""
        return list(await asyncio.gather(*calls, return_exceptions=return_exceptions))


def _read(value: AsyncCall[Any], call: Call, done: asyncio.Future[Outcome]) -> None:
    if value.done():
        return  # it was cancelled
    if done.cancelled():
        value.cancel()
        return
    try:
        value.set_result(call.value(done.result()))
    except Exception as error:
        value.set_exception(error)
        if not isinstance(error, TaskFailed):
            value.exception()  # the client's, which tells everybody: no complaint about those who do not listen


def copied(future: TaskFuture[Any], read: Callable[[Outcome], Any] | None, done: asyncio.Future[Outcome]) -> None:
    """Into the future goes what the outcome is, as `read` reads it."""
    if done.cancelled():
        future.cancel()  # unless it was by its own caller: the client has ended
        return
    with contextlib.suppress(concurrent.futures.InvalidStateError):  # it was cancelled in another thread meanwhile
        try:
            outcome = done.result()
            value = outcome if read is None else read(outcome)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(cast(Any, value))
