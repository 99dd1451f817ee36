"""A store in a process of its own: what its coordinator is told, and what becomes of one when the other ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.cluster.store import DATABASE, Kept, MemoryStore, SqliteStore, Unusable
from orchestrator.cluster.store_process import Outdated, StoreProcess
from tests.cluster.stored_tasks import settled, task
from tests.planted import ROOT


def writer_of(store: StoreProcess) -> int:
    return store._process.pid


class Writing:
    """To a store, and what is told of it: nothing for a group that is stored, a sentence when no other is."""

    def __init__(self, store: StoreProcess, term: int) -> None:
        self._store = store
        self._term = term
        self._told: asyncio.Queue[str] = asyncio.Queue()
        store.listen(lambda: self._told.put_nowait(""), self._told.put_nowait)

    def write(self, tasks: Sequence[Kept], outdated: Outdated | None = None) -> None:
        self._store.write(self._term, tasks, outdated)

    async def told(self) -> str:
        return await asyncio.wait_for(self._told.get(), 20)


def test_what_is_written_is_there_for_the_next_one(tmp_path: Path):
    """As in memory: changes, what is forgotten, and a group that is larger than what a socket takes at once."""
    memory = MemoryStore()
    groups = [
        ([task(f"t{number}") for number in range(3)], None),
        ([settled("t1", 5.0), task("large", payload="x" * 3_000_000)], None),
        ([settled("t2", 7.0)], (6.0, 6.0)),
        ([task(f"many{number}") for number in range(2000)], None),
    ]

    async def story() -> None:
        store = StoreProcess(tmp_path)
        term = store.begin_term(41)
        memory.begin_term(41)
        assert (term, list(store.tasks())) == (41, [])
        writing = Writing(store, term)
        for tasks, outdated in groups:
            writing.write(tasks, outdated)
            assert not await writing.told()
            memory.append(term, tasks)
            if outdated:
                memory.forget(term, *outdated)
        store.close()

    asyncio.run(story())
    store = StoreProcess(tmp_path)
    assert store.begin_term(0) == 42
    assert list(store.tasks()) == list(memory.tasks())
    store.close()


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path):
    """With the id of the coordinator, not of the process that writes for it."""
    first = StoreProcess(tmp_path)
    first.begin_term(1)
    second = StoreProcess(tmp_path)
    with pytest.raises(Unusable, match=f"another process uses the store {tmp_path}: its id is {os.getpid()}$"):
        second.begin_term(1)
    second.close()
    first.close()


def test_whoever_has_an_older_term_is_told(tmp_path: Path):
    """By a sentence, and nothing of the group is kept."""

    async def story() -> None:
        store = StoreProcess(tmp_path)
        term = store.begin_term(5)
        writing = Writing(store, term - 1)
        writing.write([task("t")])
        assert "its term is 5, and this coordinator's is 4" in await writing.told()
        store.close()

    asyncio.run(story())
    kept = SqliteStore(tmp_path)
    assert not list(kept.tasks())
    kept.close()


def test_a_fault_of_the_writer_is_told(tmp_path: Path):
    """As what it was; nothing else is stored."""

    async def story() -> None:
        store = StoreProcess(tmp_path)
        writing = Writing(store, store.begin_term(1))
        writing.write([settled("t", 1.0)], ("no", "times"))  # type: ignore[arg-type]
        assert (await writing.told()).startswith("the store raised TypeError(")
        store.close()

    asyncio.run(story())


def test_a_writer_that_is_killed_is_told_once(tmp_path: Path):
    """While groups are being written, and while none is; what is written later is lost without a word."""

    async def story() -> None:
        for groups in (0, 3):
            store = StoreProcess(tmp_path)
            writing = Writing(store, store.begin_term(1))
            os.kill(writer_of(store), signal.SIGSTOP)
            for number in range(groups):
                writing.write([task(f"t{number}")])
            os.kill(writer_of(store), signal.SIGKILL)
            said = await writing.told()
            assert said.startswith(f"cannot write the store {tmp_path / DATABASE}: ")
            assert said.endswith("was killed by SIGKILL")
            writing.write([task("later")])
            store._process.wait()
            store.close()
            assert writing._told.empty()

    asyncio.run(story())


def test_nothing_is_stored_behind_a_group_that_was_not(tmp_path: Path):
    """Although it was handed over before that was known."""

    async def story() -> None:
        store = StoreProcess(tmp_path)
        term = store.begin_term(5)
        writing = Writing(store, term)
        os.kill(writer_of(store), signal.SIGSTOP)
        store.write(term, [task("before")], None)
        store.write(term - 1, [task("refused")], None)
        store.write(term, [task("behind it")], None)
        os.kill(writer_of(store), signal.SIGCONT)
        assert not await writing.told()
        assert "its term is 5, and this coordinator's is 4" in await writing.told()
        store.close()

    asyncio.run(story())
    store = SqliteStore(tmp_path)
    assert list(store.tasks()) == [task("before")]
    store.close()


def test_a_writer_that_is_killed_before_the_tasks_are_read_is_told(tmp_path: Path):
    """As while a group is written."""
    store = StoreProcess(tmp_path)
    store.begin_term(1)
    os.kill(writer_of(store), signal.SIGKILL)
    store._process.wait()
    with pytest.raises(Unusable, match="was killed by SIGKILL"):
        list(store.tasks())
    store.close()


def test_the_writer_ends_with_its_coordinator(tmp_path: Path):
    """Which gets SIGKILL: the folder is free a moment later, and has what was written."""
    script = """if True:
        import asyncio, os, signal, sys
        from pathlib import Path
        from orchestrator.cluster.store_process import StoreProcess
        from tests.cluster.stored_tasks import task
        from tests.cluster.test_store_process import Writing
        async def story():
            store = StoreProcess(Path(sys.argv[1]))
            writing = Writing(store, store.begin_term(7))
            writing.write([task("kept", place=1 << 30)])
            await writing.told()
            print(store._process.pid, flush=True)
            writing.write([task(f"t{number}") for number in range(20_000)])
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(story())"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = StoreProcess(tmp_path)
    assert store.begin_term(0) == 8
    assert task("kept", place=1 << 30) in list(store.tasks())
    store.close()
    writer, deadline = int(done.stdout), time.monotonic() + 20
    while Path(f"/proc/{writer}/cmdline").exists() and Path(f"/proc/{writer}/cmdline").read_bytes():
        assert time.monotonic() < deadline


def test_what_the_store_has_to_say_is_logged_here(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """That a torn end was cut off."""
    store = SqliteStore(tmp_path)
    store.append(store.begin_term(1), [task("t")])
    torn = tmp_path / "torn"
    torn.mkdir()
    for file in (tmp_path / DATABASE, tmp_path / f"{DATABASE}-wal"):
        data = file.read_bytes()
        (torn / file.name).write_bytes(data[:-100] if file.name.endswith("wal") else data)
    store.close()
    caplog.set_level(logging.WARNING)
    other = StoreProcess(torn)
    other.begin_term(1)
    other.close()
    assert any("was left in the middle of a group" in line for line in caplog.messages)


def test_a_damaged_task_is_told_as_by_the_store_itself(tmp_path: Path):
    """By its number, which is its place."""
    store = SqliteStore(tmp_path)
    store.append(store.begin_term(1), [task("t")])
    assert list(store.tasks())  # it moves on
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("UPDATE tasks SET task = 'no task'")
    database.close()
    other = StoreProcess(tmp_path)
    other.begin_term(1)
    with pytest.raises(Unusable, match=f"what is stored as number {task('t').place} is no task"):
        list(other.tasks())
    other.close()
