"""Every process ends when it is told to, whatever state it is in."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster import draining
from orchestrator.cluster.client import AsyncClient
from orchestrator.cluster.decision_record import NAME
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster, Process
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract import peers
from tests.cluster.contract.peers import wait_until

Start = Callable[..., tuple[Process, Callable[[], str]]]
HANG = ("100000", 1, "sleep")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A process of a command, and what it has logged so far."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str) -> tuple[Process, Callable[[], str]]:
            path = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
            process = Process(arguments, stack.enter_context(path.open("wb", buffering=0)))
            stack.callback(process.close)
            return process, path.read_text

        yield begin


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def says_that_it_runs_a_task(folder: Path, worker: str) -> bool:
    """In a heartbeat: a task that is assigned may still be on its way. The record is flushed every second."""
    return f'"heartbeat",["{worker}",1,' in (folder / f"0-{NAME}").read_text()


@pytest.mark.parametrize("options", [[], ["--contract"]], ids=["streams", "contract"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_never_reached_its_coordinator(start: Start, options: list[str], number: signal.Signals):
    """Nobody is there: status 0."""
    worker, log = start("worker", "-c", "127.0.0.1:1", "--port", "0", *options)
    wait_until(lambda: "never reached" in log())
    worker.signal(number)
    assert worker.wait(20) == 0


@pytest.mark.parametrize("options", [[], ["--contract"]], ids=["streams", "contract"])
def test_a_worker_whose_coordinator_says_nothing(start: Start, black_hole: str, options: list[str]):
    """The connection stands, and that is all: status 0."""
    worker, log = start("worker", "-c", black_hole, "--port", "0", *options)
    wait_until(lambda: "never reached" in log())
    worker.terminate()
    assert worker.wait(20) == 0


@pytest.mark.parametrize("executor", ["process", "thread", "inline"])
@pytest.mark.parametrize("options", [[], ["--contract"]], ids=["streams", "contract"])
def test_a_drain_lasts_no_longer_than_it_may(make_cluster: MakeCluster, executor: str, options: list[str]):
    """What hangs is stopped, the worker leaves with status 0, and the task goes to the next one."""
    fast = ("policies.detection.timeout_s=1.5",)  # of the contract, which has no word for a leave
    cluster = make_cluster(1, executor=executor, options=("--drain-timeout", "0.3", *options), policies=fast)
    worker = cluster.worker("w1")

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            submission = client.submit(*HANG)
            task_id = await submission.id
            while (await client.status(task_id)).state is TaskState.PENDING:
                await asyncio.sleep(0.01)
            family = psutil.Process(worker.pid).children()
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, 20) == 0
            assert not [child for child in family if child.is_running() and child.status() != "zombie"]
            while (await client.status(task_id)).state is not TaskState.PENDING:
                await asyncio.sleep(0.01)
            submission.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_drain_without_a_limit_waits_for_what_runs(make_cluster: MakeCluster, tmp_path: Path):
    """Although the coordinator is lost: it may come back. With it the worker reports, and leaves."""
    cluster = make_cluster(1)
    worker = cluster.worker("w1")

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            await client.submit("3", kind="sleep").id
            await asyncio.to_thread(wait_until, lambda: says_that_it_runs_a_task(tmp_path, "w1"))
            cluster.coordinator.kill()
            worker.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(worker.wait, 1)
            cluster.start_coordinator()
            assert await asyncio.to_thread(worker.wait, 20) == 0

    asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize(("executor", "options"), [("process", []), ("thread", ["--contract"])])
def test_a_second_signal_ends_a_drain(make_cluster: MakeCluster, executor: str, options: list[str], tmp_path: Path):
    """What hangs in a thread, or in a child that stands still itself, and a coordinator that stands still: status 1."""
    cluster = make_cluster(1, executor=executor, options=tuple(options), heartbeat_s=0.1)
    worker = cluster.worker("w1")

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            await client.submit(*HANG).id
            await asyncio.to_thread(wait_until, lambda: says_that_it_runs_a_task(tmp_path, "w1"))
            for child in psutil.Process(worker.pid).children():
                child.send_signal(signal.SIGSTOP)
            cluster.coordinator.signal(signal.SIGSTOP)
            worker.terminate()
            with pytest.raises(subprocess.TimeoutExpired):
                await asyncio.to_thread(worker.wait, 0.3)
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, 20) == 1
            cluster.coordinator.signal(signal.SIGCONT)

    asyncio.run(asyncio.wait_for(run(), 60))


def test_results_that_nobody_takes_do_not_hold_a_worker_for_ever(make_cluster: MakeCluster, tmp_path: Path):
    """It drains, its coordinator is gone for good, and nothing runs any more: after a while it leaves all the same."""
    cluster = make_cluster(1)
    worker = cluster.worker("w1")

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            submission = client.submit("0.5", kind="sleep")
            while (await client.status(await submission.id)).state is TaskState.PENDING:
                await asyncio.sleep(0.01)
            cluster.coordinator.kill()
            worker.terminate()
            assert await asyncio.to_thread(worker.wait, draining.UNREACHABLE_S + 20) == 0

    asyncio.run(asyncio.wait_for(run(), 60))
    assert "can't be reached for 10 s: it leaves with 1 attempts in hand" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("options", [[], ["--contract"]], ids=["streams", "contract"])
def test_a_submit_that_waits(make_cluster: MakeCluster, black_hole: str, number: signal.Signals, options: list[str]):
    """For a worker, for nobody at all, or for one that says nothing: a signal ends it."""
    cluster = make_cluster(0)
    for address in (cluster.address, "127.0.0.1:1", black_hole):
        command = [
            sys.executable,
            "-m",
            "orchestrator.cli.cluster",
            "submit",
            "-c",
            address,
            "--payload",
            "7",
            *options,
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline().startswith(("waiting for a worker", "never reached"))
            process.send_signal(number)
            assert process.wait(20) in (-signal.SIGTERM, 130)
            assert "Traceback" not in process.stderr.read()


def test_a_coordinator_whose_peers_are_stuck(make_cluster: MakeCluster, make_worker, start: Start):
    """A worker that stands still, one of the contract that reports nothing, a client that waits: status 0."""
    cluster: LocalCluster = make_cluster(1, capacity=1)
    stranger: peers.Worker = make_worker(cluster, "stranger", capacity=1).start()
    stranger.reports = False

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            for _ in range(5):
                await client.submit(*HANG).id
            while (await client.metrics()).queue_depth > 3:
                await asyncio.sleep(0.01)
            cluster.worker("w1").signal(signal.SIGSTOP)
            cluster.coordinator.terminate()
            assert await asyncio.to_thread(cluster.coordinator.wait, 10) == 0

    asyncio.run(asyncio.wait_for(run(), 60))
