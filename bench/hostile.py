"""What does a client notice of peers that misbehave, and how large does the coordinator grow?

    python bench/hostile.py [--seconds 8] [--only NAME ...]

A coordinator, 4 workers x 8 and a client in processes of their own; beside them another process attacks. The client
submits one task after the other and awaits each. The table has its p50 and p99 beside each attack, the longest time
that one task took, and the greatest memory of the coordinator (VmHWM). `docs/hostile-peers.md` has the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import grpc.aio

from orchestrator.cluster.client import AsyncClient
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.cluster.wire.proto.stream_pb2 import Beat, FromClient, FromWorker, NewTask, Registration, Report
from orchestrator.core.model import Priority
from orchestrator.rehearsal.local_cluster import LocalCluster

WORKERS, SLOTS = 4, 8
MILLIONS = b"\x0a\x00" * 4_000_000  # empty starts, in as many bytes as a message may have
LARGE = "x" * (1 << 20)
END: Any = grpc.aio.EOF  # type: ignore[attr-defined]


class Measured(NamedTuple):
    """Milliseconds of a task; MiB of the coordinator; KiB of its log."""

    tasks: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    memory_mib: float
    log_kib: float


# ---- attacks: each is done again and again, on a channel of its own


async def listen(call: Any) -> None:
    while await call.read() != END:
        pass


async def until_it_ends(call: Any, message: Any) -> None:
    """Say the same for ever."""
    listening = asyncio.create_task(listen(call))
    try:
        while not call.done():
            await call.write(message)
    finally:
        listening.cancel()


def streamed_worker(channel: grpc.aio.Channel) -> Any:
    return rpc.Stub(channel, rpc.WORKER_STREAM).Work()


async def registered(channel: grpc.aio.Channel) -> Any:
    """A worker that takes no task."""
    call = streamed_worker(channel)
    registration = Registration(worker_id="hostile", capacity=1, incarnation="x")
    await call.write(FromWorker(registration=registration, draining=True))
    return call


async def millions_of_items(channel: grpc.aio.Channel) -> None:
    stream: Any = channel.stream_stream(f"/{rpc.WORKER_STREAM.full_name}/Work", bytes, bytes)
    call = stream()
    await call.write(FromWorker(registration=Registration(worker_id="hostile", capacity=1)).SerializeToString())
    await call.write(MILLIONS)
    await listen(call)


async def full_messages(channel: grpc.aio.Channel) -> None:
    """As many starts as a message may have, of attempts that never were."""
    await until_it_ends(await registered(channel), FromWorker.FromString(b"\x0a\x00" * 20_000))


async def unknown_reports(channel: grpc.aio.Channel) -> None:
    reports = [Report(task_id="nobody's", attempt=1, number=1)] * 5_000
    await until_it_ends(await registered(channel), FromWorker(reports=reports))


async def refused_tasks(channel: grpc.aio.Channel) -> None:
    call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    await until_it_ends(call, FromClient(session="hostile", tasks=[NewTask(number=1)] * 5_000))


async def tasks_too_large(channel: grpc.aio.Channel) -> None:
    call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    tasks = [NewTask(number=1, priority="NORMAL", payload="x" * (1 << 20) + "x")] * 7
    await until_it_ends(call, FromClient(session="hostile", tasks=tasks))


async def submissions_over_the_limit(channel: grpc.aio.Channel) -> None:
    """Sound tasks, far more than the coordinator takes at a time, whose results nobody reads."""
    call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    await call.write(FromClient(session="hostile"))
    numbers = itertools.count(1)
    while True:
        tasks = [NewTask(number=next(numbers), priority="NORMAL", kind="sleep", payload="0.001") for _ in range(1_000)]
        await call.write(FromClient(tasks=tasks))


async def calls_over_the_limit(channel: grpc.aio.Channel) -> None:
    """By the wire contract, far too large."""
    submit = rpc.Stub(channel, rpc.COORDINATOR).SubmitTask
    await many(lambda: submit(wire_pb2.SubmitTaskRequest(payload="x" * (1 << 20) + "x")))


async def heavy_calls(channel: grpc.aio.Channel) -> None:
    """By the wire contract, as large as a message may be."""
    submit = rpc.Stub(channel, rpc.COORDINATOR).SubmitTask
    request = wire_pb2.SubmitTaskRequest(payload="x" * (rpc.MESSAGE_BYTES - 100))
    await many(lambda: submit(request), at_once=300)


async def unread_stream(channel: grpc.aio.Channel) -> None:
    """A worker of as many slots as there may be, that beats and never reads; it comes again when it is sent away."""
    call = streamed_worker(channel)
    await call.write(FromWorker(registration=Registration(worker_id="hostile", capacity=10_000, incarnation="x")))
    while not call.done():
        await call.write(FromWorker(beat=Beat(active=0)))
        await asyncio.sleep(0.1)


async def unread_results(channel: grpc.aio.Channel) -> None:
    """A worker whose results are as large as they may be, and a client that submits and never reads them."""
    client = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    await client.write(FromClient(session="hostile"))
    worker = streamed_worker(channel)
    await worker.write(FromWorker(registration=Registration(worker_id="hostile", capacity=32, incarnation="x")))
    working = asyncio.create_task(large_results(worker))
    try:
        for number in itertools.count(1):
            await client.write(FromClient(tasks=[NewTask(number=number, priority="NORMAL", payload="7")]))
            if number % 100 == 0:
                await asyncio.sleep(0.01)
    finally:
        working.cancel()


async def large_results(worker: Any) -> None:
    numbers = itertools.count(1)
    while (message := await worker.read()) != END:
        for task in message.assignments:
            report = Report(
                task_id=task.task_id, attempt=task.attempt, succeeded=True, result=LARGE, number=next(numbers)
            )
            await worker.write(FromWorker(reports=[report], beat=Beat(active=0)))


async def unknown_results(channel: grpc.aio.Channel) -> None:
    """By the wire contract, of a worker that nobody knows."""
    report = rpc.Stub(channel, rpc.REGISTRY).ReportResult
    result = wire_pb2.TaskResult(task_id="nobody's", state=wire_pb2.COMPLETED)
    await many(lambda: report(wire_pb2.ReportResultRequest(worker_id="nobody", result=result)))


async def registrations(channel: grpc.aio.Channel) -> None:
    """By the wire contract, of workers that are nowhere, each by another name."""
    register = rpc.Stub(channel, rpc.REGISTRY).RegisterWorker
    names = itertools.count()
    await many(
        lambda: register(
            wire_pb2.RegisterWorkerRequest(worker_id=f"hostile-{next(names)}", address="127.0.0.1:1", capacity=1)
        )
    )


async def beats(channel: grpc.aio.Channel) -> None:
    await until_it_ends(await registered(channel), FromWorker(beat=Beat(active=0)))


async def many(call: Callable[[], Awaitable[Any]], at_once: int = 64) -> None:
    async def forever() -> None:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call()

    await asyncio.gather(*(forever() for _ in range(at_once)))


ATTACKS: dict[str, tuple[str, Callable[[grpc.aio.Channel], Awaitable[None]] | None]] = {
    "none": ("no attack", None),
    "millions": ("messages of 4,000,000 empty items", millions_of_items),
    "full": ("messages of 20,000 empty items", full_messages),
    "reports": ("messages of 5,000 reports on nobody's tasks", unknown_reports),
    "refused": ("messages of 5,000 tasks that are refused", refused_tasks),
    "large": ("messages of 7 tasks that are too large", tasks_too_large),
    "flood": ("tasks over the limit, results unread", submissions_over_the_limit),
    "calls": ("calls that submit too much, 64 at a time", calls_over_the_limit),
    "heavy": ("calls that submit 8 MiB each, 300 at a time", heavy_calls),
    "unread": ("a worker of 10,000 slots that beats and never reads", unread_stream),
    "owed": ("a client that never reads results of 1 MiB each", unread_results),
    "results": ("calls that report on nobody's tasks, 64 at a time", unknown_results),
    "registrations": ("calls that register workers that are nowhere, 64 at a time", registrations),
    "beats": ("beats without a pause", beats),
}


async def attack(name: str, address: str) -> None:
    act = ATTACKS[name][1]
    assert act is not None
    async with rpc.channel(address) as channel:
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await act(channel)
            await asyncio.sleep(0.001)


# ---- beside them


async def measure(address: str, seconds: float) -> list[float]:
    """How long each task took, in milliseconds, in order of size."""
    took_ms = []
    async with AsyncClient(address) as client:
        await client.submit("0", kind="sleep")
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            await client.submit("0", Priority.HIGH, "sleep")
            took_ms.append(1000 * (time.perf_counter() - begin))
    return sorted(took_ms)


def greatest_memory_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def beside(name: str, seconds: float) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with LocalCluster(
            WORKERS, capacity=SLOTS, executor="inline", policies=["--max-unsettled", "20000"], log=log
        ) as cluster:
            command = [sys.executable, __file__, "--attack", name, "--address", cluster.address]
            attacker = None if name == "none" else subprocess.Popen(command)
            try:
                took_ms = asyncio.run(asyncio.wait_for(measure(cluster.address, seconds), 20 * seconds))
                assert attacker is None or attacker.poll() is None, "the attacker has ended"
            finally:
                if attacker is not None:
                    attacker.kill()
                    attacker.wait()
            memory = greatest_memory_mib(cluster.coordinator.pid)
        log_kib = log.stat().st_size / 1024
    count = len(took_ms)
    return Measured(count, took_ms[count // 2], took_ms[int(0.99 * count)], took_ms[-1], memory, log_kib)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.attack:
        asyncio.run(attack(given.attack, given.address))
    print("| beside | tasks | p50 ms | p99 ms | longest ms | memory MiB | log KiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in given.only:
        of = beside(name, given.seconds)
        times = " | ".join(f"{ms:.1f}" for ms in (of.p50_ms, of.p99_ms, of.longest_ms))
        print(f"| {ATTACKS[name][0]} | {of.tasks} | {times} | {of.memory_mib:.0f} | {of.log_kib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
