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
    typer.Option("--out", metavar="DIR", help="Where the results go; out/NAME-OF-THE-SCENARIO if not given."),
]
Replications = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Runs of every cell, each with its own random streams.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=be_quiet, help="No progress and no tables: where the results are, and what is wrong."
    ),
]
Plots = Annotated[bool, typer.Option("--plots/--no-plots", help="Draw the pictures.")]


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
