"""A coordinator that begins with the tasks of an earlier one."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.core.inputs import Holding, Recovered, Registration, Report
from orchestrator.core.model import Priority, TaskState, TimeLimits, WorkerState
from tests.core import making
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import Accepted, Answered, Assign, Recorder, Registered, Settled

NORMAL = Priority.NORMAL


def stored(name: str, *held: Holding, **changed: Any) -> Recovered:
    return Recovered(name, NORMAL, None, None, -5.0, held=held, attempt=len(held))._replace(**changed)


@pytest.fixture
def fx() -> Recorder:
    return Recorder()


def begun(fx: Recorder, *tasks: Recovered, **settings: Any) -> Any:
    core = making.coordinator(fx, **settings)
    for task in tasks:
        core.recovered(task, 0.0)
        core.check()
    return core


def registration(worker: str, incarnation: str, *held: tuple[str, int], prefetch: int = 0) -> Registration:
    return Registration(worker, incarnation, 1, prefetch, True, held, request=7)


def test_a_task_that_no_worker_had_runs_at_once(fx):
    """With the number of attempts and the tries that it had, on whichever worker comes first."""
    core = begun(fx, stored("t1", attempt=2, tries=2), max_attempts=3)
    core.register(registration("w9", "new"), 1.0)
    assert fx.take(Assign) == [Assign("t1", "w9", 3)]
    core.result(Report("w9", "t1", 3, False, error="broken", retryable=True), 2.0)
    assert core.task("t1").error == "gave up after 3 attempts: broken"
    assert core.task("t1").submitted_at == -5.0
    core.check()


def test_what_a_worker_still_holds_is_adopted(fx):
    """It is not assigned again, nor is the worker told to stop it, and its result settles the task."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")), stored("t2"))
    assert core.task("t1").state is TaskState.ASSIGNED
    core.reconnected(registration("w1", "a", ("t1", 1), ("t0", 4)), 1.0)
    core.check()
    assert fx.take(Registered) == [Registered("w1", 7, (("t0", 4),))]
    core.result(Report("w1", "t1", 1, True, "done"), 2.0)
    assert fx.take(Assign, Settled) == [Settled("t1", TaskState.COMPLETED, "w1"), Assign("t2", "w1", 1)]
    core.check()


def test_what_a_worker_never_got_is_assigned_again(fx):
    """To another attempt, and it costs no try."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")))
    core.reconnected(registration("w1", "a"), 1.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]
    assert core.task("t1").tries == 0
    core.check()


def test_what_a_process_that_is_gone_held_is_lost(fx):
    """When another one of its name registers: that costs a try."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")))
    core.register(registration("w1", "b"), 1.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]
    assert core.task("t1").tries == 1
    core.check()


def test_a_task_waits_for_its_worker_as_long_as_the_detector_does(fx):
    """And no longer; what then comes from that process again is stopped."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")))
    core.register(registration("w2", "b"), 1.0)
    core.heartbeat("w2", 0, None, 4.0)
    core.wake(DEAD_AFTER_S - 0.001)
    assert fx.take(Assign) == []
    core.wake(DEAD_AFTER_S)
    assert core.worker("w1").state is WorkerState.DEAD
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]
    core.check()


def test_a_heartbeat_does_not_replace_the_registration(fx):
    """Of a worker of whom only an earlier coordinator knows how much it takes."""
    core = begun(fx, stored("t1", Holding(1, "w1", "")))
    core.heartbeat("w1", 1, 5, 1.0)
    assert fx.take(Answered) == [Answered("w1", False)]
    core.register(Registration("w1", "", 2, 0, False), 1.5)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]
    core.check()


@pytest.mark.parametrize("prefetch", [0, 1])
def test_the_time_of_an_adopted_attempt_begins_anew(prefetch, fx):
    """When its worker is back, or says that it began, if it does."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")), execution_timeout_s=3.0)
    core.reconnected(registration("w1", "a", ("t1", 1), prefetch=prefetch), 1.0)
    if prefetch:
        core.wake(4.5)
        assert core.counters["timeouts"] == 0
        core.started("w1", "t1", 1, 5.0)
        core.heartbeat("w1", 1, None, 5.0)
    begins = 5.0 if prefetch else 1.0
    core.wake(begins + 2.999)
    assert core.counters["timeouts"] == 0
    core.wake(begins + 3.0)
    assert core.counters["timeouts"] == 1
    core.check()


def test_a_settled_task_is_known(fx):
    """Whoever submits it again learns that it is there; nothing runs."""
    done = stored("t1", state=3, worker_id="w1", result="done", settled_at=-1.0)
    failed = stored("t2", state=4, error="no", settled_at=-0.5)
    core = begun(fx, done, failed)
    core.register(registration("w1", "a"), 1.0)
    core.submit("t1", NORMAL, None, None, 2.0)
    assert fx.take(Accepted, Assign) == [Accepted("t1")]
    assert (core.submitted, core.completed, core.failed) == (2, 1, 1)
    assert (core.task("t1").result, core.task("t2").error) == ("done", "no")
    core.check()


def test_of_the_processes_of_a_name_only_one_is_waited_for(fx):
    """The one that is heard of first: what others had is lost."""
    core = begun(fx, stored("t1", Holding(1, "w1", "a")), stored("t2", Holding(3, "w1", "b"), attempt=3))
    assert [core.task(name).state for name in ("t1", "t2")] == [TaskState.ASSIGNED, TaskState.PENDING]
    core.reconnected(registration("w1", "a", ("t1", 1)), 1.0)
    core.result(Report("w1", "t1", 1, True), 2.0)
    assert fx.take(Assign) == [Assign("t2", "w1", 4)]
    core.check()


def test_a_deadline_that_passed_meanwhile_counts(fx):
    """The task expires before any worker gets it."""
    core = begun(fx, stored("late", limits=TimeLimits(deadline_s=4.0)), stored("t2", limits=TimeLimits(deadline_s=7.0)))
    core.wake(0.0)
    assert fx.take(Settled) == [Settled("late", TaskState.FAILED, "")]
    core.register(registration("w1", "a"), 1.0)
    assert fx.take(Assign) == [Assign("t2", "w1", 1)]
    core.wake(2.0)
    assert core.task("t2").error == "expired: it was not settled within 7 s (deadline_s)"


def test_what_a_worker_had_may_have_begun(fx):
    """So it has not waited for too long; what no worker had has."""
    limits = TimeLimits(queue_timeout_s=5.5)
    core = begun(fx, stored("t1", Holding(1, "w1", "a"), limits=limits), stored("t2", limits=limits))
    core.wake(0.5)
    assert fx.take(Settled) == [Settled("t2", TaskState.FAILED, "")]
    core.check()
