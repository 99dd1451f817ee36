"""Streams that nobody has to keep: of too many, the one that has been there longest ends, and so does a silent one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from orchestrator.cluster.peers import Refused
from orchestrator.cluster.wire.frames import sound

SILENCE_S = 30.0
"""How long one may say nothing while it is to ask for something."""


async def heard(requests: AsyncIterator[Any], silence_s: float = SILENCE_S) -> AsyncIterator[Any]:
    """The messages, until there are no more. Raises Refused, Malformed."""
    while True:
        try:
            async with asyncio.timeout(silence_s):
                message = await anext(requests, None)
        except TimeoutError:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, f"nothing was said for {silence_s:g} s") from None
        if message is None:
            return
        yield sound(message)


async def the_request(requests: AsyncIterator[Any], silence_s: float = SILENCE_S) -> Any:
    """The only message of one who is answered by a stream. Raises Refused, Malformed."""
    message = await anext(heard(requests, silence_s), None)
    if message is None:
        raise Refused(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
    return message


class Newcomers:
    """So many streams at a time. `crowded`: what the oldest is told, as RESOURCE_EXHAUSTED, when one too many comes."""

    def __init__(self, most: int, crowded: str) -> None:
        self._most = most
        self._crowded = crowded
        self._places: dict[asyncio.Timeout, None] = {}  # oldest first

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """For one stream. Raises Refused, out of whatever is awaited in it, when the place is wanted for another."""
        places = self._places
        try:
            async with asyncio.timeout(None) as patience:
                places[patience] = None
                if len(places) > self._most:
                    oldest = next(iter(places))
                    del places[oldest]
                    oldest.reschedule(0)
                try:
                    yield
                finally:
                    places.pop(patience, None)
        except TimeoutError:
            raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, self._crowded) from None
