"""The driver's journal: what only the driver of a live run knows, written before it is done.

With the coordinator's decision record it makes a result of a run whose processes were all killed. JSON lines: a head
`{"began": ...}`, a list for each task that is submitted, and an object for each fault and for each task that is given
up. A run that ends in order removes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.rehearsal.record import Account, GivenUp, Injection
from orchestrator.results.folders import RunFolderError

NAME = "driver.jsonl"


class Journal:
    """Each line is handed to the system at once: of a process that is killed, nothing is lost."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)

    def begin(self, at: float) -> None:
        self._write({"began": at})

    def submit(self, arrival_s: float, service_s: float, priority: int, kind: str | None) -> None:
        self._write([arrival_s, float(service_s), priority, kind])

    def inject(self, injection: Injection) -> None:
        self._write(injection._asdict())

    def give_up(self, given_up: GivenUp) -> None:
        self._write({"given_up": given_up})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: Any) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")


def read(path: Path, ended: float, kinds: bool) -> Account:
    """What the driver of a killed run did until `ended`. `kinds`: tasks have some.

    Raises RunFolderError where that is not known.
    """
    try:
        # A last line whose end was never written is left out.
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
        began = lines[0]["began"]
        tasks = [line for line in lines[1:] if isinstance(line, list) and began + line[0] <= ended]
        others = [line for line in lines[1:] if isinstance(line, dict)]
        faults = [Injection(**line) for line in others if "given_up" not in line and line["at"] <= ended]
        given_up = [GivenUp(*line["given_up"]) for line in others if "given_up" in line]
        arrival_s, service_s, priority, names = zip(*tasks, strict=True)
    except OSError as error:
        raise RunFolderError(f"{path}: {error.strerror}: no live run was killed here") from None
    except (ValueError, TypeError, LookupError):
        raise RunFolderError(f"{path}: the run was killed before its first task, or the file is damaged") from None
    columns = (np.array(arrival_s), np.array(service_s), np.array(priority, dtype=np.uint8))
    return Account(began, ended, *columns, list(names) if kinds else None, faults, given_up)
