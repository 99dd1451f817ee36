"""A worker process that registers again: as the same incarnation it keeps what it holds, as a new one it lost it."""

from __future__ import annotations

import pytest

from orchestrator.core.inputs import Registration
from orchestrator.core.model import Detail, Outcome, Priority, TaskState, WorkerState
from tests.core.recording import Assign, Cancel, Changed, Ended, Registered, complete, tell


def introduce(core, worker="w1", incarnation="a", held=(), capacity=2, now=0.0):
    """As a driver does it."""
    known = core.knows_incarnation(worker, incarnation)
    registration = Registration(worker, incarnation, capacity, 0, False, tuple(held), request=7)
    (core.reconnected if known else core.register)(registration, now)


@pytest.fixture
def make_cluster(make_coordinator):
    """w1, in incarnation "a", with two slots."""

    def make(*tasks, **settings):
        core, fx = make_coordinator(**settings)
        introduce(core)
        for task in tasks:
            tell(core, "submit", task, Priority.NORMAL, None, 0.0)
        fx.take()
        return core, fx

    return make


@pytest.mark.parametrize("meaning", ["hold", "dead"])
def test_the_same_incarnation_keeps_what_it_runs(make_cluster, meaning):
    """Whatever a broken connection means: its attempts go on, and none is started twice."""
    core, fx = make_cluster("t1", "t2", on_failed_call=meaning)
    core.connection_lost("w1", 1.0)
    introduce(core, held=[("t1", 1), ("t2", 1)], now=1.1)
    assert fx.take(Assign, Cancel, Ended, Registered) == [Registered("w1", 7, ())]
    complete(core, "w1", "t1", 1, 2.0)
    complete(core, "w1", "t2", 1, 2.0)
    assert (core.completed, core.task("t1").attempt, core.task("t2").attempt) == (2, 1, 1)


def test_a_new_incarnation_has_lost_everything(make_cluster):
    """What the former process ran is requeued at once, and goes out to the new one."""
    core, fx = make_cluster("t1", "t2")
    introduce(core, incarnation="b", now=1.0)
    assert fx.take(Ended) == [
        Ended("t1", "w1", 1, Outcome.WORKER_DIED),
        Ended("t2", "w1", 1, Outcome.WORKER_DIED),
    ]
    assert [core.task(task).attempt for task in ("t1", "t2")] == [2, 2]


def test_an_assignment_that_got_lost_with_the_connection_is_made_again_and_is_no_try(make_cluster):
    """The worker does not hold it: it never arrived, which is nobody's fault."""
    core, fx = make_cluster("t1", "t2", max_attempts=1)
    core.connection_lost("w1", 1.0)
    introduce(core, held=[("t1", 1)], now=1.1)
    assert fx.take(Assign, Ended) == [
        Ended("t2", "w1", 1, Outcome.CALL_FAILED),
        Assign("t2", "w1", 2),
    ]


def test_a_worker_that_was_declared_dead_returns_with_what_it_holds(make_cluster):
    """If nothing took the place of its attempts yet, they go on."""
    core, fx = make_cluster("t1")
    core.wake(7.0)
    fx.take()
    assert core.worker("w1").state is WorkerState.DEAD
    introduce(core, held=[("t1", 1)], now=8.0)
    assert fx.take(Changed, Assign) == [Changed("w1", "up", Detail.RECONNECTED)]
    assert core.task("t1").state is TaskState.ASSIGNED
    complete(core, "w1", "t1", 1, 9.0)
    assert core.completed == 1


def test_the_worker_is_told_what_nobody_wants_any_more(make_cluster):
    """Attempts of settled and of unknown tasks are to be dropped."""
    core, fx = make_cluster("t1", "t2")
    introduce(core, "w2", "x")
    core.connection_lost("w1", 1.0)
    complete(core, "w1", "t1", None, 1.5)
    fx.take()
    introduce(core, held=[("t1", 1), ("t2", 1), ("nope", 3)], now=2.0)
    assert fx.take(Registered) == [Registered("w1", 7, (("t1", 1), ("nope", 3)))]


def test_a_new_coordinator_has_the_worker_drop_what_it_does_not_know(make_cluster):
    """A process that is new to the coordinator may hold attempts of another term."""
    core, fx = make_cluster()
    introduce(core, "w2", "x", held=[("t9", 4)], now=1.0)
    assert fx.take(Registered) == [Registered("w2", 7, (("t9", 4),))]


def test_abandoned_attempts_that_the_worker_no_longer_holds_are_closed(make_cluster):
    """They stop occupying it."""
    core, _ = make_cluster("t1", "t2", execution_timeout_s=1.0)
    core.wake(1.0)
    introduce(core, held=[("t2", 1)], now=1.5)
    worker = core.worker("w1")
    assert [attempt.key for attempt in worker.abandoned] == [("t2", 1)]


def test_a_worker_that_left_registers_anew(make_cluster):
    """Its leave was its last word."""
    core, _ = make_cluster("t1")
    core.deregister("w1", 1.0)
    assert not core.knows_incarnation("w1", "a")


def test_without_an_incarnation_every_registration_is_a_new_process(make_coordinator):
    """The wire contract has none."""
    core, _ = make_coordinator()
    introduce(core, incarnation="")
    assert not core.knows_incarnation("w1", "")


def test_a_quarantined_worker_gets_tasks_again_when_it_reconnects(make_cluster):
    """It need not wait for its heartbeat."""
    core, fx = make_cluster("t1")
    core.connection_lost("w1", 1.0)
    tell(core, "submit", "t2", Priority.NORMAL, None, 1.0)
    assert fx.take(Assign) == []
    introduce(core, held=[("t1", 1)], now=1.2)
    assert fx.take(Assign) == [Assign("t2", "w1", 1)]


@pytest.mark.parametrize("incarnation", ["a", "b"])
def test_a_worker_that_drains_as_it_registers_gets_nothing(make_cluster, incarnation):
    """What waits goes on waiting, whether its process is known or not; what it holds goes on."""
    core, fx = make_cluster("t1", "t2", "t3")
    held = (("t1", 1), ("t2", 1)) if incarnation == "a" else ()
    registration = Registration("w1", incarnation, 3, 0, False, held, draining=True)
    (core.reconnected if incarnation == "a" else core.register)(registration, 1.0)
    assert fx.take(Assign) == []
    assert core.worker("w1").draining
    if incarnation == "a":
        complete(core, "w1", "t1", 1, 2.0)
        assert fx.take(Assign) == []
    introduce(core, worker="w2", capacity=3, now=3.0)
    assert {assign.worker for assign in fx.take(Assign)} == {"w2"}
