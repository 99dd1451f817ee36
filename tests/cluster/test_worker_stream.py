"""A worker on its stream: whatever is lost, repeated or late on it, no task is lost. The test is the coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from orchestrator.cluster import silence, streaming_worker
from orchestrator.cluster.wire import rpc
from orchestrator.cluster.wire.proto.stream_pb2 import FromWorker
from orchestrator.cluster.worker import Unwanted
from tests.cluster.streams import Stage, key, play, worker_on


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


def test_reports_travel_together_while_most_tasks_still_run(monkeypatch: pytest.MonkeyPatch):
    """And the last one waits for nothing."""
    monkeypatch.setattr(streaming_worker, "COMPANY_WAITS_S", 60.0)

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, capacity=6) as worker:
            stage.welcome()
            for number in range(4):
                stage.assign(f"long {number}", 60)
            stage.assign("a", 0)
            while worker.agent.completed < 1:
                await asyncio.sleep(0)
            stage.assign("b", 0)
            assert [report.task_id for report in await stage.hears("reports")] == ["a", "b"]
            for number in range(4):
                stage.say(cancels=[key(f"long {number}")])
            stage.assign("c", 0)
            assert [report.task_id for report in await stage.hears("reports")] == ["c"]

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


# ---- what makes no sense


class Babbler(Stage):
    """Says what is no message on its first stream."""

    def serve(self, server: grpc.aio.Server) -> None:
        async def work(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            self.streams += 1
            if self.streams == 1:
                yield b"\xff\xff\xff"
                return
            async for request in requests:
                self.heard.put_nowait(FromWorker.FromString(request))
                while not self._to_say.empty():
                    message = self._to_say.get_nowait()
                    assert message is not None
                    yield message.SerializeToString()

        handlers = {"Work": grpc.stream_stream_rpc_method_handler(work)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc.WORKER_STREAM.full_name, handlers),))


@pytest.fixture
def nobody_waits_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a busy machine takes, no worker says that it is still dialling."""
    monkeypatch.setattr(silence, "FIRST_S", 600.0)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours: asyncio and grpc have their own to say of what other tests of this process left behind."""
    ours = [record for record in caplog.records if record.name.startswith("orchestrator")]
    return [record.getMessage() for record in ours if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.usefixtures("nobody_waits_long")
def test_a_frame_that_is_no_message_breaks_its_stream_only(caplog: pytest.LogCaptureFixture):
    """The worker says so in one line, and dials again."""

    async def story() -> None:
        stage = Babbler()
        stage.welcome()
        stage.assign("a", 0)
        async with worker_on(stage):
            assert await stage.hears("reports")

    play(story)
    assert complaints(caplog) == ["worker w1: lost the coordinator: it sent what is no message"]


@pytest.mark.usefixtures("nobody_waits_long")
@pytest.mark.parametrize(
    "times",
    [
        {"heartbeat_s": 0.0},
        {"heartbeat_s": -1.0},
        {"heartbeat_s": float("nan")},
        {"heartbeat_s": float("inf")},
        {"heartbeat_s": 1e-9},
        {"silence_s": float("nan")},
        {"silence_s": -1.0},
    ],
)
def test_times_that_make_no_sense_are_not_taken(times: dict[str, Any], caplog: pytest.LogCaptureFixture):
    """The worker says so once, however often it hears them, and registers when it is answered with sense."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage):
            for _ in range(2):
                assert await stage.hears("registration")
                stage.welcome(**times)
                stage.end_the_stream()
            assert await stage.hears("registration")
            stage.welcome()
            stage.assign("a", 0)
            assert await stage.hears("reports")

    play(story)
    (complaint,) = complaints(caplog)
    assert "times that make no sense" in complaint


@pytest.mark.usefixtures("nobody_waits_long")
def test_a_complaint_is_not_repeated_because_something_else_failed_in_between(caplog: pytest.LogCaptureFixture):
    """It is made anew once the coordinator has taken the worker in."""

    async def story() -> None:
        stage = Stage()

        async def refuse() -> None:
            assert await stage.hears("registration")
            stage.welcome(heartbeat_s=0.0)

        async with worker_on(stage):
            await refuse()
            assert await stage.hears("registration")
            stage.end_the_stream()
            await refuse()
            assert await stage.hears("registration")
            stage.welcome()
            stage.assign("a", 60)
            assert await stage.hears("confirmed")
            stage.end_the_stream()
            await refuse()
            assert await stage.hears("registration")

    play(story)
    first, lost, again = complaints(caplog)
    assert first == again
    assert "times that make no sense" in first
    assert "it ended the stream" in lost


def test_words_on_what_nobody_knows_change_nothing():
    """Cancels, acknowledgements and assignments that nobody would send: the worker answers, and works on."""

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage):
            stage.welcome()
            stage.say(cancels=[key("nobody", 7), key("")], acknowledged=[0, 2**32 - 1])
            assert list(await stage.hears("cancelled")) == [key("nobody", 7), key("")]
            stage.assign("x", 0, attempt=0)
            (report,) = await stage.hears("reports")
            assert (report.task_id, report.attempt) == ("x", 0)
            stage.say(assignments=[{"task_id": "b", "attempt": 1, "kind": "?" * 1000, "payload": "\0"}])
            assert await stage.hears("reports")

    play(story)
