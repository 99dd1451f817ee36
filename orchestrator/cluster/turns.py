"""When calls bring their messages: until it is taken, a message is in the memory of this process."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

LARGE_BYTES = 100_000
TURN_S = 0.1
SLOW_S = 0.5
LATE_S = 0.02
"""A timer that rings so late tells that this process was busy: what seems slow may be here, and not read yet."""
PLACES = 32
"""Of 8 MiB at most each."""
SPARE_SHARE = 4
"""One place in so many is kept for connections that have brought every message in time."""
DAWDLERS_MAX = 10_000
"""Connections that are remembered because they did not; of more the least recent are forgotten."""

Lane = tuple[str, str]
"""A method, and a connection."""


class Turns(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # at run time it takes none
    """Nothing is read of a call before it has its turn, first come first served: one call of each method and connection
    at a time, and `places` in all.

    A turn lasts until the message is there, or until the call is over if the message is large; but no longer than
    `turn_s`. What arrives more slowly keeps its place, after `slow_s` more only while nobody else wants it: then one of
    the connection that has most of them is refused. A connection that has had such a call is a dawdler: it waits behind
    those that have not, and may not take the last places.

    Streams need no turns: of each, one message is read at a time.
    """

    def __init__(self, turn_s: float = TURN_S, slow_s: float = SLOW_S, places: int = PLACES) -> None:
        self.turn_s = turn_s
        self.slow_s = slow_s
        self._free = places
        self._kept = places // SPARE_SHARE  # of those
        self._dawdlers: OrderedDict[str, None] = OrderedDict()
        self._lanes: dict[Lane, asyncio.Lock] = {}
        self._users: Counter[Lane] = Counter()  # of the lanes: in their turn, or waiting for it
        self._holding: Counter[str] = Counter()  # places, by connection
        self._slow: dict[_Turn, None] = {}  # of which enough has been waited for, oldest first
        self._punctual: dict[asyncio.Future[None], None] = {}  # they wait for a place
        self._dawdling: dict[asyncio.Future[None], None] = {}  # the same of dawdlers

    def taken(self, method: str) -> bool:
        """Whether a call of it has its turn."""
        return any(lane.locked() for (of, _), lane in self._lanes.items() if of == method)

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return len(self._punctual) + len(self._dawdling)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        method, deserialize = details.method, handler.request_deserializer
        answered = _forgetful(handler.unary_stream if handler.response_streaming else handler.unary_unary)

        async def behave(requests: AsyncIterator[_Brought], context: Any) -> Any:
            turn = _Turn(self, (method, context.peer()))
            try:
                request = await turn.message(requests, context)
                answer = answered(request, context)
                del request
                return await answer
            finally:
                turn.end()

        # To the peer it is the same: here, it is known who calls before anything is read.
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(behave, lambda data: _Brought(len(data), deserialize(data)), handler.response_serializer)

    # ---- for turns

    async def enter(self, lane: Lane) -> None:
        """Wait for the turn in the lane, and then for a place."""
        self._users[lane] += 1
        try:
            await self._lanes.setdefault(lane, asyncio.Lock()).acquire()
        except BaseException:
            self._leave(lane)
            raise
        try:
            await self._take_place(lane[1])
        except BaseException:
            self.pass_on(lane)
            raise
        self._holding[lane[1]] += 1

    async def _take_place(self, connection: str) -> None:
        place = asyncio.get_running_loop().create_future()
        queue = self._dawdling if connection in self._dawdlers else self._punctual
        queue[place] = None
        self._give_places()
        if place.done():
            return
        self._make_room()
        try:
            await place
        except BaseException:
            if queue.pop(place, self) is self and not place.cancelled():  # it has been given one
                self._free += 1
                self._give_places()
            raise

    def pass_on(self, lane: Lane) -> None:
        """The turn in the lane is over."""
        self._lanes[lane].release()
        self._leave(lane)

    def _leave(self, lane: Lane) -> None:
        self._users[lane] -= 1
        if not self._users[lane]:
            del self._users[lane]
            self._lanes.pop(lane, None)

    def free_place(self, connection: str) -> None:
        self._holding[connection] -= 1
        if not self._holding[connection]:
            del self._holding[connection]
        self._free += 1
        self._give_places()

    def _give_places(self) -> None:
        while self._free and (self._punctual or (self._dawdling and self._free > self._kept)):
            queue = self._punctual or self._dawdling
            place = next(iter(queue))
            del queue[place]
            if not place.done():
                place.set_result(None)
                self._free -= 1

    def note_late(self, connection: str) -> None:
        """A message of it was not there in its turn."""
        self._dawdlers[connection] = None
        self._dawdlers.move_to_end(connection)
        if len(self._dawdlers) > DAWDLERS_MAX:
            self._dawdlers.popitem(last=False)

    def note_slow(self, turn: _Turn) -> None:
        """More than enough has been waited for its message."""
        self._slow[turn] = None
        self._make_room()

    def forget_slow(self, turn: _Turn) -> None:
        self._slow.pop(turn, None)

    def _make_room(self) -> None:
        """Somebody waits for a place, or one more is slow: where both are, one of the slow ones ends."""
        if self._slow and self.waiting:
            most = max(self._holding.values())
            greedy = (turn for turn in self._slow if self._holding[turn.connection] == most)
            turn = next(greedy, None)  # else there is one soon
            if turn is not None:
                turn.refuse()


class _Brought:
    """A message, and its size in bytes. No tuple: as the last value of an iterator gRPC mistakes that for arguments."""

    __slots__ = ("_request", "size")

    def __init__(self, size: int, request: Any) -> None:
        self.size = size
        self._request = request

    def taken(self) -> Any:
        """The message. It is not kept: gRPC's iterator has this object until garbage is collected."""
        request, self._request = self._request, None
        return request


class _Turn:
    """Of one call."""

    def __init__(self, turns: Turns, lane: Lane) -> None:
        self.connection = lane[1]
        self._turns = turns
        self._lane = lane
        self._has_turn = self._has_place = False
        self._impatient: asyncio.TimerHandle | None = None
        self._patience: asyncio.Timeout | None = None

    async def message(self, requests: AsyncIterator[_Brought], context: Any) -> Any:
        """Aborts the call if there is none, or if it takes too long."""
        await self._turns.enter(self._lane)
        self._has_turn = self._has_place = True
        self._await_in(self._turns.turn_s, self._pass_on)
        try:
            async with asyncio.timeout(None) as self._patience:
                brought = await anext(requests, None)
        except TimeoutError:
            reason = "its message takes too long, and others wait"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        self._be_read()
        if brought is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
            raise AssertionError("abort raises")
        if brought.size < LARGE_BYTES:
            self.end()
        return brought.taken()

    def _await_in(self, seconds: float, then: Callable[[], None]) -> None:
        """`then`, unless the turn has ended by itself."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds

        def ring() -> None:
            if loop.time() > due + LATE_S:
                self._await_in(seconds, then)
            else:
                then()

        self._impatient = loop.call_at(due, ring)

    def _pass_on(self) -> None:
        if self._has_turn:
            self._has_turn = False
            self._turns.pass_on(self._lane)
        if self._patience is not None:
            self._turns.note_late(self.connection)
            self._await_in(self._turns.slow_s, lambda: self._turns.note_slow(self))

    def _be_read(self) -> None:
        self._patience = None
        self._turns.forget_slow(self)

    def refuse(self) -> None:
        self._turns.forget_slow(self)
        assert self._patience is not None
        self._patience.reschedule(0)

    def end(self) -> None:
        """The message is there, and small, or the call is over."""
        self._be_read()
        if self._impatient is not None:
            self._impatient.cancel()
        self._pass_on()
        if self._has_place:
            self._has_place = False
            self._turns.free_place(self.connection)


def _forgetful(behaviour: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
    """A call that is refused keeps its exception, and that the call: with its message, whose frame is in the traceback,
    until garbage is collected."""

    async def behave(request: Any, context: Any) -> Any:
        answer = behaviour(request, context)
        del request
        try:
            return await answer
        except grpc.aio.AbortError as error:
            del answer
            error.__context__ = None
            raise error.with_traceback(None) from None

    return behave
