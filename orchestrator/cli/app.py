"""The command line: every group of commands under one name.

A command imports what is heavy when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import typer

from orchestrator.cli import catalogue, chaos, cluster, examples, judging, reports, running, streams, task_lives, traces
from orchestrator.cli.terminal import complain

UsageError: Any = typer.BadParameter.__mro__[1]  # it has no public name

app = typer.Typer(
    help="A task orchestrator whose simulated world runs the real coordinator.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (
    examples.app,
    running.app,
    reports.app,
    judging.app,
    task_lives.app,
    chaos.app,
    traces.app,
    catalogue.app,
    cluster.app,
):
    app.add_typer(group)


def main() -> None:
    """Run the command that the arguments name. What it can't take is told in one line."""
    streams.guard()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would print beside our sentences says the same
    try:
        sys.exit(typer.main.get_command(app).main(standalone_mode=False))
    except typer.Abort:  # Ctrl-C before the command could see to it
        sys.exit(130)
    except Exception as error:
        if not isinstance(error, UsageError):
            raise
        if type(error).__name__ != "NoArgsIsHelpError":  # for that, the help has been printed
            where = error.ctx.command_path if error.ctx else "orchestrator"
            complain([f"{where}: {' '.join(error.format_message().split())} (--help tells more)"])
        sys.exit(error.exit_code)
    finally:
        sys.stdout.flush()  # what it can't take is told here, rather than by the interpreter at its end
