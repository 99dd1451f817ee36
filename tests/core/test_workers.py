"""What becomes of workers: registration, death, revival, leaving; and the alarm."""

from __future__ import annotations

from orchestrator.core.deadlines import Ticks
from orchestrator.core.model import Outcome, TaskState
from orchestrator.core.ports import Verdict
from tests.core.making import DEAD_AFTER_S, TIMEOUT_S
from tests.core.recording import (
    Accepted,
    Answered,
    Assign,
    Cancel,
    Changed,
    Ended,
    Settled,
    WakeAt,
    assigned,
    complete,
    heartbeat,
    register,
    submit,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


# ---- registration, death, revival, leaving


def test_a_registered_worker_is_up(make_coordinator):
    """A first registration is announced so, and sets the alarm for the detector."""
    core, fx = make_coordinator()
    register(core, "w1", 2, 0, True, 1.0)
    assert fx.take() == [Changed("w1", "up", "registered"), WakeAt(1.0 + DEAD_AFTER_S)]


def test_registering_again_requeues_at_once(make_cluster):
    """What the old process held, given up or not, is lost with it."""
    core, fx = make_cluster("w1", capacity=2, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    register(core, "w1", 2, 0, True, 4.0)
    assert fx.take(Ended, Changed, Assign) == [
        Ended("t1", "w1", 1, Outcome.TIMED_OUT),
        Ended("t1", "w1", 2, Outcome.WORKER_DIED),
        Changed("w1", "up", "reregistered"),
        Assign("t1", "w1", 3),
    ]
    assert core.worker("w1").load == 1


def test_registering_again_ends_hold_and_drain(make_cluster):
    """A new process begins with a clean sheet."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.rejected("w1", "t1", 1, 1.0)
    core.drain("w1", 1.0)
    fx.take()
    register(core, "w1", 1, 0, True, 2.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]


def test_a_silent_worker_is_dead_and_its_tasks_go_back(make_cluster):
    """At the moment after the timeout, not before it, the worker is declared dead and its task runs elsewhere."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    heartbeat(core, "w2", 0, 5.0)
    core.wake(TIMEOUT_S)
    assert fx.take(Changed) == []
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed, Assign) == [Changed("w1", "dead", "detector"), Assign("t1", "w2", 2)]


def test_a_heartbeat_postpones_the_verdict(make_cluster):
    """The alarm may ring at the old moment; the worker lives, and the alarm is set to the new one."""
    core, fx = make_cluster("w1")
    heartbeat(core, "w1", 0, 2.0)
    assert fx.take() == [Answered("w1", True)]
    core.wake(DEAD_AFTER_S)
    assert fx.take() == [WakeAt(2.0 + DEAD_AFTER_S)]


def test_a_periodic_check_declares_dead_at_its_next_tick(make_cluster):
    """With a check every 2 s from 0.5 s on, a silence since 0 is seen at 6.5 s."""
    core, fx = make_coordinator_with_ticks(make_cluster)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed) == []
    core.wake(6.5)
    assert fx.take(Changed) == [Changed("w1", "dead", "detector")]


def make_coordinator_with_ticks(make_cluster):
    return make_cluster("w1", detection_check=Ticks(every_s=2.0, phase_s=0.5))


def test_a_dead_worker_gets_nothing(make_cluster):
    """Neither new tasks nor its old ones."""
    core, fx = make_cluster("w1")
    core.wake(DEAD_AFTER_S)
    fx.take()
    submit(core, "t1", now=7.0)
    assert fx.take() == [Accepted("t1")]


def test_a_later_heartbeat_revives_a_dead_worker(make_cluster):
    """It is up again, gets work at once, and is watched again."""
    core, fx = make_cluster("w1")
    core.wake(DEAD_AFTER_S)
    submit(core, "t1", now=7.0)
    fx.take()
    heartbeat(core, "w1", 0, 8.0)
    assert fx.take() == [
        Changed("w1", "up", "revived"),
        WakeAt(8.0 + DEAD_AFTER_S),
        Answered("w1", True),
        Assign("t1", "w1", 1),
    ]


def test_a_revived_worker_keeps_the_load_that_it_reports(make_cluster):
    """A pause is no crash: what it still runs counts."""
    core, fx = make_cluster("w1", capacity=2)
    assigned(core, "t1", "t2")
    core.wake(DEAD_AFTER_S)
    fx.take()
    heartbeat(core, "w1", 1, 8.0)
    assert fx.take(Ended, Assign) == [Ended("t1", "w1", 1, Outcome.WORKER_DIED), Assign("t1", "w1", 2)]


class Moody:
    """A detector that says what its test tells it, and wants to be asked every second."""

    mood = Verdict.ALIVE

    def __init__(self, now):
        self.asked = now

    def heard(self, now):
        self.asked = now

    def verdict(self, now):
        self.asked = now
        return Moody.mood

    def review_at(self):
        return self.asked + 1.0


def test_a_suspect_gets_nothing_and_loses_nothing(make_cluster, monkeypatch):
    """Suspicion stops new work; a heartbeat clears it."""
    core, fx = make_cluster("w1", capacity=2, detector=Moody)
    assigned(core, "t1")
    monkeypatch.setattr(Moody, "mood", Verdict.SUSPECT)
    core.wake(1.0)
    submit(core, "t2", now=1.0)
    assert fx.take(Changed, Assign, Ended) == [Changed("w1", "suspect")]
    heartbeat(core, "w1", 1, 1.5)
    assert fx.take(Changed, Assign) == [Changed("w1", "up", "revived"), Assign("t2", "w1", 1)]


def test_an_unknown_workers_heartbeat_is_answered_so(make_coordinator):
    """It is asked to register."""
    core, fx = make_coordinator()
    heartbeat(core, "ghost", 0, 1.0)
    assert fx.take() == [Answered("ghost", False)]


def test_a_draining_worker_gets_nothing_and_finishes(make_cluster):
    """Its results count; a heartbeat does not end the drain."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.drain("w1", 1.0)
    core.drain("w1", 1.1)
    submit(core, "t2", now=1.2)
    assert fx.take() == [Changed("w1", "drain"), Accepted("t2")]
    complete(core, "w1", "t1", 1, 2.0)
    heartbeat(core, "w1", 0, 3.0)
    assert fx.take(Settled, Assign) == [Settled("t1", COMPLETED, "w1")]


def test_a_draining_worker_that_falls_silent_may_still_deliver(make_cluster):
    """It stopped beating at the signal and was declared dead; its result is accepted, and the retry cancelled."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    core.drain("w1", 1.0)
    heartbeat(core, "w2", 0, 5.0)
    core.wake(DEAD_AFTER_S)
    fx.take()
    complete(core, "w1", "t1", 1, 8.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, "w1"), Cancel("t1", "w2", 2)]


def test_a_worker_that_leaves_hands_back_what_it_held(make_cluster):
    """Deregistration requeues at once; what comes from it afterwards is from a stranger."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    core.deregister("w1", 1.0)
    assert fx.take() == [
        Changed("w1", "left"),
        Ended("t1", "w1", 1, Outcome.WORKER_DIED),
        Assign("t1", "w2", 2),
    ]
    core.deregister("w1", 1.1)
    core.drain("w1", 1.1)
    heartbeat(core, "w1", 0, 1.2)
    assert fx.take() == [Answered("w1", False)]


def test_a_worker_that_left_is_not_judged(make_cluster):
    """Nobody declares a worker dead that said goodbye."""
    core, fx = make_cluster("w1")
    core.deregister("w1", 1.0)
    fx.take()
    core.wake(100.0)
    assert fx.take(Changed) == []


# ---- the alarm


def test_the_alarm_is_set_again_only_for_something_earlier(make_cluster):
    """A later deadline does not touch it, an earlier one does."""
    core, fx = make_cluster("w1", "w2", capacity=3, execution_timeout_s=3.0)
    submit(core, "t1", now=1.0)
    submit(core, "t2", now=1.5)
    heartbeat(core, "w1", 2, 1.6)
    assert fx.take(WakeAt) == [WakeAt(4.0)]


def test_the_alarm_is_set_once_after_it_rang(make_cluster):
    """However much a wake does, it asks for one alarm: the earliest deadline that is left."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0, delay_s=10.0)
    assigned(core, "t1", "t2", "t3", now=1.0)
    heartbeat(core, "w1", 1, 2.0)
    heartbeat(core, "w2", 0, 3.0)
    fx.take()
    core.wake(4.0)
    assert fx.take(WakeAt) == [WakeAt(DEAD_AFTER_S)]


def test_an_extra_wake_is_harmless(make_cluster):
    """An early one does nothing but ask again for the same moment."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(1.0)
    core.wake(1.0)
    assert fx.take() == [WakeAt(3.0), WakeAt(3.0)]


def test_a_wake_that_finds_nothing_left_asks_for_nothing(make_coordinator):
    """Without deadlines there is no alarm."""
    core, fx = make_coordinator()
    core.wake(1.0)
    assert fx.take() == []


def test_a_late_wake_does_all_that_is_due(make_cluster):
    """Timeouts, deaths and retries of a whole pause are made up for at once."""
    core, fx = make_cluster("w1", "w2", capacity=2, execution_timeout_s=3.0, delay_s=1.0)
    assigned(core, "t1", "t2")
    core.wake(100.0)
    assert fx.take(Changed) == [Changed("w1", "dead", "detector"), Changed("w2", "dead", "detector")]
    assert core.pending == 2
