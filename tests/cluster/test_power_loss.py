"""The power fails at any moment: what was acknowledged is there afterwards, and nothing that was never written."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from orchestrator.cluster import wal
from orchestrator.cluster.store import DATABASE, Kept, MemoryStore, SqliteStore, Store
from tests.cluster.faulty_disk import NAMES, FaultyDisk, Written, apply, lay
from tests.cluster.stored_tasks import settled, task
from tests.cluster.test_damaged_stores import opened
from tests.planted import ROOT

LOG, ACKED = NAMES["w"], NAMES["a"]
STEPS = 24
TAIL = 4096
SECTOR = 512
"""What a disk writes whole, or not at all."""
IMAGES = 3
"""Of each moment, beside that in which nothing is lost and that in which all is lost that can be."""

Files = dict[str, bytes]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where syncs cost nothing, if there is such a place; and the checksum of a page is computed but once."""
    monkeypatch.setattr(wal, "_added", cache(wal._added))
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path / "scratch"
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "scratch"


# ---- what a disk may have lost


def step(store: Store, term: int, number: int) -> None:
    """Groups of many sizes; now and then the oldest settled tasks are forgotten."""
    if number % 6 == 5:
        store.forget(term, float(number - 4), float(number - 6))
        return
    rng = random.Random(number)
    sizes = [rng.choice([0, 100, 3000]) for _ in range(rng.choice([1, 1, 3, 20]))]
    tasks = [
        task(f"t{number}-{each}", payload="x" * size, place=_place(number, each)) for each, size in enumerate(sizes)
    ]
    tasks[0] = tasks[0]._replace(key=_key(number))
    if number:
        tasks.append(settled(f"t{number - 1}-0", float(number), place=_place(number - 1, 0), key=_key(number - 1)))
    store.append(term, tasks)


def _key(number: int) -> str:
    return f"k{number}" if number % 2 else ""


def _place(number: int, each: int) -> int:
    """The same in whatever process."""
    return 100 * number + each + 1


def work(folder: Path) -> None:
    """In a process of its own, whose log is written into the database often, and begun again; tasks move on often."""
    trace = os.environ.pop("FAULTY_DISK_TRACE")
    store = SqliteStore(folder, recent_bytes=20_000)
    term = store.begin_term(1)
    store._database.execute("PRAGMA wal_autocheckpoint = 12")
    (folder / "before").mkdir()
    for name in (DATABASE, LOG):
        (folder / "before" / name).write_bytes((folder / name).read_bytes())
    os.environ["FAULTY_DISK_TRACE"] = trace
    acked = os.open(folder / ACKED, os.O_WRONLY | os.O_CREAT)
    for number in range(STEPS):
        step(store, term, number)
        os.pwrite(acked, b"+", number)
    os._exit(0)


def states() -> list[list[Kept]]:
    """Before each step, and after the last one."""
    store = MemoryStore()
    term = store.begin_term(1)
    found = [list(store.tasks())]
    for number in range(STEPS):
        step(store, term, number)
        found.append(list(store.tasks()))
    return found


def images(files: dict[str, Written], rng: random.Random) -> Iterator[Files]:
    """What may be on the disk when the power comes back: what was synced, and of the rest anything."""
    yield {name: bytes(file.now) for name, file in files.items()}
    yield {name: bytes(file.durable) for name, file in files.items()}
    for _ in range(IMAGES):
        yield {name: survived(file, rng) for name, file in files.items()}


def survived(file: Written, rng: random.Random) -> bytes:
    """Some of what is pending, in whatever order the disk took it, the last of it in part; where the file has grown,
    zeros stand for what was not written."""
    data = bytearray(file.durable)
    some = [change for change in file.pending if rng.random() < 0.7]
    for change in some:
        torn = change.data
        if change is some[-1] and len(torn) > SECTOR:
            torn = torn[: rng.randrange(len(torn)) // SECTOR * SECTOR + -change.at % SECTOR]
        apply(change._replace(data=torn), data)
    if rng.random() < 0.5:
        data.extend(bytes(max(0, len(file.now) - len(data))))
    return bytes(data)


def test_whatever_the_disk_has_not_written_yet_nothing_acknowledged_is_missing(tmp_path: Path, scratch: Path):
    """A power loss, and a kill, at each write and each sync of groups, of the log that is written into the database,
    and of a log that is begun again: the store opens, and is what it was after the last acknowledged step, or after
    the one that was under way."""
    folder = tmp_path / "data"
    disk = FaultyDisk(folder, tmp_path)
    script = f"from pathlib import Path; import {__name__} as it; it.work(Path({str(folder)!r}))"
    environment = {**os.environ, **disk.environment, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    legal, rng = states(), random.Random(1)
    files = defaultdict(Written, {name: Written((folder / "before" / name).read_bytes()) for name in (DATABASE, LOG)})
    acked = opens = 0
    seen: set[str] = set()
    for change in disk.changes():
        if change.file == ACKED:
            acked += 1
            continue
        files[change.file].take(change)
        seen.add(change.what + change.file)
        for image in images(files, rng):
            found = opened(lay(scratch, image))
            assert found in legal[acked : acked + 2], f"after step {acked}, at {change._replace(data=b'')}"
            opens += 1
    assert acked == STEPS
    assert {"w" + DATABASE, "s" + DATABASE, "w" + LOG, "s" + LOG} <= seen
    assert opens > 20 * STEPS


# ---- files that end too early


def stored(folder: Path) -> tuple[Files, list[list[Kept]], list[int]]:
    """A store whose coordinator was killed: its files, what it was after each group, and where that ends in its log.
    Its last group has moved others on."""
    store, memory = SqliteStore(folder, recent_bytes=2000), MemoryStore()
    term = store.begin_term(memory.begin_term(1))
    log, states, ends = folder / LOG, [list(memory.tasks())], [(folder / LOG).stat().st_size]
    for number in range(4):
        tasks = [task(f"t{number}-{each}", payload="x" * 100) for each in range(3)]
        memory.append(term, tasks)
        store.append(term, tasks)
        states.append(list(memory.tasks()))
        ends.append(log.stat().st_size)
    assert store._database.execute("SELECT count(*) FROM tasks").fetchone() == (3,)
    files = {name: (folder / name).read_bytes() for name in (DATABASE, LOG)}
    store.close()
    return files, states, ends


def test_a_log_that_ends_at_any_byte_of_its_last_4_kib_costs_no_whole_group(tmp_path: Path, scratch: Path):
    """What the store is then is what it was when its log was of that size."""
    files, states, ends = stored(tmp_path)
    log = files[LOG]
    for size in range(len(log) - TAIL, len(log) + 1):
        whole = max(number for number, end in enumerate(ends) if end <= size)
        assert opened(lay(scratch, {**files, LOG: log[:size]})) == states[whole]


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "closed"])
def test_a_database_that_ends_at_any_byte_of_its_last_4_kib_is_whole_or_refused(
    killed: bool, tmp_path: Path, scratch: Path
):
    """In a sentence; it is whole where its log has what is missing."""
    files, states, _ = stored(tmp_path)
    if not killed:
        files = {DATABASE: (tmp_path / DATABASE).read_bytes()}
    database = files[DATABASE]
    for cut in range(1, TAIL + 1):
        found = opened(lay(scratch, {**files, DATABASE: database[:-cut]}))
        assert found == states[-1] or (isinstance(found, str) and "\n" not in found and DATABASE in found)
