"""Calls by bare HTTP/2 frames: of a peer that takes no byte of any answer."""

from __future__ import annotations

import asyncio
import struct

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW = 4


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def headers(path: str) -> bytes:
    """Literal ones, without an index."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    fields |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(b"\0" + b"".join(bytes([len(text)]) + text.encode() for text in field) for field in fields.items())


class Unreading:
    """A connection whose streams have no room for a body; status without a body passes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        self._next = 1

    @classmethod
    async def open(cls, port: int) -> Unreading:
        made = cls(*await asyncio.open_connection("127.0.0.1", port))
        no_room = struct.pack(">HI", INITIAL_WINDOW, 0)
        made._writer.write(PREFACE + frame(SETTINGS, 0, 0, no_room) + frame(SETTINGS, ACK, 0, b""))
        return made

    def begin(self, path: str) -> None:
        """A call whose message does not follow."""
        self._writer.write(frame(HEADERS, END_HEADERS, self._next, headers(path)))
        self._next += 2

    def message(self, request: bytes, stream: int | None = None) -> None:
        """The message of the call that has begun last, or of another one: the first is 1, the second 3."""
        body = b"\0" + struct.pack(">I", len(request)) + request
        self._writer.write(frame(DATA, END_STREAM, stream or self._next - 2, body))

    def end(self) -> None:
        """The call that has begun last has no message."""
        self._writer.write(frame(DATA, END_STREAM, self._next - 2, b""))

    def call(self, path: str, request: bytes) -> None:
        self.begin(path)
        self.message(request)

    def close(self) -> None:
        self._writer.transport.abort()
