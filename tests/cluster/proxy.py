"""A proxy that forgets its connections without closing them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes between whoever dials it and a port; `swallow` loses all that comes by its present connections."""

    def __init__(self) -> None:
        self.to = self.port = 0
        self.dialled = 0
        self._passable = [True]
        self._parts: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    def swallow(self) -> None:
        self._passable[0] = False
        self._passable = [True]

    async def _dialled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        passable = self._passable
        onward = await asyncio.open_connection("127.0.0.1", self.to)
        self._writers += [writer, onward[1]]
        ways = ((reader, onward[1]), (onward[0], writer))
        self._parts += [asyncio.create_task(self._pass(*way, passable)) for way in ways]

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passable: list[bool]) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                if passable[0]:
                    writer.write(chunk)
        if passable[0]:
            writer.close()

    @contextlib.asynccontextmanager
    async def passing(self, to: int) -> AsyncIterator[Proxy]:
        self.to = to
        server = await asyncio.start_server(self._dialled, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for part in self._parts:
                part.cancel()
            for writer in self._writers:
                writer.close()
            await asyncio.gather(
                *self._parts, *(writer.wait_closed() for writer in self._writers), return_exceptions=True
            )
