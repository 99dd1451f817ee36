"""Workers on the command line."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.addresses import (
    SECONDS_MAX,
    SPEED_MAX,
    Address,
    Advertised,
    Capacity,
    Ids,
    Insecure,
    Prefetch,
    descriptor_option,
    exit_with,
    listening,
    port_option,
    seconds,
    whole,
    within,
)
from orchestrator.cli.arguments import examples_of
from orchestrator.cli.logs import LogFormat, LogFormatOption
from orchestrator.cli.processes import DieWith, Quiet, ReadyFd, begin_process, look_for_garbage_rarely, tell, vanished
from orchestrator.core.labels import labels_text

if TYPE_CHECKING:
    from orchestrator.cluster.programs import Program

app = typer.Typer()

MEMORY_LEAST = 32 << 20
"""Less than that, and an interpreter has no room for a task."""
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def _memory(given: str | None) -> str | None:
    if given is not None and _bytes_of(given) is None:
        exit_with(2, f"--memory-limit {given!a}: a limit is a number of bytes, such as 512M or 2G, and at least 32M")
    return given


def _bytes_of(given: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGT]?)(?:i?B)?", given.strip(), re.IGNORECASE)
    if match is None:
        return None
    size = int(float(match[1]) * (1 << _UNITS[match[2].upper()]))
    return size if MEMORY_LEAST <= size < 1 << 60 else None


AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE:NAME",
        help="Execute the tasks of this App, such as mypkg.tasks:app; modules are found here, too.",
    ),
]
MaxTasks = Annotated[
    int | None,
    typer.Option(
        "--max-tasks-per-child",
        metavar="N",
        callback=whole("--max-tasks-per-child", 1, 1_000_000_000, "a subprocess has 1 task or more"),
        help="Replace a subprocess after so many tasks.",
    ),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        callback=_memory,
        help="What each subprocess may allocate, such as 512M or 2G; beyond that it is a MemoryError.",
    ),
]


class Executor(StrEnum):
    """Where tasks run."""

    process = "process"
    thread = "thread"
    inline = "inline"


@app.command(epilog=examples_of("worker --capacity 4"))
def worker(
    address: Address = "localhost:50051",
    port: Annotated[int, port_option("Listen here, where the coordinator offers no streams; 0: a free one.")] = 50052,
    host: Annotated[str, typer.Option(help="And on this interface; loopback only, if not given.")] = "127.0.0.1",
    insecure: Insecure = False,
    advertise: Advertised = None,
    ids: Ids = None,
    app_spec: AppOption = None,
    capacity: Capacity = 2,
    prefetch: Prefetch = 0,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="It has this, for tasks that require it; repeatable.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="Take tasks of this kind only; repeatable.")
    ] = None,
    own_kinds: Annotated[
        bool,
        typer.Option(
            "--own-kinds",
            help="Take tasks of the App's kinds only: others wait for another worker, instead of failing here.",
        ),
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="Where tasks run; inline: on the event loop, for tasks that only sleep.")
    ] = Executor.process,
    speed: Annotated[
        float,
        typer.Option(
            callback=within("--speed", lambda given: 0 <= given <= SPEED_MAX, f"a speed is 0 to {SPEED_MAX:,.0f}"),
            help="Do the work at this share of the usual speed.",
        ),
    ] = 1.0,
    heartbeat: Annotated[
        str | None,
        vanished("--heartbeat", "the coordinator tells its workers, so give it detection.heartbeat_s=SECONDS"),
    ] = None,
    beat_phase: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SECONDS",
            callback=within(
                "--beat-phase",
                lambda given: abs(given) <= SECONDS_MAX,
                "a phase is a finite number of seconds, and less than a year",
            ),
            help="Beat at times that leave this remainder; one for each --id.",
        ),
    ] = None,
    rpc_timeout: Annotated[
        str | None,
        vanished("--rpc-timeout", "the coordinator tells its workers, so give it --call-timeout SECONDS"),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--drain-timeout"),
            help="Drain for so long at most, then stop what runs and leave.",
        ),
    ] = None,
    max_tasks: MaxTasks = None,
    memory_limit: MemoryLimit = None,
    contract: Annotated[bool, typer.Option(help="Do not try streams.")] = False,
    quiet: Quiet = False,
    log_format: LogFormatOption = LogFormat.auto,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
    control_fd: Annotated[int | None, descriptor_option("--control-fd", "Hear lines of JSON from here.")] = None,
) -> None:
    """Run a worker. SIGTERM and SIGINT drain it, a second one stops it at once.

    It executes the tasks of an App (--app), or prime, sleep and spin.
    """
    begin_process(quiet, log_format, die_with)
    from orchestrator.cluster.wire.rpc import precise_loop
    from orchestrator.cluster.worker import Settings
    from orchestrator.cluster.worker_process import run_workers

    host = listening(host, insecure, "give it tasks to run")
    names = ids or [f"worker-{secrets.token_hex(4)}"]
    if beat_phase and len(beat_phase) != len(names):
        exit_with(2, f"--beat-phase is given {len(beat_phase)} times for {len(names)} workers")
    if speed != 1 and (executor is Executor.thread or (executor is Executor.process and speed > 1)):
        exit_with(2, f"--speed {speed:g} cannot be had with --executor {executor}")
    program = program_of(app_spec, memory_limit, max_tasks, executor)
    settings = Settings(
        coordinator=address,
        capacity=capacity,
        prefetch=prefetch,
        executor=executor.value,
        speed=speed,
        beat_phase_s=dict(zip(names, beat_phase or (), strict=False)),
        listen_host=host,
        address=f"{advertise or _reachable(host)}:{port if len(names) == 1 else 0}",
        program=program,
        kinds=tuple(kind or (program.offers if own_kinds else ())),
        labels=_labels(label or ()),
    )
    look_for_garbage_rarely()
    with asyncio.Runner(loop_factory=precise_loop if executor is Executor.inline else None) as runner:
        running = run_workers(names, settings, lambda: tell(ready_fd, "ready"), contract, control_fd, drain_timeout)
        raise typer.Exit(runner.run(running))


def _reachable(host: str) -> str:
    """A name of this host that others can use, where it listens for others at all."""
    import socket

    return socket.getfqdn() if host in ("0.0.0.0", "::", "[::]") else host


def _labels(given: Sequence[str]) -> tuple[str, ...]:
    try:
        return tuple(labels_text(given).split(",")) if given else ()
    except ValueError as error:
        exit_with(2, f"--label: {error}")


def program_of(
    app_spec: str | None, memory_limit: str | None, max_tasks: int | None, executor: Executor = Executor.process
) -> Program:
    """What a worker's subprocesses are to execute."""
    from orchestrator.cluster import programs
    from orchestrator.cluster.child import Unusable

    given = {"--app": app_spec, "--memory-limit": memory_limit, "--max-tasks-per-child": max_tasks}
    for flag, value in given.items():
        if value is not None and executor is not Executor.process:
            exit_with(2, f"{flag} cannot be had with --executor {executor}: it is for subprocesses")
    memory_bytes = None if memory_limit is None else _bytes_of(memory_limit)
    if app_spec is None:
        return programs.Program(memory_bytes=memory_bytes, max_tasks=max_tasks)
    sys.path.extend({os.getcwd()}.difference(sys.path))  # behind everything else, as for policies of the user's own
    try:
        return programs.program_of(app_spec, memory_bytes, max_tasks)
    except Unusable as error:
        exit_with(2, f"--app {app_spec}: {error}")
    except OSError as error:
        exit_with(1, f"--app {app_spec}: {error}")
