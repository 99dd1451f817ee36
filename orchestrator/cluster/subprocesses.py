"""Plain functions in subprocesses, one for each slot, with at most one task each."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

from orchestrator.cluster import executions
from orchestrator.cluster.app import work_of
from orchestrator.cluster.child import CANCEL_SIGNAL
from orchestrator.cluster.executor import Executor, Finished, SlotsChanged, ended
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.outputs import Output
from orchestrator.cluster.programs import Offer, Program, descendants, kill_all, why
from orchestrator.core.model import AttemptKey as Key

log = logging.getLogger("orchestrator.worker")

PERIOD_S = 0.02  # in which a slow subprocess runs for its share
SHORTEST_S = 0.0005
SPAWN_PAUSES_S = (0.1, 5.0)  # the first and the longest one between two tries to start a subprocess
GRACE_S = 1.0
"""For how long a task of the user's own may clean up when it is cancelled."""


class ProcessExecutor(Executor):
    """A subprocess per slot. One that dies fails its attempt, retryably, and is replaced.

    Where none can be started the slot is not usable, and the next try comes later. A subprocess that dies before it
    listens for tasks counts as one that could not be started, unless somebody killed it with a task in its hands.

    Slow ones are stopped and continued by signals, in turn: what computes progresses by its share, what sleeps does
    not notice.
    """

    def __init__(
        self, slots: int, finished: Finished, slots_changed: SlotsChanged | None = None, program: Program | None = None
    ) -> None:
        super().__init__(finished)
        self.program = program or Program()
        self._loop = asyncio.get_running_loop()
        self._slots_changed = slots_changed
        self._slots = self._usable = slots
        self._speed = 1.0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._ran_s = self._begin = 0.0
        self._idle: list[_Child] = []
        self._busy: dict[Key, _Child] = {}
        self._leaving: dict[_Child, None] = {}  # told to end, in the order in which they were
        self._limits: dict[Key, asyncio.TimerHandle] = {}  # of those that have an execution timeout
        self._unstarted: dict[Key, asyncio.Handle] = {}
        self._spending: set[str] = set()  # kinds that have left a subprocess unfit for another task
        self._missing = slots  # slots without a subprocess
        self._spawn_pause_s = 0.0  # after the next failure, 0 while all is well
        self._respawn: asyncio.TimerHandle | None = None
        self._fill_slots()

    def start(self, key: Key, kind: str, payload: str) -> None:
        if not self._idle:  # its slot has just become unusable, and that is not told yet
            self._unstarted[key] = self._loop.call_soon(self._fail, key)
            return
        child = self._busy[key] = self._idle.pop()
        offer = self.program.offer(kind)
        child.begin(key, kind, payload, offer)
        if offer.execution_timeout_s is not None and child.proven:
            self._limit(key, offer)

    def _limit(self, key: Key, offer: Offer) -> None:
        if offer.execution_timeout_s is not None:
            self._limits[key] = self._loop.call_later(offer.execution_timeout_s, self._time_out, key, offer)

    def stop(self, key: Key) -> None:
        if key in self._unstarted:
            self._unstarted.pop(key).cancel()
            return
        self._end_limit(key)
        child = self._busy.pop(key)
        if child in self._leaving:
            child.then = None  # its time was over
            return
        self._let_go(child, None)

    def close(self) -> None:
        for timer in (self._timer, self._respawn, *self._unstarted.values(), *self._limits.values()):
            if timer is not None:
                timer.cancel()
        for child in {*self._idle, *self._busy.values(), *self._leaving}:
            child.end()
        self._idle.clear()
        self._busy.clear()
        self._leaving.clear()

    def done(self, child: _Child, key: Key, answer: executions.Answer) -> None:
        del self._busy[key]
        self._end_limit(key)
        if answer.spent or child.begun == self.program.max_tasks:
            if answer.spent:
                self._tell_spent(key, child.kind)
            child.end()
            self._replace()
        else:
            self._idle.append(child)
        self.finished(key, self.program.explained(ended(answer)))

    def _tell_spent(self, key: Key, kind: str) -> None:
        """Once for each kind: it may be what makes its tasks slow."""
        if work_of(kind) not in self._spending:
            self._spending.add(work_of(kind))
            told = "its subprocess is replaced, now and whenever this happens"
            reason = "it left threads or child processes, had no memory left, or closed its output"
            log.info("task %s, %s: %s: %s", id_of(key), kind, told, reason, extra=about(key))

    def listens(self, key: Key | None, offer: Offer | None) -> None:
        """One has started well; from now on the time of the task that it has counts, if it has one."""
        if key is not None and offer is not None:
            self._limit(key, offer)
        if self._spawn_pause_s and not self._missing:
            self._spawn_pause_s = 0.0
            log.warning("subprocesses start again: all %d slots are usable", self._slots)

    def died(self, child: _Child, key: Key | None, failure: Ended, killed: bool) -> None:
        if key is None:
            self._idle.remove(child)
        else:
            del self._busy[key]
            self._end_limit(key)
        if not child.proven and (key is None or not killed):
            self._spawn_later(failure.error)
        self._replace()
        if key is not None:
            self.finished(key, failure)

    def left(self, child: _Child) -> None:
        """One that was told to end has."""
        self._leaving.pop(child, None)

    def _time_out(self, key: Key, offer: Offer) -> None:
        """The end of the attempt is told once its subprocess is gone: no other one is to run beside it."""
        del self._limits[key]
        child = self._busy[key]
        reason = f"its execution timeout of {offer.execution_timeout_s:g} s is over"
        log.warning("task %s: %s", id_of(key), reason, extra=about(key))
        failure = Ended(False, "", reason, offer.may_retry(key[1]), child.ran_s)

        def tell() -> None:
            del self._busy[key]
            self.finished(key, failure)

        self._let_go(child, tell)

    def _let_go(self, child: _Child, then: Callable[[], None] | None) -> None:
        """End a busy one, and have another in its place."""
        if not self.program.is_own:
            child.end()
        else:
            if len(self._leaving) >= self._slots:
                next(iter(self._leaving)).hurry()
            self._leaving[child] = None
            child.leave(then)
        self._replace()

    def _end_limit(self, key: Key) -> None:
        timer = self._limits.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _fail(self, key: Key) -> None:
        del self._unstarted[key]
        self.finished(key, Ended(False, "", "its worker could not start a subprocess", True, 0.0))

    def _replace(self) -> None:
        self._missing += 1
        self._fill_slots()

    def _fill_slots(self) -> None:
        """Start what is missing, unless that has just failed."""
        while self._missing and self._respawn is None:
            try:
                child = _Child(self)
            except (OSError, MemoryError) as error:
                self._spawn_later(f"{type(error).__name__}: {error}")
                break
            if self._stopped:
                child.signal(signal.SIGSTOP)
            self._idle.append(child)
            self._missing -= 1
        if self._slots_changed is not None and self._usable != self._slots - self._missing:
            self._usable = self._slots - self._missing
            self._loop.call_soon(self._slots_changed, self._usable)

    def _spawn_later(self, reason: str) -> None:
        if self._respawn is not None:
            return
        least_s, most_s = SPAWN_PAUSES_S
        if not self._spawn_pause_s:
            log.warning("cannot start a subprocess (%s): its slot is not used, and the next try comes later", reason)
        self._spawn_pause_s = min(most_s, max(least_s, 2 * self._spawn_pause_s))
        self._respawn = self._loop.call_later(self._spawn_pause_s, self._spawn_again)

    def _spawn_again(self) -> None:
        self._respawn = None
        self._fill_slots()

    def set_speed(self, speed: float) -> None:
        if speed > 1:
            log.warning("subprocesses get no faster: a speed of %g is refused", speed)
            return
        self._cancel_timer()
        self._speed = speed
        if speed == 1:
            self._let_run(True)
        else:
            self._since, self._ran_s = self._loop.time(), 0.0
            self._begin_period()

    def _begin_period(self) -> None:
        """Run first, for as long as makes the share right since the beginning: timers are not exact."""
        begin = self._loop.time()
        owed_s = self._speed * (begin - self._since) - self._ran_s
        if abs(owed_s) > PERIOD_S:  # the whole process was stopped, or busy
            self._since, self._ran_s, owed_s = begin, 0.0, 0.0
        run_s = min(PERIOD_S, self._speed * PERIOD_S + owed_s)
        self._begin = begin
        if self._speed and run_s > SHORTEST_S:
            self._let_run(True)
            self._timer = self._loop.call_at(begin + run_s, self._end_run)
        else:
            self._let_run(False)
            self._timer = self._loop.call_at(begin + PERIOD_S, self._begin_period)

    def _end_run(self) -> None:
        self._ran_s += self._loop.time() - self._begin
        self._let_run(False)
        self._timer = self._loop.call_at(self._begin + PERIOD_S, self._begin_period)

    def _let_run(self, run: bool) -> None:
        """Told anew in every period: a signal to the whole group may have come in between."""
        self._stopped = not run
        for child in (*self._idle, *self._busy.values()):
            child.signal(signal.SIGCONT if run else signal.SIGSTOP)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class _Child:
    """A subprocess with at most one task. `proven`: it has begun to listen. `begun`: how many tasks it has had. OSError
    where it cannot be started."""

    def __init__(self, owner: ProcessExecutor) -> None:
        self.proven = False
        self.begun = 0
        self.kind = ""
        self.then: Callable[[], None] | None = None
        self._leaves: asyncio.TimerHandle | None = None
        self._owner = owner
        self._key: Key | None = None
        self._offer: Offer | None = None
        self._begin = 0.0
        self._incoming = executions.Incoming()
        self._loop = asyncio.get_running_loop()
        self._output: Output | None = None
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _spawn(theirs.fileno(), owner.program, self._open_output())
            except BaseException:
                self._socket.close()
                self._has_output()
                self._close_output()
                raise
            self._has_output()
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._readable)

    @property
    def ran_s(self) -> float:
        return time.perf_counter() - self._begin

    def begin(self, key: Key, kind: str, payload: str, offer: Offer) -> None:
        self._key, self.kind, self._offer = key, kind, offer
        self._begin = time.perf_counter()
        self.begun += 1
        task_id = id_of(key)
        if self._output is not None:
            self._output.began(f"task {task_id}, {kind}", task=task_id, attempt=key[1])
        message = executions.begin(self.begun, task_id, key[1], kind, payload)
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

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)  # its id is its own: nobody has waited for it yet

    def leave(self, then: Callable[[], None] | None) -> None:
        """Let its task clean up, then end it; `then` is called."""
        self._key, self.then = None, then
        self.signal(CANCEL_SIGNAL)
        self._leaves = self._loop.call_later(GRACE_S, self.hurry)

    def hurry(self) -> None:
        """It was told to leave: now it is made to."""
        self.end()
        self._owner.left(self)
        if self.then is not None:
            self.then()

    def end(self) -> int:
        """Kill it, with what its task has begun, and return its exit status."""
        if self._leaves is not None:
            self._leaves.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        begun_by_it = descendants(self._process.pid) if self._owner.program.is_own else []
        self._process.kill()
        status = self._process.wait()
        kill_all(begun_by_it)
        self._close_output()
        return status

    def _readable(self) -> None:
        try:
            chunk = self._socket.recv(executions.PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if self._leaves is not None:
            if not chunk:
                self.hurry()
            return
        if not chunk:
            status = self.end()
            self._die(why(status), status == -signal.SIGKILL)
            return
        try:
            for message in self._incoming.feed(chunk):
                self._hear(message)
        except ValueError:
            self.end()
            self._die("its executor answered with what makes no sense")

    def _hear(self, message: executions.Message) -> None:
        if isinstance(message, executions.Answer):
            key, self._key = self._key, None
            if self._output is not None:
                self._output.drain()
            if key is not None and message.number == self.begun:
                self._owner.done(self, key, message)
        elif isinstance(message, executions.Progress):
            if self._key is not None and message.number == self.begun:
                self._owner.progressed(self._key, message.share, message.text)
        elif isinstance(message, executions.Listening):
            if message.reason:
                log.warning("a subprocess can't import its app: %s", message.reason)
            elif not self.proven:
                self.proven = True
                self._owner.listens(self._key, self._offer)

    def _die(self, reason: str, killed: bool = False) -> None:
        retryable = self._offer is None or self._key is None or self._offer.may_retry(self._key[1])
        self._owner.died(self, self._key, Ended(False, "", reason, retryable, self.ran_s), killed)

    def _open_output(self) -> int | None:
        if not self._owner.program.is_own:
            return None
        self._output = Output()
        return self._output.theirs

    def _has_output(self) -> None:
        if self._output is not None:
            self._output.opened()

    def _close_output(self) -> None:
        if self._output is not None:
            self._output.close()
            self._output = None


def _spawn(descriptor: int, program: Program, output: int | None) -> subprocess.Popen[bytes]:
    return program.spawn(descriptor, output=output)


def about(key: Key | None) -> dict[str, object]:
    """Of a line in the log: what it is about, by field."""
    return {} if key is None else {"task": id_of(key), "attempt": key[1]}


def id_of(key: Key) -> str:
    """The task's, which a worker that is called keeps with something else."""
    task_id = key[0]
    return task_id if isinstance(task_id, str) else str(task_id[1])  # type: ignore[index]
