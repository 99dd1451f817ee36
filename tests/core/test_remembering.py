"""How long settled tasks are remembered."""

from __future__ import annotations

import gc
import math
from typing import NamedTuple

from orchestrator.core.model import Attempt, Task, WorkerState
from tests.core.making import DEAD_AFTER_S
from tests.core.recording import complete, fail, register, submit, tell


def completed(core, task, now, value="value"):
    submit(core, task, now=now)
    tell(core, "result", "w1", task, 1, True, value, "", False, None, None, now)


def test_settled_tasks_are_remembered_by_age(make_cluster):
    """However many they are: a result that was acknowledged can be asked for, until it is that old."""
    core, _ = make_cluster("w1", keep_settled=math.inf, keep_settled_s=60.0)
    for number in range(500):
        completed(core, f"t{number}", 1.0)
    completed(core, "later", 61.0)
    assert core.task("t0") is not None
    completed(core, "last", 61.5)
    assert core.task("t499") is None
    assert core.task("later") is not None
    core.check()


def test_settled_tasks_are_remembered_up_to_a_size(make_cluster):
    """Large results make room for themselves; one that is larger than all the room is forgotten at once."""
    core, _ = make_cluster("w1", keep_settled=math.inf, keep_settled_bytes=100_000)
    for number in range(5):
        completed(core, f"t{number}", 1.0, value="x" * 30_000)
    assert [core.task(f"t{number}") is not None for number in range(5)] == [False, False, True, True, True]
    completed(core, "huge", 1.0, value="x" * 200_000)
    assert [task for task in ("t4", "huge") if core.task(task)] == []
    core.check()


class Keyed(NamedTuple):
    """A payload that says that its submitter gave it a key."""

    key: str


def completed_with_key(core, task, now):
    core.submit(task, 1, Keyed(task), None, now)
    tell(core, "result", "w1", task, 1, True, "x" * 30_000, "", False, None, None, now)


def test_settled_tasks_with_a_key_are_remembered_for_a_time_of_their_own(make_cluster):
    """Longer or shorter than the others."""
    core, _ = make_cluster("w1", keep_settled=math.inf, keep_settled_s=60.0, keep_keyed_s=10.0)
    completed(core, "t0", 1.0)
    completed_with_key(core, "k0", 1.0)
    completed_with_key(core, "k1", 11.5)
    assert [task for task in ("t0", "k0", "k1") if core.task(task)] == ["t0", "k1"]
    completed(core, "last", 61.5)
    assert [task for task in ("t0", "k1", "last") if core.task(task)] == ["last"]
    core.check()


def test_settled_tasks_with_a_key_are_the_last_to_make_room(make_cluster):
    """Then the oldest of them goes."""
    core, _ = make_cluster("w1", keep_settled=math.inf, keep_settled_bytes=100_000, keep_keyed_s=10.0)
    completed_with_key(core, "k0", 1.0)
    for number in range(4):
        completed(core, f"t{number}", 1.0, value="x" * 30_000)
    assert [task for task in ("k0", "t0", "t1", "t2", "t3") if core.task(task)] == ["k0", "t2", "t3"]
    for number in range(1, 4):
        completed_with_key(core, f"k{number}", 1.0)
    assert [task for task in ("k0", "k1", "k2", "k3", "t3") if core.task(task)] == ["k1", "k2", "k3"]
    core.check()


def alive():
    """The tasks and attempts that this interpreter holds."""
    return sum(isinstance(each, Task | Attempt) for each in gc.get_objects())


def test_what_is_forgotten_is_freed_without_a_search_for_garbage(make_cluster):
    """Of tasks that complete, fail, are tried again after a failure or a death, or are cancelled: nothing is left
    in a cycle, so a process may look for such things as rarely as it does."""
    core, effects = make_cluster("w1", capacity=9, keep_settled=0)
    gc.collect()
    before = alive()
    gc.disable()
    try:
        for number in range(20):
            now = 100.0 * number
            for task in ("completed", "failed", "again", "dead"):
                submit(core, f"{task}{number}", now=now)
            submit(core, f"cancelled{number}", now=now)
            complete(core, "w1", f"completed{number}", 1, now)
            fail(core, "w1", f"failed{number}", 1, now)
            fail(core, "w1", f"again{number}", 1, now, retryable=True)
            core.cancel(f"cancelled{number}", now)
            core.wake(now + DEAD_AFTER_S)
            assert core.worker("w1").state is WorkerState.DEAD
            register(core, "w1", 9, 0, True, now + 50)
            for task, attempt in (("again", 3), ("dead", 2)):
                complete(core, "w1", f"{task}{number}", attempt, now + 51)
        effects.take()
        core.check()
        assert (core.completed, core.failed) == (60, 40)
        assert alive() <= before + 2
    finally:
        gc.enable()
