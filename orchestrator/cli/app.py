"""The command line: every group of commands under one name.

A command imports what is heavy when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import platform
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from orchestrator.cli import (
    asking,
    catalogue,
    chaos,
    cluster,
    comparing,
    examples,
    fidelity,
    judging,
    local,
    reports,
    running,
    seeing,
    sizing,
    storage,
    streams,
    task_lives,
    top,
    traces,
    working,
    worlds,
)
from orchestrator.cli.arguments import examples_of
from orchestrator.cli.terminal import complain

UsageError: Any = typer.BadParameter.__mro__[1]  # it has no public name

GROUPS = {
    "Experiments": (
        examples.app,
        running.app,
        comparing.app,
        reports.app,
        task_lives.app,
        fidelity.app,
        sizing.app,
        worlds.app,
        judging.app,
        chaos.app,
        traces.app,
        catalogue.app,
    ),
    "A cluster": (cluster.app, local.app, working.app, asking.app, seeing.app, top.app),
}
"""The commands, in the groups of the help."""


class Grouped(TyperGroup):
    """Lists the commands in groups."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        shown = {name: command for name, command in self.commands.items() if not command.hidden}
        for panel in GROUPS:
            names = [name for name, command in shown.items() if getattr(command, "rich_help_panel", "") == panel]
            with formatter.section(panel):
                formatter.write_dl([(name, shown[name].get_short_help_str(1000)) for name in names])


app = typer.Typer(
    cls=Grouped,
    help="A task orchestrator whose simulated world runs the real coordinator.",
    epilog=examples_of("init worker-crash", "simulate worker-crash.yaml", "explain policies.detection"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels cut what does not fit into a column
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for panel, groups in GROUPS.items():
    for group in groups:
        for command in group.registered_commands:
            command.rich_help_panel = panel
        if group not in (working.app, asking.app):  # which are parts of the cluster's
            app.add_typer(group)
app.add_typer(storage.app, name="store", rich_help_panel="A cluster")


def _tell_version(wanted: bool) -> None:
    if wanted:
        from orchestrator import __version__
        from orchestrator.cluster.wire.fingerprint import fingerprint

        print(f"cluster-rehearsal {__version__}, Python {platform.python_version()}, wire {fingerprint()}")
        raise typer.Exit


@app.callback()
def orchestrator(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            is_eager=True,
            callback=_tell_version,
            help="Print the versions of package and Python, and the wire's fingerprint: equal ones speak alike.",
        ),
    ] = False,
) -> None:
    """What no command needs to know."""


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
