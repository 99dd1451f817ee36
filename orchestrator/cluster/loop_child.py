"""The async tasks of an app, on one event loop, in a subprocess of the worker.

One that blocks the loop, or ends the process, must not be mixed up with the others: whose step runs at a moment stands
on a board, a piece of memory that the worker sees too. So it knows whose fault the end of the process was.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import socket
import struct
import sys
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any

from orchestrator.cluster import executions
from orchestrator.cluster.app import App, CurrentTask, run_async

BOARD = struct.Struct("=QQ")
"""The number of the execution whose step runs, 0 for none; and how often the loop has turned since it began."""
TICK_S = 0.25
GRACE_S = 1.0
"""For how long a task may go on after it was cancelled."""

_number: ContextVar[int] = ContextVar("execution", default=0)


class Board:
    """Written here, read by the worker."""

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, BOARD.size)
        self.cells = memoryview(self._memory).cast("Q")

    def read(self) -> tuple[int, int]:
        return self.cells[0], self.cells[1]

    def close(self) -> None:
        self.cells.release()
        self._memory.close()


class _Stepped(Coroutine[Any, Any, Any]):
    """A coroutine whose steps stand on the board, and which is not stepped any more once it is abandoned."""

    __slots__ = ("_cells", "_coroutine", "_execution")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], execution: _Execution, cells: memoryview) -> None:
        self._coroutine = coroutine
        self._execution = execution
        self._cells = cells

    def send(self, value: Any) -> Any:
        execution, cells = self._execution, self._cells
        if execution.abandoned:
            raise StopIteration(None)
        cells[0] = execution.number
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:  # of a task that it began: the loop would end
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        finally:
            cells[0] = 0

    def throw(self, *error: Any) -> Any:
        execution, cells = self._execution, self._cells
        if execution.abandoned:
            raise StopIteration(None)
        cells[0] = execution.number
        try:
            return self._coroutine.throw(*error)
        finally:
            cells[0] = 0

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):  # it ignores that, too
            self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


class _Execution:
    """`tasks`: the asyncio tasks that it has begun beside its own, and that have not ended."""

    __slots__ = ("abandoned", "may_retry", "number", "task", "tasks")

    def __init__(self, number: int, may_retry: bool) -> None:
        self.number = number
        self.may_retry = may_retry
        self.abandoned = False
        self.task: asyncio.Task[Any] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()


class LoopChild:
    """Executes what it is told, and answers."""

    def __init__(self, connection: socket.socket, app: App, board: Board, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._app = app
        self._cells = board.cells
        self._executions: dict[int, _Execution] = {}
        self._outgoing = bytearray()
        self._loop = loop
        self._loop.set_task_factory(self._make_task)
        self._incoming = executions.Incoming()
        self._writing = False

    def serve(self) -> None:
        self._connection.setblocking(False)
        self._loop.add_reader(self._connection, self._readable)
        self._tick()
        self._send(executions.listening())

    def _tick(self) -> None:
        self._cells[1] += 1
        self._loop.call_later(TICK_S, self._tick)

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> asyncio.Task[Any]:
        execution = self._executions.get(_number.get())
        if execution is None:
            return asyncio.Task(coroutine, loop=loop, **settings)
        task: asyncio.Task[Any] = asyncio.Task(_Stepped(coroutine, execution, self._cells), loop=loop, **settings)
        execution.tasks.add(task)
        task.add_done_callback(execution.tasks.discard)
        return task

    def _readable(self) -> None:
        try:
            piece = self._connection.recv(executions.PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            os._exit(0)
        for message in self._incoming.feed(piece):
            if isinstance(message, executions.Begin):
                self._begin(message)
            elif isinstance(message, executions.Cancel):
                self._cancel(message.number)

    def _begin(self, begin: executions.Begin) -> None:
        number, task_id, attempt, kind, payload = begin
        task = self._app.find(kind)
        if task is None:
            self._send(executions.answered(number, executions.Answer(False, "", self._app.unknown(kind), 0.0)))
            return

        def report(share: float, text: str) -> None:  # in whichever thread
            self._loop.call_soon_threadsafe(self._send, executions.progress(number, share, text))

        execution = self._executions[number] = _Execution(number, task.may_retry(attempt))
        current = CurrentTask(task_id, attempt, task, report)
        coroutine = _Stepped(run_async(task, payload, current), execution, self._cells)
        _number.set(number)  # for the task that is made here, and all that it makes
        execution.task = asyncio.Task(coroutine, loop=self._loop)
        _number.set(0)
        execution.task.add_done_callback(lambda done: self._done(execution, done))

    def _done(self, execution: _Execution, done: asyncio.Task[Any]) -> None:
        if self._executions.pop(execution.number, None) is None:
            return
        for task in execution.tasks:
            task.cancel()
        if execution.tasks:
            self._loop.call_later(GRACE_S, self._abandon, execution)
        # Where nobody has asked for that, another task has cancelled it, or it has cancelled itself.
        answer = executions.Answer(False, "", "it was cancelled by a task", 0.0, execution.may_retry)
        if not done.cancelled() and done.exception() is None and done.result() is not None:
            answer = done.result()
        self._send(executions.answered(execution.number, answer))

    def _cancel(self, number: int) -> None:
        execution = self._executions.get(number)
        if execution is None or execution.task is None:
            return
        execution.task.cancel()
        self._loop.call_later(GRACE_S, self._abandon, execution)

    def _abandon(self, execution: _Execution) -> None:
        """It goes on although it was cancelled: from now on it does not."""
        execution.abandoned = True
        if self._executions.pop(execution.number, None) is not None:
            answer = executions.Answer(False, "", "it went on after it was cancelled, and was abandoned", 0.0)
            self._send(executions.answered(execution.number, answer))

    def _send(self, message: bytes) -> None:
        """With whatever else there is in this turn of the loop."""
        self._outgoing += message
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            os._exit(0)
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._connection, self._write)
        else:
            self._loop.remove_writer(self._connection)
            self._writing = False
        sys.stdout.flush()


def serve(connection: socket.socket, app: App, descriptor: int) -> None:
    """Until the other end of the connection closes, which ends the process."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    LoopChild(connection, app, Board(descriptor), loop).serve()
    while True:
        loop.run_forever()  # a task may stop it
