"""A cluster that is seen and steered from the command line: what is printed, for people and for programs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from typer.testing import CliRunner

from orchestrator.cli.cluster import app
from orchestrator.cluster.client import AsyncClient, Client, Undrained
from orchestrator.core.model import TaskState, WorkerState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.contract import peers
from tests.cluster.test_client_commands import HANG, submitted
from tests.cluster.test_commands import facts

GPU = HANG._replace(requires="gpu=a100")
NERVOUS = ("detection.timeout_s=1.5", "detection.suspect_after=0.5", "execution_timeout_s=null")


def command(*words: str) -> Any:
    """In this process, which is sooner; so are those of the others."""
    return CliRunner().invoke(app, list(words))


def at(cluster: LocalCluster, *words: str) -> Any:
    return command(*words, "--coordinator", cluster.address)


def told(cluster: LocalCluster, *words: str) -> Any:
    done = at(cluster, *words, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    return json.loads(done.stdout)


def rows(text: str) -> dict[str, list[str]]:
    """The words of each line, by the first one."""
    return {words[0]: words[1:] for line in text.splitlines() if (words := line.split())}


def test_workers_tasks_and_the_queue_are_shown(make_cluster: MakeCluster):
    """One that runs, one that waits for room, one that nobody can take; in tables, and the same as JSON."""
    cluster = make_cluster(1, capacity=1)
    running, waiting, gpu = submitted(cluster, HANG, HANG._replace(priority=3), GPU)
    (worker,) = told(cluster, "workers")["workers"]
    assert (worker["name"], worker["state"], worker["running"], worker["capacity"]) == ("w1", "alive", 1, 1)
    assert worker["heard_s"] >= 0
    assert worker["suspicion"] < 1
    assert rows(at(cluster, "workers").stdout)["w1"][:4] == ["alive", "1", "of", "1"]

    tasks = told(cluster, "tasks")
    assert {task["id"]: task["state"] for task in tasks["tasks"]} == {
        running: "RUNNING",
        waiting: "PENDING",
        gpu: "PENDING",
    }
    only = told(cluster, "tasks", "--state", "running")["tasks"]
    assert [(task["id"], task["worker"], task["attempts"]) for task in only] == [(running, "w1", 1)]
    some = told(cluster, "tasks", "--state", "pending", "--limit", "1")
    assert (len(some["tasks"]), some["total"]) == (1, 2)
    table = at(cluster, "tasks").stdout
    assert rows(table)[running][:3] == ["sleep", "normal", "RUNNING"]
    assert rows(table)[waiting][:3] == ["sleep", "urgent", "PENDING"]
    assert "no worker here has gpu=a100" in table
    assert at(cluster, "tasks", "--state", "pending", "--limit", "1").stdout.startswith("1 of 2 tasks\n")
    assert at(cluster, "tasks", "--state", "failed").stdout == "no task is failed\n"

    queue = told(cluster, "queue")
    assert [(each["priority"], each["tasks"]) for each in queue["classes"]] == [("urgent", 1), ("normal", 1)]
    assert [(each["requires"], each["reason"]) for each in queue["lanes"]] == [
        ("gpu=a100", "no worker here has gpu=a100")
    ]
    shown = at(cluster, "queue").stdout
    assert shown.startswith("2 tasks at the coordinator; 0 held by workers")
    assert "sleep on gpu=a100" in shown


def test_the_status_of_a_task_says_where_it_is(make_cluster: MakeCluster):
    """Its worker, since when; why it waits; the attempts that came to nothing; and who settled it."""
    cluster = make_cluster(1, capacity=1)
    running, waiting = submitted(cluster, HANG, HANG)
    shown = facts(at(cluster, "status", running).stdout)
    assert shown["state"] == "RUNNING"
    assert shown["attempt 1"].startswith("running on w1, for ")
    asked = told(cluster, "status", running)
    assert (asked["state"], asked["worker"], asked["held"][0]["state"]) == ("RUNNING", "w1", "running")
    assert facts(at(cluster, "status", "--id", waiting).stdout)["waits for"] == "the worker to have room"
    assert told(cluster, "status", waiting)["waits_for"] == "the worker to have room"

    cluster.worker("w1").signal(signal.SIGKILL)
    cluster.worker("w1").wait(10)
    cluster.start_worker("w1").ready(cluster.coordinator)
    again = facts(at(cluster, "status", running).stdout)
    assert again["attempt 1"].startswith("worker died on w1, ")
    assert again["attempts"] == "2"
    at(cluster, "cancel", running)
    assert told(cluster, "status", running)["failures"][0]["outcome"] == "WORKER_DIED"
    both = at(cluster, "status", running, "--id", running)
    assert (both.exit_code, both.stderr) == (2, "TASK and --id are both given\n")
    assert at(cluster, "status").stderr == "TASK is missing\n"


def test_a_worker_that_drains_finishes_and_leaves(make_cluster: MakeCluster):
    """It is waited for; what it held and had not begun goes on elsewhere, and its process ends in order."""
    cluster = make_cluster(1, capacity=1, prefetch=5)
    with Client(cluster.address) as client:
        first = client.submit(HANG.payload, kind="sleep")
        while not client.tasks(TaskState.RUNNING):
            pass
        held = client.submit("0", kind="sleep")
        while not client.workers()[0].waiting:
            pass
        draining = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.cluster", "drain", "w1", "--coordinator", cluster.address],
            stdout=subprocess.PIPE,
            text=True,
        )
        while not client.workers()[0].draining:
            pass
        again = at(cluster, "drain", "w1")
        assert (again.exit_code, again.stderr) == (1, "worker w1 drains already\n")
        assert rows(at(cluster, "workers").stdout)["w1"][-1] == "drains"
        assert told(cluster, "queue")["lanes"][0]["reason"] == "the worker that can take it gets nothing new at present"
        assert draining.poll() is None
        first.cancel()
        stdout, _ = draining.communicate(timeout=30)
        assert (draining.returncode, stdout) == (0, "worker w1 has left\n")
        assert cluster.worker("w1").wait(10) == 0
        cluster.start_worker("w2").ready(cluster.coordinator)
        assert held.result(30).worker_id == "w2"
        assert [worker.name for worker in client.workers()] == ["w2"]
        with pytest.raises(Undrained, match="worker w1 has left already"):
            client.drain("w1")


def test_one_worker_of_a_process_may_drain(make_cluster: MakeCluster):
    """The others of its process stay; the last one that leaves ends it."""
    cluster = make_cluster(2, workers_per_process=2)
    process = cluster.worker("w1")
    assert told(cluster, "drain", "w1") == {"worker": "w1", "left": True}
    assert [worker["name"] for worker in told(cluster, "workers")["workers"]] == ["w2"]
    assert process.status is None
    assert told(cluster, "drain", "w2", "--no-wait") == {"worker": "w2", "left": False}
    assert process.wait(10) == 0


def test_a_drain_goes_on_over_a_new_coordinator(make_cluster: MakeCluster, tmp_path: Path):
    """Who waits for it dials again; the worker finishes what it has begun."""
    cluster = make_cluster(1, capacity=1, policies=(*PATIENT, "--data", str(tmp_path / "state")))

    async def run() -> None:
        async with AsyncClient(cluster.address) as client:
            (submission,) = client.submit_batch([HANG])
            task_id = await submission.id
            while not await client.tasks(TaskState.RUNNING):
                await asyncio.sleep(0.01)
            draining = asyncio.create_task(client.drain("w1"))
            while not (await client.workers())[0].draining:
                await asyncio.sleep(0.01)
            cluster.coordinator.kill()
            await asyncio.to_thread(cluster.start_coordinator)
            while not draining.done():
                with contextlib.suppress(grpc.aio.AioRpcError):
                    worker = await client.worker("w1")
                    if worker is not None and worker.draining:
                        await client.cancel(task_id)
                await asyncio.sleep(0.01)
            await draining
            assert (await client.worker("w1")).state is WorkerState.LEFT  # type: ignore[union-attr]

    asyncio.run(asyncio.wait_for(run(), 60))
    assert cluster.worker("w1").wait(10) == 0


def test_mistakes_are_one_sentence_each(
    make_cluster: MakeCluster, make_worker: Callable[..., peers.Worker], stranger: peers.Coordinator
):
    """A worker that is unknown, or that can't be told; numbers that make no sense; a coordinator without answers."""
    cluster = make_cluster(0)

    def complaint(*words: str) -> tuple[int, str]:
        done = at(cluster, *words)
        assert done.stdout == ""
        return done.exit_code, done.stderr

    assert complaint("drain", "w9") == (1, "no worker w9, none is here\n")
    make_worker(cluster, "old").start()
    assert complaint("drain", "w9") == (1, "no worker w9, only old\n")
    assert complaint("drain", "old") == (
        1,
        "worker old speaks the unary contract, by which it can't be told: end its process instead\n",
    )
    assert complaint("drain", "x" * 201)[0] == 2
    assert complaint("tasks", "--limit", "0") == (2, "--limit 0: 1 to 1,000 tasks are shown\n")
    assert complaint("top", "--interval", "0")[0] == complaint("top", "--count", "0")[0] == 2
    who = "an older coordinator, one of the unary contract, or another server"
    nothing = f"what answers there does not know that question: it is {who}\n"
    for words in (["workers"], ["tasks"], ["queue"], ["drain", "w1"], ["top", "--json"]):
        done = command(*words, "--coordinator", stranger.address)
        assert (done.exit_code, done.stdout, done.stderr) == (1, "", nothing)
    nobody = command("top", "--json", "--coordinator", "127.0.0.1:1")
    assert nobody.exit_code == 1
    assert nobody.stderr.startswith("no coordinator at 127.0.0.1:1: ")


class Top:
    """`orchestrator top --json` of a cluster, line by line."""

    def __init__(self, cluster: LocalCluster) -> None:
        words = ["top", "--json", "--interval", "0.1", "--coordinator", cluster.address]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.cluster", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self._lines = iter(self.process.stdout.readline, "")

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first snapshot of which that holds."""
        return next(snapshot for snapshot in map(json.loads, self._lines) if holds(snapshot))

    def until_worker(self, name: str, *states: str) -> dict[str, Any]:
        return self.until(
            lambda snapshot: (
                [each["state"] for each in snapshot["workers"] if each["name"] == name][-1:]
                in [[state] for state in states]
            )
        )


@pytest.fixture
def watched(make_cluster: MakeCluster) -> Iterator[tuple[LocalCluster, Top]]:
    cluster = make_cluster(2, policies=NERVOUS)
    top = Top(cluster)
    yield cluster, top
    top.process.kill()
    top.process.communicate()


def test_a_death_and_a_return_are_seen_in_the_stream(watched: tuple[LocalCluster, Top]):
    """A worker that is killed becomes suspect, then dead, and alive again when it is back; it is told lately. And so is
    a coordinator that is another one: the stream goes on, and says so."""
    cluster, top = watched
    assert top.until_worker("w1", "alive")["alive"] >= 1
    cluster.worker("w1").signal(signal.SIGKILL)
    top.until_worker("w1", "suspect", "dead")
    dead = top.until_worker("w1", "dead")
    assert dead["deaths"] >= 1
    assert "dead" in [event["event"] for event in dead["events"] if event["worker"] == "w1"]
    cluster.start_worker("w1").ready(cluster.coordinator)
    back = top.until_worker("w1", "alive")
    assert ("up", "reregistered") in [(each["event"], each["detail"]) for each in back["events"]]
    cluster.coordinator.kill()
    cluster.start_coordinator()
    assert top.until(lambda snapshot: snapshot["term"] > back["term"])["deaths"] == 0
    top.until_worker("w2", "alive")
    top.process.send_signal(signal.SIGINT)
    _, complaints = top.process.communicate(timeout=30)
    lost, again, *interrupted = complaints.splitlines()
    assert lost.startswith(f"lost the coordinator at {cluster.address}, and dial on: ")
    assert again == f"reached the coordinator at {cluster.address} again: another process, which counts anew"
    assert (interrupted, top.process.returncode) == (["interrupted"], 130)


def test_without_a_terminal_snapshots_are_printed(make_cluster: MakeCluster):
    """So many as are wanted, each with all that a screen would have."""
    cluster = make_cluster(1, capacity=1)
    submitted(cluster, HANG, GPU)
    done = at(cluster, "top", "--count", "2", "--interval", "0.1")
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = apart(done.stdout)
    for shown in (first, second):
        assert "1 of 1 busy   load 100%" in shown
        assert rows(shown)["w1"][:4] == ["alive", "1", "of", "1"]
        assert "no worker here has gpu=a100" in shown


def apart(text: str) -> list[str]:
    """The snapshots, each of which begins with the time and the address."""
    lines = text.splitlines()
    begins = [number for number, line in enumerate(lines) if ", up " in line]
    return ["\n".join(lines[begin:end]) for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True)]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_on_a_terminal_it_is_a_screen(make_cluster: MakeCluster, columns: int):
    """Drawn again and again, in lines that fit; q quits, and so does an interrupt. The terminal is as it was."""
    cluster = make_cluster(1, capacity=1)
    submitted(cluster, GPU)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, columns))
    before = termios.tcgetattr(theirs)
    for end in (lambda _: os.write(ours, b"q"), lambda process: process.send_signal(signal.SIGINT)):
        words = ["top", "--interval", "0.1", "--coordinator", cluster.address]
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.cluster", *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "LINES": ""},
        )
        seen = b""
        while seen.count(b"NOBODY TAKES") < 3:
            seen += os.read(ours, 65536)
        end(process)
        while process.poll() is None:
            if select.select([ours], [], [], 0.05)[0]:
                seen += os.read(ours, 65536)
        text = seen.decode(errors="ignore")
        assert "Traceback" not in text
        assert "1 alive" in text
        lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]+|\x1b\[H", text)]
        assert max(map(len, lines)) <= columns
        assert termios.tcgetattr(theirs) == before
    assert process.returncode == 130
    os.close(ours)
    os.close(theirs)


def test_a_client_without_an_event_loop_asks_the_same(make_cluster: MakeCluster):
    """Workers, tasks by state, one task, the queue; KeyError for a task that is unknown."""
    cluster = make_cluster(1, capacity=1)
    with Client(cluster.address) as client:
        client.submit_batch([HANG, HANG])
        while len(tasks := client.tasks()) < 2:
            pass
        assert client.workers().total == 1
        assert tasks.total == 2
        (pending,) = client.tasks(state="pending")
        with pytest.raises(ValueError, match="no task is 'waiting', expected one of pending, assigned, running"):
            client.tasks(state="waiting")
        assert client.task(pending.id).task.waits_for == "the worker to have room"
        assert client.queue().tasks == 1
        with pytest.raises(KeyError):
            client.task("nobody")
