"""Executors whose subprocesses and threads can't be started, die, or can't be stopped."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.cluster import child
from orchestrator.cluster import subprocesses as module
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.executor import Executor
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.placing import Kind, make_executor
from orchestrator.core.model import AttemptKey as Key
from orchestrator.core.model import TaskState
from tests.cluster.conftest import MakeCluster
from tests.cluster.streams import play

A, B, C = ("a", 1), ("b", 1), ("c", 1)
TOO_MANY = OSError(errno.EMFILE, "Too many open files")


class Bench:
    """An executor, and what it tells."""

    def __init__(self, kind: Kind, slots: int) -> None:
        self.ends: asyncio.Queue[tuple[Key, Ended]] = asyncio.Queue()
        self.slots: asyncio.Queue[int] = asyncio.Queue()
        self.executor: Executor = make_executor(
            kind, slots, lambda key, ended: self.ends.put_nowait((key, ended)), self.slots.put_nowait
        )


class Spawning:
    """In place of `subprocesses._spawn`: the next `failures` subprocesses can't be started."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.failures = 0
        self._spawn = module._spawn
        patch.setattr(module, "_spawn", self)
        patch.setattr(module, "SPAWN_PAUSES_S", (0.01, 0.02))

    def __call__(self, *how: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise TOO_MANY
        return self._spawn(*how)


@pytest.fixture
def spawning(monkeypatch: pytest.MonkeyPatch) -> Spawning:
    return Spawning(monkeypatch)


def test_a_subprocess_that_cannot_be_started_at_first_is_started_later(spawning: Spawning):
    """The executor begins with the slots that it has, and says when there are more."""
    spawning.failures = 3

    async def story() -> None:
        bench = Bench("process", 2)
        assert await bench.slots.get() == 0
        assert await bench.slots.get() == 2
        bench.executor.start(A, "sleep", "0")
        bench.executor.start(B, "sleep", "0")
        assert {(await bench.ends.get())[0], (await bench.ends.get())[0]} == {A, B}
        bench.executor.close()

    play(story)


def test_a_stopped_subprocess_that_cannot_be_replaced_costs_its_slot_for_a_while(
    spawning: Spawning, caplog: pytest.LogCaptureFixture
):
    """What is started there at this moment fails, retryably; the slot comes back; two lines tell of it."""
    caplog.set_level(logging.WARNING)

    async def story() -> None:
        bench = Bench("process", 1)
        bench.executor.start(A, "sleep", "60")
        spawning.failures = 5
        bench.executor.stop(A)
        bench.executor.start(B, "sleep", "0")
        key, ended = await bench.ends.get()
        assert (key, ended.succeeded, ended.retryable) == (B, False, True)
        assert [await bench.slots.get(), await bench.slots.get()] == [0, 1]
        bench.executor.start(C, "sleep", "0")
        assert (await bench.ends.get())[1].succeeded
        bench.executor.close()

    play(story)
    begin, end = [record.getMessage() for record in caplog.records]
    assert begin.startswith("cannot start a subprocess (OSError: [Errno 24] Too many open files)")
    assert end == "subprocesses start again: all 1 slots are usable"


def test_what_was_not_started_can_be_stopped(spawning: Spawning):
    """Its failure is not told."""

    async def story() -> None:
        spawning.failures = 1
        bench = Bench("process", 1)
        bench.executor.start(A, "sleep", "0")
        bench.executor.stop(A)
        assert [await bench.slots.get(), await bench.slots.get()] == [0, 1]
        bench.executor.start(B, "sleep", "0")
        assert (await bench.ends.get())[0] == B
        bench.executor.close()

    play(story)


def test_subprocesses_that_die_at_once_are_started_ever_more_rarely(monkeypatch: pytest.MonkeyPatch):
    """A broken installation keeps no processor busy: of pauses of 50 ms and more, a second has room for a few."""
    monkeypatch.setattr(module, "SPAWN_PAUSES_S", (0.05, 60.0))
    monkeypatch.setattr(child, "__file__", "/nonexistent.py")
    spawned = 0
    spawn = module._spawn

    def counting(*how: Any) -> Any:
        nonlocal spawned
        spawned += 1
        return spawn(*how)

    monkeypatch.setattr(module, "_spawn", counting)

    async def story() -> None:
        bench = Bench("process", 1)
        changes = [await bench.slots.get() for _ in range(5)]
        assert changes == [0, 1, 0, 1, 0]
        bench.executor.close()
        assert spawned == 3

    play(story)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGRTMIN + 6])
def test_a_subprocess_that_dies_by_any_signal_is_replaced(number: int):
    """Its attempt fails, retryably, and the slot works on."""

    async def story() -> None:
        others = set(psutil.Process().children())  # such as multiprocessing's own helper
        bench = Bench("process", 1)
        bench.executor.start(A, "sleep", "0")
        await bench.ends.get()
        bench.executor.start(A, "sleep", "60")
        (child,) = set(psutil.Process().children()) - others
        os.kill(child.pid, number)
        _, ended = await bench.ends.get()
        assert ended.retryable
        assert "killed by" in ended.error
        bench.executor.start(B, "sleep", "0")
        assert (await bench.ends.get())[1].succeeded
        bench.executor.close()

    play(story)


def test_a_thread_that_cannot_be_started_fails_its_attempt(monkeypatch: pytest.MonkeyPatch):
    """Retryably, and the next one is tried again."""

    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def story() -> None:
        bench = Bench("thread", 1)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            bench.executor.start(A, "sleep", "0")
        key, ended = await bench.ends.get()
        assert (key, ended.succeeded, ended.retryable) == (A, False, True)
        bench.executor.start(B, "sleep", "0")
        assert (await bench.ends.get())[1].succeeded

    play(story)


def test_a_worker_without_descriptors_works_on_with_what_it_has(make_cluster: MakeCluster, tmp_path: Path):
    """One of two subprocesses is killed and can't be replaced, then the other one too: nothing fails, and when there
    are descriptors again both slots work."""
    cluster = make_cluster(1, capacity=2, executor="process")
    pid = cluster.worker("w1").pid
    worker = psutil.Process(pid)
    _, most = before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    last = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:

            async def work(count: int) -> None:
                submissions = client.submit_batch([NewTask("0", kind="sleep")] * count)
                assert all([(await submission).state is TaskState.COMPLETED for submission in submissions])

            resource.prlimit(pid, resource.RLIMIT_NOFILE, (last + 1, most))
            one, other = worker.children()
            one.kill()
            await asyncio.to_thread(one.wait)
            await work(20)
            other.kill()
            await asyncio.to_thread(other.wait)
            waiting = asyncio.create_task(work(20))
            while (await client.metrics()).queue_depth == 0:
                await asyncio.sleep(0)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            await waiting
            while len(worker.children()) < 2:
                await work(1)

    asyncio.run(asyncio.wait_for(story(), 60))
    assert (tmp_path / "log").read_text().count("cannot start a subprocess") == 1
