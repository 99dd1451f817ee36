"""A worker's process: the core's `WorkerAgent` between an executor and a coordinator.

The loop here never runs a task, so that heartbeats do not wait for one. A worker holds a stream to its coordinator;
where the coordinator does not offer that, it speaks the wire contract: it listens, and is called.

A coordinator that was lost is dialled again, with growing pauses. To register again is, by the coordinator's rules,
to have lost what was assigned: so the worker stops what it holds, and reports what it had finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio

from orchestrator.cluster.control import hear
from orchestrator.cluster.executor import Ended, Kind, make_executor
from orchestrator.cluster.overdue import Overdue, awake_s, confirm_s
from orchestrator.cluster.wire import rpc, translate
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import Done
from orchestrator.core.worker import Key, WorkerAgent

log = logging.getLogger("orchestrator.worker")

REPORT_TRIES = 5  # of the wire contract, as are the deadline and the pauses
REPORT_PAUSE_S = 0.2
REPORT_DEADLINE_S = 5.0
Registered = Callable[[], None]
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 2.0
REPORTS_MAX = 2**32 - 1  # the largest number of a report; the next one is 1 again


class ContractOnly(Exception):
    """The coordinator offers no streams."""


class Unwanted(Exception):
    """The coordinator will not have this worker."""


@dataclass(frozen=True)
class Settings:
    """Of every worker of a process. `prefetch` negative: any number. `speed`: of its work, as a share of the usual.
    `beat_phase_s`: of some by name, when they beat: at times of the monotonic clock that leave this remainder; others
    at random. `rpc_timeout_s`: what the coordinator does not answer for so long is sent again. `address`: where a
    calling coordinator reaches it, host:port; a port 0 stands for a free one.
    """

    coordinator: str
    capacity: int = 2
    prefetch: int = 0
    executor: Kind = "process"
    speed: float = 1.0
    heartbeat_s: float = 2.0
    beat_phase_s: Mapping[str, float] = field(default_factory=dict)
    rpc_timeout_s: float = 2.0
    listen_host: str = "127.0.0.1"
    address: str = "127.0.0.1:0"


class Held(NamedTuple):
    """An attempt's payload in the agent."""

    kind: str
    payload: str
    arrived_at: float


class Worker(ABC):
    """Implements `core.worker.WorkerEffects`, apart from how messages travel.

    `registered` is called whenever the coordinator has taken it in.
    """

    def __init__(
        self, name: str, settings: Settings, registered: Callable[[], None], tries: int | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.registered = registered
        self.gone = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self._era = 0
        self._queued_s: dict[Key, float] = {}
        self._finishes = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._executor = make_executor(settings.executor, settings.capacity, self._finished)
        now = self.now()
        phase_s = settings.beat_phase_s.get(name)
        first_beat_in_s = settings.heartbeat_s * random.random() if phase_s is None else phase_s - now
        self.agent = WorkerAgent(
            self,
            capacity=settings.capacity,
            prefetch=float("inf") if settings.prefetch < 0 else settings.prefetch,
            heartbeat_s=settings.heartbeat_s,
            first_beat_at=now + first_beat_in_s % settings.heartbeat_s,
            report_tries=tries,
            report_pause_s=REPORT_PAUSE_S,
        )

    @abstractmethod
    async def run(self) -> None:
        """Until it has left. Raises ContractOnly, Unwanted."""

    def drain(self) -> None:
        self.agent.drain(self.now())

    def close(self) -> None:
        """End what runs, at once."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._executor.close()

    def set_speed(self, speed: float) -> None:
        self._executor.set_speed(speed)

    def frozen(self, seconds: float) -> None:
        self._executor.frozen(seconds)

    def key(self, wire: translate.Key) -> Key:
        """In the agent, what was assigned before the last registration is another task than what comes after it: a
        coordinator that began anew counts its attempts from one again."""
        task_id, attempt = wire
        return (self._era, task_id), attempt

    def start_over(self) -> None:
        self.agent.start_over(self.now())
        self._era += 1

    # ---- effects of the agent

    def execute(self, key: Key, payload: Any, now: float) -> None:
        held: Held = payload
        self._queued_s[key] = now - held.arrived_at
        self._executor.start(key, held.kind, held.payload)

    def stop(self, key: Key, now: float) -> None:
        del self._queued_s[key]
        self._executor.stop(key)

    def wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._ring)

    @abstractmethod
    def answer(self, key: Key, accepted: bool, now: float) -> None: ...

    @abstractmethod
    def report_start(self, key: Key, now: float) -> None: ...

    @abstractmethod
    def report(self, key: Key, result: Any, now: float) -> None: ...

    @abstractmethod
    def cancel_done(self, key: Key, now: float) -> None: ...

    @abstractmethod
    def beat(self, active: int, completed: int, now: float) -> None: ...

    @abstractmethod
    def announce_drain(self, now: float) -> None: ...

    @abstractmethod
    def leave(self, now: float) -> None: ...

    def _ring(self) -> None:
        self.agent.wake(self.now())

    def _finished(self, key: Key, ended: Ended) -> None:
        self._finishes = self._finishes % REPORTS_MAX + 1
        self.agent.finished(key, Done(ended, self._queued_s.pop(key), self._finishes), self.now())


class StreamingWorker(Worker):
    """Dials out, and holds one stream. Whatever travels on it may be lost, repeated or overtaken."""

    def __init__(
        self, name: str, settings: Settings, registered: Callable[[], None], channel: grpc.aio.Channel
    ) -> None:
        self._open = self._connected = self._known = self._leaving = False
        self._news = translate.WorkerNews()
        self._gathered = asyncio.Event()
        timeout_s = settings.rpc_timeout_s
        self._unreported: dict[int, Key] = {}  # by the numbers of the reports that are not acknowledged
        self._unacknowledged: Overdue[int] = Overdue(timeout_s, self._repeat, awake_s(timeout_s))
        self._unmentioned: Overdue[Key] = Overdue(confirm_s(timeout_s), self._confirm)
        self._unanswered: Overdue[str] = Overdue(timeout_s, self._ask_again, awake_s(timeout_s))
        self._handed_back: list[translate.Key] = []
        self._stub = rpc.Stub(channel, rpc.WORKER_STREAM)
        super().__init__(name, settings, registered)

    async def run(self) -> None:
        for pause_s in pauses():
            await self._session()
            if self.gone.is_set():
                return
            if self._connected:
                pause_s = PAUSE_MIN_S * random.random()
            await first_of(asyncio.sleep(pause_s), self.gone.wait())

    def close(self) -> None:
        super().close()
        self._stop_waiting()

    async def _session(self) -> None:
        """One stream, from its start until it breaks or the worker has left."""
        call = self._stub.Work()
        self._connected = False
        self._open = True
        self._news = translate.WorkerNews()
        self._register()
        self._unreported.clear()
        if self._known:
            self.start_over()
        try:
            await first_of(self._read(call), self._write(call), self.gone.wait())
            reason = "it ended the stream"
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise ContractOnly from None
            reason = f"{error.code().name}: {error.details()}"
            if error.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT):
                raise Unwanted(reason) from None
        finally:
            self._open = False
            self._stop_waiting()
            call.cancel()
        if self._leaving:
            self.gone.set()
        elif not self.gone.is_set():
            level = logging.WARNING if self._connected else logging.DEBUG
            log.log(level, "worker %s: lost the coordinator: %s", self.name, reason)

    async def _read(self, call: Any) -> None:
        async for message in call:
            now = self.now()
            if message.registered and not self._connected:
                self._connected = True
                self._unanswered.met("registration")
                self.registered()
            for number in translate.acknowledged(message):
                key = self._unreported.pop(number, None)
                if key is not None:
                    self._unacknowledged.met(number)
                    self.agent.reported(key, now)
            for wire, kind, payload in translate.assigned(message):
                self._known = True
                key = self.key(wire)
                if key in self._queued_s:  # a repetition of what runs
                    self._unmentioned.expect(key, now)
                self.agent.assigned(key, Held(kind, payload, now), now)
            for wire in translate.keys(message.cancels):
                self.agent.cancel(self.key(wire), now)

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._gathered.wait()
                await asyncio.sleep(0)  # whatever else has just finished travels with it
                news, self._news = self._news, translate.WorkerNews()
                news.draining, news.leaving = self.agent.draining, self._leaving
                reports = rpc.take(news.reports, _size)
                self._news.reports = news.reports
                if not news.reports:
                    self._gathered.clear()
                now = self.now()
                # One that was repeated may have been acknowledged while it waited here.
                reports = [report for report in reports if report[1].number in self._unreported]
                for _, done in reports:
                    self._unacknowledged.expect(done.number, now)
                await call.write(translate.from_worker(news, reports))
        await asyncio.Event().wait()  # the stream is broken: its reader knows why

    # ---- what was lost on the way

    def _register(self) -> None:
        self._news.registration = (self.name, self.settings.capacity, self.settings.prefetch)
        self._unanswered.expect("registration", self.now())
        self._gathered.set()

    def _ask_again(self, unanswered: list[str]) -> None:
        if "registration" in unanswered:
            self._register()
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
        self._news.confirmed += map(on_wire, keys)
        self._gathered.set()

    def _stop_waiting(self) -> None:
        for waiting in (self._unacknowledged, self._unmentioned, self._unanswered):
            waiting.clear()

    # ---- effects of the agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        if accepted:
            self._unmentioned.expect(key, now)
            return
        self._unmentioned.met(key)
        self._news.rejected.append(on_wire(key))
        if self.agent.draining:
            self._handed_back.append(on_wire(key))
        self._gathered.set()

    def report_start(self, key: Key, now: float) -> None:
        self._unmentioned.met(key)
        self._news.started.append(on_wire(key))
        self._gathered.set()

    def report(self, key: Key, result: Any, now: float) -> None:
        self._unmentioned.met(key)
        if self._open:  # else it is reported with the next registration
            self._unreported[result.number] = key
            self._news.reports.append((on_wire(key), result))
            self._gathered.set()

    def cancel_done(self, key: Key, now: float) -> None:
        self._unmentioned.met(key)
        self._news.cancelled.append(on_wire(key))
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


class CalledWorker(Worker):
    """Speaks the wire contract: registers its address, listens, and is called."""

    def __init__(
        self, name: str, settings: Settings, registered: Callable[[], None], channel: grpc.aio.Channel
    ) -> None:
        self._registry = rpc.Stub(channel, rpc.REGISTRY)
        self._calls: set[asyncio.Task[None]] = set()
        self._refused: set[Key] = set()
        self._numbers = itertools.count(1)
        self._registering = True
        super().__init__(name, settings, registered, REPORT_TRIES)

    async def run(self) -> None:
        host, _, port = self.settings.address.rpartition(":")
        server = rpc.server()
        rpc.add_service(server, rpc.WORKER, self)
        try:
            bound = server.add_insecure_port(f"{self.settings.listen_host}:{port}")
        except RuntimeError:
            raise Unwanted(f"cannot listen on {self.settings.listen_host}:{port}") from None
        await server.start()
        self._address = f"{host}:{bound}"
        try:
            await first_of(self._register(), self.gone.wait())
            await self.gone.wait()
        finally:
            await server.stop(0)

    async def _register(self) -> None:
        request = translate.registration_message(self.name, self._address, self.settings.capacity)
        for pause_s in pauses():
            try:
                answer = await self._registry.RegisterWorker(request, timeout=REPORT_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                log.debug("worker %s: cannot register: %s", self.name, error.details())
            else:
                if not answer.success:
                    raise Unwanted("the coordinator refused the registration")
                self._registering = False
                self.registered()
                return
            await asyncio.sleep(pause_s)

    async def AssignTask(self, request: Any, context: Any) -> Any:
        now = self.now()
        wire, kind, payload = translate.assigned_by_call(request, next(self._numbers))
        key = self.key(wire)
        self.agent.assigned(key, Held(kind, payload, now), now)
        accepted = key not in self._refused
        self._refused.discard(key)
        return translate.assign_answer(accepted)

    async def _report(self, key: Key, done: Done) -> None:
        request = translate.result_message(self.name, on_wire(key), done.ended, done.queued_s)
        try:
            await self._registry.ReportResult(request, timeout=REPORT_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            log.warning("worker %s: a report failed: %s", self.name, error.details())
            self.agent.report_failed(key, self.now())
        else:
            self.agent.reported(key, self.now())

    async def _beat(self, active: int, completed: int) -> None:
        request = translate.heartbeat_message(self.name, active, completed)
        try:
            answer = await self._registry.Heartbeat(request, timeout=self.settings.heartbeat_s)
        except grpc.aio.AioRpcError as error:
            log.debug("worker %s: a heartbeat failed: %s", self.name, error.details())
            return
        if not answer.acknowledged and not self._registering:
            self._registering = True
            log.warning("worker %s: the coordinator does not know it: registering again", self.name)
            self.start_over()
            await self._register()

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    # ---- effects of the agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        if not accepted:
            self._refused.add(key)

    def report_start(self, key: Key, now: float) -> None:
        pass

    def report(self, key: Key, result: Any, now: float) -> None:
        self._begin(self._report(key, result))

    def cancel_done(self, key: Key, now: float) -> None:
        pass

    def beat(self, active: int, completed: int, now: float) -> None:
        if not self._registering:
            self._begin(self._beat(active, completed))

    def announce_drain(self, now: float) -> None:
        pass

    def leave(self, now: float) -> None:
        self.gone.set()


def pauses() -> Iterator[float]:
    """Between attempts to reach a coordinator: doubling, with jitter."""
    bound_s = PAUSE_MIN_S
    while True:
        yield bound_s * random.uniform(0.5, 1.0)
        bound_s = min(PAUSE_MAX_S, 2 * bound_s)


def on_wire(key: Key) -> translate.Key:
    """The inverse of `Worker.key`."""
    named: Any = key[0]
    return named[1], key[1]


def _size(item: tuple[translate.Key, Done]) -> int:
    ended = item[1].ended
    return len(ended.result) + len(ended.error) + 100


async def run_workers(
    names: Sequence[str], settings: Settings, ready: Callable[[], None], contract: bool, control_fd: int | None = None
) -> int:
    """Workers that share this process, until all have left; the exit status.

    SIGTERM and SIGINT drain them, a second signal ends the process at once. `ready` is called when every one has been
    registered. `contract`: do not try streams. `control_fd`: lines of JSON come here: `{"speed": f}` (from now on,
    times the settings') and `{"frozen_s": s}` (for so long it had been stopped).
    """
    speed = settings.speed
    workers: dict[str, Worker] = {}
    loop = asyncio.get_running_loop()
    waiting = set(names)
    draining = False

    def registered(name: str) -> None:
        log.info("worker %s: registered", name)
        if name in waiting:
            waiting.discard(name)
            if not waiting:
                ready()

    def on_signal() -> None:
        nonlocal draining
        if draining:
            log.warning("stopping at once")
            for worker in workers.values():
                worker.close()
            os._exit(1)
        draining = True
        log.info("draining")
        for worker in workers.values():
            worker.drain()

    def control(lines: list[dict[str, float]]) -> None:
        nonlocal speed
        for line in sorted(lines, key=lambda line: "frozen_s" not in line):  # it stood still before it was told
            if "speed" in line:
                speed = settings.speed * line["speed"]
            for worker in workers.values():
                if "speed" in line:
                    worker.set_speed(speed)
                if "frozen_s" in line:
                    worker.frozen(line["frozen_s"])

    async def live(name: str, channel: grpc.aio.Channel) -> bool:
        kinds = [CalledWorker] if contract else [StreamingWorker, CalledWorker]
        for kind in kinds:
            worker = workers[name] = kind(name, settings, partial(registered, name), channel)
            if speed != 1:
                worker.set_speed(speed)
            if draining:
                return True
            try:
                await worker.run()
                log.info("worker %s: left", name)
                return True
            except ContractOnly:
                log.info("worker %s: the coordinator offers no streams: waiting to be called", name)
            except Unwanted as error:
                log.error("worker %s: %s", name, error)
                return False
            finally:
                worker.close()
        return False

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if control_fd is not None:
        hear(control_fd, control)
    async with rpc.channel(settings.coordinator) as channel:
        lived = await asyncio.gather(*(live(name, channel) for name in names))
    return 0 if all(lived) else 1
