"""What can be read of a store that no coordinator uses, whole or damaged. Nothing of it is changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.cluster import wal
from orchestrator.cluster.store import DATABASE, READABLE, SCHEMA, Kept, Unusable, in_a_line, kept, kept_of_many, locked

MISSES = 10_000
"""So many numbers, behind damage, are tried one by one."""


class Contents:
    """`term`: of the last coordinator, None where that can't be read. `torn`: how many bytes the next one will cut off.
    `problems`: a sentence for each thing that is damaged, those that `tasks` comes across included.

    Raises Unusable where there is no store, or somebody uses it, or nothing can be read without changing it.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / DATABASE
        shared = folder / f"{DATABASE}-shm"
        if not self._file.exists():
            raise Unusable(f"{folder} holds no store: there is no {DATABASE} in it")
        self._lock = locked(folder)
        self._shared = None if shared.exists() else shared
        self.problems: list[str] = []
        self.term: int | None = None
        self._has_groups = True
        try:
            log = wal.examine(self._file)
            if log.damage and not self._file.stat().st_size:
                raise Unusable(log.damage)
            # Where there is no log, nothing has to be shared, and no file is made for that.
            how = "mode=ro" if wal.log_of(self._file).exists() else "immutable=1"
            self._database = sqlite3.connect(f"file:{quote(str(self._file))}?{how}", uri=True, isolation_level=None)
        except (OSError, sqlite3.Error, Unusable) as error:
            self._lock.close()
            raise Unusable(f"cannot read the store {self._file}: {error}") from None
        self.torn = log.torn
        if log.damage:
            self.problems.append(log.damage)
        self._examine()

    def tasks(self) -> Iterator[Kept]:
        """As they were accepted, as far as they can be read."""
        newest = self._newest()
        for number, text in self._rows("task", "tasks"):
            try:
                task = kept(text)
            except (ValueError, TypeError) as error:
                self.problems.append(f"{self._file}: what is stored as number {number} is no task: {error}")
            else:
                yield newest.pop(task.id, task)
        yield from newest.values()

    def _newest(self) -> dict[str, Kept]:
        """The tasks of which groups hold how they are now."""
        found: dict[str, Kept] = {}
        for number, text in self._rows("tasks", "groups") if self._has_groups else ():
            try:
                found.update((task.id, task) for task in kept_of_many(text))
            except (ValueError, TypeError) as error:
                self.problems.append(f"{self._file}: what is stored as group {number} is none: {error}")
        return found

    def close(self) -> None:
        self._database.close()
        if self._shared is not None:
            self._shared.unlink(missing_ok=True)
        self._lock.close()

    def _examine(self) -> None:
        try:
            (schema,) = self._database.execute("PRAGMA user_version").fetchone()
            if schema not in (0, *READABLE):
                self.problems.append(f"{self._file} is of another version: its schema is {schema}, expected {SCHEMA}")
            tables = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            self._has_groups = ("groups",) in tables
            found = [text for (text,) in self._database.execute("PRAGMA integrity_check(10)")]
            self.problems += [f"{self._file}: {in_a_line(text)}" for text in found if text != "ok"]
            self.term = self._database.execute("SELECT term FROM coordinator").fetchone()[0]
        except (sqlite3.Error, TypeError) as error:
            self.problems.append(f"{self._file}: {in_a_line(str(error))}")

    def _rows(self, column: str, table: str) -> Iterator[tuple[int, Any]]:
        """As far as that goes, and on behind what can't be read: a page that is damaged hides only its own."""
        rows = f"SELECT number, {column} FROM {table} WHERE number > ? ORDER BY number"
        row: tuple[int, Any] | None = None
        last, told = 0, False
        while True:
            try:
                for row in self._database.execute(rows, (last,)):
                    last = row[0]
                    yield row
                return
            except sqlite3.Error as error:
                if not told:
                    what = "number" if table == "tasks" else "group"
                    self.problems.append(f"{self._file}: behind {what} {last}: {in_a_line(str(error))}")
                    told = True
            row = self._next(f"{rows} LIMIT 1", last)
            if row is None or row[0] <= last:
                return
            yield row
            last = row[0]

    def _next(self, rows: str, last: int) -> tuple[int, Any] | None:
        """The first row behind that number that can be read. One after the other, so that nothing is left out; behind a
        large gap in steps that double, and back to where the last one came from."""

        def behind(number: int) -> list[tuple[int, Any]] | None:
            try:
                return self._database.execute(rows, (number,)).fetchall()
            except sqlite3.Error:
                return None

        number, step, misses = last, 1, 0
        while (found := behind(number)) is None:
            misses += 1
            step *= 1 if misses < MISSES else 2
            if number + step >= 1 << 62:
                return None
            number += step
        lowest = number - step + 1
        while lowest < number:
            middle = (lowest + number) // 2
            nearer = behind(middle)
            lowest, number, found = (lowest, middle, nearer) if nearer is not None else (middle + 1, number, found)
        return found[0] if found else None
