"""A task's own limits: how long it may wait for its start, how long each execution may take, and how long all of it."""

from __future__ import annotations

import pytest

from orchestrator.core.invariants import InvariantError
from orchestrator.core.model import TaskState, TimeLimits
from tests.core.recording import (
    Assign,
    Cancel,
    Ended,
    Settled,
    TimedOut,
    WakeAt,
    complete,
    fail,
    heartbeat,
    register,
    submit,
    tell,
)

WAITS = TimeLimits(queue_timeout_s=5.0)
RUNS = TimeLimits(execution_timeout_s=5.0)
ENDS = TimeLimits(deadline_s=5.0)


def failed(task: str) -> Settled:
    return Settled(task, TaskState.FAILED, "")


# ---- the queue timeout


def test_a_task_that_does_not_begin_in_time_fails(make_coordinator):
    """At that moment, and its error names the limit."""
    core, fx = make_coordinator()
    submit(core, "t1", now=1.0, limits=WAITS)
    assert fx.take(WakeAt) == [WakeAt(6.0)]
    core.wake(5.999)
    assert not core.task("t1").settled
    core.wake(6.0)
    assert fx.take(Settled) == [failed("t1")]
    assert core.task("t1").error == "expired: it did not begin within 5 s (queue_timeout_s)"
    assert (core.counters["queue_timeouts"], core.pending, core.failed) == (1, 0, 1)
    register(core, "w1", 1, 0, True, 7.0)
    assert fx.take(Assign) == []


def test_a_task_that_has_begun_may_wait_again(make_cluster):
    """The queue timeout ends with the first start, not with the last."""
    core, _fx = make_cluster("w1", delay_s=60.0)
    submit(core, "t1", now=0.0, limits=WAITS)
    fail(core, "w1", "t1", 1, 1.0, retryable=True)
    heartbeat(core, "w1", 0, 5.0)
    core.wake(5.0)
    heartbeat(core, "w1", 0, 10.0)
    core.wake(10.0)
    assert not core.task("t1").settled


def test_what_waits_at_its_worker_has_not_begun(make_cluster):
    """It expires there, and is cancelled; what runs beside it goes on."""
    core, fx = make_cluster("w1", prefetch=1)
    submit(core, "t1", "t2", limits=WAITS)
    tell(core, "started", "w1", "t1", 1, 0.1)
    heartbeat(core, "w1", 2, 4.0)
    fx.take()
    core.wake(5.0)
    assert fx.take(Settled, Cancel) == [failed("t2"), Cancel("t2", "w1", 1)]
    assert core.task("t1").state is TaskState.RUNNING
    tell(core, "cancelled", "w1", "t2", 1, 5.1)
    assert core.worker("w1").load == 1


@pytest.mark.parametrize("end", ["rejected", "call_failed"])
@pytest.mark.parametrize("at", [2.0, 5.5])
def test_an_assignment_that_came_to_nothing_was_no_start(end, at, make_cluster):
    """Before the limit is over it holds on, and afterwards it is over at once."""
    core, fx = make_cluster("w1")
    submit(core, "t1", limits=WAITS)
    heartbeat(core, "w1", 1, 1.9)
    if at > 5.0:
        core.wake(5.0)  # by now it seems to run
    assert not core.task("t1").settled
    tell(core, end, "w1", "t1", 1, at)
    fx.take()
    core.wake(max(at, 5.0))
    assert fx.take(Settled) == [failed("t1")]


@pytest.mark.parametrize("what", ["lane", "copies", "retry"])
def test_it_expires_wherever_it_waits(what, make_cluster):
    """In a lane, for one of its own attempts to end, or for its retry."""
    core, fx = make_cluster("w1", "w2", delay_s=60.0 if what == "retry" else 0.0, max_copies=1)
    if what == "lane":
        core._routing.choose = lambda task: None
    submit(core, "t1", limits=ENDS)
    if what == "copies":
        tell(core, "call_failed", "w1", "t1", 1, 1.0)
    elif what == "retry":
        fail(core, "w1", "t1", 1, 1.0, retryable=True)
    core.check()
    fx.take()
    heartbeat(core, "w1", 1, 4.0)
    heartbeat(core, "w2", 0, 4.0)
    core.wake(5.0)
    assert fx.take(Settled) == [failed("t1")]
    core.check()


# ---- the deadline


def test_a_task_past_its_deadline_is_stopped(make_cluster):
    """Its attempt is cancelled, consumes no try, and its result is late."""
    core, fx = make_cluster("w1")
    submit(core, "t1", now=1.0, limits=ENDS)
    heartbeat(core, "w1", 1, 4.0)
    fx.take()
    core.wake(6.0)
    assert fx.take(Settled, Cancel, TimedOut) == [failed("t1"), Cancel("t1", "w1", 1)]
    assert core.task("t1").error == "expired: it was not settled within 5 s (deadline_s)"
    (attempt,) = core.task("t1").live
    assert (attempt.outcome.name, attempt.reason) == ("CANCELLED", core.task("t1").error)
    complete(core, "w1", "t1", 1, 6.5)
    assert (core.counters["late_results"], core.counters["missed_deadlines"]) == (1, 1)
    assert (core.completed, core.failed) == (0, 1)


def test_a_deadline_does_not_wait_for_a_retry_policy(make_cluster):
    """A task that is tried for ever ends with its deadline."""
    core, _fx = make_cluster("w1")
    submit(core, "t1", limits=TimeLimits(execution_timeout_s=1.0, deadline_s=2.5))
    for at, number in ((1.0, 1), (2.0, 2), (2.5, 3)):
        heartbeat(core, "w1", 1, at)
        core.wake(at)
        tell(core, "cancelled", "w1", "t1", number, at)
    assert core.task("t1").settled
    assert (core.counters["timeouts"], core.counters["missed_deadlines"]) == (2, 1)


def test_a_task_that_is_settled_in_time_expires_no_more(make_cluster):
    """Nor does another one that has its id later."""
    core, _fx = make_cluster("w1", keep_settled=0)
    submit(core, "t1", limits=ENDS)
    complete(core, "w1", "t1", 1, 1.0)
    submit(core, "t1", now=2.0)
    heartbeat(core, "w1", 1, 4.9)
    core.wake(5.0)
    assert not core.task("t1").settled
    assert core.counters["missed_deadlines"] == 0


# ---- the execution timeout


def test_a_tasks_own_execution_timeout_comes_before_the_coordinators(make_cluster):
    """Whether it is shorter or longer; the reason says which it was."""
    core, _fx = make_cluster("w1", "w2", execution_timeout_s=6.0, max_attempts=1)
    submit(core, "short", limits=RUNS)
    submit(core, "usual")
    for at in (3.0, 5.0, 6.0):
        heartbeat(core, "w1", 1, at)
        heartbeat(core, "w2", 1, at)
        core.wake(at)
        assert core.task("short").settled == (at >= 5.0)
        assert core.task("usual").settled == (at >= 6.0)
    assert core.task("short").error == "gave up after 1 attempts: ran for over 5.0 s"


# ---- books


def test_limits_that_lost_their_meaning_take_no_room(make_cluster):
    """Of many tasks that are settled long before their deadlines, a bounded number is remembered."""
    core, fx = make_cluster("w1", keep_settled=0)
    limits = TimeLimits(queue_timeout_s=3600.0, execution_timeout_s=3600.0, deadline_s=3600.0)
    for number in range(5000):
        submit(core, f"t{number}", now=number / 10_000, limits=limits)
        complete(core, "w1", f"t{number}", 1, number / 10_000)
        fx.take()
    assert len(list(core._expiries)) < 2500
    assert len(list(core._timeouts._own)) < 2500


def test_expired_tasks_do_not_stand_in_the_queue_for_ever(make_coordinator):
    """Where nobody takes anything, what waits is what is not settled."""
    core, fx = make_coordinator()
    for number in range(5000):
        submit(core, f"t{number}", now=float(number), limits=WAITS)
        core.wake(float(number))
    assert core.pending == 5
    assert len(core._backlog.queue) < 2500
    core.check()
    register(core, "w1", 10, 0, True, 5000.0)
    assert [effect.task for effect in fx.take(Assign)] == [f"t{number}" for number in range(4995, 5000)]


def test_a_limit_that_nothing_keeps_breaks_an_invariant(make_coordinator):
    """Such as one that was dropped by mistake."""
    core, _ = make_coordinator()
    submit(core, "t1", limits=ENDS)
    core._expiries.pop()
    with pytest.raises(InvariantError, match="has a deadline_s that is not kept"):
        core.check()
    core.cancel("t1", 1.0)
    core.check()


def test_the_attempts_of_an_expired_task_end_once(make_cluster):
    """One that was given up before is told again, and ends with its acknowledgement."""
    core, fx = make_cluster("w1", "w2")
    submit(core, "t1", limits=TimeLimits(execution_timeout_s=2.0, deadline_s=3.0))
    heartbeat(core, "w1", 1, 2.0)
    heartbeat(core, "w2", 0, 2.0)
    core.wake(2.0)
    fx.take()
    core.wake(3.0)
    assert fx.take(Cancel) == [Cancel("t1", "w1", 1), Cancel("t1", "w2", 2)]
    for worker, number in (("w1", 1), ("w2", 2)):
        tell(core, "cancelled", worker, "t1", number, 3.5)
    assert len(fx.take(Ended)) == 2
    assert not any(worker.load for worker in core.workers())
