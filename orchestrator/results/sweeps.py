"""A scenario's sweep and replications as runs in their folders, in whichever world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.results import folders
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.schema import Cell, Scenario

Progress = Callable[[float], None]
Work = list[tuple[Cell, int]]
"""Cells with the number of a replication."""
Runs = Callable[[Work], Iterator[object]]
"""Does the work, and tells of each run once its folder is whole."""


def sweep(
    scenario: Scenario, out: Path, runs: Runs, replications: int | None = None, progress: Progress | None = None
) -> Sweep:
    """Every cell of the scenario's sweep, `replications` times each, in `out/<cell>/r<k>`.

    `progress` is called with the share of the runs that is done. Ctrl-C keeps the finished runs: the result is then
    made of these, and `interrupted`; where there are none, KeyboardInterrupt passes on.
    """
    folders.clear(out)
    cells = scenario.cells()
    numbers = range(replications or scenario.replications)
    work = [(cell, number) for cell in cells for number in numbers]
    interrupted = False
    try:
        for told, _ in enumerate(runs(work), start=1):
            if progress is not None:
                progress(told / len(work))
    except KeyboardInterrupt:
        interrupted = True
    # By what stands in the folders: an interrupt may come between the end of a run and the news of it.
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
