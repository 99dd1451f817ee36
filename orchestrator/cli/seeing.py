"""Commands that look at a running cluster, and have a worker drain."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.addresses import Address, TaskIdArgument, TaskIdOption, WorkerName, exit_with, whole
from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.connecting import asking, json_of, one_line, print_outcome, run, told_of
from orchestrator.cli.terminal import age, count, print_json, print_table, say

if TYPE_CHECKING:
    from orchestrator.cluster.views import QueueView, Some, TaskDetail, TaskView, WorkerView
    from orchestrator.cluster.wire.translate import Outcome

app = typer.Typer()

LIMIT_MAX = 1000
TEXTS = ("kind", "priority", "state", "worker", "waits for", "error")
"""Columns of words in the table of tasks."""
SAY_S = (1.5, 10.0)
"""Until `drain` says what it waits for, and until it says so again."""


def limit_option(of: str) -> Any:
    check = whole("--limit", 1, LIMIT_MAX, f"1 to {LIMIT_MAX:,} {of} are shown")
    return typer.Option("--limit", "-n", metavar="N", callback=check, help=f"Show so many {of} at most.")


class State(StrEnum):
    """Of tasks."""

    pending = "pending"
    assigned = "assigned"
    running = "running"
    completed = "completed"
    failed = "failed"


@app.command(epilog=examples_of("workers", "workers --json"))
def workers(
    limit: Annotated[int, limit_option("workers")] = LIMIT_MAX,
    address: Address = "localhost:50051",
    as_json: AsJson = False,
) -> None:
    """Print the workers that have not left: what they do, and when they were heard last.

    Suspicion is the silence since then, as a share of the one after which the failure detector changes its verdict.
    """

    async def ask() -> Some[WorkerView]:
        async with asking(address) as client:
            return await client.workers(limit)

    found: Some[WorkerView] = run(ask())
    if as_json:
        print_json({"total": found.total, "workers": json_of(found)})
        return
    if not found:
        say("no worker is here")
        return
    print_table(_of_total(found, "worker"), WORKER_COLUMNS, map(worker_row, found), texts=("state", "remarks"))


WORKER_COLUMNS = ("", "state", "running", "waiting", "given up", "suspicion", "heard", "remarks")


def worker_row(worker: WorkerView) -> list[str]:
    return [
        worker.name,
        worker.state.name.lower(),
        f"{worker.running} of {worker.capacity}",
        str(worker.waiting),
        str(worker.given_up),
        "-" if worker.suspicion is None else f"{worker.suspicion:.0%}",
        "-" if worker.heard_s is None else f"{age(worker.heard_s)} ago",
        "; ".join(remarks(worker)) or "-",
    ]


def remarks(worker: WorkerView) -> Iterable[str]:
    if worker.draining:
        yield "drains"
    if worker.hindrance:
        yield worker.hindrance
    if not worker.streams:
        yield "unary contract"
    if worker.kinds:
        yield f"only {', '.join(worker.kinds)}"
    yield from worker.labels


@app.command(epilog=examples_of("tasks", "tasks --state running", "tasks --state failed --limit 5 --json"))
def tasks(
    state: Annotated[
        State | None, typer.Option("--state", "-s", help="Those in this state only; if not given, all unsettled ones.")
    ] = None,
    limit: Annotated[int, limit_option("tasks")] = 20,
    address: Address = "localhost:50051",
    as_json: AsJson = False,
) -> None:
    """Print tasks, where they are and for how long: the oldest first, of settled ones the newest."""

    async def ask() -> Some[TaskView]:
        async with asking(address) as client:
            return await client.tasks(state, limit)

    found: Some[TaskView] = run(ask())
    if as_json:
        print_json({"total": found.total, "tasks": json_of(found)})
        return
    if not found:
        say(f"no task is {state}" if state else "no task is in hand")
        return
    columns = ("", "kind", "priority", "state", "for", "attempts", "worker", "waits for")
    settled = state in (State.completed, State.failed)
    if settled:
        columns = ("", "kind", "priority", "state", "ago", "attempts", "worker", "error")
    rows = (
        [
            *(task.id, task.kind, _priority(task.priority), task.state.name, age(task.since_s)),
            *(str(task.attempts), task.worker or "-", (task.error if settled else task.waits_for) or "-"),
        ]
        for task in found
    )
    print_table(_of_total(found, "task"), columns, ([one_line(cell) for cell in row] for row in rows), texts=TEXTS)


@app.command(epilog=examples_of("queue", "queue --json"))
def queue(address: Address = "localhost:50051", as_json: AsJson = False) -> None:
    """Print what waits: by priority and kind, what no worker here can take and why, and what waits at workers."""

    async def ask() -> QueueView:
        async with asking(address) as client:
            return await client.queue()

    told: QueueView = run(ask())
    if as_json:
        print_json(json_of(told))
        return
    retries = f", {told.retries:,} of them for the next try" if told.retries else ""
    say(f"{count(told.tasks, 'task')} at the coordinator{retries}; {told.held_tasks:,} held by workers, and not begun")
    if told.classes:
        print()
        rows = [
            [one_line(_class(each.priority, each.kind)), f"{each.tasks:,}", age(each.oldest_s)] for each in told.classes
        ]
        print_table("By class", ("", "tasks", "oldest"), rows)
        if told.other_classes:
            say(f"and {told.other_classes:,} of other classes")
    if told.lanes:
        print()
        lanes = [
            [one_line(_need(each.kind, each.requires)), f"{each.tasks:,}", age(each.oldest_s), one_line(each.reason)]
            for each in told.lanes
        ]
        print_table("No worker can take", ("", "tasks", "oldest", "because"), lanes, texts=("because",))
    if told.held:
        print()
        held = [[each.worker, f"{each.tasks:,}", age(each.oldest_s)] for each in told.held]
        print_table("At workers", ("", "tasks", "oldest"), held)


@app.command(epilog=examples_of("drain w1", "drain w1 --no-wait"))
def drain(
    worker: WorkerName,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return once the worker is told.")] = False,
    address: Address = "localhost:50051",
    as_json: AsJson = False,
) -> None:
    """Have a worker finish what it has begun, hand back the rest and leave, as at SIGTERM; wait until it has left."""

    async def ask() -> bool:
        begun, (say_s, next_s) = time.monotonic(), SAY_S
        async with asking(address) as client:
            if no_wait:
                await client.drain(worker, wait=False)
                return False
            async for seen in client.draining(worker):
                if time.monotonic() - begun >= say_s:
                    say_s, next_s = say_s + next_s, 2 * next_s
                    print(f"worker {worker} still runs {count(seen.running, 'task')}", file=sys.stderr, flush=True)
        return True

    left = run(ask())
    if as_json:
        print_json({"worker": worker, "left": left})
    else:
        say(f"worker {worker} has left" if left else f"worker {worker} drains")


@app.command(epilog=examples_of("status TASK"))
def status(
    task: TaskIdArgument = None,
    id: TaskIdOption = None,
    address: Address = "localhost:50051",
    as_json: AsJson = False,
) -> None:
    """Print what became of a task: where it is and since when, or why it waits, and which attempts came to nothing."""
    given = task or id
    if given is None or (task and id):
        exit_with(2, "TASK is missing" if given is None else "TASK and --id are both given")

    async def ask() -> tuple[Outcome, TaskDetail | None]:
        import grpc.aio

        async with asking(address) as client:
            while True:
                outcome = await client.status(given)
                try:
                    detail = await client.task(given)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.UNIMPLEMENTED:  # it knows the contract only
                        return outcome, None
                    raise
                if outcome.settled == (detail.task.state.name in ("COMPLETED", "FAILED")):
                    return outcome if outcome.settled else outcome._replace(state=detail.task.state), detail

    try:
        outcome, detail = run(ask())
    except KeyError:
        exit_with(1, f"no task {given}")
    if as_json:
        print_json({"id": given} | told_of(outcome) | ({} if detail is None else _detail_json(detail)))
        return
    print_outcome(outcome)
    if detail is not None:
        for line in _detail_lines(detail):
            print(line)


def _detail_json(detail: TaskDetail) -> dict[str, Any]:
    told: dict[str, Any] = json_of(detail.task)
    names = ("kind", "priority", "attempts", "worker", "since_s", "age_s", "waits_for")
    shown = {name: told[name] if told[name] != "" else None for name in names}
    return shown | {"held": json_of(detail.attempts), "failures": json_of(detail.failures)}


def _detail_lines(detail: TaskDetail) -> Iterable[str]:
    task = detail.task
    for failure in detail.failures:
        how = failure.outcome.lower().replace("_", " ")
        reason = f", {one_line(failure.reason)}" if failure.reason else ""
        yield f"attempt {failure.attempt}: {how} on {failure.worker}, {age(failure.ago_s)} ago{reason}"
    settled = task.state.name in ("COMPLETED", "FAILED")
    for attempt in detail.attempts:
        hedge = " as a hedge" if attempt.hedge else ""
        reason = f", {attempt.reason}" if attempt.reason else ""
        where = f"{attempt.state} on {attempt.worker}{hedge}, for {age(attempt.since_s)}"
        yield f"attempt {attempt.number}: {where}{reason}"
    if settled and task.worker:
        yield f"worker: {task.worker}"
    if task.waits_for:
        yield f"waits for: {one_line(task.waits_for)}"
        yield f"waiting: {age(task.since_s)}"
    yield f"attempts: {task.attempts}"


def _of_total(found: Some[Any], noun: str) -> str:
    return count(found.total, noun) if len(found) == found.total else f"{len(found):,} of {count(found.total, noun)}"


def _priority(priority: int) -> str:
    from orchestrator.core.model import Priority

    return Priority(priority).name.lower()


def _class(priority: int, kind: str) -> str:
    return f"{_priority(priority)} {kind}"


def _need(kind: str, requires: str) -> str:
    return f"{kind} on {requires}" if requires else kind
