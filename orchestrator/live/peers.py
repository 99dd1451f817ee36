"""Who is connected to the coordinator: workers on a stream, workers that are called, clients on a stream.

What is for a peer on a stream gathers while the last message to it is being written, and travels in the next one.
It is bounded: for a worker by the attempts that it may hold, for a client because its submissions are not read on
while too much is waiting for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import grpc

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt, Task
from orchestrator.live import convert, rpc

CALL_DEADLINE_S = 2.0
ACCEPTANCE_WAITS_S = 0.002
Write = Callable[[Any], Awaitable[None]]


def _size_of_assignment(attempt: Attempt) -> int:
    job: convert.Job = attempt.task.payload  # type: ignore[assignment]  # every task's payload in this world
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
    """A worker that holds a stream."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._registered = True  # to be told in the first message
        self._acknowledged = 0
        self._patience = 64
        self._assignments: deque[Attempt] = deque()
        self._cancels: deque[Attempt] = deque()
        self._gathered = asyncio.Event()
        self._gathered.set()

    def assign(self, attempt: Attempt) -> None:
        self._assignments.append(attempt)
        self._gathered.set()

    def cancel(self, attempt: Attempt) -> None:
        self._cancels.append(attempt)
        self._gathered.set()

    def acknowledge(self) -> None:
        """Travels with whatever is written next; many of them, or a heartbeat, do not wait for that."""
        self._acknowledged += 1
        if self._acknowledged >= self._patience:
            self._gathered.set()

    def answer_beat(self) -> None:
        self._gathered.set()

    def hurry(self) -> None:
        """It waits for every acknowledgement: it is about to leave."""
        self._patience = 1
        self._gathered.set()

    def end(self) -> None:
        self.ended.set()

    async def write_to(self, write: Write) -> None:
        while True:
            await self._gathered.wait()
            registered, self._registered = self._registered, False
            acknowledged, self._acknowledged = self._acknowledged, 0
            assignments = rpc.take(self._assignments, _size_of_assignment)
            # A cancel never overtakes its assignment.
            cancels = [] if self._assignments else rpc.take(self._cancels, lambda _: 100)
            if not self._assignments and not self._cancels:
                self._gathered.clear()
            await write(convert.to_worker(registered, acknowledged, assignments, cancels))


class CalledWorker:
    """A worker that speaks only the wire contract: the coordinator calls it, and cannot cancel."""

    def __init__(self, worker_id: str, address: str, core: Coordinator) -> None:
        self._worker_id = worker_id
        self._core = core
        self._loop = asyncio.get_running_loop()
        self._channel = rpc.channel(address)
        self._stub = rpc.Stub(self._channel, rpc.WORKER)
        # It may register before it listens; later a refused connection is a failure at once.
        self._listens = False
        self._calls: set[asyncio.Task[None]] = set()

    def assign(self, attempt: Attempt) -> None:
        self._begin(self._assign(attempt))

    def cancel(self, attempt: Attempt) -> None:
        pass

    def answer_beat(self) -> None:
        pass

    def hurry(self) -> None:
        pass

    def end(self) -> None:
        self._begin(self._channel.close(CALL_DEADLINE_S))

    def _begin(self, call: Any) -> None:
        task = self._loop.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _assign(self, attempt: Attempt) -> None:
        request = convert.assign_message(attempt)
        try:
            answer = await self._stub.AssignTask(
                request, timeout=CALL_DEADLINE_S, wait_for_ready=not self._listens or None
            )
        except grpc.aio.AioRpcError:
            self._listens = False
            self._core.call_failed(self._worker_id, attempt.task.id, attempt.number, self._loop.time())
            return
        self._listens = True
        # It has no queue: what it accepts, it begins.
        answered = self._core.started if answer.accepted else self._core.rejected
        answered(self._worker_id, attempt.task.id, attempt.number, self._loop.time())


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
            await write(convert.to_client(accepted, refused, settled))
            written()
