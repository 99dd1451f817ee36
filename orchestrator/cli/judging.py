"""Commands that judge: check (a scenario, or a run's history), detectors, calibrate."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import (
    AsJson,
    Force,
    Jobs,
    Overrides,
    Plots,
    Quiet,
    Replications,
    ScenarioFile,
    examples_of,
)
from orchestrator.cli.patience import roughly
from orchestrator.cli.preparing import Use, draw_into, load, renew, require_writable, result_folder, tell_results
from orchestrator.cli.terminal import Refusal, count, explained, print_json, print_table, progress, say
from orchestrator.cli.views import print_calibration, print_histories, print_judgement

if TYPE_CHECKING:
    from orchestrator.analysis.traces import Trace
    from orchestrator.scenario.schema import Scenario

app = typer.Typer()

COLUMNS = {"offered_load": "offered load", "occupancy": "occupancy", "over_timeout": "time out"}
LIVE_GRACE_S = 1.0
"""What a message or a process may take of itself on a busy machine."""


@app.command(epilog=examples_of("check worker-crash.yaml"))
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
    """Say whether a scenario makes sense, how loaded it is and how long it takes; or of a run whether its history is
    clean."""
    if what.is_dir():
        with explained():
            clean = check_history(what, overrides or [], settled, as_json)
        raise typer.Exit(0 if clean else 1)
    with explained():
        from orchestrator.analysis.assumptions import loads_under_faults
        from orchestrator.scenario.effort import effort
        from orchestrator.scenario.loads import occupancy, over_timeout

        loaded, cells = load(what, overrides)
        found = [
            {
                "offered_load": cell.scenario.offered_load(),
                "occupancy": occupancy(cell.scenario),
                "over_timeout": over_timeout(cell.scenario),
            }
            for cell in cells
        ]
        efforts = [effort(cell.scenario) for cell in cells]
        if as_json:
            print_json(
                {
                    "scenario": loaded.name,
                    "replications": loaded.replications,
                    "cells": [
                        {
                            "cell": cell.name,
                            "values": cell.values,
                            **shares,
                            "tasks": takes.tasks,
                            "simulated_s": takes.simulated_s,
                            "live_s": takes.live_s,
                            "warnings": cell.scenario.warnings(),
                        }
                        for cell, shares, takes in zip(cells, found, efforts, strict=True)
                    ],
                }
            )
            return
        shown = [name for name in COLUMNS if name == "offered_load" or any(map(partial(_tells, name), found))]
        rows = [
            [
                cell.title,
                *("-" if shares[name] is None else f"{shares[name]:.3f}" for name in shown),
                f"{takes.tasks:,.0f}",
                roughly(takes.simulated_s),
                roughly(takes.live_s),
            ]
            for cell, shares, takes in zip(cells, found, efforts, strict=True)
        ]
        if len({tuple(numbers) for _, *numbers in rows}) == 1 < len(rows):
            rows = [[f"each of {len(rows)}", *rows[0][1:]]]
        print_table(
            f"{loaded.name}: {count(len(cells), 'cell')} x {count(loaded.replications, 'replication')}",
            ["cell", *(COLUMNS[name] for name in shown), "tasks, about", "a run takes, simulated", "live"],
            rows,
        )
        if told := loads_under_faults({cell.title: cell.scenario for cell in cells}):
            print()
            for sentence in told:
                say(f"{sentence[0].upper()}{sentence[1:]}.")


@app.command(epilog=examples_of("detectors choosing-a-detector.yaml --max-detection-s 10"))
def detectors(
    scenario: ScenarioFile,
    overrides: Overrides = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="A live run's folder, to take its heartbeats instead of simulated ones."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the results go; out/NAME-detectors/1, 2, ... if not given."),
    ] = None,
    force: Force = False,
    replications: Replications = None,
    max_mistakes_per_day: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="Budget: how often a day, in the whole cluster, a healthy worker is declared dead."
        ),
    ] = None,
    max_detection_s: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Budget: time within which 99 % of crashes are found.")
    ] = None,
    jobs: Jobs = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Judge all failure detectors, over a grid of their main parameter, on the heartbeats of one scenario."""
    with explained():
        from orchestrator.analysis.detectors import Budget, judge

        for option, budget in (("mistakes-per-day", max_mistakes_per_day), ("detection-s", max_detection_s)):
            if budget is not None and not 0 < budget < math.inf:
                raise Refusal(f"--max-{option} is {budget:g}, expected a number over 0")
        chosen = load_for_detectors(scenario, overrides)
        folder = result_folder(f"{chosen.name}-detectors", out, Use(force))
        with progress(f"{chosen.name} (heartbeats)") as advance:
            traces = find_traces(chosen, trace, replications, advance)
        with progress(f"{chosen.name} (detectors)") as advance:
            budget_ = Budget(max_mistakes_per_day, max_detection_s)
            judged = judge(chosen, traces, budget_, jobs or os.cpu_count() or 1, advance)
        renew(folder)
        judged.save(folder)
        if plots:
            draw_into(folder, judged)
        told = judged.summary()
        tell_results(folder, told, lambda: print_judgement(told), as_json, quiet)


@app.command(epilog=examples_of("live worker-crash.yaml --out out/live", "calibrate out/live --out model.yaml"))
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or of several alike.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model, to be named as `model` in a scenario.")] = Path(
        "model.yaml"
    ),
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fit the simulated world's delays and costs to a run."""
    with explained():
        from orchestrator.analysis import calibration
        from orchestrator.results import folders
        from orchestrator.results.runs import Run

        require_writable(out.parent)
        if out.is_dir():
            raise Refusal(f"cannot write to {out}: it is a folder, expected a file")
        result = folders.load(run)
        found = calibration.calibrate([result] if isinstance(result, Run) else list(result.runs))
        out.write_text(found.yaml(), encoding="utf-8")
        if as_json:
            print_json(found.model())
            return
        if quiet:
            print(out)
            return
        print_calibration(found.model())
        print(f"\nmodel in {out}")


def _tells(name: str, shares: Mapping[str, float | None]) -> bool:
    """Whether it says what the offered load does not."""
    share, load = shares[name] or 0.0, shares["offered_load"] or 0.0
    return share >= 0.0005 if name == "over_timeout" else abs(share - load) >= 0.0005


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
        else {f"{cell.name}/r{k}": run for cell in result.cells for k, run in zip(cell.numbers, cell.runs, strict=True)}
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
