"""What becomes of attempts: load, retries, rejections, failed calls, timeouts."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.deadlines import Ticks
from orchestrator.core.inputs import Report
from orchestrator.core.model import Outcome, TaskState
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import (
    Accepted,
    Acknowledged,
    Answered,
    Assign,
    Cancel,
    Changed,
    Ended,
    Settled,
    WakeAt,
    assigned,
    complete,
    fail,
    heartbeat,
    register,
    submit,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


# ---- load


def test_a_timed_out_attempt_still_occupies_its_worker(make_cluster):
    """The worker is presumably still busy with it, and is given nothing on top."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    assert fx.take(Assign) == []
    assert core.worker("w1").load == 1


def test_a_heartbeat_lowers_abandoned_to_what_it_reports(make_cluster):
    """Abandoned attempts over the worker's own count are gone, the oldest first; open ones are not touched."""
    core, fx = make_cluster("w1", capacity=3, execution_timeout_s=3.0, max_attempts=1)
    assigned(core, "t1", "t2")
    core.wake(3.0)
    assigned(core, "t3", now=3.0)
    heartbeat(core, "w1", 1, 4.0)
    assert fx.take(Ended) == [Ended("t1", "w1", 1, Outcome.TIMED_OUT)]
    assert (core.worker("w1").load, len(core.worker("w1").open)) == (2, 1)


def test_a_heartbeat_that_reports_more_changes_no_load(make_cluster):
    """`active` never raises a load."""
    core, _ = make_cluster("w1", capacity=3)
    assigned(core, "t1")
    heartbeat(core, "w1", 3, 1.0)
    assert core.worker("w1").load == 1


@pytest.mark.parametrize("active", [-1, -(2**31)])
def test_a_negative_active_counts_as_none(make_cluster, active):
    """A wire that carries nonsense does not break the coordinator."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0, max_attempts=1)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    heartbeat(core, "w1", active, 4.0)
    assert core.worker("w1").load == 0


def test_room_that_a_heartbeat_shows_is_used_at_once(make_cluster):
    """A waiting task takes the slot of an attempt that turned out to be gone."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    heartbeat(core, "w1", 0, 4.0)
    assert fx.take() == [
        Ended("t1", "w1", 1, Outcome.TIMED_OUT),
        Answered("w1", True),
        Assign("t1", "w1", 2),
    ]


# ---- attempts, retries, history


def test_attempts_are_unlimited_by_default(make_cluster):
    """A task outlives any number of dead workers."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    for number in range(2, 50):
        register(core, "w1", 1, 0, True, 0.0)
        assert fx.take(Assign) == [Assign("t1", "w1", number)]


def test_max_attempts_fails_a_task_and_cancels_what_still_runs(make_cluster):
    """The last timeout settles the task FAILED with a reason, and its worker is told to stop."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0, max_attempts=2)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    core.wake(6.0)
    assert fx.take(Settled, Cancel, Assign) == [
        Settled("t1", FAILED, "w2"),
        Cancel("t1", "w1", 1),
        Cancel("t1", "w2", 2),
    ]
    assert core.task("t1").error == "gave up after 2 attempts: ran for over 3.0 s"


def test_a_failed_task_knows_its_history(make_cluster):
    """Each attempt consumed leaves a line: its number, worker, outcome, reason and time."""
    core, _ = make_cluster("w1", "w2", execution_timeout_s=3.0, max_attempts=2)
    assigned(core, "t1")
    core.wake(3.0)
    core.deregister("w2", 4.0)
    assert core.task("t1").state is FAILED
    assert core.task("t1").failures == [
        (1, "w1", Outcome.TIMED_OUT, "ran for over 3.0 s", 3.0),
        (2, "w2", Outcome.WORKER_DIED, "its worker left", 4.0),
    ]


def test_a_rejection_consumes_no_attempt(make_cluster):
    """A task that is turned away any number of times is still tried, with the next number."""
    core, fx = make_cluster("w1", max_attempts=1)
    assigned(core, "t1")
    for number in range(1, 10):
        core.rejected("w1", "t1", number, float(number))
        heartbeat(core, "w1", 0, float(number))
        assert fx.take(Assign) == [Assign("t1", "w1", number + 1)]
    assert core.task("t1").tries == 0


@pytest.mark.parametrize("meaning", ["hold", "dead"])
def test_a_failed_call_consumes_no_attempt(make_cluster, meaning):
    """The task was not even delivered: it is tried again, whatever the limit."""
    core, fx = make_cluster("w1", "w2", max_attempts=1, on_failed_call=meaning)
    assigned(core, "t1")
    core.call_failed("w1", "t1", 1, 1.0)
    assert fx.take(Assign, Settled) == [Assign("t1", "w2", 2)]
    assert core.task("t1").tries == 0


@pytest.mark.parametrize("end", ["death", "timeout", "deregister", "register", "retryable"])
def test_what_ends_an_execution_consumes_an_attempt(make_cluster, end):
    """A death, a timeout and a retryable failure count against the limit."""
    core, fx = make_cluster("w1", max_attempts=1, execution_timeout_s=3.0 if end == "timeout" else None)
    assigned(core, "t1")
    {
        "death": lambda: core.wake(DEAD_AFTER_S),
        "timeout": lambda: core.wake(3.0),
        "deregister": lambda: core.deregister("w1", 1.0),
        "register": lambda: register(core, "w1", 1, 0, True, 1.0),
        "retryable": lambda: fail(core, "w1", "t1", 1, 1.0, retryable=True),
    }[end]()
    assert fx.take(Settled) == [Settled("t1", FAILED, "w1")]


def test_a_retryable_failure_is_tried_again(make_cluster):
    """A killed executor is not the task's last word."""
    core, fx = make_cluster("w1", max_attempts=3)
    assigned(core, "t1")
    fail(core, "w1", "t1", 1, 1.0, retryable=True)
    assert fx.take() == [
        Ended("t1", "w1", 1, Outcome.FAILED),
        Acknowledged("w1", "t1", 1, True),
        Assign("t1", "w1", 2),
    ]


def test_a_retryable_failure_of_an_abandoned_attempt_changes_only_the_load(make_cluster):
    """Its task has been requeued already, and is not requeued twice."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    fail(core, "w1", "t1", 1, 4.0, retryable=True)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]
    assert core.task("t1").tries == 1


def test_a_backoff_delays_the_next_attempt(make_cluster):
    """The task waits outside the queue, and the alarm is set for its return."""
    core, fx = make_cluster("w1", delay_s=2.0)
    assigned(core, "t1")
    fail(core, "w1", "t1", 1, 1.0, retryable=True)
    assert fx.take(Assign, WakeAt) == [WakeAt(3.0)]
    assert (core.task("t1").state, core.pending) == (TaskState.PENDING, 1)
    core.wake(2.9)
    assert fx.take(Assign) == []
    core.wake(3.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]


@pytest.mark.parametrize(("backoff_s", "after_s", "again_at"), [(0.0, 2.0, 3.0), (5.0, 2.0, 6.0), (0.5, 2.0, 3.0)])
def test_a_failure_may_say_how_long_its_task_is_to_wait(make_cluster, backoff_s, after_s, again_at):
    """At least: the backoff may be longer."""
    core, fx = make_cluster("w1", delay_s=backoff_s)
    assigned(core, "t1")
    core.result(Report("w1", "t1", 1, False, error="busy", retryable=True, retry_after_s=after_s), 1.0)
    assert fx.take(Assign, WakeAt) == [WakeAt(again_at)]
    core.wake(again_at)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]


def test_a_task_that_settles_during_its_backoff_stays_settled(make_cluster):
    """A late result beats the retry."""
    core, fx = make_cluster("w1", "w2", delay_s=5.0, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    fx.take()
    core.wake(8.0)
    assert fx.take(Assign, Settled) == []


# ---- rejection and failed calls


def test_a_rejection_holds_the_worker_until_its_next_heartbeat(make_cluster):
    """A worker that is full in a way we do not know of is not asked again at once."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.rejected("w1", "t1", 1, 1.0)
    assert fx.take() == [Ended("t1", "w1", 1, Outcome.REJECTED)]
    heartbeat(core, "w1", 0, 2.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]


def test_a_rejection_holds_the_worker_until_its_next_result(make_cluster):
    """A result shows a free slot."""
    core, fx = make_cluster("w1", capacity=2)
    assigned(core, "t1", "t2")
    core.rejected("w1", "t2", 1, 1.0)
    assert fx.take(Assign) == []
    complete(core, "w1", "t1", 1, 2.0)
    assert fx.take(Assign) == [Assign("t2", "w1", 2)]


def test_a_rejected_task_goes_to_another_worker_at_once(make_cluster):
    """Only the worker that rejected waits."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    core.rejected("w1", "t1", 1, 1.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_rejection_is_believed_once(make_cluster):
    """Its repetition neither requeues the task again nor holds the worker again."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.rejected("w1", "t1", 1, 1.0)
    heartbeat(core, "w1", 0, 2.0)
    fx.take()
    core.rejected("w1", "t1", 1, 3.0)
    assert fx.take() == []
    assert core.worker("w1").assignable


def test_a_failed_call_holds_the_worker_until_its_next_heartbeat(make_cluster):
    """With `hold` the task goes back, the worker stays alive, and no result of it lifts the hold."""
    core, fx = make_cluster("w1", capacity=2)
    assigned(core, "t1", "t2")
    core.call_failed("w1", "t2", 1, 1.0)
    complete(core, "w1", "t1", 1, 2.0)
    assert fx.take(Assign, Changed) == []
    heartbeat(core, "w1", 0, 3.0)
    assert fx.take() == [
        Ended("t2", "w1", 1, Outcome.CALL_FAILED),
        Answered("w1", True),
        Assign("t2", "w1", 2),
    ]


def test_a_rejection_does_not_weaken_the_hold_of_a_failed_call(make_cluster):
    """The stricter of two holds stays."""
    core, fx = make_cluster("w1", capacity=3)
    assigned(core, "t1", "t2", "t3")
    core.call_failed("w1", "t1", 1, 1.0)
    core.rejected("w1", "t2", 1, 1.0)
    complete(core, "w1", "t3", 1, 2.0)
    assert fx.take(Assign) == []


def test_an_attempt_whose_call_failed_may_have_arrived(make_cluster):
    """Nobody knows whether the worker has it: it counts as load until a heartbeat says otherwise."""
    core, _ = make_cluster("w1")
    assigned(core, "t1")
    core.call_failed("w1", "t1", 1, 1.0)
    heartbeat(core, "w1", 1, 2.0)
    assert core.worker("w1").load == 1
    heartbeat(core, "w1", 0, 4.0)
    assert core.task("t1").attempt == 2


def test_a_failed_call_may_mean_that_the_worker_is_dead(make_cluster):
    """With `dead` everything that it holds is requeued at once, and the cause is named."""
    core, fx = make_cluster("w1", capacity=2, on_failed_call="dead")
    assigned(core, "t1", "t2")
    core.call_failed("w1", "t2", 1, 1.0)
    assert fx.take() == [Changed("w1", "dead", "failed_call")]
    assert (core.task("t1").tries, core.task("t2").tries, core.pending) == (1, 0, 2)


def test_a_failed_call_for_a_finished_attempt_changes_nothing(make_cluster):
    """The result came all the same: the worker is well."""
    core, fx = make_cluster("w1", on_failed_call="dead")
    assigned(core, "t1")
    complete(core, "w1", "t1", 1, 1.0)
    fx.take()
    core.call_failed("w1", "t1", 1, 2.0)
    assert fx.take() == []


def test_a_broken_connection_holds_but_gives_nothing_up(make_cluster):
    """With `hold` the worker's attempts go on; it gets nothing new until it beats."""
    core, fx = make_cluster("w1", capacity=2)
    assigned(core, "t1")
    core.connection_lost("w1", 1.0)
    submit(core, "t2", now=1.0)
    assert fx.take(Assign, Changed) == []
    assert core.task("t1").state is TaskState.ASSIGNED
    heartbeat(core, "w1", 1, 2.0)
    assert fx.take(Assign) == [Assign("t2", "w1", 1)]


def test_a_broken_connection_that_means_death_requeues_everything(make_cluster):
    """With `dead` a broken stream means a death by failed call."""
    core, fx = make_cluster("w1", "w2", on_failed_call="dead")
    assigned(core, "t1")
    core.connection_lost("w1", 1.0)
    assert fx.take() == [Changed("w1", "dead", "failed_call"), Assign("t1", "w2", 2)]


# ---- the execution timeout


def test_an_execution_times_out_exactly(make_cluster):
    """Without prefetch the clock starts at the assignment; just before the end nothing happens."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0)
    submit(core, "t1", now=1.0)
    assert fx.take() == [Accepted("t1"), WakeAt(4.0), Assign("t1", "w1", 1)]
    core.wake(math.nextafter(4.0, 0.0))
    assert fx.take(Assign) == []
    core.wake(4.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_periodic_execution_check_acts_at_its_next_tick(make_cluster):
    """A timeout at 3 s, looked at every 2 s from 1.5 s on, is seen at 3.5 s."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0, execution_check=Ticks(2.0, 1.5))
    submit(core, "t1")
    assert fx.take(WakeAt) == [WakeAt(3.5)]
    core.wake(3.4)
    assert fx.take(Assign) == []
    core.wake(3.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_prefetched_attempt_is_timed_from_its_start(make_cluster):
    """Waiting in the worker's own queue is not execution."""
    core, fx = make_cluster("w1", prefetch=1, execution_timeout_s=3.0)
    assigned(core, "t1", "t2")
    core.started("w1", "t1", 1, 1.0)
    assert fx.take() == [WakeAt(4.0)]
    core.wake(4.0)
    assert (core.task("t1").tries, core.task("t2").tries) == (1, 0)


def test_a_repeated_start_report_does_not_restart_the_clock(make_cluster):
    """The first one counts."""
    core, fx = make_cluster("w1", prefetch=1, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.started("w1", "t1", 1, 1.0)
    core.started("w1", "t1", 1, 2.0)
    fx.take()
    core.wake(4.0)
    assert core.task("t1").tries == 1


def test_a_worker_that_reports_no_start_is_timed_from_assignment(make_cluster):
    """A worker of the plain protocol says nothing when it begins, prefetch or not."""
    core, fx = make_cluster("w1", prefetch=1, reports_start=False, execution_timeout_s=3.0)
    submit(core, "t1", now=1.0)
    assert fx.take(WakeAt) == [WakeAt(4.0)]


def test_the_timeout_of_a_forgotten_task_is_not_that_of_its_namesake(make_cluster):
    """An id that is submitted again, after it was settled and forgotten, is timed from its own assignment."""
    core, _ = make_cluster("w1", execution_timeout_s=3.0, keep_settled=0)
    assigned(core, "t1")
    complete(core, "w1", "t1", 1, 1.0)
    assigned(core, "t1", now=2.0)
    core.wake(3.0)
    assert core.task("t1").state is TaskState.ASSIGNED
    core.wake(5.0)
    assert core.task("t1").state is TaskState.PENDING


def test_a_start_reported_after_the_timeout_is_only_noted(make_cluster):
    """The attempt stays given up."""
    core, _ = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    core.started("w1", "t1", 1, 3.5)
    assert core.task("t1").state is TaskState.PENDING
