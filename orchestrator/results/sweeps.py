"""Running a scenario's sweep and replications, each run in a folder of its own. Both worlds use it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from orchestrator.results import folders
from orchestrator.results.folders import RunFolderError
from orchestrator.results.precision import Precision
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.scenario.arguments import require_number
from orchestrator.scenario.schema import Cell, Scenario, require_scenario

Progress = Callable[[float], None]
Work = list[tuple[Cell, int]]
"""Cells, each with the number of a replication."""
Runs = Callable[[Work], Iterator[tuple[str, int]]]
"""Executes the work, and yields the cell's name and the number of each run when its folder is complete."""


class SweepProgress(Protocol):
    """Hears the share that is done; where a run has just ended, also its cell and number."""

    def __call__(self, done: float, run: str = "", /) -> None: ...


@dataclass(frozen=True)
class Plan:
    """A scenario's sweep and replications in one world, and how the folder of the results is used.

    `replications`: of each cell, if not those of the scenario. `force`: what earlier runs left in `out` may be
    replaced. `resume`: of these, the runs that this plan has too are kept, and only the missing ones are run.
    `precision`: replications are added until it is reached.
    """

    scenario: Scenario
    world: str
    out: Path
    replications: int | None = None
    force: bool = False
    resume: bool = False
    precision: Precision | None = None

    def __post_init__(self) -> None:
        require_scenario(self.scenario)
        if self.replications is not None:
            require_number("replications", self.replications, 1)

    @cached_property
    def asked(self) -> Scenario:
        """The scenario with the replications that are asked for: what is saved of it, run again, does the same."""
        if self.replications is None:
            return self.scenario
        return self.scenario.model_copy(update={"replications": self.replications})

    @cached_property
    def cells(self) -> list[Cell]:
        return self.asked.cells()

    def counts(self) -> dict[str, int]:
        """With how many replications each cell begins: at least two where an interval is wanted."""
        count = self.asked.replications
        return dict.fromkeys((cell.name for cell in self.cells), max(count, 2) if self.precision else count)

    def work(self, counts: Mapping[str, int]) -> dict[Path, tuple[Cell, int]]:
        """Each run by its folder."""
        return {
            folders.run_folder(self.out, cell.name, number): (cell, number)
            for cell in self.cells
            for number in range(counts[cell.name])
        }


def kept(plan: Plan) -> dict[Path, tuple[Cell, int]]:
    """Those of the runs that are finished already, by their folders; none if nothing is resumed.

    Raises RunFolderError if a file would be replaced that may not be: also a finished run that this plan does not have,
    or has otherwise by now, unless `force` is set.
    """
    folders.require_free(plan.out, plan.force or plan.resume)
    if not plan.resume:
        return {}
    found, counts = folders.finished(plan.out), plan.counts()
    if plan.precision:  # an earlier command may have added replications
        numbers = [(path.parent.name, int(path.name[1:])) for path in found if path.name[1:].isdecimal()]
        counts |= {name: max(counts[name], 1 + number) for name, number in sorted(numbers) if name in counts}
    work = plan.work(counts)
    same = {
        path: (cell, number)
        for path, (cell, number) in work.items()
        if path in found and found[path] == folders.identity(cell.scenario, plan.world, number)
    }
    if (others := sorted(found.keys() - same.keys())) and not plan.force:
        raise RunFolderError(_why_not_kept(plan, found, others))
    return same


def _why_not_kept(plan: Plan, found: Mapping[Path, str | None], others: Sequence[Path]) -> str:
    """Of finished runs that this plan does not have: what tells them from it, by the first of them."""
    cells = {cell.name: cell for cell in plan.cells}
    highest = 0

    def reason(path: Path) -> str:
        nonlocal highest
        number = int(path.name[1:]) if re.fullmatch(r"r\d+", path.name) else None
        if number is None:
            return "a single run, which has no place in a sweep or among replications"
        if path.parent.name not in cells:
            return "of cells that this sweep does not have"
        if found[path] != folders.identity(cells[path.parent.name].scenario, plan.world, number):
            return "of another scenario or world"
        highest = max(highest, number + 1)
        return f"beyond the {plan.counts()[path.parent.name]:,} replications that are asked for"

    reasons: dict[str, list[Path]] = {}
    for path in others:
        reasons.setdefault(reason(path), []).append(path)
    told = "; ".join(
        f"{len(paths):,} of the {len(found):,} finished runs in {plan.out} {'is' if len(paths) == 1 else 'are'} {why}, "
        f"such as {paths[0]}"
        for why, paths in reasons.items()
    )
    keep = f"--replications {highest} keeps them, and " if highest and len(reasons) == 1 else ""
    return f"{told}: {keep}--resume --force replaces them"


def sweep(plan: Plan, runs: Runs, progress: SweepProgress | None = None) -> Sweep:
    """Every cell of the scenario's sweep, with all its replications, in `out/<cell>/r<k>`.

    `progress` is called with the share of the runs that is done, and the run. After Ctrl-C the result consists of the
    finished runs and is marked `interrupted`. If no run has finished, KeyboardInterrupt is raised again. Raises
    RunFolderError as `kept`, before anything is run.
    """
    done, counts = kept(plan), plan.counts()
    for cell, number in done.values():
        counts[cell.name] = max(counts[cell.name], number + 1)
    folders.begin_sweep(plan.out, plan.work(counts), done)
    for path, (cell, _) in done.items():
        folders.renew_scenario(path, cell.scenario)
    while True:
        work = plan.work(counts)
        interrupted = _run([work[path] for path in work if path not in done], len(work), runs, progress)
        # The folders decide what has finished: an interrupt may come after the end of a run and before its report.
        cells = list(_finished(plan, work))
        further = plan.precision.further(cells) if plan.precision and not interrupted else {}
        if not further:
            break
        done, counts = work, counts | further
        folders.list_runs(plan.out, plan.work(counts))
    if not cells:
        raise KeyboardInterrupt("no run had finished")
    result = Sweep(plan.asked, cells, interrupted)
    folders.write_aggregate(plan.out, result)
    return result


def _run(missing: Work, total: int, runs: Runs, progress: SweepProgress | None) -> bool:
    """Run what is missing of so many runs; whether that was interrupted."""
    try:
        done_runs = runs(missing) if missing else iter(())
        for done, (name, number) in enumerate(done_runs, start=total - len(missing) + 1):
            if progress is not None:
                progress(done / total, f"{name} r{number}")
    except KeyboardInterrupt:
        return True
    return False


def _finished(plan: Plan, work: Mapping[Path, tuple[Cell, int]]) -> Iterator[CellRuns]:
    """The cells of which at least one run is finished."""
    for cell in plan.cells:
        mine = {number: path for path, (of, number) in work.items() if of is cell}
        finished = {
            number: run for number, path in mine.items() if (run := _whole_run(path, cell.scenario)) is not None
        }
        if finished:
            yield CellRuns.of(cell.name, cell.values, finished)


def _whole_run(folder: Path, scenario: Scenario) -> Run | None:
    try:
        run = folders.load_run(folder, scenario)
    except RunFolderError:
        return None
    return None if "interrupted" in run.summary else run
