"""A worker that speaks the wire contract: it listens, and is called.

By the contract, to register again is to have lost what was assigned: so the worker stops what it holds, and reports
what it had finished.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio

from orchestrator.cluster.connection import Connection
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.frames import Malformed, sound
from orchestrator.cluster.wire.rpc import first_of
from orchestrator.cluster.wire.translate import Done, Key
from orchestrator.cluster.worker import SHORTEST_S, Held, Settings, Unwanted, Worker
from orchestrator.core.model import AttemptKey

log = logging.getLogger("orchestrator.worker")

HEARTBEAT_S = 2.0
"""Where the coordinator does not say otherwise, or what makes no sense, such as less than SHORTEST_S: of the contract,
as are a report's tries and its deadline."""
REPORT_TRIES = 5
REPORT_DEADLINE_S = 5.0
PERMANENT = (
    *(grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS),
    *(grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED),
)
"""Answers to a registration that another try would not change."""


class CalledWorker(Worker):
    """Speaks the wire contract: registers its address, listens, and is called."""

    def __init__(self, name: str, settings: Settings, registered: Callable[[], None], connection: Connection) -> None:
        self._connection = connection
        self._channel: grpc.aio.Channel | None = None  # on which the registry is
        self._answered_at = -math.inf
        self._calls: set[asyncio.Task[None]] = set()
        self._refused: set[AttemptKey] = set()
        self._numbers = itertools.count(1)
        self._registering = True
        self._stopping = asyncio.Event()
        self._heartbeat_s: float | None = None
        self._era = 0
        self._refusal: Unwanted | None = None
        self._about = {"worker": name}  # what its lines in the log are about
        super().__init__(name, settings, registered, REPORT_TRIES)
        self._dismissal: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        host, _, port = self.settings.address.rpartition(":")
        from orchestrator.cluster.health import add_health  # only a worker that listens needs it

        server = rpc.server()
        rpc.add_service(server, rpc.WORKER, self)
        add_health(server, [rpc.WORKER], self._stopping)
        try:
            bound = server.add_insecure_port(f"{self.settings.listen_host}:{port}")
        except RuntimeError:
            raise Unwanted(f"cannot listen on {self.settings.listen_host}:{port}") from None
        await server.start()
        self._address = f"{host}:{bound}"
        try:
            await first_of(self._register(), self.gone.wait())
            await first_of(self.gone.wait(), self._dismissed())
        finally:
            await server.stop(0)
        if self._refusal is not None:
            raise self._refusal

    async def _ask(self, method: str, request: Any, timeout_s: float | None) -> Any:
        """The coordinator's answer. Where none came in time, another connection is made, in case that this one has
        fallen silent: what is asked once it stands goes by that. Raises AioRpcError."""
        async with self._connection.channel() as channel:
            if channel is not self._channel:
                self._channel, self._registry = channel, rpc.Stub(channel, rpc.REGISTRY)
            asked_at = self.now()
            try:
                answer = await getattr(self._registry, method)(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and self._answered_at < asked_at:
                    self._begin(self._connection.replace(channel))
                raise
            self._answered_at = self.now()
            return answer

    async def _register(self) -> None:
        request = contract.registration_message(self.name, self._address, self.settings.capacity)
        for pause_s in rpc.pauses():
            try:
                answer = await self._ask("RegisterWorker", request, REPORT_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                log.debug("worker %s: cannot register: %s", self.name, error.details(), extra=self._about)
                if error.code() in PERMANENT:
                    self._refuse(f"{error.code().name}: {error.details()}")
                    return
                self._connection.silence.failed(error.details() or error.code().name)
            else:
                if answer is not None:
                    self._take_in(answer)
                    return
                log.debug("worker %s: cannot register: the answer is no message", self.name, extra=self._about)
            await asyncio.sleep(pause_s)

    def _take_in(self, answer: Any) -> None:
        if not answer.success:
            self._refuse("the coordinator refused the registration")
            return
        self._registering = False
        self._connection.silence.reached()
        makes_sense = SHORTEST_S <= answer.heartbeat_s < math.inf
        self._beat_every(answer.heartbeat_s if makes_sense else HEARTBEAT_S)
        self.registered()

    def _refuse(self, reason: str) -> None:
        """It would be told the same again."""
        self._refusal = Unwanted(reason)
        self.gone.set()

    def _beat_every(self, heartbeat_s: float) -> None:
        if heartbeat_s != self._heartbeat_s:
            self._heartbeat_s = heartbeat_s
            self.agent.registered(0, heartbeat_s, self.first_beat_at(heartbeat_s), (), self.now())

    def _key(self, wire: Key) -> AttemptKey:
        """In the agent, what was assigned before the last registration is another task than what comes after it: a
        coordinator that began anew counts its attempts from one again."""
        task_id, attempt = wire
        return (self._era, task_id), attempt

    async def AssignTask(self, request: Any, context: Any) -> Any:
        now = self.now()
        try:
            wire, kind, payload, _ = contract.assigned(sound(request), next(self._numbers))
        except Malformed as malformed:
            log.debug("worker %s: refused an assignment: %s", self.name, malformed, extra=self._about)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(malformed))
        key = self._key(wire)
        self.agent.assigned(key, Held(kind, payload, now), now)
        accepted = key not in self._refused
        self._refused.discard(key)
        return contract.assign_answer(accepted)

    async def _report(self, key: AttemptKey, done: Done) -> None:
        request = contract.result_message(self.name, _on_wire(key), done.ended, done.queued_s)
        try:
            await self._ask("ReportResult", request, REPORT_DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            log.warning("worker %s: a report failed: %s", self.name, error.details(), extra=self._about)
            self.agent.report_failed(key, self.now())
        else:
            self.agent.reported(key, self.now())

    async def _beat(self, active: int, completed: int) -> None:
        request = contract.heartbeat_message(self.name, active, completed)
        try:
            answer = await self._ask("Heartbeat", request, self._heartbeat_s)
        except grpc.aio.AioRpcError as error:
            log.debug("worker %s: a heartbeat failed: %s", self.name, error.details(), extra=self._about)
            return
        if answer is not None and not answer.acknowledged and not self._registering:
            self._registering = True
            log.warning("worker %s: the coordinator does not know it: registering again", self.name, extra=self._about)
            self.agent.start_over(self.now())
            self._era += 1
            await self._register_again()

    async def _register_again(self) -> None:
        try:
            await self._register()
        except Unwanted as error:
            self._dismissal.set_exception(error)

    async def _dismissed(self) -> None:
        await self._dismissal

    def _begin(self, call: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    # ---- effects of the agent

    def answer(self, key: AttemptKey, accepted: bool, now: float) -> None:
        if not accepted:
            self._refused.add(key)

    def report_start(self, key: AttemptKey, now: float) -> None:
        pass

    def report(self, key: AttemptKey, result: Any, now: float) -> None:
        self._begin(self._report(key, result))

    def cancel_done(self, key: AttemptKey, now: float) -> None:
        pass

    def beat(self, active: int, completed: int, now: float) -> None:
        if not self._registering:
            self._begin(self._beat(active, completed))

    def announce_drain(self, now: float) -> None:
        self._stopping.set()

    def leave(self, now: float) -> None:
        self.gone.set()


def _on_wire(key: AttemptKey) -> Key:
    """The inverse of `CalledWorker._key`."""
    named: Any = key[0]
    return named[1], key[1]
