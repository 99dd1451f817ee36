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
from pathlib import Path

import pytest

from orchestrator.cluster.store import DATABASE, MemoryStore, SqliteStore, Unusable
from orchestrator.cluster.store_process import StoreProcess
from tests.cluster.test_store import settled, task
from tests.planted import ROOT


def writer_of(store: StoreProcess) -> int:
    return store._process.pid


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
        for tasks, outdated in groups:
            await asyncio.wait_for(asyncio.wrap_future(store.write(term, tasks, outdated)), 20)
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
        with pytest.raises(Unusable, match="its term is 5, and this coordinator's is 4"):
            await asyncio.wait_for(asyncio.wrap_future(store.write(term - 1, [task("t")], None)), 20)
        store.close()

    asyncio.run(story())
    kept = SqliteStore(tmp_path)
    assert not list(kept.tasks())
    kept.close()


def test_a_writer_that_is_killed_is_told_to_whoever_waits(tmp_path: Path):
    """While a group is being written, and before one is."""

    async def story() -> None:
        store = StoreProcess(tmp_path)
        term = store.begin_term(1)
        os.kill(writer_of(store), signal.SIGSTOP)
        writing = store.write(term, [task("t")], None)
        os.kill(writer_of(store), signal.SIGKILL)
        for waits in (writing, None):
            with pytest.raises(Unusable, match=rf"cannot write the store .*{DATABASE}: .* was killed by SIGKILL"):
                await asyncio.wait_for(asyncio.wrap_future(waits or store.write(term, [task("t")], None)), 20)
        store.close()

    asyncio.run(story())


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
        from tests.cluster.test_store import task
        async def story():
            store = StoreProcess(Path(sys.argv[1]))
            term = store.begin_term(7)
            await asyncio.wrap_future(store.write(term, [task("kept")], None))
            print(store._process.pid, flush=True)
            store.write(term, [task(f"t{number}") for number in range(20_000)], None)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(story())"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = StoreProcess(tmp_path)
    assert store.begin_term(0) == 8
    assert task("kept") in list(store.tasks())
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
    """By its number."""
    store = SqliteStore(tmp_path)
    store.append(store.begin_term(1), [task("t")])
    assert list(store.tasks())  # it moves on
    store.close()
    with sqlite3.connect(tmp_path / DATABASE) as database:
        database.execute("UPDATE tasks SET task = 'no task'")
    database.close()
    other = StoreProcess(tmp_path)
    other.begin_term(1)
    with pytest.raises(Unusable, match="what is stored as number 1 is no task"):
        list(other.tasks())
    other.close()
