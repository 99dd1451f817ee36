"""Running a scenario in either world for a command: once, or over its sweep and replications, into the folder that was
asked for and to the precision; and the command that makes a result of what a killed live run left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import AsJson, Plots, Quiet, examples_of
from orchestrator.cli.intervals import print_intervals
from orchestrator.cli.preparing import Use, draw_into, tell_results
from orchestrator.cli.terminal import Refusal, complain, count, explained, progress
from orchestrator.cli.views import print_summary

if TYPE_CHECKING:
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Cell, Scenario

app = typer.Typer()


@app.command(epilog=examples_of("recover out/worker-crash/1"))
def recover(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a live run that was killed.")],
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Make a result of what a killed live run left: what it did until then, from its decision record."""
    with explained():
        from orchestrator.rehearsal import runs as world

        found = world.recover(run)
        if plots:
            draw_into(run, found)

        def show() -> None:
            print_summary(found.summary)
            print_intervals(found.summary)

        tell_results(run, found.summary, show, as_json, quiet)


def use_of(scenario: Scenario, force: bool, resume: bool, half_width: float | None, metric: str, most: int) -> Use:
    """What the options ask for; Refusal for what they can't."""
    if half_width is None:
        return Use(force, resume)
    from orchestrator.results.precision import Precision

    if not 0 < half_width < 1:
        raise Refusal(f"--precision is {half_width:g}, expected a share over 0 and under 1: 0.02 is 2 %")
    precision = Precision(metric, half_width, most)
    precision.require_known(scenario)
    return Use(force, resume, precision)


def run_simulated(
    scenario: Scenario,
    cells: list[Cell],
    folder: Path,
    replications: int | None,
    jobs: int | None = None,
    check: bool = False,
    use: Use = Use(),  # noqa: B008
) -> Run | Sweep:
    import sim

    if (one := _single(cells, scenario, replications, use)) and (kept := _kept(one, folder, "sim", use)):
        return kept
    with progress(f"{scenario.name} (sim)", _runs(cells, scenario, replications, use)) as advance:
        if one:
            return sim.run(one, progress=advance, out=folder, check=check, force=use.force or use.resume)
        return sim.sweep(scenario, folder, jobs or os.cpu_count() or 1, replications, advance, check, **vars(use))


def run_live(
    scenario: Scenario,
    cells: list[Cell],
    folder: Path,
    replications: int | None,
    check: bool = False,
    use: Use = Use(),  # noqa: B008
) -> Run | Sweep:
    from orchestrator.rehearsal import runs as world
    from orchestrator.rehearsal.drive import STOPPED, ClusterBroke

    if (one := _single(cells, scenario, replications, use)) and (kept := _kept(one, folder, "live", use)):
        return kept
    try:
        with progress(f"{scenario.name} (live)", _runs(cells, scenario, replications, use)) as advance:
            if one:
                return world.run(one, folder, progress=advance, check=check, force=use.force or use.resume)
            return world.sweep(scenario, folder, replications, advance, check, **vars(use))
    except ClusterBroke as error:
        if error.status != STOPPED:
            raise Refusal(str(error)) from None
        complain([str(error)])
        raise typer.Exit(STOPPED) from None


def _single(cells: list[Cell], scenario: Scenario, replications: int | None, use: Use) -> Scenario | None:
    """The scenario to run, if there is but one run."""
    return cells[0].scenario if _runs(cells, scenario, replications, use) == 1 else None


def _runs(cells: list[Cell], scenario: Scenario, replications: int | None, use: Use) -> int | None:
    """How many there will be, if that is known."""
    return None if use.precision is not None else len(cells) * (replications or scenario.replications)


def _kept(scenario: Scenario, folder: Path, world: str, use: Use) -> Run | None:
    """The run in the folder, if it is resumed and finished. Refusal if something else is there that would be lost."""
    from orchestrator.results import folders

    if not use.resume:
        return None
    found = folders.finished(folder)
    if found == {folder: folders.identity(scenario, world)}:
        return folders.load_run(folder)
    if use.force:
        return None
    if folder in found:
        raise Refusal(f"{folder} holds a run of another scenario or world: --resume --force replaces it")
    if found:
        raise Refusal(
            f"{folder} holds {count(len(found), 'run')} of a sweep or of replications, and this is a single run: "
            "resume it as it was, or --resume --force replaces them"
        )
    if world == "live" and (folder / "driver.jsonl").exists():
        raise Refusal(
            f"{folder} holds a live run that was killed, which can't go on: orchestrator recover {folder} makes a "
            "result of it, and --resume --force runs it again"
        )
    return None


@contextmanager
def kept_in(folder: Path, runs: int) -> Iterator[None]:
    """An interrupt behind the last run, while the answer is made of them, says that the runs are there as well."""
    from orchestrator.results import folders

    try:
        yield
    except KeyboardInterrupt as interrupt:
        if interrupt.args or not (done := len(folders.finished(folder))):
            raise
        raise KeyboardInterrupt(f"{done:,} of {runs:,} runs kept in {folder}") from None


def require_whole(result: Run | Sweep, runs: int, folder: Path) -> Run | Sweep:
    """The result of so many runs; KeyboardInterrupt says what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    if "interrupted" in result.summary:
        kept = f"{len(list(result.runs)):,} of {runs:,} runs" if isinstance(result, Sweep) else "the run until then"
        raise KeyboardInterrupt(f"{kept} kept in {folder}")
    return result
