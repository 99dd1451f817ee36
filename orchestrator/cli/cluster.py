"""The live cluster's part of the command line. What is heavy is imported by the command that needs it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import secrets
import sys
import time
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from orchestrator.cluster.client import AsyncClient, NewTask, Submission
    from orchestrator.cluster.wire.translate import Outcome
    from orchestrator.policies.settings import Policies

app = typer.Typer()

Address = Annotated[str, typer.Option("--coordinator", "-c", metavar="HOST:PORT", help="Where the coordinator is.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Log warnings only.")]
ReadyFd = Annotated[int | None, typer.Option(hidden=True, help="Write a line to this descriptor when ready.")]
DieWith = Annotated[int | None, typer.Option(hidden=True, help="Be killed when the parent of this id ends.")]
CALL_TIMEOUT_S = 2.0
CONTRACT_TIMEOUT_S = 3.0  # the reference's
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
            _exit(2, f"{flag} is no longer an option: {instead}")

    return typer.Option(flag, hidden=True, callback=refuse)


@app.command()
def coordinator(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Policies, such as detection.timeout_s=10; values are YAML."),
    ] = None,
    port: Annotated[int, typer.Option("--port", "-p", help="0: a free one.")] = 50051,
    host: Annotated[str, typer.Option(help="Listen here; loopback only, if not given.")] = "127.0.0.1",
    policies: Annotated[Path | None, typer.Option(metavar="FILE", help="Take the policies of this YAML file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the chance that its policies draw; 0, if not given.")] = None,
    scenario: Annotated[
        Path | None,
        typer.Option(metavar="SCENARIO", help="Take policies, seed and call timeout of this scenario; keys are its."),
    ] = None,
    call_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.001, metavar="SECONDS", help="A call that is not answered for so long has failed; 2, if not given."
        ),
    ] = None,
    decision_record: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For `replay`: append every input and decision; restores nothing."),
    ] = None,
    journal: Annotated[str | None, _vanished("--journal", "give --decision-record FILE")] = None,
    check: Annotated[bool, typer.Option(help="Prove the invariants while running; exit 70 when one fails.")] = False,
    max_unsettled: Annotated[int, typer.Option(min=1, help="Take no more tasks than this at a time.")] = 200_000,
    replication: Annotated[int, typer.Option(min=0, hidden=True, help="Whose random streams its policies draw.")] = 0,
    quiet: Quiet = False,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
) -> None:
    """Run a coordinator, until SIGTERM or SIGINT. Exit 70: a policy failed, or the coordinator itself."""
    _begin_process(quiet, die_with)
    from orchestrator.cluster.decision_record import Unwritable
    from orchestrator.cluster.limits import Limits

    decided = _decided_by(policies, scenario, overrides or [], seed, call_timeout)
    limits = Limits(unsettled=max_unsettled)
    try:
        status = asyncio.run(_coordinate(decided, replication, host, port, limits, decision_record, check, ready_fd))
    except Unwritable as error:
        _exit(2, str(error))
    except OSError as error:
        _exit(1, str(error))
    raise typer.Exit(status)


class _Decided(NamedTuple):
    """What a coordinator decides by, and how long its calls may take, in seconds."""

    policies: Policies
    seed: int
    call_timeout_s: float

    @property
    def contract_timeout_s(self) -> float | None:
        """Tasks of the wire contract have the reference's limit, unless the policies say anything of theirs."""
        return None if "execution_timeout_s" in self.policies.model_fields_set else CONTRACT_TIMEOUT_S


def _decided_by(
    file: Path | None, scenario: Path | None, overrides: list[str], seed: int | None, call_timeout_s: float | None
) -> _Decided:
    if scenario is None:
        from orchestrator.cli.given_policies import SettingsError, read_policies

        try:
            policies = read_policies(file, overrides)
        except SettingsError as error:
            _exit(2, *error.problems)
        return _Decided(policies, seed or 0, call_timeout_s or CALL_TIMEOUT_S)
    if file is not None:
        _exit(2, "--policies and --scenario are both given: a scenario has policies of its own")
    from orchestrator.scenario.schema import Scenario, ScenarioError

    try:
        loaded = Scenario.load(scenario, overrides)
    except ScenarioError as error:
        _exit(2, *map(str, error.problems))
    return _Decided(
        loaded.policies,
        loaded.seed if seed is None else seed,
        call_timeout_s or loaded.network.rpc_timeout_s,
    )


async def _coordinate(
    decided: _Decided,
    replication: int,
    host: str,
    port: int,
    limits: Any,
    record_at: Path | None,
    check: bool,
    ready_fd: int | None,
) -> int:
    import signal

    from orchestrator.cluster.coordinator import LiveCoordinator, log
    from orchestrator.cluster.decision_record import DecisionRecord
    from orchestrator.cluster.services import log_metrics, start
    from orchestrator.policies.settings import KEEP_SETTLED_BYTES, KEEP_SETTLED_S, build_coordinator

    policies, seed, call_timeout_s = decided
    term = time.time_ns() // 1_000_000
    built: dict[str, Any] = {
        "term": term,
        "call_timeout_s": call_timeout_s,
        "keep_settled": math.inf,
        "keep_settled_s": KEEP_SETTLED_S,
        "keep_settled_bytes": KEEP_SETTLED_BYTES,
    }
    record = DecisionRecord(record_at, policies, seed, replication, **built) if record_at else None
    live = LiveCoordinator(
        lambda effects: build_coordinator(policies, effects, seed, replication, **built),
        call_timeout_s=call_timeout_s,
        contract_timeout_s=decided.contract_timeout_s,
        limits=limits,
        record=record,
        check=check,
    )
    server, bound = await start(live, host, port)
    log.info("listening on %s:%d", host, bound)
    _tell(ready_fd, f"{host}:{bound}")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    metrics = asyncio.create_task(log_metrics(live))
    stopping = asyncio.create_task(stopped.wait())
    try:
        waiting: list[asyncio.Future[Any]] = [stopping, live.failed]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        return 70 if live.failed.done() else 0
    finally:
        metrics.cancel()
        live.close()
        if live.failed.done():
            await asyncio.sleep(PARTING_S)
        await server.stop(0.1)
        if record:
            record.close()


@app.command()
def worker(
    address: Address = "localhost:50051",
    port: Annotated[
        int, typer.Option("--port", "-p", help="Listen here, where the coordinator offers no streams; 0: a free one.")
    ] = 50052,
    host: Annotated[str, typer.Option(help="And on this interface; loopback only, if not given.")] = "127.0.0.1",
    advertise: Annotated[
        str | None, typer.Option(metavar="HOST", help="The name by which such a coordinator reaches this host.")
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Name; given several times, as many workers share this process.")
    ] = None,
    capacity: Annotated[int, typer.Option(min=1, help="Tasks that it executes at a time.")] = 2,
    prefetch: Annotated[int, typer.Option(help="Tasks that it holds beyond those; -1: any number.")] = 0,
    executor: Annotated[
        Executor, typer.Option(help="Where tasks run; inline: on the event loop, for tasks that only sleep.")
    ] = Executor.process,
    speed: Annotated[float, typer.Option(min=0, help="Do the work at this share of the usual speed.")] = 1.0,
    heartbeat: Annotated[
        str | None,
        _vanished("--heartbeat", "the coordinator tells its workers, so give it detection.heartbeat_s=SECONDS"),
    ] = None,
    beat_phase: Annotated[
        list[float] | None,
        typer.Option(metavar="SECONDS", help="Beat at times that leave this remainder; one for each --id."),
    ] = None,
    rpc_timeout: Annotated[
        str | None,
        _vanished("--rpc-timeout", "the coordinator tells its workers, so give it --call-timeout SECONDS"),
    ] = None,
    contract: Annotated[bool, typer.Option(help="Do not try streams.")] = False,
    quiet: Quiet = False,
    ready_fd: ReadyFd = None,
    die_with: DieWith = None,
    control_fd: Annotated[int | None, typer.Option(hidden=True, help="Hear lines of JSON from here.")] = None,
) -> None:
    """Run a worker. SIGTERM and SIGINT drain it, a second one stops it at once."""
    _begin_process(quiet, die_with)
    from orchestrator.cluster.wire.rpc import precise_loop
    from orchestrator.cluster.worker import Settings
    from orchestrator.cluster.worker_process import run_workers

    names = ids or [f"worker-{secrets.token_hex(4)}"]
    if beat_phase and len(beat_phase) != len(names):
        _exit(2, f"--beat-phase is given {len(beat_phase)} times for {len(names)} workers")
    if speed != 1 and (executor is Executor.thread or (executor is Executor.process and speed > 1)):
        _exit(2, f"--speed {speed:g} cannot be had with --executor {executor}")
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
        running = run_workers(names, settings, lambda: _tell(ready_fd, "ready"), contract, control_fd)
        raise typer.Exit(runner.run(running))


@app.command(hidden=True)
def relay(
    address: Address = "localhost:50051",
    seed: Annotated[int, typer.Option(help="Of its chance.")] = 0,
    call_timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="After which a lost message is sent again.")
    ] = CALL_TIMEOUT_S,
    control_fd: Annotated[int | None, typer.Option(help="Lines of JSON come here: the network as it is now.")] = None,
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


@app.command()
def submit(
    address: Address = "localhost:50051",
    payload: Annotated[str | None, typer.Option(help="An integer to test, if --kind is not given.")] = None,
    priority: Annotated[int, typer.Option(min=0, max=3, help="0 low, 1 normal, 2 high, 3 urgent.")] = 1,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="So many tasks.")] = 1,
    random_priority: Annotated[bool, typer.Option("--random-priority", help="A random one for each.")] = False,
    kind: Annotated[str, typer.Option(help="prime, sleep or spin (seconds).")] = "",
    contract: Annotated[bool, typer.Option(help="Do not try streams.")] = False,
) -> None:
    """Submit tasks and wait for them; a batch without a payload draws its own numbers."""
    from orchestrator.cluster.client import NewTask

    if payload is None and (batch == 1 or kind):
        _exit(2, "--payload is missing")
    tasks = [
        NewTask(
            _some_number() if payload is None else payload,
            random.randrange(4) if random_priority else priority,
            kind,
        )
        for _ in range(batch)
    ]
    raise typer.Exit(_run(_submit(address, contract, tasks)))


@app.command()
def status(
    id: Annotated[str, typer.Option(metavar="TASK", help="The id that `submit` printed.")],
    address: Address = "localhost:50051",
) -> None:
    """Print what became of a task."""

    async def ask() -> Outcome:
        async with _client(address) as client:
            return await client.status(id)

    try:
        outcome = _run(ask())
    except KeyError:
        _exit(1, f"no task {id}")
    _print_outcome(outcome)


@app.command()
def metrics(address: Address = "localhost:50051") -> None:
    """Print the coordinator's metrics."""

    async def ask() -> Any:
        async with _client(address) as client:
            return await client.metrics()

    for name, value in _run(ask())._asdict().items():
        print(f"{name}: {value:.1f}" if isinstance(value, float) else f"{name}: {value}")


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(metavar="DIR", help="A live run's folder, or a decision record.")],
) -> None:
    """Decide again what each coordinator of a decision record decided, and say where the decisions differ."""
    from orchestrator.cluster import decision_record

    sys.path.extend({os.getcwd()}.difference(sys.path))  # for policies of the user's own, behind everything else
    all_same = True
    try:
        for same, sentence in decision_record.told(path / decision_record.NAME if path.is_dir() else path):
            print(sentence)
            all_same = all_same and same
    except OSError as error:
        _exit(2, f"{error.filename}: {error.strerror}")
    except ValueError as error:
        _exit(2, str(error))
    raise typer.Exit(0 if all_same else 1)


async def _submit(address: str, contract: bool, tasks: list[NewTask]) -> int:
    async with _client(address, contract) as client:
        begin = time.perf_counter()
        submissions = client.submit_batch(tasks)
        if len(submissions) == 1:
            return await _follow(submissions[0])
        outcomes = [outcome async for _, outcome in client.results(submissions)]
        total_s = time.perf_counter() - begin
    failed = sum(outcome.state.name == "FAILED" for outcome in outcomes)
    latencies = [outcome.latency_s * 1000 for outcome in outcomes]
    print(f"submitted: {len(outcomes)}")
    print(f"completed: {len(outcomes) - failed}")
    print(f"failed: {failed}")
    print(f"total time: {total_s:.3f} s")
    print(
        f"latency: average {sum(latencies) / len(latencies):.1f} ms, "
        f"min {min(latencies):.1f} ms, max {max(latencies):.1f} ms"
    )
    return 1 if failed else 0


async def _follow(submission: Submission) -> int:
    print(f"id: {await submission.id}", flush=True)
    outcome = await submission
    _print_outcome(outcome)
    return 1 if outcome.state.name == "FAILED" else 0


def _print_outcome(outcome: Outcome) -> None:
    print(f"state: {outcome.state.name}")
    if outcome.settled:
        print(f"error: {outcome.error}" if outcome.error else f"result: {outcome.result}")
        print(f"latency: {outcome.latency_s * 1000:.1f} ms")


def _client(address: str, contract: bool = False) -> AsyncClient:
    from orchestrator.cluster.client import AsyncClient

    return AsyncClient(address, contract=contract)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Exits with a sentence where the coordinator cannot be asked."""
    import grpc.aio

    from orchestrator.cluster.client import CoordinatorStopped, TaskRefused

    try:
        return asyncio.run(coroutine)
    except CoordinatorStopped as error:
        _exit(1, str(error))
    except grpc.aio.AioRpcError as error:
        _exit(1, f"{error.code().name}: {error.details()}")
    except TaskRefused as error:
        _exit(2, f"refused: {error}")
    except KeyboardInterrupt:
        _exit(130, "interrupted")


def _some_number() -> str:
    """As the reference's client draws them: a quarter small, the rest of ten digits."""
    return str(random.randint(2, 10_000) if random.random() < 0.25 else random.randint(10**9, 10**10 - 1))


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


def _exit(status: int, *lines: str) -> Any:
    for line in lines:
        print(line, file=sys.stderr)
    raise typer.Exit(status)


if __name__ == "__main__":
    app()
