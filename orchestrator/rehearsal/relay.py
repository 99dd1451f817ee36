"""A bad network between some workers and their coordinator: a process through which their streams pass.

Each part of a message meets its own fate, by the state that the last control line gave at the moment at which it is
sent: a partition holds it back, or it is lost, repeated or delayed. Where nothing is impaired, whole messages pass at
once.

A worker's death breaks its stream to the coordinator too, which does not learn of it before a partition ends. A worker
that lives keeps its connection to here in a partition.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Any, Generic

import grpc
import grpc.aio
import numpy as np
from pydantic import TypeAdapter

from orchestrator.cluster.control import hear
from orchestrator.cluster.wire import parts, rpc, translate
from orchestrator.cluster.wire.parts import Message
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import FromWorker, ToWorker
from orchestrator.scenario.distributions import Distribution

_DISTRIBUTION: TypeAdapter[Distribution] = TypeAdapter(Distribution)
LAST_WRITE_S = 1.0
FIRST_BYTES = 8 << 20
HOST = "127.0.0.1"

Status = tuple[grpc.StatusCode, str]


class Fate(Enum):
    """What a bad network may do to a part of a message, beside holding it back."""

    FREE = "nothing, a partition included: the other world has no such message"
    ANSWER = "delay it: of a call, only the request is lost"
    LOST = "lose it, and nobody notices"
    REPEATED = "lose it, or let it arrive twice"
    AGAIN = "lose it, and its sender sends it again until it arrives"


FATES = {
    "started": Fate.AGAIN,
    "rejected": Fate.ANSWER,
    "cancelled": Fate.LOST,
    "reports": Fate.REPEATED,
    "progress": Fate.LOST,
    "registration": Fate.AGAIN,
    "beat": Fate.REPEATED,
    "draining": Fate.AGAIN,
    "leaving": Fate.AGAIN,
    "confirmed": Fate.ANSWER,
    "registered": Fate.FREE,
    "acknowledged": Fate.ANSWER,
    "assignments": Fate.REPEATED,
    "cancels": Fate.LOST,
    "recalls": Fate.LOST,
    "drain": Fate.LOST,
}
"""By the names of the fields, of either direction."""


class Link:
    """One direction, for all the workers of a relay: what happens to what is sent now."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._passable = asyncio.Event()
        self.impair(blocked=False, loss=0.0, duplicate=0.0, delay=None)

    def impair(self, blocked: bool, loss: float, duplicate: float, delay: Distribution | None) -> None:
        self._loss, self._duplicate, self._delay = loss, duplicate, delay
        self.clear = not (blocked or loss or duplicate or delay)
        if blocked:
            self._passable.clear()
        else:
            self._passable.set()

    @property
    def blocked(self) -> bool:
        return not self._passable.is_set()

    async def passable(self) -> None:
        await self._passable.wait()

    def loses(self) -> bool:
        return self._loss > 0 and self._rng.random() < self._loss

    def repeats(self) -> bool:
        return self._duplicate > 0 and self._rng.random() < self._duplicate

    def delay_s(self) -> float:
        return float(self._delay.sample(self._rng, 1)[0]) if self._delay is not None else 0.0


class _Lane(Generic[Message]):
    """One direction of one worker's stream: `deliver` gets what arrives, when it arrives."""

    def __init__(self, link: Link, deliver: Callable[[Message], None], repeat_after_s: float) -> None:
        self._link = link
        self._deliver: Callable[[Message], None] = deliver
        self._repeat_after_s = repeat_after_s
        self._loop = asyncio.get_running_loop()
        self._last_at = 0.0
        self._repetitions: dict[bytes, asyncio.TimerHandle] = {}

    def send(self, message: Message) -> None:
        if self._link.clear:
            self._deliver(message)
            return
        for name, part in parts.parts(message):
            self._send(part, FATES[name])

    def silence(self) -> None:
        """The sender has died: what it would have sent again it does not."""
        for timer in self._repetitions.values():
            timer.cancel()
        self._repetitions.clear()

    async def drained(self) -> None:
        """Until what ends the stream has arrived after everything else: not before a partition ends."""
        await self._link.passable()
        await asyncio.sleep(max(self._last_at - self._loop.time(), self._link.delay_s()))

    def _send(self, part: Message, fate: Fate) -> None:
        link = self._link
        if fate is Fate.FREE:
            self._deliver(part)
            return
        lost = fate is not Fate.ANSWER and link.loses()
        delay_s = link.delay_s()
        if not link.blocked and (lost or delay_s):
            self._answer(part)
        if (link.blocked or lost) and fate is Fate.AGAIN:
            self._repeat(part)
        elif not (link.blocked or lost):
            self._arrive(part, delay_s)
        if fate is Fate.REPEATED and not link.blocked and link.repeats():
            self._arrive(part, link.delay_s())

    def _answer(self, part: Message) -> None:
        """What a worker says of an attempt says too that its assignment has arrived. That is the answer of a call:
        it does not share the fate of the rest."""
        for confirmation in parts.confirmations(part):
            self._arrive(confirmation, self._link.delay_s())

    def _repeat(self, part: Message) -> None:
        """Once, although its sender may be of the kind that does so itself."""
        content = parts.content(part)
        if content in self._repetitions:
            return

        def again() -> None:
            del self._repetitions[content]
            self._send(part, Fate.AGAIN)

        self._repetitions[content] = self._loop.call_later(self._repeat_after_s, again)

    def _arrive(self, part: Message, delay_s: float) -> None:
        if not delay_s:
            self._deliver(part)
            return
        at = self._loop.time() + delay_s
        self._last_at = max(self._last_at, at)
        self._loop.call_at(at, self._deliver, part)


class _Session:
    """One process's stream, and the stream to the coordinator that stands for it and may outlive it."""

    def __init__(self, stub: rpc.Stub, up: Link, down: Link, repeat_after_s: float) -> None:
        self._stub = stub
        self._up_way, self._down_way = up, down
        self._up = _Lane[FromWorker](up, self._arrived_up, repeat_after_s)
        self._down = _Lane[ToWorker](down, self._arrived_down, repeat_after_s)
        self._for_coordinator: asyncio.Queue[FromWorker] = asyncio.Queue()
        self._for_worker: asyncio.Queue[ToWorker] = asyncio.Queue()
        self._early: deque[FromWorker] = deque()
        self._registered = False
        self._left = asyncio.Event()
        self._broken = asyncio.Event()
        self._ended = asyncio.Event()
        self._status: Status = grpc.StatusCode.OK, ""
        self._writing: asyncio.Future[None] | None = None
        self._upstream = asyncio.create_task(self._hold_upstream())

    async def serve(self, requests: AsyncIterator[FromWorker], write: Any) -> Status:
        """The worker's stream, until either side has ended it."""
        try:
            await first_of(
                self._read(requests), self._write(write), self._left.wait(), self._ended.wait(), self._broken.wait()
            )
            return self._status
        finally:
            self._closing = asyncio.create_task(self._close())

    def break_off(self) -> None:
        """Both streams end at once, and whatever is on its way with them."""
        self._status = grpc.StatusCode.UNAVAILABLE, "the network broke the connection"
        self._broken.set()
        self._upstream.cancel()

    async def _read(self, requests: AsyncIterator[FromWorker]) -> None:
        async for message in requests:
            if translate.beat(message) is not None and not (self._up_way.clear and self._down_way.clear):
                # Other answers to beats do not come through. In the other world nobody answers them, and nobody makes
                # another connection in a partition: so the one to here stands.
                self._for_worker.put_nowait(ToWorker())
            self._up.send(message)

    async def _write(self, write: Any) -> None:
        while True:
            message = await self._for_worker.get()
            self._writing = asyncio.ensure_future(write(message))
            await asyncio.shield(self._writing)

    async def written(self) -> None:
        """What was being written when the stream was to end is out: gRPC cannot send a status beside it."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=LAST_WRITE_S)

    async def _close(self) -> None:
        """The worker has gone: so goes its stream to the coordinator, who ends that of a worker that left."""
        self._up.silence()
        await self._up.drained()
        if not self._left.is_set():
            self._upstream.cancel()

    # ---- the coordinator's side

    def _arrived_up(self, message: FromWorker) -> None:
        if message.leaving:
            self._left.set()
        if self._registered:
            self._for_coordinator.put_nowait(message)
            return
        if translate.introduction(message) is None:
            self._early.append(message)
            return
        self._registered = True
        self._early.appendleft(message)
        self._for_coordinator.put_nowait(parts.merged(self._early, FIRST_BYTES))
        while self._early:
            self._for_coordinator.put_nowait(self._early.popleft())

    def _arrived_down(self, message: ToWorker) -> None:
        self._for_worker.put_nowait(message)

    async def _hold_upstream(self) -> None:
        """From the arrival of the registration until either side has ended the stream."""
        first = await self._for_coordinator.get()
        call = self._stub.Work()
        try:
            await call.write(first)
            await first_of(self._read_upstream(call), self._write_upstream(call))
        except grpc.aio.AioRpcError as error:
            self._status = error.code(), error.details() or ""
        finally:
            call.cancel()
        await self._down_way.passable()
        self._ended.set()

    async def _read_upstream(self, call: Any) -> None:
        async for message in call:
            self._down.send(message)

    async def _write_upstream(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await self._for_coordinator.get())
        await asyncio.Event().wait()  # the stream is broken: its reader knows why


class Relay:
    """The service that the workers dial."""

    def __init__(self, channel: grpc.aio.Channel, seed: int, call_timeout_s: float) -> None:
        self._stub = rpc.Stub(channel, rpc.WORKER_STREAM)
        self._call_timeout_s = call_timeout_s
        up, down = np.random.default_rng(seed).spawn(2)
        self._sessions: dict[_Session, None] = {}
        self._links = {"to_coordinator": Link(up), "to_workers": Link(down)}

    def control(self, state: dict[str, Any]) -> None:
        """The network as it is from now on: `blocked`, a list of directions, and by direction the probabilities
        `loss` and `duplicate` and the distribution `delay`. What is missing does not happen. `broken`: every
        connection that there is breaks, once."""
        for direction, link in self._links.items():
            delay = state.get("delay", {}).get(direction)
            link.impair(
                blocked=direction in state.get("blocked", ()),
                loss=state.get("loss", {}).get(direction, 0.0),
                duplicate=state.get("duplicate", {}).get(direction, 0.0),
                delay=_DISTRIBUTION.validate_python(delay) if delay else None,
            )

        if state.get("broken"):
            for session in self._sessions:
                session.break_off()

    async def Work(self, requests: AsyncIterator[FromWorker], context: Any) -> None:
        session = _Session(self._stub, self._links["to_coordinator"], self._links["to_workers"], self._call_timeout_s)
        self._sessions[session] = None
        try:
            code, details = await session.serve(requests, context.write)
        finally:
            del self._sessions[session]
        if code is not grpc.StatusCode.OK:
            await session.written()
            await context.abort(code, details)


async def run_relay(
    coordinator: str, seed: int, call_timeout_s: float, control_fd: int | None, ready: Callable[[str], None]
) -> None:
    """Until SIGTERM or SIGINT. `ready` is called with the address at which workers find it."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with rpc.channel(coordinator) as channel:
        relay = Relay(channel, seed, call_timeout_s)
        if control_fd is not None:
            hear(control_fd, lambda lines: relay.control(lines[-1]))
        server = rpc.server()
        rpc.add_service(server, rpc.WORKER_STREAM, relay)
        port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        ready(f"{HOST}:{port}")
        await stopped.wait()
        await server.stop(0)
    await rpc.last_turns()
