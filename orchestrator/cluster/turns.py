"""When calls bring their messages: until it is taken, a message is in the memory of this process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

LARGE_BYTES = 100_000
TURN_S = 0.1


class Turns(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # at run time it takes none
    """Nothing is read of a call before it has its turn, first come first served, one call of each method at a time.

    A turn lasts until the message is there, or until the call is over if the message is large; but no longer than
    `turn_s`: what arrives more slowly goes on beside the others. Streams need no turns: of each, one message is read at
    a time.
    """

    def __init__(self, turn_s: float = TURN_S) -> None:
        self._turn_s = turn_s
        self._lanes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def taken(self, method: str) -> bool:
        return self._lanes[method].locked()

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_streaming:
            return handler
        lane = self._lanes[details.method]
        await lane.acquire()
        turn = _Turn(lane, self._turn_s)

        def deserialize(data: bytes) -> Any:
            if len(data) < LARGE_BYTES:
                turn.end()
            return handler.request_deserializer(data)

        behaviour = _forgetful(handler.unary_unary)
        return grpc.unary_unary_rpc_method_handler(behaviour, deserialize, handler.response_serializer)


class _Turn:
    """Of the call whose task makes it; it ends with that task at the latest."""

    def __init__(self, lane: asyncio.Lock, turn_s: float) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._lane: asyncio.Lock | None = lane
        self._impatient = call.get_loop().call_later(turn_s, self.end)
        call.add_done_callback(lambda _: self.end())

    def end(self) -> None:
        if self._lane is not None:
            self._lane.release()
            self._lane = None
            self._impatient.cancel()


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
