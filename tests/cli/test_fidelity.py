"""`fidelity` as a person meets it: a scenario in both worlds, and folders of results."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from orchestrator.results import folders
from tests.analysis.test_fidelity import grid, of
from tests.cli.test_cli import SCENARIO, fail, run, succeed


def test_fidelity_runs_a_scenario_in_both_worlds(tmp_path: Path):
    """The same arrivals meet the simulator and twice real processes; each error stands beside that of the live runs."""
    (tmp_path / "small.yaml").write_text(SCENARIO)
    out = tmp_path / "out"
    printed = succeed("fidelity", tmp_path / "small.yaml", "duration_s=2", "--floor", "2", "--out", out).stdout
    assert re.search(r"^ +sim +live +error +its interval +live / live +within 10 %$", printed, re.MULTILINE)
    told = [json.loads((out / world / "summary.json").read_text()) for world in ("sim", "live", "live-2")]
    assert [one["world"] for one in told] == ["sim", "live", "live"]
    assert told[0]["tasks"]["submitted"] == told[1]["tasks"]["submitted"] == told[2]["tasks"]["completed"]
    found = json.loads((out / "fidelity.json").read_text())
    assert found["live_runs"] == 2
    assert [len(row["floor"]) for row in found["cells"][0]["rows"] if row["metric"] == "latency_s.p50"] == [1]
    assert [path.name for path in out.glob("*.png")] == ["fidelity-percentiles.png"]


@pytest.fixture
def saved(tmp_path: Path) -> list[Path]:
    """A simulated run, and two live ones that are 20 % slower."""
    for name, world, factor in (("sim", "sim", 1.0), ("one", "live", 1.2), ("two", "live", 1.202)):
        folders.save(tmp_path / name, of(world, factor))
    return [tmp_path / name for name in ("sim", "one", "two")]


def test_fidelity_takes_folders_of_earlier_runs(saved: list[Path], tmp_path: Path):
    """One of the simulated world, and live ones in any number; a miss exits with 1."""
    asked = ("--no-plots", "--max-error", "0.1", "--out", tmp_path / "found")
    done = run("fidelity", *saved, *asked)
    assert done.exit_code == 1
    assert re.search(r"^latency p50 .* -16\.\d% +-\S+ to -\S+ +0\.\d% +different$", done.stdout, re.MULTILINE)
    assert "Latency, p50, p90, p95, p99: different by more than 10 %." in done.stdout
    assert re.fullmatch(r"\S+ is off by -\d+\.\d%; at most 10\.0% is allowed\n", done.stderr)
    succeed("fidelity", *saved[:2], "--no-plots", "--json", "--margin", "0.5", "--out", tmp_path / "again")


def test_folders_that_do_not_belong_together_are_told(saved: list[Path], tmp_path: Path):
    """Two of the live world, or only one folder."""
    for given in (saved[1:], saved[:1]):
        assert "expected one of the simulated world" in fail("fidelity", *given, "--out", tmp_path / "found")
    assert "--floor is for a scenario" in fail("fidelity", *saved, "--floor", "3")


def test_fidelity_tells_of_a_sweep_whether_both_worlds_rank_alike(tmp_path: Path):
    """Each percentile of each cell, and of the cells that both worlds tell apart how many stand in the same order."""
    for world in ("sim", "live"):
        folders.save(tmp_path / world, grid(world, (1, 60)))
    told = succeed("fidelity", tmp_path / "sim", tmp_path / "live", "--out", tmp_path / "both").stdout
    assert re.search(r"^workers=2: latency p50 .* \+0\.0% ", told, re.MULTILINE)
    assert re.search(r"^latency p50 +1\.00 +1 +1$", told, re.MULTILINE)
    assert re.search(r"^workers=3, KS distance 0\.00 between", told, re.MULTILINE)
    assert re.search(r"^workers=3, live +submitted 60, completed 60,", told, re.MULTILINE)
    assert str(tmp_path / "both/fidelity-percentiles.png") in told
