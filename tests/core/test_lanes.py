"""Tasks that no present worker can take block nobody, and keep their order among themselves."""

from __future__ import annotations

from collections import deque

import pytest

from orchestrator.core.model import Priority
from orchestrator.policies.routing import RoundRobin
from tests.core.recording import Assign, complete, register, tell


class ByKind(RoundRobin):
    """A worker takes tasks whose payload occurs in its name: "gpu1" takes "gpu" tasks. Others refuse them."""

    def __init__(self):
        super().__init__()
        self.here = {}
        self.asked = 0

    def joined(self, worker):
        self.here[worker.id] = worker

    def left(self, worker):
        del self.here[worker.id]

    def load_changed(self, worker, before):
        pass

    def check(self, assignable):
        assert set(self.here.values()) == set(assignable)

    def choose(self, task):
        self.asked += 1
        fitting = (w for name, w in self.here.items() if task.payload in name and w.load < w.limit)
        return next(fitting, None)


class ByLane(ByKind):
    def lane(self, task):
        return task.payload


@pytest.fixture(params=[ByKind, ByLane])
def routing(request):
    """A routing policy that refuses some tasks, and one that also says which of them are alike."""
    return request.param()


@pytest.fixture
def cluster(make_coordinator, routing):
    core, fx = make_coordinator(routing=routing)
    register(core, "cpu1", 1, 0, True, 0.0)
    return core, fx


def submit(core, *tasks, priority=Priority.NORMAL, now=0.0):
    """Each task is named after its kind: "gpu-1"."""
    for task in tasks:
        tell(core, "submit", task, priority, task.split("-")[0], now)


def test_a_refused_task_blocks_no_other(cluster):
    """A task behind one that no worker can take is assigned at once."""
    core, fx = cluster
    submit(core, "gpu-1", "cpu-1")
    assert fx.take(Assign) == [Assign("cpu-1", "cpu1", 1)]
    core.check()


def test_refused_tasks_go_in_order_when_a_worker_joins_that_takes_them(cluster):
    """They keep the order of their age."""
    core, fx = cluster
    submit(core, "gpu-1", "gpu-2", "cpu-1", "gpu-3")
    fx.take()
    register(core, "gpu1", 2, 0, True, 1.0)
    assert fx.take(Assign) == [Assign("gpu-1", "gpu1", 1), Assign("gpu-2", "gpu1", 1)]
    core.check()
    complete(core, "gpu1", "gpu-1", 1, 2.0)
    assert fx.take(Assign) == [Assign("gpu-3", "gpu1", 1)]


def test_priority_counts_inside_a_lane(cluster):
    """A task that came later goes first, if it is more urgent."""
    core, fx = cluster
    submit(core, "gpu-1", "gpu-2")
    submit(core, "gpu-3", priority=Priority.URGENT)
    fx.take()
    register(core, "gpu1", 1, 0, True, 1.0)
    assert fx.take(Assign) == [Assign("gpu-3", "gpu1", 1)]
    complete(core, "gpu1", "gpu-3", 1, 2.0)
    assert fx.take(Assign) == [Assign("gpu-1", "gpu1", 1)]


def test_a_refused_task_is_tried_when_a_load_falls(cluster):
    """A worker that takes such tasks but was full gets one as soon as it has room."""
    core, fx = cluster
    register(core, "gpu1", 1, 0, True, 0.0)
    submit(core, "gpu-1", "gpu-2", "cpu-1", "cpu-2")
    assert fx.take(Assign) == [Assign("gpu-1", "gpu1", 1), Assign("cpu-1", "cpu1", 1)]
    complete(core, "gpu1", "gpu-1", 1, 1.0)
    assert fx.take(Assign) == [Assign("gpu-2", "gpu1", 1)]


def test_a_task_that_is_settled_in_its_lane_leaves_it(cluster):
    """A late result may settle a task that waits for a worker: the next one of its lane goes instead."""
    core, fx = cluster
    register(core, "gpu1", 1, 0, True, 0.0)
    submit(core, "gpu-1")
    core.wake(7.0)  # gpu1 is declared dead, and its task waits again, with nobody to take it
    tell(core, "heartbeat", "cpu1", 0, 7.0)
    submit(core, "gpu-2", now=7.0)
    complete(core, "gpu1", "gpu-1", 1, 8.0)
    core.check()
    fx.take()
    register(core, "gpu2", 1, 0, True, 9.0)
    assert fx.take(Assign) == [Assign("gpu-2", "gpu2", 1)]


def test_every_task_of_a_lane_is_found_by_the_proof(cluster):
    """`check` knows that a task in a lane waits there."""
    core, _ = cluster
    submit(core, *[f"gpu-{number}" for number in range(5)], *[f"tpu-{number}" for number in range(5)])
    core.check()
    assert core.pending == 10


def test_one_refusal_speaks_for_its_whole_lane(make_coordinator):
    """Where the policy knows lanes, a change costs a question for each lane, not for each task."""
    routing = ByLane()
    core, _ = make_coordinator(routing=routing)
    register(core, "cpu1", 1, 0, True, 0.0)
    submit(core, *[f"gpu-{number}" for number in range(100)])
    routing.asked = 0
    register(core, "cpu2", 1, 0, True, 1.0)
    assert routing.asked == 1


def test_a_policy_may_change_its_mind_about_lanes(make_coordinator):
    """No task is lost when the lane of a task is another one than before."""

    class Moody(ByLane):
        mood = 0

        def lane(self, task):
            return (task.payload, self.mood)

    routing = Moody()
    core, fx = make_coordinator(routing=routing)
    register(core, "cpu1", 1, 0, True, 0.0)
    submit(core, "gpu-1", "gpu-2", "gpu-3")
    for routing.mood in range(1, 4):
        register(core, f"cpu{routing.mood + 1}", 1, 0, True, 1.0)
        core.check()
    fx.take()
    register(core, "gpu1", 3, 0, True, 2.0)
    assert [effect.task for effect in fx.take(Assign)] == ["gpu-1", "gpu-2", "gpu-3"]


class InOrderOfArrival(deque):
    """A discipline that puts a task which comes back at the end."""

    push = deque.append
    pop = deque.popleft


def test_a_lane_may_grow_while_a_task_stands_in_the_queue_for_it(make_coordinator):
    """Some of its tasks were queued before there was a lane: they join it, and the one in the queue stands on."""
    core, fx = make_coordinator(routing=ByLane(), queue=InOrderOfArrival)
    register(core, "cpu1", 1, 0, True, 0.0)
    submit(core, "cpu-0", "gpu-1", "cpu-1", "gpu-2", "cpu-2")
    for done in ("cpu-0", "cpu-1"):
        complete(core, "cpu1", done, 1, 1.0)
        core.check()
    fx.take()
    register(core, "gpu1", 2, 0, True, 2.0)
    assert {effect.task for effect in fx.take(Assign)} == {"gpu-1", "gpu-2"}


def test_any_value_names_a_lane(make_coordinator):
    """None too: all tasks of such a lane follow one another."""

    class Nameless(ByLane):
        def lane(self, task):
            return None

    core, fx = make_coordinator(routing=Nameless())
    register(core, "cpu1", 1, 0, True, 0.0)
    submit(core, "gpu-1", "gpu-2", "gpu-3")
    register(core, "gpu1", 3, 0, True, 1.0)
    assert [effect.task for effect in fx.take(Assign)] == ["gpu-1", "gpu-2", "gpu-3"]
