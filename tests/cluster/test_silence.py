"""Who waits says for what: once, soon, and then rarely. Who has nothing to say keeps quiet."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from orchestrator.cluster import services, silence
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.services import log_metrics, start
from orchestrator.cluster.silence import Silence
from orchestrator.policies.settings import Policies, build_coordinator
from orchestrator.rehearsal.local_cluster import Process
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.lines import lines

NOBODY = "127.0.0.1:1"


def submit(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli.cluster", "submit", "--coordinator", address, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def nothing_served() -> Iterator[str]:
    """The address of a server that knows none of our services."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_silence_is_told_rarely(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The pauses grow, up to a limit; one that was reached before is lost; one that is over soon is not mentioned."""
    for name, value in (("FIRST_S", 0.01), ("NEXT_S", 0.02), ("MOST_S", 0.08)):
        monkeypatch.setattr(silence, name, value)
    caplog.set_level(logging.INFO)

    async def told(count: int) -> list[logging.LogRecord]:
        caplog.clear()
        while len(caplog.records) < count:
            await asyncio.sleep(0)
        return list(caplog.records)

    async def run() -> None:
        watch = Silence("here:1", logging.getLogger("orchestrator.test"))
        watch.begin()
        watch.failed("refused")
        lines = await told(5)
        assert all(re.fullmatch(r"never reached a coordinator at here:1 .*: refused", line.message) for line in lines)
        pauses = [after.created - before.created for before, after in itertools.pairwise(lines)]
        for pause_s, least_s in zip(pauses, (0.02, 0.04, 0.08, 0.08), strict=True):
            assert pause_s > 0.9 * least_s
        caplog.clear()
        watch.reached()
        assert [line.message for line in caplog.records] == ["reached the coordinator at here:1"]
        watch.failed("gone")
        watch.reached()
        watch.failed("gone again")
        (line,) = await told(1)
        assert re.fullmatch(r"lost the coordinator at here:1 .*: gone again", line.message)
        watch.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_it_is_told_within_two_seconds():
    """By then a coordinator that starts beside its workers has mostly come."""
    assert 0.5 <= silence.FIRST_S < 2


@pytest.mark.parametrize("options", [[], ["--contract"]], ids=["streams", "contract"])
def test_a_worker_says_that_it_reaches_nobody_and_later_that_it_has(make_cluster: MakeCluster, tmp_path: Path, options):
    """A coordinator that was never there, and one that is lost, are different sentences, and one each."""
    cluster = make_cluster(0)
    cluster.coordinator.kill()
    log = tmp_path / "worker"
    with log.open("wb", buffering=0) as file:
        worker = Process(["worker", "-c", cluster.address, "--port", "0", "--executor", "inline", *options], file)
        try:
            wait_until(lambda: "never reached a coordinator at" in log.read_text())
            cluster.start_coordinator()
            wait_until(lambda: "reached the coordinator at" in log.read_text())
            worker.ready()
            if not options:  # one that is called finds out by its heartbeats
                cluster.coordinator.kill()
                wait_until(lambda: f"lost the coordinator at {cluster.address}" in log.read_text())
                cluster.start_coordinator()
        finally:
            worker.close()
    assert log.read_text().count("never reached") == 1


def test_submit_says_that_it_reaches_nobody():
    """Once, although it dials a dozen times; and at its timeout that nobody has taken the task."""
    done = submit(NOBODY, "--payload", "7", "--timeout", "3")
    never, given_up = done.stderr.splitlines()
    assert never.startswith(f"never reached a coordinator at {NOBODY} in ")
    assert given_up == f"no coordinator at {NOBODY} has taken a task within 3 s"
    assert done.returncode == 1


def test_a_client_that_asks_for_nothing_says_nothing(monkeypatch, caplog: pytest.LogCaptureFixture):
    """By calls it dials only when it has something to submit; a coordinator that is busy has been reached."""
    monkeypatch.setattr(silence, "FIRST_S", 0.05)

    async def run() -> None:
        limits = Limits(unsettled=1)
        live = LiveCoordinator(lambda effects: build_coordinator(Policies(), effects), limits=limits)
        server, port = await start(live, "127.0.0.1", 0)
        try:
            async with AsyncClient(f"127.0.0.1:{port}", contract=True) as client:
                await asyncio.sleep(0.2)  # the silence itself
                monkeypatch.setattr(silence, "FIRST_S", 1.0)  # longer than it takes to connect on a busy machine
                ids = [submission.id for submission in client.submit_batch([NewTask("7")] * 2)]
                (taken,), (other,) = await asyncio.wait(ids, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(1.2)
                await client.cancel(await taken)
                await other
        finally:
            live.close()
            await server.stop(0)
        said = [line.getMessage() for line in caplog.records if line.name == "orchestrator.client"]
        assert all(" has no room for 1 tasks" in line for line in said), said

    asyncio.run(asyncio.wait_for(run(), 30))


def test_submit_says_that_it_waits_for_a_worker(make_cluster: MakeCluster):
    """And at its timeout how much is not settled; the task stays where it is."""
    cluster = make_cluster(0)
    done = submit(cluster.address, "--payload", "0", "--kind", "sleep", "--batch", "5", "--timeout", "4")
    assert done.stderr.splitlines() == [
        f"waiting for a worker: the coordinator at {cluster.address} has none",
        "not settled within 4 s: 5 of 5; what the coordinator has goes on",
    ]
    assert done.returncode == 1

    async def queued() -> int:
        async with AsyncClient(cluster.address) as client:
            return (await client.metrics()).queue_depth

    assert asyncio.run(queued()) == 5


def test_what_another_try_would_not_change_is_an_end(nothing_served: str, tmp_path: Path):
    """A server of other services: exit 1 with a sentence, of workers and of clients, with and without streams."""
    for options in ([], ["--contract"]):
        done = submit(nothing_served, "--payload", "7", *options)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("what answers there does not know that question: ")
        log = tmp_path / "log"
        with log.open("wb", buffering=0) as file:
            worker = Process(["worker", "-c", nothing_served, "--port", "0", "--id", "w", *options], file)
            try:
                assert worker.wait(30) == 1
            finally:
                worker.close()
        assert "worker w: UNIMPLEMENTED: " in log.read_text()


def test_a_coordinator_says_with_what_it_was_stopped(make_cluster: MakeCluster, tmp_path: Path):
    """Where that is nothing, it says nothing."""
    idle, busy = make_cluster(0), make_cluster(0)
    submit(busy.address, "--payload", "0", "--kind", "sleep", "--batch", "5", "--timeout", "1")
    for cluster in (idle, busy):
        cluster.coordinator.terminate()
        assert cluster.coordinator.wait(10) == 0
    told = [line["event"] for line in lines(tmp_path / "log")]
    (line,) = (event for event in told if "in hand" in event and "session" not in event)
    assert line == "stopped with 5 tasks in hand: they are lost, unless their clients submit them again"


def test_an_idle_coordinator_does_not_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """A line after something has happened to a task, and no more of them; a client's normal end is none."""
    window_s = 0.05
    monkeypatch.setattr(services, "WINDOW_S", window_s)
    caplog.set_level(logging.DEBUG, "orchestrator.coordinator")

    def said() -> list[str]:
        return [line.message for line in caplog.records if line.name == "orchestrator.coordinator"]

    async def run() -> None:
        live = LiveCoordinator(lambda effects: build_coordinator(Policies(), effects))
        server, port = await start(live, "127.0.0.1", 0)
        logging_metrics = asyncio.create_task(log_metrics(live))
        try:
            async with AsyncClient(f"127.0.0.1:{port}") as client:
                await client.cancel(await client.submit("7").id)
                while not said():
                    await asyncio.sleep(0.01)
            while live.clients:
                await asyncio.sleep(0.01)
            await asyncio.sleep(10 * window_s)  # long enough for ten more lines
            (line,) = said()
            assert "1 failed" in line
            async with AsyncClient(f"127.0.0.1:{port}") as client:
                await client.submit("7").id
            while live.clients:
                await asyncio.sleep(0.01)
            assert [line for line in said() if "with 1 tasks in hand" in line]
        finally:
            logging_metrics.cancel()
            live.close()
            await server.stop(0)

    asyncio.run(asyncio.wait_for(run(), 30))
