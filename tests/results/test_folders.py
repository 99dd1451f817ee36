import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.pictures import draw
from orchestrator.results import folders, manifests
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Scenario, ScenarioError
from tests.results import synthetic
from tests.results.synthetic import mm1, scenario, sweep, tables, task

RUN_FILES = {
    "engine.json",
    "manifest.json",
    "summary.json",
    "scenario.yaml",
    "tasks.parquet",
    "attempts.parquet",
    "events.parquet",
}
GRID: dict[str, list[Any]] = {"policies.routing.kind": ["random", "least_loaded"], "cluster.prefetch": [0, 1]}


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def leave(result: Run | Sweep, folder: Path, force: bool = False, drawn: Callable[..., object] = draw) -> None:
    """Save a result with its pictures, as the command line does."""
    folders.save(folder, result, force)
    drawn(result, folder)


def scribble(result: Run | Sweep, folder: Path) -> None:
    """In the place of pictures, which take seconds to draw."""
    name = "timeline.png" if isinstance(result, Run) else "sweep-latency.png"
    with manifests.writing(folder, [name]):
        (folder / name).write_bytes(b"a picture")


@pytest.fixture(scope="module")
def grid():
    return sweep(GRID)


# ---- one run


def test_a_run_leaves_its_whole_folder(tmp_path):
    """A saved and drawn run leaves summary, scenario, tables, trace and plots, and no temporary files."""
    leave(mm1(200), tmp_path / "run")
    plots = {
        f"{name}.{kind}"
        for name in (
            "latency-percentiles",
            "latency-ccdf",
            "latency-by-priority",
            "timeline",
            "worker-utilization",
        )
        for kind in ("png", "svg")
    }
    assert set(files(tmp_path / "run")) == RUN_FILES | {"trace.json"} | plots
    assert all(files(tmp_path / "run").values())


def test_a_loaded_run_equals_the_saved_one(tmp_path):
    """Summary, scenario, tables and data frames are the same after loading."""
    saved = mm1(300)
    folders.save(tmp_path, saved)
    loaded = folders.load(tmp_path)
    assert isinstance(loaded, Run)
    assert loaded.summary == saved.summary
    assert loaded.scenario == saved.scenario
    for table in ("tasks", "attempts", "events"):
        assert getattr(loaded.tables, table).equals(getattr(saved.tables, table))
        assert getattr(loaded, table).equals(getattr(saved, table))


def test_a_run_of_an_older_version_is_read(tmp_path):
    """Its scenario has keys that have other names now; in a scenario of today they are errors."""
    run = mm1(200)
    folders.save(tmp_path, run)
    path = tmp_path / "scenario.yaml"
    text = path.read_text()
    old = text.replace("message_kinds:", "legs:").replace("max_worker_kills:", "poison_after:")
    assert old != text
    path.write_text(old)
    assert folders.load_run(tmp_path).scenario == run.scenario
    with pytest.raises(ScenarioError, match="was renamed"):
        Scenario.load(path)


def test_what_an_older_version_did_not_count_is_read_from_the_tables(tmp_path):
    """How often healthy workers were declared dead, of a run and of a sweep."""
    events = [(0.0, "up", 0, "registered"), (20.0, "dead", 0, "failed_call"), (22.0, "up", 0, "revived")]
    one = synthetic.run(tables([task(20.0, 21.0)], events=events))
    folders.save(tmp_path, Sweep(scenario(), [CellRuns.of("base", {}, {0: one, 1: one})]))
    for path in tmp_path.rglob("summary.json"):
        told = json.loads(path.read_text())
        for level in (told, *told.get("cells", ())):
            level.get("detection", {}).pop("healthy_declared_dead", None)
        path.write_text(json.dumps(told))
    loaded = folders.load(tmp_path)
    assert isinstance(loaded, Sweep)
    assert [each.summary["detection"]["healthy_declared_dead"] for each in loaded.runs] == [1, 1]
    assert loaded.cells[0].pooled["detection"]["healthy_declared_dead"] == 2


def test_equal_runs_give_equal_bytes(tmp_path):
    """Equal runs give the same bytes in every file, pictures and trace included."""
    for name in ("a", "b"):
        leave(mm1(300), tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_summary_on_disk_is_the_summary(tmp_path):
    """summary.json holds the plain numbers of run.summary, but for the speed, which no two runs have in common."""
    done = mm1(200)
    folders.save(tmp_path, done)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert {**told, "engine": json.loads((tmp_path / "engine.json").read_text())} == done.summary
    tasks = told["tasks"]
    assert tasks["submitted"] == tasks["completed"] + tasks["failed"] + tasks["unfinished"] == 200


# ---- a sweep


def test_a_sweep_leaves_a_folder_for_each_run(tmp_path, grid):
    """A sweep leaves tables, summary and scenario in DIR/<cell>/r<k>, and the aggregate in DIR."""
    leave(grid, tmp_path)
    left = files(tmp_path)
    for cell in grid.cells:
        for k in (0, 1):
            assert {name for name in left if name.startswith(f"{cell.name}/r{k}/")} == {
                f"{cell.name}/r{k}/{name}" for name in RUN_FILES
            }
    top = {name for name in left if "/" not in name}
    assert {"manifest.json", "summary.json", "scenario.yaml", "cells.csv", "sweep-cluster.prefetch.png"} <= top


def test_a_loaded_sweep_equals_the_saved_one(tmp_path, grid):
    """The summary, the table and the runs of a sweep are the same after loading."""
    folders.save(tmp_path, grid)
    loaded = folders.load(tmp_path)
    assert isinstance(loaded, Sweep)
    assert loaded.summary == grid.summary
    assert loaded.scenario == grid.scenario
    assert loaded.table().equals(grid.table())
    for mine, theirs in zip(loaded.runs, grid.runs, strict=True):
        assert mine.tables.tasks.equals(theirs.tables.tasks)


def test_sweeps_give_equal_bytes(tmp_path, grid):
    """Equal sweeps give the same bytes in the aggregate, the CSV file and the pictures."""
    leave(grid, tmp_path / "a")
    leave(sweep(GRID), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_loaded_sweep_can_be_saved_elsewhere_and_in_its_place(tmp_path, grid):
    """A sweep can be saved into another folder and into the folder from which it was loaded."""
    folders.save(tmp_path / "a", grid)
    before = files(tmp_path / "a")
    for name in ("b", "a"):
        folders.save(tmp_path / name, folders.load(tmp_path / "a"), force=True)
    assert files(tmp_path / "a") == before == files(tmp_path / "b")


def test_cells_csv_has_a_row_a_cell(tmp_path, grid):
    """The columns are the swept keys, the metrics and the bounds of their intervals."""
    folders.save(tmp_path, grid)
    header, *rows = (tmp_path / "cells.csv").read_text().splitlines()
    assert len(rows) == 4
    assert header.startswith("cell,policies.routing.kind,cluster.prefetch,scenario,world,seed,")
    assert {"latency_s.p99", "latency_s.p99.low", "latency_s.p99.high"} <= set(header.split(","))


def test_replications_of_one_cell_stand_at_the_top_level_too(tmp_path):
    """The pooled summary of a single cell also has the keys of a run's summary."""
    leave(sweep({}, replications=3), tmp_path)
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["latency_s"] == told["cells"][0]["latency_s"]
    assert (told["replications"], told["cells"][0]["cell"]) == (3, "base")
    assert len(told["ci95"]["latency_s.p99"]) == 2


def test_an_interrupted_sweep_keeps_what_finished(tmp_path):
    """Runs keep their replication numbers, and the summary says that the sweep was interrupted."""
    runs = {2: mm1(100, seed=2), 0: mm1(100, seed=0)}
    for number, run in runs.items():
        folders.save(folders.run_folder(tmp_path, "base", number), run)
    folders.write_aggregate(tmp_path, Sweep(scenario(), [CellRuns.of("base", {}, runs)], interrupted=True))
    loaded = folders.load(tmp_path)
    assert isinstance(loaded, Sweep)
    assert loaded.summary["interrupted"] is True
    assert list(loaded.table()["replication"]) == [0, 2]
    assert (tmp_path / "base/r2/tasks.parquet").exists()


# ---- replacing


def test_nothing_is_replaced_unasked(tmp_path, grid):
    """A folder that holds results, or anything else, is refused, and stays as it is."""
    leave(mm1(50), tmp_path / "run")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for folder in ("run", "mine"):
        before = files(tmp_path / folder)
        for result in (mm1(50), grid):
            with pytest.raises(folders.RunFolderError, match=r"holds .* already: choose another folder"):
                folders.save(tmp_path / folder, result)
        assert files(tmp_path / folder) == before


def test_a_new_run_replaces_the_old_sweep(tmp_path, grid):
    """With force, nothing of the old sweep is left in the folder of the new run."""
    leave(grid, tmp_path / "both", drawn=scribble)
    leave(mm1(200), tmp_path / "both", force=True, drawn=scribble)
    leave(mm1(200), tmp_path / "fresh", drawn=scribble)
    assert files(tmp_path / "both") == files(tmp_path / "fresh")


def test_a_new_sweep_replaces_the_old_run_and_other_cells(tmp_path, grid):
    """With force, stale cells, stale replications and the tables of a single run are removed."""
    leave(mm1(200), tmp_path / "both", drawn=scribble)
    leave(sweep({"seed": [7, 8]}, replications=3), tmp_path / "both", force=True, drawn=scribble)
    leave(grid, tmp_path / "both", force=True, drawn=scribble)
    leave(grid, tmp_path / "fresh", drawn=scribble)
    assert files(tmp_path / "both") == files(tmp_path / "fresh")


def test_a_new_run_removes_every_part_of_the_old_decision_record(tmp_path):
    """Otherwise the new coordinator would append to it, also to that of a run that was killed."""
    folders.begin(tmp_path, "some", live=True)
    for name in ("decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.12", "decisions.jsonl.bak"):
        (tmp_path / name).touch()
    folders.require_free(tmp_path, force=True)
    folders.begin(tmp_path, "another", live=True)
    assert {path.name for path in tmp_path.iterdir()} == {"decisions.jsonl.bak", "manifest.json"}


def test_what_is_not_ours_stays(tmp_path, grid):
    """Notes beside a run and folders that only look like a cell are not removed."""
    folders.save(tmp_path, grid)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "old/r1").mkdir(parents=True)
    (tmp_path / "old/r1/summary.json").write_text("mine")
    (tmp_path / grid.cells[0].name / "r0/notes.txt").write_text("mine")
    folders.save(tmp_path, mm1(100), force=True)
    kept = {name for name, data in files(tmp_path).items() if data == b"mine"}
    assert kept == {"notes.txt", "old/r1/summary.json", f"{grid.cells[0].name}/r0/notes.txt"}


@pytest.mark.parametrize("name", ["scenario.yaml", "timeline.png", "decisions.jsonl.1", "engine.json"])
def test_a_file_of_the_user_is_never_overwritten(tmp_path, name):
    """A folder with the user's own scenario.yaml is refused, also with force, and the file is not changed."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(folders.RunFolderError, match=f"{name} was not written by a run, and would be replaced"):
        leave(mm1(100), tmp_path, force=True)
    assert files(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("name", ["scenario.yaml", "{cell}/r1/tasks.parquet"])
def test_a_file_that_the_user_edited_is_kept(tmp_path, grid, name):
    """It is told by its digest, wherever it is, and nothing else is removed either."""
    folders.save(tmp_path, grid)
    path = tmp_path / name.format(cell=grid.cells[1].name)
    path.write_bytes(path.read_bytes()[:-1] + b"#")
    before = files(tmp_path)
    with pytest.raises(folders.RunFolderError, match=f"{path.name} was changed since a run wrote it"):
        folders.save(tmp_path, mm1(100), force=True)
    assert files(tmp_path) == before


def test_results_without_a_manifest_are_never_replaced(tmp_path, grid):
    """An older version left them."""
    folders.save(tmp_path, grid)
    for manifest in tmp_path.rglob("manifest.json"):
        manifest.unlink()
    before = files(tmp_path)
    with pytest.raises(folders.RunFolderError, match=r"results of an older version without a manifest\.json"):
        folders.save(tmp_path, mm1(100), force=True)
    assert files(tmp_path) == before


@pytest.mark.parametrize("text", ["", "[]", '{"identity": null, "files": {"../../notes": null}, "folders": []}'])
def test_a_damaged_manifest_removes_nothing(tmp_path, text):
    """Nor does one that names files elsewhere."""
    folders.save(tmp_path, mm1(100))
    (tmp_path / "manifest.json").write_text(text)
    before = files(tmp_path)
    with pytest.raises(folders.RunFolderError, match=r"manifest\.json is damaged"):
        folders.save(tmp_path, mm1(100), force=True)
    assert files(tmp_path) == before


def test_pictures_are_drawn_again_and_never_over_others(tmp_path):
    """Those of the run are replaced; one that the user made is not."""
    run = mm1(100)
    leave(run, tmp_path)
    before = files(tmp_path)
    draw(run, tmp_path)
    assert files(tmp_path) == before
    (tmp_path / "timeline.png").write_text("mine")
    with pytest.raises(folders.RunFolderError, match=r"timeline\.png was not written by a run, or was changed"):
        draw(run, tmp_path)
    assert (tmp_path / "timeline.png").read_text() == "mine"


def test_an_interrupted_write_leaves_no_summary(tmp_path, monkeypatch):
    """Ctrl-C between tables and summary leaves no finished run, and the folder can be used again."""
    old = mm1(100)
    folders.save(tmp_path, old)
    whole = manifests.write_whole

    def interrupted(path, text):
        if path.name == "summary.json":
            path.with_name("summary.json.part").touch()
            raise KeyboardInterrupt
        whole(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "write_whole", interrupted)
        with pytest.raises(KeyboardInterrupt):
            folders.save(tmp_path, mm1(200), force=True)
    with pytest.raises(folders.RunFolderError, match=r"no finished run: summary\.json is missing"):
        folders.load(tmp_path)
    folders.save(tmp_path, old, force=True)
    assert folders.load(tmp_path).summary == old.summary
    assert not list(tmp_path.glob("*.part"))


# ---- numbered folders


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    """1, 2, ..., also where one of them was removed, and `latest` leads to the newest."""
    parent = tmp_path / "out/name"
    assert [manifests.numbered(parent).name for _ in range(3)] == ["1", "2", "3"]
    (parent / "2").rmdir()
    assert manifests.numbered(parent) == manifests.latest(parent) == parent / "4"
    assert os.readlink(parent / "latest") == "4"


def test_two_at_once_get_two_folders(tmp_path):
    """Whoever makes the folder has it."""
    parent = tmp_path / "name"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: manifests.numbered(parent), range(40)))
    assert sorted(int(folder.name) for folder in made) == list(range(1, 41))


def test_without_symbolic_links_a_file_tells_the_latest(tmp_path, monkeypatch):
    """As on file systems that have none."""

    def refused(*_, **__):
        raise OSError("not here")

    monkeypatch.setattr(Path, "symlink_to", refused)
    for _ in range(2):
        made = manifests.numbered(tmp_path)
    assert (tmp_path / "latest").read_text() == "2\n"
    assert manifests.latest(tmp_path) == made


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_latest_of_the_user_is_left_alone(tmp_path, kind):
    """It leads nowhere, and nothing replaces it."""
    latest = tmp_path / "latest"
    latest.mkdir() if kind == "folder" else latest.write_text("mine")
    assert manifests.numbered(tmp_path) == tmp_path / "1"
    assert manifests.latest(tmp_path) is None
    assert latest.is_dir() if kind == "folder" else latest.read_text() == "mine"


def test_a_folder_in_which_nothing_is_kept_goes_again(tmp_path):
    """`latest` then leads to the one before."""
    parent = tmp_path / "name"
    first, second = manifests.numbered(parent), manifests.numbered(parent)
    manifests.withdraw(second)
    assert manifests.latest(parent) == first
    manifests.withdraw(first)
    assert not parent.exists()


# ---- folders of older versions


def forget(path: Path) -> None:
    """Make a summary one of a version that did not say when a run ended, nor told executed and occupied apart."""
    summary = json.loads(path.read_text())
    for told in (summary, *summary.get("cells", ())):
        for key in ("ended_s", "slots", "queue", "by_kind", "unsettled_until_s"):
            told.pop(key, None)
        told["latency_s"] = {"p50": 1.0}
    path.write_text(json.dumps(summary))


def test_the_run_of_an_older_version_is_summarised_anew(tmp_path):
    """It ended with the last thing that happened, and its speed and late results are those of its own summary."""
    run = mm1(50)
    folders.save(tmp_path, run)
    forget(tmp_path / "summary.json")
    loaded = folders.load_run(tmp_path)
    assert loaded.summary == run.summary
    assert loaded.tables == replace(run.tables, ended_s=run.summary["ended_s"])


def test_the_sweep_of_an_older_version_is_pooled_anew(tmp_path, grid):
    """Every cell has all that a sweep of this version has, after the summaries of its runs were made anew."""
    folders.save(tmp_path, grid)
    for path in tmp_path.rglob("summary.json"):
        forget(path)
    assert folders.load(tmp_path).summary == grid.summary


# ---- no run, or a damaged one


def damage(name: str, text: str) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("hurt", "complaint"),
    [
        (lambda folder: (folder / "summary.json").unlink(), "no finished run"),
        (damage("summary.json", '{"scenario": '), "summary.json is damaged"),
        (damage("summary.json", "[]"), "summary.json is damaged"),
        (damage("summary.json", '{"scenario": "x"}'), "it lacks accept_s, by_priority"),
        (damage("tasks.parquet", "no parquet"), "a table is missing or damaged"),
        (lambda folder: (folder / "events.parquet").unlink(), "a table is missing or damaged"),
        (lambda folder: (folder / "scenario.yaml").unlink(), "scenario.yaml is missing"),
        (damage("scenario.yaml", "name: ["), "scenario.yaml is missing or damaged"),
    ],
)
def test_a_damaged_folder_is_one_clear_sentence(tmp_path, hurt, complaint):
    """Every damage is reported in one line that names the folder."""
    folders.save(tmp_path, mm1(50))
    hurt(tmp_path)
    with pytest.raises(folders.RunFolderError, match=complaint) as caught:
        _ = folders.load_run(tmp_path).tables
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_sweep_is_one_clear_sentence(tmp_path, grid):
    """A missing run and an empty aggregate are each reported in one sentence."""
    folders.save(tmp_path, grid)
    (tmp_path / grid.cells[1].name / "r1/summary.json").unlink()
    with pytest.raises(folders.RunFolderError, match=r"r1 holds no finished run: summary\.json is missing"):
        folders.load(tmp_path)
    (tmp_path / "summary.json").write_text('{"cells": []}')
    with pytest.raises(folders.RunFolderError, match="it lacks duration_s, scenario, seed, world"):
        folders.load(tmp_path)


def test_no_folder_and_no_run_are_told_apart(tmp_path):
    """A folder that does not exist and a folder without a run give different sentences."""
    with pytest.raises(folders.RunFolderError, match="is not a folder"):
        folders.load(tmp_path / "nowhere")
    with pytest.raises(folders.RunFolderError, match="no finished run"):
        folders.load(tmp_path)


@pytest.mark.parametrize("name", ["summary.json", "scenario.yaml", "tasks.parquet"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_in_a_run_folder_is_one_sentence(tmp_path, name, kind):
    """Whoever reads it would wait for ever, and so would whoever writes a run there."""
    folders.save(tmp_path, mm1(10))
    (tmp_path / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    for use in (folders.load, lambda folder: folders.save(folder, mm1(10))):
        with pytest.raises(folders.RunFolderError, match=rf"{name} is a device or a pipe, expected a file of a run"):
            use(tmp_path)


def test_a_summary_without_an_end_is_one_sentence(tmp_path, monkeypatch):
    """It is not read until memory is full."""
    folders.save(tmp_path, mm1(10))
    monkeypatch.setattr(folders, "SUMMARY_BYTES", 100)
    with pytest.raises(folders.RunFolderError, match=r"summary\.json is damaged: it has more than 0 MiB"):
        folders.load(tmp_path)
