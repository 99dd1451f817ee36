"""The command that draws faults from seeds and demands that no promise is broken."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import AsJson, Jobs, Overrides, Quiet, examples_of, require_no_sweep
from orchestrator.cli.judging import LIVE_GRACE_S
from orchestrator.cli.preparing import load, result_folder
from orchestrator.cli.terminal import count, explained, print_json, progress
from orchestrator.cli.views import print_tally

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

app = typer.Typer()


@app.command(epilog=examples_of("chaos --seeds 20", "chaos worker-crash.yaml --seeds 20"))
def chaos(
    scenario: Annotated[
        Path | None,
        typer.Argument(metavar="[SCENARIO]", help="Keep its cluster, work and policies: draw the faults only."),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="How many; 100 if not given, live one.", metavar="N")] = None,
    first_seed: Annotated[int, typer.Option(min=0, metavar="K", help="They are K, K+1, ...")] = 0,
    jobs: Jobs = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where a scenario that breaks something goes; out/chaos/1, 2, ... if not given."
        ),
    ] = None,
    on_processes: Annotated[bool, typer.Option("--live", help="On real processes, each seed for --seconds.")] = False,
    seconds: Annotated[float, typer.Option(min=5, metavar="S", help="How long a live run takes, about.")] = 60,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw a cluster, its work and its faults from every seed, run them, and demand that no promise is broken.

    What breaks one is shrunk to a smallest scenario that still does, and the exit code is 1.
    """
    with explained():
        from orchestrator.results import manifests

        base = load(scenario, overrides)[0] if scenario is not None else None
        if base is not None:
            require_no_sweep(overrides, base.sweep)
        chosen = range(first_seed, first_seed + (seeds or (1 if on_processes else 100)))
        folder = result_folder("chaos", out)
        try:
            if on_processes:
                clean = live_chaos(chosen, seconds, base, folder, as_json, quiet)
            else:
                clean = simulated_chaos(chosen, base, folder, jobs or os.cpu_count() or 1, as_json, quiet)
        finally:
            if out is None:
                manifests.withdraw(folder)  # where nothing is kept
            else:
                with suppress(OSError):
                    folder.rmdir()
    raise typer.Exit(0 if clean else 1)


def simulated_chaos(seeds: range, base: Scenario | None, folder: Path, jobs: int, as_json: bool, quiet: bool) -> bool:
    """Whether no seed breaks a promise; of those that break the same one, the first is shrunk and saved."""
    import sim
    from orchestrator.analysis import chaos

    world = partial(sim.run, check=True)
    tally, specimens = chaos.Tally(), []
    say: Callable[[str], None] = (lambda line: None) if as_json else print
    try:
        with progress(f"{len(seeds):,} seeds") as advance:
            for trial in chaos.hunt(seeds, world, base, jobs=jobs):
                if tally.add(trial):
                    say(f"seed {trial.seed}: {trial.violations[0]}")
                    specimens.append(chaos.preserve(trial, world, folder))
                    say(specimens[-1].described())
                advance(tally.seeds / len(seeds))
    except KeyboardInterrupt:
        kept = f", and {count(len(specimens), 'scenario')} kept in {folder}" if specimens else ""
        found = count(len(tally.broken), "seed")
        raise KeyboardInterrupt(f"{tally.seeds:,} of {len(seeds):,} seeds run, {found} in violation{kept}") from None
    if as_json:
        print_json({**tally.summary(), "specimens": [specimen.summary() for specimen in specimens]})
    elif not quiet:
        print_tally(tally.summary())
    return not tally.broken


def live_chaos(seeds: range, seconds: float, base: Scenario | None, folder: Path, as_json: bool, quiet: bool) -> bool:
    """The same on real processes, one seed after the other; every run is kept, and its decision record is replayed."""
    from orchestrator.analysis import chaos, random_scenarios
    from orchestrator.cluster import decision_record
    from orchestrator.rehearsal import runs as live_world

    tally, options = chaos.Tally(), random_scenarios.live_options(seconds)
    for seed in seeds:
        out = folder / f"live-{seed}"
        with progress(f"seed {seed} (live)") as advance:
            world = partial(live_world.run, out=out, progress=advance, check=True)
            try:
                drawn = random_scenarios.draw(seed, options, base)
                trial = chaos.trial(seed, drawn, world, LIVE_GRACE_S, patience_s=None)
            except KeyboardInterrupt:
                done = f"{tally.seeds:,} of {len(seeds):,} seeds run"
                raise KeyboardInterrupt(f"{done}, and the run of seed {seed} until then kept in {out}") from None
        replayed = ""
        if trial.tasks:
            same, difference, _ = decision_record.replay(out / decision_record.NAME)
            replayed = f"; {same:,} inputs decided the same again"
            if difference is not None:
                trial = trial.blamed("replay", f"after {same:,} inputs that decided the same: {difference}")
        tally.add(trial)
        if not as_json:
            summary = [] if quiet else [f"{trial.described()}{replayed}; results in {out}"]
            for told in (*map(str, trial.violations), *summary):
                print(f"seed {seed}: {told}")
    if as_json:
        print_json({**tally.summary(), "folders": [str(folder / f"live-{seed}") for seed in seeds]})
    elif not quiet:
        print_tally(tally.summary())
    return not tally.broken
