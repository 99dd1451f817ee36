"""Workers that return after they were given up, and tasks that kill workers."""

from __future__ import annotations

import pytest

from orchestrator.core.model import Outcome, TaskState
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import (
    Assign,
    Cancel,
    Changed,
    Ended,
    Settled,
    assigned,
    beat,
    complete,
    register,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


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


def test_a_worker_that_was_wrongly_declared_dead_was_not_killed(make_cluster):
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


def test_a_dead_worker_that_comes_back_as_another_process_was_killed(make_cluster):
    """It was rightly declared dead."""
    core, fx = make_cluster("w1", "w2", max_worker_kills=2)
    assigned(core, "t1")
    beat(core, "w2", now=5.0)
    core.wake(DEAD_AFTER_S)
    register(core, "w1", 1, 0, True, 7.0)
    beat(core, "w1", now=8.0)
    register(core, "w2", 1, 0, True, 9.0)
    assert fx.take(Settled) == [Settled("t1", FAILED, "w2")]
