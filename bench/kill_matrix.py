"""What a live cluster loses while its parts are killed, restarted and stopped under load: nothing.

    python bench/kill_matrix.py [--tasks 20000] [--seconds 0.002] [--only ROW ...] [--check]

Tasks of so many seconds on 4 workers x 8 in processes of their own on this machine. Each row disturbs one batch from
the moment at which a tenth of it is done, and counts in the coordinator's decision record how often each task was
settled. The exit status is 1 if a task was not settled exactly once, or FAILED.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.decision_record import Recorded
from orchestrator.rehearsal.local_cluster import LocalCluster

WORKERS, SLOTS = 4, 8
STOPPED_S = 10.0
CLIENT_LIVES = 5

Disturb = Callable[[LocalCluster, Counter[str]], Awaitable[None]]


class Row(NamedTuple):
    """`disturb`: until it is cancelled, or has done enough; it counts what it did."""

    disturb: Disturb
    executor: str = "inline"


class Batch(NamedTuple):
    """So many tasks, of so many seconds each."""

    tasks: int
    seconds: float


class Settled(NamedTuple):
    """`once`: tasks that were settled exactly once; `attempts`: of all tasks together."""

    once: int
    failed: int
    attempts: int


# ---- what is done to a cluster


async def kill_workers(cluster: LocalCluster, did: Counter[str]) -> None:
    """One every half second, of those whose process is registered, while there is another one; and a new process in
    its place."""
    up = deque(cluster.names)

    async def restart(name: str) -> None:
        await asyncio.to_thread(cluster.start_worker(name).ready)
        up.append(name)

    restarting: set[asyncio.Task[None]] = set()
    while True:
        if len(up) > 1:
            name = up.popleft()
            cluster.worker(name).kill()
            did["kills"] += 1
            restarting.add(asyncio.create_task(restart(name)))
        await asyncio.sleep(0.5)


async def kill_all_workers(cluster: LocalCluster, did: Counter[str]) -> None:
    for name in cluster.names:
        cluster.worker(name).kill()
        did["kills"] += 1
    for name in cluster.names:
        cluster.start_worker(name)


async def kill_executors(cluster: LocalCluster, did: Counter[str]) -> None:
    """One subprocess of any worker every 50 ms."""
    chance = random.Random(1)
    while True:
        children = [child for name in cluster.names for child in psutil.Process(cluster.worker(name).pid).children()]
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(children).kill()
            did["kills"] += 1
        await asyncio.sleep(0.05)


async def restart_in_turn(cluster: LocalCluster, did: Counter[str]) -> None:
    """SIGTERM: each worker drains and leaves before its successor comes, and only then the next one is told."""
    while True:
        for name in cluster.names:
            leaving = cluster.worker(name)
            leaving.terminate()
            await asyncio.to_thread(leaving.wait, 60)
            await asyncio.to_thread(cluster.start_worker(name).ready)
            did["restarts"] += 1


async def stop_coordinator(cluster: LocalCluster, did: Counter[str]) -> None:
    await _stop([cluster.coordinator.signal], did)


async def stop_hosts(cluster: LocalCluster, did: Counter[str]) -> None:
    await _stop([cluster.worker(name).signal for name in cluster.names], did)


async def stop_everything(cluster: LocalCluster, did: Counter[str]) -> None:
    await _stop([cluster.coordinator.signal, *(cluster.worker(name).signal for name in cluster.names)], did)


async def _stop(signals: list[Callable[[int], None]], did: Counter[str]) -> None:
    for send in signals:
        send(signal.SIGSTOP)
        did["stops"] += 1
    try:
        await asyncio.sleep(STOPPED_S)
    finally:
        for send in signals:
            send(signal.SIGCONT)


async def nothing(cluster: LocalCluster, did: Counter[str]) -> None:
    """The batch alone, to compare with."""


ROWS = {
    "nothing": Row(nothing),
    "workers-killed": Row(kill_workers),
    "all-workers-killed": Row(kill_all_workers),
    "executors-killed": Row(kill_executors, "process"),
    "rolling-restarts": Row(restart_in_turn),
    "client-killed": Row(nothing),
    "coordinator-stopped": Row(stop_coordinator),
    "hosts-stopped": Row(stop_hosts),
    "all-stopped": Row(stop_everything),
}


# ---- the batch


async def submit(address: str, batch: Batch, session: str = "") -> None:
    """All of them, and wait for every one. A client of the same session goes on where another one was killed."""
    async with AsyncClient(address) as client:
        if session:
            client._way._session = session  # type: ignore[union-attr]  # before its stream begins
        for submission in client.submit_batch([NewTask(str(batch.seconds), kind="sleep")] * batch.tasks):
            await submission


async def submit_and_disturb(cluster: LocalCluster, batch: Batch, disturb: Disturb, did: Counter[str]) -> None:
    submitting = asyncio.create_task(submit(cluster.address, batch))
    async with AsyncClient(cluster.address) as client:
        while not submitting.done() and (await client.metrics()).completed < batch.tasks / 10:
            await asyncio.sleep(0.02)
    disturbing = asyncio.create_task(_as_told(disturb(cluster, did)))
    await submitting
    disturbing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await disturbing


async def _as_told(disturbance: Awaitable[None]) -> None:
    await disturbance


def submit_by_clients_that_are_killed(cluster: LocalCluster, batch: Batch, did: Counter[str]) -> None:
    """Each lives a little longer than the one before; the last one until it has every result."""
    options = ["--tasks", str(batch.tasks), "--seconds", str(batch.seconds)]
    command = [sys.executable, __file__, "--client", cluster.address, *options]
    for life in range(1, CLIENT_LIVES):
        client = subprocess.Popen(command)
        try:
            client.wait(0.5 + 0.5 * life)
            return
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
            did["kills"] += 1
    subprocess.run(command, check=True)


# ---- the count


def count(record: Path) -> Settled:
    times: Counter[str] = Counter()
    failed = attempts = 0
    for line in Recorded(record).inputs():
        for effect in line.effects or ():
            if effect[0] == "settled":
                times[effect[1]] += 1
                failed += effect[2] == "FAILED"
            elif effect[0] == "assign":
                attempts += 1
    return Settled(sum(number == 1 for number in times.values()), failed, attempts)


def measure(name: str, batch: Batch, check: bool) -> tuple[Settled, Counter[str], float]:
    row, did = ROWS[name], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record"
        # A task that goes from one worker that is about to be killed to the next looks like one that kills them.
        policies = ["retry.max_worker_kills=null", "--decision-record", str(record), *(["--check"] if check else [])]
        settings = {"capacity": SLOTS, "executor": row.executor, "policies": policies, "log": Path(folder) / "log"}
        with LocalCluster(WORKERS, **settings) as cluster:
            begin = time.monotonic()
            if name == "client-killed":
                submit_by_clients_that_are_killed(cluster, batch, did)
            else:
                asyncio.run(submit_and_disturb(cluster, batch, row.disturb, did))
            drained_s = time.monotonic() - begin
            cluster.coordinator.terminate()
            assert cluster.coordinator.wait(60) == 0
        assert "Traceback" not in (Path(folder) / "log").read_text(), (Path(folder) / "log").read_text()
        return count(record), did, drained_s


def lines(batch: Batch, names: list[str], check: bool) -> Iterator[tuple[str, bool]]:
    """A line of the table for each row, and whether the row is as it must be."""
    for name in names:
        settled, did, drained_s = measure(name, batch, check)
        what = ", ".join(f"{number} {word}" for word, number in did.items()) or "-"
        good = settled.once == batch.tasks and settled.failed == 0
        numbers = f"{settled.once} | {settled.failed} | {settled.attempts} | {drained_s:.1f}"
        yield f"| {name} | {what} | {numbers} |", good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=0.002)
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--check", action="store_true", help="let the coordinator prove its invariants")
    parser.add_argument("--client", metavar="ADDRESS", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    batch = Batch(arguments.tasks, arguments.seconds)
    if arguments.client:
        asyncio.run(submit(arguments.client, batch, "torn"))
        return 0
    print("| disturbed by | what was done | settled once | FAILED | attempts | drained after s |")
    print("| --- | --- | --- | --- | --- | --- |")
    status = 0
    for line, good in lines(batch, arguments.only, arguments.check):
        print(line, flush=True)
        status = status if good else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
