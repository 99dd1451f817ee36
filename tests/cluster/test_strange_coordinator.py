"""Our worker and our client against a coordinator that speaks only the wire contract."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grpc.aio
import pytest

from orchestrator.cluster.client import AsyncClient, Client, NewTask, TaskRefused
from orchestrator.cluster.connection import Connection
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.submitting import Streaming
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.cluster.worker import ContractOnly, Settings
from orchestrator.rehearsal.local_cluster import Process
from tests.cluster.contract import peers
from tests.cluster.contract.peers import COMPLETED, FAILED, wait_until

StartWorker = Callable[..., Process]


@pytest.fixture
def start_worker(stranger: peers.Coordinator) -> Iterator[StartWorker]:
    """Our worker process, registered there."""
    started: list[Process] = []

    def start(name: str, *options: str) -> Process:
        arguments = ["worker", "-c", stranger.address, "--id", name, "--port", "0", *options]
        started.append(Process(arguments))
        started[-1].ready()
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_our_worker_finds_out_and_speaks_the_contract(stranger: peers.Coordinator, start_worker: StartWorker):
    """It tries a stream, falls back, registers an address, beats, and tests primes with the exact words."""
    start_worker("ours", "--capacity", "3", "--executor", "thread")
    words = {
        "2": "2 is prime",
        "9999999967": "9999999967 is prime",
        "0": "0 is not prime (smallest factor: 0)",
        "1": "1 is not prime (smallest factor: 0)",
        "91": "91 is not prime (smallest factor: 7)",
        "1000000000": "1000000000 is not prime (smallest factor: 2)",
    }
    ids = {payload: stranger.submit(payload) for payload in words}
    assert {payload: stranger.settled(task)["result"] for payload, task in ids.items()} == words
    assert stranger.workers["ours"]["capacity"] == 3
    wait_until(lambda: stranger.beats and stranger.beats[-1].completed_tasks == 6)
    assert stranger.beats[-1].active_tasks == 0


def test_a_payload_that_is_no_integer_fails(stranger: peers.Coordinator, start_worker: StartWorker):
    """FAILED, with an error of the agreed beginning."""
    start_worker("ours", "--executor", "thread")
    for payload in ("seventeen", "1.5", "1_000", "", "9" * 30):
        task = stranger.settled(stranger.submit(payload))
        assert task["state"] == FAILED
        assert task["error"].startswith("invalid payload: ")


def test_a_report_is_repeated_until_it_gets_through(stranger: peers.Coordinator, start_worker: StartWorker):
    """Four failures are not the end; the task was executed once."""
    start_worker("ours", "--executor", "thread")
    stranger.unreachable_reports = 4
    assert stranger.settled(stranger.submit("7"))["executions"] == 1
    assert len(stranger.reports) == 5


def test_a_worker_that_is_forgotten_registers_again(stranger: peers.Coordinator, start_worker: StartWorker):
    """A heartbeat that is not acknowledged says so."""
    start_worker("ours", "--executor", "thread")
    stranger.knows_workers = False
    wait_until(lambda: len(stranger.registrations) == 2)
    assert stranger.settled(stranger.submit("7"))["state"] == COMPLETED


def test_sigterm_drains_our_worker(stranger: peers.Coordinator, start_worker: StartWorker):
    """It refuses what is new, reports what it runs, and leaves with status 0."""
    worker = start_worker("ours", "--capacity", "2", "--executor", "process")
    running = stranger.submit("9223372036854775783")  # a prime of 63 bits: minutes of trial division
    wait_until(lambda: any(beat.active_tasks == 1 for beat in stranger.beats))
    worker.terminate()
    wait_until(lambda: stranger.submit("7") and stranger.refusals)
    assert worker.status is None
    assert stranger.tasks[running]["state"] < COMPLETED
    worker.terminate()
    assert worker.wait(10) == 1, "a second signal ends it at once"


def test_a_drained_worker_leaves_when_it_has_reported(stranger: peers.Coordinator, start_worker: StartWorker):
    """Nothing of what it had accepted is lost."""
    worker = start_worker("ours", "--capacity", "2", "--executor", "process")
    stranger.unreachable_reports = 1
    task = stranger.submit("9999999967")
    wait_until(lambda: stranger.reports)
    worker.terminate()
    assert worker.wait(10) == 0
    assert stranger.tasks[task]["state"] == COMPLETED


def test_our_client_polls_there(stranger: peers.Coordinator, start_worker: StartWorker):
    """A batch, a refusal, a status and the metrics, without streams."""
    start_worker("ours", "--capacity", "4", "--executor", "thread")

    async def talk() -> list[Outcome]:
        async with AsyncClient(stranger.address) as client:
            submissions = client.submit_batch([NewTask(str(number)) for number in range(50)])
            outcomes = [outcome async for _, outcome in client.results(submissions)]
            with pytest.raises(TaskRefused):
                await client.submit("")
            with pytest.raises(KeyError):
                await client.status("nobody")
            assert (await client.status(outcomes[0].task_id))[:-1] == outcomes[0][:-1], "all but what the client waited"
            assert (await client.metrics()).alive_workers == 1
        return outcomes

    outcomes = asyncio.run(talk())
    assert len({outcome.task_id for outcome in outcomes}) == 50
    assert all(outcome.state == COMPLETED for outcome in outcomes)
    assert all(task["executions"] == 1 for task in stranger.tasks.values())


def test_our_synchronous_client_polls_there(stranger: peers.Coordinator, start_worker: StartWorker):
    """The same from a caller without an event loop."""
    start_worker("ours", "--executor", "thread")
    with Client(stranger.address) as client:
        assert client.submit("13").result(timeout=60).result == "13 is prime"


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has begun to write to a stream is not told how the peer ended it, as gRPC does it on a busy machine."""
    begun: list[Any] = []
    stream = importlib.import_module("grpc.aio._call").StreamStreamCall
    write = stream._write

    async def noting(call: Any, request: Any) -> None:
        begun.append(call)
        await write(call, request)

    def hiding(read: Any) -> Any:
        async def reading(self: Any, call: Any) -> Any:
            try:
                return await read(self, call)
            except grpc.aio.AioRpcError as error:
                if call not in begun:
                    raise
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, "forgotten", "") from error

        return reading

    monkeypatch.setattr(stream, "_write", noting)
    monkeypatch.setattr(Streaming, "_read", hiding(Streaming._read))
    monkeypatch.setattr(StreamingWorker, "_read", hiding(StreamingWorker._read))


@pytest.mark.usefixtures("forgetful")
def test_our_client_hears_that_there_are_no_streams(stranger: peers.Coordinator, start_worker: StartWorker):
    """Before it writes to the next one."""
    start_worker("ours", "--executor", "thread")

    async def talk() -> Outcome:
        async with AsyncClient(stranger.address) as client:
            return await client.submit("13")

    assert asyncio.run(asyncio.wait_for(talk(), 60)).result == "13 is prime"


@pytest.mark.usefixtures("forgetful")
def test_our_worker_hears_that_there_are_no_streams(stranger: peers.Coordinator):
    """The same of a worker, here one in this process."""

    async def dial() -> None:
        async with Connection(stranger.address) as connection:
            worker = StreamingWorker("ours", Settings(stranger.address, executor="inline"), lambda: None, connection)
            with pytest.raises(ContractOnly):
                await worker.run()
            worker.close()

    asyncio.run(asyncio.wait_for(dial(), 60))


def test_our_command_line_works_there(stranger: peers.Coordinator, start_worker: StartWorker):
    """`submit --batch` waits for all, and prints the totals."""
    start_worker("ours", "--executor", "thread")
    command = [sys.executable, "-m", "orchestrator.cli.cluster", "submit", "-c", stranger.address, "--batch", "20"]
    done = subprocess.run(
        [*command, "--payload", "97", "--random-priority"], capture_output=True, text=True, check=True
    )
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert (lines["submitted"], lines["completed"], lines["failed"]) == ("20", "20", "0")
    assert {"total time", "latency"} <= set(lines)
