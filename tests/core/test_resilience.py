"""Suspicion, twins, returns, poison, ejection, and the coordinator's own pauses."""

from __future__ import annotations

import pytest

from orchestrator.core.coordinator import HEARING_S
from orchestrator.core.model import Outcome, Priority, TaskState, WorkerState
from orchestrator.policies.detection import SLACK_S, ChenConfig, PhiAccrualConfig, TimeoutConfig
from orchestrator.policies.ejection import Outlier
from orchestrator.policies.hedging import Durations, Quantile
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import (
    Answered,
    Assign,
    Cancel,
    Changed,
    Ended,
    Settled,
    WakeAt,
    complete,
    fail,
    heartbeat,
    register,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED
SUSPECT_S = DEAD_AFTER_S / 2
PATIENT = TimeoutConfig(timeout_s=1e6).build()
SUSPECTING = TimeoutConfig(timeout_s=DEAD_AFTER_S - SLACK_S, suspect_after=0.5).build()


@pytest.fixture
def make_cluster(make_coordinator):
    """`make_cluster("w1", "w2", capacity=1, **settings)`: a coordinator whose workers stand ready."""

    def make(*workers, capacity=1, prefetch=0, **settings):
        core, fx = make_coordinator(**settings)
        for worker in workers:
            register(core, worker, capacity, prefetch, True, 0.0)
        fx.take()
        return core, fx

    return make


def submit(core, *tasks, now=0.0):
    for task in tasks:
        core.submit(task, Priority.NORMAL, None, None, now)


def assigned(core, *tasks, now=0.0):
    """Submit, and forget what that caused."""
    submit(core, *tasks, now=now)
    core._fx.take()


def beat(core, *workers, now, active=0):
    for worker in workers:
        heartbeat(core, worker, active, now)


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
def test_a_sleeper_convicts_nobody_who_had_no_time_to_beat(make_cluster, detector):
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
    """Each of its open attempts gets a twin on another worker; the first result settles the task."""
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


def test_a_waiting_task_goes_before_a_twin(make_cluster):
    """A twin gets only room that nobody else wants."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1", "t2", "t3")
    beat(core, "w2", now=2.0, active=1)
    core.wake(SUSPECT_S)
    complete(core, "w2", "t2", 1, 3.5)
    assert fx.take(Assign) == [Assign("t3", "w2", 1)]
    complete(core, "w2", "t3", 1, 4.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_suspect_that_beats_again_needs_no_twins(make_cluster):
    """Those that have not started don't."""
    core, fx = make_cluster("w1", "w2", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1", "t2")
    beat(core, "w2", now=2.0, active=1)
    core.wake(SUSPECT_S)
    beat(core, "w1", now=3.2, active=1)
    complete(core, "w2", "t2", 1, 3.5)
    assert fx.take(Assign) == []


def test_a_twin_on_a_suspect_gets_a_twin(make_cluster):
    """As long as a task counts on nothing but suspects."""
    core, fx = make_cluster("w1", "w2", "w3", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1")
    beat(core, "w2", "w3", now=2.0)
    core.wake(SUSPECT_S)
    beat(core, "w3", now=4.0)
    core.wake(2.0 + SUSPECT_S)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]


def test_a_twin_that_comes_to_nothing_is_replaced(make_cluster):
    """The suspect's attempt is alone again."""
    core, fx = make_cluster("w1", "w2", "w3", detector=SUSPECTING, on_suspect="hedge")
    assigned(core, "t1")
    beat(core, "w2", "w3", now=2.0)
    core.wake(SUSPECT_S)
    core.rejected("w2", "t1", 2, 3.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]


def test_the_twin_of_a_suspect_goes_on_when_that_is_dead(make_cluster):
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


def test_a_task_whose_last_twin_is_turned_away_has_no_tries_left(make_cluster):
    """The original consumed the only one; the twin, which never ran, is no reason to begin another."""
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


# ---- the cap on convictions


def test_no_more_than_a_share_is_dead_at_once(make_cluster):
    """Of four silent workers half are convicted; the others are suspects, and keep their work."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_dead_share=0.5)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed) == [
        Changed("w1", "dead", "detector"), Changed("w2", "dead", "detector"),
        Changed("w3", "suspect"), Changed("w4", "suspect"),
    ]  # fmt: skip


@pytest.mark.parametrize("back", ["heartbeat", "register"])
def test_who_returns_makes_room_among_the_dead(make_cluster, back):
    """The next one is convicted at once, not at its next beat."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_dead_share=0.5)
    core.wake(DEAD_AFTER_S)
    beat(core, "w4", now=6.5)
    fx.take()
    {
        "heartbeat": lambda: heartbeat(core, "w1", 0, 7.0),
        "register": lambda: register(core, "w1", 1, 0, True, 7.0),
    }[back]()
    assert WakeAt(7.0) in fx.take()
    core.wake(7.0)
    assert fx.take(Changed) == [Changed("w3", "dead", "detector")]


def test_one_may_always_be_convicted(make_cluster):
    """A small share of a small cluster is no reason to wait for the dead."""
    core, fx = make_cluster("w1", "w2", max_dead_share=0.1)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Changed) == [Changed("w1", "dead", "detector"), Changed("w2", "suspect")]


def test_a_conviction_by_failed_call_is_not_the_detectors(make_cluster):
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


# ---- the return of a worker that was given up


@pytest.fixture
def returning(make_cluster):
    """w1 was given up with t1, whose second attempt runs on w2."""

    def make(on_return, **settings):
        core, fx = make_cluster("w1", "w2", on_return=on_return, **settings)
        assigned(core, "t1")
        beat(core, "w2", now=5.0)
        core.wake(DEAD_AFTER_S)
        assert Assign("t1", "w2", 2) in fx.take()
        return core, fx

    return make


def test_by_default_both_attempts_go_on(returning):
    """And the first result counts."""
    core, fx = returning("first_result")
    beat(core, "w1", now=7.0, active=1)
    assert fx.take(Cancel, Ended) == []
    complete(core, "w1", "t1", 1, 8.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, "w1"), Cancel("t1", "w2", 2)]


def test_the_original_is_kept(returning):
    """The replacement is cancelled, and the task counts on the first attempt again."""
    core, fx = returning("keep_original")
    beat(core, "w1", now=7.0, active=1)
    assert fx.take(Changed, Cancel) == [Changed("w1", "up", "revived"), Cancel("t1", "w2", 2)]
    core.cancelled("w2", "t1", 2, 7.1)
    assert fx.take(Ended) == [Ended("t1", "w2", 2, Outcome.CANCELLED)]
    register(core, "w1", 1, 0, True, 8.0)
    assert fx.take(Ended, Assign) == [Ended("t1", "w1", 1, Outcome.WORKER_DIED), Assign("t1", "w2", 3)]


def test_the_replacement_is_kept(returning):
    """The returned worker is told to stop."""
    core, fx = returning("keep_replacement")
    beat(core, "w1", now=7.0, active=1)
    assert fx.take(Cancel) == [Cancel("t1", "w1", 1)]
    core.cancelled("w1", "t1", 1, 7.1)
    complete(core, "w2", "t1", 2, 8.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, "w2")]


@pytest.mark.parametrize("on_return", ["keep_original", "keep_replacement"])
def test_a_worker_that_returns_without_the_attempt_changes_nothing(returning, on_return):
    """Its heartbeat says that it holds none: the replacement goes on."""
    core, fx = returning(on_return)
    beat(core, "w1", now=7.0, active=0)
    assert fx.take(Cancel, Ended) == [Ended("t1", "w1", 1, Outcome.WORKER_DIED)]


@pytest.mark.parametrize("on_return", ["keep_original", "keep_replacement"])
def test_a_replacement_that_still_waits_is_dropped(make_cluster, on_return):
    """There is nothing yet to keep: the original goes on, and the place in the queue is void."""
    core, fx = make_cluster("w1", on_return=on_return)
    assigned(core, "t1")
    core.wake(DEAD_AFTER_S)
    beat(core, "w1", now=7.0, active=1)
    assert (core.task("t1").state, core.pending) == (TaskState.ASSIGNED, 0)
    register(core, "w2", 5, 0, True, 8.0)
    assert fx.take(Assign, Cancel) == []
    register(core, "w1", 1, 0, True, 9.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_place_left_in_the_queue_is_good_again_when_it_is_needed(make_cluster):
    """The task has one place, however often it comes and goes."""
    core, fx = make_cluster("w1", on_return="keep_original")
    assigned(core, "t1")
    for number in range(3):
        core.wake(10.0 * number + 9.0)
        beat(core, "w1", now=10.0 * number + 10.0, active=1)
    core.deregister("w1", 50.0)
    register(core, "w2", 5, 0, True, 51.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_retry_that_still_waits_is_dropped(make_cluster):
    """Also at the moment for which it was set."""
    core, fx = make_cluster("w1", "w2", on_return="keep_original", delay_s=5.0)
    assigned(core, "t1")
    beat(core, "w2", now=5.0)
    core.wake(DEAD_AFTER_S)
    beat(core, "w1", now=7.0, active=1)
    beat(core, "w2", now=10.0)
    core.wake(12.0)
    assert fx.take(Assign, Cancel) == []
    complete(core, "w1", "t1", 1, 12.5)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w1")]


def test_the_retry_of_a_later_death_keeps_its_own_time(make_cluster):
    """Neither the place that was left in the queue nor the earlier retry brings it forward."""
    core, fx = make_cluster("w1", on_return="keep_original", delay_s=5.0)
    assigned(core, "t1")
    core.wake(DEAD_AFTER_S)
    beat(core, "w1", now=7.0, active=1)
    core.deregister("w1", 8.0)
    register(core, "w2", 1, 0, True, 8.0)
    beat(core, "w2", now=11.5)
    core.wake(DEAD_AFTER_S + 5.0)
    assert fx.take(Assign) == []
    core.wake(13.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_of_two_that_return_the_older_attempt_is_the_original(make_cluster):
    """Three workers, two of which were given up in turn: when both are back, the first one's attempt goes on."""
    core, fx = make_cluster("w1", "w2", "w3", on_return="keep_original")
    assigned(core, "t1")
    beat(core, "w2", now=1.0)
    beat(core, "w3", now=6.0)
    core.wake(DEAD_AFTER_S)
    core.wake(1.0 + DEAD_AFTER_S)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]
    beat(core, "w2", now=8.0, active=1)
    assert fx.take(Cancel) == [Cancel("t1", "w3", 3)]
    beat(core, "w1", now=8.5, active=1)
    assert fx.take(Cancel) == [Cancel("t1", "w2", 2)]
    assert [attempt.number for attempt in core.worker("w1").open] == [1]


def test_an_attempt_that_its_worker_never_got_does_not_return(make_cluster):
    """Its call failed while the worker was dead: what the worker counts is something else."""
    core, _ = make_cluster("w1", on_return="keep_original", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.connection_lost("w1", 1.0)
    core.wake(3.0)
    core.wake(DEAD_AFTER_S)
    core.call_failed("w1", "t1", 1, 7.0)
    beat(core, "w1", now=8.0, active=1)
    assert core.task("t1").state is TaskState.PENDING


def test_a_returned_attempt_has_its_full_time_again(returning):
    """A worker that stood still could not work meanwhile."""
    core, _ = returning("keep_original", execution_timeout_s=8.0)
    beat(core, "w1", now=7.0, active=1)
    assert core.worker("w1").open
    beat(core, "w1", "w2", now=12.0, active=1)
    core.wake(14.9)
    assert core.worker("w1").open
    beat(core, "w1", "w2", now=14.9, active=1)
    core.wake(15.0)
    assert not core.worker("w1").open


# ---- poison


def die(core, worker, now):
    """A new process of that name: the old one died."""
    register(core, worker, 1, 0, True, now)
    core.deregister(worker, now)


def test_a_task_that_killed_three_workers_is_not_tried_on_a_fourth(make_cluster):
    """It is FAILED, with its whole history."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_worker_kills=3)
    assigned(core, "t1")
    for number in (1, 2, 3):
        die(core, f"w{number}", float(number))
    assert fx.take(Assign, Settled) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3), Settled("t1", FAILED, "w3")]
    error = "poison: w1, w2, w3 died with it, the last one because its worker registered again"
    assert core.task("t1").error == error
    assert [failure.worker_id for failure in core.task("t1").failures] == ["w1", "w2", "w3"]


def test_one_worker_that_dies_three_times_is_one(make_cluster):
    """It may be the worker that is ill."""
    core, fx = make_cluster("w1", max_worker_kills=3)
    assigned(core, "t1")
    for number in range(2, 7):
        register(core, "w1", 1, 0, True, float(number))
        assert fx.take(Assign) == [Assign("t1", "w1", number)]


def test_a_worker_that_leaves_was_not_killed(make_cluster):
    """Leaving is its own word."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", max_worker_kills=2)
    assigned(core, "t1")
    for number in (1, 2, 3):
        core.deregister(f"w{number}", float(number))
    assert fx.take(Settled) == []


def test_a_worker_that_was_convicted_wrongly_was_not_killed(make_cluster):
    """It beats again: the task is blamed for one death less, until the worker really dies."""
    core, fx = make_cluster("w1", "w2", "w3", max_worker_kills=2)
    assigned(core, "t1")
    beat(core, "w2", "w3", now=5.0)
    core.wake(DEAD_AFTER_S)
    beat(core, "w1", now=7.0, active=1)
    die(core, "w2", 8.0)
    assert fx.take(Assign, Settled) == [Assign("t1", "w2", 2), Assign("t1", "w3", 3)]
    register(core, "w3", 1, 0, True, 9.0)
    assert fx.take(Settled) == [Settled("t1", FAILED, "w3")]


def test_a_convict_that_comes_back_as_another_process_was_killed(make_cluster):
    """Its conviction was right."""
    core, fx = make_cluster("w1", "w2", max_worker_kills=2)
    assigned(core, "t1")
    beat(core, "w2", now=5.0)
    core.wake(DEAD_AFTER_S)
    register(core, "w1", 1, 0, True, 7.0)
    beat(core, "w1", now=8.0)
    register(core, "w2", 1, 0, True, 9.0)
    assert fx.take(Settled) == [Settled("t1", FAILED, "w2")]


# ---- hedging


def hedging(quantile=0.5, budget=1.0, window=10, min_samples=2):
    return Quantile(quantile, budget, window, min_samples)


@pytest.fixture
def hedged(make_cluster):
    """A cluster that has seen tasks of a second each, and has credit for twins."""

    def make(*workers, tasks=12, **settings):
        policy = hedging()
        core, fx = make_cluster(*workers, hedging=policy, **settings)
        for number in range(tasks):
            submit(core, f"past{number}")
            worker = core.task(f"past{number}").live[0].worker.id
            complete(core, worker, f"past{number}", 1, 0.0)
        policy._kinds[None] = Durations(10)
        policy.finished(None, 1.0)
        policy.finished(None, 1.0)
        core.wake(0.0)
        fx.take()
        return core, fx

    return make


def test_a_slow_attempt_gets_a_twin_on_another_worker(hedged):
    """At the age of the quantile; the first result counts, and the loser is cancelled."""
    core, fx = hedged("w1", "w2", capacity=2)
    submit(core, "t1", now=1.0)
    first = core.task("t1").live[0].worker.id
    other = "w2" if first == "w1" else "w1"
    assert WakeAt(2.0) in fx.take()
    beat(core, "w1", "w2", now=1.5)
    core.wake(2.0)
    assert fx.take(Assign) == [Assign("t1", other, 2)]
    complete(core, other, "t1", 2, 2.5)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, other), Cancel("t1", first, 1)]
    assert core.task("t1").tries == 0


def test_a_twin_never_runs_where_its_original_does(hedged):
    """One worker with room for both is not enough; a second one is, as soon as it comes."""
    core, fx = hedged("w1", capacity=2)
    submit(core, "t1", now=1.0)
    core.wake(2.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 1)]
    register(core, "w2", 1, 0, True, 2.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_failed_twin_is_no_try(hedged):
    """The original goes on, and its task's tries are left."""
    core, _ = hedged("w1", "w2", max_attempts=1)
    submit(core, "t1", now=1.0)
    first = core.task("t1").live[0].worker.id
    other = "w2" if first == "w1" else "w1"
    core.wake(2.0)
    fail(core, other, "t1", 2, 2.5, retryable=True)
    assert (core.task("t1").tries, core.task("t1").state) == (0, TaskState.ASSIGNED)
    fail(core, first, "t1", 1, 2.6, retryable=True)
    assert core.task("t1").tries == 1


def test_twins_stay_within_the_budget(make_cluster):
    """One in ten: of thirty slow tasks three get a twin."""
    core, fx = make_cluster("w1", "w2", capacity=100, hedging=Quantile(0.5, 0.1, 10, 1))
    submit(core, "past")
    complete(core, "w1", "past", 1, 0.0)
    submit(core, *(f"t{number}" for number in range(29)))
    for step in range(1, 50):
        beat(core, "w1", "w2", now=0.1 * step, active=50)
        core.wake(0.1 * step)
    assert sum(effect.number == 2 for effect in fx.take(Assign)) == 3


def test_attempts_that_began_before_anything_was_known_are_hedged_too(make_cluster):
    """As soon as two durations are known."""
    core, fx = make_cluster("w1", "w2", capacity=5, hedging=hedging())
    submit(core, "t1", "t2", "t3", now=0.0)
    complete(core, "w2", "t2", 1, 1.0)
    complete(core, "w1", "t3", 1, 1.0)
    submit(core, "t4", now=1.0)
    assert WakeAt(2.0) not in fx.take()
    core.wake(1.9)
    assert Assign("t1", "w2", 2) in fx.take()


# ---- ejection


def outlier(**settings):
    return Outlier(
        **(
            {"interval_s": 10.0, "min_samples": 3, "factor": 3.0, "errors": 2, "base_s": 4.0, "max_share": 0.4}
            | settings
        )
    )


def test_a_worker_that_fails_again_and_again_is_ejected_at_once(make_cluster):
    """It gets nothing until it is readmitted; each time it stays out longer."""
    core, fx = make_cluster("w1", "w2", "w3", ejection=outlier(), detector=PATIENT)
    core.wake(0.0)
    core.drain("w2", 0.0)
    core.drain("w3", 0.0)
    for number, (now, back) in enumerate([(1.0, 5.0), (5.0, 13.0)]):
        for task in "ab":
            submit(core, f"{task}{number}", now=now)
            fail(core, "w1", f"{task}{number}", 1, now)
        assert WakeAt(now) in fx.take()
        core.wake(now)
        submit(core, f"late{number}", now=now)
        beat(core, "w1", now=back - 0.1)
        core.wake(back - 0.1)
        assert fx.take(Changed, Assign) == [Changed("w1", "ejected", "2 errors in a row")]
        core.wake(back)
        assert fx.take(Changed, Assign) == [Changed("w1", "readmitted"), Assign(f"late{number}", "w1", 1)]
        complete(core, "w1", f"late{number}", 1, back)


def test_a_worker_that_hardly_ever_reports_is_known_by_the_age_of_what_it_runs(make_cluster):
    """The others did ten tasks of half a second; its one is still running after ten seconds."""
    core, fx = make_cluster("w1", "w2", "w3", ejection=outlier(), detector=PATIENT)
    core.wake(0.0)
    assigned(core, "stuck")
    for number in range(20):
        now = 0.5 * number
        for task in (f"a{number}", f"b{number}"):
            submit(core, task, now=now)
        for task in (f"a{number}", f"b{number}"):
            complete(core, core.task(task).live[0].worker.id, task, 1, now + 0.5)
    fx.take()
    core.wake(10.0)
    assert fx.take(Changed) == [Changed("w1", "ejected", "10 s an attempt, 0.5 s is usual")]
    assert core.worker("w1").open


def test_a_new_process_is_not_ejected(make_cluster):
    """It begins with a clean sheet."""
    core, fx = make_cluster("w1", "w2", "w3", ejection=outlier(), detector=PATIENT)
    core.wake(0.0)
    core.drain("w2", 0.0)
    core.drain("w3", 0.0)
    for task in "ab":
        submit(core, task, now=1.0)
        fail(core, "w1", task, 1, 1.0)
    core.wake(1.0)
    submit(core, "c", now=1.5)
    fx.take()
    register(core, "w1", 1, 0, True, 2.0)
    assert fx.take(Assign) == [Assign("c", "w1", 1)]
    core.wake(5.0)
    assert fx.take(Changed) == []
