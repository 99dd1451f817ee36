"""Arguments and options that several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Baseline = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="The cell with which the others are compared; the first one if not given."),
]
