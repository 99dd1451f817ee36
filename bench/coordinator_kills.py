"""Is anything lost, or done twice, while the coordinator is killed again and again under load? It must not be.

    python bench/coordinator_kills.py [--tasks 20000] [--kills 20] [--seed 1]

Tasks with keys on 4 workers x 8 in processes of their own, a coordinator with `--data` that proves its invariants and
records its decisions, and three clients: what the first and the second one submit overlaps, and what the second and
the third; a tenth of it each submits twice; the third is killed now and then and begins again. The coordinator gets
SIGKILL at random moments, one time in three while the one before it has not finished starting, while its workers
live on. Then what each client was told is compared with the store, with what the workers executed, and with the
decisions, made anew. The exit status is 1 if anything is missing, or happened twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.cluster.client import AsyncClient
from orchestrator.cluster.decision_record import replay
from orchestrator.cluster.store import SqliteStore
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady

ROOT = Path(__file__).resolve().parents[1]
WORKERS, SLOTS, PREFETCH = 4, 8, 8
TASK_S = (0.0, 0.02)
AT_ONCE = 500
"""So many tasks each client has under way."""
STARTING_S = 0.8
CLIENT_KILLS = 3
PARTS = {"first": (0.0, 0.5), "second": (0.25, 0.75), "third": (0.5, 1.0)}
"""Which part of the tasks a client submits."""


# ---- a client, in a process of its own


async def submit(address: str, first: int, last: int, told: Path) -> None:
    """What it is told, and when it knows it, becomes a line at once."""
    chance = random.Random(first)
    with told.open("ab", buffering=0) as file:

        def note(key: str, *what: object) -> None:
            file.write(json.dumps([key, *what]).encode() + b"\n")

        async with AsyncClient(address) as client:
            room = asyncio.Semaphore(AT_ONCE)

            async def one(key: str) -> None:
                payload = str(round(random.Random(key).uniform(*TASK_S), 4))
                async with room:
                    submissions = [client.submit(payload, kind="sleep", key=key)]
                    note(key, "accepted", await submissions[0].id)
                    if chance.random() < 0.1:
                        submissions.append(client.submit(payload, kind="sleep", key=key))
                    for submission in submissions:
                        task_id, state, worker_id, attempts, *_ = _facts(await submission)
                        note(key, "settled", task_id, state, worker_id, attempts)

            await asyncio.gather(*(one(f"order-{number}") for number in range(first, last)))


def _facts(outcome: Any) -> tuple[str, int, str, int]:
    return outcome.task_id, int(outcome.state), outcome.worker_id, outcome.attempts


class Clients:
    """Their processes, and what they were told."""

    def __init__(self, address: str, tasks: int, folder: Path) -> None:
        self._address = address
        self._folder = folder
        self._ranges = {name: (int(a * tasks), int(b * tasks)) for name, (a, b) in PARTS.items()}
        self._processes = {name: self._start(name) for name in PARTS}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        first, last = self._ranges[name]
        told = str(self._folder / name)
        return subprocess.Popen([sys.executable, __file__, "--client", self._address, str(first), str(last), told])

    def kill(self, name: str) -> bool:
        """And begin it again. False: it had ended before."""
        process = self._processes[name]
        if process.poll() is not None:
            return False
        process.kill()
        process.wait()
        self._processes[name] = self._start(name)
        return True

    @property
    def ended(self) -> bool:
        return all(process.poll() is not None for process in self._processes.values())

    def close(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def wrong(self) -> Iterator[str]:
        """What its processes have to complain of, or are not told."""
        for name, process in self._processes.items():
            if process.returncode:
                yield f"client {name} ended with {process.returncode}"
            keys = {line[0] for line in self.lines(name) if line[1] == "settled"}
            missing = set(map("order-{}".format, range(*self._ranges[name]))) - keys
            if missing:
                yield f"client {name} got no result of {len(missing)} tasks, such as {min(missing)}"

    def lines(self, *names: str) -> Iterator[list[Any]]:
        for name in names or PARTS:
            for line in (self._folder / name).read_bytes().splitlines():
                yield json.loads(line)


# ---- the kills


class Executions:
    """What the workers have begun, as they say themselves."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = 0
        self.count = 0

    def read(self) -> int:
        if self._file.exists():
            with self._file.open("rb") as file:
                file.seek(self._at)
                new = file.read()
            self._at += len(new)
            self.count += new.count(b"\n")
        return self.count

    def by_task(self) -> Counter[str]:
        return Counter(self._file.read_text().splitlines())


class Moment(NamedTuple):
    """`executed`: when so many tasks have been begun."""

    executed: float
    whom: str


def moments(tasks: int, kills: int, chance: random.Random) -> list[Moment]:
    whom = ["coordinator"] * kills + ["third"] * CLIENT_KILLS
    return sorted(Moment(chance.uniform(0.01, 0.95) * tasks, each) for each in whom)


def kill(cluster: LocalCluster, clients: Clients, executions: Executions, planned: list[Moment], chance: Any) -> Any:
    """How often each was killed; the coordinator of that while it was starting."""
    did: Counter[str] = Counter()
    left = list(planned)
    while left and not clients.ended:
        if executions.read() < left[0].executed:
            time.sleep(0.002)
            continue
        _, whom = left.pop(0)
        time.sleep(chance.uniform(0, 0.03))
        if whom != "coordinator":
            did[f"kills of the {whom} client"] += clients.kill(whom)
            continue
        cluster.coordinator.kill()
        did["kills of the coordinator"] += 1
        again = [moment for moment in left if moment.whom == whom]
        if again and chance.random() < 1 / 3:
            left.remove(again[0])
            did["of them while it was starting"] += start_and_kill(cluster, chance.uniform(0.02, STARTING_S))
            did["kills of the coordinator"] += 1
        cluster.start_coordinator()
    return did


def start_and_kill(cluster: LocalCluster, after_s: float) -> bool:
    """Whether it was killed before it was ready."""
    timer = threading.Timer(after_s, lambda: os.kill(cluster.coordinator.pid, signal.SIGKILL))
    timer.start()
    try:
        cluster.start_coordinator()
    except NotReady:
        return True
    finally:
        timer.join()
        cluster.coordinator.kill()
    return False


# ---- the judgement


def wrong(tasks: int, clients: Clients, data: Path, executed: Counter[str], record: Path, log: str) -> Iterator[str]:
    """A sentence for each promise that was broken."""
    yield from clients.wrong()
    ids: defaultdict[str, set[str]] = defaultdict(set)
    ends: defaultdict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for key, what, task_id, *facts in clients.lines():
        ids[key].add(task_id)
        if what == "settled":
            ends[key].add(tuple(facts))
    yield from _some("keys were told to be several tasks", [key for key, each in ids.items() if len(each) != 1])
    yield from _some("keys were settled in several ways", [key for key, each in ends.items() if len(each) != 1])
    store = SqliteStore(data)
    kept = {task.key: task for task in store.tasks()}
    yield from _some("tasks are stored beside those", range(sum(1 for _ in store.tasks()) - tasks))
    store.close()
    yield from _some("acknowledged keys are not stored", [key for key in ids if key not in kept])
    yield from _some("tasks are stored under another id", [key for key in ids if {kept[key].id} != ids[key]])
    unsettled = [key for key, task in kept.items() if task.state != TaskState.COMPLETED]
    yield from _some("acknowledged tasks did not complete", unsettled)
    stored = {key: {(task.state, task.worker_id, task.attempt)} for key, task in kept.items()}
    yield from _some("tasks are stored as settled otherwise", [key for key in ends if stored.get(key) != ends[key]])
    mine = {task.id for task in kept.values()}
    yield from _some("tasks were never executed", mine - set(executed))
    yield from _some("tasks were executed more than once", [name for name, times in executed.items() if times > 1])
    yield from _some("tasks were executed that nobody knows", set(executed) - mine)
    again = replay(record)
    if again.difference is not None:
        yield f"decided anew, the record differs: {again.difference}"
    if "Traceback" in log or "dead" in log:
        yield f"the log complains:\n{log[-3000:]}"


def _some(what: str, found: Any) -> Iterator[str]:
    if found:
        yield f"{len(found)} {what}, such as {next(iter(found))}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--client", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        address, first, last, told = arguments.client
        asyncio.run(submit(address, int(first), int(last), Path(told)))
        return 0
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        os.environ["KILL_POINTS"] = str(folder)  # the workers tell there what they execute
        os.environ["PLANTED_BUG"] = "tests.cluster.kill_points:tell"
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)])
        record, data, log = folder / "record", folder / "data", folder / "log"
        policies = ["policies.detection.timeout_s=15", "--check", "--data", str(data), "--decision-record", str(record)]
        begin = time.monotonic()
        with LocalCluster(
            WORKERS, capacity=SLOTS, prefetch=PREFETCH, executor="inline", policies=policies, log=log
        ) as cluster:
            clients, executions = Clients(cluster.address, arguments.tasks, folder), Executions(folder / "executed")
            try:
                planned = moments(arguments.tasks, arguments.kills, chance)
                did = kill(cluster, clients, executions, planned, chance)
                while not clients.ended:
                    time.sleep(0.02)
                took_s = time.monotonic() - begin
            finally:
                clients.close()
            cluster.coordinator.terminate()
            status = cluster.coordinator.wait(60)
        told = list(clients.lines())
        executed = executions.by_task()
        problems = list(wrong(arguments.tasks, clients, data, executed, record, log.read_text()))
    for what, number in did.items():
        print(f"{number} {what}")
    print(f"{arguments.tasks} keys; {sum(line[1] == 'settled' for line in told)} results told to clients")
    print(f"{sum(executed.values())} executions of {len(executed)} tasks, {took_s:.1f} s")
    if did["kills of the coordinator"] != arguments.kills:
        problems.append("the tasks came to an end before all the kills")
    if status:
        problems.append(f"the coordinator ended with {status}")
    for problem in problems:
        print(problem)
    print("wrong" if problems else "nothing lost, nothing done twice")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
