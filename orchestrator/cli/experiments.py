"""The command line: parse, call, print.

What is heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.cluster import app as cluster
from orchestrator.cli.terminal import (
    Refusal,
    complain,
    count,
    explained,
    print_calibration,
    print_cells,
    print_comparison,
    print_histories,
    print_json,
    print_judgement,
    print_summary,
    print_table,
    print_tally,
    progress,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from orchestrator.analysis.traces import Trace
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Cell, Scenario

app = typer.Typer(
    help="A task orchestrator whose simulated world runs the real coordinator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.add_typer(cluster)

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario, in YAML.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Instead of the file's values, as YAML: policies.routing.kind=random 'network={loss: 0.01}'",
    ),
]
ResultFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where the results go; out/NAME-OF-THE-SCENARIO if not given."),
]
Replications = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs of every cell, each with its own random streams.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the pictures.")]


def main() -> None:
    app()


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
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the simulated world: once, or over its sweep and replications."""
    with explained():
        loaded, cells = load(scenario, overrides)
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_simulated(loaded, cells, folder, replications, jobs, check), runs, folder, plots, as_json)


@app.command()
def live(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    out: ResultFolder = None,
    replications: Replications = None,
    check: Annotated[bool, typer.Option(help="The coordinator proves its invariants while it runs.")] = False,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in the live world: real processes on this machine, its tasks and faults in real time."""
    with explained():
        loaded, cells = load(scenario, overrides, live_warnings(scenario))
        folder = result_folder(loaded, out)
        runs = len(cells) * (replications or loaded.replications)
        tell(run_live(loaded, cells, folder, replications, check), runs, folder, plots, as_json)


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
    """Say how far the simulated and the live world agree, or two folders of results."""
    with explained():
        from orchestrator.analysis import comparison
        from orchestrator.results import folders

        if what.is_dir():
            if len(further or ()) != 1:
                raise Refusal(f"{what} is a folder: compare needs one more, and nothing else")
            paths = (str(what), str((further or [])[0]))
            one, other = map(folders.load, paths)
            folder = out or Path("out") / f"{one.summary['scenario']}-compared"
            require_writable(folder)
            first, second = labels(paths)
            found = comparison.compare(one, other, (first, second))
        else:
            loaded, cells = load(what, further, live_warnings(what))
            folder = out or Path("out") / f"{loaded.name}-compared"
            below = {world: result_folder(loaded, folder / world) for world in ("sim", "live")}
            runs = len(cells) * (replications or loaded.replications)
            simulated = require_whole(run_simulated(loaded, cells, below["sim"], replications), runs, below["sim"])
            lived = require_whole(run_live(loaded, cells, below["live"], replications), runs, below["live"])
            found = comparison.compare(simulated, lived)
        found.save(folder)
        if plots:
            from orchestrator.pictures import draw

            draw(found, folder)
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
def detectors(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A live run's folder, to take its heartbeats instead of simulated ones."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-detectors if not given.")
    ] = None,
    replications: Replications = None,
    max_mistakes_per_day: Annotated[
        float | None,
        typer.Option(metavar="N", help="Budget: wrong convictions a day, of all the cluster's workers together."),
    ] = None,
    max_detection_s: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Budget: time within which 99 % of crashes are found.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")
    ] = None,
    as_json: AsJson = False,
    plots: Plots = True,
) -> None:
    """Judge all failure detectors, over a grid of their main parameter, on the heartbeats of one scenario."""
    with explained():
        from orchestrator.analysis.detectors import Budget, judge

        for option, budget in (("mistakes-per-day", max_mistakes_per_day), ("detection-s", max_detection_s)):
            if budget is not None and not 0 < budget < math.inf:
                raise Refusal(f"--max-{option} is {budget:g}, expected a number over 0")
        chosen = load_for_detectors(scenario, overrides)
        folder = out or Path("out") / f"{chosen.name}-detectors"
        require_writable(folder)
        with progress(f"{chosen.name} (heartbeats)") as advance:
            traces = find_traces(chosen, trace, replications, advance)
        with progress(f"{chosen.name} (detectors)") as advance:
            budget_ = Budget(max_mistakes_per_day, max_detection_s)
            judged = judge(chosen, traces, budget_, jobs or os.cpu_count() or 1, advance)
        judged.save(folder)
        if plots:
            from orchestrator.pictures import draw

            draw(judged, folder)
        if as_json:
            print_json(judged.summary())
            return
        print_judgement(judged.summary())
        print(f"\nresults in {folder}")
        print_pictures(folder)


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or of several alike.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The model, to be named as `model` in a scenario.")
    ] = Path("model.yaml"),
    as_json: AsJson = False,
) -> None:
    """Fit the simulated world's delays and costs to a run."""
    with explained():
        from orchestrator.analysis import calibration
        from orchestrator.results import folders
        from orchestrator.results.runs import Run

        result = folders.load(run)
        found = calibration.calibrate([result] if isinstance(result, Run) else list(result.runs))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(found.yaml(), encoding="utf-8")
        if as_json:
            print_json(found.model())
            return
        print_calibration(found.model())
        print(f"\nmodel in {out}")


@app.command()
def check(
    what: Annotated[
        Path, typer.Argument(metavar="SCENARIO|DIR", help="A scenario, to be judged before a run; or a run's folder.")
    ],
    overrides: Overrides = None,
    settled: Annotated[
        bool,
        typer.Option(help="Of a run: its faults had ended long before it did, so that nothing may be unfinished."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a scenario makes sense and how loaded it is; or, of a run, whether its history is clean."""
    if what.is_dir():
        with explained():
            clean = check_history(what, overrides or [], settled, as_json)
        raise typer.Exit(0 if clean else 1)
    with explained():
        loaded, cells = load(what, overrides)
        loads = [cell.scenario.offered_load() for cell in cells]
        if as_json:
            print_json(
                {
                    "scenario": loaded.name,
                    "replications": loaded.replications,
                    "cells": [
                        {
                            "cell": cell.name,
                            "values": cell.values,
                            "offered_load": offered_load,
                            "warnings": cell.scenario.warnings(),
                        }
                        for cell, offered_load in zip(cells, loads, strict=True)
                    ],
                }
            )
            return
        print_table(
            f"{loaded.name}: {count(len(cells), 'cell')} x {count(loaded.replications, 'replication')}",
            ["cell", "offered load"],
            [
                [cell.name, "-" if offered_load is None else f"{offered_load:.3f}"]
                for cell, offered_load in zip(cells, loads, strict=True)
            ],
        )


@app.command()
def chaos(
    scenario: Annotated[
        Path | None,
        typer.Argument(metavar="[SCENARIO]", help="Keep its cluster, work and policies: draw the faults only."),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="How many; 100 if not given, live one.", metavar="N")
    ] = None,
    first_seed: Annotated[int, typer.Option(min=0, metavar="K", help="They are K, K+1, ...")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where a scenario that breaks something goes.")] = Path(
        "out/chaos"
    ),
    on_processes: Annotated[bool, typer.Option("--live", help="On real processes, each seed for --seconds.")] = False,
    seconds: Annotated[float, typer.Option(min=5, metavar="S", help="How long a live run takes, about.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Draw a cluster, its work and its faults from every seed, run them, and demand that no promise is broken.

    What breaks one is shrunk to a smallest scenario that still does, and the exit code is 1.
    """
    with explained():
        base = load(scenario, overrides)[0] if scenario is not None else None
        chosen = range(first_seed, first_seed + (seeds or (1 if on_processes else 100)))
        if on_processes:
            clean = live_chaos(chosen, seconds, base, out, as_json)
        else:
            clean = simulated_chaos(chosen, base, out, jobs or os.cpu_count() or 1, as_json)
    raise typer.Exit(0 if clean else 1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from orchestrator.scenario.schema import json_schema

    print_json(json_schema())


@app.command()
def policies(as_json: AsJson = False) -> None:
    """List every kind of policy with its parameters, their types, defaults and meaning."""
    from orchestrator.policies import catalogue

    families = {family: [describe(config) for config in configs] for family, configs in catalogue().items()}
    if as_json:
        print_json(families)
        return
    for family, kinds in families.items():
        rows = []
        for kind in kinds:
            rows.append([kind["kind"], "", "", "", kind["meaning"]])
            for p in kind["parameters"]:
                rows.append(
                    ["", p["name"], p["type"], json.dumps(p["default"]) if "default" in p else "-", p["meaning"]]
                )
        print_table(family, ["kind", "parameter", "type", "default", "meaning"], rows, numbers=False)
        print()


@app.command()
def plot(
    paths: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or sweeps.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where the pictures go; if not given, into DIR, or of several, out/overlay."
        ),
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


def load(
    path: Path, overrides: Iterable[str] | None, further: Callable[[Scenario], list[str]] = lambda _: []
) -> tuple[Scenario, list[Cell]]:
    """The scenario and its cells; warnings, and `further` ones of each cell, go to stderr, with the cell that they
    concern if it is not every one."""
    from orchestrator.scenario.schema import Scenario

    scenario = Scenario.load(path, list(overrides or ()))
    cells = scenario.cells()
    concerned: dict[str, list[str]] = {}
    for cell in cells:
        for warning in [*cell.scenario.warnings(), *further(cell.scenario)]:
            concerned.setdefault(warning, []).append(cell.name)
    for warning, names in concerned.items():
        complain([f"warning: {warning}" if len(names) == len(cells) else f"warning: {', '.join(names)}: {warning}"])
    return scenario, cells


def live_warnings(path: Path) -> Callable[[Scenario], list[str]]:
    """What a live run of a scenario leaves out; ScenarioError for what it can't do."""
    from orchestrator.rehearsal import runs as world

    return partial(world.warn, file=str(path))


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
    from orchestrator.rehearsal.drive import ClusterBroke

    try:
        with progress(f"{scenario.name} (live)") as advance:
            if len(cells) * (replications or scenario.replications) == 1:
                return world.run(cells[0].scenario, folder, progress=advance, check=check)
            return world.sweep(scenario, folder, replications, advance, check)
    except ClusterBroke as error:
        raise Refusal(str(error)) from None


LIVE_GRACE_S = 1.0
"""What a message or a process may take of itself on a busy machine."""


def check_history(folder: Path, overrides: list[str], settled: bool, as_json: bool) -> bool:
    """Whether no run in the folder breaks a promise; what they break, and what was looked at, is printed."""
    from orchestrator.analysis import promises
    from orchestrator.results import folders
    from orchestrator.results.runs import Run

    if overrides:
        raise Refusal(f"{folder} is a folder, and its scenario cannot be changed any more: {overrides[0]}")
    result = folders.load(folder)
    runs = (
        {result.title: result}
        if isinstance(result, Run)
        else {
            f"{cell.name}/r{k}": run for cell in result.cells for k, run in zip(cell.numbers, cell.runs, strict=True)
        }
    )
    histories = []
    for name, run in runs.items():
        grace_s = LIVE_GRACE_S if run.summary["world"] == "live" else 0.0
        histories.append(
            {
                "run": name,
                "tasks": run.summary["tasks"]["submitted"],
                "attempts": run.summary["tasks"]["attempts"],
                "violations": [asdict(violation) for violation in promises.check(run, settled, grace_s)],
                "left_out": promises.left_out(run.scenario, settled),
            }
        )
    meanings = {promise.name: promise.meaning for promise in promises.PROMISES}
    if as_json:
        print_json({"promises": meanings, "runs": histories})
    else:
        print_histories(histories, meanings)
    return not any(history["violations"] for history in histories)


def simulated_chaos(seeds: range, base: Scenario | None, folder: Path, jobs: int, as_json: bool) -> bool:
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
    else:
        print_tally(tally.summary())
    return not tally.broken


def live_chaos(seeds: range, seconds: float, base: Scenario | None, folder: Path, as_json: bool) -> bool:
    """The same on real processes, one seed after the other; every run is kept, and its journal is replayed."""
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
            same, difference = decision_record.replay(out / decision_record.NAME)
            replayed = f"; {same:,} inputs decided the same again"
            if difference is not None:
                trial = trial.blamed("replay", f"after {same:,} inputs that decided the same: {difference}")
        tally.add(trial)
        if not as_json:
            for told in (*map(str, trial.violations), f"{trial.described()}{replayed}; results in {out}"):
                print(f"seed {seed}: {told}")
    if as_json:
        print_json({**tally.summary(), "folders": [str(folder / f"live-{seed}") for seed in seeds]})
    else:
        print_tally(tally.summary())
    return not tally.broken


def load_for_detectors(path: Path, overrides: Iterable[str] | None) -> Scenario:
    """The scenario, of which a sweep may only vary the detection, which is varied here anyway."""
    loaded, _ = load(path, overrides)
    others = [key for key in loaded.sweep if not key.startswith("policies.detection")]
    if others:
        raise Refusal(f"{path} sweeps {others[0]}: choose one value of it, or sweep={{}}")
    return loaded.model_copy(update={"sweep": {}})


def find_traces(
    scenario: Scenario, recorded: Path | None, replications: int | None, advance: Callable[[float], None]
) -> list[Trace]:
    """The heartbeats to judge by: recorded ones, or those of each replication in the simulated world."""
    import sim
    from orchestrator.rehearsal import heartbeats

    if recorded is None:
        number = replications or scenario.replications
        return [sim.heartbeats(scenario, k, lambda done, k=k: advance((k + done) / number)) for k in range(number)]  # type: ignore[misc]
    traces = heartbeats.recorded(recorded)
    beat, own = traces[0].heartbeat_s, scenario.policies.detection.heartbeat_s
    if beat != own:
        hint = f"policies.detection.heartbeat_s={beat:g}"
        raise Refusal(f"{recorded} beats every {beat:g} s, the scenario every {own:g} s: say {hint}")
    return traces


def result_folder(scenario: Scenario, out: Path | None) -> Path:
    """Where the results may go, known before a long run rather than after it."""
    from orchestrator.results import folders

    folder = out or Path("out") / scenario.name
    require_writable(folder)
    folders.require_ours(folder)
    return folder


def tell(result: Run | Sweep, runs: int, folder: Path, plots: bool, as_json: bool) -> None:
    """Draw and print the result of so many runs, or say what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    require_whole(result, runs, folder)
    if plots:
        from orchestrator.pictures import draw

        draw(result, folder)
    if as_json:
        print_json(result.summary)
        return
    (print_cells if isinstance(result, Sweep) and len(result.cells) > 1 else print_summary)(result.summary)
    print(f"\nresults in {folder}")
    print_pictures(folder)


def require_whole(result: Run | Sweep, runs: int, folder: Path) -> Run | Sweep:
    """The result of so many runs; KeyboardInterrupt says what an interrupt left of them."""
    from orchestrator.results.runs import Sweep

    if "interrupted" in result.summary:
        kept = f"{len(list(result.runs)):,} of {runs:,} runs" if isinstance(result, Sweep) else "the run until then"
        raise KeyboardInterrupt(f"{kept} kept in {folder}")
    return result


def require_writable(folder: Path) -> None:
    """Better known before a long run than after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Refusal(f"cannot write to {folder}: {error.strerror}") from None


def labels(folders: Sequence[str | Path]) -> list[str]:
    """As much of the end of each path as tells it from the others, and fits into a legend."""
    paths = [Path(folder).resolve().parts for folder in folders]
    for depth in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            break
    return [name if len(name) <= 40 else f"...{name[-37:]}" for name in names]


def print_pictures(folder: Path) -> None:
    for picture in sorted(folder.glob("*.png")):
        print(f"  {picture}")


def describe(config: type[BaseModel]) -> dict[str, Any]:
    """One kind of policy, from its configuration model."""
    form = config.model_json_schema()
    fields = form["properties"]
    kind = fields.pop("kind", {"const": ""})
    return {
        "kind": kind.get("const", "package.module:Class"),
        "meaning": form.get("description", ""),
        "parameters": [
            {
                "name": name,
                "type": type_in_words(field),
                **({"default": field["default"]} if "default" in field else {}),
                "meaning": field.get("description", ""),
            }
            for name, field in fields.items()
        ],
    }


def type_in_words(field: dict[str, Any]) -> str:
    """`number > 0`, `integer or null`, `hold | dead`: the type of a JSON Schema and its bounds."""
    if "anyOf" in field:
        return " or ".join(map(type_in_words, field["anyOf"]))
    if "enum" in field:
        return " | ".join(field["enum"])
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([field.get("type", "any"), " and ".join(limits)]).strip()
