"""What becomes of a task, whenever and however often its inputs come."""

from __future__ import annotations

import inspect

import pytest

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import INPUTS, intercepted
from orchestrator.core.model import Outcome, Priority, TaskState, TimeLimits, WorkerState
from orchestrator.policies.queueing import Fifo
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
    assigned,
    complete,
    fail,
    heartbeat,
    register,
    submit,
)

NORMAL = Priority.NORMAL
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


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


def test_running_hedges_are_cancelled_when_their_task_settles(make_cluster):
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
    """A worker that was wrongly declared dead, or drains in silence, has not worked in vain; but it stays dead."""
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
        core.submit(task, NORMAL, None, TimeLimits(execution_timeout_s=timeout_s), 0.0)
    for now in (1.0, 3.0, 9.0):
        core.wake(now)
    assert [(effect.task, core.task(effect.task).settled_at) for effect in fx.take(Settled)] == [
        ("short", 1.0), ("usual", 3.0), ("usual too", 3.0), ("long", 9.0),
    ]  # fmt: skip
    assert core.task("short").error.endswith("ran for over 1.0 s")


def test_a_task_may_have_the_only_timeout(make_cluster):
    """Also where the coordinator has none, and where its start is reported."""
    core, _ = make_cluster("w1", prefetch=1)
    core.submit("t1", NORMAL, None, TimeLimits(execution_timeout_s=2.0), 0.0)
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


# ---- cancelled by its submitter


def test_a_waiting_task_can_be_cancelled(make_cluster):
    """It is FAILED, and never assigned."""
    core, fx = make_cluster()
    submit(core, "t1")
    core.cancel("t1", 1.0)
    assert fx.take(Settled) == [Settled("t1", TaskState.FAILED, "")]
    assert core.task("t1").error == "cancelled by its submitter"
    register(core, "w1", 1, 0, True, 2.0)
    assert fx.take(Assign) == []


def test_a_running_task_can_be_cancelled(make_cluster):
    """Its attempts are cancelled, and occupy their workers until these say that they stopped."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    core.cancel("t1", 1.0)
    assert fx.take(Settled, Cancel) == [Settled("t1", TaskState.FAILED, ""), Cancel("t1", "w1", 1)]
    assert core.worker("w1").load == 1
    core.cancelled("w1", "t1", 1, 2.0)
    assert core.worker("w1").load == 0


@pytest.mark.parametrize("task", ["t1", "nobody's"])
def test_what_is_settled_or_unknown_is_not_cancelled(make_cluster, task):
    """Its outcome stays."""
    core, fx = make_cluster("w1")
    assigned(core, "t1")
    complete(core, "w1", "t1", 1, 1.0)
    fx.take()
    core.cancel(task, 2.0)
    assert fx.take() == []
    assert core.task("t1").state is TaskState.COMPLETED
