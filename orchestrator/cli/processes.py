"""What the commands that run processes of a cluster have in common: how one begins, and says that it is ready."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from orchestrator.cli.addresses import PROCESS_MAX, descriptor_option, exit_with, whole
from orchestrator.cli.logs import LogFormat, begin_logging

Quiet = Annotated[bool, typer.Option("--quiet", help="Log warnings only.")]
ReadyFd = Annotated[int | None, descriptor_option("--ready-fd", "Write a line to this descriptor when ready.")]
DieWith = Annotated[
    int | None,
    typer.Option(
        hidden=True,
        callback=whole("--die-with", 1, PROCESS_MAX, "a process has an id above 0"),
        help="Be killed when the parent of this id ends.",
    ),
]


def vanished(flag: str, instead: str) -> Any:
    """A flag of former versions: whoever gives it is told what to do."""

    def refuse(value: str | None) -> None:
        if value is not None:
            exit_with(2, f"{flag} is no longer an option: {instead}")

    return typer.Option(flag, hidden=True, callback=refuse)


def begin_process(quiet: bool, log_format: LogFormat, die_with: int | None) -> None:
    if die_with is not None:
        from orchestrator.cluster import child

        child.die_with(die_with)
    begin_logging(quiet, log_format)


def keep_what_is_loaded() -> None:
    """Modules, and all that is there before the first task, stay: nobody looks for garbage among them any more, which
    would be done again and again as tasks come and go."""
    import gc

    gc.freeze()


def tell(descriptor: int | None, line: str) -> None:
    if descriptor is not None:
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)
