"""The connection that the workers of a process share, and another one in its place when nothing comes by it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator

import grpc.aio

from orchestrator.cluster.silence import Silence
from orchestrator.cluster.wire import rpc

log = logging.getLogger("orchestrator.worker")


class Connection:
    """To a coordinator. What is begun on a channel stays there, although the next stream may take another one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.silence = Silence(address, log)
        self._current = rpc.channel(address)
        self._users: Counter[grpc.aio.Channel] = Counter()
        self._dialling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Connection:
        self.silence.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.silence.close()
        if self._dialling is not None:
            self._dialling.cancel()
            await asyncio.wait([self._dialling])
        await self._current.close(None)

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """The newest one, open for as long as it is used here."""
        channel = self._current
        self._users[channel] += 1
        try:
            yield channel
        finally:
            self._users[channel] -= 1
            if channel is not self._current:
                await self._close_unused(channel)

    async def replace(self, channel: grpc.aio.Channel) -> None:
        """Wait until the newest one is another than this, and stands: the coordinator has answered on it. However many
        ask for that, it is dialled once."""
        while channel is self._current:
            if self._dialling is None or self._dialling.done():
                self._dialling = asyncio.create_task(self._dial())
            await asyncio.shield(self._dialling)

    async def _dial(self) -> None:
        fresh = rpc.channel(self._address)
        try:
            await fresh.channel_ready()
        except BaseException:
            await fresh.close(None)
            raise
        former, self._current = self._current, fresh
        await self._close_unused(former)

    async def _close_unused(self, channel: grpc.aio.Channel) -> None:
        if not self._users[channel]:
            del self._users[channel]
            await channel.close(None)
