"""Async functions, on one event loop in a subprocess of its own, as many at a time as there are slots.

Where that process ends, the one whose step ran is to blame (`loop_child` says which), and fails. The others begin again
in the next process: nobody else has noticed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import time

from orchestrator.cluster import executions
from orchestrator.cluster.executor import Executor, Finished, ended
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.loop_child import BOARD, GRACE_S, Board
from orchestrator.cluster.outputs import Output
from orchestrator.cluster.programs import Offer, Program, descendants, kill_all, why
from orchestrator.cluster.subprocesses import SPAWN_PAUSES_S, about, id_of
from orchestrator.core.model import AttemptKey as Key

log = logging.getLogger("orchestrator.worker")

LOOK_S = 1.0
BLOCKED_S = 5.0
"""For how long a step of one task may keep the others from theirs."""
SUSPECTED_MOST = 2
"""How often an execution begins again where its process ended and nobody knows by whose fault."""


class _Execution:
    """`key`: None once nobody wants it. `over`: why it is to end, empty while it may go on. `suspected`: how often its
    process ended by nobody's known fault."""

    __slots__ = ("began", "key", "kind", "limit", "offer", "over", "payload", "suspected")

    def __init__(self, key: Key, kind: str, payload: str, offer: Offer) -> None:
        self.key: Key | None = key
        self.kind = kind
        self.payload = payload
        self.offer = offer
        self.over = ""
        self.suspected = 0
        self.began = 0.0
        self.limit: asyncio.TimerHandle | None = None


class CoroutineExecutor(Executor):
    """Executes what its subprocess can; that is replaced when it ends."""

    def __init__(self, finished: Finished, program: Program) -> None:
        super().__init__(finished)
        self._program = program
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._executions: dict[int, _Execution] = {}
        self._numbers: dict[Key, int] = {}
        self._pause_s = 0.0
        self._respawn: asyncio.TimerHandle | None = None
        self._child: _Child | None = None
        self._blocked_s = 0.0
        self._seen = (0, 0)
        self._watch: asyncio.TimerHandle | None = None
        self._spawn()

    def start(self, key: Key, kind: str, payload: str) -> None:
        self._begin(_Execution(key, kind, payload, self._program.offer(kind)))
        if self._watch is None:
            self._watch = self._loop.call_later(LOOK_S, self._look)

    def _begin(self, execution: _Execution) -> None:
        """For the first time, or again."""
        self._count += 1
        number = self._count
        self._executions[number] = execution
        execution.began = time.perf_counter()
        key = execution.key
        assert key is not None
        self._numbers[key] = number
        if self._child is not None:
            self._child.begin(number, key, execution)
            if self._child.proven:
                self._limit(number, execution)

    def _limit(self, number: int, execution: _Execution) -> None:
        timeout_s = execution.offer.execution_timeout_s
        if timeout_s is not None and execution.limit is None:
            execution.limit = self._loop.call_later(timeout_s, self._time_out, number)

    def stop(self, key: Key) -> None:
        number = self._numbers.pop(key)
        execution = self._executions[number]
        execution.key = None
        if not execution.over:
            self._end(number, "it was cancelled")

    def close(self) -> None:
        for timer in (self._respawn, self._watch, *(execution.limit for execution in self._executions.values())):
            if timer is not None:
                timer.cancel()
        if self._child is not None:
            self._child.end()
            self._child = None

    def set_speed(self, speed: float) -> None:
        if speed != 1:
            log.warning("async tasks keep their speed: %g is refused", speed)

    # ---- how an execution ends

    def answered(self, answer: executions.Answer) -> None:
        execution = self._forget(answer.number)
        if execution is None or execution.key is None:
            return
        if execution.over:
            self._fail(execution, execution.over)
        else:
            self.finished(execution.key, self._program.explained(ended(answer)))

    def progresses(self, progress: executions.Progress) -> None:
        execution = self._executions.get(progress.number)
        if execution is not None and execution.key is not None:
            self.progressed(execution.key, progress.share, progress.text)

    def _forget(self, number: int) -> _Execution | None:
        execution = self._executions.pop(number, None)
        if execution is not None:
            if execution.limit is not None:
                execution.limit.cancel()
            if execution.key is not None:
                del self._numbers[execution.key]
        return execution

    def _fail(self, execution: _Execution, reason: str) -> None:
        key = execution.key
        if key is not None:
            ran_s = time.perf_counter() - execution.began
            self.finished(key, Ended(False, "", reason, execution.offer.may_retry(key[1]), ran_s))

    def _time_out(self, number: int) -> None:
        execution = self._executions[number]
        reason = f"its execution timeout of {execution.offer.execution_timeout_s:g} s is over"
        log.warning("task %s: %s", id_of(execution.key) if execution.key else "", reason, extra=about(execution.key))
        self._end(number, reason)

    def _end(self, number: int, reason: str) -> None:
        execution = self._executions[number]
        execution.over = reason
        if execution.limit is not None:
            execution.limit.cancel()
        if self._child is None:
            self._forget(number)
            return
        self._child.send(executions.cancel(number))
        turns = self._child.board.read()[1]
        execution.limit = self._loop.call_later(GRACE_S + LOOK_S, self._unanswered, number, turns)

    def _unanswered(self, number: int, turns: int) -> None:
        """The subprocess gives up a task that goes on; where it says nothing, and its loop does not turn, a step of
        some task blocks it."""
        if self._child is None:
            return
        blocking, turned = self._child.board.read()
        if turned != turns:
            self._executions[number].limit = self._loop.call_later(LOOK_S, self._unanswered, number, turned)
        else:
            self._stop_blocking(blocking, GRACE_S + LOOK_S)

    def _stop_blocking(self, number: int, blocked_s: float) -> None:
        execution = self._executions.get(number)
        if execution is not None and not execution.over:
            execution.over = f"it blocked the event loop of the async tasks for {blocked_s:.0f} s"
            told = id_of(execution.key) if execution.key else "", execution.over
            log.warning("task %s: %s", *told, extra=about(execution.key))
        if self._child is not None:
            self._child.kill()

    def _look(self) -> None:
        """One that blocks the loop is stopped where others wait for it."""
        self._watch = None
        if not self._executions or self._child is None:
            return
        self._watch = self._loop.call_later(LOOK_S, self._look)
        self._child.output.began("async tasks")
        seen = self._child.board.read()
        same = seen == self._seen and seen[0] != 0
        self._blocked_s = self._blocked_s + LOOK_S if same else 0.0
        self._seen = seen
        if self._blocked_s >= BLOCKED_S and len(self._executions) > 1:
            self._stop_blocking(seen[0], self._blocked_s)

    # ---- the subprocess

    def listens(self) -> None:
        """From now on time counts: an app may take long to be imported."""
        self._pause_s = 0.0
        for number, execution in self._executions.items():
            self._limit(number, execution)

    def died(self, status: int, culprit: int, proven: bool, reason: str) -> None:
        self._child = None
        if not proven:
            least_s, most_s = SPAWN_PAUSES_S
            self._pause_s = min(most_s, max(least_s, 2 * self._pause_s))
            log.warning("the subprocess of the async tasks does not start: %s", reason or why(status))
            self._respawn = self._loop.call_later(self._pause_s, self._spawn)
            for number in list(self._executions):
                self._fail_unstarted(number)
            return
        numbers = list(self._executions)
        if culprit not in self._executions and len(numbers) == 1:
            culprit = numbers[0]
        known = culprit in self._executions or any(execution.over for execution in self._executions.values())
        began = [(number, self._forget(number)) for number in numbers]
        self._spawn()
        for number, execution in began:
            if execution is None or execution.key is None:
                continue
            execution.suspected += not known
            if execution.over:
                self._fail(execution, execution.over)
            elif number == culprit:
                self._fail(execution, why(status))
            elif execution.suspected > SUSPECTED_MOST:
                self._fail(execution, f"{why(status)}, and so did the one before")
            else:
                self._begin(execution)

    def _fail_unstarted(self, number: int) -> None:
        execution = self._forget(number)
        if execution is not None and execution.key is not None:
            self.finished(execution.key, Ended(False, "", "its worker could not start a subprocess", True, 0.0))

    def _spawn(self) -> None:
        self._respawn = None
        try:
            self._child = _Child(self, self._program)
        except (OSError, MemoryError) as error:
            log.warning("cannot start the subprocess of the async tasks (%s): the next try comes later", error)
            self._respawn = self._loop.call_later(SPAWN_PAUSES_S[1], self._spawn)
            return
        for number, execution in self._executions.items():
            key = execution.key
            if key is not None:
                self._child.begin(number, key, execution)


class _Child:
    """The subprocess, and what it says."""

    def __init__(self, owner: CoroutineExecutor, program: Program) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._incoming = executions.Incoming()
        self.proven = False
        self._reason = ""
        self._outgoing = bytearray()
        self._writing = False
        self._ended = False
        self.output = Output()
        self.output.began("async tasks")
        descriptor = os.memfd_create("board")
        os.ftruncate(descriptor, BOARD.size)
        self.board = Board(descriptor)
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process: subprocess.Popen[bytes] = program.spawn(
                    theirs.fileno(), "async", board=descriptor, output=self.output.theirs
                )
        except BaseException:
            self._socket.close()
            self.board.close()
            self.output.opened()
            self.output.close()
            raise
        finally:
            os.close(descriptor)
        self.output.opened()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)

    def begin(self, number: int, key: Key, execution: _Execution) -> None:
        self.send(executions.begin(number, id_of(key), key[1], execution.kind, execution.payload))

    def send(self, message: bytes) -> None:
        """With whatever else there is in this turn of the loop."""
        self._outgoing += message
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        if self._ended:
            return
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is dead: the reader will find out
        del self._outgoing[:sent]
        if self._outgoing:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)
            self._writing = False

    def _readable(self) -> None:
        try:
            piece = self._socket.recv(executions.PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._die()
            return
        try:
            for message in self._incoming.feed(piece):
                if isinstance(message, executions.Answer):
                    self._owner.answered(message)
                elif isinstance(message, executions.Progress):
                    self._owner.progresses(message)
                elif isinstance(message, executions.Listening):
                    self.proven, self._reason = not message.reason, message.reason
                    if self.proven:
                        self._owner.listens()
                if self._ended:
                    return
        except ValueError:
            self._reason = "its executor answered with what makes no sense"
            self._die()

    def kill(self) -> None:
        """Its reader will find out."""
        self._process.kill()

    def _die(self) -> None:
        culprit, _ = self.board.read()
        self._owner.died(self.end(), culprit, self.proven, self._reason)

    def end(self) -> int:
        """Kill it, and return its exit status."""
        self._ended = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        begun_by_it = descendants(self._process.pid)
        self._process.kill()
        status = self._process.wait()
        kill_all(begun_by_it)
        self.output.close()
        self.board.close()
        return status
