"""`compare` and `calibrate` as a person meets them: what they print, where, and with which exit code."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.test_cli import SCENARIO, fail, run, succeed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of a scenario, the second on a slower network."""
    here = tmp_path_factory.mktemp("runs")
    (here / "small.yaml").write_text(SCENARIO)
    for name, delay_s in (("fast", 0.001), ("slow", 0.02)):
        delay = f"network.delay={{kind: lognormal, mean_s: {delay_s}, cv: 0.5}}"
        succeed("simulate", here / "small.yaml", delay, "--no-plots", "--out", here / name)
    return here / "fast", here / "slow"


def test_compare_prints_a_table_and_names_its_pictures(folders, tmp_path: Path):
    """Both values, the relative error and its interval; the same numbers lie in comparison.json."""
    fast, slow = folders
    printed = succeed("compare", slow, fast, "--out", tmp_path).stdout
    assert re.search(r"^latency p50 +\d\S* ms +\d\S* ms +\+\d+\.\d% +\+\S+% to \+\S+%$", printed, re.MULTILINE)
    assert "intervals of 95 % by 10 blocks of the run" in printed
    told = json.loads((tmp_path / "comparison.json").read_text())
    assert (told["of"], told["against"]) == ("slow", "fast")
    for picture in ("percentiles", "qq", "timeline"):
        assert str(tmp_path / f"comparison-{picture}.png") in printed
        assert (tmp_path / f"comparison-{picture}.svg").is_file()


def test_compare_prints_json(folders, tmp_path: Path):
    """`--json` prints what comparison.json holds, and nothing else on stdout; `--no-plots` draws nothing."""
    printed = json.loads(succeed("compare", *folders, "--json", "--no-plots", "--out", tmp_path).stdout)
    assert printed == json.loads((tmp_path / "comparison.json").read_text())
    assert not list(tmp_path.glob("*.png"))


def test_too_large_an_error_exits_with_1_and_names_the_worst(folders, tmp_path: Path):
    """A miss is one sentence on stderr, after the results; what is allowed is allowed."""
    missed = run("compare", *folders, "--max-error", "0.05", "--no-plots", "--out", tmp_path / "1")
    assert missed.exit_code == 1
    assert "latency p50" in missed.stdout
    assert re.fullmatch(r"wait_s\.mean is off by -\S+% \(.*\); at most 5\.0% is allowed\n", missed.stderr)
    succeed("compare", *folders, "--max-error", "10", "--no-plots", "--out", tmp_path / "2")
    succeed("compare", folders[0], folders[0], "--max-error", "0", "--no-plots", "--out", tmp_path / "3")


def test_compare_tells_the_ranks_of_a_sweep(tmp_path: Path):
    """Kendall's tau for each statistic, and who is best on either side."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    sweep = "sweep={cluster.workers: [2, 3, 4]}"
    for name, rate in (("a", 30), ("b", 25)):
        override = f"workload.arrivals.rate_per_s={rate}"
        succeed("simulate", tmp_path / "small.yaml", sweep, override, "--no-plots", "--out", tmp_path / name)
    printed = succeed("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "both").stdout
    assert re.search(r"^latency p50 +1\.00 +\S+ +workers=4 +workers=4$", printed, re.MULTILINE)
    assert re.search(r"^workers=2 +\S+%", printed, re.MULTILINE)
    assert str(tmp_path / "both/comparison-ranks.png") in printed


def test_what_cannot_be_compared_is_told(folders, tmp_path: Path):
    """A folder alone, a folder without a run, cells that have nothing in common."""
    assert "compare needs one more" in fail("compare", folders[0])
    assert "compare needs one more" in fail("compare", *folders, folders[0])
    assert "holds no finished run" in fail("compare", folders[0], tmp_path)
    (tmp_path / "small.yaml").write_text(SCENARIO)
    for name, workers in (("a", "[2, 3]"), ("b", "[4, 5]")):
        override = f"sweep={{cluster.workers: {workers}}}"
        succeed("simulate", tmp_path / "small.yaml", override, "--no-plots", "--out", tmp_path / name)
    told = fail("compare", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "c")
    assert told.startswith("nothing to compare: ")
    assert "workers=2" in told


def test_compare_takes_no_scenario(tmp_path: Path):
    """It says which command does."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    assert "fidelity compares the worlds of a scenario" in fail("compare", tmp_path / "small.yaml")


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
