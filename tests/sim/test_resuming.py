"""Sweeps that go on after they were killed: only the missing runs are run, and the bytes are those of one go."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sim
from orchestrator.results import folders, manifests
from orchestrator.results.folders import RunFolderError
from orchestrator.results.precision import Precision, UnknownMetric
from orchestrator.results.tables import Tables
from orchestrator.scenario.schema import Scenario
from sim import runs

KILLED = """
import os, signal, sys
import sim
from orchestrator.scenario.schema import Scenario

def kill(share, run=""):
    if share >= 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    sim.sweep(Scenario.load(sys.argv[1]), sys.argv[2], progress=kill)
"""


class Killed(BaseException):
    """Nothing handles it, as nothing handles SIGKILL."""


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., Scenario]:
    def load(*overrides: str, cells: int = 3) -> Scenario:
        rates = ", ".join(f"{5 + i / 100:g}" for i in range(cells))
        path = tmp_path / "tiny.yaml"
        path.write_text(
            "name: tiny\nduration_s: 4\ncluster: {workers: 2, capacity: 1}\nworkload:\n"
            "  arrivals: {kind: poisson, rate_per_s: 5}\n  service: {kind: exponential, mean_s: 0.1}\n"
            f"sweep: {{workload.arrivals.rate_per_s: [{rates}]}}\n"
        )
        return Scenario.load(path, overrides)

    return load


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the runs that are run, as `<cell>/r<k>`."""
    names: list[str] = []
    run = runs.run

    def noted(scenario: Scenario, number: int, **options):
        names.append("/".join(options["out"].parts[-2:]))
        return run(scenario, number, **options)

    monkeypatch.setattr(runs, "run", noted)
    return names


def files(folder: Path) -> dict[str, bytes]:
    """But for how long each run took."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "engine.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_what_is_saved_of_a_sweep_makes_it_again(tmp_path, scenario):
    """Its scenario has the replications that were asked for beside it."""
    sim.sweep(scenario(), tmp_path / "first", replications=2)
    sim.sweep(Scenario.load(tmp_path / "first" / "scenario.yaml"), tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "first")


def test_a_sweep_of_200_cells_that_was_killed_goes_on(tmp_path, scenario, ran):
    """By SIGKILL after half of them: exactly the other hundred are run, and every byte is that of one go."""
    grid = scenario(cells=200)
    command = [sys.executable, "-c", KILLED, tmp_path / "tiny.yaml", tmp_path / "killed"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/summary.json").exists()
    done = {str(path.parent.relative_to(tmp_path / "killed")) for path in tmp_path.glob("killed/*/*/summary.json")}
    assert len(done) == 100
    sim.sweep(grid, tmp_path / "killed", resume=True)
    resumed = set(ran)
    assert len(ran) == 100
    assert not resumed & done
    ran.clear()
    sim.sweep(grid, tmp_path / "whole")
    assert set(ran) == resumed | done
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_sweep_goes_on_wherever_it_was_killed(tmp_path, scenario, monkeypatch):
    """Before and after each file that it writes, at its top and in its runs."""
    grid = scenario(cells=1)
    sim.sweep(grid, tmp_path / "whole", replications=2)
    whole, write, write_tables, left = files(tmp_path / "whole"), manifests.write_whole, Tables.write, [0]

    def die() -> None:
        left[0] -= 1
        if not left[0]:
            raise Killed

    def dying(path: Path, text: str) -> None:
        path.with_name(path.name + ".part").touch()
        die()
        write(path, text)
        die()

    def dying_tables(tables: Tables, folder: Path) -> None:
        (folder / "tasks.parquet").touch()
        die()
        write_tables(tables, folder)

    monkeypatch.setattr(manifests, "write_whole", dying)
    monkeypatch.setattr(Tables, "write", dying_tables)
    moments = 0
    while True:
        out = tmp_path / str(moments)
        left[0] = moments + 1
        try:
            sim.sweep(grid, out, replications=2)
        except Killed:
            moments += 1
            left[0] = 0
            sim.sweep(grid, out, replications=2, resume=True)
            assert files(out) == whole
        else:
            break
    assert moments > 20


def test_more_replications_are_added(tmp_path, scenario, ran):
    """Those that are there stay, whether the option or the scenario asks for more."""
    sim.sweep(scenario(), tmp_path / "out", replications=2)
    ran.clear()
    sim.sweep(scenario("replications=3"), tmp_path / "out", resume=True)
    assert [name[-2:] for name in ran] == ["r2"] * 3
    sim.sweep(scenario("replications=3"), tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_runs_beyond_the_replications_are_no_others(tmp_path, scenario, ran):
    """Four of each cell are there and two are asked for: that is said, and how many keep them."""
    sim.sweep(scenario(cells=1), tmp_path / "out", replications=4)
    ran.clear()
    told = (
        r"2 of the 4 finished runs in .*out are beyond the 2 replications that are asked for, such as .*/r2: "
        r"--replications 4 keeps them, and --resume --force replaces them"
    )
    with pytest.raises(RunFolderError, match=told):
        sim.sweep(scenario(cells=1), tmp_path / "out", replications=2, resume=True)
    assert ran == []
    assert len(list(sim.sweep(scenario(cells=1), tmp_path / "out", replications=4, resume=True).runs)) == 4
    assert ran == []


def test_what_changed_is_run_again_if_it_may_be_replaced(tmp_path, scenario, ran):
    """Another duration of one cell, a cell less: refused as long as nobody says that finished runs may go."""
    sim.sweep(scenario(cells=3), tmp_path / "out")
    before = files(tmp_path / "out")
    ran.clear()
    with pytest.raises(
        RunFolderError, match=r"1 of the 3 finished runs .* is of cells that this sweep does not have, such as"
    ):
        sim.sweep(scenario(cells=2), tmp_path / "out", resume=True)
    with pytest.raises(RunFolderError, match=r"3 of the 3 finished runs .* are of another scenario or world"):
        sim.sweep(scenario("duration_s=5"), tmp_path / "out", resume=True)
    assert (ran, files(tmp_path / "out")) == ([], before)
    sim.sweep(scenario(cells=2), tmp_path / "out", resume=True, force=True)
    assert ran == []
    sim.sweep(scenario(cells=2), tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    ran.clear()
    sim.sweep(scenario("duration_s=5", cells=2), tmp_path / "out", resume=True, force=True)
    assert len(ran) == 2


def test_another_content_of_a_trace_is_another_run(tmp_path):
    """Although its name is the same."""
    path, trace = tmp_path / "traced.yaml", tmp_path / "arrivals.csv"
    path.write_text(
        "name: traced\nduration_s: 4\ncluster: {workers: 1, capacity: 1}\nworkload:\n"
        "  arrivals: {kind: trace, file: arrivals.csv}\n  service: {kind: constant, value_s: 0.1}\n"
    )
    told = []
    for text in ("arrival_s\n0\n1\n", "arrival_s\n0\n2.5\n"):
        trace.write_text(text)
        told.append(folders.identity(Scenario.load(path), "sim"))
    assert told[0] != told[1]


def test_a_file_that_was_changed_keeps_a_sweep_from_going_on(tmp_path, scenario):
    """Its summary would not be that of its tables."""
    sim.sweep(scenario(), tmp_path / "out")
    edited = next(tmp_path.glob("out/*/r0/tasks.parquet"))
    edited.write_bytes(b"mine")
    with pytest.raises(RunFolderError, match=r"tasks\.parquet was changed since a run wrote it"):
        sim.sweep(scenario(), tmp_path / "out", resume=True)
    assert edited.read_bytes() == b"mine"


# ---- precision


def test_replications_are_added_until_a_number_is_known(tmp_path, scenario, ran):
    """To a quarter, in every cell; if that is resumed, nothing is run again."""
    wanted, grid = Precision("utilization", 0.25), scenario(cells=2)
    found = sim.sweep(grid, tmp_path / "out", precision=wanted)
    assert len(ran) == len(set(ran)) > 4
    for cell in found.cells:
        low, high = cell.pooled["ci95"]["utilization"]
        assert (high - low) / 2 / cell.pooled["utilization"] == wanted.reached(cell)
        assert (wanted.reached(cell) or 1) <= 0.25
    ran.clear()
    again = sim.sweep(grid, tmp_path / "out", precision=wanted, resume=True)
    assert (again.summary, ran) == (found.summary, [])
    assert [line.partition(" after")[0] for line in wanted.told(found.cells)] == [
        f"{cell.name}: utilization" for cell in found.cells
    ]


def test_replications_end_where_they_must(tmp_path, scenario):
    """At the cap; what was not reached is told, and an interval without an end counts as not reached."""
    for metric, how in (("utilization", "known to ± "), ("latency_s.p999", "too few to tell its interval")):
        wanted = Precision(metric, 0.0001, most=3)
        found = sim.sweep(scenario(cells=1), tmp_path / metric, precision=wanted)
        assert len(found.cells[0].runs) == 3
        [sentence] = wanted.told(found.cells)
        assert sentence.startswith(f"{metric} after 3 replications: ")
        assert how in sentence
        assert sentence.endswith(", and ± 0.01% was asked for")


def test_a_number_without_an_interval_is_told_before_any_run(scenario):
    """With those that have one."""
    with pytest.raises(UnknownMetric, match=r"latency_s\.max has no interval, expected one of .*latency_s\.p99,"):
        Precision("latency_s.max", 0.1).require_known(scenario())
    Precision("latency_s.p99", 0.1).require_known(scenario())
