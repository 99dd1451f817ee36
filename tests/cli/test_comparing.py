"""`compare` and `calibrate` as a person meets them: what they print, where, and with which exit code."""

import json
import re
import sys
from pathlib import Path

import pytest

from orchestrator.analysis.answers import answer, between
from orchestrator.cli.answers import print_answer
from tests.cli.test_cli import SCENARIO, fail, run, succeed
from tests.results import synthetic


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of a scenario, the second on a slower network."""
    here = tmp_path_factory.mktemp("runs")
    (here / "small.yaml").write_text(SCENARIO)
    for name, delay_s in (("fast", 0.001), ("slow", 0.02)):
        delay = f"network.delay={{kind: lognormal, mean_s: {delay_s}, cv: 0.5}}"
        succeed("simulate", here / "small.yaml", delay, "--no-plots", "--out", here / name)
    return here / "fast", here / "slow"


def test_compare_speaks_of_the_second_against_the_first(folders, tmp_path: Path):
    """Both values and the change with its interval; the same numbers lie in comparison.json. No word of errors."""
    fast, slow = folders
    printed = succeed("compare", fast, slow, "--out", tmp_path).stdout
    assert re.search(r"^p50 +\d\S* ms +\d\S* ms +\+\d+\.\d% \(\+\S+% to \+\S+%\)$", printed, re.MULTILINE)
    assert "- slow against fast, the latency of all tasks: p50 " in printed
    assert "error" not in printed
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert told["baseline"] == "fast"
    (delta,) = [one for one in told["conditions"][0]["cells"][0]["deltas"] if one["measure"] == "latency_s.p50"]
    assert delta["verdict"] == "higher"
    assert str(tmp_path / "latency-percentiles.png") in printed


def test_compare_takes_cells_and_more_than_two(folders, tmp_path: Path):
    """A cell is DIR:CELL or DIR/CELL, whatever else is beside it."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    sweep = "sweep={cluster.workers: [2, 3]}"
    succeed("simulate", tmp_path / "small.yaml", sweep, "--no-plots", "--out", tmp_path / "a")
    named = (f"{tmp_path / 'a'}:workers=2", tmp_path / "a" / "workers=3", folders[1])
    printed = succeed("compare", *named, "--no-plots", "--out", tmp_path / "c").stdout
    assert "Each cell against workers=2" in printed
    assert re.search(r"^slow +", printed, re.MULTILINE)
    assert "has no cell workers=9, expected one of workers=2, workers=3" in fail(
        "compare", f"{tmp_path / 'a'}:workers=9", folders[0]
    )
    assert "named twice" in fail("compare", folders[0], folders[0])


def test_a_sweep_ends_with_its_answer(tmp_path: Path):
    """The table, the question, the sentences: in the terminal, in the JSON, and in answer.json."""
    (tmp_path / "small.yaml").write_text(f"question: Two workers or three?\n{SCENARIO}")
    sweep = ("simulate", tmp_path / "small.yaml", "sweep={cluster.workers: [2, 3]}", "--no-plots")
    printed = succeed(*sweep, "--baseline", "workers=3", "--out", tmp_path / "a").stdout
    assert "workers=2 against workers=3: one run each" in printed
    assert "\nTwo workers or three?\n\n- workers=2 against workers=3, the latency of all tasks: p50 " in printed
    assert re.search(r"^- workers=2 saves 1 worker and 2 slots against workers=3\.$", printed, re.MULTILINE)
    told = json.loads(succeed(*sweep, "--json", "--baseline", "workers=3", "--out", tmp_path / "b").stdout)["answer"]
    saved = [json.loads((tmp_path / name / "answer.json").read_text()) for name in ("a", "b")]
    assert saved == [told, told]
    assert told["question"] == "Two workers or three?"
    assert 1 < len(told["sentences"]) <= 5
    assert "expected one of workers=2, workers=3" in fail(*sweep, "--baseline", "workers=4")
    assert "nothing is swept" in fail("simulate", tmp_path / "small.yaml", "--baseline", "workers=4")


def test_cells_are_called_what_people_call_them(tmp_path: Path):
    """Tables and sentences say `no fault`; --baseline and DIR:CELL know that name and the folder's."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    crash = "{kind: crash, at_s: 2, workers: [w1], restart_after_s: 1}"
    sweep = ("simulate", tmp_path / "small.yaml", f"faults=[],[{crash}]", "--no-plots")
    named = "crash of w1 at 2 s, back after 1 s"
    printed = succeed(*sweep, "--out", tmp_path / "a").stdout
    assert re.search(r"^no fault  +\d", printed, re.MULTILINE)
    assert re.search(rf"^{named}  +\d", printed, re.MULTILINE)
    assert "faults=" not in printed.partition("results in ")[0]
    assert f"no fault against {named}" in succeed(*sweep, "--baseline", named, "--out", tmp_path / "b").stdout
    cells = (f"{tmp_path / 'a'}:faults=", f"{tmp_path / 'a'}:{named}")
    assert f"{named} against no fault" in succeed("compare", *cells, "--no-plots", "--out", tmp_path / "c").stdout


def test_cells_that_are_alike_are_said_to_be(capsys):
    """There is no table of differences, and the sentences show none."""
    same = synthetic.mm1(500)
    print_answer(between([("A", same), ("B", same)]))
    printed = capsys.readouterr().out
    assert "\nthe same in all cells: p50, p95, p99" in printed
    assert "p50, p95, p99 and p99.9 are the same" in " ".join(printed.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_answer_fits_the_terminal(width: int, capsys, monkeypatch: pytest.MonkeyPatch):
    """Of two cells and of eight, no line is cut or wider than the terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "dumb")  # no styles
    for values in ({"cluster.workers": [1, 2]}, {"seed": [1, 2, 3, 4], "cluster.capacity": [1, 2]}):
        told = answer(synthetic.sweep(values))
        assert told is not None
        print_answer(told)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width
        assert sum(line.startswith("p99") or "  p99  " in line for line in lines) >= 1


def test_too_large_an_error_exits_with_1_and_names_the_worst(folders, tmp_path: Path):
    """A miss is one sentence on stderr, after the results; what is allowed is allowed."""
    missed = run("compare", *folders, "--max-error", "0.05", "--no-plots", "--out", tmp_path / "1")
    assert missed.exit_code == 1
    assert "latency p50" in missed.stdout
    assert re.fullmatch(r"wait_s\.mean is off by -\S+% \(.*\); at most 5\.0% is allowed\n", missed.stderr)
    succeed("compare", *folders, "--max-error", "10", "--no-plots", "--out", tmp_path / "2")


def test_compare_tells_the_ranks_of_a_sweep(tmp_path: Path):
    """With an allowed error: Kendall's tau for each statistic, and who is best on either side."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    sweep = "sweep={cluster.workers: [2, 3, 4]}"
    for name, rate in (("a", 30), ("b", 25)):
        override = f"workload.arrivals.rate_per_s={rate}"
        succeed("simulate", tmp_path / "small.yaml", sweep, override, "--no-plots", "--out", tmp_path / name)
    both = ("compare", tmp_path / "a", tmp_path / "b", "--max-error", "100", "--out", tmp_path / "both")
    printed = run(*both).stdout
    assert re.search(r"^latency p50 +1\.00 +\S+ +workers=4 +workers=4$", printed, re.MULTILINE)
    assert re.search(r"^workers=2 +\S+%", printed, re.MULTILINE)
    assert str(tmp_path / "both/comparison-ranks.png") in printed


def test_what_cannot_be_compared_is_told(folders, tmp_path: Path):
    """A folder alone, a folder without a run, cells that have nothing in common."""
    assert "compare needs one more" in fail("compare", folders[0])
    assert "holds no finished run" in fail("compare", folders[0], tmp_path)
    (tmp_path / "small.yaml").write_text(SCENARIO)
    for name, workers in (("a", "[2, 3]"), ("b", "[4, 5]")):
        override = f"sweep={{cluster.workers: {workers}}}"
        succeed("simulate", tmp_path / "small.yaml", override, "--no-plots", "--out", tmp_path / name)
    told = fail("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert told.startswith("nothing to compare: ")
    assert "workers=2" in told
    alone = fail("compare", folders[0], tmp_path / "a", "--out", tmp_path / "c")
    assert "(fast, a: workers=2, a: workers=3): one cell of each can be named, as DIR:CELL\n" in alone


def test_compare_takes_no_scenario(tmp_path: Path):
    """It says which command does."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    assert "of a scenario, fidelity compares the two worlds" in fail("compare", tmp_path / "small.yaml")


def test_calibrate_writes_a_model_that_a_scenario_takes_up(folders, tmp_path: Path):
    """From a run with known delays to the same run again, by way of a file."""
    model = tmp_path / "models" / "slow.yaml"
    printed = succeed("calibrate", folders[1], "--out", model).stdout
    assert re.search(r"^result +lognormal +(19\.\d|20\.\d) ms +0\.\d+ +\d+ +0\.0\d+$", printed, re.MULTILINE)
    assert f"model in {model}" in printed
    (tmp_path / "small.yaml").write_text(f"{SCENARIO}model: {model}\n")
    succeed("simulate", tmp_path / "small.yaml", "--no-plots", "--out", tmp_path / "again")
    compared = ("compare", tmp_path / "again", folders[1], "--no-plots", "--out", tmp_path / "both")
    succeed(*compared, "--max-error", "0.05")


def test_calibrate_prints_json(folders, tmp_path: Path):
    """`--json` prints the model with how well it fits."""
    told = json.loads(succeed("calibrate", folders[0], "--json", "--out", tmp_path / "model.yaml").stdout)
    assert told["network"]["message_kinds"].keys() == {"submit", "assign", "result", "heartbeat"}
    assert told["calibration"]["result"]["samples"] > 300
    assert told["calibration"]["result"]["ks"] < 0.1


def test_calibrate_says_when_there_is_nothing_to_fit(tmp_path: Path):
    """A run without a completed task, and a folder without a run."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    override = ["duration_s=1", "drain_s=0", "workload.service.mean_s=100000"]
    succeed("simulate", tmp_path / "small.yaml", *override, "--no-plots", "--out", tmp_path / "run")
    assert "nothing to fit" in fail("calibrate", tmp_path / "run", "--out", tmp_path / "model.yaml")
    assert str(tmp_path) in fail("calibrate", tmp_path)


def test_a_broken_model_is_told_by_its_own_lines(tmp_path: Path):
    """`check` names the model's file, line and column."""
    (tmp_path / "small.yaml").write_text(f"{SCENARIO}model: model.yaml\n")
    (tmp_path / "model.yaml").write_text("network:\n  message_kinds:\n    result: {kind: lognormal, mean_s: 1}\n")
    assert fail("check", tmp_path / "small.yaml").startswith(
        f"{tmp_path / 'model.yaml'}:3:5: network.message_kinds.result.cv: "
    )
