"""The live cluster's part of the command line. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import asking, seeing, top, working
from orchestrator.cli.addresses import (
    UNSETTLED_MAX,
    Address,
    Insecure,
    MetricsAddress,
    address_of,
    descriptor_option,
    exit_with,
    listening,
    metrics_listener,
    port_option,
    seconds,
    seed_option,
    whole,
)
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.decided import CALL_TIMEOUT_S, Decided, decided_by, require_times
from orchestrator.cli.logs import LogFormat, LogFormatOption
from orchestrator.cli.processes import DieWith, Quiet, ReadyFd, begin_process, look_for_garbage_rarely, tell, vanished
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.coordinator import LiveCoordinator
    from orchestrator.cluster.durability import Durability
    from orchestrator.cluster.tally import Tally
    from orchestrator.core.coordinator import Coordinator
    from orchestrator.core.ports import Effects

app = typer.Typer()
app.add_typer(working.app)
app.add_typer(asking.app)
app.add_typer(seeing.app)
app.add_typer(top.app)

DAY_S = 24 * 3600.0
PARTING_S = 0.5
"""For how long a coordinator that a fault has stopped tells so to whoever asks."""


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
    metrics_address: MetricsAddress = None,
    journal: Annotated[str | None, vanished("--journal", "give --decision-record FILE")] = None,
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
    log_format: LogFormatOption = LogFormat.auto,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
) -> None:
    """Run a coordinator, until SIGTERM or SIGINT. Exit 70: a policy failed, or the coordinator itself."""
    begin_process(quiet, log_format, die_with)
    from orchestrator.cluster.decision_record import Unwritable
    from orchestrator.cluster.limits import Limits
    from orchestrator.cluster.store import Unusable
    from orchestrator.cluster.store_process import StoreProcess

    host = listening(host, insecure, "submit tasks and read results")
    decided = decided_by(policies, scenario, overrides or [], seed, call_timeout, max_waiting)
    require_times(decided)
    listener = metrics_listener(metrics_address, insecure) if metrics_address else None
    limits = Limits(unsettled=max_unsettled, settled_s=retention, keyed_s=dedup_ttl)
    try:
        store = StoreProcess(data) if data else None
        running = _coordinate(
            decided, replication, host, port, limits, decision_record, store, check, ready_fd, listener
        )
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
    listener: socket.socket | None,
) -> int:
    import signal

    from orchestrator.cluster.coordinator import LiveCoordinator, log
    from orchestrator.cluster.decision_record import DecisionRecord
    from orchestrator.cluster.durability import Durability, at_once
    from orchestrator.cluster.services import log_metrics, start
    from orchestrator.cluster.tally import Tally
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

    tally = Tally() if listener else None

    def build(effects: Effects) -> Coordinator:
        effects = tally.counting(effects) if tally else effects
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
    look_for_garbage_rarely()
    if durable is not None:
        _recover(live, durable, term)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    scraped = await _let_scrape(live, tally, listener) if tally and listener else None
    server, bound = await start(live, host, port)
    log.info("listening on %s:%d", host, bound, extra={"term": term})
    if durable is None:
        log.info("nothing is kept when this process ends: --data DIR keeps tasks and results")
    tell(ready_fd, f"{host}:{bound}")
    metrics = asyncio.create_task(log_metrics(live))
    stopping: asyncio.Future[Any] = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([stopping, live.failed], return_when=asyncio.FIRST_COMPLETED)
        return 70 if live.failed.done() else 0
    finally:
        metrics.cancel()
        stopping.cancel()
        if scraped is not None:
            scraped.close()
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
    log.info(
        "term %d: %d tasks in hand and %d settled ones are as they were, read in %.2f s", *told, extra={"term": term}
    )


async def _let_scrape(live: LiveCoordinator, tally: Tally, listener: socket.socket) -> asyncio.Server:
    from orchestrator import __version__
    from orchestrator.cluster.coordinator import log
    from orchestrator.cluster.scraping import PATH, serve

    tally.begin(live.core)
    server = await serve(live, tally, listener, __version__)
    log.info("metrics are at http://%s%s", address_of(listener), PATH)
    return server


def _tell_what_is_lost(live: LiveCoordinator) -> None:
    from orchestrator.cluster.coordinator import log

    core = live.core
    in_hand = core.submitted - core.completed - core.failed
    if in_hand:
        log.warning("stopped with %d tasks in hand: they are lost, unless their clients submit them again", in_hand)


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
    log_format: LogFormatOption = LogFormat.auto,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
) -> None:
    """Stand between workers and a coordinator as a bad network, until SIGTERM or SIGINT."""
    begin_process(quiet, log_format, die_with)
    from orchestrator.cluster.wire.rpc import precise_loop
    from orchestrator.rehearsal.relay import run_relay

    with asyncio.Runner(loop_factory=precise_loop) as runner:
        runner.run(run_relay(address, seed, call_timeout, control_fd, lambda at: tell(ready_fd, at)))


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


if __name__ == "__main__":
    app()
