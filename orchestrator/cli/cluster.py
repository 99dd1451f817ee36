"""The live cluster's part of the command line. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import asking
from orchestrator.cli.addresses import (
    PROCESS_MAX,
    SECONDS_MAX,
    SPEED_MAX,
    UNSETTLED_MAX,
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
    seed_option,
    whole,
    within,
)
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.decided import CALL_TIMEOUT_S, Decided, decided_by, require_times
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.coordinator import LiveCoordinator
    from orchestrator.cluster.durability import Durability
    from orchestrator.core.coordinator import Coordinator
    from orchestrator.core.ports import Effects

app = typer.Typer()
app.add_typer(asking.app)

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
DAY_S = 24 * 3600.0
PARTING_S = 0.5
"""For how long a coordinator that a fault has stopped tells so to whoever asks."""


class Executor(StrEnum):
    """Where tasks run."""

    process = "process"
    thread = "thread"
    inline = "inline"


def _vanished(flag: str, instead: str) -> Any:
    """A flag of former versions: whoever gives it is told what to do."""

    def refuse(value: str | None) -> None:
        if value is not None:
            exit_with(2, f"{flag} is no longer an option: {instead}")

    return typer.Option(flag, hidden=True, callback=refuse)


@app.command(epilog=examples_of("coordinator detection.timeout_s=10"))
def coordinator(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Policies, such as detection.timeout_s=10; values are YAML."),
    ] = None,
    port: Annotated[int, port_option("0: a free one.")] = 50051,
    host: Annotated[str, typer.Option(help="Listen here; loopback only, if not given.")] = "127.0.0.1",
    insecure: Insecure = False,
    policies: Annotated[Path | None, typer.Option(metavar="FILE", help="Take the policies of this YAML file.")] = None,
    seed: Annotated[int | None, seed_option("Of the chance that its policies draw; 0, if not given.")] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="SCENARIO", help="Take policies, seed and call timeout of this scenario; keys are its."),
    ] = None,
    call_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--call-timeout"),
            help="A call that is not answered for so long has failed; 2, if not given.",
        ),
    ] = None,
    decision_record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For `replay`: append every input and decision; restores nothing."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep tasks and results here, and go on with what is there; acknowledge what is on the disk.",
        ),
    ] = None,
    retention: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--retention"),
            help="Remember settled tasks for so long, as long as they take no more than 512 MiB.",
        ),
    ] = DAY_S,
    dedup_ttl: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--dedup-ttl"),
            help="Remember those that were submitted with a key for so long: they are the last to make room.",
        ),
    ] = DAY_S,
    journal: Annotated[str | None, _vanished("--journal", "give --decision-record FILE")] = None,
    check: Annotated[bool, typer.Option(help="Prove the invariants while running; exit 70 when one fails.")] = False,
    max_unsettled: Annotated[
        int,
        typer.Option(
            callback=whole("--max-unsettled", 1, UNSETTLED_MAX, f"a coordinator holds 1 to {UNSETTLED_MAX:,} tasks"),
            help="Hold no more unsettled tasks than this; the others wait at their clients.",
        ),
    ] = 200_000,
    max_waiting: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=whole("--max-waiting", 1, UNSETTLED_MAX, f"1 to {UNSETTLED_MAX:,} tasks may wait"),
            help="Refuse submissions while so many tasks wait (low priority: half as many), RESOURCE_EXHAUSTED.",
        ),
    ] = None,
    replication: Annotated[
        int,
        typer.Option(
            hidden=True,
            callback=whole("--replication", 0, 1_000_000, "a replication is 0 to 1,000,000"),
            help="Whose random streams its policies draw.",
        ),
    ] = 0,
    quiet: Quiet = False,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
) -> None:
    """Run a coordinator, until SIGTERM or SIGINT. Exit 70: a policy failed, or the coordinator itself."""
    _begin_process(quiet, die_with)
    from orchestrator.cluster.decision_record import Unwritable
    from orchestrator.cluster.limits import Limits
    from orchestrator.cluster.store import SqliteStore, Unusable

    host = listening(host, insecure, "submit tasks and read results")
    decided = decided_by(policies, scenario, overrides or [], seed, call_timeout, max_waiting)
    require_times(decided)
    limits = Limits(unsettled=max_unsettled, settled_s=retention, keyed_s=dedup_ttl)
    try:
        store = SqliteStore(data) if data else None
        running = _coordinate(decided, replication, host, port, limits, decision_record, store, check, ready_fd)
        status = asyncio.run(running)
    except (Unwritable, Unusable) as error:
        exit_with(2, str(error))
    except OSError as error:
        exit_with(1, str(error))
    raise typer.Exit(status)


async def _coordinate(
    decided: Decided,
    replication: int,
    host: str,
    port: int,
    limits: Any,
    record_at: Path | None,
    store: Any,
    check: bool,
    ready_fd: int | None,
) -> int:
    import signal

    from orchestrator.cluster.coordinator import LiveCoordinator, log
    from orchestrator.cluster.decision_record import DecisionRecord
    from orchestrator.cluster.durability import Durability, at_once
    from orchestrator.cluster.services import log_metrics, start
    from orchestrator.cluster.wire.rpc import last_turns
    from orchestrator.policies.settings import KEEP_SETTLED_BYTES, build_coordinator

    policies, seed, call_timeout_s, max_waiting = decided
    term = time.time_ns() // 1_000_000
    durable = None
    if store is not None:
        term = store.begin_term(term)
        durable = Durability(store, term, limits.settled_s, KEEP_SETTLED_BYTES, limits.keyed_s)
    built: dict[str, Any] = {
        "term": term,
        "call_timeout_s": call_timeout_s,
        "keep_settled": math.inf,
        "keep_settled_s": limits.settled_s,
        "keep_settled_bytes": KEEP_SETTLED_BYTES,
        "keep_keyed_s": limits.keyed_s,
        **({} if max_waiting is None else {"max_waiting": max_waiting}),
    }
    record = DecisionRecord(record_at, policies, seed, replication, **built) if record_at else None

    def build(effects: Effects) -> Coordinator:
        return build_coordinator(policies, durable.noting(effects) if durable else effects, seed, replication, **built)

    live = LiveCoordinator(
        build,
        call_timeout_s=call_timeout_s,
        contract_timeout_s=decided.contract_timeout_s,
        limits=limits,
        record=record,
        check=check,
        release=durable.release if durable else at_once,
    )
    if durable is not None:
        _recover(live, durable, term)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server, bound = await start(live, host, port)
    log.info("listening on %s:%d", host, bound)
    if durable is None:
        log.info("nothing is kept when this process ends: --data DIR keeps tasks and results")
    _tell(ready_fd, f"{host}:{bound}")
    metrics = asyncio.create_task(log_metrics(live))
    stopping: asyncio.Future[Any] = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([stopping, live.failed], return_when=asyncio.FIRST_COMPLETED)
        return 70 if live.failed.done() else 0
    finally:
        metrics.cancel()
        stopping.cancel()
        live.close()
        if durable is not None:
            await durable.close()
        else:
            _tell_what_is_lost(live)
        if live.failed.done():
            await asyncio.sleep(PARTING_S)
        await server.stop(0.1)
        await last_turns()
        if record:
            record.close()


def _recover(live: LiveCoordinator, durable: Durability, term: int) -> None:
    """Raises Unusable."""
    import gc

    from orchestrator.cluster.coordinator import log

    begin = time.perf_counter()
    durable.driver = live
    gc.disable()  # nothing of a million records is garbage, and to look for some takes as long as to read them
    try:
        live.recover(durable.recovered(live.now()))
    finally:
        gc.enable()
    core = live.core
    settled = core.completed + core.failed
    live.window.groups = durable.groups
    durable.groups.recovery_s = time.perf_counter() - begin
    told = term, core.submitted - settled, settled, durable.groups.recovery_s
    log.info("term %d: %d tasks in hand and %d settled ones are as they were, read in %.2f s", *told)


def _tell_what_is_lost(live: LiveCoordinator) -> None:
    from orchestrator.cluster.coordinator import log

    core = live.core
    in_hand = core.submitted - core.completed - core.failed
    if in_hand:
        log.warning("stopped with %d tasks in hand: they are lost, unless their clients submit them again", in_hand)


@app.command(epilog=examples_of("worker --capacity 4"))
def worker(
    address: Address = "localhost:50051",
    port: Annotated[int, port_option("Listen here, where the coordinator offers no streams; 0: a free one.")] = 50052,
    host: Annotated[str, typer.Option(help="And on this interface; loopback only, if not given.")] = "127.0.0.1",
    insecure: Insecure = False,
    advertise: Advertised = None,
    ids: Ids = None,
    capacity: Capacity = 2,
    prefetch: Prefetch = 0,
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
        _vanished("--heartbeat", "the coordinator tells its workers, so give it detection.heartbeat_s=SECONDS"),
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
        _vanished("--rpc-timeout", "the coordinator tells its workers, so give it --call-timeout SECONDS"),
    ] = None,
    drain_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--drain-timeout"),
            help="Drain for so long at most, then stop what runs and leave.",
        ),
    ] = None,
    contract: Annotated[bool, typer.Option(help="Do not try streams.")] = False,
    quiet: Quiet = False,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
    control_fd: Annotated[int | None, descriptor_option("--control-fd", "Hear lines of JSON from here.")] = None,
) -> None:
    """Run a worker. SIGTERM and SIGINT drain it, a second one stops it at once."""
    _begin_process(quiet, die_with)
    from orchestrator.cluster.wire.rpc import precise_loop
    from orchestrator.cluster.worker import Settings
    from orchestrator.cluster.worker_process import run_workers

    host = listening(host, insecure, "give it tasks to run")
    names = ids or [f"worker-{secrets.token_hex(4)}"]
    if beat_phase and len(beat_phase) != len(names):
        exit_with(2, f"--beat-phase is given {len(beat_phase)} times for {len(names)} workers")
    if speed != 1 and (executor is Executor.thread or (executor is Executor.process and speed > 1)):
        exit_with(2, f"--speed {speed:g} cannot be had with --executor {executor}")
    settings = Settings(
        coordinator=address,
        capacity=capacity,
        prefetch=prefetch,
        executor=executor.value,
        speed=speed,
        beat_phase_s=dict(zip(names, beat_phase or (), strict=False)),
        listen_host=host,
        address=f"{advertise or _reachable(host)}:{port if len(names) == 1 else 0}",
    )
    with asyncio.Runner(loop_factory=precise_loop if executor is Executor.inline else None) as runner:
        running = run_workers(names, settings, lambda: _tell(ready_fd, "ready"), contract, control_fd, drain_timeout)
        raise typer.Exit(runner.run(running))


@app.command(hidden=True)
def relay(
    address: Address = "localhost:50051",
    seed: Annotated[int, seed_option("Of its chance.")] = 0,
    call_timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", callback=seconds("--call-timeout"), help="After which a lost message is sent again."
        ),
    ] = CALL_TIMEOUT_S,
    control_fd: Annotated[
        int | None, descriptor_option("--control-fd", "Lines of JSON come here: the network as it is now.")
    ] = None,
    quiet: Quiet = False,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
) -> None:
    """Stand between workers and a coordinator as a bad network, until SIGTERM or SIGINT."""
    _begin_process(quiet, die_with)
    from orchestrator.cluster.wire.rpc import precise_loop
    from orchestrator.rehearsal.relay import run_relay

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(run_relay(address, seed, call_timeout, control_fd, lambda at: _tell(ready_fd, at)))


@app.command(epilog=examples_of("live worker-crash.yaml --out out/live", "replay out/live"))
def replay(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A live run's folder, or a decision record.")],
    as_json: AsJson = False,
) -> None:
    """Decide again what each coordinator of a decision record decided, and say where the decisions differ."""
    from orchestrator.cluster import decision_record

    sys.path.extend({os.getcwd()}.difference(sys.path))  # for policies of the user's own, behind everything else
    told = []
    try:
        for same, sentence in decision_record.told(path / decision_record.NAME if path.is_dir() else path):
            told.append({"same": same, "told": sentence})
            if not as_json:
                print(sentence)
    except OSError as error:
        exit_with(2, f"{error.filename}: {error.strerror}")
    except ValueError as error:
        exit_with(2, str(error))
    if as_json:
        print_json(told)
    raise typer.Exit(0 if all(one["same"] for one in told) else 1)


def _begin_process(quiet: bool, die_with: int | None) -> None:
    if die_with is not None:
        from orchestrator.cluster import tasks

        tasks.die_with(die_with)
    logging.basicConfig(
        level=logging.WARNING if quiet else logging.INFO,
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def _reachable(host: str) -> str:
    """A name of this host that others can use, where it listens for others at all."""
    import socket

    return socket.getfqdn() if host in ("0.0.0.0", "::", "[::]") else host


def _tell(descriptor: int | None, line: str) -> None:
    if descriptor is not None:
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)


if __name__ == "__main__":
    app()
