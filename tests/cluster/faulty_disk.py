"""A disk that is watched, and that fails when a test says so: `faulty_disk.c`, preloaded into processes."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from orchestrator.cluster.store import DATABASE

SOURCE = Path(__file__).with_suffix(".c")
NAMES = {"d": DATABASE, "w": f"{DATABASE}-wal", "a": f"{DATABASE}-acked"}
HEAD = struct.Struct("<ccQQ")


class Change(NamedTuple):
    """`what`: w, t, s or f: written, truncated to `at`, synced, failed to sync. `file`: by its name."""

    what: str
    file: str
    at: int
    data: bytes


class FaultyDisk:
    """Of the database in a folder, for processes that are started while `environment` is theirs."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("there is no C compiler (cc): no disk can be made to fail")
        library = scratch / "faulty_disk.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self._trace = scratch / "trace"
        self._fails = scratch / "fails"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAULTY_DISK": str(folder / DATABASE),
            "FAULTY_DISK_TRACE": str(self._trace),
            "FAULTY_DISK_FAILS": str(self._fails),
        }

    def fail(self, calls: str, error: int) -> None:
        """From now on. `calls`: w or s, writes or syncs."""
        assert error in errno.errorcode
        new = self._fails.with_suffix(".new")
        new.write_text(f"{calls} {error}")
        os.replace(new, self._fails)

    def heal(self) -> None:
        self._fails.unlink()

    def changes(self) -> Iterator[Change]:
        data, at = self._trace.read_bytes(), 0
        while at < len(data):
            what, file, offset, length = HEAD.unpack_from(data, at)
            at += HEAD.size
            yield Change(what.decode(), NAMES[file.decode()], offset, data[at : at + length])
            at += length


class Written:
    """A file as the next process finds it (`now`), what of that is certain to outlive the power (`durable`), and what
    has become of it since then (`pending`)."""

    def __init__(self, data: bytes = b"") -> None:
        self.now = bytearray(data)
        self.durable = bytearray(data)
        self.pending: list[Change] = []

    def take(self, change: Change) -> None:
        if change.what in "wt":
            apply(change, self.now)
            self.pending.append(change)
            return
        if change.what == "s":
            for each in self.pending:
                apply(each, self.durable)
        # After a sync that failed the kernel takes what it could not write for written.
        self.pending.clear()


def apply(change: Change, data: bytearray) -> None:
    if change.what == "t":
        del data[change.at :]
    data.extend(bytes(max(0, change.at - len(data))))
    data[change.at : change.at + len(change.data)] = change.data


def lay(folder: Path, contents: dict[str, bytes]) -> Path:
    """These files, and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder
