"""Arguments and options that several commands have in common."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.terminal import Refusal, be_quiet

ScenarioFile = Annotated[Path, typer.Argument(metavar="SCENARIO", help="A scenario, in YAML; -: from standard input.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Instead of the file's values, as YAML: policies.routing.kind=random 'network={loss: 0.01}'; "
        "values between commas are a sweep: cluster.workers=4,8",
    ),
]
ResultFolder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Where the results go; out/NAME/1, 2, ... if not given."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what earlier runs left in DIR, and nothing else.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Keep the finished runs in DIR, or out/NAME/latest, and run the missing ones.")
]
HalfWidth = Annotated[
    float | None,
    typer.Option(
        "--precision", metavar="SHARE", help="Add replications until --of is known to that: 0.02 is 2 % to either side."
    ),
]
Metric = Annotated[
    str, typer.Option("--of", metavar="KEY", help="The number of the summary whose 95 % interval --precision is about.")
]
MaxReplications = Annotated[
    int, typer.Option(min=2, metavar="N", help="Of every cell at most, whatever --precision asks for.")
]
Replications = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs of every cell, each with its own random streams.")
]
Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Parallel processes; one a core if not given.")]
MaxError = Annotated[
    float | None,
    typer.Option(min=0, metavar="SHARE", help="Exit with 1 where an error of the whole run is larger: 0.1 is 10 %."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=be_quiet, help="No progress and no tables: where the results are, and what is wrong."
    ),
]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the pictures.")]
Demanded = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        metavar="KEY<NUMBER",
        help='What a number of the summary must keep, as "latency_s.p99 < 2" (or <=, >, >=); else exit 1. Repeatable.',
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Run it, however long it will take.")]
Baseline = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="The cell with which the others are compared; the first one if not given."),
]


def require_no_sweep(overrides: Iterable[str] | None, swept: Iterable[str]) -> None:
    """Refusal where an override sweeps a key, for a command that runs one scenario."""
    keys = {text.partition("=")[0].strip(): text for text in overrides or ()}
    for key in swept:
        if key in keys:
            raise Refusal(f"{keys[key]} is a sweep, expected one value, or one in quotes: this command sweeps nothing")


def examples_of(*commands: str) -> str:
    """The end of a help text: command lines that run as they stand, in a folder with the examples they name."""
    lines = "\n".join(f"  orchestrator {command}" for command in commands)
    return f"\b\nExample{'s' if len(commands) > 1 else ''}:\n{lines}"
