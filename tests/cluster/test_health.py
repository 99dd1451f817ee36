"""Other systems ask whether a server of ours serves, and what; who asks too much harms nobody."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from orchestrator.cluster.connection import Connection
from orchestrator.cluster.health import HEALTH, REFLECTION
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.wire import rpc
from tests.cluster.conftest import MakeCluster
from tests.cluster.contract import peers
from tests.cluster.streams import Hand, coordinator, play

Code = grpc.StatusCode
Status = health_pb2.HealthCheckResponse
OURS = (rpc.COORDINATOR, rpc.REGISTRY, rpc.WORKER_STREAM, rpc.CLIENT_STREAM, rpc.CLUSTER_VIEW)


def probe(address: str, service: str = "") -> int | Code:
    """What `grpc_health_probe -addr ADDRESS -service SERVICE` is told."""
    with grpc.insecure_channel(address) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            return health_pb2_grpc.HealthStub(channel).Check(request, timeout=30).status
        except grpc.RpcError as error:
            return error.code()


def test_a_coordinator_tells_that_it_serves_and_that_it_stops(make_cluster: MakeCluster):
    """As a whole and each of its services; whoever watches hears of the end."""
    cluster = make_cluster()
    names = ["", *(service.full_name for service in OURS), HEALTH.full_name, REFLECTION.full_name]
    assert [probe(cluster.address, name) for name in names] == [Status.SERVING] * len(names)
    assert probe(cluster.address, "nobody.Nothing") is Code.NOT_FOUND
    with grpc.insecure_channel(cluster.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=rpc.COORDINATOR.full_name), timeout=30)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="nobody.Nothing"), timeout=30)
        assert (next(watching).status, next(unknown).status) == (Status.SERVING, Status.SERVICE_UNKNOWN)
        cluster.coordinator.signal(signal.SIGTERM)
        assert [answer.status for answer in watching] == [Status.NOT_SERVING]
    assert cluster.coordinator.wait(10) == 0


def test_while_it_shuts_down_it_says_so():
    """By a call, too, until its server ends."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            stub = rpc.Stub(channel, HEALTH)
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == Status.SERVING
            live.close()
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == Status.NOT_SERVING
            listed = (await stub.List(health_pb2.HealthListRequest())).statuses
            assert {answer.status for answer in listed.values()} == {Status.NOT_SERVING}
            assert {*listed} == {"", *(service.full_name for service in (*OURS, HEALTH, REFLECTION))}

    play(story)


def test_reflection_describes_both_protocols(make_cluster: MakeCluster):
    """With it alone a tool that knows none of our files finds every service, method and message."""
    cluster = make_cluster()
    with grpc.insecure_channel(cluster.address) as channel:
        described = ProtoReflectionDescriptorDatabase(channel)
        assert {*described.get_services()} == {service.full_name for service in (*OURS, HEALTH, REFLECTION)}
        pool = DescriptorPool(described)
        for service in OURS:
            found = pool.FindServiceByName(service.full_name)
            methods = [(method.name, method.input_type.full_name) for method in found.methods]
            assert methods == [(method.name, method.input_type.full_name) for method in service.methods]
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        wanted = [
            {"file_by_filename": file.name} for file in {service.file.name: service.file for service in OURS}.values()
        ]
        requests = [reflection_pb2.ServerReflectionRequest(**one) for one in (*wanted, {"file_by_filename": "none"})]
        *files, none = ask(iter(requests), timeout=30)
        for request, answer in zip(wanted, files, strict=True):
            told = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
            assert request["file_by_filename"] in [file.name for file in told]
        assert none.error_response.error_code == Code.NOT_FOUND.value[0]


def test_a_worker_that_is_called_tells_its_health_too(stranger: peers.Coordinator):
    """It serves nothing new while it drains."""
    from orchestrator.cluster.called_worker import CalledWorker
    from orchestrator.cluster.worker import Settings

    async def story() -> None:
        async with Connection(stranger.address) as connection:
            registered = asyncio.Event()
            worker = CalledWorker("w", Settings(stranger.address, executor="inline"), registered.set, connection)
            running = asyncio.create_task(worker.run())
            await registered.wait()
            async with rpc.channel(worker._address) as channel:
                await worker_tells(channel, Status.SERVING)
                worker._stopping.set()
                await worker_tells(channel, Status.NOT_SERVING)
            worker.drain()
            await running
            worker.close()

    async def worker_tells(channel: grpc.aio.Channel, status: int) -> None:
        for name in ("", rpc.WORKER.full_name):
            answer = await rpc.Stub(channel, HEALTH).Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == status

    play(story)


async def watching(channel: grpc.aio.Channel) -> Any:
    call = rpc.Stub(channel, HEALTH).Watch(health_pb2.HealthCheckRequest())
    assert (await call.read()).status == Status.SERVING
    return call


async def asking(channel: grpc.aio.Channel) -> Any:
    call = rpc.Stub(channel, REFLECTION).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.read()
    return call


@pytest.mark.parametrize("begin", [watching, asking])
def test_of_too_many_that_watch_the_oldest_ends(begin: Callable[[grpc.aio.Channel], Awaitable[Any]]):
    """Workers, and whoever asks by a call, notice nothing."""

    async def story() -> None:
        async with coordinator(limits=Limits(watchers=2)) as (_, channel):
            calls = [await begin(channel) for _ in range(4)]
            for call in calls[:2]:
                assert await call.code() is Code.RESOURCE_EXHAUSTED
            worker = await Hand(channel, "w").register()
            assert (await rpc.Stub(channel, HEALTH).Check(health_pb2.HealthCheckRequest())).status == Status.SERVING
            assert not any(call.done() for call in (*calls[2:], worker.call))

    play(story)


def test_who_asks_for_nothing_or_nonsense_is_told_to_go():
    async def story() -> None:
        async with coordinator(first_word_s=0.1) as (_, channel):
            silent = rpc.Stub(channel, REFLECTION).ServerReflectionInfo()
            assert await silent.code() is Code.DEADLINE_EXCEEDED
            bare: Any = channel  # messages are bytes
            for name, shape in (("Check", bare.unary_unary), ("Watch", bare.unary_stream)):
                assert await shape(f"/{HEALTH.full_name}/{name}")(b"\xff").code() is Code.INVALID_ARGUMENT
            talking = bare.stream_stream(f"/{REFLECTION.full_name}/ServerReflectionInfo")()
            await talking.write(b"\xff")
            assert await talking.code() is Code.INVALID_ARGUMENT
            speechless = bare.stream_unary(f"/{HEALTH.full_name}/Watch")()
            await speechless.done_writing()
            assert await speechless.code() is Code.INVALID_ARGUMENT

    play(story)
