"""Where a worker's tasks run: what every executor is, and those that need no subprocess.

An executor never refuses: the agent starts at most as many attempts as there are usable slots. The end of one that
was stopped is not told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import ClassVar

from orchestrator.cluster import tasks
from orchestrator.cluster.app import DEFAULT, work_of
from orchestrator.cluster.executions import Answer
from orchestrator.cluster.invalid import InvalidPayload
from orchestrator.cluster.jobs import Ended
from orchestrator.core.model import AttemptKey as Key

log = logging.getLogger("orchestrator.worker")

LATE_S = 0.02

Finished = Callable[[Key, Ended], None]
SlotsChanged = Callable[[int], None]
Progressed = Callable[[Key, float, str], None]


class Executor(ABC):
    """`finished` is called on the event loop, never from inside `start` or `stop`.

    `can_stop`: whether `stop` ends the work at once; if not, it goes on, and its end is told only if `stop` was not
    called.
    """

    can_stop: ClassVar[bool] = True

    def __init__(self, finished: Finished) -> None:
        self.finished = finished
        self.progressed: Progressed = _unheard

    def hear_progress(self, progressed: Progressed) -> None:
        """Have it called, on the event loop, with what tasks say of how far they are."""
        self.progressed = progressed

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


def _unheard(key: Key, share: float, text: str) -> None:
    """Nobody wants to know."""


def ended(answer: Answer) -> Ended:
    """What the worker reports of an execution."""
    succeeded, result, error, ran_s, retryable, after_s, _, _ = answer
    return Ended(succeeded, result, error, retryable, ran_s, after_s)


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
            if work_of(kind) != "sleep":
                raise InvalidPayload(f"this worker only sleeps: no {kind or DEFAULT!r} here")
            left_s = tasks.seconds(payload)
        except InvalidPayload as invalid:
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
            answer = tasks.app.run(kind, payload)
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(self._end, key, ended(answer))

    def _end(self, key: Key, ended: Ended) -> None:
        self._busy -= 1
        if key in self._wanted:
            self._wanted.discard(key)
            self.finished(key, ended)
