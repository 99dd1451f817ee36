"""The three tables of a run: every task, every attempt, every event. Their schemas, their words and their files.

Both worlds write the same Arrow tables. Seconds are float64, counted from the start of the run; null stands for what
never happened. Columns of names (priority, state, outcome, kind, worker, detail) are dictionaries, so a row costs one
code; `codes` returns these codes as positions in a list of the caller's choice. The
metadata of each field gives its unit and its meaning (see `columns`), also in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.core.model import Outcome, Priority, WorkerEvent
from orchestrator.results.columns import COLUMNS


class State(StrEnum):
    """How a task stands at the end of the run."""

    COMPLETED = "completed"
    FAILED = "failed"
    UNFINISHED = "unfinished"


class FaultEvent(StrEnum):
    """The kinds of events that a driver adds to the coordinator's: a fault begins or, with HEAL, one ends.

    A drain and a join have no kind here: the coordinator's own events (WorkerEvent) show them.
    """

    CRASH = "crash"
    PAUSE = "pause"
    RESTART = "restart"
    SLOW = "slow"
    HANG = "hang"
    PARTITION = "partition"
    DELAY = "delay"
    LOSS = "loss"
    DUPLICATE = "duplicate"
    COORDINATOR_PAUSE = "coordinator_pause"
    COORDINATOR_CRASH = "coordinator_crash"
    HEAL = "heal"


class CoordinatorEvent(StrEnum):
    """What is seen of a coordinator that comes in the place of another one."""

    RECOVERED = "recovered"
    """It has read what the one before had stored."""
    LOST = "lost"
    """It does not know what a client was told."""


class HealDetail(StrEnum):
    """What ended a fault of the process. The end of any other fault has the fault's kind as its detail."""

    RESTART = "restart"
    """A new process of the worker began."""
    RESUME = "resume"
    """The paused process went on."""


PRIORITIES = tuple(priority.name.lower() for priority in Priority)
STATES = tuple(state.value for state in State)
OUTCOMES = tuple(outcome.name.lower() for outcome in Outcome)
FAULTS = tuple(kind for kind in FaultEvent if kind is not FaultEvent.HEAL)
"""The kinds of events with which a fault begins."""
RARE_KINDS: tuple[str, ...] = (
    WorkerEvent.FORGOTTEN,
    FaultEvent.COORDINATOR_CRASH,
    CoordinatorEvent.RECOVERED,
    CoordinatorEvent.LOST,
)
"""Kinds that stand in the dictionary of a table only if they occur: a longer one would change every table's bytes."""
EVENT_KINDS: tuple[str, ...] = (
    WorkerEvent.UP,
    WorkerEvent.SUSPECT,
    WorkerEvent.DEAD,
    WorkerEvent.DRAIN,
    WorkerEvent.LEFT,
    FaultEvent.HEAL,
    WorkerEvent.EJECTED,
    WorkerEvent.READMITTED,
    *(kind for kind in FAULTS if kind not in RARE_KINDS),
)
"""The dictionary of the column `kind` in every table."""
_ENDED_BY: dict[str, tuple[str, ...]] = {
    HealDetail.RESTART: (FaultEvent.CRASH, FaultEvent.RESTART, FaultEvent.PAUSE),
    HealDetail.RESUME: (FaultEvent.PAUSE,),
}

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]

_ENUM = pa.dictionary(pa.int8(), pa.string())
_NAME = pa.dictionary(pa.int32(), pa.string())


def _described(table: str, fields: Sequence[pa.Field]) -> pa.Schema:
    about = COLUMNS[table]
    return pa.schema([field.with_metadata(about[field.name]._asdict()) for field in fields])


TASKS = _described(
    "tasks",
    [
        pa.field("task", pa.int64(), nullable=False),
        pa.field("priority", _ENUM, nullable=False),
        pa.field("arrival_s", pa.float64(), nullable=False),
        pa.field("accepted_s", pa.float64()),
        pa.field("started_s", pa.float64()),
        pa.field("settled_s", pa.float64()),
        pa.field("latency_s", pa.float64()),
        pa.field("wait_s", pa.float64()),
        pa.field("service_s", pa.float64()),
        pa.field("state", _ENUM, nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("worker", _NAME),
    ],
)
ATTEMPTS = _described(
    "attempts",
    [
        pa.field("task", pa.int64(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False),
        pa.field("worker", _NAME, nullable=False),
        pa.field("assigned_s", pa.float64(), nullable=False),
        pa.field("started_s", pa.float64()),
        pa.field("given_up_s", pa.float64()),
        pa.field("ended_s", pa.float64()),
        pa.field("ran_s", pa.float64()),
        pa.field("outcome", _ENUM, nullable=False),
        pa.field("settled", pa.bool_(), nullable=False),
    ],
)
EVENTS = _described(
    "events",
    [
        pa.field("time_s", pa.float64(), nullable=False),
        pa.field("kind", _ENUM, nullable=False),
        pa.field("worker", _NAME),
        pa.field("detail", _NAME),
    ],
)
KIND = _described("tasks", [pa.field("kind", _NAME)]).field("kind")
"""The last column of the tasks of a run with kinds; without them, there is none."""
SCHEMAS = {"tasks": TASKS, "attempts": ATTEMPTS, "events": EVENTS}
FILES = tuple(f"{name}.parquet" for name in SCHEMAS)

_ENUMS: dict[str, Sequence[str]] = {
    "priority": PRIORITIES,
    "state": STATES,
    "outcome": OUTCOMES,
    "kind": EVENT_KINDS,
}


class Event(NamedTuple):
    """One row of the events table; `worker` is None for what happened to the coordinator."""

    time_s: float
    kind: str
    worker: str | None
    detail: str | None


def event_rows(events: pa.Table, kinds: Sequence[str] | None = None) -> Iterator[Event]:
    """The rows of an events table, in the order of time. `kinds`: only those, which costs little where they are few."""
    if kinds is not None:
        chosen = pc.index_in(events.column("kind").cast(pa.string()), pa.array(kinds, pa.string()))
        events = events.filter(pc.is_valid(chosen))
    columns = (events.column(name).to_pylist() for name in Event._fields)
    return map(Event._make, zip(*columns, strict=True))


def faults_ended_by(detail: str | None) -> tuple[str, ...]:
    """The kinds of faults that a HEAL event with this detail ends."""
    return () if detail is None else _ENDED_BY.get(detail, (detail,))


@dataclass(frozen=True)
class Tables:
    """The three tables of one run, with the schemas TASKS, ATTEMPTS and EVENTS.

    `ended_s`: when the run ended, which may be after all that stands in them; `summary.json` keeps it. None: not known.
    """

    tasks: pa.Table
    attempts: pa.Table
    events: pa.Table
    ended_s: float | None = None

    @classmethod
    def from_columns(
        cls,
        tasks: Columns,
        attempts: Columns,
        events: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
        workers: Sequence[str],
        ended_s: float | None = None,
    ) -> Tables:
        """Tables from plain columns. Rows may come in any order; columns of floats are not copied.

        `tasks` and `attempts` hold the columns of their schemas without `latency_s` and `wait_s`, which are computed.
        NaN stands for what never happened. `worker` is a position in `workers`, -1 for none. `priority`, `state` and
        `outcome` are positions in PRIORITIES, STATES and OUTCOMES. `events` holds `time_s`, `kind` (strings),
        `worker` (positions, -1 for none) and `detail` (strings or None). KeyError for a kind that is not in
        EVENT_KINDS or RARE_KINDS.
        """
        tasks = _sorted(tasks, ("task",))
        attempts = _sorted(attempts, ("task", "attempt"))
        derived = {
            "latency_s": tasks["settled_s"] - tasks["arrival_s"],
            "wait_s": tasks["started_s"] - tasks["arrival_s"],
        }
        details = list(dict.fromkeys(detail for detail in events["detail"] if detail is not None))
        kinds = [*EVENT_KINDS, *(kind for kind in RARE_KINDS if kind in events["kind"])]
        coded: Columns = {
            "time_s": np.asarray(events["time_s"], dtype=np.float64),
            "kind": _positions(events["kind"], kinds),
            "worker": np.asarray(events["worker"], dtype=np.int32),
            "detail": _positions(events["detail"], details),
        }
        return cls(
            tasks=_table(TASKS, {**tasks, **derived}, {"worker": workers}),
            attempts=_table(ATTEMPTS, attempts, {"worker": workers}),
            events=_table(EVENTS, _sorted(coded, ("time_s",)), {"worker": workers, "detail": details, "kind": kinds}),
            ended_s=ended_s,
        )

    def with_kinds(self, kinds: Sequence[str] | None) -> Tables:
        """The same with a column of kinds. `kinds`: that of each task by its number; None for a run without kinds."""
        if kinds is None:
            return self
        column = pa.array([kinds[task] for task in self.tasks.column("task").to_pylist()], type=pa.string())
        return replace(self, tasks=self.tasks.append_column(KIND, column.dictionary_encode()))

    def write(self, folder: Path) -> None:
        """Write the three Parquet files into `folder`; equal tables give equal bytes."""
        for name in SCHEMAS:
            table = getattr(self, name)
            pq.write_table(
                table,
                folder / f"{name}.parquet",
                compression="lz4",
                use_dictionary=[field.name for field in table.schema if pa.types.is_dictionary(field.type)],
                column_encoding={field.name: code for field in table.schema if (code := _encoding(field.type))},
            )

    @classmethod
    def read(cls, folder: Path, workers: Sequence[str], ended_s: float | None = None) -> Tables:
        """The tables that `write` left in `folder`, equal to those that were written, of a run that ended then.

        `workers` restores the order of the names: Parquet keeps only the names that occur.
        Raises OSError or pyarrow.ArrowException if a file is missing, is damaged or has another schema.
        """
        return cls(
            **{name: _read(folder / f"{name}.parquet", SCHEMAS[name], workers) for name in SCHEMAS}, ended_s=ended_s
        )


def check_files(folder: Path) -> None:
    """Read only the footers of the tables; raises the same errors as `Tables.read`."""
    for name, schema in SCHEMAS.items():
        _checked_schema(folder / f"{name}.parquet", pq.read_schema(folder / f"{name}.parquet"), schema)


def floats(table: pa.Table, column: str) -> Floats:
    """A column of seconds as float64[rows], NaN for null."""
    values: Floats = table.column(column).to_numpy()
    return values


def codes(table: pa.Table, column: str, names: Sequence[str]) -> Codes:
    """A dictionary column as int64[rows] of positions in `names`, -1 for null and for other names."""
    position = {name: index for index, name in enumerate(names)}
    parts = [np.empty(0, dtype=np.int64)]
    for chunk in table.column(column).chunks:
        lookup = np.array([*(position.get(name, -1) for name in chunk.dictionary.to_pylist()), -1], dtype=np.int64)
        indices = chunk.indices.cast(pa.int64()).fill_null(len(lookup) - 1)
        parts.append(lookup[indices.to_numpy()])
    return np.concatenate(parts)


def _table(schema: pa.Schema, columns: Columns, names: Mapping[str, Sequence[str]]) -> pa.Table:
    arrays = []
    for field in schema:
        values = columns[field.name]
        if pa.types.is_dictionary(field.type):
            vocabulary = pa.array(names.get(field.name) or _ENUMS.get(field.name, ()), type=pa.string())
            indices = pa.array(values.astype(field.type.index_type.to_pandas_dtype(), copy=False), mask=values < 0)
            arrays.append(pa.DictionaryArray.from_arrays(indices, vocabulary))
        else:
            arrays.append(pa.array(values, type=field.type, from_pandas=field.nullable))
    return pa.Table.from_arrays(arrays, schema=schema)


def _sorted(columns: Columns, by: tuple[str, ...]) -> Columns:
    """The rows sorted by the columns `by`; rows with equal keys keep their order."""
    order = np.lexsort([columns[name] for name in reversed(by)])
    if np.array_equal(order, np.arange(len(order))):
        return columns
    return {name: values[order] for name, values in columns.items()}


def _positions(names: Sequence[str | None] | npt.NDArray[Any], vocabulary: Sequence[str]) -> npt.NDArray[np.int32]:
    position: dict[str | None, int] = {name: index for index, name in enumerate(vocabulary)}
    return np.array([-1 if name is None else position[name] for name in names], dtype=np.int32)


def _encoding(kind: pa.DataType) -> str | None:
    """Byte streams for seconds, differences for counters.

    Against plain encoding, writing takes half the time and the files three quarters of the size.
    """
    if pa.types.is_floating(kind):
        return "BYTE_STREAM_SPLIT"
    return "DELTA_BINARY_PACKED" if pa.types.is_integer(kind) else None


def _read(path: Path, schema: pa.Schema, workers: Sequence[str]) -> pa.Table:
    table = pq.read_table(path, partitioning=None)
    schema = _checked_schema(path, table.schema, schema)
    columns: dict[str, npt.NDArray[Any]] = {}
    names: dict[str, Sequence[str]] = {}
    known = {**_ENUMS, "worker": workers, "kind": EVENT_KINDS if "time_s" in schema.names else ()}
    for field in schema:
        if pa.types.is_dictionary(field.type):
            names[field.name] = _vocabulary(table.column(field.name), known.get(field.name, ()))
            columns[field.name] = codes(table, field.name, names[field.name])
        else:
            columns[field.name] = table.column(field.name).to_numpy()
    return _table(schema, columns, names)


def _vocabulary(column: pa.ChunkedArray, known: Sequence[str]) -> Sequence[str]:
    """`known`, then the other names of the column in the order of their appearance."""
    met = (name for chunk in column.chunks for name in chunk.dictionary.to_pylist())
    return list(dict.fromkeys([*known, *met]))


def _checked_schema(path: Path, found: pa.Schema, expected: pa.Schema) -> pa.Schema:
    """The schema that was expected, with a column of kinds if there is one."""
    if expected is TASKS and KIND.name in found.names:
        expected = expected.append(KIND)
    if not found.equals(expected):
        raise pa.ArrowInvalid(f"{path.name} does not have the columns of a run")
    return expected
