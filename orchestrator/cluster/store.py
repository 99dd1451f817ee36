"""The store: what a coordinator has promised, kept where its end does not reach.

A small port with two backends. `append` takes whole tasks, as they are now, and has made them durable when it returns.
Every process that serves from a store raises its term first; whoever appends under an older one is refused, inside the
transaction. Tasks are kept and workers are not: they come back by themselves and say what they hold.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from msgspec.json import Decoder, Encoder

from orchestrator.cluster import wal
from orchestrator.cluster.recent import Oldest, Recent, Row

log = logging.getLogger("orchestrator.coordinator")

DATABASE = "tasks.sqlite"
SCHEMA = 5
"""The version of what the database holds."""
READABLE = (2, 3, 4, SCHEMA)
"""Tasks of version 2 have fewer fields; what is stored anew has all. Before version 4 there were no groups; before
version 5 a task was found by its id."""
_OLDEST_SQLITE = (3, 35)  # the first with RETURNING


class Unusable(Exception):
    """A store that cannot be opened, or no longer be written. One sentence."""


class Kept(NamedTuple):
    """A task as it is stored. Times are wall-clock times, in seconds since 1970; `settled_at`: None until then.

    `session`, `number`: by which client's stream it came, empty for none. `attempt`: the number of the newest one.
    `held`: of each attempt that the task counts on its number, its worker, that worker's incarnation, and since when.
    `key`: by which it may be submitted again, empty for none. `digest`: of its payload, once that is dropped.
    `queue_timeout_s`, `deadline_s`: from `accepted_at`. `place`: its number among all tasks, in the order in which they
    were accepted, by which it is stored.
    """

    id: str
    priority: int
    kind: str
    payload: str
    session: str
    number: int
    execution_timeout_s: float | None
    accepted_at: float
    tries: int = 0
    attempt: int = 0
    held: Sequence[tuple[int, str, str, float | None]] = ()
    state: int = 0
    worker_id: str | None = None
    result: str | None = None
    error: str = ""
    settled_at: float | None = None
    key: str = ""
    digest: str = ""
    queue_timeout_s: float | None = None
    deadline_s: float | None = None
    affinity_key: str = ""
    requires: str = ""
    place: int = 0


RECENT_BYTES = 16 << 20
"""What groups may take. Beyond that the oldest are moved on, a hundredth of it together, so that few appends wait."""
GROUP_BYTES = 64 << 20
"""A group that is larger is stored in parts: SQLite takes no value of a billion bytes."""
LOCK_WAITS_S, ORPHANS_LOCK_WAITS_S = 1.0, 10.0
"""For a process that is about to end: what writes for a coordinator that was killed ends after it, and not before its
sync of the disk. The other time is for one whose coordinator is gone."""
_AT_ONCE = 500
"""Rows that are read together."""


_text_of = Encoder().encode
kept = Decoder(Kept).decode
"""A task from its JSON. ValueError where that is none."""
kept_of_many = Decoder(list[Kept]).decode
"""The tasks of a group from its JSON. ValueError where that is none."""


def rows_of(tasks: Sequence[Kept]) -> list[Row]:
    return [(task.place, task.key != "", task.settled_at, _text_of(task)) for task in tasks]


def _is_outdated(task: Kept, settled_until: float, keyed_until: float) -> bool:
    return task.settled_at is not None and task.settled_at <= (keyed_until if task.key else settled_until)


class Store(Protocol):
    """Calls come from one thread at a time, whichever that is. All but `close` raise Unusable."""

    def begin_term(self, at_least: int) -> int:
        """A term that is higher than every one before, and no less than that."""
        ...

    def append(self, term: int, tasks: Sequence[Kept]) -> None:
        """Keep them as they are now, in place of what was known of them: all of them, or none where it raises."""
        ...

    def forget(self, term: int, settled_until: float, keyed_until: float) -> None:
        """The tasks that were settled by then, as `Kept.settled_at` has it; those with a key, by the other time."""
        ...

    def tasks(self) -> Iterator[Kept]:
        """First those that are settled, without a key and with one, the one that was settled first at first; then the
        others, in the order in which they were accepted."""
        ...

    def close(self) -> None: ...


class MemoryStore:
    """Keeps everything for as long as this object lives, whoever uses it."""

    def __init__(self) -> None:
        self._term = 0
        self._tasks: dict[str, Kept] = {}

    def begin_term(self, at_least: int) -> int:
        self._term = max(self._term + 1, at_least)
        return self._term

    def append(self, term: int, tasks: Sequence[Kept]) -> None:
        self._require(term)
        for task in tasks:
            self._tasks[task.id] = task

    def forget(self, term: int, settled_until: float, keyed_until: float) -> None:
        self._require(term)
        for task in list(self._tasks.values()):
            if _is_outdated(task, settled_until, keyed_until):
                del self._tasks[task.id]

    def tasks(self) -> Iterator[Kept]:
        settled = [task for task in self._tasks.values() if task.settled_at is not None]
        yield from sorted(settled, key=lambda task: (task.key != "", task.settled_at))
        yield from (task for task in self._tasks.values() if task.settled_at is None)

    def close(self) -> None:
        pass

    def _require(self, term: int) -> None:
        if term != self._term:
            raise Unusable(_superseded(term, self._term))


Numbered = tuple[int, str]
"""A task as JSON, behind the number by which it is stored."""


class _Part(NamedTuple):
    """What is stored as a group."""

    rows: Sequence[Row]
    text: bytes


def _parts(rows: Sequence[Row]) -> list[_Part]:
    """Of a group, each of which may be one value: mostly all of it."""
    text = b"[" + b",".join([row[3] for row in rows]) + b"]"
    half = len(rows) // 2
    if len(text) <= GROUP_BYTES or not half:
        return [_Part(rows, text)]
    return _parts(rows[:half]) + _parts(rows[half:])


class SqliteStore:
    """A database in a folder that one process at a time may use. Raises Unusable.

    What is appended is one row of `groups`: little is written, and in one place, before anybody is answered. Later its
    tasks move on to `tasks`, where each has a row, in the order in which they came and as they are by then: most of
    them will not change any more.
    """

    _TABLES = (
        "CREATE TABLE groups (number INTEGER PRIMARY KEY, tasks BLOB NOT NULL)",
        "CREATE TABLE tasks (number INTEGER PRIMARY KEY, keyed INTEGER NOT NULL, settled_at REAL, task TEXT NOT NULL)",
        "CREATE INDEX settled ON tasks (keyed, settled_at) WHERE settled_at IS NOT NULL",
    )
    _APPEND = "INSERT INTO groups (number, tasks) SELECT ?, ? FROM coordinator WHERE term = ?"
    _MOVE = """
        INSERT INTO tasks (number, keyed, settled_at, task) VALUES (?, ?, ?, CAST(? AS TEXT))
        ON CONFLICT (number) DO UPDATE SET settled_at = excluded.settled_at, task = excluded.task"""
    _DROP = "DELETE FROM groups WHERE number <= ?"
    _FORGET = """
        DELETE FROM tasks WHERE (keyed = 0 AND settled_at <= ? OR keyed = 1 AND settled_at <= ?)
        AND (SELECT term FROM coordinator) = ?"""
    _ORDERS = (
        "keyed = 0 AND settled_at IS NOT NULL ORDER BY settled_at",  # as the index has them: nothing is sorted
        "keyed = 1 AND settled_at IS NOT NULL ORDER BY settled_at",
        "settled_at IS NULL ORDER BY number",
    )

    def __init__(self, folder: Path, recent_bytes: int = RECENT_BYTES, holder: int | None = None) -> None:
        """`holder`: the id of the process for whose sake the folder is locked; None: of this one."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise Unusable(f"a store needs SQLite 3.35, and this is {sqlite3.sqlite_version}")
        self._folder = folder
        self._file = folder / DATABASE
        self._recent_bytes = recent_bytes
        self._lock = locked(folder, make=True, holder=holder)
        try:
            self._cut_what_is_torn()
            self._database, schema = self._opened()
            if schema != SCHEMA:
                self._convert(schema)
            self._read_groups()
            self._term: int = self._do("SELECT term FROM coordinator").fetchone()[0]
        except BaseException:
            self._lock.close()
            raise

    def begin_term(self, at_least: int) -> int:
        raised = "UPDATE coordinator SET term = max(term + 1, ?) RETURNING term"
        self._term = self._do(raised, at_least).fetchall()[0][0]
        # What a coordinator of an older term has stored until it was superseded is to be recovered, too.
        if self._do("SELECT max(number) FROM groups").fetchone() != (self._recent.last or None,):
            self._read_groups()
        return self._term

    def append(self, term: int, tasks: Sequence[Kept]) -> None:
        self.append_rows(term, rows_of(tasks))

    def append_rows(self, term: int, rows: Sequence[Row]) -> None:
        """As `append`, of what `rows_of` has made of the tasks."""
        parts = _parts(rows)
        left_bytes = self._recent_bytes - sum(len(part.text) for part in parts)
        if self._recent.bytes <= left_bytes and len(parts) == 1:
            self._append(self._recent.last + 1, parts[0].text, term)
        else:
            oldest = self._recent.oldest(left_bytes - self._recent_bytes // 100)
            with self._transaction():
                for number, part in enumerate(parts, self._recent.last + 1):
                    self._append(number, part.text, term)
                self._move(oldest)
            self._recent.drop(oldest)
        for part in parts:
            self._recent.add(self._recent.last + 1, part.rows, len(part.text))

    def _append(self, number: int, text: bytes, term: int) -> None:
        if self._do(self._APPEND, number, text, term).rowcount < 1:
            self._require(term)

    def _move(self, oldest: Oldest) -> None:
        self._run(self._database.executemany, self._MOVE, oldest.rows)
        self._do(self._DROP, oldest.last)

    def _move_alone(self, oldest: Oldest, term: int) -> None:
        if oldest.groups:
            with self._transaction():
                self._require(term)
                self._move(oldest)
            self._recent.drop(oldest)

    def _require(self, term: int) -> None:
        (newest,) = self._do("SELECT term FROM coordinator").fetchone()
        if newest != term:
            raise Unusable(_superseded(term, newest))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._do("BEGIN")
        try:
            yield
            self._do("COMMIT")
        except BaseException:
            self._database.rollback()
            raise

    def forget(self, term: int, settled_until: float, keyed_until: float) -> None:
        self._move_alone(self._recent.settled_by(max(settled_until, keyed_until)), term)
        self._do(self._FORGET, settled_until, keyed_until, term)

    def tasks(self) -> Iterator[Kept]:
        for rows in self.numbered():
            yield from kept_of_numbered(rows, self._file)

    def numbered(self) -> Iterator[list[Numbered]]:
        """What `tasks` reads, as it is stored, some at a time."""
        self._move_alone(self._recent.oldest(0), self._term)
        last = 0
        try:
            for which in self._ORDERS:
                rows = self._database.execute(f"SELECT number, task FROM tasks WHERE {which}")
                while some := rows.fetchmany(_AT_ONCE):
                    last = some[-1][0]
                    yield some
        except sqlite3.Error as error:
            raise _damaged(self._folder, f"{self._file}: behind number {last}: {in_a_line(str(error))}") from None

    def _read_groups(self) -> None:
        self._recent = Recent()
        for number, tasks, size in self._groups():
            self._recent.add(number, rows_of(tasks), size)

    def _groups(self) -> Iterator[tuple[int, list[Kept], int]]:
        """The number of each, its tasks, and its size in bytes."""
        number = 0
        try:
            for number, text in self._database.execute("SELECT number, tasks FROM groups ORDER BY number"):
                yield number, kept_of_many(text), len(text)
        except sqlite3.Error as error:
            raise _damaged(self._folder, f"{self._file}: behind group {number}: {in_a_line(str(error))}") from None
        except (ValueError, TypeError) as error:
            raise _damaged(self._folder, f"{self._file}: what is stored as group {number} is none: {error}") from None

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    def _do(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._run(self._database.execute, statement, values)

    def _run(self, run: Callable[..., sqlite3.Cursor], statement: str, values: Sequence[object]) -> sqlite3.Cursor:
        try:
            return run(statement, values)
        except sqlite3.Error as error:
            raise Unusable(f"cannot write the store {self._file}: {error}") from None

    def _cut_what_is_torn(self) -> None:
        """Nobody was told of it: it is the trace of a crash. What can't be that is left as it is, and refused."""
        file = wal.log_of(self._file)
        try:
            found = wal.examine(self._file)
            if found.damage:
                raise _damaged(self._folder, found.damage)
            if found.torn:
                with file.open("r+b") as opened:
                    opened.truncate(found.end)
                    os.fsync(opened.fileno())
                log.warning("the store %s was left in the middle of a group: the last %d bytes of %s are cut off",
                            self._folder, found.torn, file)  # fmt: skip
        except OSError as error:
            raise Unusable(f"cannot open the store {self._file}: {error.strerror}") from None

    def _convert(self, schema: int) -> None:
        """What an earlier version has written, which is not to read it from now on: there a row was found by the id of
        its task."""
        with self._transaction():
            if schema == 4:
                for _, tasks, _ in self._groups():
                    rows = [(task.id, *row[1:]) for task, row in zip(tasks, rows_of(tasks), strict=True)]
                    self._run(self._database.executemany, self._MOVE.replace("number", "id"), rows)
                self._do("DROP TABLE groups")
            self._do("ALTER TABLE tasks RENAME TO older")
            self._do("DROP INDEX settled")
            for statement in self._TABLES:
                self._do(statement)
            self._do("INSERT INTO tasks SELECT number, keyed, settled_at, task FROM older")
            self._do("DROP TABLE older")
            self._do(f"PRAGMA user_version = {SCHEMA}")

    def _opened(self) -> tuple[sqlite3.Connection, int]:
        """With its schema. A transaction is over when its statement is; nobody else is waited for."""
        try:
            database = sqlite3.connect(
                self._file,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
            )
            (schema,) = database.execute("PRAGMA user_version").fetchone()
            if schema not in (0, *READABLE):
                known = f"this version of orchestrator knows {SCHEMA}"
                raise Unusable(
                    f"the store {self._file} was written by another version: its schema is {schema}, {known}"
                )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            # Nothing of a group is written before it ends: `wal` relies on it.
            database.execute("PRAGMA cache_spill = OFF")
            # Some builds overwrite what is deleted: not where nothing else is written for it.
            database.execute("PRAGMA secure_delete = FAST")
            if schema == 0:
                schema = SCHEMA
                database.executescript(f"""
                    BEGIN;
                    CREATE TABLE coordinator (term INTEGER NOT NULL);
                    INSERT INTO coordinator VALUES (0);
                    {";".join(self._TABLES)};
                    PRAGMA user_version = {schema};
                    COMMIT;""")
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise _damaged(self._folder, f"{self._file}: {in_a_line(found)}")
            # What can be read may not be on the disk: its sync has failed, or was never begun. Nobody is told of it
            # before it has been written anew.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise Unusable(f"cannot open the store {self._file}: {error}") from None
            raise _damaged(self._folder, f"{self._file}: {error}") from None
        return database, schema


def kept_of_numbered(rows: Sequence[Numbered], file: Path) -> list[Kept]:
    """At once: to read a million texts one by one takes half as long again. Those that an earlier version has stored do
    not say their places. Raises Unusable."""
    try:
        found = kept_of_many(f"[{','.join(text for _, text in rows)}]")
    except (ValueError, TypeError):
        found = []
    if len(found) != len(rows):
        found = []
        for number, text in rows:
            try:
                found.append(kept(text))
            except (ValueError, TypeError) as error:
                sentence = f"{file}: what is stored as number {number} is no task: {error}"
                raise _damaged(file.parent, sentence) from None
    if all(task.place for task in found):
        return found
    return [task._replace(place=number) for task, (number, _) in zip(found, rows, strict=True)]


def _damaged(folder: Path, sentence: str) -> Unusable:
    reads = f"orchestrator store export {folder} reads what can be read"
    return Unusable(f"the store is damaged, and nothing is served from it: {sentence}; {reads}")


def in_a_line(text: str) -> str:
    """What SQLite says of a database, without the line that says which one it is among one."""
    return " ".join(text.replace("*** in database main ***", "").split())


def locked(folder: Path, make: bool = False, holder: int | None = None) -> IO[str]:
    """The folder's lock, which this process holds until it closes the file, or ends. `holder`: the id that others are
    told, None for this one's. Raises Unusable."""
    try:
        if make:
            _make(folder)
        file = (folder / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise Unusable(f"cannot use {folder} as a store: {error.strerror}") from None
    file.seek(0)
    deadline = time.monotonic() + (ORPHANS_LOCK_WAITS_S if _is_gone(file.read(20)) else LOCK_WAITS_S)
    while not _is_locked(file):
        if time.monotonic() > deadline:
            file.seek(0)
            other = file.read(20).strip() or "unknown"
            file.close()
            raise Unusable(f"another process uses the store {folder}: its id is {other}")
        time.sleep(0.01)
    file.truncate(0)
    file.write(f"{holder or os.getpid()}\n")
    file.flush()
    return file


def _is_gone(holder: str) -> bool:
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OverflowError, OSError):
        pass  # no id, or somebody else's process
    return False


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make(folder: Path) -> None:
    """So that it outlives the power, and with it what is synced in it."""
    if folder.exists():
        return
    _make(folder.parent)
    folder.mkdir()
    descriptor = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _superseded(term: int, newer: int) -> str:
    return f"the store has been taken over: its term is {newer}, and this coordinator's is {term}"
