"""A coordinator and its workers' streams: whatever is lost, repeated or late, no task is. The test is the worker."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.contract import registration_message
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Quarantine, TaskState, WorkerState
from tests.cluster.streams import TIMEOUT_S, Hand, coordinator, key, play


def is_quarantined(core: Coordinator, name: str) -> bool:
    worker = core.worker(name)
    assert worker is not None
    return worker.quarantined is Quarantine.FAILED_CALL


def is_open(core: Coordinator, task_id: str) -> bool:
    task = core.task(task_id)
    assert task is not None
    return [(attempt.number, attempt.state.name) for attempt in task.live] == [(1, "OPEN")]


async def until_a_call_fails(live: LiveCoordinator) -> None:
    """That of one task more, of which nothing is heard: longer than those before it had time."""
    live.submit("witness", Job("sleep", "0"), 1)
    while is_open(live.core, "witness"):
        await asyncio.sleep(0.01)


def test_an_assignment_of_which_nothing_is_heard_is_a_failed_call():
    """It goes to another worker, and the silent one gets nothing until it beats."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            silent = await Hand(channel, "silent").register()
            live.submit("t", Job("sleep", "0"), 1)
            await silent.hears("assignments")
            other = await Hand(channel, "other").register()
            (again,) = await other.hears("assignments")
            assert (again.task_id, again.attempt) == ("t", 2)
            assert is_quarantined(live.core, "silent")
            await silent.say(beat={"active": 0})
            assert await other.report(1, key("t", 2)) == [1]
            assert not is_quarantined(live.core, "silent")

    play(story)


@pytest.mark.parametrize("word", ["confirmed", "started"])
def test_a_word_of_an_assignment_is_enough(word: str):
    """It may take as long as it takes."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w", capacity=2).register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            await worker.say(**{word: [key("t")]})
            await until_a_call_fails(live)
            assert is_open(live.core, "t")

    play(story)


def test_a_repeated_report_is_acknowledged_again():
    """By its number; it settles nothing twice."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            assert await worker.report(7, key("t")) == [7]
            assert await worker.report(7, key("t")) == [7]
            assert live.core.completed == 1

    play(story)


def test_a_registration_that_is_repeated_is_answered_and_loses_nothing():
    """On the same stream it is the same process."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            await worker.register()
            assert await worker.report(1, key("t", 1)) == [1]
            task = live.core.task("t")
            assert task is not None
            assert task.attempt == 1

    play(story)


def test_a_registration_is_told_how_to_behave():
    """The term, the rhythm of beats, how long calls may take, and what silence means."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            told = (await Hand(channel, "w").register()).told
            assert (told.term, told.heartbeat_s, told.call_timeout_s) == (live.core.term, 2.0, TIMEOUT_S)
            assert told.silence_s == pytest.approx(30 - 2 * 2)

    play(story)


def test_a_process_that_dials_again_keeps_its_attempts():
    """Also where its former stream still stands; what it never received is given to somebody at once."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            former = await Hand(channel, "w", capacity=2).register()
            for task_id in ("t", "u"):
                live.submit(task_id, Job("sleep", "0"), 1)
            await former.hears("assignments")
            latter = await Hand(channel, "w", capacity=2, held=[key("t"), key("nobody's")]).register()
            assert list(latter.told.dropped) == [key("nobody's")]
            (again,) = await latter.hears("assignments")
            assert (again.task_id, again.attempt) == ("u", 2)
            assert await latter.report(1, key("t")) == [1]
            task = live.core.task("t")
            assert task is not None
            assert (task.attempt, task.state) == (1, TaskState.COMPLETED)
            assert await former.call.code() is grpc.StatusCode.UNAVAILABLE

    play(story)


def test_another_process_of_that_name_has_nothing():
    """Once the stream of the former is gone: what that held is requeued at once."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            former = await Hand(channel, "w").register()
            live.submit("t", Job("sleep", "0"), 1)
            await former.hears("assignments")
            former.call.cancel()
            latter = await Hand(channel, "w", process="b").register()
            (again,) = await latter.hears("assignments")
            assert (again.task_id, again.attempt) == ("t", 2)

    play(story)


def test_another_process_of_that_name_is_refused_while_the_first_beats():
    """ALREADY_EXISTS, with a sentence; the first notices nothing."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            first = await Hand(channel, "w").register()
            second = Hand(channel, "w", process="b")
            await second.say(registration=second._registration)

            async def beat() -> None:
                while True:
                    await first.say(beat={"active": 0})
                    await asyncio.sleep(0.02)

            beating = asyncio.create_task(beat())
            assert await second.call.code() is grpc.StatusCode.ALREADY_EXISTS
            assert "give this one another name" in await second.call.details()
            beating.cancel()
            live.submit("t", Job("sleep", "0"), 1)
            assert [item.attempt for item in await first.hears("assignments")] == [1]

    play(story)


def test_another_process_of_that_name_waits_until_the_first_is_known_to_be_gone():
    """Its stream may be found broken only later."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            first = await Hand(channel, "w").register()
            second = asyncio.create_task(Hand(channel, "w", process="b").register())
            await first.say(beat={"active": 0})
            first.call.cancel()
            await second
            assert live.core.knows_incarnation("w", "b")

    play(story)


def test_a_worker_that_was_forgotten_is_told_to_register_again():
    """Its stream ends; the record of it and the way to it are gone."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w").register()
            live.core.deregister("w", live.now())
            await worker.say(beat={"active": 0})
            assert await worker.call.code() is grpc.StatusCode.UNAVAILABLE
            assert "w" not in live.workers

    play(story)


def test_a_coordinator_that_stood_still_fails_no_call():
    """What was confirmed in the meantime is read first, and what it had not sent is waited for."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            worker = await Hand(channel, "w", capacity=3).register()
            live.submit("t", Job("sleep", "0"), 1)
            await worker.hears("assignments")
            await worker.say(confirmed=[key("t")])
            live.submit("unsent", Job("sleep", "0"), 1)
            time.sleep(2 * TIMEOUT_S)  # the whole process, with this worker's messages in its sockets
            await worker.hears("assignments")
            await worker.say(confirmed=[key("unsent")])
            await until_a_call_fails(live)
            assert is_open(live.core, "t")
            assert is_open(live.core, "unsent")

    play(story)


def test_what_waits_behind_a_worker_that_does_not_read_fails_too():
    """More than fits into the way to it; none of that is sent when it reads on."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            deaf = await Hand(channel, "deaf", capacity=40).register()
            names = [f"t{number}" for number in range(40)]
            for name in names:
                live.submit(name, Job("sleep", "0" * live.limits.payload_characters), 1)
            while not all(live.core.task(name).state is TaskState.PENDING for name in names):  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            sent = [item.task_id for item in await deaf.hears("assignments")]
            await deaf.say(beat={"active": len(sent)})
            (again, *_) = await deaf.hears("assignments")
            while again.attempt == 1:
                sent.append(again.task_id)
                (again, *_) = await deaf.hears("assignments")
            assert len(sent) < len(names)

    play(story)


def test_a_call_that_is_not_answered_fails_after_the_same_time():
    """To a worker that speaks only the wire contract; of one that answers late nothing is believed twice."""

    async def story() -> None:
        class Mute:
            async def AssignTask(self, request: Any, context: Any) -> Any:
                called.set()
                await asyncio.Event().wait()

        called = asyncio.Event()
        server = rpc.server()
        rpc.add_service(server, rpc.WORKER, Mute())
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with coordinator() as (live, channel):
            registration = registration_message("mute", f"127.0.0.1:{port}", 1)
            await rpc.Stub(channel, rpc.REGISTRY).RegisterWorker(registration)
            live.submit("t", Job("sleep", "0"), 1)
            await called.wait()
            other = await Hand(channel, "other").register()
            (again,) = await other.hears("assignments")
            assert (again.task_id, again.attempt) == ("t", 2)
            assert is_quarantined(live.core, "mute")
        await server.stop(0)

    play(story)


def test_a_worker_that_drains_as_it_registers_is_given_nothing():
    """A task that waits goes to the next worker, without a failed call; and one that leaves as it comes is gone."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            live.submit("t", Job("sleep", "0"), 1)
            draining = await Hand(channel, "draining", draining=True).register()
            leaving = Hand(channel, "leaving", draining=True, leaving=True)
            await leaving.begin()
            async for _ in leaving.call:
                pass  # a status comes after what is left to be read
            assert await leaving.call.code() is grpc.StatusCode.OK
            other = await Hand(channel, "other").register()
            (first,) = await other.hears("assignments")
            assert (first.task_id, first.attempt) == ("t", 1)
            of = {worker.id: worker for worker in live.core.workers()}
            assert of["draining"].draining
            assert of["leaving"].state is WorkerState.LEFT
            draining.call.cancel()

    play(story)
