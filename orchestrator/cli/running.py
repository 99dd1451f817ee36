"""Commands that run scenarios and draw what came out: simulate, live, compare, plot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    AsJson,
    Force,
    HalfWidth,
    MaxReplications,
    Metric,
    Overrides,
    Plots,
    Replications,
    ResultFolder,
    Resume,
    ScenarioFile,
)
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.preparing import Use, draw_into, labels, live_warnings, load, print_pictures, renew, result_folder
from orchestrator.cli.terminal import Refusal, complain, explained, print_json
from orchestrator.cli.views import print_cells, print_comparison, print_summary
from orchestrator.cli.worlds import run_live, run_simulated, use_of

if TYPE_CHECKING:
    from orchestrator.analysis.comparison import Comparison
    from orchestrator.results.runs import Run, Sweep

app = typer.Typer()


@app.command()
def simulate(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    force: Force = False,
    resume: Resume = False,
    replications: Replications = None,
    precision: HalfWidth = None,
    of: Metric = "latency_s.p99",
    max_replications: MaxReplications = 100,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")
    ] = None,
    check: Annotated[bool, typer.Option(help="At the end, the coordinator proves its invariants.")] = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        use = use_of(loaded, force, resume, precision, of, max_replications)
        folder = result_folder(loaded.name, out, use)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_simulated(loaded, cells, folder, replications, jobs, check, use), runs, folder, plots, as_json, use)


@app.command()
def live(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    force: Force = False,
    resume: Resume = False,
    replications: Replications = None,
    precision: HalfWidth = None,
    of: Metric = "latency_s.p99",
    max_replications: MaxReplications = 100,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        use = use_of(loaded, force, resume, precision, of, max_replications)
        folder = result_folder(loaded.name, out, use)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_live(loaded, cells, folder, replications, check, use), runs, folder, plots, as_json, use)


@app.command()
def compare(
    what: Annotated[
        Path, typer.Argument(metavar="SCENARIO|DIR", help="A scenario to run in both worlds; or a folder.")
    ],
    further: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE|DIR", help="Instead of the scenario's values; or the other folder."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-compared/1, 2, ... if not given.")
    ] = None,
    force: Force = False,
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
    """Say how far the simulated and the live world agree, or two folders of results."""
    with explained():
        if what.is_dir():
            found, folder = compared_folders(what, further or [], out, Use(force))
        else:
            found, folder = compared_worlds(what, further, out, replications, Use(force))
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
        typer.Option(
            metavar="DIR", help="Where the pictures go; out/NAME-plot/1, 2, ... if not given; of several, out/overlay."
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Draw saved results again; two or more of them over one another."""
    with explained():
        from orchestrator.pictures import draw
        from orchestrator.results import folders
        from orchestrator.results.manifests import Manifest

        results = {label: folders.load(folder) for label, folder in zip(labels(paths), paths, strict=True)}
        first = next(iter(results.values()))
        target = result_folder(f"{first.summary['scenario']}-plot" if len(results) == 1 else "overlay", out, Use(force))
        Manifest.of(target).remove_pictures()
        draw(first if len(results) == 1 else results, target)
        print_pictures(target)


def compared_worlds(
    path: Path, overrides: list[str] | None, out: Path | None, replications: int | None, use: Use
) -> tuple[Comparison, Path]:
    """A scenario, run in both worlds: how far they agree, and the folder that holds both results."""
    from orchestrator.analysis import comparison
    from orchestrator.results.folders import list_runs

    scenario, cells = load(path, overrides, live_warnings(path))
    folder = result_folder(f"{scenario.name}-compared", out, use)
    renew(folder)
    below = {world: folder / world for world in ("sim", "live")}
    list_runs(folder, below.values())
    runs = len(cells) * (replications or scenario.replications)
    simulated = require_whole(run_simulated(scenario, cells, below["sim"], replications), runs, below["sim"])
    lived = require_whole(run_live(scenario, cells, below["live"], replications), runs, below["live"])
    return comparison.compare(simulated, lived), folder


def compared_folders(one: Path, others: list[str], out: Path | None, use: Use) -> tuple[Comparison, Path]:
    """Two folders of results: how far they agree, and the folder for what is found."""
    from orchestrator.analysis import comparison
    from orchestrator.results import folders

    if len(others) != 1:
        raise Refusal(f"{one} is a folder: compare needs one more folder, and nothing else")
    paths = (str(one), others[0])
    result, other = map(folders.load, paths)
    folder = result_folder(f"{result.summary['scenario']}-compared", out, use)
    renew(folder, [one, Path(others[0])])
    first, second = labels(paths)
    return comparison.compare(result, other, (first, second)), folder


def tell(
    result: Run | Sweep,
    runs: int,
    folder: Path,
    plots: bool,
    as_json: bool,
    use: Use = Use(),  # noqa: B008
) -> None:
    """Draw and print the result of so many runs, or say what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if plots:
        draw_into(folder, result)
    if use.precision is not None and isinstance(result, Sweep):
        complain(use.precision.told(result.cells))
    if as_json:
        print_json(result.summary)
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
