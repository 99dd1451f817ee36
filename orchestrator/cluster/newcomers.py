"""Streams that nobody has to keep: of too many, the one that has been there longest ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from orchestrator.cluster.peers import Refused


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
