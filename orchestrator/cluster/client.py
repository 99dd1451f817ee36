"""Clients: submit tasks, and learn how they ended.

A client holds one stream to its coordinator, by which submissions go out in batches and results come back as they
happen. A stream that breaks is dialled again, and what is not settled is submitted again: the coordinator knows it,
or, being a new process, executes it (again). Where the coordinator offers no streams, the client polls.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio

from orchestrator.cluster.wire import contract, rpc, sizes, translate
from orchestrator.cluster.wire.rpc import first_of, pauses
from orchestrator.cluster.wire.translate import Metrics, Outcome
from orchestrator.core.model import Priority

log = logging.getLogger("orchestrator.client")

T = TypeVar("T")
DEADLINE_S = 10.0
AT_ONCE = 64  # calls under way at a coordinator without streams
POLL_S = (0.001, 0.2)


class NewTask(NamedTuple):
    """What a client submits; an empty kind is the coordinator's default."""

    payload: str
    priority: int = Priority.NORMAL
    kind: str = ""


class TaskRefused(Exception):
    """The coordinator does not take this task."""


class CoordinatorStopped(Exception):
    """A fault inside the coordinator ended it; the text says which. What it had not settled may never be."""


class Submission:
    """A task on its way; awaiting it gives its `Outcome`, or raises TaskRefused."""

    def __init__(self, task: NewTask, loop: asyncio.AbstractEventLoop) -> None:
        self.task = task
        self.id: asyncio.Future[str] = loop.create_future()
        self.outcome: asyncio.Future[Outcome] = loop.create_future()

    def __await__(self) -> Generator[Any, None, Outcome]:
        return self.outcome.__await__()

    def accept(self, task_id: str) -> None:
        if not self.id.done():
            self.id.set_result(task_id)

    def settle(self, outcome: Outcome) -> None:
        self.accept(outcome.task_id)
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        for future in (self.id, self.outcome):
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever awaits one of them learns it: no complaint about the other


class AsyncClient:
    """Asynchronous; use as `async with AsyncClient(address) as client`. `contract`: do not try streams."""

    def __init__(self, address: str = "localhost:50051", *, contract: bool = False) -> None:
        self.address = address
        self._contract = contract

    async def __aenter__(self) -> AsyncClient:
        self._loop = asyncio.get_running_loop()
        self._channel = rpc.channel(self.address)
        self._coordinator = rpc.Stub(self._channel, rpc.COORDINATOR)
        self._way: _Streaming | _Polling = (
            _Polling(self._coordinator) if self._contract else _Streaming(rpc.Stub(self._channel, rpc.CLIENT_STREAM))
        )
        self._running = self._loop.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        finally:
            await self._channel.close(None)

    def submit(self, payload: str, priority: int = Priority.NORMAL, kind: str = "") -> Submission:
        return self.submit_batch([NewTask(payload, priority, kind)])[0]

    def submit_batch(self, tasks: Iterable[NewTask]) -> list[Submission]:
        """Sent as fast as the coordinator takes them; await `submission.id` to know that one has been accepted."""
        if self._running.done():
            raise self._running.exception() or RuntimeError("the client is closed")
        submissions = [Submission(task, self._loop) for task in tasks]
        self._way.submit(submissions)
        return submissions

    async def results(self, submissions: Sequence[Submission]) -> AsyncIterator[tuple[Submission, Outcome]]:
        """Each with its outcome, as they settle. Raises TaskRefused at the first that was refused."""
        done: asyncio.Queue[Submission] = asyncio.Queue()
        for submission in submissions:
            submission.outcome.add_done_callback(partial(_put, done, submission))
        for _ in submissions:
            submission = await done.get()
            yield submission, submission.outcome.result()

    async def status(self, task_id: str) -> Outcome:
        """KeyError for a task that the coordinator does not know (any more)."""
        try:
            answer = await self._coordinator.GetTaskStatus(contract.status_request(task_id), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise KeyError(task_id) from None
            raise
        return contract.outcome_of_status(answer)

    async def metrics(self) -> Metrics:
        return contract.metrics_of(await self._coordinator.GetMetrics(contract.metrics_request(), timeout=DEADLINE_S))

    async def _run(self) -> None:
        try:
            try:
                await self._way.run()
            except NoStreams:
                log.info("the coordinator offers no streams: polling")
                unsettled = list(self._way.unsettled())
                self._way = _Polling(self._coordinator)
                self._way.submit(unsettled)
                await self._way.run()
        except Exception as error:
            for submission in self._way.unsettled():
                submission.fail(error)
            raise


class NoStreams(Exception):
    """The coordinator speaks only the wire contract."""


class _Streaming:
    """Submissions by number, those not settled yet kept for the case that the stream breaks."""

    IN_A_MESSAGE = 1000

    def __init__(self, stub: rpc.Stub) -> None:
        self._stub = stub
        self._session = secrets.token_hex(4)
        self._submitted = 0
        self._unsettled: dict[int, Submission] = {}
        self._outgoing: deque[int] = deque()
        self._gathered = asyncio.Event()

    def unsettled(self) -> Iterable[Submission]:
        return self._unsettled.values()

    def submit(self, submissions: Sequence[Submission]) -> None:
        for submission in submissions:
            self._submitted += 1
            self._unsettled[self._submitted] = submission
            self._outgoing.append(self._submitted)
        self._gathered.set()

    async def run(self) -> None:
        for pause_s in pauses():
            call = self._stub.Submit()
            self._outgoing = deque(self._unsettled)
            self._gathered.set()
            try:
                await first_of(self._read(call), self._write(call))
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise NoStreams from None
                if _has_stopped(error):
                    raise CoordinatorStopped(error.details()) from None
                if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ABORTED):
                    raise
                log.warning("lost the coordinator: %s", error.details())
            finally:
                call.cancel()
            await asyncio.sleep(pause_s)

    async def _read(self, call: Any) -> None:
        session, unsettled = self._session, self._unsettled
        async for message in call:
            for number in translate.accepted(message):
                if number in unsettled:
                    unsettled[number].accept(f"{session}-{number}")
            for number, reason in translate.refused(message):
                if number in unsettled:
                    unsettled.pop(number).fail(TaskRefused(reason))
            for number, outcome in translate.outcomes(session, message):
                if number in unsettled:
                    unsettled.pop(number).settle(outcome)

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(translate.from_client(self._session, ()))
            while True:
                await self._gathered.wait()
                await call.write(translate.from_client("", self._next_tasks()))
        await asyncio.Event().wait()  # the stream is broken: its reader knows why

    def _next_tasks(self) -> Iterator[Any]:
        numbers = rpc.take(self._outgoing, self._size, self.IN_A_MESSAGE)
        if not self._outgoing:
            self._gathered.clear()
        for number in numbers:
            if number not in self._unsettled:
                continue  # sent before, by a stream that broke
            if self._size(number) > rpc.MESSAGE_BYTES - sizes.ITEM_BYTES:
                self._unsettled.pop(number).fail(TaskRefused("the task is too large for a message"))
                continue
            payload, priority, kind = self._unsettled[number].task
            yield translate.new_task(number, kind, payload, priority)

    def _size(self, number: int) -> int:
        submission = self._unsettled.get(number)
        return sizes.task_bytes(submission.task.kind, submission.task.payload) if submission else 0


class _Polling:
    """By unary calls: a few at a time to submit, a few at a time to ask, the oldest first."""

    def __init__(self, stub: rpc.Stub) -> None:
        self._stub = stub
        self._unsettled: dict[Submission, None] = {}
        self._outgoing: deque[Submission] = deque()
        self._asked: deque[tuple[str, Submission]] = deque()
        self._gathered = asyncio.Event()

    def unsettled(self) -> Iterable[Submission]:
        return list(self._unsettled)

    def submit(self, submissions: Sequence[Submission]) -> None:
        self._unsettled.update(dict.fromkeys(submissions))
        self._outgoing.extend(submissions)
        self._gathered.set()

    async def run(self) -> None:
        parts = [asyncio.ensure_future(part) for part in (self._poll(), *(self._send() for _ in range(AT_ONCE)))]
        try:
            await asyncio.gather(*parts)
        finally:
            for part in parts:
                part.cancel()

    def _fail(self, submission: Submission, error: Exception) -> None:
        del self._unsettled[submission]
        submission.fail(error)

    async def _send(self) -> None:
        while True:
            while not self._outgoing:
                self._gathered.clear()
                await self._gathered.wait()
            submission = self._outgoing.popleft()
            payload, priority, kind = submission.task
            for pause_s in pauses():
                try:
                    answer = await self._stub.SubmitTask(
                        contract.submit_message(kind, payload, priority), timeout=DEADLINE_S, wait_for_ready=True
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                        await asyncio.sleep(pause_s)
                        continue
                    if _has_stopped(error):
                        raise CoordinatorStopped(error.details()) from None
                    is_refusal = error.code() is grpc.StatusCode.INVALID_ARGUMENT
                    self._fail(submission, TaskRefused(error.details()) if is_refusal else error)
                else:
                    submission.accept(answer.task_id)
                    self._asked.append((answer.task_id, submission))
                break

    async def _poll(self) -> None:
        """More at a time while all that are asked about are settled, fewer and later while they are not."""
        least_s, most_s = POLL_S
        pause_s, window = least_s, 1
        while True:
            asked = [self._asked.popleft() for _ in range(min(window, len(self._asked)))]
            settled = await asyncio.gather(*(self._ask(task_id, submission) for task_id, submission in asked))
            self._asked.extend(pair for pair, is_settled in zip(asked, settled, strict=True) if not is_settled)
            if asked and all(settled):
                pause_s, window = least_s, min(AT_ONCE, 2 * window)
            else:
                await asyncio.sleep(pause_s)
                pause_s, window = min(most_s, 1.5 * pause_s), max(1, window // 2)

    async def _ask(self, task_id: str, submission: Submission) -> bool:
        try:
            answer = await self._stub.GetTaskStatus(contract.status_request(task_id), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if _has_stopped(error):
                raise CoordinatorStopped(error.details()) from None
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                return False
            self._fail(submission, error)  # it restarted, or has forgotten it
            return True
        outcome = contract.outcome_of_status(answer)
        if outcome.settled:
            del self._unsettled[submission]
            submission.settle(outcome)
        return outcome.settled


class Client:
    """The same for callers without an event loop: it runs one in a thread of its own."""

    def __init__(self, address: str = "localhost:50051", *, contract: bool = False) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="orchestrator-client", daemon=True)
        self._client = AsyncClient(address, contract=contract)

    def __enter__(self) -> Client:
        self._thread.start()
        self._do(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._do(self._client.__aexit__())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def submit(self, payload: str, priority: int = Priority.NORMAL, kind: str = "") -> Future[Outcome]:
        return self.submit_batch([NewTask(payload, priority, kind)])[0]

    def submit_batch(self, tasks: Iterable[NewTask]) -> list[Future[Outcome]]:
        """A future each; concurrent.futures.as_completed gives them as they settle."""
        futures: list[Future[Outcome]] = []
        tasks = list(tasks)

        async def submit() -> None:
            for submission in self._client.submit_batch(tasks):
                future: Future[Outcome] = Future()
                submission.outcome.add_done_callback(partial(_copy, future))
                futures.append(future)

        self._do(submit())
        return futures

    def status(self, task_id: str) -> Outcome:
        return self._do(self._client.status(task_id))

    def metrics(self) -> Metrics:
        return self._do(self._client.metrics())

    def _do(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def _has_stopped(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.INTERNAL and (error.details() or "").startswith(rpc.STOPPED)


def _put(queue: asyncio.Queue[Submission], submission: Submission, _: object) -> None:
    queue.put_nowait(submission)


def _copy(future: Future[Outcome], done: asyncio.Future[Outcome]) -> None:
    error = done.exception()
    if error is None:
        future.set_result(done.result())
    else:
        future.set_exception(error)
