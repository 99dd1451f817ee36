"""What every command needs of a terminal: tables, numbers, progress, and sentences for what went wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

from orchestrator.results.words import age as age
from orchestrator.results.words import count as count
from orchestrator.results.words import duration as duration
from orchestrator.results.words import number as number
from orchestrator.results.words import percent as percent
from orchestrator.results.words import signed as signed

PIPE_WIDTH = 140
"""Columns of a table that goes to a file or to another program."""
WIDEST_TEXT = 100
"""Sentences are not set wider than people read."""
BAR_AFTER_S = 1.0
LINES_AFTER_S = 2.0


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
    """Each line as it is on stderr, however long; a terminal wraps it between words."""
    for line in lines:
        _print_wrapped(line, sys.stderr)


_quiet = False


def be_quiet(wanted: bool) -> bool:
    """From now on, whether no progress is shown."""
    global _quiet
    _quiet = wanted
    return wanted


class Advance(Protocol):
    """Hears the share that is done, and of a sweep the run that has just ended, as in `timeout_s=2 r0`."""

    def __call__(self, done: float, run: str = "") -> None: ...


@contextmanager
def progress(label: str, runs: int | None = 1) -> Iterator[Advance]:
    """The share, the runs and the remaining time on stderr: on a terminal as a bar, after the first second; elsewhere
    as a line for each run that ends, of a command that takes longer than two. `runs`: None if nobody knows how many."""
    if _quiet:
        yield lambda done, run="": None
    elif sys.stderr.isatty():
        with _bar(label, runs) as advance:
            yield advance
    else:
        with _lines(label, runs) as advance:
            yield advance


@contextmanager
def _bar(label: str, runs: int | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = Console(stderr=True)
    drawn = [BarColumn(20)] if console.width >= 100 else []
    told = [TextColumn("{task.description}"), *drawn, TaskProgressColumn()]
    last = TextColumn("{task.fields[run]}", table_column=Column(overflow="fold", ratio=1))
    left = TimeRemainingColumn(elapsed_when_finished=True)
    bar = Progress(*told, left, last, console=console, transient=True, expand=True)
    task = bar.add_task(label if runs in (1, None) else f"{label}: 0 of {runs:,}", total=1.0, run="")

    ended = 0

    def advance(done: float, run: str = "") -> None:
        nonlocal ended
        bar.update(task, completed=min(done, 1.0))
        if run:
            ended += 1
            done_runs = count(ended, "run") if runs is None else f"{round(done * runs):,} of {runs:,}"
            bar.update(task, description=f"{label}: {done_runs}", run=run)

    begin = threading.Timer(BAR_AFTER_S, bar.start)  # whatever the run tells until then
    begin.start()
    try:
        yield advance
    finally:
        begin.cancel()
        begin.join()
        bar.stop()


@contextmanager
def _lines(label: str, runs: int | None) -> Iterator[Advance]:
    begun, ended = time.monotonic(), 0

    def advance(done: float, run: str = "") -> None:
        nonlocal ended
        passed_s = time.monotonic() - begun
        ended += bool(run)
        if run and passed_s >= LINES_AFTER_S:
            left = f", about {duration(passed_s * (1 - done) / done)} left" if done < 1 and runs is not None else ""
            done_runs = count(ended, "run") if runs is None else f"{round(done * runs):,} of {runs:,} runs"
            complain([f"{label}: {done_runs} in {duration(passed_s)}{left}: {run}"])

    yield advance
    passed_s = time.monotonic() - begun
    if runs == 1 and passed_s >= LINES_AFTER_S:
        complain([f"{label}: ended after {duration(passed_s)}"])


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str] = ()) -> None:
    """The first column names the row; numbers stand to the right of it, and words in the columns `texts`. What is too
    wide for the terminal is divided between columns, and each part names the rows again: nothing is cut, and no number
    breaks. Where one column beside the names is too wide already, its heading breaks between words, and then the names
    behind commas."""
    from rich.console import Console
    from rich.text import Text

    rows = list(rows)
    whole = list(range(len(columns)))
    widest = Console(width=10_000)
    words = [place for place in whole if columns[place] in texts]
    wide = max(PIPE_WIDTH, _width(widest, columns, rows, whole))
    console = _console(sys.stdout) if sys.stdout.isatty() else Console(width=wide)
    parts = [[0]]
    for column in whole[1:]:
        if len(parts[-1]) > 1 and _width(widest, columns, rows, [*parts[-1], column]) > console.width:
            parts.append([0])
        parts[-1].append(column)
    console.print(Text(title, style="bold"))
    for chosen in parts:
        table = _table(*_folded(widest, columns, rows, chosen, console.width), chosen, words)
        console.width = max(console.width, widest.measure(table).minimum)
        console.print(*([] if chosen is parts[0] else [""]), table, sep="\n")


def _folded(
    widest: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[int], width: int
) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Headings and rows of a part of a table, on several lines where they have to be."""
    over = _width(widest, columns, rows, chosen) - width
    if over <= 0:
        return columns, rows
    columns = [
        textwrap.fill(heading, max(len(heading) - over, 1), break_long_words=False) if place in chosen[1:] else heading
        for place, heading in enumerate(columns)
    ]
    over = _width(widest, columns, rows, chosen) - width
    if over <= 0:
        return columns, rows
    longest = max(len(row[0]) for row in rows) - over
    return columns, [["\n".join(_behind_commas(row[0], longest)), *row[1:]] for row in rows]


def _behind_commas(text: str, width: int) -> list[str]:
    """Lines of so many characters at most, as far as commas and blanks allow."""
    lines = [""]
    for part in re.findall(r"[^, ]*(?:, ?| |$)", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return [line.rstrip() for line in lines]


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[int], words: Sequence[int] = ()
) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for place in chosen:
        is_text = place == 0 or place in words
        table.add_column(columns[place], justify="left" if is_text else "right", no_wrap=place > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[place]) for place in chosen))
    return table


def _width(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], chosen: Sequence[int]) -> int:
    return console.measure(_table(columns, rows, chosen)).maximum


def say(*lines: str) -> None:
    """Sentences on stdout, a line each; a terminal wraps them between words."""
    for line in lines:
        _print_wrapped(line, sys.stdout)


def print_paragraph(text: str, bullet: str = "", hanging: str = "") -> None:
    """A paragraph, or a point of a list, as wide as the terminal."""
    width = min(terminal_width(), WIDEST_TEXT)
    indent = " " * len(bullet) or hanging
    whole = re.sub(r"(?<=\d) (?=%|s\b|ms\b|us\b)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.fill(whole, width, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)
    print(lines.replace("\N{NO-BREAK SPACE}", " "))


def _print_wrapped(line: str, stream: TextIO) -> None:
    if len(line) <= 40 or not stream.isatty():
        print(line, file=stream)
        return
    from rich.text import Text

    _console(stream).print(Text(line, overflow="fold"))


def print_facts(facts: Iterable[tuple[str, str]], least: int = 0) -> None:
    """A name of at least so many characters and what it is, a line each; a terminal wraps behind the names."""
    facts = list(facts)
    width = max([least, *(len(name) for name, _ in facts)])
    if not sys.stdout.isatty():
        for name, fact in facts:
            print(f"{name:<{width}} {fact}".rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    console = _console(sys.stdout)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=2 * width <= console.width, min_width=min(width, console.width // 2), overflow="fold")
    table.add_column(overflow="fold")
    for name, fact in facts:
        table.add_row(Text(name), Text(fact))
    console.print(table)


def _console(terminal: TextIO) -> Console:
    """As wide as the terminal, a dumb one too: rich takes that to have 80 columns."""
    from rich.console import Console

    console = Console(file=terminal)
    if console.is_dumb_terminal:
        console.size = shutil.get_terminal_size()
    return console


def terminal_width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPE_WIDTH
