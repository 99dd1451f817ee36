"""`report` and `explain-task` as a person meets them."""

import json
from pathlib import Path

import pytest

from orchestrator.analysis.task_lives import find, life
from orchestrator.cli import task_lives
from tests.cli.test_cli import SCENARIO, fail, succeed
from tests.cli.test_command_line import narrow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a sweep of two cells; each cell has a single run."""
    here = tmp_path_factory.mktemp("swept")
    (here / "small.yaml").write_text(SCENARIO)
    succeed("simulate", here / "small.yaml", "sweep={cluster.workers: [2, 3]}", "--no-plots", "--out", here / "out")
    return here / "out"


def test_explain_task_tells_candidates_and_outcome(folder: Path):
    """From the run simulated again; as JSON too."""
    one = folder / "workers=2" / "r0"
    printed = succeed("explain-task", one, "slowest").stdout
    assert "attempt 1 is assigned to w" in printed
    assert "with room" in printed
    assert "the run was simulated again" in printed
    told = json.loads(succeed("explain-task", one, "3", "--json").stdout)
    assert told["task"] == 3
    assert told["attempts"][0]["choice"]["exact"] is True


def test_a_cell_with_one_run_is_that_run(folder: Path):
    """Nobody has to know what is below it."""
    one, cell = (
        succeed("explain-task", path, "3").stdout for path in (folder / "workers=2" / "r0", folder / "workers=2")
    )
    assert one == cell


def test_a_folder_of_results_names_one_of_them(folder: Path):
    """`out/NAME` holds the folders of runs, and none of its own."""
    told = fail("explain-task", folder.parent, "1")
    assert told.endswith(
        f"holds no finished run: summary.json is missing, expected a folder of one, such as {folder}\n"
    )


def test_the_life_of_a_task_fits_a_narrow_terminal(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Of 60 columns, to the last line: where the choices come from."""
    screen = narrow(monkeypatch)
    run = task_lives.single_run(folder / "workers=2" / "r0")
    number = find(run, "slowest")
    choices, source = task_lives.choices_of(run, number)
    task_lives.print_life(life(run, number, choices), source)
    lines = [line.rstrip() for line in screen.shown().splitlines()]
    assert max(map(len, lines)) <= 60
    assert " ".join(lines).endswith(task_lives.AGAIN)


def test_explain_task_falls_back_on_the_tables(folder: Path, tmp_path: Path):
    """A run that comes out otherwise today is told as the tables have it, and so is the reason."""
    one = folder / "workers=3" / "r0"
    for file in one.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "scenario.yaml").read_text()
    (tmp_path / "scenario.yaml").write_text(text.replace("seed: ", "seed: 1", 1))
    printed = succeed("explain-task", tmp_path, "50").stdout
    assert "by the tables" in printed
    assert "counted in attempts.parquet, for simulating it again gives other attempts" in printed


def test_explain_task_says_what_there_is(folder: Path):
    """The range of the tasks; of a sweep, a run in it."""
    assert "there is no task 999999, expected 0 to " in fail("explain-task", folder / "workers=2" / "r0", "999999")
    assert f"holds 2 runs, expected one, such as {folder}/workers=2/r0" in fail("explain-task", folder, "1")


def test_a_report_replaces_reports_only(folder: Path, tmp_path: Path):
    """It goes into the folder if no file is named; a page of the user's stays."""
    assert f"report in {folder / 'report.html'}" in succeed("report", folder).stdout
    succeed("report", folder)
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert "is no report, and report replaces no other file" in fail("report", folder, "--out", mine)
    assert mine.read_text() == "mine"
