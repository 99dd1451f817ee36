"""What the coordinator does with each input, whenever and however often it comes."""

from __future__ import annotations

import inspect
import math

import pytest

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.inputs import INPUTS, intercepted
from orchestrator.core.model import Outcome, Priority, TaskState, WorkerState
from orchestrator.core.ports import Verdict
from orchestrator.policies.queueing import Fifo
from tests.core.making import DEAD_AFTER_S, TIMEOUT_S
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
    complete,
    fail,
    heartbeat,
    register,
)

NORMAL = Priority.NORMAL
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


@pytest.fixture
def make_cluster(make_coordinator):
    """`make_cluster("w1", "w2", capacity=1, prefetch=0, **settings)`: a coordinator whose workers stand ready."""

    def make(*workers, capacity=1, prefetch=0, reports_start=True, **settings):
        core, fx = make_coordinator(**settings)
        for worker in workers:
            register(core, worker, capacity, prefetch, reports_start, 0.0)
        fx.take()
        return core, fx

    return make


def submit(core, *tasks, now=0.0, priority=NORMAL):
    for task in tasks:
        core.submit(task, priority, f"payload of {task}", None, now)


def assigned(core, *tasks, now=0.0):
    """Submit, and forget what that caused."""
    submit(core, *tasks, now=now)
    core._fx.take()


# ---- the life of a task


def test_a_task_is_accepted_assigned_run_and_settled(make_cluster):
    """Each step of a task's life is announced once, in order."""
    core, fx = make_cluster("w1")
    submit(core, "t1", now=1.0)
    assert fx.take() == [Accepted("t1"), Assign("t1", "w1", 1)]
    complete(core, "w1", "t1", 1, 2.0)
    assert fx.take() == [
        Ended("t1", "w1", 1, Outcome.COMPLETED),
        Settled("t1", COMPLETED, "w1"),
        Acknowledged("w1", "t1", 1, True),
    ]


def test_the_record_of_a_task_tells_its_result_and_its_times(make_cluster):
    """What a client may ask about is on the task itself."""
    core, _ = make_cluster("w1")
    submit(core, "t1", now=1.0)
    complete(core, "w1", "t1", 1, 2.5)
    task = core.task("t1")
    assert (task.state, task.result, task.worker_id, task.submitted_at, task.settled_at) == (
        COMPLETED, "value", "w1", 1.0, 2.5,
    )  # fmt: skip


def test_states_follow_pending_assigned_running(make_cluster):
    """A task is PENDING until it is assigned, ASSIGNED until its start is reported, then RUNNING."""
    core, _ = make_cluster(prefetch=1)
    submit(core, "t1")
    assert core.task("t1").state is TaskState.PENDING
    register(core, "w1", 1, 1, True, 0.0)
    assert core.task("t1").state is TaskState.ASSIGNED
    core.started("w1", "t1", 1, 0.1)
    assert core.task("t1").state is TaskState.RUNNING


def test_a_task_waits_while_no_worker_has_room(make_cluster):
    """What does not fit stays in the queue, and goes out in order as slots come free."""
    core, fx = make_cluster("w1", capacity=2)
    submit(core, "t1", "t2", "t3", "t4")
    assert fx.take(Assign) == [Assign("t1", "w1", 1), Assign("t2", "w1", 1)]
    complete(core, "w1", "t2", 1, 1.0)
    assert fx.take(Assign) == [Assign("t3", "w1", 1)]


def test_higher_priorities_go_first(make_cluster):
    """Among waiting tasks the highest priority is assigned first, whenever it came."""
    core, fx = make_cluster()
    submit(core, "low", priority=Priority.LOW)
    submit(core, "urgent", priority=Priority.URGENT)
    submit(core, "high", priority=Priority.HIGH)
    register(core, "w1", 3, 0, True, 0.0)
    assert fx.take(Assign) == [Assign(task, "w1", 1) for task in ("urgent", "high", "low")]


def test_a_requeued_task_keeps_the_place_of_its_age(make_cluster):
    """The oldest goes first, also after it was lost with its worker."""
    core, fx = make_cluster("w1", queue=Fifo)
    submit(core, "t1", "t2", "t3")
    core.deregister("w1", 1.0)
    fx.take()
    register(core, "w2", 3, 0, True, 2.0)
    assert fx.take(Assign) == [Assign("t1", "w2", 2), Assign("t2", "w2", 1), Assign("t3", "w2", 1)]


def test_a_second_submit_of_an_id_is_only_accepted_again(make_cluster):
    """A repeated submission neither runs twice nor counts twice, settled or not."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    submit(core, "t1")
    assert fx.take() == [Accepted("t1")]
    complete(core, "w1", "t1", 1, 1.0)
    fx.take()
    submit(core, "t1")
    assert fx.take() == [Accepted("t1")]
    assert (core.submitted, core.counters["duplicate_submits"]) == (1, 2)


def test_a_reported_failure_is_final(make_cluster):
    """FAILED settles a task at once, with the worker's error."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    fail(core, "w1", "t1", 1, 1.0)
    assert fx.take(Settled, Assign) == [Settled("t1", FAILED, "w1")]
    assert core.task("t1").error == "it broke"


def test_the_number_of_workers_with_room_may_change_by_registration(make_cluster):
    """A worker that registers again with fewer slots is given no more than those."""
    core, fx = make_cluster("w1", capacity=3)
    register(core, "w1", 1, 0, True, 1.0)
    fx.take()
    submit(core, "t1", "t2")
    assert fx.take(Assign) == [Assign("t1", "w1", 1)]


# ---- late, duplicate and impossible results


def test_a_late_result_is_counted_and_dropped(make_cluster):
    """The first result settles the task; the second changes nothing."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w2", "t1", 2, 4.0)
    fx.take()
    fail(core, "w1", "t1", 1, 5.0)
    assert fx.take(Settled) == []
    assert core.task("t1").state is COMPLETED
    assert core.counters["late_results"] == 1


def test_the_result_of_an_attempt_given_up_settles_an_unsettled_task(make_cluster):
    """A worker that was too slow, and delivers all the same, has done the work."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    complete(core, "w1", "t1", 1, 4.0)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w1")]
    assert core.pending == 0


def test_a_task_that_settles_while_it_waits_is_not_assigned_again(make_cluster):
    """Its place in the queue is skipped."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    fx.take()
    register(core, "w2", 5, 0, True, 5.0)
    assert fx.take(Assign) == []


def test_a_stale_place_in_the_queue_does_not_hold_up_the_next_task(make_cluster):
    """A task submitted behind one that settled while it waited goes to the free worker at once."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    fx.take()
    submit(core, "t2", now=5.0)
    assert fx.take(Assign) == [Assign("t2", "w1", 1)]


def test_running_twins_are_cancelled_when_their_task_settles(make_cluster):
    """The losers are told, and their workers stay occupied until they answer."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    complete(core, "w1", "t1", 1, 4.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", COMPLETED, "w1"), Cancel("t1", "w2", 2)]
    assert core.worker("w2").load == 1
    core.cancelled("w2", "t1", 2, 5.0)
    assert fx.take() == [Ended("t1", "w2", 2, Outcome.CANCELLED)]
    assert core.worker("w2").load == 0


def test_a_slot_freed_by_a_cancel_is_used_at_once(make_cluster):
    """The acknowledgement of a cancel makes room for a waiting task."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    submit(core, "t2", "t3", now=4.0)
    fx.take()
    core.cancelled("w2", "t1", 2, 5.0)
    assert fx.take(Assign) == [Assign("t3", "w2", 1)]


def test_a_duplicate_result_is_acknowledged_and_dropped(make_cluster):
    """A repeated report is answered, so that its sender stops, and counted as late."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    complete(core, "w1", "t1", 1, 1.0)
    fx.take()
    complete(core, "w1", "t1", 1, 1.1)
    assert fx.take() == [Acknowledged("w1", "t1", 1, True)]
    assert core.counters["late_results"] == 1


def test_a_result_without_number_belongs_to_the_workers_newest_attempt(make_cluster):
    """A worker of the plain protocol names only the task."""
    core, fx = make_cluster("w1", capacity=2, execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    fx.take()
    complete(core, "w1", "t1", None, 4.0)
    assert fx.take(Ended, Cancel) == [Ended("t1", "w1", 2, Outcome.COMPLETED), Cancel("t1", "w1", 1)]


def test_a_result_without_number_from_a_restarted_worker_settles(make_cluster):
    """Its attempt is closed already, yet the work is done."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.deregister("w1", 1.0)
    complete(core, "w1", "t1", None, 2.0)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w1")]


@pytest.mark.parametrize("number", [-1, 0, 2, 10**9])
def test_a_result_with_an_impossible_number_is_unknown(make_cluster, number):
    """An attempt that was never made settles nothing."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    complete(core, "w1", "t1", number, 1.0)
    assert fx.take() == [Acknowledged("w1", "t1", number, False)]
    assert core.task("t1").state is TaskState.ASSIGNED


def test_a_result_for_an_unknown_task_is_answered_so(make_cluster):
    """Unknown ids are acknowledged with `known` false and counted."""
    core, fx = make_cluster("w1")
    complete(core, "w1", "nope", 1, 1.0)
    assert fx.take() == [Acknowledged("w1", "nope", 1, False)]
    assert core.counters["unknown_results"] == 1


@pytest.mark.parametrize("number", [None, 1])
def test_a_result_for_a_task_that_was_never_assigned_is_unknown(make_cluster, number):
    """Nobody can have done what nobody was asked to do."""
    core, fx = make_cluster()
    assigned(core, "t1")
    complete(core, "w1", "t1", number, 1.0)
    assert fx.take() == [Acknowledged("w1", "t1", number, False)]


def test_a_result_from_a_dead_worker_settles_its_task(make_cluster):
    """A worker convicted wrongly, or draining in silence, has not worked in vain; but it stays dead."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.wake(DEAD_AFTER_S)
    fx.take()
    complete(core, "w1", "t1", 1, 8.0)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w1")]
    assert core.worker("w1").state is WorkerState.DEAD


@pytest.mark.parametrize("call", ["started", "rejected", "cancelled", "call_failed"])
def test_a_message_about_an_unknown_attempt_changes_nothing(make_cluster, call):
    """Unknown tasks, wrong workers and numbers never given out are ignored."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    for worker, task, number in [("w1", "nope", 1), ("w2", "t1", 1), ("w1", "t1", 2), ("ghost", "t1", 1)]:
        getattr(core, call)(worker, task, number, 1.0)
    assert fx.take() == []
    assert core.worker("w1").assignable
    assert core.worker("w2").assignable


@pytest.mark.parametrize("call", ["drain", "deregister", "connection_lost"])
def test_a_message_from_an_unknown_worker_changes_nothing(make_cluster, call):
    """There is nobody to drain, to part with, or to hold."""
    core, fx = make_cluster("w1")
    getattr(core, call)("ghost", 1.0)
    assert fx.take() == []


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


def test_a_failed_call_that_means_death_convicts_the_worker(make_cluster):
    """With `dead` everything that it holds is requeued at once, and the conviction is named."""
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
    """With `dead` a broken stream is a conviction by failed call."""
    core, fx = make_cluster("w1", "w2", on_failed_call="dead")
    assigned(core, "t1")
    core.connection_lost("w1", 1.0)
    assert fx.take() == [Changed("w1", "dead", "failed_call"), Assign("t1", "w2", 2)]


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
    """At the moment after the timeout, not before it, the worker is convicted and its task runs elsewhere."""
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


def test_a_periodic_check_convicts_at_its_next_tick(make_cluster):
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
    """It stopped beating at the signal and was convicted; its result is accepted, and the retry cancelled."""
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
    """Nobody convicts a worker that said goodbye."""
    core, fx = make_cluster("w1")
    core.deregister("w1", 1.0)
    fx.take()
    core.wake(100.0)
    assert fx.take(Changed) == []


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


# ---- memory


def test_settled_tasks_are_forgotten_oldest_first(make_cluster):
    """Only so many are remembered; a report for a forgotten one is for an unknown task."""
    core, fx = make_cluster("w1", keep_settled=2)
    for number, task in enumerate(["t1", "t2", "t3"]):
        submit(core, task)
        complete(core, "w1", task, 1, float(number))
    fx.take()
    assert [core.task(task) is not None for task in ("t1", "t2", "t3")] == [False, True, True]
    complete(core, "w1", "t1", 1, 4.0)
    assert fx.take() == [Acknowledged("w1", "t1", 1, False)]
    assert (core.submitted, core.completed) == (3, 3)


def test_a_settled_task_is_remembered_while_an_attempt_lives(make_cluster):
    """Its worker's last word must find it."""
    core, _ = make_cluster("w1", "w2", execution_timeout_s=3.0, keep_settled=0)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    assert core.task("t1") is not None
    core.cancelled("w2", "t1", 2, 5.0)
    assert core.task("t1") is None
    assert core.worker("w2").load == 0


def test_unsettled_tasks_can_be_listed(make_cluster):
    """What remains at the end of a run is known by name."""
    core, _ = make_cluster("w1")
    submit(core, "t1", "t2", "t3")
    complete(core, "w1", "t1", 1, 1.0)
    assert [task.id for task in core.unsettled()] == ["t2", "t3"]


@pytest.mark.parametrize("how", ["left", "dead"])
def test_a_worker_that_has_long_been_gone_is_forgotten(make_cluster, how):
    """Its slot goes to the next one that comes, and a beat of it is a stranger's."""
    core, fx = make_cluster("w1", "w2", remember_workers_s=100.0)
    assigned(core, "t1")
    if how == "left":
        core.deregister("w1", 1.0)
    else:
        core.wake(DEAD_AFTER_S)
    heartbeat(core, "w2", 0, 50.0)
    core.wake(60.0)
    assert core.worker("w1") is not None
    core.wake(200.0)
    assert Changed("w1", "forgotten") in fx.take(Changed)
    assert core.worker("w1") is None
    heartbeat(core, "w1", 0, 201.0)
    assert fx.take(Answered) == [Answered("w1", False)]
    register(core, "w3", 1, 0, True, 202.0)
    assert core.worker("w3").slot == 0


def test_a_worker_that_came_back_is_not_forgotten(make_cluster):
    """Only the time since it was last gone counts."""
    core, _ = make_cluster("w1", remember_workers_s=100.0)
    core.deregister("w1", 1.0)
    register(core, "w1", 1, 0, True, 50.0)
    core.wake(150.0)
    assert core.worker("w1") is not None


def test_a_task_may_have_a_timeout_of_its_own(make_cluster):
    """It goes before the coordinator's, shorter or longer, and need not be later than those before it."""
    core, fx = make_cluster("w1", capacity=4, execution_timeout_s=3.0, max_attempts=1)
    for task, timeout_s in (("usual", None), ("long", 9.0), ("short", 1.0), ("usual too", None)):
        core.submit(task, NORMAL, None, timeout_s, 0.0)
    for now in (1.0, 3.0, 9.0):
        core.wake(now)
    assert [(effect.task, core.task(effect.task).settled_at) for effect in fx.take(Settled)] == [
        ("short", 1.0), ("usual", 3.0), ("usual too", 3.0), ("long", 9.0),
    ]  # fmt: skip
    assert core.task("short").error.endswith("ran for over 1.0 s")


def test_a_task_may_have_the_only_timeout(make_cluster):
    """Also where the coordinator has none, and where its start is reported."""
    core, _ = make_cluster("w1", prefetch=1)
    core.submit("t1", NORMAL, None, 2.0, 0.0)
    core.started("w1", "t1", 1, 5.0)
    heartbeat(core, "w1", 1, 5.5)
    core.wake(6.9)
    assert core.task("t1").tries == 0
    core.wake(7.0)
    assert core.task("t1").tries == 1


def test_every_input_is_declared():
    """Each public method that takes the time is an input, so whatever records inputs misses none."""
    taking_time = {
        name
        for name, method in inspect.getmembers(Coordinator, inspect.isfunction)
        if not name.startswith("_") and list(inspect.signature(method).parameters)[-1] == "now"
    }
    assert taking_time == set(INPUTS)


def test_whoever_intercepts_a_core_sees_every_input(make_coordinator):
    """With its name and its arguments, before it is applied."""
    core, fx = make_coordinator()
    seen = []

    def around(name, call, *arguments):
        seen.append((name, arguments, len(fx.effects)))
        call(*arguments)

    wrapped = intercepted(core, around)
    wrapped.submit("t1", NORMAL, None, None, 1.0)
    wrapped.wake(2.0)
    assert [(name, arguments) for name, arguments, _ in seen] == [
        ("submit", ("t1", NORMAL, None, None, 1.0)), ("wake", (2.0,)),
    ]  # fmt: skip
    assert seen[0][2] == 0
    assert wrapped.pending == core.pending == 1
