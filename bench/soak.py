"""Do memory and disk stay as they are while tasks come and go, and are forgotten? For minutes, at a moderate rate.

    python bench/soak.py [--minutes 10] [--rate 500] [--retention 30]

Tasks that do nothing, with a payload of 200 characters, every second one with a key, on 2 workers x 8 of a coordinator
that stores its tasks in a folder of the current one and forgets them so many seconds after they were settled. The
exit status is 1 if the last quarter takes 5 % more memory or disk than the second one, or a task got no result.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.rehearsal.local_cluster import LocalCluster

WORKERS, SLOTS = 2, 8
LOOK_S = 10.0
TICK_S = 0.02
PAYLOAD = "0" * 200
FLAT = 1.05


class Row(NamedTuple):
    """`minute`: since the beginning; MiB of the coordinator, the largest worker, the store and its log."""

    minute: float
    settled: int
    coordinator: float
    worker: float
    store: float
    log: float
    p99_ms: float


async def load(client: AsyncClient, rate: float, seconds: float, ends: Counter[str]) -> None:
    """At that rate, whatever becomes of the tasks, until all have their results."""
    begin, count = time.monotonic(), 0
    waiting: set[asyncio.Future[object]] = set()

    def ended(outcome: asyncio.Future[object]) -> None:
        waiting.discard(outcome)
        ends[outcome.result().state.name] += 1  # type: ignore[attr-defined]

    while (now := time.monotonic() - begin) < seconds:
        due = int(now * rate) - count
        submissions: list[Submission] = client.submit_batch(
            NewTask(PAYLOAD, kind="sleep", key=f"order-{number}" if number % 2 else "")
            for number in range(count, count + due)
        )
        count += due
        for submission in submissions:
            waiting.add(submission.outcome)  # type: ignore[arg-type]
            submission.outcome.add_done_callback(ended)  # type: ignore[arg-type]
        await asyncio.sleep(TICK_S)
    await asyncio.gather(*waiting)


async def look(cluster: LocalCluster, client: AsyncClient, data: Path, begin: float) -> Row:
    metrics = await client.metrics()
    memory = {pid: psutil.Process(pid).memory_info().rss / 2**20 for pid in _pids(cluster)}
    sizes = {file.name: file.stat().st_size / 2**20 for file in data.iterdir()}
    return Row(
        (time.monotonic() - begin) / 60,
        metrics.completed + metrics.failed,
        memory[cluster.coordinator.pid],
        max(memory[cluster.worker(name).pid] for name in cluster.names),
        sizes["tasks.sqlite"],
        sizes["tasks.sqlite-wal"],
        (metrics.latency_ms.p99 if metrics.latency_ms is not None else None) or float("nan"),
    )


def _pids(cluster: LocalCluster) -> list[int]:
    return [cluster.coordinator.pid, *(cluster.worker(name).pid for name in cluster.names)]


async def soak(cluster: LocalCluster, data: Path, minutes: float, rate: float) -> tuple[list[Row], Counter[str]]:
    rows: list[Row] = []
    ends: Counter[str] = Counter()
    async with AsyncClient(cluster.address) as client:
        begin = time.monotonic()
        loading = asyncio.create_task(load(client, rate, 60 * minutes, ends))
        while not (await asyncio.wait([loading], timeout=LOOK_S))[0]:
            rows.append(await look(cluster, client, data, begin))
            row = rows[-1]
            sizes = " | ".join(f"{size:.1f}" for size in row[2:6])
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
        for name in ("coordinator", "worker", "store", "log")
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=500.0, help="tasks a second")
    parser.add_argument("--retention", type=float, default=30.0, help="seconds")
    arguments = parser.parse_args()
    print("| minute | settled | coordinator MiB | worker MiB | store MiB | its log MiB | p99 ms |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        data, kept_s = Path(folder) / "data", str(arguments.retention)
        policies = ["--quiet", "--data", str(data), "--retention", kept_s, "--dedup-ttl", kept_s]
        with LocalCluster(
            WORKERS, capacity=SLOTS, prefetch=SLOTS, executor="inline", options=["--quiet"], policies=policies
        ) as cluster:
            rows, ends = asyncio.run(soak(cluster, data, arguments.minutes, arguments.rate))
    growth = grown(rows)
    told = ", ".join(f"{name} {share - 1:+.1%}" for name, share in growth.items())
    print(f"\n{dict(ends)}; from the second quarter to the last one: {told}")
    return 0 if max(growth.values()) <= FLAT and set(ends) == {"COMPLETED"} else 1


if __name__ == "__main__":
    sys.exit(main())
