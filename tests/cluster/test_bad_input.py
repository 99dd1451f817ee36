"""Nonsense over the wire: the right status, one line in the log, and the coordinator goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import psutil
import pytest

from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import stream_pb2, wire_pb2
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.lines import lines

Talk = Callable[[grpc.aio.Channel], Coroutine[Any, Any, None]]


def talk(cluster: LocalCluster, story: Talk) -> None:
    async def run() -> None:
        async with rpc.channel(cluster.address) as channel:
            await asyncio.wait_for(story(channel), 30)

    asyncio.run(run())


def still_serves(cluster: LocalCluster) -> bool:
    """A task goes round."""

    async def run() -> bool:
        async with AsyncClient(cluster.address) as client:
            return (await asyncio.wait_for(client.submit("0", kind="sleep"), 10)).settled

    return asyncio.run(run())


def registration(**fields: Any) -> stream_pb2.FromWorker:
    return stream_pb2.FromWorker(registration=stream_pb2.Registration(**fields))


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], list[str]]:
    """The warnings of the coordinator so far."""
    warning = {"level": "warning", "logger": "orchestrator.coordinator"}.items()
    return lambda: [line["event"] for line in lines(tmp_path / "log") if warning <= line.items()]


def test_streams_that_begin_senselessly_are_refused(make_cluster: MakeCluster, log: Callable[[], list[str]]):
    """INVALID_ARGUMENT for a stream without a name or a slot."""
    cluster = make_cluster(1)
    beginnings: list[tuple[Any, str, list[Any]]] = [
        (rpc.WORKER_STREAM, "Work", [stream_pb2.FromWorker(draining=True)]),
        (rpc.WORKER_STREAM, "Work", [registration(worker_id="x", capacity=-1)]),
        (rpc.WORKER_STREAM, "Work", [registration(worker_id="", capacity=1)]),
        (rpc.WORKER_STREAM, "Work", []),
        (rpc.CLIENT_STREAM, "Submit", [stream_pb2.FromClient()]),
        (rpc.CLIENT_STREAM, "Submit", []),
    ]

    async def story(channel: grpc.aio.Channel) -> None:
        for service, method, messages in beginnings:
            call = getattr(rpc.Stub(channel, service), method)()
            for message in messages:
                await call.write(message)
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT

    talk(cluster, story)
    assert len(log()) == len(beginnings)
    assert still_serves(cluster)


def test_senseless_news_of_a_worker_is_ignored(make_cluster: MakeCluster):
    """Results, starts and refusals of attempts that never were, in any number."""
    cluster = make_cluster(1)
    key = stream_pb2.AttemptKey(task_id="nobody's", attempt=7)
    report = stream_pb2.Report(task_id="nobody's", attempt=2**32 - 1, succeeded=True, ran_s=float("nan"), number=7)

    async def story(channel: grpc.aio.Channel) -> None:
        call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
        await call.write(registration(worker_id="odd", capacity=1))
        news = stream_pb2.FromWorker(
            started=[key], rejected=[key], cancelled=[key], confirmed=[key], reports=[report] * 100
        )
        news.beat.active = -5
        await call.write(news)
        told: list[int] = []
        while len(told) < 100:
            told += (await call.read()).acknowledged
        assert set(told) == {7}
        call.cancel()

    talk(cluster, story)
    assert still_serves(cluster)


def test_tasks_that_make_no_sense_are_refused_one_by_one(make_cluster: MakeCluster, log: Callable[[], list[str]]):
    """The others of the same message are executed."""
    cluster = make_cluster(1)
    good, empty, odd, large = (
        stream_pb2.NewTask(number=number, priority=priority, kind="sleep", payload=payload)  # type: ignore[arg-type]
        for number, (payload, priority) in enumerate([("0", 1), ("", 1), ("0", 9), ("0" * ((1 << 20) + 1), 1)])
    )

    async def story(channel: grpc.aio.Channel) -> None:
        call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
        await call.write(stream_pb2.FromClient(session="odd", tasks=[good, empty, odd, large]))
        settled: list[int] = []
        refused: dict[int, str] = {}
        while len(settled) + len(refused) < 4:
            message = await call.read()
            settled += [result.number for result in message.results]
            refused |= {refusal.number: refusal.reason for refusal in message.refused}
        assert settled == [0]
        for number, reason in ((1, "empty"), (2, "priority"), (3, "too large")):
            assert reason in refused[number]
        call.cancel()

    talk(cluster, story)
    assert len(log()) == 3


def test_garbage_on_the_port(make_cluster: MakeCluster):
    """Bytes that are no HTTP/2, a connection that says nothing, and one that breaks."""
    cluster = make_cluster(1)
    host, _, port = cluster.address.rpartition(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 100, b""):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(garbage)
    assert still_serves(cluster)


def test_a_client_may_vanish_while_its_results_stream(make_cluster: MakeCluster, tmp_path: Path):
    """Its tasks are settled all the same, and one line tells that it has gone."""
    cluster = make_cluster(1, capacity=4)

    async def story(channel: grpc.aio.Channel) -> None:
        call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
        tasks = [stream_pb2.NewTask(number=n, priority="NORMAL", kind="sleep", payload="0.001") for n in range(500)]
        await call.write(stream_pb2.FromClient(session="short", tasks=tasks))
        await call.read()

    talk(cluster, story)

    async def until_done() -> None:
        async with AsyncClient(cluster.address) as client:
            while (await client.metrics()).completed < 500:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(until_done(), 20))
    assert len([line for line in lines(tmp_path / "log") if "session short" in line["event"]]) == 1


def test_a_client_that_does_not_read_fills_no_memory(make_cluster: MakeCluster):
    """Its submissions are not read on while too much waits for it; when it reads, it gets every result."""
    cluster = make_cluster(1, capacity=200, policies=("--max-unsettled", "1000", "policies.execution_timeout_s=null"))
    count = 40_000
    payload = "x" * 200  # fails at once, with an error that quotes it

    async def story(channel: grpc.aio.Channel) -> None:
        call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()

        async def write() -> None:
            for begin in range(0, count, 500):
                numbers = range(begin, begin + 500)
                tasks = [
                    stream_pb2.NewTask(number=n, priority="NORMAL", kind="sleep", payload=payload) for n in numbers
                ]
                await call.write(stream_pb2.FromClient(session="slow" if not begin else "", tasks=tasks))

        writing = asyncio.create_task(write())
        before = -1
        async with AsyncClient(cluster.address) as client:
            while before != (before := (await client.metrics()).failed):
                await asyncio.sleep(0.3)
        assert before < count, "everything was read although nobody took the results"
        results = 0
        while results < count:
            results += len((await call.read()).results)
        await writing
        call.cancel()

    talk(cluster, story)
    assert psutil.Process(cluster.coordinator.pid).memory_info().rss < 400 << 20


def test_too_much_at_once_is_told_to_who_calls(make_cluster: MakeCluster):
    """A unary submit beyond the limit is RESOURCE_EXHAUSTED, and goes when there is room again."""
    cluster = make_cluster(0, policies=("--max-unsettled", "3"))

    async def run() -> None:
        async with AsyncClient(cluster.address, contract=True) as client:
            submissions = client.submit_batch([NewTask("0", 1, "sleep")] * 5)
            while (await client.metrics()).queue_depth < 3:
                await asyncio.sleep(0.01)
            process = cluster.start_worker("w1")
            assert all([(await submission).settled for submission in submissions])
            assert process.status is None

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_port_that_is_taken_is_an_error(make_cluster: MakeCluster):
    """No second coordinator beside the first."""
    cluster = make_cluster()
    first = cluster.coordinator
    cluster._policies = []  # without the decision record, which the first one keeps locked
    with pytest.raises(RuntimeError, match="exit status 1"):
        cluster.start_coordinator()
    cluster.coordinator = first
    wait_until(lambda: first.status is None)


def test_a_call_in_the_name_of_a_streamed_worker_is_not_acknowledged_on_its_stream(make_cluster: MakeCluster):
    """The answer of the call is the only one; the worker lives, and its own reports count."""
    cluster = make_cluster(1)

    async def forge(channel: grpc.aio.Channel) -> None:
        result = wire_pb2.TaskResult(task_id="nobody's", state=wire_pb2.COMPLETED)
        request = wire_pb2.ReportResultRequest(worker_id=cluster.names[0], result=result)
        for _ in range(3):
            answer = await rpc.Stub(channel, rpc.REGISTRY).ReportResult(request)
            assert not answer.acknowledged

    talk(cluster, forge)
    assert still_serves(cluster)
    assert cluster.worker(cluster.names[0]).status is None
