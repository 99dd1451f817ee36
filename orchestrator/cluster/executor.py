"""Where a worker's tasks run: subprocesses, threads, or, for tasks that only wait, the event loop itself.

An executor never refuses: the agent starts at most as many attempts as there are usable slots. The end of one that
was stopped is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import ClassVar, Literal

from orchestrator.cluster import tasks
from orchestrator.cluster.jobs import Ended
from orchestrator.core.model import AttemptKey as Key

log = logging.getLogger("orchestrator.worker")

Kind = Literal["process", "thread", "inline"]
PERIOD_S = 0.02  # in which a slow subprocess runs for its share
SHORTEST_S = 0.0005
LATE_S = 0.02
SPAWN_PAUSES_S = (0.1, 5.0)  # the first and the longest one between two tries to start a subprocess


Finished = Callable[[Key, Ended], None]
SlotsChanged = Callable[[int], None]


class Executor(ABC):
    """`finished` is called on the event loop, never from inside `start` or `stop`.

    `can_stop`: whether `stop` ends the work at once; if not, it goes on, and its end is told only if `stop` was not
    called.
    """

    can_stop: ClassVar[bool] = True

    def __init__(self, finished: Finished) -> None:
        self.finished = finished

    @abstractmethod
    def start(self, key: Key, kind: str, payload: str) -> None: ...

    @abstractmethod
    def stop(self, key: Key) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """End at once whatever runs."""

    @abstractmethod
    def set_speed(self, speed: float) -> None:
        """From now on do the work, of what runs too, at this share of the usual speed; 0: it stands still."""

    def frozen(self, seconds: float) -> None:  # noqa: B027  # work that computes has nothing to make up for
        """Until a moment ago the whole process had been stopped for so long."""


def make_executor(kind: Kind, slots: int, finished: Finished, slots_changed: SlotsChanged | None = None) -> Executor:
    """`slots_changed` is called on the event loop, never from inside `start` or `stop`, with the number of slots that
    can be used from now on; before the first call that is all of them."""
    if kind == "process":
        return ProcessExecutor(slots, finished, slots_changed)
    if kind == "thread":
        return ThreadExecutor(finished)
    return InlineExecutor(finished)


class _Sleep:
    """`left_s`: seconds of sleep at full speed that were left at `since`."""

    __slots__ = ("begin", "error", "left_s", "since", "timer")

    def __init__(self, left_s: float, error: str, now: float) -> None:
        self.begin = self.since = now
        self.left_s = left_s
        self.error = error
        self.timer: asyncio.Handle | None = None


class InlineExecutor(Executor):
    """`sleep` on the event loop: a thousand of them cost no process. Other kinds would block it, and fail."""

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished)
        self._sleeping: dict[Key, _Sleep] = {}
        self._speed = 1.0
        self._loop = asyncio.get_running_loop()

    def start(self, key: Key, kind: str, payload: str) -> None:
        left_s, error = 0.0, ""
        try:
            if tasks.work_of(kind) != "sleep":
                raise tasks.InvalidPayload(f"this worker only sleeps: no {kind or tasks.DEFAULT!r} here")
            left_s = tasks.seconds(payload)
        except tasks.InvalidPayload as invalid:
            error = str(invalid)
        sleep = self._sleeping[key] = _Sleep(left_s, error, time.monotonic())
        self._wake_later(key, sleep)

    def stop(self, key: Key) -> None:
        timer = self._sleeping.pop(key).timer
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        for key in list(self._sleeping):
            self.stop(key)

    def set_speed(self, speed: float) -> None:
        self._sleep_on(0.0, speed)

    def frozen(self, seconds: float) -> None:
        self._sleep_on(seconds, self._speed)

    def _sleep_on(self, frozen_s: float, speed: float) -> None:
        """With what is left, at that speed: time in which the process was stopped has not counted."""
        now = time.monotonic()
        for sleep in self._sleeping.values():
            if sleep.timer is not None:
                sleep.timer.cancel()
            slept_s = max(0.0, now - sleep.since - frozen_s)
            sleep.left_s = max(0.0, sleep.left_s - slept_s * self._speed)
            sleep.since = now
        self._speed = speed
        for key, sleep in self._sleeping.items():
            self._wake_later(key, sleep)

    def _wake_later(self, key: Key, sleep: _Sleep) -> None:
        if not self._speed:
            sleep.timer = None
        elif sleep.left_s:
            due = sleep.since + sleep.left_s / self._speed
            sleep.timer = self._loop.call_at(due, self._wake, key, due)
        else:
            sleep.timer = self._loop.call_soon(self._end, key)

    def _wake(self, key: Key, due: float) -> None:
        if time.monotonic() - due > LATE_S:
            # Where the process was stopped, a word about it waits to be read: the loop reads before it calls this.
            self._sleeping[key].timer = self._loop.call_later(0, self._end, key)
        else:
            self._end(key)

    def _end(self, key: Key) -> None:
        sleep = self._sleeping.pop(key)
        ran_s = time.monotonic() - sleep.begin
        self.finished(key, Ended(not sleep.error, "", sleep.error, False, ran_s))


class ThreadExecutor(Executor):
    """Threads of this process, as many as are busy at once. Nothing can interrupt one, not even the process's end
    waits for it."""

    can_stop = False

    def __init__(self, finished: Finished) -> None:
        super().__init__(finished)
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Key, str, str] | None] = SimpleQueue()
        self._threads = self._busy = 0
        self._wanted: set[Key] = set()

    def start(self, key: Key, kind: str, payload: str) -> None:
        self._wanted.add(key)
        self._busy += 1
        if self._busy > self._threads:
            try:
                threading.Thread(target=self._serve, name="task", daemon=True).start()
            except RuntimeError as error:
                self._loop.call_soon(
                    self._end, key, Ended(False, "", f"no thread could be started: {error}", True, 0.0)
                )
                return
            self._threads += 1
        self._jobs.put((key, kind, payload))

    def stop(self, key: Key) -> None:
        self._wanted.discard(key)

    def close(self) -> None:
        self._wanted.clear()
        for _ in range(self._threads):
            self._jobs.put(None)

    def set_speed(self, speed: float) -> None:
        log.warning("threads keep their speed: %g is refused", speed)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            key, kind, payload = job
            succeeded, result, error, ran_s = tasks.run(kind, payload)
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(self._end, key, Ended(succeeded, result, error, False, ran_s))

    def _end(self, key: Key, ended: Ended) -> None:
        self._busy -= 1
        if key in self._wanted:
            self._wanted.discard(key)
            self.finished(key, ended)


class ProcessExecutor(Executor):
    """A subprocess per slot. One that dies fails its attempt, retryably, and is replaced.

    Where none can be started the slot is not usable, and the next try comes later. A subprocess that dies before it
    listens for tasks counts as one that could not be started.

    Slow ones are stopped and continued by signals, in turn: what computes progresses by its share, what sleeps does
    not notice.
    """

    def __init__(self, slots: int, finished: Finished, slots_changed: SlotsChanged | None = None) -> None:
        super().__init__(finished)
        self._loop = asyncio.get_running_loop()
        self._slots_changed = slots_changed
        self._slots = self._usable = slots
        self._speed = 1.0
        self._stopped = False
        self._timer: asyncio.TimerHandle | None = None
        self._since = self._ran_s = self._begin = 0.0
        self._idle: list[_Child] = []
        self._busy: dict[Key, _Child] = {}
        self._unstarted: dict[Key, asyncio.Handle] = {}
        self._missing = slots  # slots without a subprocess
        self._spawn_pause_s = 0.0  # after the next failure, 0 while all is well
        self._respawn: asyncio.TimerHandle | None = None
        self._fill_slots()

    def start(self, key: Key, kind: str, payload: str) -> None:
        if self._idle:
            child = self._busy[key] = self._idle.pop()
            child.begin(key, kind, payload)
        else:  # its slot has just become unusable, and that is not told yet
            self._unstarted[key] = self._loop.call_soon(self._fail, key)

    def stop(self, key: Key) -> None:
        if key in self._unstarted:
            self._unstarted.pop(key).cancel()
            return
        self._busy.pop(key).end()
        self._replace()

    def close(self) -> None:
        for timer in (self._timer, self._respawn, *self._unstarted.values()):
            if timer is not None:
                timer.cancel()
        for child in (*self._idle, *self._busy.values()):
            child.end()
        self._idle.clear()
        self._busy.clear()

    def done(self, child: _Child, key: Key, ended: Ended) -> None:
        del self._busy[key]
        self._idle.append(child)
        self.finished(key, ended)

    def listens(self) -> None:
        """One has started well."""
        if self._spawn_pause_s and not self._missing:
            self._spawn_pause_s = 0.0
            log.warning("subprocesses start again: all %d slots are usable", self._slots)

    def died(self, child: _Child, key: Key | None, reason: str, ran_s: float) -> None:
        if key is None:
            self._idle.remove(child)
        else:
            del self._busy[key]
        if not child.proven:
            self._spawn_later(reason)
        self._replace()
        if key is not None:
            self.finished(key, Ended(False, "", reason, True, ran_s))

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
    """A subprocess with at most one task. `proven`: it has begun to listen. OSError where it cannot be started."""

    def __init__(self, owner: ProcessExecutor) -> None:
        self.proven = False
        self._owner = owner
        self._key: Key | None = None
        self._begin = 0.0
        self._received = b""
        self._loop = asyncio.get_running_loop()
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = _spawn(theirs.fileno())
            except BaseException:
                self._socket.close()
                raise
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

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)  # its id is its own: nobody has waited for it yet

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
            self._die(_why(self.end()))
            return
        self._received += chunk
        if not self.proven and self._received.startswith(tasks.LISTENING):
            self.proven = True
            self._owner.listens()
            self._received = self._received[len(tasks.LISTENING) :]
        try:
            succeeded, result, error, ran_s = marshal.loads(self._received)
        except EOFError:
            return  # the rest is still on its way
        except (ValueError, TypeError):
            self.end()
            self._die("its executor answered with what makes no sense")
            return
        self._received = b""
        key, self._key = self._key, None
        if key is not None:
            self._owner.done(self, key, Ended(succeeded, result, error, False, ran_s))

    def _die(self, reason: str) -> None:
        self._owner.died(self, self._key, reason, time.perf_counter() - self._begin)


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """In the worker's process group, so that a signal to the group reaches it."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", tasks.__file__, str(descriptor), str(os.getpid())],
        pass_fds=[descriptor],
        stdin=subprocess.DEVNULL,
    )


def _why(status: int) -> str:
    if status < 0:
        number = -status
        name = signal.Signals(number).name if number in signal.Signals.__members__.values() else f"signal {number}"
        return f"its executor was killed by {name}"
    return f"its executor exited with status {status}"
