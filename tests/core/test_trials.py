"""How a worker whose calls fail, although it beats, is tried again."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.core.inputs import Registration
from tests.core.recording import Assign, assigned, complete, fail, heartbeat, register, submit, tell


@pytest.fixture
def failed(make_cluster):
    """`w1` beats and has three slots; three tasks wait since a call to it failed, and `w2` has no room."""
    core, fx = make_cluster("w1", capacity=3)
    assigned(core, "t1", "t2", "t3")
    for task in ("t1", "t2", "t3"):
        core.call_failed("w1", task, 1, 2.0)
    fx.take()
    return core, fx


def test_after_a_failed_call_it_gets_one_attempt_on_trial(failed):
    """At its next heartbeat: if it takes that one, it gets the others."""
    core, fx = failed
    heartbeat(core, "w1", 0, 3.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]
    complete(core, "w1", "t1", 2, 3.1)
    assert fx.take(Assign) == [Assign("t2", "w1", 2), Assign("t3", "w1", 2)]


def test_the_pauses_between_trials_grow(failed):
    """It beats every 2 s and never answers: a trial after none, 2, 4, 8, 16, then 30 s."""
    core, fx = failed
    tried = []
    for second in range(3, 140):
        heartbeat(core, "w1", 0, float(second))
        for assign in fx.take(Assign):
            tried.append(second)
            core.call_failed("w1", assign.task, assign.number, float(second))
    pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert pauses == [2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("word", ["completed", "failed", "started", "rejected", "cancelled"])
def test_any_word_of_the_attempt_passes_the_trial(make_cluster, word):
    """What it says of an attempt shows that it hears and answers."""
    core, fx = make_cluster()
    register(core, "w1", 1, 2, True, 0.0)
    assigned(core, "t1", "t2", "t3")
    for task in ("t1", "t2", "t3"):
        core.call_failed("w1", task, 1, 2.0)
    heartbeat(core, "w1", 0, 3.0)
    (trial,) = fx.take(Assign)
    if word == "completed":
        complete(core, "w1", trial.task, trial.number, 3.1)
    elif word == "failed":
        fail(core, "w1", trial.task, trial.number, 3.1)
    elif word == "cancelled":
        core.cancel(trial.task, 3.1)
        core.cancelled("w1", trial.task, trial.number, 3.1)
    else:
        tell(core, word, "w1", trial.task, trial.number, 3.1)
    if word == "rejected":
        heartbeat(core, "w1", 0, 3.2)
    assert len(fx.take(Assign)) == (3 if word == "rejected" else 2)


def test_an_attempt_that_is_held_for_longer_than_a_call_passes_the_trial(failed):
    """Had the call failed, that would be known: a long task keeps the other slots empty no longer than a call takes."""
    core, fx = failed
    heartbeat(core, "w1", 0, 3.0)
    fx.take()
    heartbeat(core, "w1", 1, 4.9)
    assert fx.take(Assign) == []
    heartbeat(core, "w1", 1, 5.0)
    assert len(fx.take(Assign)) == 2


def test_to_register_again_by_the_contract_is_no_way_round_a_trial(failed):
    """One attempt, as after a heartbeat."""
    core, fx = failed
    register(core, "w1", 3, 0, True, 3.0)
    assert fx.take(Assign) == [Assign("t1", "w1", 2)]


def test_a_new_incarnation_is_trusted(failed):
    """It is another process."""
    core, fx = failed
    core.register(Registration("w1", "another", 3, 0, True), 3.0)
    assert len(fx.take(Assign)) == 3


def test_others_are_not_kept_waiting(failed):
    """While the worker is in quarantine its tasks go to those that answer."""
    core, fx = failed
    register(core, "w2", 3, 0, True, 2.5)
    assert [assign.worker for assign in fx.take(Assign)] == ["w2"] * 3
    submit(core, "t4", now=2.6)
    heartbeat(core, "w1", 0, 3.0)
    assert [assign.worker for assign in fx.take(Assign)] == ["w1"]
