"""Suspects, the cap on the dead, beats that are too old, and the coordinator's own pauses."""

from __future__ import annotations

import pytest

from orchestrator.core.membership import HEARING_S
from orchestrator.core.model import Outcome, TaskState, WorkerState
from orchestrator.policies.detection import SLACK_S, ChenConfig, PhiAccrualConfig, TimeoutConfig
from tests.core.making import DEAD_AFTER_S, TIMEOUT_S
from tests.core.recording import (
    Answered,
    Assign,
    Cancel,
    Changed,
    Ended,
    Settled,
    WakeAt,
    assigned,
    beat,
    complete,
    heartbeat,
    register,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED
SUSPECT_S = DEAD_AFTER_S / 2
SUSPECTING = TimeoutConfig(timeout_s=DEAD_AFTER_S - SLACK_S, suspect_after=0.5).build()


# ---- the coordinator's own pauses


def test_it_wakes_often_enough_to_know_when_it_slept(make_cluster):
    """With nothing due for 6 s the alarm rings every half second all the same."""
    core, fx = make_cluster("w1", own_pause_s=0.5)
    core.wake(0.5)
    assert fx.take() == [WakeAt(1.0)]


def test_a_coordinator_without_workers_and_tasks_sleeps_on(make_coordinator):
    """There is nothing that it could miss."""
    core, fx = make_coordinator(own_pause_s=0.5)
    core.wake(0.5)
    assert fx.take() == []


def test_after_a_sleep_it_listens_before_it_acts(make_cluster):
    """An alarm that rings 20 s late does nothing but ask for another one a moment later."""
    core, fx = make_cluster("w1", "w2", own_pause_s=0.5, execution_timeout_s=3.0, delay_s=1.0)
    assigned(core, "t1")
    core.wake(20.0)
    assert fx.take() == [WakeAt(20.0 + HEARING_S)]


def test_a_result_that_came_during_the_sleep_beats_the_timeout(make_cluster):
    """Its deadline passed, and so had its work been done in time."""
    core, fx = make_cluster("w1", own_pause_s=0.5, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(20.0)
    complete(core, "w1", "t1", 1, 20.1)
    core.wake(20.0 + HEARING_S)
    assert fx.take(Settled, Ended) == [Ended("t1", "w1", 1, Outcome.COMPLETED), Settled("t1", COMPLETED, "w1")]
    assert core.task("t1").tries == 0


def test_a_timeout_that_nobody_answered_strikes_after_the_hearing(make_cluster):
    """What was not heard by then is overdue."""
    core, _ = make_cluster("w1", own_pause_s=0.5, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(20.0)
    assert core.task("t1").tries == 0
    core.wake(20.0 + HEARING_S)
    assert core.task("t1").tries == 1


def live_on(core, *workers, since, until):
    """Beats every 2 s, and alarms in time."""
    for quarter in range(int(4 * since) + 1, int(4 * until) + 1):
        if quarter % 8 == 0:
            beat(core, *workers, now=quarter / 4)
        core.wake(quarter / 4)


def sleep_and_wake_with(detector, make_cluster):
    """Two workers beat every 2 s; it sleeps from 100 s to 120.1 s; w1 beats on, and of w2 nothing is heard again."""
    core, fx = make_cluster("w1", "w2", own_pause_s=0.5, heartbeat_s=2.0, detector=detector)
    live_on(core, "w1", "w2", since=0.0, until=100.0)
    fx.take()
    for _ in range(10):
        beat(core, "w1", now=120.1)
    core.wake(120.1)
    return core, fx


@pytest.mark.parametrize(
    "detector",
    [
        TimeoutConfig(timeout_s=2.5, suspect_after=0.9).build(),
        PhiAccrualConfig(kind="phi_accrual", suspect_after=0.9).build(),
        ChenConfig(kind="chen", alpha_s=0.5, suspect_after=0.9).build(),
    ],
    ids=["timeout", "phi", "chen"],
)
def test_a_sleeper_declares_nobody_dead_who_had_no_time_to_beat(make_cluster, detector):
    """For a heartbeat and a half nobody is judged; then the one that is still silent is dead, the other one well."""
    core, fx = sleep_and_wake_with(detector, make_cluster)
    now = 120.1
    while now < 120.1 + HEARING_S + 3.0 - 0.11:
        now += 0.1
        core.wake(now)
        if abs(now - 122.0) < 0.05:
            beat(core, "w1", now=122.0)
    assert fx.take(Changed) == []
    core.wake(120.1 + HEARING_S + 3.0)
    assert [change for change in fx.take(Changed) if change.kind == "dead"] == [Changed("w2", "dead", "detector")]
    assert core.worker("w1").state is WorkerState.ALIVE


@pytest.mark.parametrize(
    "detector",
    [PhiAccrualConfig(kind="phi_accrual").build(), ChenConfig(kind="chen", alpha_s=0.5).build()],
    ids=["phi", "chen"],
)
def test_a_sleep_does_not_blind_an_estimator(make_cluster, detector):
    """A worker that dies after the sleep is found as soon as it would have been without it."""
    core, _ = sleep_and_wake_with(detector, make_cluster)
    live_on(core, "w1", since=120.1, until=130.0)
    assert core.worker("w1").detector.review_at() - 130.0 < 2.6


def test_a_beat_may_be_the_first_to_tell_of_the_sleep(make_cluster):
    """What arrived in the meantime is heard before the alarm rings: its gap counts for nothing all the same."""
    core, _ = make_cluster("w1", own_pause_s=0.5, detector=PhiAccrualConfig(kind="phi_accrual").build())
    live_on(core, "w1", since=0.0, until=100.0)
    beat(core, "w1", now=120.0)
    live_on(core, "w1", since=120.0, until=130.0)
    assert core.worker("w1").detector.review_at() - 130.0 < 2.6


def test_one_that_never_wakes_in_time_acts_all_the_same(make_cluster):
    """Where the second alarm is late too, deadlines are met late, not never; only the judging waits."""
    core, fx = make_cluster("w1", own_pause_s=0.5, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(20.0)
    core.wake(22.0)
    assert core.task("t1").tries == 1
    assert fx.take(Changed) == []


# ---- suspicion


def test_a_suspects_work_is_hedged_elsewhere(make_cluster):
    """Each of its open attempts gets a hedge on another worker; the first result settles the task."""
    core, fx = make_cluster("w1", "w2", capacity=2, detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1", "t2", "t3")
    beat(core, "w2", now=2.0, active=1)
    core.wake(SUSPECT_S)
    assert fx.take(Changed, Assign) == [Changed("w1", "suspect"), Assign("t1", "w2", 2)]
    complete(core, "w2", "t2", 1, 3.5)
    assert fx.take(Assign) == [Assign("t3", "w2", 2)]
    complete(core, "w1", "t1", 1, 4.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, "w1"), Cancel("t1", "w2", 2)]
    assert core.task("t1").tries == 0


def test_a_waiting_task_goes_before_a_hedge(make_cluster):
    """A hedge gets only room that nobody else wants."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1", "t2", "t3")
    beat(core, "w2", now=2.0, active=1)
    core.wake(SUSPECT_S)
    complete(core, "w2", "t2", 1, 3.5)
    assert fx.take(Assign) == [Assign("t3", "w2", 1)]
    complete(core, "w2", "t3", 1, 4.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_suspect_that_beats_again_needs_no_hedges(make_cluster):
    """Those that have not started don't."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1", "t2")
    beat(core, "w2", now=2.0, active=1)
    core.wake(SUSPECT_S)
    beat(core, "w1", now=3.2, active=1)
    complete(core, "w2", "t2", 1, 3.5)
    assert fx.take(Assign) == []


def test_a_hedge_on_a_suspect_gets_a_hedge(make_cluster):
    """As long as a task counts on nothing but suspects."""
    core, fx = make_cluster("w1", "w2", "w3", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1")
    beat(core, "w2", "w3", now=2.0)
    core.wake(SUSPECT_S)
    beat(core, "w3", now=4.0)
    core.wake(2.0 + SUSPECT_S)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]


def test_a_hedge_that_comes_to_nothing_is_replaced(make_cluster):
    """The suspect's attempt is alone again."""
    core, fx = make_cluster("w1", "w2", "w3", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1")
    beat(core, "w2", "w3", now=2.0)
    core.wake(SUSPECT_S)
    core.rejected("w2", "t1", 2, 3.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]


def test_the_hedge_of_a_suspect_goes_on_when_that_is_dead(make_cluster):
    """The death consumes a try, and needs no further attempt."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge", max_attempts=1)
    assigned(core, "t1")
    beat(core, "w2", now=2.0)
    core.wake(SUSPECT_S)
    beat(core, "w2", now=4.0, active=1)
    fx.take()
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed, Assign, Settled) == [Changed("w1", "dead", "detector")]
    complete(core, "w2", "t1", 2, 7.0)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w2")]


def test_a_task_whose_last_hedge_is_turned_away_has_no_tries_left(make_cluster):
    """The original consumed the only one; the hedge, which never ran, is no reason to begin another."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge", max_attempts=1)
    assigned(core, "t1")
    beat(core, "w2", now=2.0)
    core.wake(SUSPECT_S)
    beat(core, "w2", now=4.0, active=1)
    core.wake(DEAD_AFTER_S)
    fx.take()
    core.rejected("w2", "t1", 2, 7.0)
    assert fx.take(Settled) == [Settled("t1", FAILED, "w2")]
    assert core.task("t1").error == "gave up after 1 attempts: its worker was declared dead"


def test_a_lost_hedge_fails_no_task_that_has_a_try_left(make_cluster):
    """Its original was turned away: neither of them consumed the only one."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge", max_attempts=1)
    assigned(core, "t1")
    beat(core, "w2", now=2.0)
    core.wake(SUSPECT_S)
    core.rejected("w1", "t1", 1, 3.5)
    core.deregister("w2", 4.0)
    assert fx.take(Settled) == []
    assert core.task("t1").tries == 0
    beat(core, "w1", now=4.5)
    assert fx.take(Assign) == [Assign("t1", "w1", 3)]


# ---- the cap on the dead


def test_no_more_than_a_share_is_dead_at_once(make_cluster):
    """Of four silent workers half are declared dead; the others are suspects, and keep their work."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_dead_share=0.5)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed) == [
        Changed("w1", "dead", "detector"), Changed("w2", "dead", "detector"),
        Changed("w3", "suspect"), Changed("w4", "suspect"),
    ]  # fmt: skip


@pytest.mark.parametrize("back", ["heartbeat", "register"])
def test_who_returns_makes_room_among_the_dead(make_cluster, back):
    """The next one is judged anew, as if it had been heard then: the network may be back for all of them."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_dead_share=0.5)
    core.wake(DEAD_AFTER_S)
    beat(core, "w4", now=6.5)
    fx.take()
    {
        "heartbeat": lambda: heartbeat(core, "w1", 0, 7.0),
        "register": lambda: register(core, "w1", 1, 0, True, 7.0),
    }[back]()
    beat(core, "w1", "w4", now=12.0)
    fx.take()
    core.wake(7.0 + TIMEOUT_S)
    assert Changed("w3", "dead", "detector") not in fx.take(Changed)
    core.wake(7.0 + DEAD_AFTER_S)
    assert Changed("w3", "dead", "detector") in fx.take(Changed)


def test_a_partition_that_ends_condemns_nobody_beyond_the_share(make_cluster):
    """Six workers are cut off for 6 s, one may be dead: one is, and none of the others as each returns."""
    workers = [f"w{number}" for number in range(1, 7)]
    core, fx = make_cluster(*workers, max_dead_share=0.17)
    core.wake(DEAD_AFTER_S)
    for number, worker in enumerate(workers):
        now = DEAD_AFTER_S + 0.3 * number
        heartbeat(core, worker, 0, now)
        core.wake(now)
    assert [change.worker for change in fx.take(Changed) if change.kind == "dead"] == ["w1"]


def test_an_estimate_learns_nothing_from_a_suspended_rule(make_cluster):
    """That a spared worker is judged anew is no heartbeat: Chen's estimate of its rhythm stays."""
    detector = ChenConfig(kind="chen", heartbeat_s=1.0, alpha_s=0.1).build()
    core, fx = make_cluster("w1", "w2", detector=detector, max_dead_share=0.5)
    for second in range(1, 9):
        beat(core, "w1", "w2", now=float(second))
    core.wake(9.5)
    heartbeat(core, "w1", 0, 20.3)  # w2 is judged anew
    for second in range(21, 24):
        beat(core, "w1", "w2", now=float(second))
    fx.take()
    core.wake(24.09)
    assert fx.take(Changed) == []
    core.wake(24.2)
    assert [change.kind for change in fx.take(Changed)][:1] == ["dead"]


def test_one_may_always_be_declared_dead(make_cluster):
    """A small share of a small cluster is no reason to wait for the dead."""
    core, fx = make_cluster("w1", "w2", max_dead_share=0.1)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed) == [Changed("w1", "dead", "detector"), Changed("w2", "suspect")]


def test_a_death_by_failed_call_is_not_the_detectors(make_cluster):
    """It is no opinion about silence, and not limited."""
    core, fx = make_cluster("w1", "w2", max_dead_share=0.5, on_failed_call="dead")
    core.connection_lost("w1", 1.0)
    core.connection_lost("w2", 1.0)
    assert [change.kind for change in fx.take(Changed)] == ["dead", "dead"]


# ---- beats that are too old


def test_a_beat_that_is_too_old_revives_nobody(make_cluster):
    """NFD-E trusts from a fresh beat on: one that was overtaken by its successor's time brings back no trust."""
    core, fx = make_cluster("w1", detector=ChenConfig(kind="chen", heartbeat_s=1.0, alpha_s=0.1).build())
    for number in (1.0, 2.0, 3.0):
        beat(core, "w1", now=number)
    core.wake(core.worker("w1").detector.review_at())
    assert fx.take(Changed) == [Changed("w1", "dead", "detector")]
    core.worker("w1").detector._expected.newest = 9  # as if a beat of the future had been heard
    beat(core, "w1", now=4.5)
    assert fx.take(Changed, Answered) == [Answered("w1", True)]
    beat(core, "w1", now=13.0)
    assert fx.take(Changed) == [Changed("w1", "up", "revived")]
