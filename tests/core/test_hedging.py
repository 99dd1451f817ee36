"""Hedges for slow attempts, and ejection of slow workers."""

from __future__ import annotations

import pytest

from orchestrator.core.model import TaskState
from orchestrator.policies.detection import TimeoutConfig
from orchestrator.policies.ejection import Outlier
from orchestrator.policies.hedging import Durations, Quantile
from tests.core.recording import (
    Assign,
    Cancel,
    Changed,
    Settled,
    WakeAt,
    assigned,
    beat,
    complete,
    fail,
    register,
    submit,
)

COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED
PATIENT = TimeoutConfig(timeout_s=1e6).build()


# ---- hedging


def hedging(quantile=0.5, budget=1.0, window=10, min_samples=2):
    return Quantile(quantile, budget, window, min_samples)


@pytest.fixture
def hedged(make_cluster):
    """A cluster that has seen tasks of a second each, and has credit for hedges."""

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


def test_a_slow_attempt_gets_a_hedge_on_another_worker(hedged):
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


def test_a_hedge_never_runs_where_its_original_does(hedged):
    """One worker with room for both is not enough; a second one is, as soon as it comes."""
    core, fx = hedged("w1", capacity=2)
    submit(core, "t1", now=1.0)
    core.wake(2.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 1)]
    register(core, "w2", 1, 0, True, 2.5)
    assert fx.take(Assign) == [Assign("t1", "w2", 2)]


def test_a_failed_hedge_is_no_try(hedged):
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


def test_hedges_stay_within_the_budget(make_cluster):
    """One in ten: of thirty slow tasks three get a hedge."""
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
