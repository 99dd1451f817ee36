"""The command that holds the simulated world against the live one: fidelity."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import AsJson, Force, MaxError, Plots, Quiet, Replications, Yes, examples_of
from orchestrator.cli.patience import require_live_patience, require_patience
from orchestrator.cli.preparing import Use, draw_into, live_warnings, load, renew, result_folder, tell_results
from orchestrator.cli.terminal import (
    Refusal,
    complain,
    duration,
    explained,
    number,
    percent,
    print_table,
    signed,
)
from orchestrator.cli.views import COUNTS, listed, statistic
from orchestrator.cli.worlds import require_whole, run_live, run_simulated

if TYPE_CHECKING:
    from orchestrator.results.runs import Run, Sweep

app = typer.Typer()


@app.command(epilog=examples_of("fidelity worker-crash.yaml", "fidelity worker-crash.yaml --floor 3"))
def fidelity(
    what: Annotated[
        Path, typer.Argument(metavar="SCENARIO|DIR", help="A scenario to run in both worlds; or a run's folder.")
    ],
    further: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE|DIR", help="Instead of the scenario's values; or the folders of the other world."
        ),
    ] = None,
    floor: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run it live so many times: how far these are apart is the noise floor of the errors. 3 say enough.",
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(min=0, metavar="SHARE", help="Errors below it count as none: 0.1 is 10 %."),
    ] = 0.1,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the results go; out/NAME-fidelity/1, 2, ... if not given.")
    ] = None,
    force: Force = False,
    replications: Replications = None,
    max_error: MaxError = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    plots: Plots = True,
) -> None:
    """Run a scenario in both worlds, and say how far the simulated one is from the live one."""
    with explained():
        from orchestrator.analysis import fidelity as worlds
        from orchestrator.results import folders

        if what.is_dir():
            if floor is not None:
                raise Refusal(
                    "--floor is for a scenario, which it runs live so often; name so many live folders instead"
                )
            results = [folders.load(folder) for folder in (what, *(further or ()))]
            folder = result_folder(f"{results[0].summary['scenario']}-fidelity", out, Use(force))
            renew(folder, [what, *map(Path, further or ())])
        else:
            results, folder = run_both(what, further, out, Use(force), replications, floor or 1, yes)
        found = worlds.fidelity(results, margin)
        found.save(folder)
        if plots:
            draw_into(folder, found)
        told = found.summary()
        tell_results(folder, told, lambda: print_fidelity(told), as_json, quiet)
    if max_error is not None and (miss := found.miss(max_error)):
        complain([miss])
        raise typer.Exit(1)


def run_both(
    path: Path,
    overrides: list[str] | None,
    out: Path | None,
    use: Use,
    replications: int | None,
    floor: int,
    yes: bool,
) -> tuple[list[Run | Sweep], Path]:
    """A scenario, run in the simulated world and so many times in the live one, and the folder that holds all."""
    from orchestrator.results.folders import list_runs

    scenario, cells = load(path, overrides, live_warnings(path))
    runs = replications or scenario.replications
    scenarios = [cell.scenario for cell in cells]
    require_patience(scenarios, runs, os.cpu_count() or 1, yes)
    require_live_patience(scenarios, runs * floor, yes)
    folder = result_folder(f"{scenario.name}-fidelity", out, use)
    renew(folder)
    names = ["sim", "live", *(f"live-{number}" for number in range(2, floor + 1))]
    below = {name: folder / name for name in names}
    list_runs(folder, below.values())
    results = []
    for name in names:
        run = run_simulated if name == "sim" else run_live
        done = run(scenario, cells, below[name], replications)
        results.append(require_whole(done, len(cells) * runs, below[name]))
    return results, folder


# ---- what a terminal shows


def print_fidelity(told: Mapping[str, Any]) -> None:
    """Each statistic of a single cell, the latencies of each of several; then distances, the tasks, the order."""
    cells = told["cells"]
    for note in told["notes"]:
        print(f"{note}\n")
    if len(cells) == 1:
        _print_cell(told, cells[0])
    else:
        _print_cells(told)
    print()
    for cell in cells:
        print(f"{_named('KS distance', cell, cells)}{_distance(cell)}")
    for cell in cells:
        for world, counts in cell["tasks"].items():
            print(f"{_named(world, cell, cells)}{listed(counts, *COUNTS)}")
    print()
    for sentence in in_words(told):
        print(sentence)


def _print_cell(told: Mapping[str, Any], cell: Mapping[str, Any]) -> None:
    for place, where in enumerate(dict.fromkeys(row["where"] for row in cell["rows"])):
        if place:
            print()
        print_table(
            f"{told['scenario']}, {where}: intervals of 95 % by {cell['intervals']}",
            ["", *_columns(told)],
            [[statistic(row["metric"]), *_shown(row, told)] for row in cell["rows"] if row["where"] == where],
        )


def _print_cells(told: Mapping[str, Any]) -> None:
    from orchestrator.analysis.comparison import WHOLE
    from orchestrator.analysis.fidelity import PERCENTILES

    shown = [*PERCENTILES, "wait_s.mean", "throughput_per_s"]
    print_table(
        f"{told['scenario']}, whole runs: intervals of 95 % by {told['cells'][0]['intervals']}",
        ["", *_columns(told)],
        [
            [f"{cell['cell']}: {statistic(row['metric'])}", *_shown(row, told)]
            for cell in told["cells"]
            for row in cell["rows"]
            if row["where"] == WHOLE and row["metric"] in shown
        ],
    )
    print()
    print_table(
        "Do both worlds put the cells in the same order? (Kendall's tau: 1 the same, -1 the reverse)",
        ["", "tau", "pairs apart in both", "of them alike"],
        [[statistic(one["metric"]), number(one["tau"]), f"{one['apart']}", f"{one['alike']}"] for one in told["order"]],
    )


def _columns(told: Mapping[str, Any]) -> list[str]:
    floor = ["live / live"] if told["live_runs"] > 1 else []
    return ["sim", "live", "error", "its interval", *floor, f"within {told['margin'] * 100:.3g} %"]


def _shown(row: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    shows = {"throughput_per_s": lambda value: f"{number(value)}/s", "utilization": percent, "backlog.mean": number}
    show = shows.get(row["metric"], duration)
    interval = row["error_ci95"]
    known = row["sim_at_least"] is row["live_at_least"] is None
    return [
        *(
            show(row[world]) if row[f"{world}_at_least"] is None else f"> {show(row[f'{world}_at_least'])}"
            for world in ("sim", "live")
        ),
        signed(row["error"]) if known else "not known",
        ("too few" if row["too_few"] else "-")
        if interval is None
        else f"{signed(interval[0])} to {signed(interval[1])}",
        *([percent(max(row["floor"], default=None))] if told["live_runs"] > 1 else []),
        row["verdict"] or "-",
    ]


def _named(name: str, cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """A name for a line, the cell's before it if there are several, and room behind it."""
    before = [f"{one['cell']}, " if len(cells) > 1 else "" for one in cells]
    width = max(map(len, before)) + len("KS distance ")
    return f"{before[cells.index(cell)]}{name}".ljust(width)


def _distance(cell: Mapping[str, Any]) -> str:
    told = f"{number(cell['ks'])} between the latencies of both worlds"
    if cell["ks_floor"]:
        told += f"; at most {number(max(cell['ks_floor']))} between two live runs"
    return told


def in_words(told: Mapping[str, Any]) -> list[str]:
    """What the verdicts on the percentiles of latency come to: which they are, or of several cells how many."""
    from orchestrator.analysis.comparison import WHOLE
    from orchestrator.analysis.fidelity import DIFFERENT, EQUIVALENT, NOT_SHOWN, PERCENTILES

    found: dict[str | None, list[str]] = {}
    for cell in told["cells"]:
        for row in cell["rows"]:
            if row["where"] == WHOLE and row["metric"] in PERCENTILES:
                found.setdefault(row["verdict"], []).append(row["metric"].rpartition(".")[2])
    margin, several = f"{told['margin'] * 100:.3g} %", len(told["cells"]) > 1
    meanings = {
        EQUIVALENT: f"equivalent within {margin} in both worlds",
        DIFFERENT: f"different by more than {margin}",
        NOT_SHOWN: f"not shown to be equivalent within {margin}, nor to differ by more",
        None: "not known in both worlds",
    }
    which = {kind: f"{len(names)} percentiles" if several else ", ".join(names) for kind, names in found.items()}
    sentences = [f"Latency, {which[kind]}: {meaning}." for kind, meaning in meanings.items() if kind in which]
    if NOT_SHOWN in which and told["live_runs"] < 3:
        sentences.append("Three live runs of the same plan, --floor 3, show more.")
    return sentences
