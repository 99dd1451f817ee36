"""A whole cluster on this machine, in the foreground, for development."""

from __future__ import annotations

import logging
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.addresses import Capacity, MetricsAddress, exit_with, port_option, whole
from orchestrator.cli.arguments import examples_of
from orchestrator.cli.logs import LogFormat, LogFormatOption, begin_logging, chosen
from orchestrator.cli.processes import Quiet
from orchestrator.cli.terminal import count
from orchestrator.cli.working import AppOption, MaxTasks, MemoryLimit, program_of

if TYPE_CHECKING:
    from orchestrator.rehearsal.local_cluster import LocalCluster

app = typer.Typer()

log = logging.getLogger("orchestrator.up")

WORKERS_MAX = 1000
LOOK_S = 0.5
DRAIN_S = 10.0
"""For how long workers may finish what they run."""
PAUSES_S = (0.5, 30.0)
"""Before a worker that has ended is started again: the first time, and at most."""


@app.command(epilog=examples_of("up", "up --workers 4 --capacity 2 --app mypkg.tasks:app"))
def up(
    policies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Policies, such as detection.timeout_s=10; values are YAML."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            callback=whole("--workers", 1, WORKERS_MAX, f"a cluster here has 1 to {WORKERS_MAX:,} workers"),
            help="So many, each in a process of its own.",
        ),
    ] = 4,
    app_spec: AppOption = None,
    capacity: Capacity = 2,
    max_tasks: MaxTasks = None,
    memory_limit: MemoryLimit = None,
    port: Annotated[int, port_option("Of the coordinator; 0: a free one.")] = 50051,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep tasks and results here; without it, nothing is kept.")
    ] = None,
    metrics_address: MetricsAddress = None,
    quiet: Quiet = False,
    log_format: LogFormatOption = LogFormat.auto,
) -> None:
    """Run a coordinator and workers on this machine, until Ctrl-C: they finish what they run (a second one stops them
    at once)."""
    _begin_to_speak(log_format)
    program_of(app_spec, memory_limit, max_tasks)  # what is wrong with the app is told once
    from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady

    given = {"--app": app_spec, "--max-tasks-per-child": max_tasks, "--memory-limit": memory_limit}
    options = [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    how = ["--log-format", log_format.value, *(["--quiet"] if quiet else [])]
    of_it = {"--data": data, "--metrics-address": metrics_address}
    told = [word for flag, value in of_it.items() if value is not None for word in (flag, str(value))]
    cluster = LocalCluster(
        workers, capacity=capacity, policies=[*(policies or []), *told, *how], options=[*options, *how]
    )
    cluster.address = f"127.0.0.1:{port}"
    signals = _Signals()
    try:
        with cluster:
            line = "%s of %d at %s; Ctrl-C stops them"
            log.info(line, count(workers, "worker"), capacity, cluster.address)
            status = _keep(cluster, signals)
    except NotReady as error:
        exit_with(130 if signals.count else 1, str(error))
    raise typer.Exit(status)


class _Signals:
    """SIGINT and SIGTERM, counted; `wait` returns at once when one comes."""

    def __init__(self) -> None:
        self.count = 0
        self._heard, self._hears = socket.socketpair()
        self._hears.setblocking(False)
        signal.set_wakeup_fd(self._hears.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.count += 1

    def wait(self, timeout_s: float) -> None:
        if select.select([self._heard], [], [], timeout_s)[0]:
            self._heard.recv(64)


def _keep(cluster: LocalCluster, signals: _Signals) -> int:
    """Until a signal, or the coordinator's end; workers that end are started again, unless they have drained."""
    pause_s, again_at = PAUSES_S[0], 0.0
    left: set[str] = set()
    while not signals.count:
        signals.wait(LOOK_S)
        status = cluster.coordinator.status
        if status is not None:
            log.info("the coordinator ended with %s", _told(status))
            return status if status > 0 else 1
        if time.monotonic() < again_at or signals.count:
            continue
        ended = [name for name in cluster.names if cluster.worker(name).status is not None and name not in left]
        drained = [name for name in ended if cluster.worker(name).status == 0]
        for name in drained:
            log.info("worker %s has drained and left", name, extra={"worker": name})
            left.add(name)
            ended.remove(name)
        for name in ended:
            how = _told(cluster.worker(name).status)
            log.info("worker %s ended with %s: started again", name, how, extra={"worker": name})
            cluster.start_worker(name)
        if ended:
            again_at = time.monotonic() + pause_s
            pause_s = min(PAUSES_S[1], 2 * pause_s)
    return _stop(cluster, signals)


def _stop(cluster: LocalCluster, signals: _Signals) -> int:
    """Workers finish what they run, for a while; then the coordinator ends."""
    log.info("stopping: workers finish what they run; Ctrl-C again stops them at once")
    processes = [cluster.worker(name) for name in cluster.names]
    for process in processes:
        process.terminate()
    until = time.monotonic() + DRAIN_S
    while any(process.status is None for process in processes):
        if signals.count > 1 or time.monotonic() > until:
            log.info("stopped at once")
            return 130 if signals.count > 1 else 0
        signals.wait(LOOK_S / 10)
    cluster.coordinator.terminate()
    try:
        cluster.coordinator.wait(DRAIN_S)
    except subprocess.TimeoutExpired:
        log.info("the coordinator did not end, and is killed")
    log.info("stopped")
    return 0


def _told(status: int | None) -> str:
    if status is not None and status < 0:
        from orchestrator.cluster.programs import signal_name

        return signal_name(-status)
    return f"exit status {status}"


def _begin_to_speak(log_format: LogFormat) -> None:
    """Plain sentences, to a person; among lines of JSON they are such lines, too."""
    if chosen(log_format) is LogFormat.json:
        begin_logging(False, LogFormat.json)
    else:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
