"""Planted in a cluster's processes: its coordinators kill themselves where a test says, its workers tell what they run.

The environment names a folder. There the file `kill` holds a point and a number: the coordinator ends there in its
append, move or forgetting of that number, or when it has read so many tasks. Each execution becomes a line of
`executed`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.cluster import durability
from orchestrator.cluster.store import Numbered, SqliteStore
from orchestrator.core.worker import WorkerAgent

FOLDER = "KILL_POINTS"
POINTS = ("before the append", "before the commit", "before the fsync", "after the fsync")
MOVING = ("before the move", "during the move", "after the move")
FORGETTING = ("before the forgetting", "during the forgetting", "after the forgetting")
RECOVERY = ("before the term", "after the term", "during the reading")
KEPT = 200
"""Settled tasks that are remembered, so that there is something to forget."""
RECENT_BYTES = 6000
"""What groups may take, so that there is something to move."""
Patch = Callable[[Any, str, Any], None]


def plant(patch: Patch) -> None:
    kill_in_appends(patch)
    kill_in_moves(patch)
    kill_in_forgetting(patch)
    kill_in_recovery(patch)
    tell(patch)


def tell(patch: Patch) -> None:
    folder, execute = _folder(), WorkerAgent._execute

    def telling(self: WorkerAgent, key: Any, *arguments: Any) -> None:
        with (folder / "executed").open("a") as file:
            file.write(f"{key[0]}\n")
        execute(self, key, *arguments)

    patch(WorkerAgent, "_execute", telling)


def kill_in_appends(patch: Patch) -> None:
    append = SqliteStore.append_rows
    appended = 0

    def killing(self: SqliteStore, term: int, rows: Any) -> None:
        nonlocal appended
        appended += 1
        point = _point(appended)
        if point == "before the append":
            _die()
        elif point == "before the commit":
            self._recent_bytes = 1 << 30  # to move anything is a transaction of its own
            self._do("BEGIN")
        elif point == "before the fsync":
            self._do("PRAGMA synchronous = NORMAL")  # of the log: it is written, and not waited for
        append(self, term, rows)
        if point in POINTS:
            _die()

    patch(SqliteStore, "append_rows", killing)


def kill_in_moves(patch: Patch) -> None:
    begin, move, do = SqliteStore.__init__, SqliteStore._move, SqliteStore._do
    moved = 0

    def keeping_little(self: SqliteStore, folder: Path, **options: Any) -> None:
        begin(self, folder, RECENT_BYTES, **options)

    def killing(self: SqliteStore, oldest: Any) -> None:
        nonlocal moved
        moved += 1
        if _point(moved) == "before the move":
            _die()
        move(self, oldest)
        if _point(moved) == "after the move":
            _die()

    def doing(self: SqliteStore, statement: str, *values: object) -> Any:
        if statement == self._DROP and _point(moved) == "during the move":
            _die()
        return do(self, statement, *values)

    patch(SqliteStore, "__init__", keeping_little)
    patch(SqliteStore, "_move", killing)
    patch(SqliteStore, "_do", doing)


def kill_in_forgetting(patch: Patch) -> None:
    begin, forget = durability.Durability.__init__, SqliteStore.forget
    forgotten = 0

    def remembering_little(self: Any, store: Any, term: int, keep_s: float, _: float, keyed_s: float) -> None:
        begin(self, store, term, keep_s, KEPT * durability.RECORD_BYTES, keyed_s)

    def killing(self: SqliteStore, term: int, settled_until: float, keyed_until: float) -> None:
        nonlocal forgotten
        forgotten += 1
        point = _point(forgotten)
        if point == "before the forgetting":
            _die()
        elif point == "during the forgetting":
            self._do("BEGIN")
        forget(self, term, settled_until, keyed_until)
        if point in FORGETTING:
            _die()

    patch(durability, "FORGET_EVERY_S", 0.0)
    patch(durability.Durability, "__init__", remembering_little)
    patch(SqliteStore, "forget", killing)


def kill_in_recovery(patch: Patch) -> None:
    begin_term, numbered = SqliteStore.begin_term, SqliteStore.numbered

    def beginning(self: SqliteStore, at_least: int) -> int:
        if _point(0) == "before the term":
            _die()
        term = begin_term(self, at_least)
        if _point(0) == "after the term":
            _die()
        return term

    def reading(self: SqliteStore) -> Iterator[list[Numbered]]:
        read = 0
        for rows in numbered(self):
            for _ in rows:
                if _point(read) == "during the reading":
                    _die()
                read += 1
            yield rows

    patch(SqliteStore, "begin_term", beginning)
    patch(SqliteStore, "numbered", reading)


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _point(number: int) -> str:
    """The one that the test has chosen, where it is reached with that number."""
    point, _, chosen = (_folder() / "kill").read_text().rpartition(" ")
    return point if number == int(chosen) else ""


def _die() -> None:
    """The coordinator, and with it the process that writes its store, which is this one."""
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
