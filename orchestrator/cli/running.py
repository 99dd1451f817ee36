"""Commands that run a scenario: simulate and live."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.answers import answered, print_answer, require_cell
from orchestrator.cli.arguments import (
    AsJson,
    Baseline,
    Demanded,
    Force,
    HalfWidth,
    Jobs,
    MaxReplications,
    Metric,
    Overrides,
    Plots,
    Quiet,
    Replications,
    ResultFolder,
    Resume,
    ScenarioFile,
    Yes,
    examples_of,
)
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.objectives import demanded, judged, plain, print_verdicts
from orchestrator.cli.patience import require_live_patience, require_patience
from orchestrator.cli.preparing import Use, draw_into, live_warnings, load, result_folder, tell_results
from orchestrator.cli.terminal import complain, explained
from orchestrator.cli.views import print_cells, print_summary
from orchestrator.cli.worlds import kept_in, require_whole, run_live, run_simulated, use_of

if TYPE_CHECKING:
    from orchestrator.results.objectives import Objective
    from orchestrator.results.runs import Run, Sweep

app = typer.Typer()


@dataclass(frozen=True)
class Shown:
    """What is made of a result: pictures or not, and what is printed."""

    plots: bool
    as_json: bool
    quiet: bool
    objectives: list[Objective]
    baseline: str | None


@app.command(
    epilog=examples_of(
        "simulate worker-crash.yaml", "simulate worker-crash.yaml policies.detection.timeout_s=2,5,10 --replications 5"
    )
)
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
    jobs: Jobs = None,
    baseline: Baseline = None,
    check: Annotated[bool, typer.Option(help="At the end, the coordinator proves its invariants.")] = False,
    objective: Demanded = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        require_cell(baseline, cells)
        shown = Shown(plots, as_json, quiet, demanded(objective, loaded), baseline)
        number = replications or loaded.replications
        require_patience((cell.scenario for cell in cells), number, jobs or os.cpu_count() or 1, yes)
        use = use_of(loaded, force, resume, precision, of, max_replications)
        folder = result_folder(loaded.name, out, use)
        with kept_in(folder, len(cells) * number):
            result = run_simulated(loaded, cells, folder, replications, jobs, check, use)
            met = tell(result, len(cells) * number, folder, use, shown)
    if not met:
        raise typer.Exit(1)


@app.command(epilog=examples_of("live worker-crash.yaml"))
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
    baseline: Baseline = None,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    objective: Demanded = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        require_cell(baseline, cells)
        shown = Shown(plots, as_json, quiet, demanded(objective, loaded), baseline)
        number = replications or loaded.replications
        require_live_patience((cell.scenario for cell in cells), number, yes)
        use = use_of(loaded, force, resume, precision, of, max_replications)
        folder = result_folder(loaded.name, out, use)
        with kept_in(folder, len(cells) * number):
            result = run_live(loaded, cells, folder, replications, check, use)
            met = tell(result, len(cells) * number, folder, use, shown)
    if not met:
        raise typer.Exit(1)


def tell(result: Run | Sweep, runs: int, folder: Path, use: Use, shown: Shown) -> bool:
    """Draw and print the result of so many runs, or say what an interrupt left of them. Whether it meets all
    objectives."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if shown.plots:
        draw_into(folder, result)
    if use.precision is not None and isinstance(result, Sweep):
        complain(use.precision.told(result.cells))
    found = answered(result, folder, shown.baseline) if isinstance(result, Sweep) else None
    verdicts = judged(result, shown.objectives)
    answer = {} if found is None else {"answer": found.summary()}
    told = result.summary | answer | ({"objectives": plain(verdicts)} if verdicts else {})

    def show() -> None:
        if found is not None:
            print_cells(result.summary)
            print()
            print_answer(found)
        else:
            print_summary(result.summary)
            print_intervals(result.summary)
        print_verdicts(verdicts)

    tell_results(folder, told, show, shown.as_json, shown.quiet)
    return all(verdict.met for _, verdict in verdicts)
