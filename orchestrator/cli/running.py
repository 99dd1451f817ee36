"""Commands that run scenarios and draw what came out: simulate, live, compare, plot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    AsJson,
    Overrides,
    Plots,
    Quiet,
    Replications,
    ResultFolder,
    ScenarioFile,
    examples_of,
)
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.preparing import (
    draw_into,
    labels,
    live_warnings,
    load,
    print_pictures,
    require_writable,
    result_folder,
)
from orchestrator.cli.terminal import Refusal, complain, explained, print_json, progress
from orchestrator.cli.views import print_cells, print_comparison, print_summary

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Cell, Scenario

app = typer.Typer()


@app.command(
    epilog=examples_of(
        "simulate worker-crash.yaml", "simulate worker-crash.yaml policies.detection.timeout_s=2,5,10 --replications 5"
    )
)
def simulate(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")
    ] = None,
    check: Annotated[bool, typer.Option(help="At the end, the coordinator proves its invariants.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_simulated(loaded, cells, folder, replications, jobs, check), runs, folder, plots, as_json, quiet)


@app.command(epilog=examples_of("live worker-crash.yaml"))
def live(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_live(loaded, cells, folder, replications, check), runs, folder, plots, as_json, quiet)


@app.command(epilog=examples_of("compare worker-crash.yaml duration_s=20"))
def compare(
    what: Annotated[
        Path, typer.Argument(metavar="SCENARIO|DIR", help="A scenario to run in both worlds; or a folder.")
    ],
    further: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|DIR", help="Instead of the scenario's values; or the other folder."),
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
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Say how far the simulated and the live world agree, or two folders of results."""
    with explained():
        if what.is_dir():
            found, folder = compared_folders(what, further or [], out)
        else:
            found, folder = compared_worlds(what, further, out, replications)
        found.save(folder)
        if plots:
            draw_into(folder, found)
        if as_json:
            print_json(found.summary())
        elif quiet:
            print(folder)
        else:
            print_comparison(found.summary())
            print(f"\nresults in {folder}")
            print_pictures(folder)
    if max_error is not None and (miss := found.miss(max_error)):
        complain([miss])
        raise typer.Exit(1)


@app.command(epilog=examples_of("simulate worker-crash.yaml --out out/crash", "plot out/crash"))
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the pictures go; if not given, into DIR, or of several, out/overlay."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw saved results again; two or more of them over one another."""
    with explained():
        from orchestrator.pictures import draw
        from orchestrator.results import folders

        results = {label: folders.load(folder) for label, folder in zip(labels(paths), paths, strict=True)}
        target = out or (paths[0] if len(results) == 1 else Path("out/overlay"))
        require_writable(target)
        draw(next(iter(results.values())) if len(results) == 1 else results, target)
        if as_json:
            print_json({"pictures": [str(picture) for picture in sorted(target.glob("*.png"))]})
        elif quiet:
            print(target)
        else:
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

    runs = len(cells) * (replications or scenario.replications)
    with progress(f"{scenario.name} (sim)", runs) as advance:
        if runs == 1:
            return sim.run(cells[0].scenario, progress=advance, out=folder, check=check)
        return sim.sweep(scenario, folder, jobs or os.cpu_count() or 1, replications, advance, check)


def run_live(
    scenario: Scenario, cells: list[Cell], folder: Path, replications: int | None, check: bool = False
) -> Run | Sweep:
    from orchestrator.rehearsal import runs as world
    from orchestrator.rehearsal.drive import STOPPED, ClusterBroke

    runs = len(cells) * (replications or scenario.replications)
    try:
        with progress(f"{scenario.name} (live)", runs) as advance:
            if runs == 1:
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


def compared_folders(one: Path, others: list[str], out: Path | None) -> tuple[Comparison, Path]:
    """Two folders of results: how far they agree, and the folder for what is found."""
    from orchestrator.analysis import comparison
    from orchestrator.results import folders

    if len(others) != 1:
        raise Refusal(f"{one} is a folder: compare needs one more folder, and nothing else")
    paths = (str(one), others[0])
    result, other = map(folders.load, paths)
    folder = out or Path("out") / f"{result.summary['scenario']}-compared"
    require_writable(folder)
    first, second = labels(paths)
    return comparison.compare(result, other, (first, second)), folder


def tell(result: Run | Sweep, runs: int, folder: Path, plots: bool, as_json: bool, quiet: bool) -> None:
    """Draw and print the result of so many runs, or say what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if plots:
        draw_into(folder, result)
    if as_json:
        print_json(result.summary)
        return
    if quiet:
        print(folder)
        return
    if isinstance(result, Sweep) and len(result.cells) > 1:
        print_cells(result.summary)
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
