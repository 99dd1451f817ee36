"""Planted in a cluster's processes: its coordinators kill themselves where a test says, its workers tell what they run.

The environment names a folder. There the file `kill` holds a point and a number: the coordinator ends there in its
append of that number. Each execution becomes a line of `executed`.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from orchestrator.cluster.store import SqliteStore
from orchestrator.core.worker import WorkerAgent

FOLDER = "KILL_POINTS"
POINTS = ("before the append", "before the commit", "after the commit")


def plant(patch: Any) -> None:
    folder = Path(os.environ[FOLDER])
    append, execute = SqliteStore.append, WorkerAgent._execute
    appended = 0

    def killing(self: SqliteStore, term: int, tasks: Any) -> None:
        nonlocal appended
        appended += 1
        point, _, number = (folder / "kill").read_text().rpartition(" ")
        point = point if appended == int(number) else ""
        if point == POINTS[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        if point == POINTS[1]:
            self._do("BEGIN")
        append(self, term, tasks)
        if point:
            os.kill(os.getpid(), signal.SIGKILL)

    def telling(self: WorkerAgent, key: Any, *arguments: Any) -> None:
        with (folder / "executed").open("a") as file:
            file.write(f"{key[0]}\n")
        execute(self, key, *arguments)

    patch(SqliteStore, "append", killing)
    patch(WorkerAgent, "_execute", telling)
