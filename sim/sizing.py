"""Which value of a setting suffices: few runs of a scenario, chosen one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.analysis.intervals import intervals_of_run
from orchestrator.analysis.sizing import Sizing, Tried, border, rounds
from orchestrator.results import folders
from orchestrator.results.objectives import Objective
from orchestrator.results.runs import CellRuns
from orchestrator.results.sweeps import SweepProgress
from orchestrator.scenario.schema import Scenario
from sim import runs


def size(
    scenario: Scenario,
    key: str,
    values: Sequence[Any],
    objectives: Sequence[Objective],
    out: str | Path | None = None,
    jobs: int = 1,
    replications: int | None = None,
    progress: SweepProgress | None = None,
) -> Sizing:
    """The smallest of the values of a key with which all objectives are met, as `analysis.sizing` has it.

    `values`: the smallest first. Every value is run `replications` times, with the same random streams as every other
    one, `jobs` runs at a time; each round of tries is a sweep in a folder of its own, `out/round-1` and so on, or
    without `out` in none that stays. `progress` is called with the share that is done. KeyboardInterrupt after Ctrl-C.
    """
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            return size(scenario, key, values, objectives, folder, jobs, replications, progress)
    number = replications or scenario.replications
    at_once = max(1, jobs // number)
    expected, done = rounds(len(values), at_once), 0
    tried: dict[int, Tried] = {}

    def advance(share: float, run: str = "") -> None:
        if progress is not None:
            progress(min((done + share) / max(expected, done + 1), 1.0), run)

    def tries(places: Sequence[int]) -> Mapping[int, bool]:
        nonlocal done
        chosen = scenario.model_copy(update={"sweep": {key: [values[place] for place in places]}})
        folder = Path(out) / f"round-{done + 1}"
        folders.list_runs(Path(out), [Path(out) / f"round-{place}" for place in range(1, done + 2)])
        found = runs.sweep(chosen, folder, jobs, number, advance)
        if found.interrupted:
            raise KeyboardInterrupt(f"the runs until then are kept in {out}")
        tried.update({place: _judged(cell, key, objectives) for place, cell in zip(places, found.cells, strict=True)})
        done += 1
        return {place: tried[place].met for place in places}

    answer = border(len(values), tries, at_once)
    in_order = [tried[place] for place in sorted(tried)]
    return Sizing(scenario.name, key, values, objectives, number, in_order, None if answer is None else tried[answer])


def _judged(cell: CellRuns, key: str, objectives: Sequence[Objective]) -> Tried:
    intervals = intervals_of_run(cell.runs[0]) if len(cell.runs) == 1 else {}
    verdicts = [objective.judge(cell.pooled, intervals) for objective in objectives]
    return Tried(cell.values[key], verdicts, cell.pooled)
