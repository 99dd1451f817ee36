"""A submission by the wire contract whose answer is lost is made again where that can't execute its task twice."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster import link, submitting
from orchestrator.cluster.client import AsyncClient, Unanswered
from orchestrator.cluster.services import WireService
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto import wire_pb2
from orchestrator.core.model import TaskState
from tests.cluster.called import Hand, coordinator
from tests.cluster.proxy import Proxy
from tests.cluster.streams import play


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((link, "SILENCE_S"), (link, "ANSWER_S"), (submitting, "DEADLINE_S")):
        monkeypatch.setattr(module, name, 0.5)


def test_the_same_key_is_the_same_task():
    """Also of one that is settled; what can't be a key is refused."""

    async def story() -> None:
        hand = Hand("w1")
        async with coordinator() as (live, address), hand.at_work(address, 1), rpc.channel(address) as channel:
            submit = rpc.Stub(channel, rpc.COORDINATOR).SubmitTask
            ids = [(await submit(wire_pb2.SubmitTaskRequest(payload="7", key="mine"))).task_id for _ in range(2)]
            while not live.core.completed:
                await asyncio.sleep(0.01)
            ids.append((await submit(wire_pb2.SubmitTaskRequest(payload="7", key="mine"))).task_id)
            assert ids == [ids[0]] * 3
            assert (live.core.submitted, hand.taken) == (1, {ids[0]: 1})
            for key in ("k" * 201, "a\nb"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await submit(wire_pb2.SubmitTaskRequest(payload="7", key=key))
                assert caught.value.code().name == "INVALID_ARGUMENT"

    play(story)


@pytest.mark.parametrize("heard", [True, False], ids=["answer lost", "call swallowed"])
def test_a_submission_without_an_answer_is_made_again_and_executed_once(heard: bool, monkeypatch: pytest.MonkeyPatch):
    """Whether the coordinator had heard the first one or not."""
    submit_task = WireService.SubmitTask
    calls: list[str] = []

    async def first_unanswered(self: WireService, request: Any, context: Any) -> Any:
        answer = await submit_task(self, request, context)
        calls.append(request.key)
        if heard and len(calls) == 1:
            await asyncio.Event().wait()
        return answer

    monkeypatch.setattr(WireService, "SubmitTask", first_unanswered)

    async def story() -> None:
        hand = Hand("w1")
        async with (
            coordinator() as (live, address),
            hand.at_work(address, 1),
            Proxy().passing(int(address.rpartition(":")[2])) as proxy,
            AsyncClient(f"127.0.0.1:{proxy.port}", contract=True) as client,
        ):
            await client.metrics()
            if not heard:
                proxy.swallow()
            outcome = await client.submit("7")
            assert outcome.state is TaskState.COMPLETED
            assert len(calls) == 1 + heard
            assert len(set(calls)) == 1
            assert (live.core.submitted, hand.taken[outcome.task_id]) == (1, 1)

    play(story)


class Deaf:
    """A coordinator that knows no keys, and whose answers to submissions are lost."""

    def __init__(self) -> None:
        self.submissions = 0

    async def SubmitTask(self, request: Any, context: Any) -> Any:
        self.submissions += 1
        await asyncio.Event().wait()

    async def GetTaskStatus(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no task")

    async def GetMetrics(self, request: Any, context: Any) -> Any:
        return wire_pb2.GetMetricsResponse()


def test_where_keys_are_unknown_nothing_is_submitted_twice():
    """The caller is told why."""

    async def story() -> None:
        deaf, server = Deaf(), rpc.server()
        rpc.add_service(server, rpc.COORDINATOR, deaf)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with AsyncClient(f"127.0.0.1:{port}", contract=True) as client:
            with pytest.raises(Unanswered, match="could execute the task twice"):
                await client.submit("7")
        assert deaf.submissions == 1
        await server.stop(0)

    play(story)
