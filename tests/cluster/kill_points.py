"""Planted in a cluster's processes: its coordinators kill themselves where a test says, its workers tell what they run.

The environment names a folder. There the file `kill` holds a point and a number: the coordinator ends there in its
append or forgetting of that number, or when it has read so many tasks. Each execution becomes a line of `executed`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.cluster import durability
from orchestrator.cluster.store import Kept, SqliteStore
from orchestrator.core.worker import WorkerAgent

FOLDER = "KILL_POINTS"
POINTS = ("before the append", "before the commit", "before the fsync", "after the fsync")
FORGETTING = ("before the forgetting", "during the forgetting", "after the forgetting")
RECOVERY = ("before the term", "after the term", "during the reading")
KEPT = 200
"""Settled tasks that are remembered, so that there is something to forget."""
Patch = Callable[[Any, str, Any], None]


def plant(patch: Patch) -> None:
    kill_in_appends(patch)
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
    append = SqliteStore.append
    appended = 0

    def killing(self: SqliteStore, term: int, tasks: Any) -> None:
        nonlocal appended
        appended += 1
        point = _point(appended)
        if point == "before the append":
            _die()
        elif point == "before the commit":
            self._do("BEGIN")
        elif point == "before the fsync":
            self._do("PRAGMA synchronous = NORMAL")  # of the log: it is written, and not waited for
        append(self, term, tasks)
        if point in POINTS:
            _die()

    patch(SqliteStore, "append", killing)


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
    begin_term, tasks = SqliteStore.begin_term, SqliteStore.tasks

    def beginning(self: SqliteStore, at_least: int) -> int:
        if _point(0) == "before the term":
            _die()
        term = begin_term(self, at_least)
        if _point(0) == "after the term":
            _die()
        return term

    def reading(self: SqliteStore) -> Iterator[Kept]:
        for number, task in enumerate(tasks(self)):
            if _point(number) == "during the reading":
                _die()
            yield task

    patch(SqliteStore, "begin_term", beginning)
    patch(SqliteStore, "tasks", reading)


def _folder() -> Path:
    return Path(os.environ[FOLDER])


def _point(number: int) -> str:
    """The one that the test has chosen, where it is reached with that number."""
    point, _, chosen = (_folder() / "kill").read_text().rpartition(" ")
    return point if number == int(chosen) else ""


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
