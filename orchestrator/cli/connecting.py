"""What the commands that ask a running coordinator have in common: how it is asked, and how answers are told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from orchestrator.cli.addresses import exit_with
from orchestrator.cli.terminal import print_json

if TYPE_CHECKING:
    from orchestrator.cluster.client import AsyncClient
    from orchestrator.cluster.figures import Metrics
    from orchestrator.cluster.wire.translate import Outcome


def client_of(address: str, contract: bool = False, give_up_after_s: float | None = None) -> AsyncClient:
    from orchestrator.cluster.client import AsyncClient

    return AsyncClient(address, contract=contract, give_up_after_s=give_up_after_s)


def asking(address: str) -> AsyncClient:
    """One that submits nothing: it needs no stream."""
    return client_of(address, contract=True)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Exits with a sentence where the coordinator cannot be asked."""
    import grpc.aio

    from orchestrator.cluster.client import CoordinatorStopped, Overloaded, TaskRefused, Unanswered, Undrained

    try:
        return asyncio.run(coroutine)
    except Overloaded as error:
        exit_with(1, f"given up: {error}")
    except (CoordinatorStopped, Unanswered, Undrained) as error:
        exit_with(1, str(error))
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            who = "an older coordinator, one of the unary contract, or another server"
            exit_with(1, f"what answers there does not know that question: it is {who}")
        exit_with(1, f"{error.code().name}: {error.details()}")
    except TaskRefused as error:
        exit_with(2, f"refused: {error}")
    except KeyboardInterrupt:
        exit_with(130, "interrupted")


def told_of(outcome: Outcome) -> dict[str, Any]:
    """For a program; what an unsettled task does not have is null."""
    settled = outcome.settled
    return {
        "state": outcome.state.name,
        "result": outcome.result if settled and not outcome.error else None,
        "error": outcome.error or None,
        "latency_s": outcome.latency_s if settled else None,
    }


def print_outcome(outcome: Outcome, beside: dict[str, Any] | None = None) -> None:
    """As JSON, if there is something to stand beside it."""
    if beside is not None:
        print_json(beside | told_of(outcome))
        return
    print(f"state: {outcome.state.name}")
    if outcome.settled:
        print(f"error: {outcome.error}" if outcome.error else f"result: {outcome.result}")
        print(f"latency: {outcome.latency_s * 1000:.1f} ms")


def facts_of(told: Metrics) -> dict[str, float | None]:
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


def one_line(text: str) -> str:
    """What others made up, for a terminal: nothing in it is a command to that."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in " ".join(text.split()))


def json_of(view: Any) -> Any:
    """What those are told who look, for a program: states of workers by the words of the events table, those of tasks
    and priorities by their names."""
    from orchestrator.cluster.figures import Metrics
    from orchestrator.core.model import Priority, WorkerState

    if isinstance(view, Metrics):
        return facts_of(view)
    if isinstance(view, WorkerState):
        return view.name.lower()
    if isinstance(view, IntEnum):
        return view.name
    if hasattr(view, "_fields"):
        told = {name: json_of(value) for name, value in zip(view._fields, view, strict=True)}
        return told | ({"priority": Priority(view.priority).name.lower()} if "priority" in told else {})
    return [json_of(each) for each in view] if isinstance(view, (tuple, list)) else view
