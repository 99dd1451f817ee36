"""The format of a decision record: its head, its lines, and the names of its parts."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from types import EllipsisType, UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from orchestrator.cluster.jobs import Job
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import INPUTS
from orchestrator.core.model import TimeLimits
from orchestrator.core.ports import Effects
from orchestrator.policies.settings import Policies, build_coordinator

HEAD, CONTINUES, CLOSED = b'{"policies":', b'{"continues":', b'{"closed":'
"""What these lines begin with."""
LINE_BYTES = 256 << 20
"""No coordinator writes a line as long as that."""


class Head(NamedTuple):
    """All that builds the same core again. `begun_at`: when the process began, in UTC."""

    policies: Policies
    seed: int
    replication: int
    built: dict[str, Any]
    begun_at: str = ""

    def build(self, effects: Effects) -> Coordinator:
        return build_coordinator(self.policies, effects, self.seed, self.replication, **self.built)


def part_of(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def texts_of(part: Path) -> Iterator[bytes]:
    """Its lines. Raises ValueError for a file without an end, or with another beginning than a record's, before it has
    read more than one line."""
    if not stat.S_ISREG(part.stat().st_mode):
        raise ValueError(f"{part} is not a decision record: it is no regular file")
    with part.open("rb") as file:
        begun = file.read(max(len(HEAD), len(CONTINUES))).partition(b"\n")[0]
        if not any(begun.startswith(kind) or kind.startswith(begun) for kind in (HEAD, CONTINUES)):
            raise no_record(part)
        file.seek(0)
        while text := file.readline(LINE_BYTES):
            if len(text) == LINE_BYTES:
                raise ValueError(f"{part} is not a decision record: a line has more than {LINE_BYTES >> 20} MiB")
            yield text


def no_record(part: Path) -> ValueError:
    return ValueError(f"{part} is not a decision record: its first line has no policies")


def numbers_of_parts(path: Path) -> list[int]:
    """The numbers of the parts that are complete, in their order."""
    found = (re.fullmatch(re.escape(path.name) + r"\.([1-9]\d*)", beside.name) for beside in path.parent.iterdir())
    return sorted(int(match[1]) for match in found if match)


class Line(NamedTuple):
    """As it stands in a part, with its end."""

    part: Path
    number: int
    text: bytes

    @property
    def finished(self) -> bool:
        """Not the rest of one that was begun when its process was killed, or the disk became full."""
        try:
            json.loads(self.text)
        except ValueError:
            return False
        return True

    def parsed(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError as error:
            raise ValueError(f"{self.part}:{self.number}: {error}") from None


class Stretch(NamedTuple):
    """Of a part: from a line, which begins at an offset, to another offset."""

    part: Path
    line: int
    begin: int
    end: float


def complete(line: Line, following: Iterator[Line]) -> Any:
    """What it says; None for the last line of a process, if that was killed before the line was complete."""
    try:
        if line.text.endswith(b"\n"):
            return line.parsed()
        reason = ValueError(f"{line.part}:{line.number}: the line ends too early")
    except ValueError as error:
        reason = error
    if next(following, None) is None:
        return None
    raise reason


class Decoder:
    """From JSON to the types that an input's signature names: tuples and records are lists there."""

    def __init__(self, task_id: Callable[[str], Hashable]) -> None:
        self._task_id = task_id

    def arguments(self, name: str, values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(map(self._decoded, _parameter_types(name), values))

    def _decoded(self, kind: Any, value: Any) -> Any:
        if kind is Hashable:
            return self._task_id(value)
        if kind is TimeLimits and isinstance(value, (int, float)):
            return TimeLimits(execution_timeout_s=value)  # as former versions wrote it
        if kind is object and isinstance(value, list):
            return Job(*value)  # what a task is to the core is a job in this world
        if isinstance(value, list):
            if hasattr(kind, "_fields"):
                return kind(*map(self._decoded, _field_types(kind), value))
            if get_origin(kind) is tuple:
                of = get_args(kind)
                kinds = [of[0]] * len(value) if isinstance(of[-1], EllipsisType) else of
                return tuple(map(self._decoded, kinds, value))
        return value


@cache
def _parameter_types(name: str) -> tuple[Any, ...]:
    method = INPUTS[name]
    types = get_type_hints(method)
    parameters = list(signature(method).parameters)[1:-1]  # not self, nor now
    return tuple(_if_there(types[parameter]) for parameter in parameters)


@cache
def _field_types(record: Any) -> tuple[Any, ...]:
    return tuple(map(_if_there, get_type_hints(record).values()))


def _if_there(kind: Any) -> Any:
    """Of a record that may be missing, the record."""
    return (
        next((one for one in get_args(kind) if hasattr(one, "_fields")), kind) if isinstance(kind, UnionType) else kind
    )
