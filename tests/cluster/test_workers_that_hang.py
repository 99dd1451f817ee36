"""Tasks that never end, and workers that never answer: what else there is gets done."""

from __future__ import annotations

import asyncio
import threading

import psutil
import pytest

from orchestrator.cluster import tasks
from orchestrator.cluster.calling import CALLS_AT_ONCE
from orchestrator.cluster.client import AsyncClient, NewTask
from orchestrator.cluster.jobs import Job
from orchestrator.core.model import TaskState
from tests.cluster.called import Babbler, Hand, Mute, coordinator, until_settled
from tests.cluster.conftest import MakeCluster
from tests.cluster.streams import Stage, key, play, worker_on

TIMEOUT = ("policies.execution_timeout_s=0.3", "policies.detection.timeout_s=10")
TWO_LEVEL = (
    "policies.detection.kind=two_level",
    "policies.detection.start_to_close_s=0.3",
    "policies.detection.detector={kind: timeout, timeout_s: 10}",
)


# ---- tasks that never end


@pytest.mark.parametrize(
    ("policies", "executor", "options"),
    [
        (TIMEOUT, "process", ()),
        (TIMEOUT, "thread", ()),
        (TIMEOUT, "inline", ()),
        (TWO_LEVEL, "process", ()),
        (TIMEOUT, "process", ("--contract",)),
    ],
    ids=["processes", "threads", "inline", "two levels", "workers that are called"],
)
def test_a_task_that_never_ends_keeps_no_other_from_being_done(
    make_cluster: MakeCluster, policies: tuple[str, ...], executor: str, options: tuple[str, ...]
):
    """Two workers with two slots each: the task times out again and again, and tasks of another client are done."""
    cluster = make_cluster(2, capacity=2, executor=executor, policies=policies, options=options)

    async def story() -> None:
        async with AsyncClient(cluster.address) as client, AsyncClient(cluster.address) as other:
            hung = client.submit("100000", kind="sleep")
            while (await client.status(await hung.id)).attempts < 2:
                await asyncio.sleep(0.01)
            outcomes = [await each for each in other.submit_batch([NewTask("0", kind="sleep")] * 50)]
            assert all(outcome.state is TaskState.COMPLETED for outcome in outcomes)
            assert not hung.outcome.done()

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_cancel_kills_the_subprocess_and_is_acknowledged_at_once():
    """The slot serves the next task."""

    async def story() -> None:
        stage, others = Stage(), set(psutil.Process().children())
        async with worker_on(stage, executor="process", capacity=1):
            stage.welcome()
            stage.assign("a", 100_000)
            assert await stage.hears("confirmed")
            (child,) = set(psutil.Process().children()) - others
            stage.say(cancels=[key("a")])
            assert list(await stage.hears("cancelled")) == [key("a")]
            assert not child.is_running()
            stage.assign("b", 0)
            (report,) = await stage.hears("reports")
            assert (report.task_id, report.succeeded) == ("b", True)

    play(story)


def test_a_cancel_of_a_thread_is_acknowledged_when_the_thread_ends(monkeypatch: pytest.MonkeyPatch):
    """Until then its slot is occupied: another task is refused, and does not wait behind it."""
    go = threading.Event()

    def wait(payload: str) -> str:
        go.wait()
        return ""

    monkeypatch.setattr(tasks.sleep, "function", wait)

    async def story() -> None:
        stage = Stage()
        async with worker_on(stage, executor="thread", capacity=1):
            stage.welcome()
            stage.assign("a", 0)
            stage.say(cancels=[key("a")])
            stage.assign("b", 0)
            assert list(await stage.hears("rejected")) == [key("b")]
            go.set()
            assert list(await stage.hears("cancelled")) == [key("a")]
            stage.assign("c", 0)
            (report,) = await stage.hears("reports")
            assert report.task_id == "c"

    try:
        play(story)
    finally:
        go.set()


def test_a_hung_thread_keeps_no_process_from_ending(make_cluster: MakeCluster):
    """A worker that drains waits for no attempt that was cancelled."""
    cluster = make_cluster(1, capacity=1, executor="thread", policies=TIMEOUT)

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            hung = client.submit("100000", kind="sleep")
            while (await client.status(await hung.id)).state is not TaskState.PENDING:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(story(), 60))
    cluster.worker("w1").terminate()
    assert cluster.worker("w1").wait(20) == 0


# ---- workers that never answer


def test_a_worker_that_never_answers_delays_little():
    """It beats, and is tried again at growing pauses, with one task each time; the good one does the rest."""

    async def story() -> None:
        mute, good = Mute("mute"), Hand("good")
        async with coordinator(call_timeout_s=1) as (live, address):
            async with mute.at_work(address, 8), good.at_work(address, 2):
                for number in range(500):
                    live.submit(f"t{number}", Job("sleep", "0"), 1)
                await until_settled(live, 500)
            assert 8 <= mute.called <= 16
            assert len(good.taken) == 500

    asyncio.run(asyncio.wait_for(story(), 120))


def test_a_worker_of_many_slots_is_not_called_without_bounds():
    """All that it was assigned fails together, what was not sent too: the deadline runs from the assignment."""

    async def story() -> None:
        mute, good = Mute("mute"), Hand("good")
        async with coordinator(call_timeout_s=1) as (live, address), mute.at_work(address, 10_000):
            for number in range(2_000):
                live.submit(f"t{number}", Job("sleep", "0"), 1)
            assert live.core.pending == 0
            async with good.at_work(address, 8):
                await until_settled(live, 2_000)
            assert mute.most == CALLS_AT_ONCE
            # A few calls may end by their own deadline before all fail together: others go out in their place.
            assert mute.called <= 2 * CALLS_AT_ONCE + 4

    asyncio.run(asyncio.wait_for(story(), 120))


def test_an_answer_that_is_no_message_is_a_failed_call(caplog: pytest.LogCaptureFixture):
    """Another worker does the task, and nothing breaks."""

    async def story() -> None:
        babbler, good = Babbler("babbler"), Hand("good")
        async with coordinator() as (live, address), babbler.at_work(address, 1):
            live.submit("t", Job("sleep", "0"), 1)
            async with good.at_work(address, 1):
                await until_settled(live, 1)
            assert babbler.taken.total() >= 1
            assert good.taken == {"t": 1}

    play(story)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
