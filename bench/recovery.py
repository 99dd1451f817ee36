"""How soon does a coordinator serve again that has many stored tasks, and what do they take?

    python bench/recovery.py [--tasks 1000000] [--rounds 3]

Tasks that wait, tasks that are settled, and half of each, stored in a folder of the current one: that of temporary
files may be memory. Each time the real process starts on them, until it is ready to serve. `recovery`: what it says
itself of that, without the interpreter's own start; `processor`: the seconds of a processor that it took until then,
which tell more on a machine that does other things too. Bytes are of a task, beyond a coordinator that has none; in
memory, those of the process that writes for it included.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from orchestrator.cluster.client import Client
from orchestrator.cluster.store import Kept, SqliteStore
from orchestrator.core.model import TaskState
from orchestrator.rehearsal import local_cluster
from orchestrator.rehearsal.local_cluster import Process

GROUP = 10_000
SHARES = {"waiting": 0.0, "half of each": 0.5, "settled": 1.0}
"""Which part of the tasks is settled."""


class Measured(NamedTuple):
    """`memory`: resident bytes of the coordinator and of the process that reads and writes for it."""

    ready_s: float
    recovery_s: float
    processor_s: float
    memory: int


def tasks(count: int, settled: float) -> Iterator[Kept]:
    now = time.time()
    for number in range(count):
        accepted_at = now - 600 + 300 * number / count
        waiting = Kept(
            *(f"0123456789ab-{number}", 1, "", "1000003", "0123456789ab", number, None, accepted_at), place=number + 1
        )
        if number >= settled * count:
            yield waiting
            continue
        done = waiting._replace(payload="", tries=1, attempt=1, state=int(TaskState.COMPLETED))
        yield done._replace(result="1000003 is prime", worker_id="w1", settled_at=accepted_at + 60)


def fill(folder: Path, count: int, settled: float) -> int:
    """The bytes that they take on the disk."""
    store = SqliteStore(folder)
    term = store.begin_term(1)
    left = tasks(count, settled)
    while group := list(itertools.islice(left, GROUP)):
        store.append(term, group)
    store.close()
    return sum(file.stat().st_size for file in folder.iterdir())


def start(folder: Path) -> Measured:
    begin = time.perf_counter()
    coordinator = Process(["coordinator", "--port", "0", "--data", str(folder), "--quiet"])
    try:
        address = coordinator.ready()
        ready_s = time.perf_counter() - begin
        process = psutil.Process(coordinator.pid)
        memory = sum(each.memory_info().rss for each in (process, *process.children()))
        processor_s = sum(process.cpu_times()[:2])
        with Client(f"127.0.0.1:{address.rpartition(':')[2]}") as client:
            commits = client.metrics().commits
        assert commits is not None
        return Measured(ready_s, commits.recovery_s, processor_s, memory)
    finally:
        coordinator.close()


def main() -> None:
    local_cluster.READY_S = 300.0  # this is measured, not demanded
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=".") as empty:
        nothing = start(Path(empty))
    print(f"nothing stored: ready after {nothing.ready_s:.2f} s, {nothing.memory / 2**20:.0f} MiB\n")
    print(f"| {arguments.tasks:,} tasks | ready after s | recovery s | processor s | B a task in memory | on disk |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, settled in SHARES.items():
        with tempfile.TemporaryDirectory(dir=".") as folder:
            disk = fill(Path(folder), arguments.tasks, settled)
            best = min(start(Path(folder)) for _ in range(arguments.rounds))
        memory = (best.memory - nothing.memory) / arguments.tasks
        took = f"{best.ready_s:.2f} | {best.recovery_s:.2f} | {best.processor_s:.2f}"
        print(f"| {name} | {took} | {memory:,.0f} | {disk / arguments.tasks:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
