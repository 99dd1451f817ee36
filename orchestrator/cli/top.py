"""The cluster, live: on a terminal a screen that is drawn again, elsewhere a snapshot after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.addresses import Address, exit_with, whole, within
from orchestrator.cli.arguments import examples_of
from orchestrator.cli.connecting import json_of, run
from orchestrator.cli.terminal import PIPE_WIDTH, age, complain, terminal_width

if TYPE_CHECKING:
    from rich.console import Group

    from orchestrator.cluster.views import Lost, Snapshot

app = typer.Typer()

INTERVAL_S = (0.1, 3600.0)
TICK_S = 1.0
"""The screen is drawn again so often, whatever comes."""
NEWS_S = 10.0
"""For how long it says that the coordinator is another process."""


@app.command(epilog=examples_of("top", "top --json --count 3 --interval 2"))
def top(
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=within(
                "--interval",
                lambda given: INTERVAL_S[0] <= given <= INTERVAL_S[1],
                f"{INTERVAL_S[0]:g} to {INTERVAL_S[1]:,.0f} seconds lie between two snapshots",
            ),
            help="Between two snapshots.",
        ),
    ] = 1.0,
    count: Annotated[
        int | None,
        typer.Option(
            "--count",
            metavar="N",
            callback=whole("--count", 1, 1_000_000_000, "1 snapshot or more"),
            help="End after so many, and print them one below the other.",
        ),
    ] = None,
    address: Address = "localhost:50051",
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each snapshot.")] = False,
) -> None:
    """Watch a cluster: workers, load, what waits, percentiles, deaths and timeouts. On a terminal q quits.

    Where the coordinator is lost it is dialled again. Elsewhere than on a terminal, snapshots are printed.
    """
    screened = sys.stdout.isatty() and not as_json and count is None
    watching = _on_screen(address, interval) if screened else _in_lines(address, interval, count, as_json)
    raise typer.Exit(run(watching))


class _Watched:
    """What is known of the cluster at present."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.snapshot: Snapshot | None = None
        self._lost_at: float | None = None
        self._reason = ""
        self._heard_at = self._news_at = -1e9

    def take(self, told: Snapshot | Lost) -> str:
        """What is to be said of that, empty for nothing. Exits where there was never a coordinator."""
        from orchestrator.cluster.views import Lost

        if isinstance(told, Lost):
            if not told.ever:
                exit_with(1, f"no coordinator at {self._address}: {told.reason}")
            self._reason = told.reason
            if self._lost_at is not None:
                return ""
            self._lost_at = time.monotonic()
            return f"lost the coordinator at {self._address}, and dial on: {told.reason}"
        before, self.snapshot = self.snapshot, told
        self._heard_at = time.monotonic()
        was_lost, self._lost_at = self._lost_at is not None, None
        if before is None or not (was_lost or before.term != told.term):
            return ""
        if before.term == told.term:
            return f"reached the coordinator at {self._address} again"
        self._news_at = self._heard_at
        return f"reached the coordinator at {self._address} again: another process, which counts anew"

    def note(self, interval_s: float) -> str:
        """For the screen."""
        now = time.monotonic()
        if self._lost_at is not None:
            return f"lost the coordinator {age(now - self._lost_at)} ago, dialling again: {self._reason}"
        if now - self._heard_at > 2 * interval_s + 1:
            return f"nothing heard for {age(now - self._heard_at)}"
        return "the coordinator is another process, which counts anew" if now - self._news_at < NEWS_S else ""


async def _in_lines(address: str, interval_s: float, most: int | None, as_json: bool) -> int:
    from orchestrator.cluster.view_client import watch

    watched, printed = _Watched(address), 0
    async with contextlib.aclosing(watch(address, interval_s)) as stream:
        async for told in stream:
            news = watched.take(told)
            if news:
                complain([news])
            if told is not watched.snapshot:
                continue
            if as_json:
                at = datetime.now(UTC).isoformat(timespec="milliseconds")
                print(json.dumps({"at": at, **json_of(told)}, allow_nan=False), flush=True)
            else:
                _print(watched.snapshot, address)
            printed += 1
            if printed == most:
                return 0
    raise AssertionError("a watch never ends")


def _print(snapshot: Snapshot, address: str) -> None:
    from orchestrator.cli.screens import screen

    width = min(terminal_width(), PIPE_WIDTH)
    title = f"{datetime.now().astimezone():%H:%M:%S}  {address}"
    print("\n".join(line.plain.rstrip() for line in screen(snapshot, width, title=title)), end="\n\n", flush=True)


async def _on_screen(address: str, interval_s: float) -> int:
    from orchestrator.cluster.view_client import watch

    watched, changed, ended = _Watched(address), asyncio.Event(), asyncio.Event()
    status = 0
    loop = asyncio.get_running_loop()

    def end(with_status: int) -> None:
        nonlocal status
        status = with_status
        ended.set()
        changed.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, 128 + number)
    loop.add_signal_handler(signal.SIGWINCH, changed.set)

    async def read() -> None:
        async with contextlib.aclosing(watch(address, interval_s)) as stream:
            async for told in stream:
                watched.take(told)
                changed.set()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: changed.set())
    try:
        while watched.snapshot is None and not reading.done() and not ended.is_set():
            await _either(changed)
        if watched.snapshot is not None:
            await _draw(watched, address, interval_s, changed, lambda: reading.done() or ended.is_set(), lambda: end(0))
        if reading.done():
            await reading
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return status


async def _draw(
    watched: _Watched,
    address: str,
    interval_s: float,
    changed: asyncio.Event,
    over: Callable[[], bool],
    end: Callable[[], None],
) -> None:
    from rich.console import Console
    from rich.live import Live

    def press(key: str) -> None:
        if key in "qQ":
            end()

    console = Console()
    with _keys(press), Live(console=console, screen=True, auto_refresh=False) as live:
        while not over():
            live.update(_drawn(watched, address, interval_s, *console.size), refresh=True)
            await _either(changed)


async def _either(changed: asyncio.Event) -> None:
    """Until there is something new, or a tick is over."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(changed.wait(), TICK_S)
    changed.clear()


def _drawn(watched: _Watched, address: str, interval_s: float, width: int, height: int) -> Group:
    from rich.console import Group

    from orchestrator.cli.screens import screen

    assert watched.snapshot is not None
    lines = screen(watched.snapshot, width, height, watched.note(interval_s), f"q quits: {address}")
    for line in lines:
        line.no_wrap, line.overflow = True, "crop"
    return Group(*lines)


@contextlib.contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Single keys, as they are pressed, where stdin is a terminal; afterwards it is as it was."""
    if not sys.stdin.isatty():
        yield
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    loop = asyncio.get_running_loop()

    def read() -> None:
        for key in os.read(descriptor, 64).decode(errors="ignore"):
            pressed(key)

    try:
        tty.setcbreak(descriptor)
        loop.add_reader(descriptor, read)
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
