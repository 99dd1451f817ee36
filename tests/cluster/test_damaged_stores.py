"""Stores whose files were cut or overwritten: they recover to what they were after some group, or are refused.

`test_power_loss.py` cuts them at every byte; what is here also asks `store check` and `store export` of each.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.cluster import wal
from orchestrator.cluster.store import Kept, MemoryStore, SqliteStore, Unusable
from orchestrator.cluster.store_contents import Contents
from tests.cluster.stored_tasks import settled, task

DATABASE, LOG = "tasks.sqlite", "tasks.sqlite-wal"
GROUPS = 9
TAIL = 4096


class Stores(NamedTuple):
    """`killed`: the files while a coordinator runs; `begun_again`: the same after its log was begun again, what it held
    before is in the database; `closed`: as the coordinator leaves them. `states`: after each group, the first without
    any. `ends`: of the groups in the log of the first one."""

    killed: Path
    begun_again: Path
    closed: Path
    states: list[list[Kept]]
    ends: list[int]


@pytest.fixture(autouse=True)
def each_page_is_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "_added", cache(wal._added))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder = tmp_path_factory.mktemp("stores")
    states: list[list[Kept]] = []
    ends: list[int] = []
    for name in ("killed", "begun_again"):
        store, memory = SqliteStore(folder / "closed", recent_bytes=8000), MemoryStore()
        term = store.begin_term(memory.begin_term(1))
        states, sizes = [[]], []
        for number in range(GROUPS):
            if number == GROUPS - 3 and name == "begun_again":
                store._database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            tasks = [task(f"t{number}-{i}", payload="x" * 300) for i in range(8)]
            memory.append(term, [*tasks, settled("t0-0", float(number))])
            store.append(term, [*tasks, settled("t0-0", float(number))])
            states.append(list(memory.tasks()))
            sizes.append((folder / "closed" / LOG).stat().st_size)
        ends = ends or sizes
        shutil.copytree(folder / "closed", folder / name)
        (folder / name / "tasks.sqlite-shm").unlink()
        store.close()
        if name == "killed":
            shutil.rmtree(folder / "closed")
    return Stores(folder / "killed", folder / "begun_again", folder / "closed", states, ends)


def opened(folder: Path) -> list[Kept] | str:
    """What a coordinator finds, or the sentence by which it refuses the store."""
    try:
        store = SqliteStore(folder)
    except Unusable as refusal:
        return str(refusal)
    try:
        return list(store.tasks())
    except Unusable as refusal:
        return str(refusal)
    finally:
        store.close()


def damaged(of: Path, into: Path, damage: Callable[[Path], None]) -> list[Kept] | str:
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(of, into)
    damage(into)
    try:
        contents: Contents | None = Contents(into)
    except Unusable:
        contents = None  # there is no database
    if contents is None:
        return opened(into)
    told = sorted(contents.tasks())
    contents.close()
    found = opened(into)
    if isinstance(found, str):
        assert contents.problems, found
    else:
        assert not contents.problems
        assert told == sorted(found)
    assert all("\n" not in problem for problem in [*contents.problems, found if isinstance(found, str) else ""])
    return found


def blocks(file: Path, size: int = 4096) -> Iterator[int]:
    return iter(range(0, file.stat().st_size, size))


def zeroing(name: str, at: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / name).open("r+b") as file:
            file.seek(at)
            file.write(bytes(4096))

    return damage


def cutting(name: str, cut: int) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - cut)


def test_a_copy_of_what_is_acknowledged_is_whole(stores: Stores, tmp_path: Path):
    """Taken while the coordinator runs, or when it has ended."""
    for folder in (stores.killed, stores.begun_again, stores.closed):
        assert damaged(folder, tmp_path / "copy", lambda _: None) == stores.states[-1]


def test_a_large_group_is_torn_wherever_it_ends(tmp_path: Path):
    """Its pages are more than SQLite would hold back by itself, so that some would be written twice."""
    store = SqliteStore(tmp_path / "data")
    store.append(store.begin_term(1), [task("t")])
    end = (tmp_path / "data" / LOG).stat().st_size
    store.append(1, [task(f"t{number}", payload="x" * 1000) for number in range(5000)])
    data = (tmp_path / "data" / LOG).read_bytes()
    store.close()
    assert len(data) > 4 << 20
    (tmp_path / DATABASE).write_bytes(b"is there")
    for size in range(end + 1, len(data), len(data) // 7):
        (tmp_path / LOG).write_bytes(data[:size])
        assert wal.examine(tmp_path / DATABASE) == wal.Log(end, size - end)


def test_a_log_that_was_cut_costs_the_groups_that_are_cut(
    stores: Stores, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """A line says how many bytes; the next coordinator finds nothing torn any more."""
    size = (stores.killed / LOG).stat().st_size
    seen = set()
    with caplog.at_level(logging.WARNING):
        for cut in range(0, TAIL + 1, 256):
            caplog.clear()
            found = damaged(stores.killed, tmp_path / "cut", cutting(LOG, cut))
            assert found in stores.states[-2:]
            seen.add(stores.states.index(found))
            end = max(end for end in stores.ends if end <= size - cut)
            said = f"the last {size - cut - end} bytes of {tmp_path / 'cut' / LOG} are cut off"
            assert [said in message for message in caplog.messages] == ([True] if cut else [])
            caplog.clear()
            assert opened(tmp_path / "cut") == found
            assert not caplog.messages
    assert seen == {GROUPS, GROUPS - 1}


def test_a_log_with_a_page_of_zeros_costs_the_last_group_at_most(stores: Stores, tmp_path: Path):
    """Before that, what it hides was acknowledged: the store is refused, and where it is damaged is said."""
    results = [damaged(stores.killed, tmp_path / "log", zeroing(LOG, at)) for at in blocks(stores.killed / LOG)]
    for found in results:
        if isinstance(found, str):
            assert LOG in found
            assert f"orchestrator store export {tmp_path / 'log'} reads what can be read" in found
        else:
            assert found in stores.states[-2:]
    assert isinstance(results[0], str)
    assert isinstance(results[len(results) // 2], str)
    assert results[-1] == stores.states[-2]
    for at in blocks(stores.begun_again / LOG):
        found = damaged(stores.begun_again, tmp_path / "log", zeroing(LOG, at))
        assert isinstance(found, str) or found in stores.states[-2:]


@pytest.mark.parametrize("state", ["killed", "begun_again", "closed"])
def test_a_database_that_was_cut_is_refused_unless_its_log_has_what_is_missing(
    state: str, stores: Stores, tmp_path: Path
):
    """It has where it was not yet written into the database."""
    folder: Path = getattr(stores, state)
    size = (folder / DATABASE).stat().st_size
    for cut in [*range(1, TAIL + 1, 410), *([] if state == "closed" else [size])]:
        found = damaged(folder, tmp_path / "cut", cutting(DATABASE, cut))
        assert isinstance(found, str) or found == stores.states[-1]
    for at in blocks(folder / DATABASE):
        found = damaged(folder, tmp_path / "zeros", zeroing(DATABASE, at))
        assert isinstance(found, str) or found == stores.states[-1]


def exported_without(page_at: int, of: Path, into: Path) -> list[Kept]:
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(of, into)
    zeroing(DATABASE, page_at)(into)
    contents = Contents(into)
    told = list(contents.tasks())
    contents.close()
    return told


def test_what_a_damaged_page_does_not_hide_can_be_read(stores: Stores, tmp_path: Path):
    """Before and behind it; what is not a page of tasks hides nothing. Where a page of a group is lost, its tasks are
    as they were before it."""
    counts = []
    for at in blocks(stores.closed / DATABASE):
        told = exported_without(at, stores.closed, tmp_path / "store")
        assert all(any(kept in state for state in stores.states) for kept in told)
        counts.append(len(told))
    whole = len(stores.states[-1])
    assert counts.count(whole) >= 2
    assert len([count for count in counts if whole - 15 < count < whole]) >= 4


@pytest.mark.parametrize("first", [1, 20_000], ids=["from the beginning", "after many others"])
def test_a_damaged_page_hides_its_own_groups_only(first: int, tmp_path: Path):
    """Whatever their numbers are: those of the oldest rise as long as a coordinator runs."""
    store = SqliteStore(tmp_path / "data")
    term = store.begin_term(1)
    store._recent.last = first - 1
    for number in range(300):
        store.append(term, [task(f"t{number}")])
    store.close()
    pages = blocks(tmp_path / "data" / DATABASE)
    counts = [len(exported_without(at, tmp_path / "data", tmp_path / "store")) for at in pages]
    assert len([count for count in counts if 250 < count < 300]) > 6


def test_a_store_of_an_older_version_that_is_damaged_stays_as_it_is(tmp_path: Path):
    """Nothing is added to it before it is refused."""
    store = SqliteStore(tmp_path)
    store.append(store.begin_term(1), [task(f"t{number}", payload="x" * 300) for number in range(50)])
    list(store.tasks())
    store._database.executescript("DROP TABLE groups; PRAGMA user_version = 3")
    store.close()
    zeroing(DATABASE, 4096 * 4)(tmp_path)
    before = (tmp_path / DATABASE).read_bytes()
    assert isinstance(opened(tmp_path), str)
    assert (tmp_path / DATABASE).read_bytes() == before


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_tells_what_a_store_holds(stores: Stores, tmp_path: Path):
    """Whole, in use, damaged, or no store at all; nothing of it is changed."""
    shutil.copytree(stores.killed, tmp_path / "data")
    before = {file.name: file.read_bytes() for file in (tmp_path / "data").iterdir() if file.name != "lock"}
    checked = run("store", "check", tmp_path / "data")
    assert (checked.returncode, checked.stdout) == (
        0,
        "term 1: 71 tasks in hand and 1 settled ones, 0 with a key\nwhole\n",
    )
    exported = run("store", "export", tmp_path / "data")
    told = [json.loads(line) for line in exported.stdout.splitlines()]
    assert (exported.returncode, len(told), exported.stderr) == (0, 72, "")
    assert {one["id"]: one["state"] for one in told} == {
        kept.id: "COMPLETED" if kept.settled_at is not None else "PENDING" for kept in stores.states[-1]
    }
    assert {file.name: file.read_bytes() for file in (tmp_path / "data").iterdir() if file.name != "lock"} == before

    store = SqliteStore(tmp_path / "data")
    used = run("store", "check", tmp_path / "data")
    store.close()
    said = f"another process uses the store {tmp_path / 'data'}: its id is {os.getpid()}\n"
    assert (used.returncode, used.stdout, used.stderr) == (2, "", said)

    zeroing(DATABASE, 4096 * 2)(tmp_path / "data")
    for command in (("store", "check"), ("store", "export"), ("coordinator", "--port", "0", "--data")):
        done = run(*command, tmp_path / "data")
        assert done.returncode == (2 if command[0] == "coordinator" else 1)
        assert DATABASE in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert json.loads(run("store", "check", "--json", tmp_path / "data").stdout)["problems"]
    none = run("store", "export", tmp_path)
    assert (none.returncode, none.stderr) == (2, f"{tmp_path} holds no store: there is no tasks.sqlite in it\n")
