"""Recorded arrivals: which columns of a file a trace consists of, and how their values become seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from orchestrator.core.model import Priority
from orchestrator.policies.config import NonNegative, Strict
from orchestrator.scenario.datafiles import Columns, DataError, DataFile, Floats, read_columns, stamp

Unit = Literal["s", "ms", "us", "ns"]
Origin = Literal["zero", "first"]

PER_SECOND: dict[Unit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

MOST_KINDS, KIND_LENGTH = 100, 100
"""More different ones are no kinds, but names of tasks; and no name is longer."""
KIND_NAME = f"a name of at most {KIND_LENGTH} characters, all of them printable"
LATE = 0.1
"""The share of its length after which a trace begins late: what counts from 0 then counts much time without work."""


class TraceColumns(Strict):
    """The names that a trace's columns have in its file."""

    arrival_s: str = "arrival_s"
    """When a task arrived: a number, or an ISO 8601 time (in UTC where it names no zone)."""
    service_s: str | None = None
    """How long it ran; null: the column service_s, where there is one."""
    priority: str | None = None
    """low, normal, high, urgent, or 0 to 3; null: the column priority, where there is one."""
    kind: str | None = None
    """What kind of task it was: a word or a number; null: all are of one kind."""
    weight: str | None = None
    """How many slots it took (the processors of a batch job). A task here takes one slot, so its service time is
    multiplied by this, and the work stays what it was; null: 1."""


class TraceFile(Strict):
    """A file of recorded arrivals, and how to read it."""

    file: DataFile
    """CSV, Parquet or the Standard Workload Format; a text may be compressed with gzip."""
    columns: TraceColumns = TraceColumns()
    """What the columns are called."""
    unit: Unit = "s"
    """What the file's arrival_s and service_s count: s, ms, us or ns."""
    origin: Origin = "zero"
    """Arrival times count from the file's own zero, or from the first arrival. ISO times count from the first."""
    sort: bool = False
    """Put rows in the order of their arrival; otherwise one that goes back in time is an error."""
    seconds_per: dict[str, NonNegative] = Field(default_factory=dict)
    """Service time from other columns: seconds for each unit of a column, summed, as in {GeneratedTokens: 0.02}."""

    def data(self) -> TraceData:
        """What is in the file. DataError where it is no such trace."""
        return _read(
            self.file,
            stamp(self.file),
            self.columns,
            self.unit,
            self.origin,
            self.sort,
            tuple(sorted(self.seconds_per.items())),
        )

    def recorded_s(self) -> Floats:
        """Arrival times in the order of the file, counted from its own zero; ISO times count from 1970. DataError."""
        table = read_columns(self.file, _wanted(self.columns, self.seconds_per))
        name = self.columns.arrival_s
        if table.has_moments(name):
            return np.array([moment.timestamp() for moment in table.moments(name)])
        return table.numbers(name, negative=True) / PER_SECOND[self.unit]


@dataclass(frozen=True)
class TraceData:
    """A trace's columns, in the order of arrival; None where the file has no such column."""

    arrival_s: Floats
    service_s: Floats | None = None
    """Weighted."""
    priority: NDArray[np.uint8] | None = None
    kind: NDArray[np.int32] | None = None
    """Positions in `kinds`."""
    kinds: tuple[str, ...] = ()
    """The names of the kinds, in the order of the alphabet."""
    left_out: int = 0
    """Rows in which a value is not known."""

    @property
    def has_service(self) -> bool:
        return self.service_s is not None


@lru_cache(maxsize=4)
def _read(
    file: str,
    stamp: tuple[int, int],
    columns: TraceColumns,
    unit: Unit,
    origin: Origin,
    sort: bool,
    seconds_per: tuple[tuple[str, float], ...],
) -> TraceData:
    service, priority = columns.service_s or "service_s", columns.priority or "priority"
    per = dict(seconds_per)
    table = read_columns(file, _wanted(columns, per))
    arrival_s = _arrivals(table, columns.arrival_s, unit, origin)
    service_s: Floats | None = None
    if per:
        service_s = np.sum([table.numbers(name) * seconds for name, seconds in per.items()], axis=0)
    elif columns.service_s or service in table:
        service_s = table.numbers(service) / PER_SECOND[unit]
    if columns.weight:
        weight = table.numbers(columns.weight)
        service_s = None if service_s is None else service_s * weight
    codes = _priority_codes(table, priority) if columns.priority or priority in table else None
    kinds, kind = _kinds(table, columns.kind) if columns.kind else ((), None)
    if not sort:
        _refuse_unsorted(table, columns.arrival_s, arrival_s)
    order = np.argsort(arrival_s, kind="stable") if sort else slice(None)
    return TraceData(
        arrival_s[order],
        None if service_s is None else service_s[order],
        None if codes is None else codes[order],
        None if kind is None else kind[order],
        kinds,
        table.left_out,
    )


def _wanted(columns: TraceColumns, seconds_per: Mapping[str, float]) -> list[str]:
    service = [*seconds_per] or [columns.service_s or "service_s"]
    others = [name for name in (columns.kind, columns.weight) if name]
    return [columns.arrival_s, columns.priority or "priority", *service, *others]


def _arrivals(table: Columns, name: str, unit: Unit, origin: Origin) -> Floats:
    if table.has_moments(name):
        moments = table.moments(name)
        first = min(moments)
        return np.array([(moment - first).total_seconds() for moment in moments])
    times = table.numbers(name, negative=origin == "first")
    if origin == "first":
        times = times - times.min()
    return times / PER_SECOND[unit]


def _refuse_unsorted(table: Columns, name: str, arrival_s: Floats) -> None:
    back = np.diff(arrival_s) < 0
    if back.any():
        row = int(np.argmax(back)) + 1
        before, here = table.values[name][row - 1 : row + 1]
        words = f"has {here} as {name} after {before}, expected times that never go back, or sort: true"
        raise table.error(row, name, words)


def is_kind(name: str) -> bool:
    """Whether it can be the name of a kind of tasks, which KIND_NAME says in words."""
    return 0 < len(name) <= KIND_LENGTH and name.isprintable()


def _kinds(table: Columns, name: str) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """The names, and of each row its position among them. DataError where they are too many, or no names."""
    values = [str(value).strip() for value in table.column(name)]
    names = sorted(set(values))
    if len(names) > MOST_KINDS:
        raise DataError(f"column {name} of {table.base} has {len(names)} kinds, expected at most {MOST_KINDS}")
    position = {word: place for place, word in enumerate(names)}
    for word in names:
        if not is_kind(word):
            words = f"has {word[:KIND_LENGTH]!r} as {name}, expected {KIND_NAME}"
            raise table.error(values.index(word), name, words)
    return tuple(names), np.array([position[value] for value in values], dtype=np.int32)


def _priority_codes(table: Columns, name: str) -> NDArray[np.uint8]:
    names = {priority.name.lower(): priority.value for priority in Priority}
    code_of: dict[object, int] = {}
    for word, code in names.items():
        code_of |= {word: code, str(code): code, code: code}
    given = table.column(name)
    codes = [code_of.get(value.strip().lower() if isinstance(value, str) else value) for value in given]
    if None in codes:
        row = codes.index(None)
        raise table.error(row, name, f"has {given[row]!r} as {name}, expected {', '.join(names)} or 0 to 3")
    return np.array(codes, dtype=np.uint8)
