"""The run folder: how runs and sweeps are saved and loaded.

    one run:   DIR/summary.json  scenario.yaml  tasks.parquet  attempts.parquet  events.parquet  engine.json
               of a live run also its decision record and cluster.log
    a sweep:   DIR/summary.json  scenario.yaml  cells.csv  <cell>/r<k>/{summary.json, scenario.yaml, tables}

`orchestrator.pictures` adds plots and, for one run, `trace.json`. Names hold no time, and equal runs give equal
bytes, except for `engine.json`, which says how long it took. `manifest.json` lists what was written, and nothing else
is ever replaced. `summary.json` is written last and atomically: a folder with a summary is complete, except for
pictures, which can be drawn again.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from orchestrator.results import manifests
from orchestrator.results.detection import DetectionRecord
from orchestrator.results.manifests import PART, Manifest, RunFolderError
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.results.statistics import flatten
from orchestrator.results.summaries import Summary, pooled_engine, summarise
from orchestrator.results.tables import FILES, Tables, check_files
from orchestrator.scenario.arguments import require
from orchestrator.scenario.schema import Scenario, ScenarioError
from orchestrator.scenario.sources import with_digests
from orchestrator.scenario.titles import table_value

__all__ = ["RunFolderError", "StoredRun", "load", "load_run", "save"]

TRACE = "trace.json"
_SUMMARY, _SCENARIO, _CELLS, _ENGINE = "summary.json", "scenario.yaml", "cells.csv", "engine.json"
_LIVE = ("decisions.jsonl", "driver.jsonl", "cluster.log")
_OLDER = ("journal.jsonl",)
_AGGREGATE = (_CELLS, _SCENARIO, _SUMMARY)
_PLOT = r"(latency-percentiles|latency-ccdf|latency-by-priority|timeline|worker-utilization|detection|sweep-[^/]+)"
_NAMES = (*FILES, *_LIVE, *_OLDER, *_AGGREGATE, _ENGINE, TRACE)
_OURS = re.compile("|".join([*map(re.escape, _NAMES), r"decisions\.jsonl\.\d+", _PLOT + r"\.(png|svg)"]))

_RUN_KEYS = {"scenario", "world", "seed", "duration_s", "ended_s", "tasks", "latency_s", "wait_s", "accept_s"} | {
    "throughput_per_s",
    "utilization",
    "slots",
    "by_priority",
    "queue",
    "detection",
}
_LATER_KEYS = {"ended_s", "slots", "queue"}
"""Keys that older versions did not write."""
_SWEEP_KEYS = {"scenario", "world", "seed", "duration_s", "cells"}
_HEALTHY_DEAD = "healthy_declared_dead"
"""Of the detection; older versions did not count them."""


SUMMARY_BYTES = 1 << 30
"""Far more than that of a sweep of a hundred thousand runs."""


class StoredRun(Run):
    """A run in its folder. Each access to `tables` reads the files, so a sweep of many runs needs little memory."""

    def __init__(self, folder: Path, summary: Summary, scenario: Scenario | None = None) -> None:
        self.folder = folder
        self.summary = summary
        self._known = scenario
        self.lease: TemporaryFolder | None = None
        """The folder above this one, if it is to be removed when no run needs it any more."""

    @property
    def tables(self) -> Tables:
        try:
            return Tables.read(self.folder, self.scenario.worker_names(), self.summary.get("ended_s"))
        except (OSError, pa.ArrowException) as error:
            raise RunFolderError(f"{self.folder}: a table is missing or damaged: {_first_line(error)}") from None

    @cached_property
    def scenario(self) -> Scenario:
        return self._known or load_scenario(self.folder)


class TemporaryFolder:
    """A folder that is removed when nothing refers to this object any more, or when the process ends."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="orchestrator-"))
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    """By the process that made it alone: a fork has the object too."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_without_folder(sweep: Callable[[Path], Sweep]) -> Sweep:
    """What a sweep into a temporary folder gives. The folder lives as long as one of the runs does."""
    lease = TemporaryFolder()
    result = sweep(lease.path)
    for run in result.runs:
        assert isinstance(run, StoredRun)
        run.lease = lease
    return result


def load(folder: str | Path) -> Run | Sweep:
    """The run or the sweep that is saved in `folder`.

    Every summary is read and every table's schema checked now; tables and scenarios are read at their first use.
    Raises RunFolderError if the folder holds no finished run, or a damaged one.
    """
    require("folder", folder, (str, os.PathLike), "the name of a folder")
    folder = Path(folder)
    summary = _read_summary(folder)
    if "cells" not in summary:
        return load_run(folder)
    _require(summary, _SWEEP_KEYS, folder)
    cells = [_load_cell(folder, entry) for entry in summary["cells"]]
    return Sweep(load_scenario(folder), cells, summary.get("interrupted", False))


def load_cell(folder: Path, cell: str) -> Sweep:
    """One cell of the sweep that is saved in `folder`; RunFolderError if there is none of that name."""
    result = load(folder)
    cells = result.cells if isinstance(result, Sweep) else []
    chosen = [one for one in cells if cell in (one.name, one.title)]
    if not chosen:
        known = f", expected one of {', '.join(one.name for one in cells)}" if cells else ": it holds a single run"
        raise RunFolderError(f"{folder} has no cell {cell}{known}")
    return Sweep(result.scenario, chosen)


def load_run(folder: Path, scenario: Scenario | None = None) -> StoredRun:
    """The single run in `folder`; raises the same errors as `load`. `scenario`: its own, where that is known already.

    What an older version did not write is read from the tables. A summary that does not say when its run ended is made
    anew: the run is taken to have ended with the last thing that happened.
    """
    run = StoredRun(folder, _read_summary(folder), scenario)
    older = "ended_s" not in run.summary
    _require(run.summary, _RUN_KEYS - _LATER_KEYS if older else _RUN_KEYS, folder)
    if "engine" not in run.summary:
        run.summary["engine"] = _read_json(folder / _ENGINE)
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
    elif _HEALTHY_DEAD not in run.summary["detection"]:
        found = DetectionRecord.of(run.tables, run.summary["ended_s"])
        run.summary["detection"][_HEALTHY_DEAD] = len(found.healthy_declared_dead)
    return run


def run_folder(folder: Path, cell: str, number: int) -> Path:
    """Where replication `number` of a cell lives in the folder of its sweep."""
    return folder / cell / f"r{number}"


def identity(scenario: Scenario, world: str, replication: int = 0) -> str:
    """What tells a run from any other: SHA-256 of its resolved scenario, the files that it names, world and number.

    The number of replications and the sweep that it is a part of do not count. Policies of the user's own count by
    their names.
    """
    tree = scenario.model_dump(mode="json", exclude={"sweep", "replications"})
    whole = {"scenario": with_digests(tree), "world": world, "replication": replication}
    return hashlib.sha256(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def save(folder: str | Path, result: Run | Sweep, force: bool = False) -> None:
    """Write a run, or a sweep with all its runs, without pictures.

    `force`: results of earlier runs in `folder` are replaced, which may be those that `result` was loaded from. Raises
    RunFolderError as `require_free`.
    """
    folder = Path(folder)
    require_free(folder, force)
    if isinstance(result, Run):
        _save_run(folder, result)
        return
    runs = [run_folder(folder, cell.name, number) for cell in result.cells for number in cell.numbers]
    begin_sweep(folder, runs, keep=runs)
    for cell in result.cells:
        for number, run in zip(cell.numbers, cell.runs, strict=True):
            _save_run(run_folder(folder, cell.name, number), run, number)
    write_aggregate(folder, result)


def _save_run(folder: Path, run: Run, number: int = 0) -> None:
    scenario, tables = run.scenario, run.tables  # read before they are removed
    begin(folder, identity(scenario, run.summary["world"], number))
    tables.write(folder)
    finish(folder, scenario, run.summary)


def begin(folder: Path, identity: str, live: bool = False) -> None:
    """The beginning of a run's folder: what an earlier run left is removed, and what will be written is listed."""
    Manifest.of(folder).remove()
    Manifest(folder, identity).claim((*FILES, _SCENARIO, _ENGINE, _SUMMARY, *(_LIVE if live else ())))


def write_scenario(folder: Path, scenario: Scenario) -> None:
    manifests.write_whole(folder / _SCENARIO, scenario.dump())


def finish(folder: Path, scenario: Scenario, summary: Summary) -> None:
    """The end of a run's folder, whose tables are written: the scenario, then the summary, which marks it as complete.
    How long the run took stands beside the summary, so that equal runs have equal ones."""
    write_scenario(folder, scenario)
    manifests.write_whole(folder / _ENGINE, manifests.json_text(summary["engine"]))
    manifest = Manifest.of(folder)
    manifest.files[_ENGINE] = None
    _complete(manifest, {key: value for key, value in summary.items() if key != "engine"})


def begin_sweep(folder: Path, runs: Iterable[Path], keep: Iterable[Path] = ()) -> None:
    """The beginning of a sweep's folder: all that earlier runs left is removed, except for the run folders in `keep`;
    what will be written is listed."""
    manifest = Manifest.of(folder)
    manifest.remove([run.relative_to(folder).as_posix() for run in keep])
    manifest.identity = None
    manifest.folders = sorted(run.relative_to(folder).as_posix() for run in runs)
    manifest.claim(_AGGREGATE)


def list_runs(folder: Path, runs: Iterable[Path]) -> None:
    """Further runs that a sweep will write."""
    manifest = Manifest.of(folder)
    manifest.folders = sorted(run.relative_to(folder).as_posix() for run in runs)
    manifest.write()


def write_aggregate(folder: Path, sweep: Sweep) -> None:
    """The end of a sweep's folder, whose runs are complete."""
    write_scenario(folder, sweep.scenario)
    manifests.write_whole(folder / _CELLS, _csv(sweep.cells))
    told = {key: value for key, value in sweep.summary.items() if key != "engine"}
    told["cells"] = [{key: value for key, value in cell.items() if key != "engine"} for cell in told["cells"]]
    manifest = Manifest.of(folder)
    manifest.folders = sorted(
        run_folder(Path(), cell.name, number).as_posix() for cell in sweep.cells for number in cell.numbers
    )
    _complete(manifest, told)


def _complete(manifest: Manifest, summary: Mapping[str, Any]) -> None:
    """Measure what was written, and let the summary appear when the manifest has it."""
    text = manifests.json_text(summary)
    clock = manifest.files.keys() & {_ENGINE}
    manifest.files = {name: None for name in manifest.files if (manifest.folder / name).is_file()}
    manifest.files |= dict.fromkeys(_record_parts(manifest.folder))
    manifest.files[_SUMMARY] = manifests.measured(text)
    manifest.seal(name for name in list(manifest.files) if name != _SUMMARY and name not in clock)
    manifests.write_whole(manifest.folder / _SUMMARY, text)


def _record_parts(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("decisions.jsonl.*") if path.suffix[1:].isdecimal()]


# ---- what may be replaced


def require_free(folder: Path, force: bool = False) -> None:
    """Raise RunFolderError unless a run may write there: the folder is empty, or does not exist.

    `force`: or what it would replace is what earlier runs wrote, and nobody has changed.
    """
    _require_files(folder)
    if not folder.is_dir():
        return
    there = sorted(path.name for path in folder.iterdir() if path.name != manifests.NAME + PART)
    manifest = Manifest.read(folder)
    if not there or (manifest and there == [manifests.NAME] and not manifest.folders):
        return
    if manifest is None and is_older(folder):
        raise RunFolderError(
            f"{folder} holds results of an older version without a {manifests.NAME}, which are never replaced: "
            "choose another folder, or move them"
        )
    if not force:
        held = "results" if manifest is not None else f"{there[0]} and more" if there[1:] else there[0]
        ways = ", or --force (in Python force=True) to replace them" if manifest is not None else ""
        raise RunFolderError(f"{folder} holds {held} already: choose another folder{ways}")
    listed = manifest.files if manifest else {}
    for name in there:
        whole = name.removesuffix(PART)
        is_part = _LIVE[0] in listed and name.startswith(f"{_LIVE[0]}.")
        if whole not in listed and _OURS.fullmatch(whole) and not is_part:
            raise RunFolderError(f"{folder / name} was not written by a run, and would be replaced: move it")
    if manifest and (edited := next(manifest.edited(), None)):
        raise RunFolderError(f"{edited} was changed since a run wrote it: move it, or choose another folder")


def is_older(folder: Path) -> bool:
    """Whether a version without manifests left a run or a sweep there."""
    if (folder / manifests.NAME).exists():
        return False
    tables = (folder / FILES[0], *folder.glob(f"*/r*/{FILES[0]}"))
    return any(table.is_file() and not (table.parent / manifests.NAME).exists() for table in tables)


def finished(folder: Path) -> dict[Path, str | None]:
    """The runs in a folder that are complete, and the identity of each: of the folder itself, or of those of a sweep.
    A run that was interrupted is not complete."""
    manifest = Manifest.read(folder)
    runs = [] if manifest is None else [*manifest.below()] or [manifest]
    return {run.folder: run.identity for run in runs if run.identity is not None and _is_whole(run.folder)}


def _is_whole(folder: Path) -> bool:
    return (folder / _SUMMARY).is_file() and "interrupted" not in _read_summary(folder)


def renew_scenario(folder: Path, scenario: Scenario) -> None:
    """The number of replications may have changed since a run of the same identity was finished."""
    if f"\nreplications: {scenario.replications}\n" not in (folder / _SCENARIO).read_text(encoding="utf-8"):
        write_scenario(folder, scenario)
        Manifest.of(folder).seal([_SCENARIO])


def _require_files(folder: Path) -> None:
    """Whoever opens a device or a pipe may wait for ever, or read without an end."""
    for path in folder.glob("*") if folder.is_dir() else ():
        is_other = path.exists() and not path.is_file() and not path.is_dir()
        if is_other and _OURS.fullmatch(path.name.removesuffix(".part")):
            raise RunFolderError(f"{path} is a device or a pipe, expected a file of a run")


def _csv(cells: Sequence[CellRuns]) -> str:
    """One row per cell: the swept keys, every metric, and the bounds of its interval as `.low` and `.high`."""
    table: list[dict[str, Any]] = []
    for cell in cells:
        bounds = {
            f"{metric}.{end}": value
            for metric, interval in cell.pooled["ci95"].items()
            for end, value in zip(("low", "high"), interval or (None, None), strict=True)
        }
        metrics = flatten({key: value for key, value in cell.pooled.items() if key not in ("ci95", "engine")})
        metrics = {key: " ".join(value) if isinstance(value, list) else value for key, value in metrics.items()}
        swept = {key: table_value(key, value) for key, value in cell.values.items()}
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
    pooled.setdefault("engine", pooled_engine([run.summary["engine"] for run in runs.values()]))
    counts = [run.summary["detection"][_HEALTHY_DEAD] for run in runs.values()]
    pooled["detection"].setdefault(_HEALTHY_DEAD, sum(counts))
    return CellRuns(entry["cell"], entry["values"], list(runs.values()), entry["runs"], pooled)


def _read_summary(folder: Path) -> Summary:
    if not folder.is_dir():
        raise RunFolderError(f"{folder} is not a folder")
    _require_files(folder)
    if not (folder / _SUMMARY).exists():
        raise RunFolderError(f"{folder} holds no finished run: {_SUMMARY} is missing")
    return _read_json(folder / _SUMMARY)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(SUMMARY_BYTES + 1)
        if len(text) > SUMMARY_BYTES:
            raise ValueError(f"it has more than {SUMMARY_BYTES >> 20} MiB")
        told = json.loads(text.decode())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged: {_first_line(error)}") from None
    if not isinstance(told, dict):
        raise RunFolderError(f"{path} is damaged: it is not a mapping")
    return told


def load_scenario(folder: Path) -> Scenario:
    """The scenario of a run, finished or not."""
    try:
        return Scenario.load(folder / _SCENARIO, saved=True)
    except (OSError, ScenarioError) as error:
        raise RunFolderError(f"{folder}: {_SCENARIO} is missing or damaged: {_first_line(error)}") from None


def _require(summary: Summary, keys: set[str], folder: Path) -> None:
    if missing := sorted(keys - summary.keys()):
        raise RunFolderError(f"{folder / _SUMMARY} is damaged: it lacks {', '.join(missing)}")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
