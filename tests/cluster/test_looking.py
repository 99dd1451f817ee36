"""What those who look are told of a core: read while it goes on, bounded, and right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import grpc
import grpc.aio
import pytest

from orchestrator.cluster import looking as looking_module
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.looking import SLICE, Looking
from orchestrator.cluster.peers import WorkerPeer
from orchestrator.cluster.views import QueueView, Snapshot, TaskDetail, Tasks, TaskView, Workers
from orchestrator.cluster.wire import rpc, watching
from orchestrator.cluster.wire.proto import watch_pb2
from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import TaskState, WorkerState
from orchestrator.policies.settings import Policies, build_coordinator
from tests.cluster.streams import Hand, coordinator, play

PENDING, RUNNING, ASSIGNED = TaskState.PENDING, TaskState.RUNNING, TaskState.ASSIGNED


def looked_at(story: Callable[[LiveCoordinator, Looking], object], policies: Policies | None = None) -> None:
    async def tell() -> None:
        live = LiveCoordinator(lambda fx: build_coordinator(policies or Policies(), fx))
        try:
            await story(live, Looking(live))  # type: ignore[misc]
        finally:
            live.close()

    play(tell)


class Nobody:
    """The way to a worker who hears nothing, and whose calls do not fail."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


def register(
    live: LiveCoordinator, name: str, prefetch: int = 0, kinds: tuple[str, ...] = (), labels: tuple[str, ...] = ()
) -> None:
    live.workers[name] = cast(WorkerPeer, Nobody())
    live.core.register(Registration(name, "i", 1, prefetch, True, kinds=kinds, labels=labels), live.now())


def submit(live: LiveCoordinator, *names: str, kind: str = "sleep", priority: int = 1, requires: str = "") -> None:
    for name in names:
        live.core.submit(name, priority, Job(kind, "1", requires=requires), None, live.now())


async def waits_for(looking: Looking, name: str) -> str:
    return (await looking.task(name)).task.waits_for


def test_a_task_is_running_where_its_worker_would_not_say_so():
    """Without prefetch a start is not reported, so an assignment counts as one; with it, a task waits until it is."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        register(live, "w1")
        register(live, "w2", prefetch=1)
        submit(live, "a", "b", "c")
        states = {task.id: task.state for task in (await looking.tasks((), 10)).tasks}
        assert sorted(states.values()) == [ASSIGNED, ASSIGNED, RUNNING]
        ((started, number),) = [attempt.key for attempt in list(live.core.worker("w2").open)[:1]]  # type: ignore[union-attr]
        live.core.started("w2", started, number, live.now())
        detail = await looking.task(str(started))
        assert (detail.task.state, detail.attempts[0].state, detail.attempts[0].worker) == (RUNNING, "running", "w2")
        (waiting,) = (await looking.tasks([ASSIGNED], 10)).tasks
        assert (waiting.worker, waiting.waits_for) == ("w2", "")
        assert (await looking.task(waiting.id)).attempts[0].state == "waiting"
        w1, w2 = (await looking.workers("", 10)).workers
        assert (w1.running, w1.waiting, w2.running, w2.waiting) == (1, 0, 1, 1)
        queue = await looking.queue()
        assert [(held.worker, held.tasks) for held in queue.held] == [("w2", 1)]

    looked_at(story)


def test_what_a_task_waits_for_is_told():
    """A worker at all, one with room, one that offers what it needs, one that gets tasks."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        submit(live, "any")
        submit(live, "gpu", requires="gpu=a100")
        submit(live, "both", kind="train", requires="gpu=a100,zone=b")
        assert await waits_for(looking, "any") == "no worker is here"
        register(live, "w1", kinds=("sleep",), labels=("zone=b",))
        submit(live, "more")
        assert await waits_for(looking, "more") == "the worker to have room"
        assert await waits_for(looking, "gpu") == "no worker here has gpu=a100"
        assert await waits_for(looking, "both") == "no worker here takes train"
        register(live, "w2", kinds=("train",), labels=("gpu=a100",))
        assert await waits_for(looking, "both") == "no worker here that takes train has gpu=a100 and zone=b"
        register(live, "w3", labels=("gpu=a100",))
        assert await waits_for(looking, "more") == "one of 2 workers that can take it to have room"
        live.core.drain("w1", live.now())
        live.core.drain("w3", live.now())
        assert await waits_for(looking, "more") == "none of the 2 workers that can take it gets anything new at present"

    looked_at(story)


def test_a_task_may_wait_for_its_next_try():
    """And the queue counts it among those that do; what came to nothing is told."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        register(live, "w1")
        submit(live, "t")
        report = Report("w1", "t", 1, False, error="no luck", retryable=True)
        live.core.result(report, live.now())
        assert (await waits_for(looking, "t")).startswith("its next try, in 6")
        queue = await looking.queue()
        assert (queue.tasks, queue.retries, queue.lanes) == (1, 1, ())
        (failure,) = (await looking.task("t")).failures
        assert (failure.attempt, failure.worker, failure.outcome) == (1, "w1", "FAILED")

    looked_at(story, Policies.model_validate({"retry": {"backoff": {"kind": "constant", "delay_s": 61}}}))


def test_the_queue_is_told_by_class_and_by_what_nobody_takes():
    """The most urgent first, with the age of the oldest; tasks of one need are one lane, whatever their priorities."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        register(live, "w1")
        submit(live, "running", "a", "b")
        submit(live, "c", priority=3)
        submit(live, "d", priority=3, requires="gpu=a100")
        submit(live, "e", requires="gpu=a100")
        queue = await looking.queue()
        classes = [(each.priority, each.kind, each.tasks) for each in queue.classes]
        assert classes == [(3, "sleep", 2), (1, "sleep", 3)]
        (lane,) = queue.lanes
        assert (lane.kind, lane.requires, lane.tasks) == ("sleep", "gpu=a100", 2)
        assert lane.reason == "no worker here has gpu=a100"
        assert queue.tasks == 5
        assert all(each.oldest_s >= 0 for each in queue.classes)

    looked_at(story)


def test_a_look_gives_others_their_turn():
    """However many tasks wait: a slice is counted, and then it is their turn."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        tasks = 20 * SLICE
        submit(live, *(str(number) for number in range(tasks)))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for look in (looking.queue, looking.snapshot, lambda: looking.tasks([RUNNING], 10)):
            before = turns
            await look()
            if look != looking.snapshot:  # which has the queue from before
                assert turns - before >= tasks / SLICE
        counting.cancel()
        found = await looking.tasks([PENDING], 3)
        assert ([task.id for task in found.tasks], found.total) == (["0", "1", "2"], tasks)

    looked_at(story)


def test_classes_are_bounded(monkeypatch: pytest.MonkeyPatch):
    """Whatever submitters make up: what is not shown is counted."""
    monkeypatch.setattr(looking_module, "MOST_CLASSES", 30)
    monkeypatch.setattr(looking_module, "SHOWN_CLASSES", 20)

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        for number in range(50):
            submit(live, f"t{number}", kind=f"kind-{number}")
        queue = await looking.queue()
        assert len(queue.classes) == len(queue.lanes) == 20
        assert sum(each.tasks for each in queue.classes) + queue.other_classes == queue.tasks == 50

    looked_at(story)


def test_of_many_workers_those_in_trouble_are_shown(monkeypatch: pytest.MonkeyPatch):
    """To who watches; and names are in the order in which people count."""
    monkeypatch.setattr(looking_module, "WATCHED_WORKERS", 10)

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        for number in range(15):
            register(live, f"w{number}")
        live.core.drain("w13", live.now())
        snapshot = await looking.snapshot()
        assert (len(snapshot.workers), snapshot.other_workers) == (10, 5)
        assert [worker.name for worker in snapshot.workers if worker.draining] == ["w13"]
        names = [worker.name for worker in (await looking.workers("", 12)).workers]
        assert names == [f"w{number}" for number in range(12)]

    looked_at(story)


def test_settled_tasks_come_newest_first():
    """With the beginning of their errors."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        submit(live, "a", "b", "c")
        for name in ("a", "b"):
            live.core.cancel(name, live.now())
        found = await looking.tasks([TaskState.FAILED], 10)
        assert [task.id for task in found.tasks] == ["b", "a"]
        assert found.tasks[0].error == "cancelled by its submitter"
        assert [task.id for task in (await looking.tasks((), 10)).tasks] == ["c"]

    looked_at(story)


def test_what_is_told_travels_whole():
    """Each view is the same behind the wire; what is not known stays unknown."""

    async def story(live: LiveCoordinator, looking: Looking) -> None:
        register(live, "w1", prefetch=2, labels=("zone=b",))
        submit(live, "a", "b", "c", "d")
        submit(live, "e", requires="gpu=a100")
        live.core.result(Report("w1", "a", 1, True, value="1", ran_s=0.5), live.now())
        live.core.deregister("w1", live.now())
        snapshot = await looking.snapshot()
        assert [event.event for event in snapshot.events] == ["left"]
        for view in (
            snapshot,
            await looking.queue(),
            await looking.workers("w1", 1),
            await looking.tasks([], 10),
            await looking.task("b"),
        ):
            message = watching.message_of(view)
            again = type(message).FromString(message.SerializeToString())
            assert watching.view_of(type(view), again) == view
        nothing = TaskView("t", PENDING, "k", 1, "", 0, "", 0.0, 0.0, "", "")
        assert watching.view_of(TaskView, watching.message_of(nothing)) == nothing

    looked_at(story)
    assert {Snapshot, QueueView, Workers, Tasks, TaskDetail} <= set(watching._MESSAGES)


def test_a_worker_is_told_to_drain_until_it_says_so():
    """In every message, and on its next stream too; not any more once it has said so, and it gets nothing new."""

    async def story() -> None:
        async with coordinator() as (live, channel):
            hand = await Hand(channel, "w1", capacity=2).register()
            views = rpc.Stub(channel, rpc.CLUSTER_VIEW)
            answer = await views.Drain(watching.drain_request("w1"))
            assert watching.incarnation_of(answer) == "a"
            assert await hand.hears("drain")
            await hand.say(beat={"active": 0})
            assert await hand.hears("drain")
            hand.call.cancel()
            again = await Hand(channel, "w1", capacity=2).register()
            assert await again.hears("drain")
            live.submit("t", Job("sleep", "0"), 1)
            await again.say(draining=True)
            await again.say(beat={"active": 0}, draining=True)
            while (message := await again.call.read()).drain:
                assert not message.assignments
            await again.say(leaving=True)
            while live.core.worker("w1").state is not WorkerState.LEFT:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            with pytest.raises(grpc.aio.AioRpcError, match="worker w1 has left already"):
                await views.Drain(watching.drain_request("w1"))

    play(story)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetTasks", watch_pb2.TasksRequest(states=[17])),  # type: ignore[list-item]
        ("GetWorkers", watching.workers_request("x" * 1000, 1)),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(method: str, request_: object):
    """As any message that is none."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await getattr(rpc.Stub(channel, rpc.CLUSTER_VIEW), method)(request_)
            assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    play(story)


def test_who_watches_is_bounded():
    """An interval is a number of seconds, and so many watch at most; those who go make room."""

    async def story() -> None:
        async with coordinator() as (_, channel):
            watch = rpc.Stub(channel, rpc.CLUSTER_VIEW).Watch
            with pytest.raises(grpc.aio.AioRpcError, match="an interval is a number of seconds, not nan"):
                await watch(watching.watch_request(float("nan"))).read()
            calls = [watch(watching.watch_request(60)) for _ in range(Limits.watchers)]
            for call in calls:
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError, match="no more are told"):
                await watch(watching.watch_request(60)).read()
            calls.pop().cancel()
            while True:
                try:
                    await watch(watching.watch_request(60)).read()
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.01)

    play(story)
