"""Traces as people have them: their columns, units, origins and formats become seconds, and what is wrong is told."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sim
from orchestrator.scenario.schema import Scenario, ScenarioError

DATA = Path(__file__).parents[1] / "data"


def tree_of(arrivals: dict[str, Any], **changes: Any) -> dict[str, Any]:
    tree = {
        "name": "traced",
        "duration_s": "trace",
        "workload": {"arrivals": {"kind": "trace", **arrivals}, "service": {"kind": "constant", "value_s": 0.1}},
        "cluster": {"workers": 4},
    }
    return tree | changes


RARE = {"detection": {"kind": "timeout", "heartbeat_s": 1000.0, "timeout_s": 3000.0}}
"""Nobody dies in these runs, which last for days: with beats every few seconds they would be nearly all heartbeats."""


def scenario(arrivals: dict[str, Any], **changes: Any) -> Scenario:
    return Scenario.model_validate(tree_of(arrivals, **{"policies": RARE, **changes}))


def told(folder: Path, tree: dict[str, Any]) -> str:
    """What the user of a scenario file is told."""
    file = folder / "scenario.yaml"
    file.write_text(json.dumps(tree))
    with pytest.raises(ScenarioError) as raised:
        Scenario.load(file)
    return str(raised.value)


def written(folder: Path, text: str, name: str = "t.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def arrivals_of(given: Scenario) -> list[float]:
    arrivals: Any = given.workload.arrivals
    return [round(at, 6) for at in arrivals.data().arrival_s.tolist()]


# ---- formats of others, counted by hand


def test_a_log_in_the_standard_workload_format():
    """Submit time is the arrival, the wait is left out, run time by processors is the work."""
    columns = {"arrival_s": "submit_s", "service_s": "run_s", "weight": "processors"}
    given = scenario(
        {"file": str(DATA / "cluster.swf"), "columns": columns, "origin": "first"}, cluster={"workers": 64}
    )
    rows = [line.split() for line in (DATA / "cluster.swf").read_text().splitlines() if not line.startswith(";")]
    known = [(float(row[1]), float(row[3]) * float(row[4])) for row in rows if "-1" not in (row[1], row[3], row[4])]
    first = min(at for at, _ in known)
    span_s, work_s = max(at for at, _ in known) - first, sum(work for _, work in known)
    assert given.duration_s == span_s
    assert given.offered_load() == pytest.approx(work_s / span_s / 128)
    summary = sim.run(given).summary
    assert summary["tasks"]["submitted"] == len(known)


def test_a_slice_of_burstgpt():
    """Seconds as Timestamp; service from the tokens of the answer."""
    file = DATA / "burstgpt.csv"
    per = {"Request tokens": 0.0001, "Response tokens": 0.01}
    arrivals = {"file": str(file), "columns": {"arrival_s": "Timestamp"}, "origin": "first", "seconds_per": per}
    given = scenario(arrivals, cluster={"workers": 50})
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    span_s = float(rows[-1]["Timestamp"]) - float(rows[0]["Timestamp"])
    work_s = sum(float(row["Request tokens"]) * 0.0001 + float(row["Response tokens"]) * 0.01 for row in rows)
    assert given.duration_s == span_s
    assert given.offered_load() == pytest.approx(work_s / span_s / 100)
    summary = sim.run(given).summary
    assert summary["tasks"]["completed"] == len(rows)
    assert summary["utilization"] == pytest.approx(work_s / span_s / 100, rel=0.1)  # some work ends after the trace


def test_a_slice_of_azures_log():
    """ISO times count from the first row."""
    file = DATA / "azure-code.csv"
    arrivals = {"file": str(file), "columns": {"arrival_s": "TIMESTAMP"}, "seconds_per": {"GeneratedTokens": 0.02}}
    given = scenario(arrivals)
    rows = file.read_text().splitlines()[1:]
    seconds = [60 * int(row[14:16]) + float(row[17:26]) for row in rows]
    tokens = sum(int(row.split(",")[2]) for row in rows)
    assert given.duration_s == pytest.approx(seconds[-1] - seconds[0], abs=1e-5)
    assert given.offered_load() == pytest.approx(tokens * 0.02 / given.duration_s / 8)
    summary = sim.run(given).summary
    assert summary["throughput_per_s"] <= len(rows) / given.duration_s


# ---- slices, units, clocks


@pytest.mark.parametrize(
    ("text", "how", "expected"),
    [
        ("t\n1700000000000\n1700000000250\n1700000002000\n", {"unit": "ms", "origin": "first"}, [0, 0.25, 2]),
        ("t\n5000000\n7500000\n", {"unit": "us"}, [5, 7.5]),
        ("t\n3\n1\n2\n", {"sort": True}, [1, 2, 3]),
        ("t\n2023-11-16T18:17:04Z\n2023-11-16T19:17:05+01:00\n", {}, [0, 1]),
        ("t\n2023-11-16 18:17:04\n2023-11-16 18:17:05.5\n", {}, [0, 1.5]),
        ("t\n-5\n5\n", {"origin": "first"}, [0, 10]),
    ],
    ids=["an epoch in ms", "us", "unsorted", "zones", "no zone", "before zero"],
)
def test_times_become_seconds(tmp_path: Path, text: str, how: dict[str, Any], expected: list[float]):
    """In whatever unit, from whatever origin."""
    given = scenario({"file": written(tmp_path, text), "columns": {"arrival_s": "t"}, **how})
    assert arrivals_of(given) == expected
    assert given.duration_s == expected[-1]


def test_a_unit_is_also_that_of_the_service(tmp_path: Path):
    """Milliseconds of both."""
    given = scenario({"file": written(tmp_path, "arrival_s,service_s\n0,500\n1000,1500\n"), "unit": "ms"})
    assert given.offered_load() == pytest.approx(2.0 / 1.0 / 8)


@pytest.mark.parametrize("separator", [";", "\t", "|", " ,"])
def test_cells_may_be_separated_otherwise_than_by_commas(tmp_path: Path, separator: str):
    """A header without a comma tells what stands between its names."""
    text = "\n".join(separator.join(row) for row in (("arrival_s", "kind"), ("0.5", "a"), ("2", "b")))
    assert arrivals_of(scenario({"file": written(tmp_path, text)})) == [0.5, 2.0]


def test_compressed_text_and_any_case_of_a_suffix(tmp_path: Path):
    """gzip is told by its first bytes, Parquet by its name in any case."""
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"arrival_s\n1\n4\n"))
    assert arrivals_of(scenario({"file": str(tmp_path / "t.csv.gz")})) == [1, 4]
    pq.write_table(pa.table({"arrival_s": [1.0, 4.0]}), tmp_path / "t.PARQUET")
    assert arrivals_of(scenario({"file": str(tmp_path / "t.PARQUET")})) == [1, 4]


def test_a_slice_is_said_to_be_one(tmp_path: Path):
    """It begins late, or ends early, and what is told of the run would count the rest."""
    late = {"file": written(tmp_path, "arrival_s\n" + "\n".join(map(str, range(1000, 1100))))}
    assert any("origin: first" in warning for warning in scenario(late).warnings())
    assert scenario({**late, "origin": "first"}).warnings() == []
    assert any(
        "the trace ends at" in warning for warning in scenario({**late, "origin": "first"}, duration_s=500).warnings()
    )


def test_rates_count_over_the_span_of_the_trace(tmp_path: Path):
    """A hundred tasks in ten seconds are ten a second, wherever the slice begins."""
    times = np.linspace(1e6, 1e6 + 10, 101)
    file = written(tmp_path, "arrival_s\n" + "\n".join(f"{at:.6f}" for at in times))
    given = scenario({"file": file, "origin": "first"})
    summary = sim.run(given).summary
    assert summary["throughput_per_s"] == pytest.approx(10, rel=0.02)
    assert summary["utilization"] == pytest.approx(10 * 0.1 / 8, rel=0.02)


def test_a_trace_of_one_moment_is_not_told_to_end_with_it(tmp_path: Path):
    """A run can't last 0 s."""
    file = written(tmp_path, "arrival_s\n5\n")
    (warning,) = scenario({"file": file, "origin": "first"}, duration_s=1).warnings()
    assert warning.endswith("utilisation count until then")


def test_a_limit_of_tasks_ends_a_trace_too(tmp_path: Path):
    """What comes after the last one counts as time without work, unless the trace says how long the run is."""
    file = written(tmp_path, "arrival_s\n" + "\n".join(map(str, range(100))))
    workload = tree_of({"file": file})["workload"] | {"tasks": 11}
    [warning] = scenario({}, workload=workload, duration_s=99).warnings()
    assert warning.startswith("the trace's first 11 arrivals end at 10 s, before duration_s (99)")
    ending = scenario({}, workload=workload)
    assert (ending.duration_s, ending.warnings()) == (10, [])


SWF = {"columns": {"arrival_s": "submit_s", "service_s": "run_s", "weight": "processors"}}
TOKENS = {"seconds_per": {"Request tokens": 0.0001, "Response tokens": 0.01}}


def counted_in_hand(file: str) -> list[tuple[float, float]]:
    """When each task of the sample arrives after the first, and how many seconds it takes."""
    lines = (DATA / file).read_text().splitlines()
    if file == "cluster.swf":
        jobs = [line.split() for line in lines if not line.startswith(";")]
        rows = [(float(j[1]), float(j[3]) * float(j[4])) for j in jobs if "-1" not in (j[1], j[3], j[4])]
    elif file == "burstgpt.csv":
        cells = [line.split(",") for line in lines[1:]]
        rows = [(float(c[0]), float(c[2]) * 0.0001 + float(c[3]) * 0.01) for c in cells]
    else:
        rows = [(60 * int(x[14:16]) + float(x[17:26]), int(x.split(",")[2]) * 0.02) for x in lines[1:]]
    first = rows[0][0]
    return [(at - first, work) for at, work in rows]


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("cluster.swf", {**SWF, "origin": "first"}),
        ("burstgpt.csv", {**TOKENS, "columns": {"arrival_s": "Timestamp"}, "origin": "first"}),
        ("azure-code.csv", {"columns": {"arrival_s": "TIMESTAMP"}, "seconds_per": {"GeneratedTokens": 0.02}}),
    ],
)
def test_load_throughput_and_utilisation_count_over_the_span_of_the_trace(file: str, how: dict[str, Any]):
    """With a slot for every task nothing waits, so each number can be counted in hand."""
    given = scenario({"file": str(DATA / file), **how}, cluster={"workers": 100, "capacity": 2})
    rows = counted_in_hand(file)
    span_s = rows[-1][0]
    ended = sum(at + work <= span_s for at, work in rows)
    inside_s = sum(min(work, span_s - at) for at, work in rows)
    assert given.offered_load() == pytest.approx(sum(work for _, work in rows) / span_s / 200, rel=1e-6)
    assert not [warning for warning in given.warnings() if "duration_s" in warning or "origin" in warning]
    summary = sim.run(given).summary
    assert summary["throughput_per_s"] == pytest.approx(ended / span_s, rel=1e-6)
    assert summary["utilization"] == pytest.approx(inside_s / span_s / 200, rel=1e-6)


# ---- what is wrong


@pytest.mark.parametrize(
    ("text", "how", "words"),
    [
        ("a,a\n1,2\n", {"columns": {"arrival_s": "a"}}, "2 columns a"),
        ("arrival_s\n1_0\n", {}, "line 2"),
        ("arrival_s\n", {}, "no rows"),
        ("arrival_s\n2\n1\n", {}, "sort: true"),
        ("arrival_s,service_s\n1,nan\n", {}, "line 2"),
        ("arrival_s,service_s\n1,-3\n", {}, "line 2"),
        ("at\n1\n", {}, "no column arrival_s"),
        ("arrival_s\n0\n0\n", {}, "all arrivals are at 0 s"),
    ],
    ids=["twice", "underscore", "empty", "unsorted", "nan", "negative", "missing", "no span"],
)
def test_a_trace_that_cannot_be_used_is_an_error(tmp_path: Path, text: str, how: dict[str, Any], words: str):
    """With one sentence that says where and what was expected."""
    [sentence] = told(tmp_path, tree_of({"file": written(tmp_path, text), **how})).splitlines()
    assert words in sentence
    assert "expected" in sentence
    assert "scenario.yaml:1:" in sentence


def test_a_duration_of_which_nothing_is_used_is_an_error(tmp_path: Path):
    """The first arrival comes after it."""
    given = tree_of({"file": written(tmp_path, "arrival_s\n100\n200\n")}, duration_s=50)
    assert "would use no arrival: the trace's first one comes at 100 s" in told(tmp_path, given)


LOG_ROW = "1 0 10 60 4 60 -1 4 60 -1 1 1 1 -1 1 -1 -1 -1\n"


def test_a_log_is_known_by_its_rows_and_may_have_comments_in_any_encoding(tmp_path: Path):
    """Without its suffix, without comments, and with a name in Latin-1 among them."""
    file = tmp_path / "jobs.txt"
    columns = {"arrival_s": "submit_s"}
    for comments in (b"", b"; Installation: Universit\xe4t\n;\n"):
        file.write_bytes(comments + (LOG_ROW + LOG_ROW.replace("1 0", "2 5", 1)).encode())
        assert arrivals_of(scenario({"file": str(file), "columns": columns})) == [0, 5]


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"; a note\narrival_s,service_s\n1,2\n", "t.csv", "line 2 of t.csv has 1 fields, expected the 18 numbers"),
        (b"arrival_s\n1\n", "t.swf", "line 1 of t.swf has 1 fields, expected the 18 numbers"),
        (b"; x\n" + LOG_ROW.replace("60", "sixty").encode(), "t.swf", "line 2 of t.swf has other words, expected the"),
        (
            LOG_ROW.replace("1 0", "1 -1").encode(),
            "t.swf",
            "all 1 rows of t.swf have a value that is not known (-1), expected",
        ),
        (b"; only comments\n", "t.swf", "no rows in t.swf"),
        (LOG_ROW.encode() + b"2 \xff" + LOG_ROW[3:].encode(), "t.swf", "line 2 of t.swf has '\ufffd' as submit_s"),
        (b"arrival_s\n1\n\xff\n", "t.csv", "line 3 of t.csv has byte 0xff, which is not UTF-8, expected UTF-8 CSV"),
        (b"\0" * 5000, "t.csv", "line 1 of t.csv has a NUL byte: it is no text, expected CSV or Parquet"),
        (b"arrival_s\n" + b"1" * (1 << 20), "t.csv", "line 2 of t.csv is longer than 1,048,576 characters"),
        (b"PAR1 and then nothing", "t.csv", "t.csv is no Parquet file"),
        (b"", "t.csv", "t.csv is empty, expected names of columns"),
    ],
)
def test_a_file_that_is_not_what_it_looks_like_is_an_error(tmp_path: Path, content: bytes, name: str, words: str):
    """It names the line and what was expected, and no word of Python's."""
    (tmp_path / name).write_bytes(content)
    columns = {"arrival_s": "submit_s"} if name == "t.swf" else {}
    [sentence] = told(tmp_path, tree_of({"file": str(tmp_path / name), "columns": columns})).splitlines()
    assert words in sentence
    assert "expected" in sentence
    assert "codec" not in sentence


@pytest.mark.parametrize(("file", "words"), [("/dev/zero", "is a device or a pipe"), ("/", "is a directory")])
def test_what_is_no_file_is_not_read(tmp_path: Path, file: str, words: str):
    """A device would never end."""
    assert words in told(tmp_path, tree_of({"file": file}))
