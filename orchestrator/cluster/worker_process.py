"""A process of workers: signals, control lines, and one connection to the coordinator for all."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from orchestrator.cluster.called_worker import CalledWorker
from orchestrator.cluster.connection import Connection
from orchestrator.cluster.control import hear
from orchestrator.cluster.draining import out_of_patience
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.worker import ContractOnly, Settings, Unwanted, Worker

log = logging.getLogger("orchestrator.worker")

PARTING_S = 1.0
"""For how long workers that have given up wait for an answer to their leave."""


async def run_workers(
    names: Sequence[str],
    settings: Settings,
    ready: Callable[[], None],
    contract: bool,
    control_fd: int | None = None,
    drain_timeout_s: float | None = None,
) -> int:
    """Workers that share this process, until all have left; the exit status.

    SIGTERM and SIGINT drain them, for `drain_timeout_s` at most; a second signal ends the process at once. `ready` is
    called when every one has been registered. `contract`: do not try streams. `control_fd`: lines of JSON come here:
    `{"speed": f}` (from now on, times the settings'), `{"frozen_s": s}` (for so long it had been stopped), and
    `{"standby": descriptor}` before anything else: then it loads, closes that descriptor, and dials nobody before
    `{"begin": true}`.
    """
    process = _WorkerProcess(names, settings, ready, contract, drain_timeout_s)
    return await process.run(control_fd)


class _WorkerProcess:
    def __init__(
        self,
        names: Sequence[str],
        settings: Settings,
        ready: Callable[[], None],
        contract: bool,
        drain_timeout_s: float | None,
    ) -> None:
        self._names = names
        self._settings = settings
        self._ready = ready
        self._kinds = [CalledWorker] if contract else [StreamingWorker, CalledWorker]
        self._speed = settings.speed
        self._workers: dict[str, Worker] = {}
        self._unregistered = set(names)
        self._draining = False
        self._standby: int | None = None
        self._begun = asyncio.Event()
        self._drain_timeout_s = drain_timeout_s
        self._connection: Connection | None = None
        self._giving_up: list[asyncio.Task[None]] = []
        self._gave_up = False

    async def run(self, control_fd: int | None) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        if control_fd is not None:
            hear(control_fd, self._control)
        if self._standby is not None:
            os.close(self._standby)
            await self._begun.wait()
        async with Connection(self._settings.coordinator) as self._connection:
            lived = await asyncio.gather(*(self._live(name, self._connection) for name in self._names))
            for giving_up in self._giving_up:
                giving_up.cancel()
        if self._gave_up:
            os._exit(0)  # a thread that nobody can stop would hold the process back
        return 0 if all(lived) else 1

    async def _give_up_in_time(self, workers: Mapping[str, Worker], connection: Connection) -> None:
        reason = await out_of_patience(workers, connection.silence, self._drain_timeout_s)
        self._gave_up = True
        left = [worker for worker in workers.values() if not worker.gone.is_set()]
        for worker in left:
            held, about = len(worker.agent.held), {"worker": worker.name}
            log.warning("worker %s: %s: it leaves with %d attempts in hand", worker.name, reason, held, extra=about)
            worker.give_up()
        await asyncio.sleep(PARTING_S)
        for worker in left:
            worker.gone.set()

    async def _live(self, name: str, connection: Connection) -> bool:
        """One worker's life, by whichever protocol the coordinator speaks. Whether it was wanted."""
        about = {"worker": name}
        for kind in self._kinds:
            worker = self._workers[name] = kind(name, self._settings, partial(self._registered, name), connection)
            worker.asked_to_drain = partial(self._drain, [name], "as its coordinator asks")
            if self._speed != 1:
                worker.set_speed(self._speed)
            try:
                if self._draining:
                    return True
                await worker.run()
                log.info("worker %s: left", name, extra=about)
                return True
            except ContractOnly:
                log.info("worker %s: the coordinator offers no streams: waiting to be called", name, extra=about)
            except Unwanted as error:
                log.error("worker %s: %s", name, error, extra=about)
                return False
            finally:
                worker.close()
        return False

    def _registered(self, name: str) -> None:
        about: dict[str, object] = {"worker": name}
        if term := self._workers[name].agent.term:  # which the wire contract does not know
            about["term"] = term
        log.info("worker %s: registered", name, extra=about)
        if name in self._unregistered:
            self._unregistered.discard(name)
            if not self._unregistered:
                self._ready()

    def _stop(self) -> None:
        """At a signal."""
        if self._draining:
            log.warning("stopping at once")
            for worker in self._workers.values():
                worker.close()
            os._exit(1)
        self._draining = True
        self._begun.set()
        self._drain(list(self._workers), "")

    def _drain(self, names: Sequence[str], why: str) -> None:
        """These workers, as far as they do not drain yet."""
        log.info("draining%s", f" {', '.join(names)} {why}" if why else "")
        workers = {name: self._workers[name] for name in names if not self._workers[name].agent.draining}
        for worker in workers.values():
            worker.drain()
        if workers and self._connection is not None:
            patience = self._give_up_in_time(workers, self._connection)
            self._giving_up.append(asyncio.get_running_loop().create_task(patience))

    def _control(self, lines: list[dict[str, float]]) -> None:
        for line in sorted(lines, key=lambda line: "frozen_s" not in line):  # it stood still before it was told
            if "standby" in line:
                self._standby = int(line["standby"])
            if "begin" in line:
                self._begun.set()
            if "speed" in line:
                self._speed = self._settings.speed * line["speed"]
            for worker in self._workers.values():
                if "speed" in line:
                    worker.set_speed(self._speed)
                if "frozen_s" in line:
                    worker.frozen(line["frozen_s"])
