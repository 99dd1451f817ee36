"""Which value of a setting suffices: few runs of a scenario, chosen one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.analysis.intervals import intervals_of_run
from orchestrator.analysis.sizing import Sizing, Tried, border, rounds
from orchestrator.results import folders
from orchestrator.results.objectives import EXAMPLE, Objective
from orchestrator.results.objectives import objectives as objectives_of
from orchestrator.results.runs import CellRuns
from orchestrator.results.sweeps import SweepProgress
from orchestrator.scenario.arguments import require, require_number
from orchestrator.scenario.loading import one_line, show
from orchestrator.scenario.schema import Scenario, require_scenario
from sim import runs


def size(
    scenario: Scenario,
    key: str,
    values: Sequence[Any],
    objectives: Sequence[str | Objective],
    out: str | Path | None = None,
    jobs: int = 1,
    replications: int | None = None,
    progress: SweepProgress | None = None,
) -> Sizing:
    """The smallest of the values of a key with which all objectives are met, as `analysis.sizing` has it.

    `values`: the smallest first. `objectives`: texts, as "latency_s.p95 < 5", or what `Objective.parse` makes of them.
    Every value is run `replications` times, with the same random streams as every other one, `jobs` runs at a time;
    each round of tries is a sweep in a folder of its own, `out/round-1` and so on, or without `out` in none that stays.
    `progress` is called with the share that is done. KeyboardInterrupt after Ctrl-C.

    ScenarioError for a key that the scenario does not have, or values that do not fit it; ObjectiveError for an
    objective of a number that no summary has; ValueError or TypeError for any other argument that is none.
    """
    require_scenario(scenario)
    number = scenario.replications if replications is None else require_number("replications", replications, 1)
    jobs = require_number("jobs", jobs, 1)
    values = _fitting(scenario, key, values)
    wanted = objectives_of(objectives, scenario)
    if not wanted:
        raise ValueError(f"objectives is empty, expected one or more, as {EXAMPLE}")
    if out is not None:
        return _sized(scenario, key, values, wanted, Path(out), jobs, number, progress)
    with tempfile.TemporaryDirectory() as folder:
        return _sized(scenario, key, values, wanted, Path(folder), jobs, number, progress)


def _fitting(scenario: Scenario, key: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values as a scenario has them, all of which fit the key; of a range, the ends do."""
    expected = "expected a range or a list, the smallest first, as range(2, 65)"
    require("key", key, str, 'a dotted key, as "cluster.workers"')
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"values is {one_line(show(values))}, {expected}")
    if not len(values):
        raise ValueError(f"values is empty ({one_line(str(values))}), {expected}")
    if others := [swept for swept in scenario.sweep if swept != key]:
        told = f"{scenario.name} sweeps {' and '.join(others)}, expected a scenario that sweeps nothing else than {key}"
        raise ValueError(f'{told}, as scenario.with_({{"sweep": {{}}}}) gives one')
    tried = [values[0], values[-1]] if isinstance(values, range) else values
    fit = scenario.with_({f"sweep.{key}": tried}).sweep[key]
    return values if isinstance(values, range) else fit


def _sized(
    scenario: Scenario,
    key: str,
    values: Sequence[Any],
    objectives: Sequence[Objective],
    out: Path,
    jobs: int,
    replications: int,
    progress: SweepProgress | None,
) -> Sizing:
    at_once = max(1, jobs // replications)
    expected, done = rounds(len(values), at_once), 0
    tried: dict[int, Tried] = {}

    def advance(share: float, run: str = "") -> None:
        if progress is not None:
            progress(min((done + share) / max(expected, done + 1), 1.0), run)

    def tries(places: Sequence[int]) -> Mapping[int, bool]:
        nonlocal done
        chosen = scenario.model_copy(update={"sweep": {key: [values[place] for place in places]}})
        folder = out / f"round-{done + 1}"
        folders.list_runs(out, [out / f"round-{place}" for place in range(1, done + 2)])
        found = runs.sweep(chosen, folder, jobs, replications, advance)
        if found.interrupted:
            raise KeyboardInterrupt(f"the runs until then are kept in {out}")
        tried.update({place: _judged(cell, key, objectives) for place, cell in zip(places, found.cells, strict=True)})
        done += 1
        return {place: tried[place].met for place in places}

    answer = border(len(values), tries, at_once)
    in_order = [tried[place] for place in sorted(tried)]
    found = None if answer is None else tried[answer]
    return Sizing(scenario.name, key, values, objectives, replications, in_order, found)


def _judged(cell: CellRuns, key: str, objectives: Sequence[Objective]) -> Tried:
    intervals = intervals_of_run(cell.runs[0]) if len(cell.runs) == 1 else {}
    verdicts = [objective.judge(cell.pooled, intervals) for objective in objectives]
    return Tried(cell.values[key], verdicts, cell.pooled)
