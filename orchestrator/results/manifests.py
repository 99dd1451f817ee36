"""The manifest of a folder: what was written there. Only that is ever removed or replaced.

A file is listed before it is written, and its size and SHA-256 once it is complete, so that a file that a person has
edited since is noticed and kept. An entry without them stands for a file that is being written, or was when its
process was killed, or whose content depends on the clock.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

NAME = "manifest.json"
PART = ".part"
LATEST = "latest"


class RunFolderError(Exception):
    """A folder holds no run, a damaged run, or a file that must not be replaced. One sentence."""


@dataclass
class Manifest:
    """Of one folder. `folders`: those below it, by relative path, that have a manifest of their own.

    `identity`: what tells the run from any other one, see `folders.identity`.
    """

    folder: Path
    identity: str | None = None
    files: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """None where there is none. Raises RunFolderError if it is damaged."""
        path = folder / NAME
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            manifest = cls(folder, told["identity"], told["files"], told["folders"])
            listed = [*manifest.files, *manifest.folders]
            entries = [entry for entry in manifest.files.values() if entry is not None]
            sound = all(map(_is_below, listed)) and all({"bytes", "sha256"} <= entry.keys() for entry in entries)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            sound = False
        if not sound:
            raise RunFolderError(f"{path} is damaged: it does not say what was written into its folder")
        return manifest

    @classmethod
    def of(cls, folder: Path) -> Manifest:
        """That of the folder, or an empty one."""
        return cls.read(folder) or cls(folder)

    def write(self) -> None:
        told = {"identity": self.identity, "files": dict(sorted(self.files.items())), "folders": sorted(self.folders)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / NAME, json.dumps(told, indent=1) + "\n")

    def claim(self, names: Iterable[str]) -> None:
        """List files before they are written. Raises RunFolderError for one that is there and is not as it was written
        by this program."""
        names = list(names)
        for name in names:
            if (self.folder / name).exists() and (name not in self.files or self._is_edited(name)):
                raise RunFolderError(f"{self.folder / name} was not written by a run, or was changed since: move it")
        self.files |= dict.fromkeys(names)
        self.write()

    def seal(self, names: Iterable[str]) -> None:
        """List files with their sizes and digests, now that they are complete."""
        self.files |= {name: _measured(self.folder / name) for name in names}
        self.write()

    def edited(self) -> Iterator[Path]:
        """Files that are not as they were written, also in the folders below."""
        for name in self.files:
            if self._is_edited(name):
                yield self.folder / name
        for below in self.below():
            yield from below.edited()

    def below(self) -> Iterator[Manifest]:
        for name in self.folders:
            if (manifest := Manifest.read(self.folder / name)) is not None:
                yield manifest

    def remove(self, keep: Collection[str] = ()) -> None:
        """Remove what is listed, here and below, except for the folders in `keep`; and the folders that are then empty.
        RunFolderError, before anything is removed, if a person has edited a file."""
        if edited := next(self.edited(), None):
            raise RunFolderError(f"{edited} was changed since a run wrote it: move it, or choose another folder")
        for name in self.folders:
            if name not in keep:
                if (below := Manifest.read(self.folder / name)) is not None:
                    below.remove()
                (self.folder / name / (NAME + PART)).unlink(missing_ok=True)
                for emptied in (self.folder / name, *(self.folder / name).parents):
                    if emptied == self.folder or not emptied.is_dir() or any(emptied.iterdir()):
                        break
                    emptied.rmdir()
        for name in sorted(self.files, key=lambda name: name != "summary.json"):  # without it, a folder is incomplete
            for path in _with_parts(self.folder / name):
                path.unlink(missing_ok=True)
        self.files.clear()
        self.folders = [name for name in self.folders if name in keep]
        if not self.folders:
            (self.folder / NAME).unlink(missing_ok=True)
        else:
            self.write()

    def remove_pictures(self) -> None:
        """Remove the listed pictures alone, before others are drawn."""
        pictures = [name for name in self.files if name.endswith((".png", ".svg"))]
        if not pictures:
            return
        self.claim(pictures)
        for name in pictures:
            (self.folder / name).unlink(missing_ok=True)
            del self.files[name]
        self.write()

    def _is_edited(self, name: str) -> bool:
        entry, path = self.files[name], self.folder / name
        if not path.is_file():
            return path.exists() or path.is_symlink()  # something else is in its place
        return entry is not None and (path.stat().st_size != entry["bytes"] or _measured(path) != entry)


@contextmanager
def writing(folder: Path, names: Collection[str]) -> Iterator[None]:
    """List files that the block writes. Raises RunFolderError, see `Manifest.claim`."""
    manifest = Manifest.of(folder)
    manifest.claim(names)
    yield
    manifest.seal(names)


def write_whole(path: Path, text: str) -> None:
    """The file appears complete or not at all."""
    part = path.with_name(path.name + PART)
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def write_json(folder: str | Path, name: str, data: Mapping[str, Any]) -> None:
    """A listed file of its own in the folder, which is made if it does not exist. Raises RunFolderError, see
    `Manifest.claim`."""
    with writing(Path(folder), [name]):
        write_whole(Path(folder) / name, json_text(data))


def json_text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def measured(text: str) -> dict[str, Any]:
    """The entry of a file with this text."""
    data = text.encode()
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _measured(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _with_parts(path: Path) -> Iterator[Path]:
    """A listed file, what was to become it, and the numbered parts of one that was continued."""
    yield path
    yield path.with_name(path.name + PART)
    if path.suffix == ".jsonl":
        yield from (part for part in path.parent.glob(f"{path.name}.*") if part.suffix[1:].isdecimal())


# ---- numbered folders


def numbered(parent: Path) -> Path:
    """A new folder PARENT/1, PARENT/2, ..., to which PARENT/latest then leads. Two processes get two folders."""
    parent.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(parent), default=0)
    while True:
        number += 1
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:
            continue
        _lead(parent, number)
        return parent / str(number)


def latest(parent: Path) -> Path | None:
    """The folder that was made last below `parent`; None if there is none."""
    pointer = parent / LATEST
    try:
        number = os.readlink(pointer) if pointer.is_symlink() else pointer.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    folder = parent / number
    return folder if re.fullmatch(r"[1-9][0-9]*", number) and folder.is_dir() else None


def withdraw(folder: Path) -> None:
    """Remove a numbered folder if nothing was written into it."""
    parent = folder.parent
    try:
        folder.rmdir()
    except OSError:
        return
    if numbers := _numbers(parent):
        _lead(parent, max(numbers))
        return
    if _is_pointer(parent / LATEST):
        (parent / LATEST).unlink(missing_ok=True)
    if not any(parent.iterdir()):
        parent.rmdir()


def _numbers(parent: Path) -> list[int]:
    return [int(path.name) for path in parent.iterdir() if re.fullmatch(r"[1-9][0-9]{0,17}", path.name)]


def _lead(parent: Path, number: int) -> None:
    """A symbolic link; where there can be none, a file with the number."""
    pointer, new = parent / LATEST, parent / f".{LATEST}-{number}"
    if (pointer.exists() or pointer.is_symlink()) and not _is_pointer(pointer):
        return  # a person's own
    try:
        new.symlink_to(str(number), target_is_directory=True)
    except (OSError, NotImplementedError):
        new.write_text(f"{number}\n", encoding="utf-8")
    os.replace(new, pointer)


def _is_pointer(path: Path) -> bool:
    if path.is_symlink():
        return re.fullmatch(r"[1-9][0-9]*", os.readlink(path)) is not None
    return (
        path.is_file() and path.stat().st_size < 30 and re.fullmatch(rb"[1-9][0-9]*\n", path.read_bytes()) is not None
    )
