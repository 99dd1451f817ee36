"""A process of workers: signals, control lines, and one connection to the coordinator for all."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence
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
    speed = settings.speed
    workers: dict[str, Worker] = {}
    loop = asyncio.get_running_loop()
    waiting = set(names)
    draining = False
    standby: int | None = None
    begun = asyncio.Event()
    asked_to_end = asyncio.Event()
    gave_up = False

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
        asked_to_end.set()
        begun.set()
        log.info("draining")
        for worker in workers.values():
            worker.drain()

    def control(lines: list[dict[str, float]]) -> None:
        nonlocal speed, standby
        for line in sorted(lines, key=lambda line: "frozen_s" not in line):  # it stood still before it was told
            if "standby" in line:
                standby = int(line["standby"])
            if "begin" in line:
                begun.set()
            if "speed" in line:
                speed = settings.speed * line["speed"]
            for worker in workers.values():
                if "speed" in line:
                    worker.set_speed(speed)
                if "frozen_s" in line:
                    worker.frozen(line["frozen_s"])

    async def live(name: str, connection: Connection) -> bool:
        kinds = [CalledWorker] if contract else [StreamingWorker, CalledWorker]
        for kind in kinds:
            worker = workers[name] = kind(name, settings, partial(registered, name), connection)
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

    async def give_up_in_time(connection: Connection) -> None:
        nonlocal gave_up
        await asked_to_end.wait()
        reason = await out_of_patience(workers, connection.silence, drain_timeout_s)
        gave_up = True
        left = [worker for worker in workers.values() if not worker.gone.is_set()]
        for worker in left:
            held = len(worker.agent.held)
            log.warning("worker %s: %s: it leaves with %d attempts in hand", worker.name, reason, held)
            worker.give_up()
        await asyncio.sleep(PARTING_S)
        for worker in left:
            worker.gone.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    if control_fd is not None:
        hear(control_fd, control)
    if standby is not None:
        os.close(standby)
        await begun.wait()
    async with Connection(settings.coordinator) as connection:
        giving_up = loop.create_task(give_up_in_time(connection))
        lived = await asyncio.gather(*(live(name, connection) for name in names))
        giving_up.cancel()
    if gave_up:
        os._exit(0)  # a thread that nobody can stop would hold the process back
    return 0 if all(lived) else 1
