"""Running a scenario's sweep and replications, each run in a folder of its own. Both worlds use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from orchestrator.results import folders
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Cell, Scenario

Progress = Callable[[float], None]
Work = list[tuple[Cell, int]]
"""Cells, each with the number of a replication."""
Runs = Callable[[Work], Iterator[tuple[str, int]]]
"""Executes the work, and yields the cell's name and the number of each run when its folder is complete."""


class SweepProgress(Protocol):
    """Hears the share that is done; where a run has just ended, also its cell and number."""

    def __call__(self, done: float, run: str = "", /) -> None: ...


def sweep(
    scenario: Scenario, out: Path, runs: Runs, replications: int | None = None, progress: SweepProgress | None = None
) -> Sweep:
    """Every cell of the scenario's sweep, `replications` times each, in `out/<cell>/r<k>`.

    `progress` is called with the share of the runs that is done, and the run. After Ctrl-C the result consists of
    the finished runs and is marked `interrupted`. If no run has finished, KeyboardInterrupt is raised again.
    """
    folders.clear(out)
    cells = scenario.cells()
    numbers = range(replications or scenario.replications)
    work = [(cell, number) for cell in cells for number in numbers]
    interrupted = False
    try:
        for done, (name, number) in enumerate(runs(work), start=1):
            if progress is not None:
                progress(done / len(work), f"{name} r{number}")
    except KeyboardInterrupt:
        interrupted = True
    # The folders decide what has finished: an interrupt may come after the end of a run and before its report.
    found = []
    for cell in cells:
        finished = {k: run for k in numbers if (run := _finished(folders.run_folder(out, cell.name, k))) is not None}
        if finished:
            found.append(CellRuns.of(cell.name, cell.values, finished))
    if not found:
        raise KeyboardInterrupt("no run had finished")
    result = Sweep(scenario, found, interrupted)
    folders.write_aggregate(out, result)
    return result


def _finished(folder: Path) -> Run | None:
    try:
        run = folders.load_run(folder)
    except folders.RunFolderError:
        return None
    return None if "interrupted" in run.summary else run
