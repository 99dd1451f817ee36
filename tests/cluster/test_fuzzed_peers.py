"""Random operations of the protocol, sensible and not, by several peers at a time, with a worker and a client beside
them that behave well.

FUZZ_S lengthens it: `FUZZ_S=180 pytest tests/cluster/test_fuzzed_peers.py` is three minutes for each seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster.client import AsyncClient, Submission
from orchestrator.cluster.connection import Connection
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.services import start
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.cluster.wire.proto.stream_pb2 import (
    AttemptKey,
    Beat,
    FromClient,
    FromWorker,
    NewTask,
    Registration,
    Report,
    TimeLimits,
)
from orchestrator.cluster.worker import Settings
from orchestrator.core.model import Task
from orchestrator.policies.settings import Policies, build_coordinator

SECONDS = float(os.environ.get("FUZZ_S", "3"))
IN_FLIGHT = 8
POLICIES = Policies.model_validate(
    {"execution_timeout_s": 0.5, "detection": {"kind": "timeout", "timeout_s": 1.5, "heartbeat_s": 0.1}}
)
ODD_SECONDS = (0.0, 0.01, -1.0, 1e308, float("nan"), float("inf"))
ODD_COUNTS = (0, 1, 3, 1000, -5, 2**31 - 1, -(2**31))
LONG = "x" * 201
format_of = logging.Formatter("%(levelname)s %(name)s %(message)s").format


class Counted(LiveCoordinator):
    """Counts how often each task was settled, and remembers what was assigned."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.times: Counter[object] = Counter()
        self.seen: list[AttemptKey] = [AttemptKey(task_id="nobody's", attempt=1)]
        super().__init__(*arguments, **settings)

    def settled(self, task: Task, now: float) -> None:
        self.times[task.id] += 1
        super().settled(task, now)

    def assign(self, attempt: Any, now: float) -> None:
        self.seen = [*self.seen[-50:], AttemptKey(task_id=attempt.task.id, attempt=attempt.number)]
        super().assign(attempt, now)


class Fuzz:
    """What a peer may come to say."""

    def __init__(self, rng: random.Random, live: Counted) -> None:
        self.rng = rng
        self._live = live

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def name(self) -> str:
        return self.rng.choice(("f1", "f2", "f3", "f4", "", "two\nlines", LONG) if self.chance(0.1) else ("f1", "f2"))

    def key(self) -> AttemptKey:
        if self.chance(0.01):
            return AttemptKey(task_id=LONG, attempt=1)
        known = self.rng.choice(self._live.seen)
        return AttemptKey(task_id=known.task_id, attempt=known.attempt + self.rng.choice((0, 0, 0, 1, 2**31)))

    def keys(self) -> list[AttemptKey]:
        count = self.rng.choice((0, 0, 0, 1, 2, 300))
        return [self.key()] * count if count > 2 else [self.key() for _ in range(count)]

    def report(self) -> Report:
        key, choose = self.key(), self.rng.choice
        return Report(
            task_id=key.task_id,
            attempt=choose((0, key.attempt)),
            succeeded=choose((True, False)),
            result="r" * choose((0, 10, 2000, 1 << 20)) if self.chance(0.1) else "r",
            error=choose(("", "it failed")),
            retryable=choose((True, False)),
            queued_s=choose(ODD_SECONDS),
            ran_s=choose(ODD_SECONDS),
            number=choose((0, 1, 2, 2**32 - 1)),
        )

    def registration(self) -> Registration:
        sensible = not self.chance(0.1)
        return Registration(
            worker_id=self.name(),
            capacity=self.rng.choice((1, 4, 50)) if sensible else self.rng.choice(ODD_COUNTS),
            prefetch=self.rng.choice((0, 0, 2, -1)),
            incarnation=self.rng.choice(("a", "a", "a", "b", "")),
            held=self.keys(),
            term=self.rng.choice((0, 1, 2**64 - 1)),
        )

    def word(self) -> FromWorker:
        message = FromWorker(
            started=self.keys(),
            rejected=self.keys(),
            cancelled=self.keys(),
            confirmed=self.keys(),
            reports=[self.report() for _ in range(self.rng.choice((0, 0, 1, 3)))],
            draining=self.chance(0.02),
            leaving=self.chance(0.02),
        )
        if self.chance(0.5):
            message.beat.CopyFrom(Beat(active=self.rng.choice(ODD_COUNTS), completed=self.rng.choice(ODD_COUNTS)))
        if self.chance(0.05):
            message.registration.CopyFrom(self.registration())
        return message

    def task(self) -> NewTask:
        choose = self.rng.choice
        sensible = not self.chance(0.2)
        return NewTask(
            number=choose((0, 1, 2**64 - 1)) if self.chance(0.1) else self.rng.randrange(10_000),
            priority=1 if sensible else choose((-1, 0, 2, 3, 77)),  # type: ignore[arg-type]
            kind="sleep" if sensible else choose(("", "unknown", LONG)),
            payload=choose(("0", "0.01")) if sensible else choose(("", "no number", "100", "x" * (1 << 20) + "x")),
            limits=choose((None, TimeLimits(), TimeLimits(queue_timeout_s=0.01, deadline_s=0.05)))
            if sensible
            else TimeLimits(deadline_s=choose((0.0, -1.0, math.nan, math.inf, 1e-300))),
        )


async def listen(call: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):  # a refusal is an answer too
        while await call.read() != grpc.aio.EOF:  # type: ignore[attr-defined]
            pass


async def be_a_worker(fuzz: Fuzz, channel: grpc.aio.Channel) -> None:
    """One stream; some of them are never read."""
    call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
    reading = asyncio.create_task(listen(call)) if fuzz.chance(0.8) else None
    try:
        if fuzz.chance(0.95):
            await call.write(FromWorker(registration=fuzz.registration()))
        while fuzz.chance(0.95) and not call.done():
            await call.write(fuzz.word())
            await asyncio.sleep(fuzz.rng.uniform(0, 0.02))
    finally:
        call.cancel()
        if reading is not None:
            await asyncio.wait([reading])
            reading.cancelled() or reading.exception()


async def be_a_client(fuzz: Fuzz, channel: grpc.aio.Channel) -> None:
    call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
    reading = asyncio.create_task(listen(call)) if fuzz.chance(0.8) else None
    session = fuzz.rng.choice(("s1", "s2", "", LONG) if fuzz.chance(0.1) else ("s1", "s2"))
    try:
        while fuzz.chance(0.9) and not call.done():
            tasks = [fuzz.task() for _ in range(fuzz.rng.choice((0, 1, 5, 20)))]
            await call.write(FromClient(session=session, tasks=tasks))
            await asyncio.sleep(fuzz.rng.uniform(0, 0.05))
    finally:
        call.cancel()
        if reading is not None:
            await asyncio.wait([reading])
            reading.cancelled() or reading.exception()


async def call_something(fuzz: Fuzz, channel: grpc.aio.Channel) -> None:
    """By the wire contract."""
    coordinator, registry = rpc.Stub(channel, rpc.COORDINATOR), rpc.Stub(channel, rpc.REGISTRY)
    choose, report = fuzz.rng.choice, fuzz.report()
    result = wire_pb2.TaskResult(
        task_id=report.task_id,
        state=choose((0, 1, 2, 3, 9)),  # type: ignore[arg-type]
        result=report.result,
        latency_ms=choose((0, 10, -10, 2**31 - 1)),
        attempt=report.attempt,
        retryable=report.retryable,
    )
    task = fuzz.task()
    submission = wire_pb2.SubmitTaskRequest(kind=task.kind, payload=task.payload, priority=task.priority)
    registration = wire_pb2.RegisterWorkerRequest(
        worker_id=choose(("c1", fuzz.name())),
        address=choose(("127.0.0.1:1", "nowhere", ":5", "")),
        capacity=choose((1, 0)),
    )
    beat = wire_pb2.HeartbeatRequest(worker_id=choose(("c1", "good", fuzz.name())), active_tasks=choose(ODD_COUNTS))
    calls: list[tuple[Any, Any]] = [
        (coordinator.SubmitTask, submission),
        (coordinator.GetTaskStatus, wire_pb2.GetTaskStatusRequest(task_id=report.task_id)),
        (coordinator.GetMetrics, wire_pb2.GetMetricsRequest()),
        (registry.RegisterWorker, registration),
        (registry.Heartbeat, beat),
        (registry.ReportResult, wire_pb2.ReportResultRequest(worker_id=choose(("c1", fuzz.name())), result=result)),
    ]
    method, request = choose(calls)
    await method(request, timeout=2)


async def say_garbage(fuzz: Fuzz, channel: grpc.aio.Channel) -> None:
    """Bytes that are no message, or one of far too many items."""
    service, name = fuzz.rng.choice(((rpc.WORKER_STREAM, "Work"), (rpc.CLIENT_STREAM, "Submit")))
    stream: Any = channel.stream_stream(f"/{service.full_name}/{name}", bytes, bytes)
    call = stream()
    await call.write(fuzz.rng.choice((fuzz.rng.randbytes(50), b"\x12\x00" * 100_000, b"\x0a\x00" * 100_000)))
    await listen(call)


async def again_and_again(act: Callable[[], Awaitable[None]]) -> None:
    # A stream forgets a cancellation that comes after its status and before its first metadata: it raises the status.
    running = asyncio.current_task()
    assert running is not None
    while not running.cancelling():
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await act()
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def hostile(fuzz: Fuzz, address: str) -> AsyncIterator[None]:
    async with rpc.channel(address) as channel:
        acts = [be_a_worker] * 4 + [be_a_client] * 2 + [call_something] * 2 + [say_garbage]
        busy = [asyncio.create_task(again_and_again(lambda act=act: act(fuzz, channel))) for act in acts]  # type: ignore[misc]
        try:
            yield
            for each in busy:
                assert not each.done(), each.exception()
        finally:
            for each in busy:
                each.cancel()
            await asyncio.wait(busy)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_peers_say_a_client_beside_them_is_served(seed: int, caplog: pytest.LogCaptureFixture):
    """Its tasks are settled, each once; the invariants hold, and the log has no traceback."""

    async def story() -> None:
        live = Counted(
            lambda fx: build_coordinator(POLICIES, fx),
            call_timeout_s=0.4,
            contract_timeout_s=0.5,
            limits=Limits(unsettled=2_000),
            check=True,
        )
        server, port = await start(live, "127.0.0.1", 0, first_word_s=0.5)
        address = f"127.0.0.1:{port}"
        fuzz = Fuzz(random.Random(seed), live)
        async with Connection(address) as connection, AsyncClient(address) as client:
            settings = Settings(address, capacity=8, executor="inline", incarnation="good")
            worker = StreamingWorker("good", settings, lambda: None, connection)
            working = asyncio.create_task(worker.run())
            submissions: list[Submission] = []
            async with hostile(fuzz, address):
                end = live.now() + SECONDS
                while live.now() < end:
                    batch = [client.submit("0", priority=2, kind="sleep") for _ in range(IN_FLIGHT)]
                    submissions += batch
                    await asyncio.wait([each.id for each in batch])
                    await asyncio.wait([batch[0].outcome], timeout=1)
            for submission in submissions:
                assert (await submission).settled
                assert live.times[submission.id.result()] == 1
            assert max(live.times.values()) == 1
            assert not working.done()
            live.core.check()
            working.cancel()
            worker.close()
        live.close()
        await server.stop(0)
        assert not live.failed.done(), live.failed.exception()

    with caplog.at_level(logging.INFO):
        asyncio.run(asyncio.wait_for(story(), 60 + 2 * SECONDS))
    # An event of a loop that was closed before is no word of the coordinator.
    told = [
        format_of(record)
        for record in caplog.records
        if (record.exc_info or record.levelno >= logging.ERROR) and "Event loop is closed" not in format_of(record)
    ]
    assert not told, "\n".join(told)
