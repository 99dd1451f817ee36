"""The stream between a worker and its coordinator: whatever is lost, repeated or late on it, no task is lost.

One side is real, and the other is this test, which reads and writes the messages of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import grpc.aio
import pytest

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.overdue import LATE_S, Overdue
from orchestrator.cluster.services import start
from orchestrator.cluster.streaming_worker import StreamingWorker
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.contract import registration_message
from orchestrator.cluster.wire.proto.stream_pb2 import (
    Assignment,
    AttemptKey,
    FromWorker,
    Registered,
    Registration,
    Report,
    ToWorker,
)
from orchestrator.cluster.worker import Settings, Unwanted
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Quarantine, TaskState
from orchestrator.policies.settings import Policies, build_coordinator

TIMEOUT_S = 0.4  # of a call; a worker confirms after an eighth of that
PATIENT = Policies.model_validate({"detection": {"kind": "timeout", "timeout_s": 30}})


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story, for some seconds at most."""
    asyncio.run(asyncio.wait_for(story(), 20))


# ---- a coordinator by hand


class Stage:
    """The other end of a worker's stream."""

    def __init__(self) -> None:
        self.address = ""
        self.streams = 0
        self.heard: asyncio.Queue[FromWorker] = asyncio.Queue()
        self._to_say: asyncio.Queue[ToWorker | None] = asyncio.Queue()

    async def Work(self, requests: AsyncIterator[FromWorker], context: Any) -> None:
        self.streams += 1

        async def hear() -> None:
            async for message in requests:
                self.heard.put_nowait(message)

        hearing = asyncio.create_task(hear())
        while (message := await self._to_say.get()) is not None:
            await context.write(message)
        hearing.cancel()

    def say(self, **parts: Any) -> None:
        self._to_say.put_nowait(ToWorker(**parts))

    def welcome(self, term: int = 1, heartbeat_s: float = 60.0, dropped: Sequence[AttemptKey] = ()) -> None:
        answer = Registered(term=term, heartbeat_s=heartbeat_s, call_timeout_s=TIMEOUT_S, dropped=dropped)
        self.say(registered=answer)

    def assign(self, task_id: str, seconds: float, attempt: int = 1) -> None:
        job = Assignment(task_id=task_id, attempt=attempt, kind="sleep", payload=str(seconds))
        self.say(assignments=[job])

    def end_the_stream(self) -> None:
        self._to_say.put_nowait(None)

    async def hears(self, part: str) -> Any:
        """The next message that has this part: its value."""
        while True:
            message = await self.heard.get()
            for field, value in message.ListFields():
                if field.name == part:
                    return value


@contextlib.asynccontextmanager
async def worker_on(stage: Stage, **settings: Any) -> AsyncIterator[StreamingWorker]:
    server = rpc.server()
    rpc.add_service(server, rpc.WORKER_STREAM, stage)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stage.address = f"127.0.0.1:{port}"
    settings = {"executor": "inline", "incarnation": "this", **settings}
    async with rpc.channel(stage.address) as channel:
        worker = StreamingWorker("w1", Settings(stage.address, **settings), lambda: None, channel)
        running = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            running.cancel()
            worker.close()
            await server.stop(0)


def key(task_id: str, attempt: int = 1) -> AttemptKey:
    return AttemptKey(task_id=task_id, attempt=attempt)


def test_a_report_is_repeated_with_its_number_until_that_is_acknowledged():
    """The acknowledgement of another one does not count; a repeated one is harmless."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            stage.welcome()
            stage.assign("a", 0)
            stage.assign("b", 0)
            first = [*await stage.hears("reports")]
            if len(first) < 2:
                first += await stage.hears("reports")
            a, b = sorted(first, key=lambda report: report.task_id)
            stage.say(acknowledged=[b.number, 4711])
            (again,) = await stage.hears("reports")
            assert again == a
            stage.say(acknowledged=[a.number, a.number])
            worker.drain()
            assert await stage.hears("leaving")
            assert stage.heard.empty()

    play(story)


def test_an_acknowledgement_that_comes_late_counts():
    """Also after the report was given up for lost: it would be repeated for ever where every answer takes long."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=1) as worker:
            stage.welcome()
            stage.assign("a", 0)
            (report,) = await stage.hears("reports")
            await stage.hears("reports")
            stage.say(acknowledged=[report.number])
            worker.drain()
            await stage.hears("leaving")
            assert worker.agent.idle

    play(story)


def test_an_assignment_is_confirmed_unless_it_is_over_before():
    """And again when it is repeated; but not what was refused, nor what has begun by its own word."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=1):
            stage.welcome()
            stage.assign("short", 0)
            (report,) = await stage.hears("reports")
            stage.say(acknowledged=[report.number])
            stage.assign("long", 60)
            stage.assign("too much", 60)
            stage.assign("too much", 60)
            assert list(await stage.hears("rejected")) == [key("too much")]
            assert list(await stage.hears("confirmed")) == [key("long")]
            stage.assign("long", 60)
            assert list(await stage.hears("confirmed")) == [key("long")]

    play(story)


def test_what_waits_is_confirmed_and_what_begins_says_so():
    """With a prefetch queue."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=1, prefetch=1):
            stage.welcome()
            stage.assign("first", 60)
            stage.assign("second", 60)
            assert list(await stage.hears("started")) == [key("first")]
            assert list(await stage.hears("confirmed")) == [key("second")]

    play(story)


def test_a_registration_is_repeated_until_it_is_answered():
    """Beats wait for the answer; what comes before it is not for this process."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            assert (await stage.hears("registration")).worker_id == "w1"
            stage.assign("stray", 60)
            message = await stage.heard.get()
            assert [field.name for field, _ in message.ListFields()] == ["registration"]
            stage.welcome(heartbeat_s=0.05)
            assert (await stage.hears("beat")).active == 0
            assert worker.agent.active == 0
            assert stage.streams == 1

    play(story)


def test_a_worker_beats_as_it_is_told():
    """And in the new rhythm, when it is told another one."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            stage.welcome(heartbeat_s=0.05)
            await stage.hears("beat")
            stage.end_the_stream()
            await stage.hears("registration")
            stage.welcome(heartbeat_s=0.1)
            for _ in range(2):
                await stage.hears("beat")
            assert worker.agent._heartbeat_s == 0.1

    play(story)


def test_a_worker_goes_on_with_what_it_holds_when_its_stream_breaks():
    """It says so at its next registration, and reports what it finished meanwhile once it is known again."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=3) as worker:
            first = await stage.hears("registration")
            assert (first.incarnation, first.term, list(first.held)) == ("this", 0, [])
            stage.welcome(term=5)
            for task_id, seconds in (("short", 0.05), ("long", 60), ("unwanted", 60)):
                stage.assign(task_id, seconds)
            await stage.hears("reports")
            stage.end_the_stream()
            again = await stage.hears("registration")
            assert (again.incarnation, again.term) == ("this", 5)
            assert sorted(item.task_id for item in again.held) == ["long", "short", "unwanted"]
            stage.welcome(term=5, dropped=[key("unwanted")])
            told = await stage.heard.get()
            assert [report.task_id for report in told.reports] == ["short"]
            assert list(told.cancelled) == [key("unwanted")]
            assert worker.agent.held == (("long", 1), ("short", 1))

    play(story)


def test_a_worker_drops_for_a_new_coordinator_what_that_does_not_know():
    """Without a word: the new one may have given the same numbers to other attempts."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            stage.welcome(term=5, heartbeat_s=0.05)
            stage.assign("old", 60)
            await stage.hears("confirmed")
            stage.end_the_stream()
            await stage.hears("registration")
            stage.welcome(term=6, heartbeat_s=0.05, dropped=[key("old")])
            stage.assign("old", 0)
            while not (message := await stage.heard.get()).reports:
                assert not message.cancelled
            assert worker.agent.term == 6

    play(story)


def test_a_worker_refuses_a_coordinator_of_an_older_term():
    """It looks for the newer one instead, and holds on to what it has from that."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage) as worker:
            stage.welcome(term=5)
            stage.assign("a", 60)
            await stage.hears("confirmed")
            stage.end_the_stream()
            await stage.hears("registration")
            stage.welcome(term=4)
            stage.assign("b", 60)
            assert (await stage.hears("registration")).term == 5
            assert worker.agent.held == (("a", 1),)

    play(story)


@pytest.mark.parametrize("code", ["ABORTED", "ALREADY_EXISTS", "INVALID_ARGUMENT"])
def test_a_worker_that_is_not_wanted_ends(code: str):
    """With the coordinator's sentence."""

    class Refusing(Stage):
        async def Work(self, requests: AsyncIterator[FromWorker], context: Any) -> None:
            await context.abort(grpc.StatusCode[code], "not you")

    async def story() -> None:
        stage = Refusing()
        async with worker_on(stage) as worker:
            with pytest.raises(Unwanted, match="not you"):
                await worker.run()

    play(story)


def test_leave_is_repeated_until_the_stream_ends():
    """And whatever a draining worker sends says that it drains; its refusals are told again with every beat."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=1, prefetch=1) as worker:
            stage.welcome(heartbeat_s=0.1)
            stage.assign("runs", 0.4)
            stage.assign("waits", 60)
            await stage.hears("confirmed")
            worker.drain()
            for _ in range(2):
                message = await stage.heard.get()
                while list(message.rejected) != [key("waits")]:
                    message = await stage.heard.get()
                assert message.draining
            (report,) = await stage.hears("reports")
            stage.say(acknowledged=[report.number])
            for _ in range(3):
                assert await stage.hears("leaving")
            stage.end_the_stream()
            await worker.gone.wait()

    play(story)


def test_beats_keep_their_phase():
    """At times of the monotonic clock that leave the given remainder, whenever the process began."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, beat_phase_s={"w1": 0.05}) as worker:
            stage.welcome(heartbeat_s=0.2)
            for _ in range(3):
                await stage.hears("beat")
            next_beat: float = worker.agent._next_beat
            assert next_beat % 0.2 == pytest.approx(0.05, abs=1e-6)

    play(story)


# ---- a worker by hand


class Hand:
    """A worker's stream."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        name: str,
        capacity: int = 1,
        process: str = "a",
        held: Sequence[AttemptKey] = (),
    ) -> None:
        self.call = rpc.Stub(channel, rpc.WORKER_STREAM).Work()
        self._registration = Registration(worker_id=name, capacity=capacity, incarnation=process, held=held)
        self._first: ToWorker | None = None

    async def register(self) -> Hand:
        """`self.told` is the answer."""
        await self.say(registration=self._registration)
        self._first = await self.call.read()
        assert self._first.HasField("registered")
        self.told = self._first.registered
        return self

    async def say(self, **parts: Any) -> None:
        await self.call.write(FromWorker(**parts))

    async def hears(self, part: str) -> Any:
        while True:
            message, self._first = self._first or await self.call.read(), None
            value = getattr(message, part)
            if value:
                return value

    async def report(self, number: int, task: AttemptKey) -> list[int]:
        """What is acknowledged."""
        report = Report(task_id=task.task_id, attempt=task.attempt, succeeded=True, number=number)
        await self.say(reports=[report])
        return list(await self.hears("acknowledged"))


@contextlib.asynccontextmanager
async def coordinator() -> AsyncIterator[tuple[LiveCoordinator, grpc.aio.Channel]]:
    live = LiveCoordinator(lambda fx: build_coordinator(PATIENT, fx), call_timeout_s=TIMEOUT_S, check=True)
    server, port = await start(live, "127.0.0.1", 0)
    async with rpc.channel(f"127.0.0.1:{port}") as channel:
        try:
            yield live, channel
        finally:
            live.close()
            await server.stop(0)
            assert not live.failed.done(), live.failed.exception()


def is_held(core: Coordinator, name: str) -> bool:
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
            assert is_held(live.core, "silent")
            await silent.say(beat={"active": 0})
            assert await other.report(1, key("t", 2)) == [1]
            assert not is_held(live.core, "silent")

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
    """The term, the rhythm of beats, and how long calls may take."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            told = (await Hand(channel, "w").register()).told
            assert (told.term, told.heartbeat_s, told.call_timeout_s) == (live.core.term, 2.0, TIMEOUT_S)

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
            assert await former.call.code() is grpc.StatusCode.ABORTED

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
            assert is_held(live.core, "mute")
        await server.stop(0)

    play(story)


# ---- deadlines


def test_what_is_overdue_is_told_in_order():
    """What was met is not; a key expected again after it was told is told again."""

    async def story() -> None:
        told: asyncio.Queue[list[str]] = asyncio.Queue()
        overdue: Overdue[str] = Overdue(0.05, told.put_nowait, 0.02)
        now = asyncio.get_running_loop().time()
        for one in "abc":
            overdue.expect(one, now)
        overdue.met("b")
        overdue.met("never expected")
        assert await told.get() == ["a", "c"]
        overdue.expect("a", asyncio.get_running_loop().time())
        assert await told.get() == ["a"]

    play(story)


def test_who_stood_still_waits_before_it_judges():
    """What comes with its waking up is in time."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        told: list[str] = []
        overdue: Overdue[str] = Overdue(0.1, told.extend, 0.05)
        overdue.expect("a", loop.time())
        overdue.expect("b", loop.time())
        time.sleep(0.1 + 2 * LATE_S)
        loop.call_later(0.01, overdue.met, "a")  # not read in the first turn
        while not told:
            await asyncio.sleep(0.01)
        assert told == ["b"]

    play(story)
