"""`--objective`, `size` and `--yes` as a person meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.test_cli import SCENARIO, fail, run, succeed


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SCENARIO)
    return path


def test_objectives_are_told_and_a_miss_exits_with_1(scenario: Path, tmp_path: Path):
    """Each with its value and whether it is met; the results are there all the same."""
    asked = ["--objective", "latency_s.p50 < 60", "--objective", "by_priority.low.latency_s.p95<1"]
    missed = run("simulate", scenario, *asked, "--no-plots", "--out", tmp_path / "out")
    assert missed.exit_code == 1
    assert re.search(r"^latency_s.p50 < 60 +0\.\d+ +\S.* met$", missed.stdout, re.MULTILINE)
    assert re.search(r"^by_priority\.low\.\S+ < 1 +- +- +missed: there is no value$", missed.stdout, re.MULTILINE)
    assert (tmp_path / "out/summary.json").is_file()
    succeed("simulate", scenario, *asked[:2], "--no-plots", "--out", tmp_path / "again")


def test_objectives_hold_for_each_cell_and_a_program_reads_them(scenario: Path, tmp_path: Path):
    """One worker for the work of one misses what two meet."""
    asked = ("--objective", "utilization < 0.8", "--json", "--jobs", "1", "--no-plots", "--out", tmp_path / "out")
    done = run("simulate", scenario, "sweep={cluster.workers: [1, 2]}", *asked)
    assert done.exit_code == 1
    told = json.loads(done.stdout)["objectives"]
    assert [(one["cell"], one["met"]) for one in told] == [("workers=1", False), ("workers=2", True)]
    assert told[1]["objective"] == "utilization < 0.8"
    assert told[1]["ci95"][0] < told[1]["value"] < told[1]["ci95"][1]


def test_an_objective_that_no_summary_has_is_refused_before_the_run(scenario: Path, tmp_path: Path):
    """Nothing is written."""
    told = fail("simulate", scenario, "--objective", "latency_s.p96 < 2", "--out", tmp_path / "out")
    assert told.startswith('--objective: there is no number "latency_s.p96" in a summary: did you mean latency_s.p9')
    assert not (tmp_path / "out").exists()


def test_size_finds_the_smallest_value_and_prints_what_it_tried(scenario: Path, tmp_path: Path):
    """A table of the values, then the answer and the next smaller one; sizing.json holds the same."""
    asked = ("--over", "cluster.workers=1..8", "--objective", "latency_s.p95 < 0.4", "--jobs", "1")
    printed = succeed("size", scenario, *asked, "--out", tmp_path / "out").stdout
    told = json.loads((tmp_path / "out/sizing.json").read_text())
    assert told["answer"] == told["below"] + 1
    for one in told["tried"]:
        word = "met" if one["met"] else "missed"
        assert re.search(rf"^{one['value']} .*{word}", printed, re.MULTILINE)
        assert one["met"] == (one["value"] >= told["answer"])
    assert f"cluster.workers = {told['answer']} is the smallest from 1 to 8 that meets latency_s.p95 < 0.4." in printed


def test_size_takes_a_list_and_exits_with_1_if_nothing_is_enough(scenario: Path, tmp_path: Path):
    """The values need not be whole numbers of a range."""
    asked = ("--over", "cluster.workers=1,2", "--objective", "latency_s.p50 < 0.001", "--jobs", "1", "--json")
    done = run("size", scenario, *asked, "--out", tmp_path / "out")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["answer"], [one["value"] for one in told["tried"]]) == (None, [1, 2])


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ("cluster.workers", "names no values, expected KEY=FROM..TO"),
        ("cluster.workers=8..4", "8..4 is empty, expected the smaller end first"),
        ("cluster.workers=4..", "is neither a range nor a list"),
        ("cluster.wrkers=1..4", "--over: cluster.wrkers: unknown key, did you mean workers? expected one of "),
        ("cluster.workers=0..4", "--over: cluster.workers[0]: is 0, expected at least 1\n"),
        ("cluster.workers=2,4,2", "--over: cluster.workers[2]: is 2 like value 1, expected each value once\n"),
    ],
)
def test_size_says_what_is_wrong_with_a_range(over: str, told: str, scenario: Path):
    """One sentence about what was given, and no word of what was made of it."""
    assert "sweep" not in fail("size", scenario, "--over", over, "--objective", "latency_s.p50 < 1")
    assert told in fail("size", scenario, "--over", over, "--objective", "latency_s.p50 < 1")


def test_size_needs_something_to_meet_and_one_thing_to_vary(scenario: Path):
    """An objective, and no sweep of something else; the sweep of the very key is left aside."""
    assert "size needs an --objective" in fail("size", scenario, "--over", "cluster.workers=1..4")
    other = "sweep={seed: [1, 2]}"
    asked = ("--over", "cluster.workers=1..4", "--objective", "latency_s.p50 < 1")
    assert "sweeps seed: choose one value of it" in fail("size", scenario, other, *asked)


def test_a_year_of_quiet_heartbeats_is_refused_with_an_estimate(scenario: Path, tmp_path: Path):
    """What it would process, how long that takes, and how to run it all the same."""
    quiet = ("duration_s=31536000", "workload.arrivals.rate_per_s=0.001", "cluster.workers=8")
    told = fail("simulate", scenario, *quiet, "--out", tmp_path / "out")
    sentence = r"^this would process about \d+ million events, 100% of them heartbeats and checks, and take about "
    assert re.search(sentence + r"\d+ min: say --yes if that is meant; a shorter", told, re.MULTILINE)
    assert not (tmp_path / "out").exists()
    told = fail("live", scenario, *quiet, "--out", tmp_path / "out")
    assert "take as long as their scenarios, about 365 days together: say --yes if that is meant" in told


def test_yes_runs_what_would_be_refused(scenario: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With a patience of no time, everything would be."""
    monkeypatch.setattr("orchestrator.cli.patience.LONG_S", 0.0)
    asked = ("simulate", scenario, "duration_s=1", "--no-plots", "--out", tmp_path / "out")
    assert "say --yes if that is meant; a shorter duration_s takes less" in fail(*asked)
    succeed(*asked, "--yes")
