"""Peers that misbehave over the wire: none holds the loop, fills the log or the memory, or decides for another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from orchestrator.cluster.answers import Unread
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.metrics import line
from orchestrator.cluster.peers import REFUSED_MAX, SLICE, UNREAD_MAX, StreamedWorker
from orchestrator.cluster.services import CAPACITY_MAX, StreamService
from orchestrator.cluster.sparing_log import BURST
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.frames import ITEMS_MAX
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.cluster.wire.proto.stream_pb2 import (
    AttemptKey,
    FromClient,
    FromWorker,
    NewTask,
    Registration,
    Report,
)
from orchestrator.cluster.wire.translate import Assignment
from orchestrator.core.model import Task, TaskState
from tests.cluster.streams import Hand, coordinator, key, play

Code = grpc.StatusCode
END: Any = grpc.aio.EOF  # type: ignore[attr-defined]
MILLIONS = 4_000_000
STREAMS = [(rpc.WORKER_STREAM, "Work"), (rpc.CLIENT_STREAM, "Submit")]


def raw(channel: grpc.aio.Channel, service: ServiceDescriptor, method: str) -> Any:
    """A stream of bytes."""
    stream: Any = channel.stream_stream(f"/{service.full_name}/{method}", bytes, bytes)
    return stream()


async def status_of(call: Any, *messages: Any) -> tuple[grpc.StatusCode, str]:
    """Of a stream that says these."""
    for message in messages:
        await call.write(message)
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() != END:
            pass
    return await call.code(), await call.details()


def task_of(live: LiveCoordinator, task_id: str) -> Task:
    task = live.core.task(task_id)
    assert task is not None
    return task


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


async def watch(longest: list[float]) -> None:
    """The longest time for which nobody had a turn."""
    loop = asyncio.get_running_loop()
    while True:
        begin = loop.time()
        await asyncio.sleep(0.001)
        longest[0] = max(longest[0], loop.time() - begin)


# ---- one message


def _many_held() -> bytes:
    held = b"\x2a\x00" * (MILLIONS - 100)
    length, size = b"", len(held)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return b"\x2a" + length + bytes([size]) + held


@pytest.mark.parametrize(
    ("service", "method", "first", "message"),
    [
        (*STREAMS[0], FromWorker(registration=Registration(worker_id="w", capacity=1)), b"\x0a\x00" * MILLIONS),
        (*STREAMS[0], FromWorker(registration=Registration(worker_id="w", capacity=1)), b"\x22\x00" * MILLIONS),
        (*STREAMS[0], None, _many_held()),
        (*STREAMS[1], FromClient(session="s"), b"\x12\x00" * MILLIONS),
    ],
    ids=["starts", "reports", "held", "tasks"],
)
def test_a_message_of_millions_of_items_is_refused_unread(
    service: ServiceDescriptor, method: str, first: Any, message: bytes
):
    """INVALID_ARGUMENT, and others hardly wait."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            call = raw(channel, service, method)
            if first is not None:
                await call.write(first.SerializeToString())
            longest = [0.0]
            watching = asyncio.create_task(watch(longest))
            code, _ = await status_of(call, message)
            watching.cancel()
            assert code is Code.INVALID_ARGUMENT
            assert longest[0] < 2

    play(story)


class Rounds(list[int]):
    """How much happened in each round of the loop."""

    def note(self) -> None:
        if not self or not self[-1]:
            asyncio.get_running_loop().call_soon(self.append, 0)  # the next round begins with it
        if not self:
            self.append(0)
        self[-1] += 1


@pytest.mark.parametrize("part", ["reports", "started", "confirmed"])
def test_between_the_items_of_a_message_it_is_the_turn_of_others(part: str, monkeypatch: pytest.MonkeyPatch):
    """However many a message may have, one slice is taken in a round of the loop."""
    count = ITEMS_MAX // 4
    taken = Rounds()
    confirmed = StreamedWorker.confirmed

    def counted(self: StreamedWorker, attempt: Any) -> None:
        taken.note()
        confirmed(self, attempt)

    async def story() -> None:
        async with coordinator() as (_, channel):
            worker = await Hand(channel, "w").register()
            item = Report(task_id="t", attempt=1, number=1) if part == "reports" else key("t")
            await worker.say(**{part: [item] * count})
            await until(lambda: sum(taken) == count)
            assert max(taken) <= SLICE

    monkeypatch.setattr(StreamedWorker, "confirmed", counted)
    play(story)


def test_between_the_tasks_of_a_message_it_is_the_turn_of_others(monkeypatch: pytest.MonkeyPatch):
    """Those of a client."""
    count = 20 * SLICE
    taken = Rounds()
    submit = LiveCoordinator.submit

    def counted(self: LiveCoordinator, *task: Any) -> None:
        taken.note()
        submit(self, *task)

    async def story() -> None:
        async with coordinator() as (_, channel):
            call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            tasks = [NewTask(number=number, priority="NORMAL", payload="0") for number in range(count)]
            await call.write(FromClient(session="s", tasks=tasks))
            await until(lambda: sum(taken) == count)
            assert max(taken) <= SLICE

    monkeypatch.setattr(LiveCoordinator, "submit", counted)
    play(story)


# ---- again and again


def test_a_client_that_is_refused_again_and_again_is_told_to_go(caplog: pytest.LogCaptureFixture):
    """With a sentence; the log has a few lines of it."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            message = FromClient(session="s", tasks=[NewTask(number=1)] * REFUSED_MAX)
            code, details = await status_of(call, message)
            assert (code, "refused" in details) == (Code.INVALID_ARGUMENT, True)

    play(story)
    assert 0 < len(caplog.records) <= BURST + 2


def test_a_worker_whose_reports_are_refused_again_and_again_is_told_to_go(caplog: pytest.LogCaptureFixture):
    """It reports on nothing that it was given."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            reports = FromWorker(reports=[Report(task_id="t", attempt=1, number=1)] * REFUSED_MAX)
            assert (await status_of(worker.call, reports))[0] is Code.INVALID_ARGUMENT
            assert live.core.counters["unknown_results"] == REFUSED_MAX

    play(story)
    assert len(caplog.records) <= BURST + 2


def test_a_kind_begins_no_line_of_the_log(caplog: pytest.LogCaptureFixture):
    """What a stranger wrote is told as it is, in one line."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            kind = "sleep\n2026-11-26 12:00:00,000 C orchestrator.coordinator: the coordinator stopped" + " " * 200
            task = wire_pb2.SubmitTaskRequest(payload="1", kind=kind)
            with pytest.raises(grpc.aio.AioRpcError, match="unknown kind: 'sleep"):
                await rpc.Stub(channel, rpc.COORDINATOR).SubmitTask(task)

    play(story)
    (line,) = caplog.messages
    assert "\n" not in line


def test_results_of_strangers_cost_a_few_lines_of_log(caplog: pytest.LogCaptureFixture):
    """However many come; each is answered, and counted."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            stub = rpc.Stub(channel, rpc.REGISTRY)
            result = wire_pb2.TaskResult(task_id="t", state=wire_pb2.COMPLETED)
            for _ in range(10 * BURST):
                answer = await stub.ReportResult(wire_pb2.ReportResultRequest(worker_id="x", result=result))
                assert not answer.acknowledged
            assert live.core.counters["unknown_results"] == 10 * BURST

    play(story)
    assert BURST <= len(caplog.records) <= BURST + 5


def test_new_names_are_taken_up_to_a_limit():
    """A worker that is known already may come again."""

    async def story() -> None:
        async with coordinator(limits=Limits(workers=2)) as (live, channel):
            for name in ("a", "b"):
                await Hand(channel, name).register()
            third = FromWorker(registration=Registration(worker_id="c", capacity=1))
            call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
            assert (await status_of(call, third))[0] is Code.RESOURCE_EXHAUSTED
            await Hand(channel, "a").register()
            assert {worker.id for worker in live.core.workers()} == {"a", "b"}

    play(story)


# ---- a worker that does not read


class Failures:
    """The core, for a peer."""

    def __init__(self) -> None:
        self.keys: list[Any] = []

    def call_failed(self, worker_id: str, task_id: str, attempt: int, now: float) -> None:
        self.keys.append((task_id, attempt))


def assignment(task_id: str) -> Assignment:
    return Assignment((task_id, 1), "sleep", "0")


async def never(message: Any) -> None:
    await asyncio.Event().wait()


def test_an_assignment_that_is_never_written_fails_in_time():
    """Although nothing else was expected of the worker, and no write ever ends."""

    async def story() -> None:
        core = Failures()
        peer = StreamedWorker("w", core, 0.1, 1)  # type: ignore[arg-type]
        peer.answer_beat()
        writing = asyncio.create_task(peer.write_to(never))
        await asyncio.sleep(0)
        peer.assign(assignment("t"))
        await until(lambda: core.keys == [("t", 1)])
        writing.cancel()

    play(story)


def test_what_failed_is_not_written_when_the_worker_reads_on():
    """It runs elsewhere by then."""

    async def story() -> None:
        core = Failures()
        written: list[Any] = []
        reads = asyncio.Event()

        async def write(message: Any) -> None:
            await reads.wait()
            written.append(message)

        peer = StreamedWorker("w", core, 0.1, 1)  # type: ignore[arg-type]
        peer.answer_beat()
        writing = asyncio.create_task(peer.write_to(write))
        await asyncio.sleep(0)
        peer.assign(assignment("failed"))
        await until(lambda: bool(core.keys))
        peer.assign(assignment("later"))
        reads.set()
        await until(lambda: len(written) == 2)
        assert [item.task_id for message in written for item in message.assignments] == ["later"]
        writing.cancel()

    play(story)


def test_a_worker_is_not_heard_on_while_it_reads_no_acknowledgements():
    """What it is to be told stays bounded."""

    async def story() -> None:
        peer = StreamedWorker("w", Failures(), 5.0, 1)  # type: ignore[arg-type]
        await peer.reads()
        for number in range(UNREAD_MAX):
            peer.acknowledge(number)
        reading = asyncio.create_task(peer.reads())
        await asyncio.sleep(0)
        assert not reading.done()
        written: list[Any] = []

        async def write(message: Any) -> None:
            written.extend(message.acknowledged)

        writing = asyncio.create_task(peer.write_to(write))
        await reading
        await until(lambda: written == list(range(UNREAD_MAX)))
        writing.cancel()
        peer.close()

    play(story)


@pytest.mark.parametrize("capacity", [CAPACITY_MAX + 1, 1_000_000, 0, -1])
def test_a_worker_of_a_million_slots_is_refused(capacity: int):
    """By either protocol."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            first = FromWorker(registration=Registration(worker_id="w", capacity=capacity))
            assert (await status_of(rpc.Stub(channel, rpc.WORKER_STREAM).Work(), first))[0] is Code.INVALID_ARGUMENT
            request = wire_pb2.RegisterWorkerRequest(worker_id="w", address="localhost:1", capacity=capacity)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await rpc.Stub(channel, rpc.REGISTRY).RegisterWorker(request)
            assert caught.value.code() is Code.INVALID_ARGUMENT
            assert not list(live.core.workers())

    play(story)


def test_a_worker_with_any_prefetch_holds_a_bounded_number():
    """The others stay in the queue."""

    async def story() -> None:
        async with coordinator(limits=Limits(held=10)) as (live, channel):
            greedy = Registration(worker_id="w", capacity=2, prefetch=-1, incarnation="a")
            call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
            await call.write(FromWorker(registration=greedy))
            await call.read()
            for number in range(15):
                live.submit(f"t{number}", Job("sleep", "0"), 1)
            assert live.core.pending == 5

    play(story)


# ---- who decides


@pytest.mark.parametrize("registered", [True, False])
def test_only_an_assignee_settles(registered: bool):
    """A result of anybody else is refused and counted, by a stream and by a call."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            if registered:
                other = await Hand(channel, "x").register()
                assert await other.report(1, key("t")) == [1]
            for attempt in (0, 1):
                result = wire_pb2.TaskResult(task_id="t", state=wire_pb2.FAILED, attempt=attempt)
                request = wire_pb2.ReportResultRequest(worker_id="x", result=result)
                assert not (await rpc.Stub(channel, rpc.REGISTRY).ReportResult(request)).acknowledged
            assert live.core.counters["refused_results"] == 2 + registered
            assert not task_of(live, "t").settled
            assert await worker.report(1, key("t")) == [1]
            assert task_of(live, "t").state is TaskState.COMPLETED

    play(story)


@pytest.mark.parametrize(
    "word",
    [
        FromWorker(draining=True),
        FromWorker(reports=[Report(task_id="t", attempt=1, succeeded=True)]),
        FromWorker(rejected=[AttemptKey(task_id="t", attempt=1)]),
    ],
    ids=["drain", "report", "rejection"],
)
def test_a_former_stream_says_nothing_for_its_successor(word: FromWorker):
    """What comes late by it is dropped; it is repeated by the new one, if it is still true."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            await Hand(channel, "w").register()
            former = live.workers["w"]
            assert isinstance(former, StreamedWorker)
            latter = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await latter.hears("assignments")
            await StreamService(live, Unread(0))._take("w", former, word)
            worker = live.core.worker("w")
            assert worker is not None
            assert not worker.draining
            assert not worker.quarantined
            assert not task_of(live, "t").settled

    play(story)


@pytest.mark.parametrize("seconds", [1e308, float("nan"), float("inf"), -1.0])
def test_durations_that_cannot_be_are_not_believed(seconds: float):
    """The metrics stay what they are: numbers."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            report = Report(task_id="t", attempt=1, succeeded=True, ran_s=seconds, queued_s=seconds, number=1)
            await worker.say(reports=[report])
            await worker.hears("acknowledged")
            metrics = live.window.summary(live.core, live.now())
            assert metrics.execution_ms is not None
            assert metrics.execution_ms.p99 is not None
            assert 0 <= metrics.execution_ms.p99 < 60_000
            assert "1 completed" in line(metrics)

    play(story)


# ---- room


def test_room_is_given_in_turn():
    """A client that submits far more than there is room for gives way to one that asked later."""

    async def story() -> None:
        async with coordinator(limits=Limits(unsettled=SLICE)) as (live, channel):
            greedy = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            tasks = [NewTask(number=number, priority="NORMAL", payload="0") for number in range(50 * SLICE)]
            await greedy.write(FromClient(session="greedy", tasks=tasks))
            await until(lambda: live.room.full)
            modest = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            await modest.write(FromClient(session="modest", tasks=[NewTask(number=1, priority="NORMAL", payload="0")]))
            await until(lambda: "modest" in live.clients)
            cancelled = 0
            while live.core.task("modest-1") is None:
                live.core.cancel(f"greedy-{cancelled}", live.now())
                cancelled += 1
                await asyncio.sleep(0)
            assert cancelled <= 3 * SLICE

    play(story)
