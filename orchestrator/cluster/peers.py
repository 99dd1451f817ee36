"""Who is connected to the coordinator: workers on a stream, workers that are called, clients on a stream.

What is for a peer on a stream gathers while the last message to it is being written, and travels in the next one.
It is bounded: for a worker by the attempts that it may hold, for a client because its submissions are not read on
while too much is waiting for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import grpc

from orchestrator.cluster.overdue import Overdue, awake_s, confirm_s
from orchestrator.cluster.wire import rpc, translate
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt, Task

ACCEPTANCE_WAITS_S = 0.002
Write = Callable[[Any], Awaitable[None]]


def _size_of_assignment(attempt: Attempt) -> int:
    job: translate.Job = attempt.task.payload  # type: ignore[assignment]  # every task's payload in this world
    return len(job.payload) + 100


def _size_of_outcome(task: Task) -> int:
    return len(str(task.result)) + len(task.error) + 100


class WorkerPeer(Protocol):
    """The way to a worker."""

    def assign(self, attempt: Attempt) -> None: ...
    def cancel(self, attempt: Attempt) -> None: ...
    def answer_beat(self) -> None: ...
    def hurry(self) -> None: ...
    def end(self) -> None:
        """Another process has registered under that name, or the coordinator closes."""


class StreamedWorker:
    """A worker that holds a stream. It says of every assignment that it is there, or what became of it: one that it
    has not said a word of `rpc_timeout_s` after it was sent is a failed call."""

    def __init__(self, worker_id: str, core: Coordinator, rpc_timeout_s: float) -> None:
        self.ended = asyncio.Event()
        self._worker_id = worker_id
        self._core = core
        self._rpc_timeout_s = rpc_timeout_s
        self._loop = asyncio.get_running_loop()
        self._unconfirmed: Overdue[translate.Key] = Overdue(rpc_timeout_s, self._fail, awake_s(rpc_timeout_s))
        self._registered = True  # to be told in the first message
        self._acknowledged: list[int] = []
        self._patience = 64
        self._patience_s = confirm_s(rpc_timeout_s)
        self._impatient: asyncio.TimerHandle | None = None
        self._assignments: deque[Attempt] = deque()
        self._cancels: deque[Attempt] = deque()
        self._writing_since: float | None = None
        self._gathered = asyncio.Event()
        self._gathered.set()

    def assign(self, attempt: Attempt) -> None:
        self._assignments.append(attempt)
        self._gathered.set()

    def cancel(self, attempt: Attempt) -> None:
        self._cancels.append(attempt)
        self._gathered.set()

    def confirmed(self, key: translate.Key) -> None:
        """The worker has said something of that attempt."""
        self._unconfirmed.met(key)

    def acknowledge(self, number: int) -> None:
        """Travels with whatever is written next; many of them, a heartbeat, or the first one after a while do not
        wait for that."""
        self._acknowledged.append(number)
        if len(self._acknowledged) >= self._patience:
            self._gathered.set()
        elif self._impatient is None:
            self._impatient = self._loop.call_later(self._patience_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._impatient = None
        if self._acknowledged:
            self._gathered.set()

    def answer_registration(self) -> None:
        """It has asked again: the answer was lost."""
        self._registered = True
        self._gathered.set()

    def answer_beat(self) -> None:
        self._gathered.set()

    def hurry(self) -> None:
        """It waits for every acknowledgement: it is about to leave."""
        self._patience = 1
        self._gathered.set()

    def end(self) -> None:
        self.ended.set()

    def close(self) -> None:
        """The stream is over. What it held is for the detector, or the worker's next registration, to decide."""
        self._unconfirmed.clear()
        if self._impatient is not None:
            self._impatient.cancel()

    async def write_to(self, write: Write) -> None:
        while True:
            await self._gathered.wait()
            registered, self._registered = self._registered, False
            acknowledged, self._acknowledged = self._acknowledged, []
            assignments = rpc.take(self._assignments, _size_of_assignment)
            # A cancel never overtakes its assignment.
            cancels = [] if self._assignments else rpc.take(self._cancels, lambda _: 100)
            if not self._assignments and not self._cancels:
                self._gathered.clear()
            now = self._writing_since = self._loop.time()
            for attempt in assignments:
                self._unconfirmed.expect(_key(attempt), now)
            await write(translate.to_worker(registered, acknowledged, assignments, cancels))
            self._writing_since = None

    def _fail(self, keys: list[translate.Key]) -> None:
        now = self._loop.time()
        if self._writing_since is not None and self._writing_since + self._rpc_timeout_s <= now:
            # The worker reads nothing: what waits to be written fails with what has been, and is sent no more.
            keys += map(_key, self._assignments)
            self._assignments.clear()
        for task_id, number in keys:
            self._core.call_failed(self._worker_id, task_id, number, now)


def _key(attempt: Attempt) -> translate.Key:
    return attempt.task.id, attempt.number  # type: ignore[return-value]  # a string in this world


class CalledWorker:
    """A worker that speaks only the wire contract: the coordinator calls it, and cannot cancel."""

    def __init__(self, worker_id: str, address: str, core: Coordinator, rpc_timeout_s: float) -> None:
        self._worker_id = worker_id
        self._core = core
        self._rpc_timeout_s = rpc_timeout_s
        self._loop = asyncio.get_running_loop()
        self._channel = rpc.channel(address)
        self._stub = rpc.Stub(self._channel, rpc.WORKER)
        # It may register before it listens; later a refused connection is a failure at once.
        self._listens = False
        self._background: set[asyncio.Task[None]] = set()
        # Not grpc's own deadline: that one passes while this process stands still, whatever has been answered.
        self._unanswered: Overdue[tuple[Any, Attempt]] = Overdue(rpc_timeout_s, self._give_up, awake_s(rpc_timeout_s))

    def assign(self, attempt: Attempt) -> None:
        self._begin(self._assign(attempt))

    def cancel(self, attempt: Attempt) -> None:
        pass

    def answer_beat(self) -> None:
        pass

    def hurry(self) -> None:
        pass

    def end(self) -> None:
        self._begin(self._channel.close(self._rpc_timeout_s))

    def _begin(self, part: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(part)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _assign(self, attempt: Attempt) -> None:
        request = translate.assign_message(attempt)
        call = self._stub.AssignTask(request, wait_for_ready=not self._listens or None)
        self._unanswered.expect((call, attempt), self._loop.time())
        try:
            answer = await call
        except grpc.aio.AioRpcError:
            self._fail(attempt)
            return
        finally:
            self._unanswered.met((call, attempt))
        self._listens = True
        # It has no queue: what it accepts, it begins.
        answered = self._core.started if answer.accepted else self._core.rejected
        answered(self._worker_id, attempt.task.id, attempt.number, self._loop.time())

    def _give_up(self, calls: list[tuple[Any, Attempt]]) -> None:
        for call, attempt in calls:
            call.cancel()
            self._fail(attempt)

    def _fail(self, attempt: Attempt) -> None:
        self._listens = False
        self._core.call_failed(self._worker_id, attempt.task.id, attempt.number, self._loop.time())


class ClientPeer:
    """A client's session, for as long as its stream lasts."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.accepted: list[int] = []
        self.refused: list[tuple[int, str]] = []
        self.settled: deque[Task] = deque()
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        self._gathered = asyncio.Event()

    @property
    def waiting(self) -> int:
        """What it has not been told yet, in messages' parts."""
        return len(self.accepted) + len(self.refused) + len(self.settled)

    def accept(self, number: int) -> None:
        """Waits a moment for results to travel with: a message of its own costs as much as the task."""
        self.accepted.append(number)
        if self._patience is None:
            self._patience = self._loop.call_later(ACCEPTANCE_WAITS_S, self._gathered.set)

    def refuse(self, number: int, reason: str) -> None:
        self.refused.append((number, reason))
        self._gathered.set()

    def settle(self, task: Task) -> None:
        self.settled.append(task)
        self._gathered.set()

    async def write_to(self, write: Write, written: Callable[[], None]) -> None:
        while True:
            await self._gathered.wait()
            await asyncio.sleep(0)  # the assignments first
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            accepted, self.accepted = self.accepted, []
            refused, self.refused = self.refused, []
            settled = rpc.take(self.settled, _size_of_outcome)
            if not self.settled:
                self._gathered.clear()
            await write(translate.to_client(accepted, refused, settled))
            written()
