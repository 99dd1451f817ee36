"""Do memory and disk stay as they are while tasks come and go, and are forgotten? For minutes, at a moderate rate.

    python bench/soak.py [--minutes 10] [--rate 500 | --share 0.7] [--retention 30] [--own]
    python bench/soak.py --unread 100000

Tasks that do nothing, with a payload of 200 characters, every second one with a key, on 2 workers x 8 of a coordinator
that stores its tasks in a folder of the current one and forgets them so many seconds after they were settled. `--own`:
functions of an app instead, an async one and a plain one in turn. `--share`: of the rate that a batch reached before.
The exit status is 1 if the last quarter takes 5 % more memory or disk than the second one, or a task got no result.

`--unread`: so many tasks, once such that wait behind others and once such that do nothing, of a client that reads
nothing; what the coordinator's memory is then. The exit status is 1 if it has grown by over 2 KiB for each of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.wire import rpc, translate
from orchestrator.rehearsal.local_cluster import LocalCluster

WORKERS, SLOTS = 2, 8
LOOK_S = 10.0
TICK_S = 0.02
PAYLOAD = "0" * 200
FLAT = 1.05
BATCH = 5000
"""Tasks by which the capacity is measured."""
IN_A_MESSAGE = 1000
UNREAD_BYTES = 2048
"""What a task of a client that reads nothing may take."""
UNREAD_SETTLES_S = 15.0


class Row(NamedTuple):
    """`minute`: since the beginning; MiB of the coordinator, the process that writes its store, the largest worker and
    its largest subprocess, the client, the store and its log."""

    minute: float
    settled: int
    coordinator: float
    writer: float
    worker: float
    subprocess: float
    client: float
    store: float
    log: float
    p99_ms: float


SIZES = Row._fields[2:-1]
"""The columns in MiB."""


def task(number: int, own: bool) -> NewTask:
    key = f"order-{number}" if number % 2 else ""
    if own:
        return NewTask("[1]", kind=("nothing", "nothing_async")[number // 2 % 2], key=key)
    return NewTask(PAYLOAD, kind="sleep", key=key)


async def capacity(client: AsyncClient, own: bool) -> float:
    """Tasks a second, of a batch."""
    begin = time.monotonic()
    await asyncio.gather(*(each.outcome for each in client.submit_batch(task(2 * n, own) for n in range(BATCH))))
    return BATCH / (time.monotonic() - begin)


async def load(client: AsyncClient, rate: float, seconds: float, own: bool, ends: Counter[str]) -> None:
    """At that rate, whatever becomes of the tasks, until all have their results."""
    begin, count = time.monotonic(), 0
    waiting: set[asyncio.Future[object]] = set()

    def ended(outcome: asyncio.Future[object]) -> None:
        waiting.discard(outcome)
        ends[outcome.result().state.name] += 1  # type: ignore[attr-defined]

    while (now := time.monotonic() - begin) < seconds:
        due = int(now * rate) - count
        submissions: list[Submission] = client.submit_batch(task(number, own) for number in range(count, count + due))
        count += due
        for submission in submissions:
            waiting.add(submission.outcome)  # type: ignore[arg-type]
            submission.outcome.add_done_callback(ended)  # type: ignore[arg-type]
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*waiting)


async def look(cluster: LocalCluster, client: AsyncClient, data: Path, begin: float) -> Row:
    metrics = await client.metrics()
    coordinator = psutil.Process(cluster.coordinator.pid)
    workers = [psutil.Process(cluster.worker(name).pid) for name in cluster.names]
    sizes = {file.name: file.stat().st_size / 2**20 for file in data.iterdir()}
    return Row(
        (time.monotonic() - begin) / 60,
        metrics.completed + metrics.failed,
        mebibytes(coordinator),
        sum(map(mebibytes, coordinator.children())),
        max(map(mebibytes, workers)),
        max((mebibytes(child) for worker in workers for child in worker.children()), default=0.0),
        mebibytes(psutil.Process()),
        sizes["tasks.sqlite"],
        sizes["tasks.sqlite-wal"],
        (metrics.latency_ms.p99 if metrics.latency_ms is not None else None) or float("nan"),
    )


def mebibytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


async def soak(
    cluster: LocalCluster, data: Path, minutes: float, rate: float, share: float | None, own: bool
) -> tuple[list[Row], Counter[str]]:
    rows: list[Row] = []
    ends: Counter[str] = Counter()
    async with AsyncClient(cluster.address) as client:
        if share is not None:
            await capacity(client, own)  # wakes everybody up
            measured = await capacity(client, own)
            rate = share * measured
            print(f"<!-- {measured:,.0f} tasks/s at most, {rate:,.0f} of them from now on -->", flush=True)
        begin = time.monotonic()
        loading = asyncio.create_task(load(client, rate, 60 * minutes, own, ends))
        while not (await asyncio.wait([loading], timeout=LOOK_S))[0]:
            rows.append(await look(cluster, client, data, begin))
            row = rows[-1]
            sizes = " | ".join(f"{size:.1f}" for size in row[2:-1])
            print(f"| {row.minute:.1f} | {row.settled:,} | {sizes} | {row.p99_ms:.1f} |", flush=True)
        await loading
    return rows, ends


def grown(rows: list[Row]) -> dict[str, float]:
    """The median of the last quarter by that of the second one."""
    quarter = max(1, len(rows) // 4)
    second, last = rows[quarter : 2 * quarter], rows[-quarter:]
    return {
        name: statistics.median(getattr(row, name) for row in last)
        / statistics.median(getattr(row, name) for row in second)
        for name in SIZES
        if any(getattr(row, name) for row in second)
    }


async def unread(cluster: LocalCluster, count: int, payload: str) -> float:
    """MiB by which the coordinator has grown."""
    coordinator = psutil.Process(cluster.coordinator.pid)
    before = mebibytes(coordinator)
    async with rpc.channel(cluster.address) as channel, AsyncClient(cluster.address) as other:
        call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()

        async def write() -> None:
            for first in range(0, count, IN_A_MESSAGE):
                some = range(first, min(count, first + IN_A_MESSAGE))
                tasks = ((n + 1, "sleep", payload, 1, "", None, "", "") for n in some)
                await call.write(translate.from_client("unread", tasks))

        with contextlib.suppress(TimeoutError):  # it is read no further
            await asyncio.wait_for(write(), 4 * UNREAD_SETTLES_S)
        await asyncio.sleep(UNREAD_SETTLES_S)
        metrics, grown_by = await other.metrics(), mebibytes(coordinator) - before
        settled = metrics.completed + metrics.failed
        print(
            f"{metrics.queue_depth:,} wait, {settled:,} are settled: {before:.1f} MiB, and {grown_by:.1f} more",
            flush=True,
        )
        call.cancel()
    return grown_by


def soak_unread(count: int) -> int:
    grown_by = []
    for payload in ("3600", "0"):
        with LocalCluster(WORKERS, capacity=SLOTS, options=["--quiet"], policies=["--quiet"]) as cluster:
            grown_by.append(asyncio.run(unread(cluster, count, payload)))
    return int(max(grown_by) * 2**20 > UNREAD_BYTES * count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=500.0, help="tasks a second")
    parser.add_argument("--share", type=float, help="of the capacity, instead of a rate")
    parser.add_argument("--own", action="store_true", help="functions of an app, async and plain ones")
    parser.add_argument("--unread", type=int, metavar="TASKS", help="of a client that reads nothing")
    parser.add_argument("--retention", type=float, default=30.0, help="seconds")
    arguments = parser.parse_args()
    if arguments.unread is not None:
        return soak_unread(arguments.unread)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    own = ["--app", "noops:app"] if arguments.own else []
    executor = "process" if arguments.own else "inline"
    columns = ["minute", "settled", *(f"{of} MiB" for of in SIZES), "p99 ms"]
    print(f"| {' | '.join(columns)} |\n|{' ---: |' * len(columns)}")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data, kept_s = Path(folder) / "data", str(arguments.retention)
        policies = ["--quiet", "--data", str(data), "--retention", kept_s, "--dedup-ttl", kept_s]
        with LocalCluster(
            WORKERS, capacity=SLOTS, prefetch=SLOTS, executor=executor, options=["--quiet", *own], policies=policies
        ) as cluster:
            rows, ends = asyncio.run(
                soak(cluster, data, arguments.minutes, arguments.rate, arguments.share, arguments.own)
            )
    growth = grown(rows)
    told = ", ".join(f"{name} {share - 1:+.1%}" for name, share in growth.items())
    print(f"\n{dict(ends)}; from the second quarter to the last one: {told}")
    return 0 if max(growth.values()) <= FLAT and set(ends) == {"COMPLETED"} else 1


if __name__ == "__main__":
    sys.exit(main())
