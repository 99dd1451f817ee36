"""Where a worker's tasks run: subprocesses, threads, or, for tasks that only wait, the event loop itself.

An executor never refuses: the agent starts at most as many attempts as there are slots. The end of one that was
stopped is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, NamedTuple

from orchestrator.core.worker import Key
from orchestrator.live import tasks

Kind = Literal["process", "thread", "inline"]


class Ended(NamedTuple):
    """How an execution ended; `ran_s` is its duration on the worker's clock."""

    succeeded: bool
    result: str
    error: str
    retryable: bool
    ran_s: float


Finished = Callable[[Key, Ended], None]


class Executor(ABC):
    """`finished` is called on the event loop, never from inside `start`."""

    def __init__(self, finished: Finished) -> None:
        self.finished = finished

    @abstractmethod
    def start(self, key: Key, kind: str, payload: str) -> None: ...

    @abstractmethod
    def stop(self, key: Key) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """End at once whatever runs."""


def make_executor(kind: Kind, slots: int, finished: Finished) -> Executor:
    if kind == "process":
        return ProcessExecutor(slots, finished)
    if kind == "thread":
        return ThreadExecutor(slots, finished)
    return InlineExecutor(finished)


class InlineExecutor(Executor):
    """`sleep` on the event loop: a thousand of them cost no process. Other kinds would block it, and fail."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished)
        self._timers: dict[Key, asyncio.Handle] = {}
        self._loop = asyncio.get_running_loop()

    def start(self, key: Key, kind: str, payload: str) -> None:
        begin = time.perf_counter()
        try:
            if kind != "sleep":
                raise tasks.InvalidPayload(f"this worker only sleeps: no {kind or tasks.DEFAULT!r} here")
            delay_s = tasks.seconds(payload)
        except tasks.InvalidPayload as error:
            failed = Ended(False, "", str(error), False, 0.0)
            self._timers[key] = self._loop.call_soon(self._end, key, failed)
            return
        if delay_s:
            self._timers[key] = self._loop.call_later(delay_s, self._woke, key, begin)
        else:
            self._timers[key] = self._loop.call_soon(self._woke, key, begin)

    def stop(self, key: Key) -> None:
        self._timers.pop(key).cancel()

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _woke(self, key: Key, begin: float) -> None:
        self._end(key, Ended(True, "", "", False, time.perf_counter() - begin))

    def _end(self, key: Key, ended: Ended) -> None:
        del self._timers[key]
        self.finished(key, ended)


class ThreadExecutor(Executor):
    """Threads of this process. One that was stopped cannot be interrupted: its slot's next task waits for it."""

    def __init__(self, slots: int, finished: Finished) -> None:
        super().__init__(finished)
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="task")
        self._futures: dict[Key, Future[None]] = {}

    def start(self, key: Key, kind: str, payload: str) -> None:
        self._futures[key] = self._pool.submit(self._run, key, kind, payload)

    def stop(self, key: Key) -> None:
        self._futures.pop(key).cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, key: Key, kind: str, payload: str) -> None:
        succeeded, result, error, ran_s = tasks.run(kind, payload)
        self._loop.call_soon_threadsafe(self._end, key, Ended(succeeded, result, error, False, ran_s))

    def _end(self, key: Key, ended: Ended) -> None:
        if self._futures.pop(key, None) is not None:
            self.finished(key, ended)


class ProcessExecutor(Executor):
    """A subprocess per slot. One that dies fails its attempt, retryably, and is replaced."""

    def __init__(self, slots: int, finished: Finished) -> None:
        super().__init__(finished)
        self._idle = [_Child(self) for _ in range(slots)]
        self._busy: dict[Key, _Child] = {}

    def start(self, key: Key, kind: str, payload: str) -> None:
        child = self._idle.pop()
        self._busy[key] = child
        child.begin(key, kind, payload)

    def stop(self, key: Key) -> None:
        self._busy.pop(key).end()
        self._idle.append(_Child(self))

    def close(self) -> None:
        for child in (*self._idle, *self._busy.values()):
            child.end()
        self._idle.clear()
        self._busy.clear()

    def done(self, child: _Child, key: Key, ended: Ended) -> None:
        del self._busy[key]
        self._idle.append(child)
        self.finished(key, ended)

    def died(self, child: _Child, key: Key | None, reason: str, ran_s: float) -> None:
        if key is None:
            self._idle[self._idle.index(child)] = _Child(self)
            return
        del self._busy[key]
        self._idle.append(_Child(self))
        self.finished(key, Ended(False, "", reason, True, ran_s))


class _Child:
    """A subprocess with at most one task."""

    def __init__(self, owner: ProcessExecutor) -> None:
        self._owner = owner
        self._key: Key | None = None
        self._begin = 0.0
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = _spawn(theirs.fileno())
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)

    def begin(self, key: Key, kind: str, payload: str) -> None:
        self._key = key
        self._begin = time.perf_counter()
        message = marshal.dumps((kind, payload))
        try:
            sent = self._socket.send(message)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is dead: the reader will find out
        if sent < len(message):
            self._sending = self._loop.create_task(self._send(message[sent:]))

    async def _send(self, rest: bytes) -> None:
        with contextlib.suppress(OSError):  # it is dead: the reader will find out
            await self._loop.sock_sendall(self._socket, rest)

    def end(self) -> int:
        """Kill it, and return its exit status."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._process.kill()
        return self._process.wait()

    def _readable(self) -> None:
        try:
            chunk = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            ran_s = time.perf_counter() - self._begin
            self._owner.died(self, self._key, _why(self.end()), ran_s)
            return
        self._received += chunk
        try:
            succeeded, result, error, ran_s = marshal.loads(self._received)
        except EOFError:
            return  # the rest is still on its way
        self._received = b""
        key, self._key = self._key, None
        if key is not None:
            self._owner.done(self, key, Ended(succeeded, result, error, False, ran_s))


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """In the worker's process group, so that a signal to the group reaches it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", tasks.__file__, str(descriptor), str(os.getpid())],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
    )


def _why(status: int) -> str:
    if status < 0:
        return f"its executor was killed by {signal.Signals(-status).name}"
    return f"its executor exited with status {status}"
