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
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from msgspec.json import Decoder, Encoder

from orchestrator.cluster import wal

log = logging.getLogger("orchestrator.coordinator")

DATABASE = "tasks.sqlite"
SCHEMA = 3
"""The version of what the database holds."""
READABLE = (2, SCHEMA)
"""Tasks of version 2 have fewer fields; what is stored anew has all."""
_OLDEST_SQLITE = (3, 35)  # the first with RETURNING


class Unusable(Exception):
    """A store that cannot be opened, or no longer be written. One sentence."""


class Kept(NamedTuple):
    """A task as it is stored. Times are wall-clock times, in seconds since 1970; `settled_at`: None until then.

    `session`, `number`: by which client's stream it came, empty for none. `attempt`: the number of the newest one.
    `held`: of each attempt that the task counts on its number, its worker, that worker's incarnation, and since when.
    `key`: by which it may be submitted again, empty for none. `digest`: of its payload, once that is dropped.
    `queue_timeout_s`, `deadline_s`: from `accepted_at`.
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


_AT_ONCE = 500
"""Rows that are read together."""
_IN_A_STATEMENT = 100
"""Rows that are written together."""


_text_of = Encoder().encode
kept = Decoder(Kept).decode
"""A task from its JSON. ValueError where that is none."""
_kept_of_many = Decoder(list[Kept]).decode

_Row = tuple[str, bool, float | None, str]
"""The id, whether there is a key, when it was settled, all of the task."""


def _row(task: Kept) -> _Row:
    return task.id, task.key != "", task.settled_at, _text_of(task).decode()


@cache
def _appending(rows: int) -> str:
    return f"""
        INSERT INTO tasks (id, keyed, settled_at, task)
        SELECT * FROM (VALUES {",".join(["(?, ?, ?, ?)"] * rows)}) WHERE (SELECT term FROM coordinator) = ?
        ON CONFLICT (id) DO UPDATE SET settled_at = excluded.settled_at, task = excluded.task"""


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
            if task.settled_at is not None and task.settled_at <= (keyed_until if task.key else settled_until):
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


class SqliteStore:
    """A database in a folder that one process at a time may use. Raises Unusable.

    An append is one statement, unless it is large: whenever one is made, its thread waits for the interpreter. For each
    number of rows there is one, which SQLite need not parse again.
    """

    _FORGET = """
        DELETE FROM tasks WHERE (keyed = 0 AND settled_at <= ? OR keyed = 1 AND settled_at <= ?)
        AND (SELECT term FROM coordinator) = ?"""
    _ORDERS = (
        "keyed = 0 AND settled_at IS NOT NULL ORDER BY settled_at",  # as the index has them: nothing is sorted
        "keyed = 1 AND settled_at IS NOT NULL ORDER BY settled_at",
        "settled_at IS NULL ORDER BY number",
    )

    def __init__(self, folder: Path) -> None:
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise Unusable(f"a store needs SQLite 3.35, and this is {sqlite3.sqlite_version}")
        self._folder = folder
        self._file = folder / DATABASE
        self._lock = locked(folder, make=True)
        try:
            self._cut_what_is_torn()
            self._database = self._opened()
        except BaseException:
            self._lock.close()
            raise

    def begin_term(self, at_least: int) -> int:
        raised = "UPDATE coordinator SET term = max(term + 1, ?) RETURNING term"
        return int(self._do(raised, at_least).fetchall()[0][0])

    def append(self, term: int, tasks: Sequence[Kept]) -> None:
        rows = list(map(_row, tasks))
        if len(rows) <= _IN_A_STATEMENT:
            self._append(rows, term)
            return
        self._do("BEGIN")
        try:
            for at in range(0, len(rows), _IN_A_STATEMENT):
                self._append(rows[at : at + _IN_A_STATEMENT], term)
            self._do("COMMIT")
        except Unusable:
            self._database.rollback()
            raise

    def _append(self, rows: Sequence[_Row], term: int) -> None:
        if self._do(_appending(len(rows)), *chain.from_iterable(rows), term).rowcount < 1:
            self._refuse(term)

    def forget(self, term: int, settled_until: float, keyed_until: float) -> None:
        self._do(self._FORGET, settled_until, keyed_until, term)

    def tasks(self) -> Iterator[Kept]:
        last = 0
        try:
            for which in self._ORDERS:
                rows = self._database.execute(f"SELECT number, task FROM tasks WHERE {which}")
                while some := rows.fetchmany(_AT_ONCE):
                    last = some[-1][0]
                    yield from self._kept(some)
        except sqlite3.Error as error:
            raise self._damaged(f"{self._file}: behind number {last}: {in_a_line(str(error))}") from None

    def _kept(self, rows: Sequence[tuple[int, str]]) -> list[Kept]:
        """At once: to read a million texts one by one takes half as long again."""
        try:
            found = _kept_of_many(f"[{','.join(text for _, text in rows)}]")
        except (ValueError, TypeError):
            found = []
        if len(found) != len(rows):
            found = []
            for number, text in rows:
                try:
                    found.append(kept(text))
                except (ValueError, TypeError) as error:
                    raise self._damaged(
                        f"{self._file}: what is stored as number {number} is no task: {error}"
                    ) from None
        return found

    def close(self) -> None:
        self._database.close()
        self._lock.close()

    def _refuse(self, term: int) -> None:
        raise Unusable(_superseded(term, self._do("SELECT term FROM coordinator").fetchall()[0][0]))

    def _do(self, statement: str, *values: object) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise Unusable(f"cannot write the store {self._file}: {error}") from None

    def _damaged(self, sentence: str) -> Unusable:
        reads = f"orchestrator store export {self._folder} reads what can be read"
        return Unusable(f"the store is damaged, and nothing is served from it: {sentence}; {reads}")

    def _cut_what_is_torn(self) -> None:
        """Nobody was told of it: it is the trace of a crash. What can't be that is left as it is, and refused."""
        file = wal.log_of(self._file)
        try:
            found = wal.examine(self._file)
            if found.damage:
                raise self._damaged(found.damage)
            if found.torn:
                with file.open("r+b") as opened:
                    opened.truncate(found.end)
                    os.fsync(opened.fileno())
                log.warning("the store %s was left in the middle of a group: the last %d bytes of %s are cut off",
                            self._folder, found.torn, file)  # fmt: skip
        except OSError as error:
            raise Unusable(f"cannot open the store {self._file}: {error.strerror}") from None

    def _opened(self) -> sqlite3.Connection:
        """A transaction is over when its statement is; nobody else is waited for."""
        try:
            database = sqlite3.connect(
                self._file,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_IN_A_STATEMENT + 20,
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
            if schema == 0:
                database.executescript(f"""
                    BEGIN;
                    CREATE TABLE coordinator (term INTEGER NOT NULL);
                    INSERT INTO coordinator VALUES (0);
                    CREATE TABLE tasks (
                        number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, keyed INTEGER NOT NULL, settled_at REAL,
                        task TEXT NOT NULL);
                    CREATE INDEX settled ON tasks (keyed, settled_at) WHERE settled_at IS NOT NULL;
                    PRAGMA user_version = {SCHEMA};
                    COMMIT;""")
            elif schema != SCHEMA:
                database.execute(f"PRAGMA user_version = {SCHEMA}")  # no earlier version is to read it from now on
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise self._damaged(f"{self._file}: {in_a_line(found)}")
            # What can be read may not be on the disk: its sync has failed, or was never begun. Nobody is told of it
            # before it has been written anew.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise Unusable(f"cannot open the store {self._file}: {error}") from None
            raise self._damaged(f"{self._file}: {error}") from None
        return database


def in_a_line(text: str) -> str:
    """What SQLite says of a database, without the line that says which one it is among one."""
    return " ".join(text.replace("*** in database main ***", "").split())


def locked(folder: Path, make: bool = False) -> IO[str]:
    """The folder's lock, which this process holds until it closes the file, or ends. Raises Unusable."""
    try:
        if make:
            _make(folder)
        file = (folder / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise Unusable(f"cannot use {folder} as a store: {error.strerror}") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        holder = file.read(20).strip() or "unknown"
        file.close()
        raise Unusable(f"another process uses the store {folder}: its id is {holder}") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


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
