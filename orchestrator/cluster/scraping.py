"""Where Prometheus scrapes: HTTP, of which it needs little, on the coordinator's loop.

A scraper that sends or reads slowly costs a place of a few, and only for a while. The text is made in another thread.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from http import HTTPStatus

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.exposition import reading, written
from orchestrator.cluster.tally import Tally

log = logging.getLogger("orchestrator.coordinator")

PATH = "/metrics"
SCRAPERS_MAX = 16
"""At a time; beyond that a connection is closed at once."""
PATIENCE_S = 10.0
"""For one, from its connection until it has read its answer."""
HEAD_BYTES = 16 << 10


async def serve(live: LiveCoordinator, tally: Tally, listener: socket.socket, version: str) -> asyncio.Server:
    """From now on GET /metrics is answered there. `version`: of this package."""
    return await asyncio.start_server(_Scraped(live, tally, version).serve, sock=listener, limit=HEAD_BYTES)


class _Scraped:
    def __init__(self, live: LiveCoordinator, tally: Tally, version: str) -> None:
        self._live = live
        self._version = version
        self._tally = tally
        self._scrapers = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._scrapers += 1
        try:
            if self._scrapers <= SCRAPERS_MAX:
                async with asyncio.timeout(PATIENCE_S):
                    writer.write(await self._answer(await reader.readuntil(b"\r\n\r\n")))
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # it went, was too slow, or said too much: its connection tells it so
        finally:
            self._scrapers -= 1
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        request, *fields = head.decode("latin-1").split("\r\n")
        method, target, version = [*request.split(" "), "", "", ""][:3]
        if not version.startswith("HTTP/1."):
            return _message(HTTPStatus.BAD_REQUEST, b"this is HTTP/1.1\n")
        if target.partition("?")[0] != PATH:
            return _message(HTTPStatus.NOT_FOUND, f"metrics are at {PATH}\n".encode())
        if method not in ("GET", "HEAD"):
            return _message(HTTPStatus.METHOD_NOT_ALLOWED, b"metrics can be read only\n")
        named = [field.partition(":") for field in fields]
        accept = ",".join(value.strip() for name, _, value in named if name.strip().lower() == "accept")
        try:
            families = reading(self._live, self._tally, self._version)
            text, content_type = await asyncio.to_thread(written, families, accept)
        except Exception:
            log.exception("metrics could not be read")
            return _message(HTTPStatus.INTERNAL_SERVER_ERROR, b"the log says what went wrong\n")
        return _message(HTTPStatus.OK, text, content_type, with_body=method == "GET")


def _message(
    status: HTTPStatus, body: bytes, content_type: str = "text/plain; charset=utf-8", with_body: bool = True
) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
