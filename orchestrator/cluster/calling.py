"""The coordinator's way to a worker that speaks only the wire contract: it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.overdue import Overdue, awake_s
from orchestrator.cluster.peers import Refused
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.translate import Assignment, Key, Registered
from orchestrator.core.coordinator import Coordinator

CALLS_AT_ONCE = 64
SLICE = 256  # failed calls between two turns of the loop


class CalledWorker:
    """A worker that is called, and that nobody can cancel anything at.

    So many calls are under way at most; what is assigned beyond that waits for one of them to end. An assignment of
    which nothing is heard `call_timeout_s` after the core made it is a failed call, whether it was sent or not.
    """

    def __init__(self, worker_id: str, address: str, core: Coordinator, call_timeout_s: float) -> None:
        self._worker_id = worker_id
        self._core = core
        self._call_timeout_s = call_timeout_s
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._dial()
        # It may register before it listens; later a refused connection is a failure at once.
        self._listens = False
        self._ended = False
        self._waiting: dict[Key, Assignment] = {}
        self._calls: dict[Key, Any] = {}
        self._background: set[asyncio.Task[None]] = set()
        # Not grpc's own deadline: that one passes while this process stands still, whatever has been answered.
        self._unanswered: Overdue[Key] = Overdue(call_timeout_s, self._give_up, awake_s(call_timeout_s))

    def register(self, answer: Registered) -> None:
        """Its call is answered by whoever took it."""

    def assign(self, assignment: Assignment) -> None:
        if self._ended:
            return  # another registration has taken its place, and has lost what this one had
        self._unanswered.expect(assignment.key, self._loop.time())
        self._waiting[assignment.key] = assignment
        self._call_next()

    def cancel(self, key: Key) -> None:
        """The contract has no word for it."""

    def recall(self, key: Key) -> None:
        """Nor for this; but such a worker does not say what it has begun, so nobody steals from it."""

    def acknowledge(self, number: int) -> None:
        """Its call is answered by whoever took it."""

    def answer_beat(self) -> None:
        """Its call is answered by whoever took it."""

    def hurry(self) -> None:
        """It is answered at once anyway."""

    def drain(self) -> None:
        """The contract has no word for this either: nobody asks for it."""

    def end(self, reason: Refused) -> None:
        self._ended = True
        self._waiting.clear()
        self._unanswered.clear()
        self._begin(self._channel.close(self._call_timeout_s))

    def _dial(self) -> None:
        self._channel = rpc.channel(self._address)
        self._stub = rpc.Stub(self._channel, rpc.WORKER)
        self._heard_at = self._loop.time()

    def _begin(self, part: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(part)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _call_next(self) -> None:
        while self._waiting and len(self._calls) < CALLS_AT_ONCE:
            key = next(iter(self._waiting))
            request = contract.assign_message(self._waiting.pop(key))
            call = self._calls[key] = self._stub.AssignTask(request, wait_for_ready=not self._listens or None)
            self._begin(self._hear(key, call))

    async def _hear(self, key: Key, call: Any) -> None:
        try:
            answer = await call
        except grpc.aio.AioRpcError:
            answer = None
        if self._calls.pop(key, None) is None:
            return  # given up in the meantime
        self._unanswered.met(key)
        self._heard_at = self._loop.time()
        if answer is None:
            self._fail(key)
        else:
            self._listens = True
            # It has no queue: what it accepts, it begins.
            answered = self._core.started if answer.accepted else self._core.rejected
            answered(self._worker_id, *key, self._loop.time())
        self._call_next()

    def _give_up(self, keys: list[Key]) -> None:
        called = False
        for key in keys:
            self._waiting.pop(key, None)
            call = self._calls.pop(key, None)
            if call is not None:
                called = True
                call.cancel()
        if called and self._heard_at <= self._loop.time() - self._call_timeout_s:
            # Nobody need have closed a connection by which nothing comes: the next call goes by another one.
            former = self._channel
            self._dial()
            self._begin(former.close(self._call_timeout_s))
        self._begin(self._fail_all(keys))

    async def _fail_all(self, keys: list[Key]) -> None:
        for number, key in enumerate(keys, 1):
            self._fail(key)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self._call_next()

    def _fail(self, key: Key) -> None:
        self._listens = False
        self._core.call_failed(self._worker_id, *key, self._loop.time())
