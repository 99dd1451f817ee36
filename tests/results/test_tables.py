from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.core.model import WorkerEvent
from orchestrator.results.tables import (
    EVENT_KINDS,
    FAULTS,
    RARE_KINDS,
    SCHEMAS,
    Tables,
    check_files,
    codes,
    event_rows,
    faults_ended_by,
    floats,
)
from orchestrator.scenario.faults import FaultKind
from tests.results.synthetic import NAN, attempt, mm1, tables, task


def test_columns_become_the_three_schemas():
    """Tables have exactly the columns, types and nullability that the schemas name."""
    made = mm1(50).tables
    for name, schema in SCHEMAS.items():
        assert getattr(made, name).schema.equals(schema)
        getattr(made, name).validate(full=True)


def test_what_never_happened_is_null():
    """NaN and worker -1 become nulls, and only a settled task has a latency."""
    row = tables([task(1.0, started_s=NAN)]).tasks.to_pylist()[0]
    assert row["settled_s"] is row["latency_s"] is row["started_s"] is row["wait_s"] is row["worker"] is None
    assert (row["state"], row["priority"]) == ("unfinished", "normal")


def test_latency_and_wait_count_from_the_arrival():
    """latency_s ends with the result, wait_s with the first start; both begin with the intended arrival."""
    row = tables([task(1.0, 4.0, started_s=1.5)]).tasks.to_pylist()[0]
    assert (row["latency_s"], row["wait_s"], row["worker"]) == (3.0, 0.5, "w1")


def test_rows_are_sorted():
    """Attempts are sorted by task and number, events by time; simultaneous events keep their order."""
    made = tables(
        [task(0.0), task(1.0)],
        [attempt(1, 5.0), attempt(0, 9.0, attempt=2), attempt(0, 1.0)],
        [(7.0, "up", 0, None), (2.0, "crash", 0, None), (2.0, "heal", 0, "restart")],
    )
    assert made.attempts.select(["task", "attempt"]).to_pydict() == {"task": [0, 0, 1], "attempt": [1, 2, 1]}
    assert made.events["kind"].to_pylist() == ["crash", "heal", "up"]


def test_parquet_gives_back_equal_tables(tmp_path):
    """Schema, values and the order of names, used or not, are the same after reading."""
    made = mm1(500).tables
    made.write(tmp_path)
    read = Tables.read(tmp_path, ["w1", "w2"])
    for name in SCHEMAS:
        assert getattr(read, name).equals(getattr(made, name))
        assert getattr(read, name).to_pandas().equals(getattr(made, name).to_pandas())


def test_empty_tables_survive_the_disk(tmp_path):
    """Empty tables can be written and read."""
    tables().write(tmp_path)
    read = Tables.read(tmp_path, ["w1", "w2"])
    assert [getattr(read, name).num_rows for name in SCHEMAS] == [0, 0, 0]


def test_equal_tables_give_equal_bytes(tmp_path):
    """Equal tables give the same bytes."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        mm1(500).tables.write(tmp_path / folder)
    for name in SCHEMAS:
        assert (tmp_path / f"a/{name}.parquet").read_bytes() == (tmp_path / f"b/{name}.parquet").read_bytes()


def test_files_need_no_pandas_metadata(tmp_path):
    """Readers other than pandas see plain columns."""
    mm1(10).tables.write(tmp_path)
    assert b"pandas" not in (pq.read_schema(tmp_path / "tasks.parquet").metadata or {})


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    """A truncated file and a file with other columns raise an error."""
    mm1(10).tables.write(tmp_path)
    check_files(tmp_path)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "tasks.parquet")
    with pytest.raises(pa.ArrowInvalid, match="does not have the columns of a run"):
        check_files(tmp_path)
    (tmp_path / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(pa.ArrowException):
        Tables.read(tmp_path, ["w1", "w2"])


def test_codes_are_positions_in_the_names_of_the_caller():
    """Codes are positions in the caller's list, across chunks with different dictionaries; others are -1."""
    one = pa.array(["b", None], pa.string()).dictionary_encode()
    two = pa.array(["a", "c"], pa.string()).dictionary_encode()
    column = pa.table({"x": pa.chunked_array([one, two])})
    assert codes(column, "x", ["a", "b"]).tolist() == [1, -1, 0, -1]


def test_floats_of_nulls_are_nan():
    """A null second becomes NaN."""
    assert np.isnan(floats(tables([task(1.0)]).tasks, "settled_s")).all()


# ---- the words of events


def test_every_event_has_a_kind():
    """Every event of a worker has a kind, and so has every kind of fault that the coordinator does not announce."""
    assert set(WorkerEvent) | set(FAULTS) | {"heal", "recovered", "lost"} == {*EVENT_KINDS, *RARE_KINDS}
    assert set(FAULTS) == set(get_args(FaultKind)) - {"drain", "join"}


def test_a_rare_kind_stands_only_in_tables_that_have_it(tmp_path):
    """A rare kind changes no other table, and a table that has it can be written and read."""
    plain = tables(events=[(1.0, "left", 0, None)])
    assert plain.events["kind"].chunk(0).dictionary.to_pylist() == list(EVENT_KINDS)
    made = tables(events=[(1.0, "left", 0, None), (2.0, "forgotten", 0, None)])
    made.write(tmp_path)
    read = Tables.read(tmp_path, ["w1", "w2"])
    assert read.events.equals(made.events)
    assert [event.kind for event in event_rows(read.events)] == ["left", "forgotten"]


def test_an_unknown_kind_of_event_is_an_error():
    """A misspelt kind raises KeyError instead of becoming a null."""
    with pytest.raises(KeyError):
        tables(events=[(1.0, "crahs", 0, None)])


def test_the_end_of_a_fault_names_what_it_ends():
    """A new process ends three kinds of faults; any other end names its own kind."""
    assert faults_ended_by("restart") == ("crash", "restart", "pause")
    assert faults_ended_by("resume") == ("pause",)
    assert faults_ended_by("slow") == ("slow",)
    assert faults_ended_by(None) == ()
