"""What every command needs of a terminal: tables, numbers, progress, and sentences for what went wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from orchestrator.results.words import count as count
from orchestrator.results.words import duration as duration
from orchestrator.results.words import number as number
from orchestrator.results.words import percent as percent
from orchestrator.results.words import signed as signed

PIPE_WIDTH = 140
"""Columns of a table that goes to a file or to another program."""


class Refusal(Exception):
    """What a person asked for cannot be done, in one sentence."""


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""Nothing more can be written, although it could be when the command began."""


@contextmanager
def explained() -> Iterator[None]:
    """End in sentences on stderr and an exit code where the program is not to blame: 2, or 1 where a disk became full,
    130 after an interrupt. SIGTERM interrupts as Ctrl-C does, so that what was done is kept, and ends with 143."""
    import typer

    terminated = False

    def terminate(*_: object) -> None:
        nonlocal terminated
        terminated = True
        raise KeyboardInterrupt

    try:
        with _at_sigterm(terminate):
            yield
    except KeyboardInterrupt as interrupt:
        complain([": ".join(["ended by SIGTERM" if terminated else "interrupted", *map(str, interrupt.args)])])
        # CPython notes an interrupt that left an exec of a string (each import of a dataclass is one) as unhandled,
        # however it was caught, and would end by the signal instead of by our exit code. The next exec clears it.
        exec("")
        raise typer.Exit(143 if terminated else 130) from None
    except Exception as error:
        complain(sentences(error))
        raise typer.Exit(1 if _was_possible(error) else 2) from None


def _was_possible(error: Exception) -> bool:
    from concurrent.futures.process import BrokenProcessPool

    return isinstance(error, BrokenProcessPool) or (isinstance(error, OSError) and error.errno in FULL)


@contextmanager
def _at_sigterm(handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def sentences(error: Exception) -> list[str]:
    """What to say about a mistake of the user's; any other error is raised again."""
    from concurrent.futures.process import BrokenProcessPool

    from orchestrator.analysis.calibration import Unfit
    from orchestrator.analysis.comparison import Incomparable
    from orchestrator.core.ports import PolicyError
    from orchestrator.results.folders import RunFolderError
    from orchestrator.results.precision import UnknownMetric
    from orchestrator.scenario.datafiles import DataError
    from orchestrator.scenario.loading import ScenarioError

    match error:
        case ScenarioError():
            return [str(problem) for problem in error.problems]
        case Refusal() | DataError() | RunFolderError() | UnknownMetric() | Incomparable() | Unfit() | PolicyError():
            return [str(error)]
        case OSError(filename=str() as name, strerror=str() as reason):
            return [f"{name}: {reason}"]
        case OSError(errno=int() as number) if number in FULL:
            return [f"a file cannot be written: {os.strerror(number)}"]
        case OSError(strerror=str() as reason):
            return [reason]
        case BrokenProcessPool():
            return ["a process that this command had started was killed; runs that ended before are in their folders"]
    raise error


def complain(lines: Iterable[str]) -> None:
    """Each line as it is on stderr, however long."""
    for line in lines:
        print(line, file=sys.stderr)


@contextmanager
def progress(label: str) -> Iterator[Callable[[float], None]]:
    """A bar with the remaining time on stderr, told the share that is done; on a terminal, after two seconds."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with_eta = Progress(console=Console(stderr=True), transient=True)
    task = with_eta.add_task(label, total=1.0)
    patience_ends = time.monotonic() + 2.0

    def advance(done: float) -> None:
        with_eta.update(task, completed=min(done, 1.0))
        if time.monotonic() >= patience_ends:
            with_eta.start()

    try:
        yield advance
    finally:
        with_eta.stop()


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> None:
    """The first column names the row; numbers stand to the right of it and never break."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if numbers and place else "left", no_wrap=numbers)
    for row in rows:
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    if numbers:  # a line that the terminal breaks is better than a number cut short
        console.width = max(console.width, Console(width=1000).measure(table).maximum)
    console.print(Text(title, style="bold"), table, sep="\n\n")


def terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH


def print_in_pieces(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, cut between its columns where it is wider than the terminal; each piece names its rows again."""
    widths = [max(len(column), *(len(row[place]) for row in rows), 0) for place, column in enumerate(columns)]
    first, room = 1, terminal_width()
    while first < len(columns):
        last, used = first, widths[0]
        while last < len(columns) and (last == first or used + 3 + widths[last] <= room):
            used += 3 + widths[last]
            last += 1
        if first > 1:
            print()
        chosen = [0, *range(first, last)]
        head = title if first == 1 else "..."
        print_table(head, [columns[k] for k in chosen], [[row[k] for k in chosen] for row in rows])
        first = last
