"""Commands that run scenarios and draw what came out: simulate, live, compare, plot."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    AsJson,
    Demanded,
    Overrides,
    Plots,
    Replications,
    ResultFolder,
    ScenarioFile,
    Yes,
)
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.objectives import demanded, judged, plain, print_verdicts
from orchestrator.cli.patience import require_live_patience, require_patience
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
    from orchestrator.results.objectives import Objective
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
    check: Annotated[bool, typer.Option(help="At the end, the coordinator proves its invariants.")] = False,
    objective: Demanded = None,
    yes: Yes = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        objectives, number = demanded(objective, loaded), replications or loaded.replications
        require_patience((cell.scenario for cell in cells), number, jobs or os.cpu_count() or 1, yes)
        folder = result_folder(loaded, out)
        result = run_simulated(loaded, cells, folder, replications, jobs, check)
        met = tell(result, len(cells) * number, folder, plots, as_json, objectives)
    if not met:
        raise typer.Exit(1)


@app.command()
def live(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    objective: Demanded = None,
    yes: Yes = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        objectives, number = demanded(objective, loaded), replications or loaded.replications
        require_live_patience((cell.scenario for cell in cells), number, yes)
        folder = result_folder(loaded, out)
        result = run_live(loaded, cells, folder, replications, check)
        met = tell(result, len(cells) * number, folder, plots, as_json, objectives)
    if not met:
        raise typer.Exit(1)


@app.command()
def compare(
    what: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a run or a sweep.")],
    further: Annotated[
        list[str] | None,
        typer.Argument(metavar="DIR", help="The other folder."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-compared if not given.")
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SHARE", help="Exit with 1 where an error of the whole run is larger: 0.1 is 10 %."
        ),
    ] = None,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Say how far two folders of results agree. `fidelity` runs a scenario in both worlds."""
    with explained():
        if what.is_file():
            raise Refusal(f"{what} is a file, expected a folder of results: fidelity compares the worlds of a scenario")
        found, folder = compared_folders(what, further or [], out)
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


def tell(
    result: Run | Sweep, runs: int, folder: Path, plots: bool, as_json: bool, objectives: Sequence[Objective] = ()
) -> bool:
    """Draw and print the result of so many runs, or say what an interrupt left of them. Whether it meets all
    objectives."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if plots:
        draw_into(folder, result)
    verdicts = judged(result, objectives)
    met = all(verdict.met for _, verdict in verdicts)
    if as_json:
        print_json({**result.summary, "objectives": plain(verdicts)} if verdicts else result.summary)
        return met
    if isinstance(result, Sweep) and len(result.cells) > 1:
        print_cells(result.summary)
    else:
        print_summary(result.summary)
        print_intervals(result.summary)
    print_verdicts(verdicts)
    print(f"\nresults in {folder}")
    print_pictures(folder)
    return met


def require_whole(result: Run | Sweep, runs: int, folder: Path) -> Run | Sweep:
    """The result of so many runs; KeyboardInterrupt says what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    if "interrupted" in result.summary:
        kept = f"{len(list(result.runs)):,} of {runs:,} runs" if isinstance(result, Sweep) else "the run until then"
        raise KeyboardInterrupt(f"{kept} kept in {folder}")
    return result
