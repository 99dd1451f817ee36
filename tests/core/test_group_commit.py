"""What is stored of a task, and what waits until it is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from orchestrator.core.group_commit import GroupCommit, Noting, stored
from orchestrator.core.inputs import Holding, Registration, Report
from orchestrator.core.model import Priority, Task
from tests.core import making
from tests.core.recording import Recorder


def test_what_is_stored_of_each_task_recovers_to_the_same():
    """Of one that waits, one that a worker has, one that failed once, and one that is settled."""
    core: Any = making.coordinator(Recorder())
    core.register(Registration("w1", "a", 2, 0, True), 0.5)
    for name in ("t1", "t2", "t3"):
        core.submit(name, Priority.HIGH, None, None, 1.0)
    core.result(Report("w1", "t1", 1, False, error="again", retryable=True), 2.0)
    core.result(Report("w1", "t2", 1, True, "done"), 3.0)
    before = [stored(core.task(name)) for name in ("t2", "t1", "t3")]
    assert {each.task_id: each.held for each in before} == {
        "t1": (Holding(2, "w1", "a", 2.0),),
        "t2": (),
        "t3": (Holding(1, "w1", "a", 3.0),),
    }
    again: Any = making.coordinator(Recorder())
    for each in before:
        again.recovered(each, 4.0)
        again.check()
    assert [stored(again.task(each.task_id)) for each in before] == before


def test_a_call_waits_for_what_was_noted_before_it_and_for_nothing_else():
    """While one group is written, the next one gathers."""
    told: list[str] = []
    wanted: list[int] = []
    commit, task = GroupCommit(lambda: wanted.append(len(told))), Task("t1", 0, 1, None, 0.0)
    commit.release("peer", told.append, "nothing has changed")
    commit.note(task)
    commit.release("peer", told.append, "the first")
    [group] = commit.begin()
    assert group.task_id == "t1"
    commit.release("peer", told.append, "still the first")
    commit.note(task)
    commit.release("peer", told.append, "the second")
    assert told == ["nothing has changed"]
    assert not commit.due  # one at a time
    assert [values for _, values in commit.end()] == [("the first",), ("still the first",)]
    assert commit.due
    assert wanted == [1]  # where none was written; after that its driver asks whether one is due
    commit.begin()
    assert [values for _, values in commit.end()] == [("the second",)]


def test_once_it_is_closed_nothing_is_called():
    """Neither what waited for the last group, nor what waits for the next one, nor what comes later."""
    wanted: list[int] = []
    commit, task = GroupCommit(partial(wanted.append, 1)), Task("t1", 0, 1, None, 0.0)
    commit.note(task)
    commit.release("peer", pytest.fail, "it was called")
    commit.begin()
    commit.note(task)
    commit.release("peer", pytest.fail, "it was called")
    commit.close()
    commit.note(task)
    commit.release("peer", pytest.fail, "it was called")
    assert not commit.due
    assert wanted == [1]


def test_a_task_is_noted_before_whatever_depends_on_it_is_passed_on():
    """A task that is only acknowledged again has not changed."""
    fx = Recorder()
    told: list[tuple[object, int]] = []
    core = making.coordinator(Noting(lambda task: told.append((task.id, len(fx.take()))), fx))
    core.register(Registration("w1", "a", 1, 0, True), 0.0)
    fx.take()
    core.submit("t1", 1, None, None, 1.0)
    assert told == [("t1", 0), ("t1", 1)]  # before it is accepted, and then before it is assigned
    core.submit("t1", 1, None, None, 2.0)
    assert len(told) == 2
