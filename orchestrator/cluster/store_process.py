"""A store in a process of its own: this file is also run as a script, by its path.

    store_process.py DESCRIPTOR PARENT FOLDER PATH...

Whoever writes needs the interpreter before and after each wait for the disk: a thread of a busy coordinator waits
longer for that than for the disk. The other process is killed when its coordinator ends, in whatever way. Then the
folder is free.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path[:] = sys.argv[4:]

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import msgpack

from orchestrator.cluster.orphans import die_with
from orchestrator.cluster.store import DATABASE, Kept, SqliteStore, Unusable, kept_of_numbered, rows_of

log = logging.getLogger("orchestrator.coordinator")

Outdated = tuple[float, float]
"""Until when settled tasks are to be forgotten, as in `Store.forget`."""
_LENGTH_BYTES = 8
_READ_BYTES = 1 << 16
_ENDS_WITHIN_S = 30.0
_encode = msgpack.Encoder().encode
_decode = msgpack.Decoder().decode


def _frame(content: Any) -> bytes:
    encoded = _encode(content)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


class _Frames:
    """Of what arrives, the contents of whole frames."""

    def __init__(self) -> None:
        self._data = bytearray()

    def of(self, data: bytes) -> Iterator[Any]:
        self._data += data
        while len(self._data) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._data[:_LENGTH_BYTES], "little")
            if len(self._data) < end:
                return
            content = _decode(memoryview(self._data)[_LENGTH_BYTES:end])
            del self._data[:end]
            yield content


class StoreProcess:
    """The store of a folder, for one coordinator: first `begin_term` and `tasks`, which raise Unusable where anything
    is wrong with the store or its process; then, on an event loop, `listen` and `write`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / DATABASE
        self._frames = _Frames()
        self._answers: deque[Any] = deque()  # that have arrived, and are not taken yet
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unsent = bytearray()  # what the socket did not take at once
        self._socket, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, __file__, str(descriptor), str(os.getpid()), str(folder), *sys.path]
            # In a group of its own: what a terminal sends is for the coordinator.
            self._process = subprocess.Popen(
                command, pass_fds=[descriptor], process_group=0, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )

    def begin_term(self, at_least: int) -> int:
        """As `Store.begin_term`."""
        self._ask("begin_term", at_least)
        return int(self._answer())

    def tasks(self) -> Iterator[Kept]:
        """As `Store.tasks`. While some are taken here, the next are read there."""
        self._ask("tasks")
        while rows := self._answer():
            yield from kept_of_numbered(rows, self._file)

    def listen(self, stored: Callable[[], None], failed: Callable[[str], None]) -> None:
        """`stored` is called for each group that is, and `failed` once, with a sentence, when no other is."""
        self._loop = asyncio.get_running_loop()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._read, self._loop, stored, failed)

    def write(self, term: int, tasks: Sequence[Kept], outdated: Outdated | None) -> None:
        """As `Store.append`, and then `Store.forget`, behind what was written before."""
        assert self._loop is not None
        waits = bool(self._unsent)
        self._unsent += _frame(("write", term, rows_of(tasks), outdated))
        if not waits:
            self._send()
            if self._unsent:
                self._loop.add_writer(self._socket, self._send_on, self._loop)

    def close(self) -> None:
        """And wait until the other process has ended, so that the folder is free."""
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._status()

    # ---- before there is a loop

    def _ask(self, *request: Any) -> None:
        with suppress(OSError):  # it has ended: the answer says so
            self._socket.sendall(_frame(request))

    def _answer(self) -> Any:
        while not self._answers:
            data = self._received()
            if not data:
                raise self._ended()
            self._answers += self._frames.of(data)
        return _value(self._answers.popleft())

    # ---- on a loop

    def _send(self) -> None:
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # it has ended: `_read` says so

    def _send_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._send()
        if not self._unsent:
            loop.remove_writer(self._socket)

    def _read(self, loop: asyncio.AbstractEventLoop, stored: Callable[[], None], failed: Callable[[str], None]) -> None:
        try:
            data = self._received()
            if not data:
                raise self._ended()
            for answer in self._frames.of(data):
                _value(answer)
                stored()
        except BlockingIOError:
            pass
        except Unusable as error:
            loop.remove_reader(self._socket)
            failed(str(error))

    def _received(self) -> bytes:
        """Nothing, where the other process has ended."""
        try:
            return self._socket.recv(_READ_BYTES)
        except ConnectionError:
            return b""

    def _ended(self) -> Unusable:
        from orchestrator.cluster.programs import why

        return Unusable(f"cannot write the store {self._file}: {why(self._status(), 'the process that writes it')}")

    def _status(self) -> int:
        """Of the other process, which is about to end."""
        try:
            return self._process.wait(_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _value(answer: tuple[bool, Any, list[tuple[int, str]]]) -> Any:
    """Of an answer: whether it was done, what came of it or why not, and what is to be logged, each with its level."""
    done, value, lines = answer
    for level, line in lines:
        log.log(level, "%s", line)
    if not done:
        raise Unusable(value)
    return value


# ---- the other process


class _Lines(logging.Handler):
    """What is logged, for the coordinator to log it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        lines, self._lines = self._lines, []
        return lines


def _values(store: SqliteStore, request: Sequence[Any]) -> Iterator[Any]:
    """The answers to a request."""
    match request:
        case "begin_term", at_least:
            yield store.begin_term(at_least)
        case ("tasks",):
            yield from store.numbered()
            yield ()
        case "write", term, rows, outdated:
            store.append_rows(term, rows)
            if outdated is not None:
                store.forget(term, *outdated)
            yield None


def _serve(connection: socket.socket, folder: Path, parent: int) -> None:
    """Until something is wrong, or nobody asks any more: nothing is stored behind a group that was not."""
    lines, frames = _Lines(), _Frames()
    log.addHandler(lines)
    log.propagate = False

    def answer(done: bool, value: Any) -> None:
        connection.sendall(_frame((done, value, lines.taken())))

    try:
        store = SqliteStore(folder, holder=parent)
        while data := connection.recv(_READ_BYTES):
            for request in frames.of(data):
                for value in _values(store, request):
                    answer(True, value)
        store.close()
    except Unusable as error:
        answer(False, str(error))
    except Exception as error:
        answer(False, f"the store raised {error!r}")


def main(descriptor: int, parent: int, folder: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a supervisor sends it to all: the coordinator ends both
    die_with(parent)
    gc.disable()  # nothing here is in a cycle
    with suppress(ConnectionError), socket.socket(fileno=descriptor) as connection:
        _serve(connection, Path(folder), parent)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
