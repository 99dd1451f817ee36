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
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import grpc
import grpc.aio

from orchestrator.core.worker import Key, WorkerAgent
from orchestrator.live import convert, rpc
from orchestrator.live.executor import Ended, Kind, make_executor
from orchestrator.live.rpc import first_of

log = logging.getLogger("orchestrator.worker")

REPORT_TRIES = 5  # of the wire contract, as are the deadline and the pauses
REPORT_PAUSE_S = 0.2
REPORT_DEADLINE_S = 5.0
Registered = Callable[[], None]
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 2.0


class ContractOnly(Exception):
    """The coordinator offers no streams."""


class Unwanted(Exception):
    """The coordinator will not have this worker."""


@dataclass(frozen=True)
class Settings:
    """Of one worker. `prefetch` negative: any number. `address`: where a calling coordinator reaches it, host:port;
    a port 0 stands for a free one."""

    coordinator: str
    capacity: int = 2
    prefetch: int = 0
    executor: Kind = "process"
    heartbeat_s: float = 2.0
    listen_host: str = "127.0.0.1"
    address: str = "127.0.0.1:0"


class Held(NamedTuple):
    """An attempt's payload in the agent."""

    kind: str
    payload: str
    arrived_at: float


class Done(NamedTuple):
    """An attempt's result in the agent."""

    ended: Ended
    queued_s: float


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
        self._alarm: asyncio.TimerHandle | None = None
        self._executor = make_executor(settings.executor, settings.capacity, self._finished)
        self.agent = WorkerAgent(
            self,
            capacity=settings.capacity,
            prefetch=float("inf") if settings.prefetch < 0 else settings.prefetch,
            heartbeat_s=settings.heartbeat_s,
            first_beat_at=self.now() + settings.heartbeat_s * random.random(),
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

    def key(self, wire: convert.Key) -> Key:
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
        self.agent.finished(key, Done(ended, self._queued_s.pop(key)), self.now())


class StreamingWorker(Worker):
    """Dials out, and holds one stream."""

    def __init__(
        self, name: str, settings: Settings, registered: Callable[[], None], channel: grpc.aio.Channel
    ) -> None:
        self._open = self._connected = self._known = self._leaving = False
        self._news = convert.WorkerNews()
        self._gathered = asyncio.Event()
        self._unacknowledged: deque[Key] = deque()  # reports on this stream, in their order
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

    async def _session(self) -> None:
        """One stream, from its start until it breaks or the worker has left."""
        call = self._stub.Work()
        self._connected = False
        self._open = True
        self._news = convert.WorkerNews(registration=(self.name, self.settings.capacity, self.settings.prefetch))
        self._unacknowledged.clear()
        self._gathered.set()
        if self._known:
            self.start_over()
        self._news.draining = self.agent.draining
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
            call.cancel()
        if self._leaving:
            self.gone.set()
        elif not self.gone.is_set():
            level = logging.WARNING if self._connected else logging.DEBUG
            log.log(level, "worker %s: lost the coordinator: %s", self.name, reason)

    async def _read(self, call: Any) -> None:
        async for message in call:
            now = self.now()
            if message.registered:
                self._connected = self._known = True
                self.registered()
            for _ in range(message.acknowledged):
                self.agent.reported(self._unacknowledged.popleft(), now)
            for key, kind, payload in convert.assigned(message):
                self.agent.assigned(self.key(key), Held(kind, payload, now), now)
            for key in convert.keys(message.cancels):
                self.agent.cancel(self.key(key), now)

    async def _write(self, call: Any) -> None:
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await self._gathered.wait()
                await asyncio.sleep(0)  # whatever else has just finished travels with it
                news, self._news = self._news, convert.WorkerNews()
                reports = rpc.take(news.reports, _size)
                self._news.reports = news.reports
                if not news.reports:
                    self._gathered.clear()
                await call.write(convert.from_worker(news, reports))
        await asyncio.Event().wait()  # the stream is broken: its reader knows why

    # ---- effects of the agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        if not accepted:
            self._news.rejected.append(on_wire(key))
            self._gathered.set()

    def report_start(self, key: Key, now: float) -> None:
        self._news.started.append(on_wire(key))
        self._gathered.set()

    def report(self, key: Key, result: Any, now: float) -> None:
        if self._open:  # else it is reported with the next registration
            self._unacknowledged.append(key)
            self._news.reports.append((on_wire(key), *result))
            self._gathered.set()

    def cancel_done(self, key: Key, now: float) -> None:
        self._news.cancelled.append(on_wire(key))
        self._gathered.set()

    def beat(self, active: int, completed: int, now: float) -> None:
        if self._connected:
            self._news.beat = (active, completed)
            self._gathered.set()

    def announce_drain(self, now: float) -> None:
        self._news.draining = True
        self._gathered.set()

    def leave(self, now: float) -> None:
        self._leaving = True
        self._news.leaving = True
        self._gathered.set()
        if not self._open:
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
        request = convert.registration_message(self.name, self._address, self.settings.capacity)
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
        wire, kind, payload = convert.assigned_by_call(request, next(self._numbers))
        key = self.key(wire)
        self.agent.assigned(key, Held(kind, payload, now), now)
        accepted = key not in self._refused
        self._refused.discard(key)
        return convert.assign_answer(accepted)

    async def _report(self, key: Key, done: Done) -> None:
        request = convert.result_message(self.name, on_wire(key), done.ended, done.queued_s)
        try:
            await self._registry.ReportResult(request, timeout=REPORT_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            log.warning("worker %s: a report failed: %s", self.name, error.details())
            self.agent.report_failed(key, self.now())
        else:
            self.agent.reported(key, self.now())

    async def _beat(self, active: int, completed: int) -> None:
        request = convert.heartbeat_message(self.name, active, completed)
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


def on_wire(key: Key) -> convert.Key:
    """The inverse of `Worker.key`."""
    named: Any = key[0]
    return named[1], key[1]


def _size(item: tuple[convert.Key, Ended, float]) -> int:
    ended = item[1]
    return len(ended.result) + len(ended.error) + 100


async def run_workers(names: Sequence[str], settings: Settings, ready: Callable[[], None], contract: bool) -> int:
    """Workers that share this process, until all have left; the exit status.

    SIGTERM and SIGINT drain them, a second signal ends the process at once. `ready` is called when every one has been
    registered. `contract`: do not try streams.
    """
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

    async def live(name: str, channel: grpc.aio.Channel) -> bool:
        kinds = [CalledWorker] if contract else [StreamingWorker, CalledWorker]
        for kind in kinds:
            worker = workers[name] = kind(name, settings, partial(registered, name), channel)
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
    async with rpc.channel(settings.coordinator) as channel:
        lived = await asyncio.gather(*(live(name, channel) for name in names))
    return 0 if all(lived) else 1
