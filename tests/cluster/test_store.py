"""The store: what is appended is there afterwards, for one coordinator at a time, and the newest only."""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from orchestrator.cluster import store as store_module
from orchestrator.cluster.store import READABLE, SCHEMA, Kept, MemoryStore, SqliteStore, Store, Unusable, locked
from orchestrator.cluster.store_contents import Contents
from tests.cluster.stored_tasks import settled, task

STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": SqliteStore,
    "sqlite that moves what is older than a group or two": partial(SqliteStore, recent_bytes=400),
    "sqlite that moves everything at once": partial(SqliteStore, recent_bytes=0),
}


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_a_task_is_kept_as_it_was_appended_last(make: Callable[[Path], Store], tmp_path: Path):
    """Settled ones in the order in which they were settled, then the others in the order in which they came."""
    store = make(tmp_path)
    term = store.begin_term(1)
    odd = task('"\0\né', payload="a\0b\U0001f600", execution_timeout_s=0.25, deadline_s=1e-07, attempt=2)
    odd = odd._replace(held=[(2, "w1", "a", 99.5), (1, "\n", '"', None)])
    store.append(term, [task("first"), task("second"), odd])
    store.append(term, [settled("second", 9.0), task("last")])
    store.append(term, [settled("first", 8.0)])
    assert list(store.tasks()) == [settled("first", 8.0), settled("second", 9.0), odd, task("last")]
    store.forget(term, 8.0, 0.0)
    assert [kept.id for kept in store.tasks()] == ["second", odd.id, "last"]
    store.close()


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_a_large_group_is_kept_whole(make: Callable[[Path], Store], tmp_path: Path):
    """Of which some are new and some are known; under an older term nothing of it."""
    store = make(tmp_path)
    older, term = store.begin_term(1), store.begin_term(1)
    names = [f"t{number}" for number in range(1234)]
    store.append(term, [task(name) for name in names])
    store.append(term, [settled(name, float(number)) for number, name in enumerate(names[:555])])
    with pytest.raises(Unusable, match="its term is 2"):
        store.append(older, [task(name, attempt=7) for name in names])
    assert list(store.tasks()) == [
        *(settled(name, float(number)) for number, name in enumerate(names[:555])),
        *map(task, names[555:]),
    ]
    store.close()


@pytest.mark.parametrize("make", STORES.values(), ids=STORES)
def test_an_older_term_is_refused(make: Callable[[Path], Store], tmp_path: Path):
    """Nothing of what is appended under it is kept; each term is higher than the one before."""
    store = make(tmp_path)
    older = store.begin_term(7)
    newer = store.begin_term(3)
    assert (older, newer) == (7, 8)
    with pytest.raises(Unusable, match="its term is 8, and this coordinator's is 7"):
        store.append(older, [task("t")])
    assert not list(store.tasks())
    store.close()


def test_what_was_appended_outlives_the_process(tmp_path: Path):
    """One that is killed between two appends; the next one has a higher term."""
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from orchestrator.cluster.store import SqliteStore
        from tests.cluster.stored_tasks import task
        store = SqliteStore(Path(sys.argv[1]))
        store.append(store.begin_term(41), [task("kept", place=3)])
        os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    store = SqliteStore(tmp_path)
    assert list(store.tasks()) == [task("kept", place=3)]
    assert store.begin_term(0) == 42
    store.close()


def test_a_second_coordinator_is_refused(tmp_path: Path):
    """In a sentence that says who holds the store; when that one has closed it, the next one may."""
    folder = tmp_path / "new" / "data"
    store = SqliteStore(folder)
    with pytest.raises(Unusable, match=f"another process uses the store {folder}: its id is {os.getpid()}"):
        SqliteStore(folder)
    store.close()
    SqliteStore(folder).close()


def test_what_still_writes_for_a_coordinator_that_is_gone_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Longer than for a lock whose holder is there."""
    monkeypatch.setattr(store_module, "LOCK_WAITS_S", 0.0)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    held = locked(tmp_path, holder=gone.pid)
    release = threading.Timer(0.3, held.close)
    release.start()
    SqliteStore(tmp_path).close()
    release.join()


def test_a_schema_that_is_not_known_is_refused(tmp_path: Path):
    """The file stays as it is."""
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "tasks.sqlite") as database:
        database.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    before = (tmp_path / "tasks.sqlite").read_bytes()
    for _ in range(2):  # the first refusal does not leave the lock behind
        with pytest.raises(Unusable, match=f"its schema is {SCHEMA + 1}, this version of orchestrator knows {SCHEMA}"):
            SqliteStore(tmp_path)
    assert (tmp_path / "tasks.sqlite").read_bytes() == before


def of_version(version: int, folder: Path, tasks: Sequence[Kept], groups: Sequence[Sequence[Kept]]) -> None:
    """Write a store as an earlier version did: rows found by id, and tasks that say no place, nor in version 2 any
    limits of their own but one."""
    with sqlite3.connect(folder / "tasks.sqlite") as database:
        database.executescript(f"""
            CREATE TABLE coordinator (term INTEGER NOT NULL);
            INSERT INTO coordinator VALUES (6);
            CREATE TABLE tasks (
                number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, keyed INTEGER NOT NULL, settled_at REAL,
                task TEXT NOT NULL);
            CREATE INDEX settled ON tasks (keyed, settled_at) WHERE settled_at IS NOT NULL;
            PRAGMA user_version = {version};""")
        for one in tasks:
            text = json.dumps(one[:18] if version == 2 else one[:-1])
            database.execute(
                "INSERT INTO tasks VALUES (?, ?, ?, ?, ?)", (one.place, one.id, one.key != "", one.settled_at, text)
            )
        if version == 4:
            database.execute("CREATE TABLE groups (number INTEGER PRIMARY KEY, tasks BLOB NOT NULL)")
            for group in groups:
                text = json.dumps([one[:-1] for one in group])
                database.execute("INSERT INTO groups (tasks) VALUES (?)", (text.encode(),))
    database.close()


@pytest.mark.parametrize("version", [version for version in READABLE if version < SCHEMA])
def test_a_store_of_an_older_version_is_read_and_is_of_this_one_from_then_on(version: int, tmp_path: Path):
    """What its groups tell is newer than its rows; from then on no older version would find its way."""
    rows = [settled("old", 9.0, place=3), task("older", execution_timeout_s=3.0, place=5), task("k", key="k", place=8)]
    groups = [[task("in a group"), rows[2]._replace(attempt=1)], [rows[2]._replace(attempt=2)]]
    of_version(version, tmp_path, rows, groups)
    tasks = rows
    if version == 4:
        tasks = [*rows[:2], rows[2]._replace(attempt=2), task("in a group", place=9)]
    contents = Contents(tmp_path)
    told = [one._replace(place=0) for one in contents.tasks()]
    assert (told, contents.problems) == ([one._replace(place=0) for one in tasks], [])
    contents.close()
    store = SqliteStore(tmp_path)
    assert list(store.tasks()) == tasks
    assert store.begin_term(1) == 7
    limited = task("new", queue_timeout_s=1.0, deadline_s=2.0, place=10)
    store.append(7, [limited, tasks[1]._replace(attempt=4)])
    store.close()
    with sqlite3.connect(tmp_path / "tasks.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
    store = SqliteStore(tmp_path)
    assert list(store.tasks()) == [tasks[0], tasks[1]._replace(attempt=4), *tasks[2:], limited]
    store.close()


def test_a_group_of_an_older_version_that_is_none_is_refused(tmp_path: Path):
    """By its number, and the store stays as it is."""
    of_version(4, tmp_path, [task("t")], [[task("t")], [task("t")]])
    with sqlite3.connect(tmp_path / "tasks.sqlite") as database:
        database.execute("UPDATE groups SET tasks = 'no group' WHERE number = 2")
    database.close()
    before = (tmp_path / "tasks.sqlite").read_bytes()
    with pytest.raises(Unusable, match="what is stored as group 2 is none"):
        SqliteStore(tmp_path)
    with sqlite3.connect(tmp_path / "tasks.sqlite") as database:
        assert database.execute("PRAGMA user_version").fetchone() == (4,)
        assert database.execute("SELECT count(*) FROM groups").fetchone() == (2,)
    assert len(before) == (tmp_path / "tasks.sqlite").stat().st_size


@pytest.mark.parametrize("recent_bytes", [0, 1000, 4000, 1 << 20])
def test_a_store_is_the_same_whenever_tasks_move_on(recent_bytes: int, tmp_path: Path):
    """After every one of many random appends and forgettings it holds what one in memory does, for whoever exports a
    copy and for a coordinator that opens it; what is moved leaves no group behind."""
    rng = random.Random(recent_bytes)
    folder, copy = tmp_path / "data", tmp_path / "copy"
    memory, store = MemoryStore(), SqliteStore(folder, recent_bytes)
    assert memory.begin_term(1) == store.begin_term(1) == 1
    new, waiting = 0, [""]
    for step in range(70):
        if rng.random() < 0.1:
            until = sorted((step - rng.randrange(40), step - rng.randrange(40)))
            memory.forget(1, until[1], until[0])
            store.forget(1, until[1], until[0])
        group: list[Kept] = []
        for name in rng.sample(waiting[1:], min(len(waiting) - 1, rng.randrange(8))):
            ends = rng.random() < 0.6
            at = step + len(group) / 10
            group.append(settled(name, at, key=key_of(name)) if ends else task(name, attempt=step, key=key_of(name)))
            if ends:
                waiting.remove(name)
        for _ in range(rng.randrange(1, 6)):
            group.append(task(f"t{new}", payload="x" * rng.choice([0, 10, 500]), key=key_of(f"t{new}")))
            waiting.append(f"t{new}")
            new += 1
        memory.append(1, group)
        store.append(1, group)
        if step % 5 == 0:
            assert kept_in_a_copy(folder, copy) == list(memory.tasks())
    assert list(store.tasks()) == list(memory.tasks())
    store.close()
    with sqlite3.connect(folder / "tasks.sqlite") as database:
        assert database.execute("SELECT count(*) FROM groups").fetchone() == (0,)


def key_of(name: str) -> str:
    return name if name.endswith("3") else ""


def kept_in_a_copy(folder: Path, copy: Path) -> list[Kept]:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    contents = Contents(copy)
    exported = sorted(contents.tasks())
    assert not contents.problems
    contents.close()
    store = SqliteStore(copy)
    found = list(store.tasks())
    store.close()
    assert exported == sorted(found)
    return found


def test_groups_take_no_more_than_they_may(tmp_path: Path):
    """Whatever comes; most tasks are written into their rows once only."""
    store = SqliteStore(tmp_path, recent_bytes=20_000)
    term = store.begin_term(1)
    for number in range(300):
        store.append(term, [task(f"t{number}"), *([settled(f"t{number - 9}", 1.0)] if number > 9 else [])])
        assert store._recent.bytes <= 20_000
    (rows,) = store._database.execute("SELECT count(*) FROM tasks").fetchone()
    (settled_rows,) = store._database.execute("SELECT count(*) FROM tasks WHERE settled_at IS NOT NULL").fetchone()
    assert rows > 150
    assert rows - settled_rows < 10
    assert len(list(store.tasks())) == 300
    store.close()


def test_a_group_may_be_larger_than_what_sqlite_takes_as_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is stored in parts, all of them or none; its tasks are what they were when it ends."""
    monkeypatch.setattr("orchestrator.cluster.store.GROUP_BYTES", 1000)
    large = [task(f"t{number}", payload="\x01" * (400 if number == 5 else 20)) for number in range(10)]
    for recent_bytes in (1 << 20, 0):
        store = SqliteStore(tmp_path / str(recent_bytes), recent_bytes)
        older, term = store.begin_term(1), store.begin_term(1)
        store._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 3000)
        store.append(term, large)
        with pytest.raises(Unusable, match="its term is 2"):
            store.append(older, [one._replace(attempt=3) for one in large])
        store.append(term, [settled("t0", 1.0)])
        assert kept_in_a_copy(tmp_path / str(recent_bytes), tmp_path / "copy") == [settled("t0", 1.0), *large[1:]]
        store.close()


def test_a_store_that_was_taken_over_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the lock of a folder does not hold: whoever has the older term is refused, and what it has stored until
    then is recovered."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    older, newer = SqliteStore(tmp_path), SqliteStore(tmp_path)
    term = older.begin_term(1)
    older.append(term, [task("t"), settled("old", 1.0)])
    next_term = newer.begin_term(1)
    assert {kept.id for kept in newer.tasks()} == {"t", "old"}
    newer.append(next_term, [settled("t", 2.0)])
    for refused in (lambda: older.forget(term, 1.0, 1.0), lambda: older.append(term, [task("t")]), older.tasks):
        with pytest.raises(Unusable, match="its term is 2, and this coordinator's is 1"):
            list(refused() or ())
    assert list(newer.tasks()) == [settled("old", 1.0), settled("t", 2.0)]
    older.close()
    newer.close()


def test_a_disk_that_is_full_is_told(tmp_path: Path):
    """The append that fails is not kept, and those before it are."""
    store = SqliteStore(tmp_path)
    term = store.begin_term(1)
    store.append(term, [task("small")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(Unusable, match=r"cannot write the store .*: (disk I/O error|database or disk is full)"):
            store.append(term, [task("large", payload="x" * (2 << 20))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    store.close()
    store = SqliteStore(tmp_path)
    assert list(store.tasks()) == [task("small")]
    store.close()
