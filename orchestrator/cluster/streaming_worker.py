"""A worker that dials its coordinator and holds a stream to it.

A coordinator that was lost is dialled again, with growing pauses, while what the worker holds goes on. Each stream
begins with what it holds; the answer says what it is to stop of that.

Every beat is answered. A worker that hears nothing for as long as its coordinator told it makes another connection.
It gives the silent one up only when the other one stands, and the silent one is silent still: a coordinator that stood
still itself then goes on where it was, and one that cannot be reached is no better reached elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.connection import Connection
from orchestrator.cluster.overdue import Overdue, awake_s, confirm_s
from orchestrator.cluster.wire import rpc, translate
from orchestrator.cluster.wire.progress import TEXT_CHARACTERS, Progress
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import Introduction, Key, Registered
from orchestrator.cluster.worker import SHORTEST_S, ContractOnly, Held, Settings, Unwanted, Worker
from orchestrator.core import redialling

log = logging.getLogger("orchestrator.worker")

FIRST_CALL_TIMEOUT_S = 2.0
"""Of the registration, whose answer says how long calls may take."""
FIRST_SILENCE_S, LONGEST_SILENCE_S = 5.0, 60.0
"""Until a registration is answered, which says what silence is: doubled each time, because an answer may have to wait
until another process of that name is known to be gone."""
PROGRESS_PAUSE_S = 0.1
COMPANY_WAITS_S = 0.001
"""How soon after a message another one may follow while most tasks still run: a message costs more than a task."""
UNWANTED = (
    *(grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.INVALID_ARGUMENT),
    *(grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED),
)


class Refusal(str):
    """Why the worker can't take what its coordinator says."""


class StreamingWorker(Worker):
    """Dials out, and holds one stream. Whatever travels on it may be lost, repeated or overtaken."""

    def __init__(self, name: str, settings: Settings, registered: Callable[[], None], connection: Connection) -> None:
        self._open = self._connected = self._leaving = False
        self._listen_s = 0.0  # before it writes to the next stream
        self._forgotten = False  # by a new coordinator, which waits for no word on what was dropped
        self._news = translate.WorkerNews()
        self._gathered = asyncio.Event()
        self._complete = asyncio.Event()  # what is gathered: it waits for nothing more
        self._written_at = -math.inf
        timeout_s = FIRST_CALL_TIMEOUT_S
        self._unreported: dict[int, Key] = {}  # by the numbers of the reports that are not acknowledged
        self._unacknowledged: Overdue[int] = Overdue(timeout_s, self._repeat, awake_s(timeout_s))
        self._unmentioned: Overdue[Key] = Overdue(confirm_s(timeout_s), self._confirm)
        self._unanswered: Overdue[str] = Overdue(timeout_s, self._ask_again, awake_s(timeout_s))
        self._handed_back: list[Key] = []
        self._connection = connection
        self._silence_s = FIRST_SILENCE_S  # until it is told otherwise
        self._grace_s = awake_s(timeout_s)
        self._unheard: Overdue[str] = Overdue(FIRST_SILENCE_S, self._note_silence, awake_s(timeout_s))
        self._silent, self._heard = asyncio.Event(), asyncio.Event()
        self._telling: asyncio.TimerHandle | None = None  # how far tasks are, soon
        self._complaint = ""  # until the coordinator takes the worker in, whatever else fails in between
        super().__init__(name, settings, registered)

    async def run(self) -> None:
        for pause_s in rpc.pauses():
            connected = await self._session()
            if self.gone.is_set():
                return
            if connected:
                pause_s = redialling.PAUSE_MIN_S * random.random()
            await first_of(asyncio.sleep(pause_s), self.gone.wait())

    def close(self) -> None:
        super().close()
        self._stop_waiting()
        if self._telling is not None:
            self._telling.cancel()

    async def _session(self) -> bool:
        """One stream, from its start until it breaks or the worker has left. Whether it was ever taken in."""
        async with self._connection.channel() as channel:
            return await self._hold(channel)

    async def _hold(self, channel: grpc.aio.Channel) -> bool:
        call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
        self._open, connected = True, False
        self._news = translate.WorkerNews()
        self._unreported.clear()
        self._introduce()
        self._note_word()
        try:
            reason = await first_of(self._read(call), self._write(call), self._forsaken(channel), self.gone.wait())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ContractOnly from None
            if error.code() in UNWANTED:
                raise Unwanted(error.details()) from None
            self._listen_s = rpc.listen_s(error)
            reason = f"{error.code().name}: {error.details()}"
        finally:
            connected = self._connected
            self._open = self._connected = False
            self._stop_waiting()
            call.cancel()
        if self._leaving:
            self.gone.set()
        elif not self.gone.is_set():
            self._connection.silence.failed(reason)
            level = logging.WARNING if connected or self._is_new(reason) else logging.DEBUG
            log.log(level, "worker %s: lost the coordinator: %s", self.name, reason, extra={"worker": self.name})
        return connected

    async def _read(self, call: Any) -> str:
        """Until the stream ends; why it did."""
        async for message in call:
            if message is None:
                return Refusal("it sent what is no message")
            now = self.now()
            if self._silent.is_set() and self._connected:
                self._connection.silence.reached()
            self._note_word()
            answer = translate.registered(message)
            if answer is not None and not self._connected:
                if not _makes_sense(answer):
                    return Refusal(f"it answered with times that make no sense: {answer}")
                self._take_in(answer, now)
                if not self._connected:
                    return Refusal(f"its term {answer.term} is older than {self.agent.term}, that of the one before")
            if not self._connected:
                continue  # whatever was on its way from another time
            for number in translate.acknowledged(message):
                key = self._unreported.pop(number, None)
                if key is not None:
                    self._unacknowledged.met(number)
                    self.agent.reported(key, now)
            for key, kind, payload, _ in translate.assigned(message):
                if key in self._queued_s:  # a repetition of what runs
                    self._unmentioned.expect(key, now)
                self.agent.assigned(key, Held(kind, payload, now), now)
            for key in translate.cancels(message):
                self.agent.cancel(key, now)
            for key in translate.recalls(message):
                self.agent.recall(key, now)
            if message.drain and not self.agent.draining:
                self.asked_to_drain()
        return "it ended the stream"

    def _take_in(self, answer: Registered, now: float) -> None:
        """The coordinator knows this worker now, unless the worker refuses it."""
        self._forgotten = answer.term > self.agent.term
        self._connected = answer.term >= self.agent.term
        first_beat_at = self.first_beat_at(answer.heartbeat_s)
        if not self.agent.registered(answer.term, answer.heartbeat_s, first_beat_at, answer.dropped, now):
            return
        self._forgotten = False
        self._complaint = ""
        timeout_s = answer.call_timeout_s
        self._unacknowledged.set_times(timeout_s, awake_s(timeout_s))
        self._unmentioned.set_times(confirm_s(timeout_s), 0.0)
        self._unanswered.set_times(timeout_s, awake_s(timeout_s))
        self._unanswered.met("registration")
        self._silence_s = answer.silence_s
        self._grace_s = max(answer.heartbeat_s, awake_s(timeout_s))
        self._unheard.clear()  # with the timer of the times before
        self._unheard.set_times(answer.silence_s, answer.heartbeat_s)
        self._note_word()
        if self.prefetch:
            self._news.started += self._queued_s
            self._gathered.set()
        self._connection.silence.reached()
        self.registered()

    def _is_new(self, reason: object) -> bool:
        """Whether the coordinator said something that this worker can't take, and has not complained of yet."""
        if not isinstance(reason, Refusal) or reason == self._complaint:
            return False
        self._complaint = reason
        return True

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            if self._listen_s:
                listen_s, self._listen_s = self._listen_s, 0.0
                await asyncio.sleep(listen_s)
            while True:
                await self._gathered.wait()
                if self._queued_s:
                    await asyncio.sleep(0)  # whatever else has just finished travels with it
                    await self._company()
                news = self._news.take()
                news.draining = self.agent.draining
                if not self._news.keys_wait:
                    news.leaving = self._leaving
                    self._gathered.clear()
                now = self.now()
                # One that was repeated may have been acknowledged while it waited here.
                reports = [report for report in news.reports if report[1].number in self._unreported]
                for _, done in reports:
                    self._unacknowledged.expect(done.number, now)
                self._written_at = now
                await call.write(translate.from_worker(news, reports))
        await asyncio.Event().wait()  # the stream is broken: its reader knows why

    async def _company(self) -> None:
        """Wait for more to say, where that may come soon and the last message was just now. One that comes after a
        while does not wait, nor does the report of the last task that ran here."""
        left_s = self._written_at + COMPANY_WAITS_S - self.now()
        if left_s > 0 and not self._most_reported:
            self._complete.clear()
            timer = self._loop.call_later(left_s, self._complete.set)
            await self._complete.wait()
            timer.cancel()

    @property
    def _most_reported(self) -> bool:
        return 2 * len(self._news.reports) >= len(self._queued_s)

    # ---- a connection by which nothing comes

    def _note_word(self) -> None:
        """The coordinator has said something, or a stream begins: the silence is counted from here."""
        self._silent.clear()
        self._heard.set()
        self._unheard.met("a word")
        if self._silence_s:
            self._unheard.expect("a word", self.now())

    def _note_silence(self, _: list[str]) -> None:
        self._heard.clear()
        self._silent.set()
        self._connection.silence.failed(f"nothing has been heard for {self._silence_s:g} s")

    async def _forsaken(self, channel: grpc.aio.Channel) -> str:
        """Until this connection is silent although another one stands."""
        while True:
            await self._silent.wait()
            line = "worker %s: heard nothing for %g s: making another connection"
            log.info(line, self.name, self._silence_s, extra={"worker": self.name})
            await self._connection.replace(channel)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), self._grace_s)
            if self._silent.is_set():
                reason = f"heard nothing for {self._silence_s:g} s"
                if not self.agent.term:
                    self._silence_s = min(LONGEST_SILENCE_S, 2 * self._silence_s)
                    self._unheard.set_times(self._silence_s, self._grace_s)
                return reason

    # ---- what was lost on the way

    def _introduce(self) -> None:
        settings, agent = self.settings, self.agent
        self._news.introduction = Introduction(
            *(self.name, settings.incarnation, settings.capacity, self.prefetch, agent.held, agent.term),
            *(settings.kinds, settings.labels),
        )
        self._unanswered.expect("registration", self.now())
        self._gathered.set()

    def _ask_again(self, unanswered: list[str]) -> None:
        if "registration" in unanswered:
            self._introduce()
        if "leave" in unanswered:
            self._unanswered.expect("leave", self.now())
            self._gathered.set()

    def _repeat(self, numbers: list[int]) -> None:
        now = self.now()
        for number in numbers:
            key = self._unreported.get(number)
            if key is not None:
                self.agent.report_failed(key, now)

    def _confirm(self, keys: list[Key]) -> None:
        self._news.confirmed += keys
        self._gathered.set()

    def _stop_waiting(self) -> None:
        for waiting in (self._unacknowledged, self._unmentioned, self._unanswered, self._unheard):
            waiting.clear()

    def report_progress(self, key: Key, share: float, text: str) -> None:
        """The newest word of each attempt, some times a second."""
        if key in self._queued_s and self._connected:
            self._news.progress[key] = Progress(share, text[:TEXT_CHARACTERS])
            if self._telling is None:
                self._telling = self._loop.call_later(PROGRESS_PAUSE_S, self._tell_progress)

    def _tell_progress(self) -> None:
        self._telling = None
        self._gathered.set()

    # ---- effects of the agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        if accepted:
            self._unmentioned.expect(key, now)
            return
        self._unmentioned.met(key)
        self._news.rejected.append(key)
        if self.agent.draining:
            self._handed_back.append(key)
        self._gathered.set()

    def report_start(self, key: Key, now: float) -> None:
        self._unmentioned.met(key)
        self._news.started.append(key)
        self._gathered.set()

    def report(self, key: Key, result: Any, now: float) -> None:
        self._unmentioned.met(key)
        if self._connected:  # else it is reported once the next registration is answered
            self._unreported[result.number] = key
            self._news.reports.append((key, result))
            self._gathered.set()
            if self._most_reported:
                self._complete.set()

    def cancel_done(self, key: Key, now: float) -> None:
        self._unmentioned.met(key)
        if not self._forgotten:
            self._news.cancelled.append(key)
            self._gathered.set()

    def beat(self, active: int, completed: int, now: float) -> None:
        if self._connected:
            self._news.beat = (active, completed)
            self._news.rejected += self._handed_back  # nothing answers a refusal, and this may be the last word
            self._gathered.set()

    def announce_drain(self, now: float) -> None:
        """Every message from now on says so."""
        self._gathered.set()

    def leave(self, now: float) -> None:
        self._leaving = True
        self._gathered.set()
        if self._open:
            self._unanswered.expect("leave", now)
        else:
            self.gone.set()


def _makes_sense(answer: Registered) -> bool:
    times = (answer.heartbeat_s, answer.call_timeout_s, answer.silence_s or answer.heartbeat_s)
    return all(SHORTEST_S <= time_s < math.inf for time_s in times)
