"""An idle worker gets what another one has not begun, and nothing is begun twice."""

from __future__ import annotations

import random

import pytest

from orchestrator.core.inputs import Registration
from orchestrator.core.model import Outcome, TaskState
from orchestrator.policies.stealing import LoadedVictim, RandomVictim
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import (
    Assign,
    Cancel,
    CancelDone,
    Ended,
    Execute,
    Recall,
    SendReport,
    Settled,
    assigned,
    beat,
    complete,
    heartbeat,
    register,
    submit,
    tell,
)


@pytest.fixture
def cluster(make_coordinator):
    """w1 runs t1 and holds t2 and t3; w2, which joins late, is idle, and t3 has been recalled for it."""
    core, fx = make_coordinator(stealing=LoadedVictim(random.Random(1)))
    register(core, "w1", 1, 4, True, 0.0)
    submit(core, "t1", "t2", "t3")
    tell(core, "started", "w1", "t1", 1, 0.0)
    fx.take()
    register(core, "w2", 1, 4, True, 1.0)
    core.check()
    return core, fx


def test_the_tail_is_recalled_when_a_worker_is_idle(cluster):
    """Of a worker that holds more than its slots, what came last; it is one recall for one slot."""
    core, fx = cluster
    assert fx.take(Recall, Assign, Cancel) == [Recall("t3", "w1", 1)]
    assert core.task("t3").state is TaskState.PENDING


def test_what_is_given_back_goes_to_who_was_idle(cluster):
    """Once its worker says that it does not have it any more, and not before. It consumes no try."""
    core, fx = cluster
    fx.take()
    tell(core, "cancelled", "w1", "t3", 1, 1.1)
    assert fx.take(Assign, Ended) == [Ended("t3", "w1", 1, Outcome.CANCELLED), Assign("t3", "w2", 2)]
    assert core.task("t3").tries == 0
    core.check()


def test_what_has_begun_meanwhile_goes_on(cluster):
    """The worker says that it began; nobody else gets it, and its result counts."""
    core, fx = cluster
    complete(core, "w1", "t1", 1, 1.05)
    tell(core, "started", "w1", "t2", 1, 1.06)
    complete(core, "w1", "t2", 1, 1.07)
    fx.take()
    tell(core, "started", "w1", "t3", 1, 1.1)
    core.check()
    assert core.task("t3").state is TaskState.RUNNING
    complete(core, "w1", "t3", 1, 2.0)
    assert fx.take(Assign, Settled) == [Settled("t3", TaskState.COMPLETED, "w1")]
    core.check()


def test_a_result_without_the_news_of_a_start_counts(cluster):
    """The news may be lost."""
    core, fx = cluster
    fx.take()
    complete(core, "w1", "t3", 1, 2.0)
    assert Settled("t3", TaskState.COMPLETED, "w1") in fx.take()
    core.check()


def test_the_answer_may_be_lost(cluster):
    """A heartbeat that tells of less than the worker should hold is an answer, too."""
    core, fx = cluster
    fx.take()
    heartbeat(core, "w1", 0, 2.0)
    assert [effect.task for effect in fx.take(Assign)] == ["t3"]
    core.check()


def test_what_a_worker_seemed_to_keep_it_may_give_back(make_coordinator):
    """It said that it has the task when it connected anew, before the recall reached it."""
    core, fx = make_coordinator(stealing=LoadedVictim(random.Random(1)))
    here = Registration("w1", "a", 1, 4, True)
    core.register(here, 0.0)
    submit(core, "t1", "t2", "t3")
    tell(core, "started", "w1", "t1", 1, 0.0)
    register(core, "w2", 1, 4, True, 1.0)
    assigned(core, "t4", now=1.0)  # to w2, which wants nothing more
    core.reconnected(here._replace(held=(("t1", 1), ("t2", 1), ("t3", 1))), 1.0)
    core.check()
    assert core.task("t3").state is TaskState.ASSIGNED
    fx.take()
    tell(core, "cancelled", "w1", "t3", 1, 1.1)
    core.check()
    assert fx.take(Ended) == [Ended("t3", "w1", 1, Outcome.CANCELLED)]
    assert (core.task("t3").state, core.task("t3").attempt) == (TaskState.ASSIGNED, 2)
    assert core.task("t3").tries == 0


def test_who_is_idle_no_more_gets_nothing(cluster):
    """What is given back then goes where the routing policy sends it."""
    core, fx = cluster
    submit(core, "t4", "t5", "t6", now=1.0)
    loads = {worker.id: worker.load for worker in core.workers()}
    assert loads["w2"]
    fx.take()
    tell(core, "cancelled", "w1", "t3", 1, 1.1)
    assert [effect.task for effect in fx.take(Assign)] == ["t3"]
    core.check()


@pytest.mark.parametrize("how", ["dead", "leaves", "registers"])
def test_the_worker_may_end_before_it_answers(cluster, how):
    """Then it has nothing to give back, and the task goes on elsewhere."""
    core, fx = cluster
    fx.take()
    if how == "dead":
        beat(core, "w2", now=DEAD_AFTER_S)
        core.wake(DEAD_AFTER_S)
    elif how == "leaves":
        core.deregister("w1", 2.0)
    else:
        register(core, "w1", 1, 4, True, 2.0)
    assert "t3" in [effect.task for effect in fx.take(Assign)]
    core.check()


def test_a_recall_does_not_wait_for_a_worker_that_died(cluster):
    """If it returns and had begun the task, there are two, as of any worker that returns."""
    core, fx = cluster
    beat(core, "w2", now=DEAD_AFTER_S)
    core.wake(DEAD_AFTER_S)
    assert {"t1", "t2", "t3"} == {effect.task for effect in fx.take(Assign)}
    tell(core, "started", "w1", "t3", 1, DEAD_AFTER_S + 1)
    complete(core, "w1", "t3", 1, DEAD_AFTER_S + 2)
    assert core.task("t3").state is TaskState.COMPLETED
    core.check()


def test_nothing_is_taken_from_who_does_not_say_what_has_begun(make_coordinator):
    """Workers of the wire contract, for example: what they hold may run."""
    core, fx = make_coordinator(stealing=LoadedVictim(random.Random(1)))
    register(core, "w1", 1, 4, False, 0.0)
    submit(core, "t1", "t2", "t3")
    register(core, "w2", 1, 4, True, 1.0)
    assert fx.take(Recall) == []


def test_what_waits_goes_first(make_coordinator):
    """Nothing is recalled while a task waits that the idle worker can take."""
    core, fx = make_coordinator(stealing=LoadedVictim(random.Random(1)))
    register(core, "w1", 1, 1, True, 0.0)
    submit(core, "t1", "t2", "t3")
    fx.take()
    register(core, "w2", 1, 0, True, 1.0)
    assert fx.take(Assign, Recall) == [Assign("t3", "w2", 1)]


def test_every_free_slot_is_filled(make_coordinator):
    """A worker of three slots that joins late beside eight waiting tasks recalls three."""
    core, fx = make_coordinator(stealing=LoadedVictim(random.Random(1)))
    register(core, "w1", 1, 20, True, 0.0)
    submit(core, *(f"t{number}" for number in range(9)))
    fx.take()
    register(core, "w2", 3, 20, True, 1.0)
    assert fx.take(Recall) == [Recall(f"t{number}", "w1", 1) for number in (8, 7, 6)]
    core.check()


def test_a_random_victim_may_have_nothing(make_coordinator):
    """One try, one worker: the thief itself, or one that holds no more than its slots, is none."""
    policy = RandomVictim(random.Random(1), 1)
    core, _ = make_coordinator(stealing=policy)
    register(core, "w1", 1, 4, True, 0.0)
    register(core, "w2", 1, 4, True, 0.0)
    thief = core.worker("w1")
    assert {policy.victim(thief) for _ in range(20)} == {None}
    submit(core, "t1", "t2", "t3", "t4")
    assert {policy.victim(thief) for _ in range(50)} == {None, core.worker("w2")}


# ---- the worker's half

A, B = ("a", 1), ("b", 1)


def test_a_worker_gives_back_what_has_not_begun(make_agent):
    """As if it were cancelled, and it never begins; nor does what a recall overtakes."""
    worker, fx = make_agent(prefetch=1)
    worker.assigned(A, "payload", 0.0)
    worker.assigned(B, "payload", 0.0)
    fx.take()
    worker.recall(B, 1.0)
    worker.recall(("c", 1), 1.0)
    assert fx.take() == [CancelDone(B), CancelDone(("c", 1))]
    worker.assigned(("c", 1), "payload", 1.1)
    worker.finished(A, "done", 2.0)
    assert fx.take(Execute) == []


def test_a_worker_keeps_what_has_begun(make_agent):
    """It runs on, and its report is repeated as long as nobody has it."""
    worker, fx = make_agent(prefetch=1)
    worker.assigned(A, "payload", 0.0)
    fx.take()
    worker.recall(A, 1.0)
    worker.finished(A, "done", 2.0)
    worker.recall(A, 2.1)
    assert fx.take() == [SendReport(A, "done")]
    assert worker.held == (A,)
