"""Commands that talk to a running coordinator: submit tasks, ask for them, cancel them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.addresses import BATCH_MAX, Address, TaskId, TaskIds, exit_with, seconds, whole
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.client import AsyncClient, NewTask, Submission
    from orchestrator.cluster.figures import Metrics
    from orchestrator.cluster.wire.translate import Outcome

app = typer.Typer()

WATCH_S = (1.5, 10.0, 600.0)
"""Until `submit` says what it waits for, until it says so again, and at most, twice as long each time."""


@app.command(epilog=examples_of("submit --batch 500", "submit --kind sleep --payload 0.5 --timeout 60"))
def submit(
    address: Address = "localhost:50051",
    payload: Annotated[str | None, typer.Option(help="An integer to test, if --kind is not given.")] = None,
    priority: Annotated[
        int,
        typer.Option(
            callback=whole("--priority", 0, 3, "a priority is 0 to 3"), help="0 low, 1 normal, 2 high, 3 urgent."
        ),
    ] = 1,
    batch: Annotated[
        int,
        typer.Option(
            metavar="N",
            callback=whole("--batch", 1, BATCH_MAX, f"a batch has 1 to {BATCH_MAX:,} tasks"),
            help="So many tasks.",
        ),
    ] = 1,
    random_priority: Annotated[bool, typer.Option("--random-priority", help="A random one for each.")] = False,
    kind: Annotated[str, typer.Option(help="prime, sleep or spin (seconds).")] = "",
    key: Annotated[
        str, typer.Option(metavar="KEY", help="Submitted again with it, it is the same task, and executed once.")
    ] = "",
    queue_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", callback=seconds("--queue-timeout"), help="Fail, if not begun so long after acceptance."
        ),
    ] = None,
    execution_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--execution-timeout"),
            help="Give an attempt up that runs for so long; the coordinator's limit, if not given.",
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", callback=seconds("--deadline"), help="Fail, if not settled so long after acceptance."
        ),
    ] = None,
    give_up_after: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--give-up-after"),
            help="Submit what a full coordinator refuses again for so long; for ever, if not given.",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=seconds("--timeout"),
            help="Wait no longer, and exit 1; what the coordinator has taken goes on.",
        ),
    ] = None,
    contract: Annotated[bool, typer.Option(help="Do not try streams.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit tasks and wait for them; a batch without a payload draws its own numbers."""
    from orchestrator.cluster.client import NewTask
    from orchestrator.cluster.submissions import checked

    if payload is None and (batch == 1 or kind):
        exit_with(2, "--payload is missing")
    if key and batch > 1:
        exit_with(2, f"--key {key} names one task, and --batch {batch} are several")
    try:
        tasks = [
            checked(
                NewTask(
                    _some_number() if payload is None else payload,
                    random.randrange(4) if random_priority else priority,
                    kind,
                    key,
                    queue_timeout,
                    execution_timeout,
                    deadline,
                )
            )
            for _ in range(batch)
        ]
    except ValueError as error:
        exit_with(2, str(error))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    raise typer.Exit(_run(_submit(_client(address, contract, give_up_after), tasks, timeout, as_json)))


@app.command(epilog=examples_of("status --id TASK"))
def status(id: TaskId, address: Address = "localhost:50051", as_json: AsJson = False) -> None:
    """Print what became of a task."""

    async def ask() -> Outcome:
        async with _client(address) as client:
            return await client.status(id)

    try:
        outcome = _run(ask())
    except KeyError:
        exit_with(1, f"no task {id}")
    _print_outcome(outcome, {"id": id} if as_json else None)


@app.command(epilog=examples_of("cancel TASK"))
def cancel(ids: TaskIds, address: Address = "localhost:50051", as_json: AsJson = False) -> None:
    """Cancel tasks, wherever they are. A settled one stays as it is; exit 1, if one is unknown."""

    async def ask() -> list[Outcome | None]:
        async with _client(address) as client:
            outcomes: list[Outcome | None] = []
            for task_id in ids:
                try:
                    outcomes.append(await client.cancel(task_id))
                except KeyError:
                    outcomes.append(None)
            return outcomes

    outcomes = _run(ask())
    if as_json:
        pairs = zip(ids, outcomes, strict=True)
        print_json([{"id": task_id, **(_told(outcome) if outcome else {"state": None})} for task_id, outcome in pairs])
    for task_id, outcome in zip(ids, outcomes, strict=True):
        if outcome is None:
            print(f"no task {task_id}", file=sys.stderr)
        elif not as_json:
            print(f"{task_id}: {outcome.state.name}{f', {outcome.error}' if outcome.error else ''}")
    raise typer.Exit(1 if None in outcomes else 0)


@app.command(epilog=examples_of("metrics", "metrics --json"))
def metrics(address: Address = "localhost:50051", as_json: AsJson = False) -> None:
    """Print the coordinator's metrics: rates are of the last seconds, percentiles of the last tasks.

    A failed task is slower than every one that completed: a percentile that falls on one is not known, but longer than
    its age. Tasks wait at the coordinator (queue_depth) or at workers that hold them already. Commits are groups of
    changes that are stored, unknown without --data.
    """
    from orchestrator.cluster.metrics import told_ms

    async def ask() -> Metrics:
        async with _client(address) as client:
            return await client.metrics()

    told: Metrics = _run(ask())
    facts = _facts(told)
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name.endswith("_at_least_ms"):
            continue
        if name.startswith("latency_"):
            shown = told_ms(value, facts[name.replace("_ms", "_at_least_ms")], 3)
        else:
            shown = "unknown" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        print(f"{name}: {shown}")


def _facts(told: Metrics) -> dict[str, float | None]:
    """Each metric by a name of its own."""
    facts: dict[str, float | None] = {"throughput_per_s": told.throughput_per_s, "failed_per_s": told.failed_per_s}
    for name, percentiles_ms in (
        ("latency_{}_ms", told.latency_ms),
        ("latency_{}_at_least_ms", told.latency_at_least_ms),
        ("execution_{}_ms", told.execution_ms),
    ):
        facts |= {name.format(percent): getattr(percentiles_ms, percent, None) for percent in ("p50", "p95", "p99")}
    counts = told._fields[told._fields.index("queue_depth") : told._fields.index("commits")]
    facts |= {name: getattr(told, name) for name in counts}
    per_s, tasks_each, latency_ms, recovery_s = told.commits or (None, None, None, None)
    facts |= {"commits_per_s": per_s, "tasks_per_commit": tasks_each}
    facts |= {f"commit_{percent}_ms": getattr(latency_ms, percent, None) for percent in ("p50", "p95", "p99")}
    return facts | {"recovery_s": recovery_s}


async def _submit(client: AsyncClient, tasks: list[NewTask], timeout_s: float | None, as_json: bool) -> int:
    async with client:
        begin = time.perf_counter()
        submissions = client.submit_batch(tasks)
        watching = asyncio.create_task(_say_what_is_waited_for(client))
        try:
            async with asyncio.timeout(timeout_s):
                if len(submissions) == 1:
                    return await _follow(submissions[0], as_json)
                outcomes = [outcome async for _, outcome in client.results(submissions)]
        except TimeoutError:
            print(_given_up(client.address, submissions, timeout_s), file=sys.stderr)
            return 1
        finally:
            watching.cancel()
        total_s = time.perf_counter() - begin
    failed = sum(outcome.state.name == "FAILED" for outcome in outcomes)
    latencies = [outcome.latency_s * 1000 for outcome in outcomes]
    if as_json:
        print_json({"total_s": total_s, "tasks": [_told(outcome) for outcome in outcomes]})
        return 1 if failed else 0
    print(f"submitted: {len(outcomes)}")
    print(f"completed: {len(outcomes) - failed}")
    print(f"failed: {failed}")
    print(f"total time: {total_s:.3f} s")
    print(
        f"latency: average {sum(latencies) / len(latencies):.1f} ms, "
        f"min {min(latencies):.1f} ms, max {max(latencies):.1f} ms"
    )
    return 1 if failed else 0


async def _follow(submission: Submission, as_json: bool) -> int:
    # Shielded: whoever stops waiting here does not cancel the task.
    task_id = await asyncio.shield(submission.id)
    if not as_json:
        print(f"id: {task_id}", flush=True)
    outcome = await asyncio.shield(submission.outcome)
    _print_outcome(outcome, {"id": task_id} if as_json else None)
    return 1 if outcome.state.name == "FAILED" else 0


async def _say_what_is_waited_for(client: AsyncClient) -> None:
    """Where that is a worker; a coordinator that can't be reached is the client's to tell."""
    import grpc.aio

    pause_s, next_s, most_s = WATCH_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s, next_s = next_s, min(most_s, 2 * next_s)
        with contextlib.suppress(grpc.aio.AioRpcError):
            if not (await client.metrics()).alive_workers:
                print(f"waiting for a worker: the coordinator at {client.address} has none", file=sys.stderr)


def _given_up(address: str, submissions: Sequence[Submission], timeout_s: float | None) -> str:
    if not any(submission.id.done() for submission in submissions):
        return f"no coordinator at {address} has taken a task within {timeout_s:g} s"
    waiting = sum(not submission.outcome.done() for submission in submissions)
    return f"not settled within {timeout_s:g} s: {waiting} of {len(submissions)}; what the coordinator has goes on"


def _told(outcome: Outcome) -> dict[str, Any]:
    """For a program; what an unsettled task does not have is null."""
    settled = outcome.settled
    return {
        "state": outcome.state.name,
        "result": outcome.result if settled and not outcome.error else None,
        "error": outcome.error or None,
        "latency_s": outcome.latency_s if settled else None,
    }


def _print_outcome(outcome: Outcome, beside: dict[str, Any] | None = None) -> None:
    """As JSON, if there is something to stand beside it."""
    if beside is not None:
        print_json(beside | _told(outcome))
        return
    print(f"state: {outcome.state.name}")
    if outcome.settled:
        print(f"error: {outcome.error}" if outcome.error else f"result: {outcome.result}")
        print(f"latency: {outcome.latency_s * 1000:.1f} ms")


def _client(address: str, contract: bool = False, give_up_after_s: float | None = None) -> AsyncClient:
    from orchestrator.cluster.client import AsyncClient

    return AsyncClient(address, contract=contract, give_up_after_s=give_up_after_s)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Exits with a sentence where the coordinator cannot be asked."""
    import grpc.aio

    from orchestrator.cluster.client import CoordinatorStopped, Overloaded, TaskRefused, Unanswered

    try:
        return asyncio.run(coroutine)
    except Overloaded as error:
        exit_with(1, f"given up: {error}")
    except (CoordinatorStopped, Unanswered) as error:
        exit_with(1, str(error))
    except grpc.aio.AioRpcError as error:
        exit_with(1, f"{error.code().name}: {error.details()}")
    except TaskRefused as error:
        exit_with(2, f"refused: {error}")
    except KeyboardInterrupt:
        exit_with(130, "interrupted")


def _some_number() -> str:
    """As the reference's client draws them: a quarter small, the rest of ten digits."""
    return str(random.randint(2, 10_000) if random.random() < 0.25 else random.randint(10**9, 10**10 - 1))
