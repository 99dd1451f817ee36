"""The command line: every group of commands under one name.

A command imports what is heavy when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import sys

import typer

from orchestrator.cli import catalogue, chaos, cluster, examples, judging, running, streams

app = typer.Typer(
    help="A task orchestrator whose simulated world runs the real coordinator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (examples.app, running.app, judging.app, chaos.app, catalogue.app, cluster.app):
    app.add_typer(group)


def main() -> None:
    """Run the command that the arguments name."""
    streams.guard()
    try:
        app()
    finally:
        sys.stdout.flush()  # what it can't take is told here, rather than by the interpreter at its end
