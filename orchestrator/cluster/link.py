"""A client's connection to its coordinator, and another one in its place when nothing comes by it any more."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from orchestrator.cluster.wire import contract, rpc

Answer = TypeVar("Answer")

SILENCE_S = 5.0
"""Of a connection by which a client waits for results or answers, before it asks whether anybody is there."""
ANSWER_S = 2.0
UNANSWERED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
CONNECTED_S = (0.001, 0.1)
CLOSING_S = 15.0
"""For what others have begun on the former connection: longer than their deadlines."""


class Link:
    """`channel`, and the services on it, as they are now; whoever uses them looks each time."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._closing: set[asyncio.Task[None]] = set()
        self._now = asyncio.get_running_loop().time
        self._asking = 0  # calls under way
        self._asked_at: float | None = None  # the first of those that have gone without an answer of any kind
        self._use(rpc.channel(address))

    def _use(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.coordinator = rpc.Stub(channel, rpc.COORDINATOR)
        self.streams = rpc.Stub(channel, rpc.CLIENT_STREAM)
        self.views = rpc.Stub(channel, rpc.CLUSTER_VIEW)

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self.channel.close(None)

    async def connected(self) -> None:
        """Wait until it stands."""
        pause_s = CONNECTED_S[0]
        # Asked again and again: a watch of the channel may outlive the loop, and then disturbs the next one.
        while self.channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            await asyncio.sleep(pause_s)
            pause_s = min(CONNECTED_S[1], 2 * pause_s)

    async def ask(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to a call, which begins it on the services as they are now. Raises AioRpcError."""
        if self._asked_at is None:
            self._asked_at = self._now()
        self._asking += 1
        answered = False
        try:
            answer = await call()
            answered = True
            return answer
        except grpc.aio.AioRpcError as error:
            answered = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED  # a connection that broke is not silent
            raise
        finally:
            self._asking -= 1
            if answered:
                self._note_answer()

    def _note_answer(self) -> None:
        self._asked_at = self._now() if self._asking else None

    async def ask_again(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """The same of a question that may be asked twice: where its connection was replaced meanwhile, it is."""
        while True:
            channel = self.channel
            try:
                return await self.ask(call)
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNANSWERED or channel is self.channel:
                    raise

    def _unanswered_s(self) -> float:
        return 0.0 if self._asked_at is None else self._now() - self._asked_at

    async def forsaken(self, streams_silent_s: Callable[[], float]) -> str:
        """Until another connection is in the place of this one, because nothing came by it. `streams_silent_s`: for how
        long somebody has waited for a word on a stream of it.

        Only if the coordinator answers on the new one, and then not on the old one, is the old one to blame, and not a
        coordinator that stands still.
        """

        def silent_s() -> float:
            return max(streams_silent_s(), self._unanswered_s())

        while True:
            await _silence(silent_s)
            if await _answers(self.coordinator, ANSWER_S):
                self._note_answer()
                await asyncio.sleep(SILENCE_S / 2)
                continue
            fresh = rpc.channel(self._address)
            try:
                coordinator = rpc.Stub(fresh, rpc.COORDINATOR)
                while silent_s() >= SILENCE_S and not await _answers(coordinator, ANSWER_S):
                    await asyncio.sleep(CONNECTED_S[1])
                if silent_s() >= SILENCE_S and not await _answers(self.coordinator, ANSWER_S):
                    former = self.channel
                    silence_s = silent_s()
                    self._use(fresh)
                    self._asked_at = None
                    closing = asyncio.create_task(_close(former))
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)
                    return f"nothing came by the connection for {silence_s:.0f} s"
            finally:
                if fresh is not self.channel:
                    await fresh.close(None)


async def _silence(silent_s: Callable[[], float]) -> None:
    """Until it has been silent for that long. A thread watches the time: a timer that waits would cost each turn of the
    loop microseconds, and a call takes six turns."""
    loop, tick, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def watch() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed
            while not over.wait(SILENCE_S / 10):
                loop.call_soon_threadsafe(tick.set)

    threading.Thread(target=watch, name="orchestrator-silence", daemon=True).start()
    try:
        while silent_s() < SILENCE_S:
            await tick.wait()
            tick.clear()
    finally:
        over.set()


async def _close(former: grpc.aio.Channel) -> None:
    try:
        await former.close(CLOSING_S)
    finally:
        await former.close(None)


async def _answers(coordinator: rpc.Stub, within_s: float) -> bool:
    """Whether there is an answer, of any kind."""
    try:
        await coordinator.GetTaskStatus(contract.status_request(""), timeout=within_s)
    except grpc.aio.AioRpcError as error:
        return error.code() not in UNANSWERED
    return True
