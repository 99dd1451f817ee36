"""The run folder: how runs and sweeps are saved and loaded.

    one run:   DIR/summary.json  scenario.yaml  tasks.parquet  attempts.parquet  events.parquet
               of a live run also its decision record and cluster.log
    a sweep:   DIR/summary.json  scenario.yaml  cells.csv  <cell>/r<k>/{summary.json, scenario.yaml, tables}

`orchestrator.pictures` adds plots and, for one run, `trace.json`. Names hold no time, and equal runs give equal
bytes. `summary.json` is written last and atomically: a folder with a summary is complete, except for pictures, which
can be drawn again.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.results.runs import CellRuns, Run, Sweep, readable
from orchestrator.results.statistics import flatten
from orchestrator.results.summaries import Summary, summarise
from orchestrator.results.tables import FILES, Tables, check_files
from orchestrator.scenario.schema import Scenario, ScenarioError

TRACE = "trace.json"
_SUMMARY, _SCENARIO, _CELLS = "summary.json", "scenario.yaml", "cells.csv"
_LIVE = ("decisions.jsonl", "journal.jsonl", "cluster.log")  # the second one in folders of older versions
_PLOT = r"(latency-percentiles|latency-ccdf|latency-by-priority|timeline|worker-utilization|detection|sweep-[^/]+)"
_NAMES = (*FILES, *_LIVE, _SUMMARY, _SCENARIO, _CELLS, TRACE)
_OURS = re.compile("|".join([*map(re.escape, _NAMES), r"decisions\.jsonl\.\d+", _PLOT + r"\.(png|svg)"]))

_RUN_KEYS = {"scenario", "world", "seed", "duration_s", "ended_s", "tasks", "latency_s", "wait_s", "accept_s"} | {
    "throughput_per_s",
    "utilization",
    "slots",
    "by_priority",
    "queue",
    "detection",
    "engine",
}
_LATER_KEYS = {"ended_s", "slots", "queue"}
"""Keys that older versions did not write."""
_SWEEP_KEYS = {"scenario", "world", "seed", "duration_s", "cells"}


SUMMARY_BYTES = 1 << 30
"""Far more than that of a sweep of a hundred thousand runs."""


class RunFolderError(Exception):
    """A folder holds no run, a damaged run, or a file of the user's that a run must not replace. One sentence."""


class StoredRun(Run):
    """A run in its folder. Each access to `tables` reads the files, so a sweep of many runs needs little memory."""

    def __init__(self, folder: Path, summary: Summary) -> None:
        self.folder = folder
        self.summary = summary

    @property
    def tables(self) -> Tables:
        try:
            return Tables.read(self.folder, self.scenario.worker_names(), self.summary.get("ended_s"))
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{self.folder}: a table is missing or damaged: {_first_line(error)}") from None

    @cached_property
    def scenario(self) -> Scenario:
        return _load_scenario(self.folder)


def load(folder: str | Path) -> Run | Sweep:
    """The run or the sweep that is saved in `folder`.

    Every summary is read and every table's schema checked now; tables and scenarios are read at their first use.
    Raises RunFolderError if the folder holds no finished run, or a damaged one.
    """
    folder = Path(folder)
    summary = _read_summary(folder)
    if "cells" not in summary:
        return load_run(folder)
    _require(summary, _SWEEP_KEYS, folder)
    cells = [_load_cell(folder, entry) for entry in summary["cells"]]
    return Sweep(_load_scenario(folder), cells, summary.get("interrupted", False))


def load_cell(folder: Path, cell: str) -> Sweep:
    """One cell of the sweep that is saved in `folder`; RunFolderError if there is none of that name."""
    result = load(folder)
    cells = result.cells if isinstance(result, Sweep) else []
    chosen = [one for one in cells if one.name == cell]
    if not chosen:
        known = f", expected one of {', '.join(one.name for one in cells)}" if cells else ": it holds a single run"
        raise RunFolderError(f"{folder} has no cell {cell}{known}")
    return Sweep(result.scenario, chosen)


def load_run(folder: Path) -> StoredRun:
    """The single run in `folder`; raises the same errors as `load`.

    The summary of an older version, which does not say when its run ended, is made anew from its tables: the run is
    taken to have ended with the last thing that happened.
    """
    run = StoredRun(folder, _read_summary(folder))
    older = "ended_s" not in run.summary
    _require(run.summary, _RUN_KEYS - _LATER_KEYS if older else _RUN_KEYS, folder)
    try:
        check_files(folder)
    except (OSError, pa.ArrowException) as error:
        raise RunFolderError(f"{folder}: a table is missing or damaged: {_first_line(error)}") from None
    if not (folder / _SCENARIO).is_file():
        raise RunFolderError(f"{folder}: {_SCENARIO} is missing")
    if older:
        told, interrupted = run.summary, "interrupted" in run.summary
        run.summary = summarise(
            run.tables, run.scenario, told["world"], told["engine"], told["tasks"], interrupted=interrupted
        )
    return run


def run_folder(folder: Path, cell: str, number: int) -> Path:
    """Where replication `number` of a cell lives in the folder of its sweep."""
    return folder / cell / f"r{number}"


def save(folder: str | Path, result: Run | Sweep) -> None:
    """Write a run, or a sweep with all its runs, without pictures; results of an earlier run in `folder` are removed.

    A result may be saved into the folder from which it was loaded. Raises RunFolderError as `require_ours`.
    """
    folder = Path(folder)
    if isinstance(result, Run):
        scenario, tables = result.scenario, result.tables  # read before they are removed
        write_tables(folder, tables)
        write_summary(folder, scenario, result.summary)
        return
    for cell in result.cells:
        for number, run in zip(cell.numbers, cell.runs, strict=True):
            save(run_folder(folder, cell.name, number), run)
    write_aggregate(folder, result)


def write_tables(folder: Path, tables: Tables) -> None:
    """The first half of saving a run: clear the folder and write the tables."""
    clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tables.write(folder)


def write_summary(folder: Path, scenario: Scenario, summary: Summary) -> None:
    """The second half of saving a run: write the scenario, then the summary, which marks the folder as complete."""
    _write(folder / _SCENARIO, scenario.dump())
    _write(folder / _SUMMARY, json.dumps(summary, indent=2, allow_nan=False) + "\n")


def write_aggregate(folder: Path, sweep: Sweep) -> None:
    """Write the files of a sweep whose runs are already in their folders; runs of an earlier sweep are removed."""
    clear(folder, {run_folder(folder, cell.name, number) for cell in sweep.cells for number in cell.numbers})
    _write(folder / _CELLS, _csv(sweep.cells))
    write_summary(folder, sweep.scenario, sweep.summary)


def clear(folder: Path, keep: AbstractSet[Path] = frozenset()) -> None:
    """Remove the files of earlier runs from `folder`, except for the run folders in `keep`; touch nothing else.

    Raises RunFolderError as `require_ours`.
    """
    require_ours(folder)
    for path in set(_run_folders(folder)) - keep:
        _remove_files(path)
        _remove_if_empty(path)
        _remove_if_empty(path.parent)
    _remove_files(folder)


def require_ours(folder: Path) -> None:
    """Raise RunFolderError if `folder` holds no run, but a file that a run would replace, or a device or a pipe in the
    place of one."""
    _require_files(folder)
    if (folder / FILES[0]).exists() or _run_folders(folder):
        return
    for name in (_SUMMARY, _SCENARIO):
        if (folder / name).exists():
            raise RunFolderError(f"{folder} holds a {name} but no run: choose another folder, or move the file")


def _require_files(folder: Path) -> None:
    """Whoever opens a device or a pipe may wait for ever, or read without an end."""
    for path in folder.glob("*") if folder.is_dir() else ():
        is_other = path.exists() and not path.is_file() and not path.is_dir()
        if is_other and _OURS.fullmatch(path.name.removesuffix(".part")):
            raise RunFolderError(f"{path} is a device or a pipe, expected a file of a run")


def _run_folders(folder: Path) -> list[Path]:
    """The run folders inside the folder of a sweep."""
    return [path for path in folder.glob("*/r*") if re.fullmatch(r"r\d+", path.name) and (path / FILES[0]).is_file()]


def _remove_files(folder: Path) -> None:
    (folder / _SUMMARY).unlink(missing_ok=True)  # first: without a summary, the folder counts as incomplete
    for path in folder.glob("*"):
        if path.is_file() and _OURS.fullmatch(path.name.removesuffix(".part")):
            path.unlink()


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _write(path: Path, text: str) -> None:
    """Write atomically: the file appears complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _csv(cells: Sequence[CellRuns]) -> str:
    """One row per cell: the swept keys, every metric, and the bounds of its interval as `.low` and `.high`."""
    table: list[dict[str, Any]] = []
    for cell in cells:
        bounds = {
            f"{metric}.{end}": value
            for metric, interval in cell.pooled["ci95"].items()
            for end, value in zip(("low", "high"), interval or (None, None), strict=True)
        }
        metrics = flatten({key: value for key, value in cell.pooled.items() if key != "ci95"})
        metrics = {key: " ".join(value) if isinstance(value, list) else value for key, value in metrics.items()}
        swept = {key: readable(value) for key, value in cell.values.items()}
        table.append({"cell": cell.name, **swept, **metrics, **bounds})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in table for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _load_cell(folder: Path, entry: dict[str, Any]) -> CellRuns:
    older = "ended_s" not in entry
    _require(entry, {"cell", "values", "runs"} | (set() if older else {"replications", "ci95"} | _RUN_KEYS), folder)
    runs = {number: load_run(run_folder(folder, entry["cell"], number)) for number in entry["runs"]}
    if older:  # its runs are summarised anew, and pooled anew
        return CellRuns.of(entry["cell"], entry["values"], runs)
    pooled = {key: value for key, value in entry.items() if key not in ("cell", "values", "runs")}
    return CellRuns(entry["cell"], entry["values"], list(runs.values()), entry["runs"], pooled)


def _read_summary(folder: Path) -> Summary:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder")
    _require_files(folder)
    try:
        with (folder / _SUMMARY).open("rb") as file:
            text = file.read(SUMMARY_BYTES + 1)
        if len(text) > SUMMARY_BYTES:
            raise ValueError(f"it has more than {SUMMARY_BYTES >> 20} MiB")
        summary = json.loads(text.decode())
    except FileNotFoundError:
        raise RunFolderError(f"{folder} holds no finished run: {_SUMMARY} is missing") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder / _SUMMARY} is damaged: {_first_line(error)}") from None
    if not isinstance(summary, dict):
        raise RunFolderError(f"{folder / _SUMMARY} is damaged: it is not a mapping")
    return summary


def _load_scenario(folder: Path) -> Scenario:
    try:
        return Scenario.load(folder / _SCENARIO, saved=True)
    except (OSError, ScenarioError) as error:
        raise RunFolderError(f"{folder}: {_SCENARIO} is missing or damaged: {_first_line(error)}") from None


def _require(summary: Summary, keys: set[str], folder: Path) -> None:
    if missing := sorted(keys - summary.keys()):
        raise RunFolderError(f"{folder / _SUMMARY} is damaged: it lacks {', '.join(missing)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
