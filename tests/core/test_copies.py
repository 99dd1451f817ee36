"""How a task that hangs, or kills, or is lied about is kept from harming the others."""

from __future__ import annotations

import pytest

from orchestrator.core.model import Outcome, TaskState
from orchestrator.policies.detection import TimeoutConfig
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import (
    Acknowledged,
    Assign,
    Cancel,
    Ended,
    Settled,
    TimedOut,
    assigned,
    beat,
    complete,
    fail,
    heartbeat,
    register,
    submit,
    tell,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


# ---- a task that hangs


def test_an_attempt_that_timed_out_is_cancelled_at_once(make_cluster):
    """Its worker is told to stop it, and one warning and one count say so."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0)
    assigned(core, "t1")
    core.wake(3.0)
    assert fx.take(TimedOut, Cancel, Assign) == [
        TimedOut("t1", "w1", 1), Cancel("t1", "w1", 1), Assign("t1", "w2", 2),
    ]  # fmt: skip
    assert core.counters["timeouts"] == 1


def test_the_last_attempt_is_cancelled_once(make_cluster):
    """Where the task is given up its attempts are cancelled anyway."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0, max_attempts=1)
    assigned(core, "t1")
    core.wake(3.0)
    assert fx.take(Cancel) == [Cancel("t1", "w1", 1)]


def test_a_task_that_hangs_occupies_no_more_than_its_copies(make_cluster):
    """Two of four workers can't stop it: it waits for one of them, and the others are free for other tasks."""
    core, fx = make_cluster("w1", "w2", "w3", "w4", execution_timeout_s=3.0)
    assigned(core, "hang")
    for now in (3.0, 6.0, 9.0, 12.0):
        beat(core, "w1", "w2", "w3", "w4", now=now, active=1)
        core.wake(now)
    assert [effect.worker for effect in fx.take(Assign)] == ["w2"]
    submit(core, "t1", "t2", now=12.0)
    assert [effect.task for effect in fx.take(Assign)] == ["t1", "t2"]
    tell(core, "cancelled", "w1", "hang", 1, 13.0)
    assert fx.take(Assign) == [Assign("hang", "w1", 3)]


@pytest.mark.parametrize("ends", ["cancelled", "heartbeat", "register", "rejected", "fail", "deregister"])
def test_whatever_ends_a_copy_lets_the_task_go_on(make_cluster, ends):
    """The end of a copy is a report, an acknowledged cancel, a heartbeat's count, or a process that is gone."""
    core, fx = make_cluster("w1", "w2", "w3", execution_timeout_s=3.0)
    assigned(core, "hang")
    core.wake(3.0)
    core.wake(6.0)
    fx.take()
    {
        "cancelled": lambda: tell(core, "cancelled", "w1", "hang", 1, 6.5),
        "heartbeat": lambda: heartbeat(core, "w1", 0, 6.5),
        "register": lambda: register(core, "w1", 1, 0, True, 6.5),
        "rejected": lambda: tell(core, "rejected", "w1", "hang", 1, 6.5),
        "fail": lambda: fail(core, "w1", "hang", 1, 6.5, retryable=True),
        "deregister": lambda: core.deregister("w1", 6.5),
    }[ends]()
    assert [effect.task for effect in fx.take(Assign)] == ["hang"]


def test_a_copy_on_a_dead_worker_is_none(make_cluster):
    """A worker that was declared dead may never say that the attempt ended: the task goes on without it."""
    core, fx = make_cluster("w1", "w2", "w3", max_copies=1)
    assigned(core, "t1")
    beat(core, "w2", "w3", now=6.0)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_crowded_task_goes_on_when_one_of_its_workers_is_declared_dead(make_cluster):
    """It waited for a worker that will not answer."""
    core, fx = make_cluster("w1", "w2", execution_timeout_s=3.0, max_copies=1)
    assigned(core, "t1")
    core.wake(3.0)
    assert fx.take(Assign) == []
    beat(core, "w2", now=5.0)
    core.wake(DEAD_AFTER_S)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_hedges_are_no_copies(make_cluster):
    """A hedge beside a suspect starts although the task has as many copies as it may have."""
    detector = TimeoutConfig(timeout_s=6.0, suspect_after=0.5).build()
    core, fx = make_cluster("w1", "w2", detector=detector, on_suspect="hedge", max_copies=1)
    assigned(core, "t1")
    beat(core, "w2", now=3.0)
    core.wake(3.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_crowded_task_may_still_be_settled_by_a_copy(make_cluster):
    """Its late result settles it, and it waits no more."""
    core, fx = make_cluster("w1", execution_timeout_s=3.0, max_copies=1)
    assigned(core, "t1")
    core.wake(3.0)
    complete(core, "w1", "t1", 1, 4.0)
    assert fx.take(Settled, Assign) == [Settled("t1", COMPLETED, "w1")]
    assert core.pending == 0


# ---- a task that kills


def test_company_shares_the_blame(make_cluster):
    """Three workers die with eight tasks each: none of the tasks is poison yet."""
    workers = ("w1", "w2", "w3", "w4")
    core, fx = make_cluster(*workers, capacity=8, max_worker_kills=3)
    assigned(core, *(f"t{number}" for number in range(32)))
    for now in (1.0, 2.0, 3.0):
        register(core, f"w{now:.0f}", 8, 0, True, now)
    assert fx.take(Settled) == []


def test_a_killer_in_company_is_caught_in_the_end(make_cluster):
    """It always runs beside three others: after four deaths, which are one in all, it is given up, and no other is."""
    core, fx = make_cluster("w1", "w2", capacity=4, max_worker_kills=2)
    assigned(core, "killer")
    for death in range(4):
        assert not core.task("killer").settled
        submit(core, *(f"{death}-{number}" for number in range(8 - sum(worker.load for worker in core.workers()))))
        place = core.task("killer").live[-1].worker
        assert place.load == 4
        for worker in core.workers():
            for attempt in [attempt for attempt in worker.open if worker is not place]:
                complete(core, worker.id, attempt.task.id, attempt.number, float(death))
        register(core, place.id, 4, 0, True, float(death))
    assert [effect.task for effect in fx.take(Settled) if effect.state is FAILED] == ["killer"]


def test_what_had_not_begun_killed_nobody(make_cluster):
    """Of a worker that reports starts, only what it had started is blamed."""
    core, fx = make_cluster(capacity=1)
    for worker in ("w1", "w2", "w3"):
        register(core, worker, 1, 1, True, 0.0)
    core._blame._limit = 1
    assigned(core, *(f"t{number}" for number in range(6)))
    waiting = list(core.worker("w1").open)[1]
    tell(core, "started", "w1", next(iter(core.worker("w1").open)).task.id, 1, 0.1)
    register(core, "w1", 1, 1, True, 1.0)
    assert [effect.state for effect in fx.take(Settled)] == [FAILED]
    assert not waiting.task.settled


# ---- a worker that lies


@pytest.mark.parametrize("number", [None, 1])
@pytest.mark.parametrize("succeeded", [True, False])
def test_only_an_assignee_settles(make_cluster, number, succeeded):
    """A worker that never had the attempt can neither complete nor fail the task; it is refused, and counted."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    for stranger in ("w2", "nobody"):
        tell(core, "result", stranger, "t1", number, succeeded, "value", "", False, None, None, 1.0)
        assert fx.take(Settled, Acknowledged) == [Acknowledged(stranger, "t1", number, False)]
    assert core.counters["refused_results"] == 2
    complete(core, "w1", "t1", 1, 2.0)
    assert fx.take(Settled) == [Settled("t1", COMPLETED, "w1")]


def test_an_attempt_that_was_closed_may_still_settle(make_cluster):
    """Its worker said that it holds nothing, since its report was under way."""
    core, fx = make_cluster("w1", "w2")
    assigned(core, "t1")
    core.call_failed("w1", "t1", 1, 1.0)
    heartbeat(core, "w1", 0, 2.0)
    assert Ended("t1", "w1", 1, Outcome.CALL_FAILED) in fx.take(Ended)
    complete(core, "w1", "t1", 1, 3.0)
    assert [effect.task for effect in fx.take(Settled)] == ["t1"]


@pytest.mark.parametrize("ran_s", [1e308, -1.0, float("nan"), float("inf")])
def test_no_attempt_ran_for_longer_than_it_exists(make_cluster, ran_s):
    """Whatever its worker says, it ran since its assignment at most."""
    core, _ = make_cluster("w1")
    assigned(core, "t1", now=1.0)
    attempt = core.task("t1").live[0]
    tell(core, "result", "w1", "t1", 1, True, "value", "", False, -5.0, ran_s, 3.0)
    assert (attempt.started_at, attempt.ran_s) == (1.0, 2.0)
