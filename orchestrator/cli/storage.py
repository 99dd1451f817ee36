"""Commands that read what a coordinator keeps with `--data DIR`, while none uses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.addresses import exit_with
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.store import Kept
    from orchestrator.cluster.store_contents import Contents

app = typer.Typer(help="Read what a coordinator keeps with --data DIR, also where that is damaged.")

Data = Annotated[Path, typer.Argument(metavar="DIR", help="What --data was given; no coordinator may use it now.")]


@app.command(epilog=examples_of("store check data"))
def check(folder: Data, as_json: AsJson = False) -> None:
    """Say what a store holds, and whether it is whole; exit 1, if it is not."""
    from orchestrator.core.model import TaskState

    in_hand = settled = keyed = 0
    with _contents(folder) as contents:
        for task in contents.tasks():
            settled += task.state >= TaskState.COMPLETED
            in_hand += task.state < TaskState.COMPLETED
            keyed += task.key != ""
        term, torn, problems = contents.term, contents.torn, contents.problems
    if as_json:
        print_json({"term": term, "in_hand": in_hand, "settled": settled, "keyed": keyed, "torn_bytes": torn,
                    "problems": problems})  # fmt: skip
    else:
        print(f"term {'unknown' if term is None else term}: {in_hand} tasks in hand and {settled} settled ones, "
              f"{keyed} with a key")  # fmt: skip
        if torn:
            print(f"a group was not finished: the next coordinator will cut {torn} bytes off, of which nobody was told")
        print("damaged:" if problems else "whole")
        for problem in problems:
            print(f"  {problem}")
    raise typer.Exit(1 if problems else 0)


@app.command(epilog=examples_of("store export data > tasks.jsonl"))
def export(folder: Data) -> None:
    """Print the tasks of a store as lines of JSON; of a damaged one, exit 1, those that can be read."""
    with _contents(folder) as contents:
        for task in contents.tasks():
            print(json.dumps(_told(task)))
    for problem in contents.problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(1 if contents.problems else 0)


def _told(task: Kept) -> dict[str, Any]:
    from orchestrator.core.model import TaskState

    told = task._asdict() | {"state": TaskState(task.state).name}
    del told["place"]  # which concerns nobody else
    return told


@contextmanager
def _contents(folder: Path) -> Iterator[Contents]:
    from orchestrator.cluster.store import Unusable
    from orchestrator.cluster.store_contents import Contents

    try:
        contents = Contents(folder)
    except Unusable as error:
        exit_with(2, str(error))
    try:
        yield contents
    finally:
        contents.close()
