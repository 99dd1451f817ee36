"""Commands that have a running coordinator do work: submit tasks, wait for them, cancel them; and its metrics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.addresses import BATCH_MAX, Address, TaskIds, exit_with, seconds, whole
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.connecting import asking, client_of, facts_of, print_outcome, run, told_of
from orchestrator.cli.submitting import (
    KindArgument,
    Numbered,
    TakesArguments,
    line_of,
    one_of,
    submit_lines,
    submit_without_waiting,
    tasks_of,
)
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.client import AsyncClient, NewTask, Submission
    from orchestrator.cluster.figures import Metrics
    from orchestrator.cluster.wire.translate import Outcome

app = typer.Typer()

ASK_S = (0.02, 1.0)
"""Between two looks whether a task is settled, at first and at most."""
WATCH_S = (1.5, 10.0, 600.0)
"""Until `submit` says what it waits for, until it says so again, and at most, twice as long each time."""


@app.command(
    cls=TakesArguments,
    epilog=examples_of(
        "submit greet --json '[\"Ada\"]'",
        "submit --file tasks.jsonl",
        "submit --kind sleep --payload 0.5 --timeout 60",
        "submit --batch 500",
    ),
)
def submit(
    own_kind: Annotated[str | None, KindArgument] = None,
    arguments: Annotated[
        str | None,
        typer.Option(
            "--args",
            metavar="JSON",
            help="Its arguments: an object by name, an array by position; --json '{...}' is the same.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='A task in each line: arguments of KIND, or {"kind": ..., "args": ...}; prints results as lines.',
        ),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the ids once the coordinator has them.")] = False,
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

    if own_kind is not None or file is not None or arguments is not None:
        for flag, given in (("--kind", kind), ("--payload", payload is not None), ("--batch", batch != 1)):
            if given:
                exit_with(2, f"{flag} can't be had with a KIND, --args or --file: those are for tasks of an App")
        like = NewTask("", priority, own_kind or "", key, queue_timeout, execution_timeout, deadline)
        if file is None:
            numbered = [one_of(arguments, like)]
        elif arguments is not None or key:
            flag = "--key" if arguments is None else "--args"
            exit_with(2, f"{flag} and --file are both given: lines have their own")
        else:
            numbered = tasks_of(file, like)
        client = client_of(address, contract, give_up_after)
        raise typer.Exit(run(_submit_own(client, numbered, timeout, no_wait, file is not None, as_json)))
    if no_wait:
        exit_with(2, "--no-wait is for tasks of an App: give a KIND or --file")
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
    raise typer.Exit(run(_submit(client_of(address, contract, give_up_after), tasks, timeout, as_json)))


@app.command(epilog=examples_of("cancel TASK"))
def cancel(ids: TaskIds, address: Address = "localhost:50051", as_json: AsJson = False) -> None:
    """Cancel tasks, wherever they are. A settled one stays as it is; exit 1, if one is unknown."""

    async def ask() -> list[Outcome | None]:
        async with asking(address) as client:
            outcomes: list[Outcome | None] = []
            for task_id in ids:
                try:
                    outcomes.append(await client.cancel(task_id))
                except KeyError:
                    outcomes.append(None)
            return outcomes

    outcomes = run(ask())
    if as_json:
        pairs = zip(ids, outcomes, strict=True)
        print_json(
            [{"id": task_id, **(told_of(outcome) if outcome else {"state": None})} for task_id, outcome in pairs]
        )
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
        async with asking(address) as client:
            return await client.metrics()

    told: Metrics = run(ask())
    facts = facts_of(told)
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
        print_json({"total_s": total_s, "tasks": [told_of(outcome) for outcome in outcomes]})
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


async def _submit_own(
    client: AsyncClient,
    numbered: list[Numbered],
    timeout_s: float | None,
    no_wait: bool,
    as_lines: bool,
    as_json: bool,
) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    async with client:
        watching = asyncio.create_task(_say_what_is_waited_for(client))
        try:
            async with asyncio.timeout(timeout_s):
                if no_wait:
                    return await submit_without_waiting(client, numbered, as_lines or as_json)
                if as_lines:
                    return await submit_lines(client, numbered)
                return await _follow_own(client.submit_batch([numbered[0].task])[0], as_json)
        except TimeoutError:
            print(f"not settled within {timeout_s:g} s; what the coordinator has goes on", file=sys.stderr)
            return 1
        finally:
            watching.cancel()


async def _follow_own(submission: Submission, as_json: bool) -> int:
    """Its id on stderr at once, its result on stdout."""
    task_id = await asyncio.shield(submission.id)
    if not as_json:
        print(f"id: {task_id}", file=sys.stderr, flush=True)
    return _tell_result(await asyncio.shield(submission.outcome), task_id, as_json)


def _tell_result(outcome: Outcome, task_id: str, as_json: bool) -> int:
    """A failure on stderr."""
    if as_json:
        print(line_of(1, task_id, outcome))
    elif outcome.error:
        print(outcome.error.rstrip(), file=sys.stderr)
    else:
        print(outcome.result)
    return 1 if outcome.state.name == "FAILED" else 0


@app.command(epilog=examples_of("result TASK", "result TASK --timeout 60"))
def result(
    id: Annotated[str, typer.Argument(metavar="TASK", help="The id that `submit` printed, or a key.")],
    address: Address = "localhost:50051",
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", callback=seconds("--timeout"), help="Wait no longer, and exit 1."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a task is settled, and print its result; exit 1, if it failed."""

    async def ask() -> Outcome:
        async with asking(address) as client, asyncio.timeout(timeout):
            for pause_s in _pauses():
                outcome = await client.status(id)
                if outcome.settled:
                    break
                await asyncio.sleep(pause_s)
            return outcome

    try:
        outcome = run(ask())
    except KeyError:
        exit_with(1, f"no task {id}")
    except TimeoutError:
        exit_with(1, f"task {id} is not settled within {timeout:g} s")
    raise typer.Exit(_tell_result(outcome, outcome.task_id or id, as_json))


def _pauses() -> Iterator[float]:
    pause_s, most_s = ASK_S
    while True:
        yield pause_s
        pause_s = min(most_s, 1.5 * pause_s)


async def _follow(submission: Submission, as_json: bool) -> int:
    # Shielded: whoever stops waiting here does not cancel the task.
    task_id = await asyncio.shield(submission.id)
    if not as_json:
        print(f"id: {task_id}", flush=True)
    outcome = await asyncio.shield(submission.outcome)
    print_outcome(outcome, {"id": task_id} if as_json else None)
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


def _some_number() -> str:
    """As the reference's client draws them: a quarter small, the rest of ten digits."""
    return str(random.randint(2, 10_000) if random.random() < 0.25 else random.randint(10**9, 10**10 - 1))
