"""The command `trace`: it tells what is in a file of arrivals, and prints a scenario that runs as it stands."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sim
from orchestrator.analysis.arrivals import index_of_dispersion
from orchestrator.cli.traces import sparkline
from orchestrator.scenario.schema import Scenario
from tests.cli.test_cli import fail, succeed

DATA = Path(__file__).parents[1] / "data"
EPOCH_MS = "time_ms,duration_s\n1700000002000,0.5\n1700000000000,0.25\n1700000004000,1\n"


def told(file: Path, *settings: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(succeed("trace", file, *settings, "--json").stdout)
    return found


def printed(folder: Path, file: Path, *settings: str) -> Scenario:
    """The scenario, loaded from exactly what `--yaml` printed; the whole output ends with the same text."""
    text = succeed("trace", file, *settings, "--yaml").stdout
    assert succeed("trace", file, *settings).stdout.endswith("\n" + text)
    (folder / "printed.yaml").write_text(text)
    return Scenario.load(folder / "printed.yaml")


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


# ---- what is printed runs


@pytest.mark.parametrize(
    ("file", "settings", "tasks"),
    [
        ("cluster.swf", [], 198),
        ("burstgpt.csv", [], 120),
        ("burstgpt.csv", ["seconds_per={Request tokens: 0.0001, Response tokens: 0.01}"], 120),
        ("burstgpt.csv", ["columns.kind=Model"], 120),
        ("azure-code.csv", ["seconds_per={GeneratedTokens: 0.02}"], 120),
    ],
)
def test_what_is_printed_of_the_traces_of_others_runs(file: str, settings: list[str], tasks: int, tmp_path: Path):
    """With all tasks, over the trace's own span, at the load that it was sized for, and without a warning.

    The run has rare heartbeats: usual ones are nearly all of what happens in a log's hours.
    """
    scenario = printed(tmp_path, DATA / file, *settings)
    assert [w for w in scenario.warnings() if "left out" not in w] == []
    about = told(DATA / file, *settings)
    assert scenario.duration_s == pytest.approx(about["span_s"], rel=0.02)
    rare = scenario.with_({"policies.detection": {"kind": "timeout", "heartbeat_s": 1000, "timeout_s": 10_000}})
    summary = sim.run(rare).summary
    assert summary["tasks"]["submitted"] == summary["tasks"]["completed"] == about["rows"] == tasks
    load = scenario.offered_load()
    assert load is not None
    assert 0.2 < load <= 0.71


@pytest.mark.parametrize(
    ("text", "settings", "arrivals", "service_s"),
    [
        ("arrival_s,service_s\n0,1\n2,3\n", set(), [0, 2], [1, 3]),
        (EPOCH_MS, {"unit", "origin", "sort", "columns", "seconds_per"}, [0, 2, 4], [0.25, 0.5, 1]),
        (
            "at,runtime_ms\n2023-11-16T18:17:04Z,500\n2023-11-16T18:17:06Z,1500\n",
            {"unit", "columns"},
            [0, 2],
            [0.5, 1.5],
        ),
        ("arrival_s,service_s\n1700000000000,500\n1700000002000,1500\n", {"unit", "origin"}, [0, 2], [0.5, 1.5]),
        (
            "Timestamp,Duration (us)\n1700000000,5e5\n1700000002,1e6\n",
            {"origin", "columns", "seconds_per"},
            [0, 2],
            [0.5, 1],
        ),
        ("n,t\n1,-3\n2,-1\n", {"origin", "columns"}, [0, 2], None),
        ("submit_time,service_s\n100,1\n104,2\n102,3\n", {"origin", "sort", "columns"}, [0, 2, 4], [1, 3, 2]),
    ],
    ids=["ours", "epoch in ms", "ISO", "epoch in ours", "epoch in s", "before zero", "late and unsorted"],
)
def test_the_printed_settings_are_those_that_the_file_needs(
    text: str, settings: set[str], arrivals: list[float], service_s: list[float] | None, tmp_path: Path
):
    """And no others: with them the seconds are right."""
    file = written(tmp_path, text)
    tree = told(file)["scenario"]["workload"]
    assert set(tree["arrivals"]) - {"kind", "file"} == settings
    scenario = printed(tmp_path, file)
    data = scenario.workload.arrivals.data()  # type: ignore[union-attr]
    assert data.arrival_s == pytest.approx(np.array(arrivals))
    assert ("service" in tree) == (service_s is None)
    assert service_s is None or data.service_s == pytest.approx(np.array(service_s))
    assert scenario.warnings() == []
    assert sim.run(scenario).summary["tasks"]["completed"] == len(arrivals)


def test_what_is_given_has_precedence(tmp_path: Path):
    """Over every guess."""
    file = written(tmp_path, "timestamp,begin,duration,cost\n1,10,5,7\n2,30,5,7\n")
    given = ["columns={arrival_s: begin, service_s: cost}", "unit=ms", "origin=zero", "sort=true"]
    arrivals = told(file, *given)["scenario"]["workload"]["arrivals"]
    assert arrivals["columns"] == {"arrival_s": "begin", "service_s": "cost"}
    assert (arrivals["unit"], arrivals["sort"], "origin" in arrivals) == ("ms", True, False)


@pytest.mark.parametrize(
    ("header", "kinds", "others"),
    [
        ("arrival_s,service_s,place,model", ["a", "b"], True),  # the first that is called a class
        ("arrival_s,service_s,place,thing", ["here", "there"], True),  # or else the first
        ("arrival_s,service_s,priority,model", ["a", "b"], False),
    ],
)
def test_classes_become_kinds(header: str, kinds: list[str], others: bool, tmp_path: Path):
    """Of the printed scenario, whose run tells each; other columns that could are named."""
    words = ("low", "high") if "priority" in header else ("here", "there")
    rows = [f"{k},1,{words[k % 2]},{'ab'[k // 2 % 2]}" for k in range(8)]
    file = written(tmp_path, "\n".join([header, *rows, ""]))
    assert any("instead" in line for line in told(file)["assumptions"]) == others
    by_kind = sim.run(printed(tmp_path, file)).summary["by_kind"]
    assert {name: one["submitted"] for name, one in by_kind.items()} == dict.fromkeys(kinds, 4)


def test_arrivals_at_one_moment_have_no_span(tmp_path: Path):
    """Their rate and their bursts are not known, and what is printed runs for a second."""
    file = written(tmp_path, "arrival_s,service_s\n0,1\n0,2\n")
    about = told(file)
    assert (about["rate_per_s"], about["busy_slots"], about["rate_over_time"], about["dispersion"]) == (
        None,
        None,
        None,
        [],
    )
    assert printed(tmp_path, file).duration_s == 1


@pytest.mark.parametrize("name", ["t.parquet", "t.bin"])
def test_parquet_is_known_by_its_content(name: str, tmp_path: Path):
    """Whatever it is called."""
    pq.write_table(pa.table({"arrival_s": [0.0, 4.0], "kind": ["a", "b"]}), tmp_path / name)
    assert told(tmp_path / name)["format"] == "Parquet"
    assert printed(tmp_path, tmp_path / name).duration_s == 4


# ---- what is told


def test_rows_span_rate_and_work_are_those_of_a_hand_count(tmp_path: Path):
    """Five tasks in four seconds, with six seconds of work."""
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(b"arrival_s,service_s,priority\n0,1,low\n1,1,low\n2,1,high\n3,1,low\n4,2,low\n"))
    about = told(file)
    assert (about["format"], about["gzip"], about["rows"], about["span_s"]) == ("CSV", True, 5, 4)
    assert (about["rate_per_s"], about["busy_slots"]) == (1.25, 1.5)
    assert about["interarrival_s"]["cv"] == 0
    assert (about["service_s"]["mean"], about["service_s"]["p50"], about["service_s"]["max"]) == (1.2, 1, 2)
    assert about["classes"] == {"priority": {"low": 0.8, "high": 0.2}}
    rates = about["rate_over_time"]
    assert sum(rates["per_s"]) * rates["window_s"] == pytest.approx(5)


def test_columns_of_few_words_are_classes_with_shares():
    """The largest first; a log's queues are, its users are not."""
    classes = told(DATA / "burstgpt.csv")["classes"]
    rows = [line.split(",") for line in (DATA / "burstgpt.csv").read_text().splitlines()[1:]]
    gpt4 = sum(row[1] == "GPT-4" for row in rows) / len(rows)
    assert list(classes["Model"].items()) == [("ChatGPT", 1 - gpt4), ("GPT-4", pytest.approx(gpt4))]
    assert list(classes) == ["Model", "Log Type"]
    assert list(told(DATA / "cluster.swf")["classes"]) == ["queue"]


def test_the_index_of_dispersion_tells_bursts():
    """0 of regular arrivals, 1 of a Poisson process, the size of the batch of batches."""
    rng = np.random.default_rng(1)
    poisson = np.sort(rng.uniform(0, 10_000, 100_000))
    assert index_of_dispersion(np.arange(0.0, 1000.0, 0.5), 10.0) == 0
    assert index_of_dispersion(poisson, 1.0) == pytest.approx(1, abs=0.05)
    assert index_of_dispersion(np.repeat(poisson, 7), 1.0) == pytest.approx(7, abs=0.35)
    assert index_of_dispersion(poisson, 9_000.0) is None


def test_what_a_file_says_of_itself_obeys_no_terminal(tmp_path: Path):
    """Its words are shown, and nothing in them is carried out."""
    file = written(tmp_path, 'arrival_s,class\n0,"a\nb"\n1,\x1b[2J\n2,"a\nb"\n3,\x1b[2J\n')
    shown = succeed("trace", file).stdout
    assert "a b 50.0%, \\x1b[2J 50.0%" in shown
    assert "\x1b" not in shown


def test_a_sparkline_is_as_high_as_the_share_of_the_greatest():
    """Nothing is a blank, and little is not nothing."""
    assert sparkline([0, 0.001, 4, 8]) == " ▁▄█"


# ---- what is wrong


@pytest.mark.parametrize(
    ("content", "settings", "words"),
    [
        (b"", [], "t.csv is empty, expected names of columns and at least one row\n"),
        (b"arrival_s\n", [], "no rows in t.csv, expected at least one\n"),
        (
            b"a,b\n1,2\n",
            [],
            "no column of t.csv looks like arrival times, expected columns.arrival_s=NAME with one of a, b\n",
        ),
        (b"a,b\n1,2\n", ["columns.arrival_s=c"], "no column c in t.csv, expected it among a, b\n"),
        (b"arrival_s\n1\n", ["columns.service_s=c"], "no column c in t.csv, expected it among arrival_s\n"),
        (b"arrival_s\n1\nx\n", [], "line 3 of t.csv has 'x' as arrival_s, expected a number\n"),
        (b"arrival_s\n1\n", ["unit=h"], "unit: is \"h\", expected 's', 'ms', 'us' or 'ns'\n"),
        (
            b"\x7fELF\x02\x01\x00\x00\xff\xfe",
            [],
            "line 1 of t.csv has a NUL byte: it is no text, expected CSV or Parquet\n",
        ),
        (bytes(range(128, 256)) * 9, [], "line 1 of t.csv has byte 0x80, which is not UTF-8, expected UTF-8 CSV\n"),
    ],
)
def test_what_is_no_trace_is_told_in_a_sentence(content: bytes, settings: list[str], words: str, tmp_path: Path):
    """With exit code 2, and nothing on stdout."""
    (tmp_path / "t.csv").write_bytes(content)
    assert fail("trace", tmp_path / "t.csv", *settings) == words


def test_what_is_no_file_is_told_in_a_sentence(tmp_path: Path):
    """A name of nothing, a directory, and a device that would never end."""
    assert fail("trace", tmp_path / "none.csv").startswith(f'file: no file "{tmp_path}/none.csv"')
    assert fail("trace", tmp_path) == f'file: "{tmp_path}" is a directory, expected a file\n'
    assert fail("trace", "/dev/zero") == 'file: "/dev/zero" is a device or a pipe, expected a file\n'


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--yaml", "--json"], "--yaml and --json are both given, expected one of them\n"),
        (["file=other.csv"], "file is the first argument, expected no other one\n"),
        (
            ["columns.when=t"],
            "columns.when: unknown key, expected one of arrival_s, kind, priority, service_s, weight\n",
        ),
    ],
)
def test_what_cannot_be_asked_for_is_told(arguments: list[str], words: str):
    """In one sentence."""
    assert fail("trace", DATA / "burstgpt.csv", *arguments) == words
