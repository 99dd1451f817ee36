"""Commands that run scenarios and draw what came out: simulate, live, compare, plot."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.answers import answered, print_answer, require_cell
from orchestrator.cli.arguments import AsJson, Baseline, Overrides, Plots, Replications, ResultFolder, ScenarioFile
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.preparing import (
    draw_into,
    found_results,
    is_result,
    labels,
    live_warnings,
    load,
    print_pictures,
    require_writable,
    result_folder,
)
from orchestrator.cli.terminal import Refusal, complain, count, explained, print_json, progress
from orchestrator.cli.views import print_cells, print_comparison, print_summary

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Cell, Scenario

app = typer.Typer()


@app.command()
def simulate(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")
    ] = None,
    baseline: Baseline = None,
    check: Annotated[bool, typer.Option(help="At the end, the coordinator proves its invariants.")] = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        require_cell(baseline, cells)
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        result = run_simulated(loaded, cells, folder, replications, jobs, check)
        tell(result, runs, folder, plots, as_json, baseline)


@app.command()
def live(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    baseline: Baseline = None,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        require_cell(baseline, cells)
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_live(loaded, cells, folder, replications, check), runs, folder, plots, as_json, baseline)


@app.command()
def compare(
    what: Annotated[
        Path, typer.Argument(metavar="SCENARIO|DIR", help="A scenario to run in both worlds; or the baseline's folder.")
    ],
    further: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE|DIR", help="Instead of the scenario's values; or other folders. DIR:CELL is a cell."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-compared if not given.")
    ] = None,
    replications: Replications = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SHARE", help="Exit with 1 where an error of the whole run is larger: 0.1 is 10 %."
        ),
    ] = None,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Say what folders or cells have against the first one; or how far the simulated and the live world agree."""
    with explained():
        if is_result(what):
            results = found_results([str(what), *(further or [])])
            if max_error is None and not of_two_worlds(results):
                tell_between(results, out, as_json, plots)
                return
            found, folder = compared_folders(results, out)
        else:
            found, folder = compared_worlds(what, further, out, replications)
        found.save(folder)
        if plots:
            draw_into(folder, found)
        if as_json:
            print_json(found.summary())
        else:
            print_comparison(found.summary())
            print(f"\nresults in {folder}")
            print_pictures(folder)
    if max_error is not None and (miss := found.miss(max_error)):
        complain([miss])
        raise typer.Exit(1)


@app.command()
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the pictures go; if not given, into DIR, or of several, out/overlay."),
    ] = None,
) -> None:
    """Draw saved results again; two or more of them over one another."""
    with explained():
        from orchestrator.pictures import draw
        from orchestrator.results import folders

        results = {label: folders.load(folder) for label, folder in zip(labels(paths), paths, strict=True)}
        target = out or (paths[0] if len(results) == 1 else Path("out/overlay"))
        require_writable(target)
        draw(next(iter(results.values())) if len(results) == 1 else results, target)
        print_pictures(target)


def run_simulated(
    scenario: Scenario,
    cells: list[Cell],
    folder: Path,
    replications: int | None,
    jobs: int | None = None,
    check: bool = False,
) -> Run | Sweep:
    import sim

    with progress(f"{scenario.name} (sim)") as advance:
        if len(cells) * (replications or scenario.replications) == 1:
            return sim.run(cells[0].scenario, progress=advance, out=folder, check=check)
        return sim.sweep(scenario, folder, jobs or os.cpu_count() or 1, replications, advance, check)


def run_live(
    scenario: Scenario, cells: list[Cell], folder: Path, replications: int | None, check: bool = False
) -> Run | Sweep:
    from orchestrator.rehearsal import runs as world
    from orchestrator.rehearsal.drive import STOPPED, ClusterBroke

    try:
        with progress(f"{scenario.name} (live)") as advance:
            if len(cells) * (replications or scenario.replications) == 1:
                return world.run(cells[0].scenario, folder, progress=advance, check=check)
            return world.sweep(scenario, folder, replications, advance, check)
    except ClusterBroke as error:
        if error.status != STOPPED:
            raise Refusal(str(error)) from None
        complain([str(error)])
        raise typer.Exit(STOPPED) from None


def compared_worlds(
    path: Path, overrides: list[str] | None, out: Path | None, replications: int | None
) -> tuple[Comparison, Path]:
    """A scenario, run in both worlds: how far they agree, and the folder that holds both results."""
    from orchestrator.analysis import comparison

    scenario, cells = load(path, overrides, live_warnings(path))
    folder = out or Path("out") / f"{scenario.name}-compared"
    below = {world: result_folder(scenario, folder / world) for world in ("sim", "live")}
    runs = len(cells) * (replications or scenario.replications)
    simulated = require_whole(run_simulated(scenario, cells, below["sim"], replications), runs, below["sim"])
    lived = require_whole(run_live(scenario, cells, below["live"], replications), runs, below["live"])
    return comparison.compare(simulated, lived), folder


def compared_folders(results: dict[str, Run | Sweep], out: Path | None) -> tuple[Comparison, Path]:
    """Two results, one of which is the truth: the other's errors, and the folder for what is found."""
    from orchestrator.analysis import comparison

    if len(results) != 2:
        raise Refusal(f"{count(len(results), 'result')} named: errors are those of one result against one other")
    (first, one), (second, other) = results.items()
    return comparison.compare(one, other, (first, second)), folder_for(one, out)


def tell_between(results: dict[str, Run | Sweep], out: Path | None, as_json: bool, plots: bool) -> None:
    """Results of one world, against the first."""
    from orchestrator.analysis.answers import between

    found, folder = between(list(results.items())), folder_for(next(iter(results.values())), out)
    (folder / "comparison.json").write_text(json.dumps(found.summary(), indent=2, allow_nan=False) + "\n", "utf-8")
    if plots:
        draw_into(folder, results)
    if as_json:
        print_json(found.summary())
        return
    print_answer(found)
    print(f"\nresults in {folder}")
    print_pictures(folder)


def folder_for(result: Run | Sweep, out: Path | None) -> Path:
    folder = out or Path("out") / f"{result.summary['scenario']}-compared"
    require_writable(folder)
    return folder


def of_two_worlds(results: dict[str, Run | Sweep]) -> bool:
    return len({result.summary["world"] for result in results.values()}) > 1


def tell(result: Run | Sweep, runs: int, folder: Path, plots: bool, as_json: bool, baseline: str | None = None) -> None:
    """Draw and print the result of so many runs, or say what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if plots:
        draw_into(folder, result)
    found = answered(result, folder, baseline) if isinstance(result, Sweep) else None
    if as_json:
        print_json(result.summary | ({} if found is None else {"answer": found.summary()}))
        return
    if found is not None:
        print_cells(result.summary)
        print()
        print_answer(found)
    else:
        print_summary(result.summary)
        print_intervals(result.summary)
    print(f"\nresults in {folder}")
    print_pictures(folder)


def require_whole(result: Run | Sweep, runs: int, folder: Path) -> Run | Sweep:
    """The result of so many runs; KeyboardInterrupt says what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    if "interrupted" in result.summary:
        kept = f"{len(list(result.runs)):,} of {runs:,} runs" if isinstance(result, Sweep) else "the run until then"
        raise KeyboardInterrupt(f"{kept} kept in {folder}")
    return result
