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

GARBAGE_AFTER = 10_000
"""So many objects more than were there the last time, of those that can be part of a cycle."""


def vanished(flag: str, instead: str) -> Any:
    """A flag of former versions: whoever gives it is told what to do."""

    def refuse(value: str | None) -> None:
        if value is not None:
            exit_with(2, f"{flag} is no longer an option: {instead}")

    return typer.Option(flag, hidden=True, callback=refuse)


def begin_process(quiet: bool, log_format: LogFormat, die_with: int | None) -> None:
    if die_with is not None:
        from orchestrator.cluster import orphans

        orphans.die_with(die_with)
    begin_logging(quiet, log_format)


def look_for_garbage_rarely() -> None:
    """Modules, and all that is there before the first task, are never looked at again. What tasks leave is in no cycle:
    it is freed as it goes. By default, whatever a group of changes holds for a moment would begin a search, on which a
    coordinator with a store spent a seventh of its time."""
    import gc

    gc.freeze()
    gc.set_threshold(GARBAGE_AFTER, 10, 10)


def tell(descriptor: int | None, line: str) -> None:
    if descriptor is not None:
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)
