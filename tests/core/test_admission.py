"""Where many tasks wait, submissions are refused: low priorities first, and never what was accepted."""

from __future__ import annotations

from orchestrator.core.model import Priority
from tests.core.recording import Accepted, Refused, complete, submit


def accepted(core, fx, priority, *tasks):
    submit(core, *tasks, priority=priority)
    return [effect.task for effect in fx.take(Accepted, Refused) if isinstance(effect, Accepted)]


def test_low_priorities_are_refused_first(make_coordinator):
    """Of a limit of 8, low priority finds 4 places, normal 6, high 7, urgent all of them; then nobody does."""
    core, fx = make_coordinator(max_waiting=8)
    assert accepted(core, fx, Priority.LOW, *"abcdef") == ["a", "b", "c", "d"]
    assert accepted(core, fx, Priority.NORMAL, *"ghi") == ["g", "h"]
    assert accepted(core, fx, Priority.HIGH, *"jk") == ["j"]
    assert accepted(core, fx, Priority.URGENT, *"lm") == ["l"]
    assert core.pending == core.submitted == 8
    assert core.counters["refused_submissions"] == 5


def test_one_may_always_wait(make_coordinator):
    """Where the limit is one, of any priority."""
    for priority in Priority:
        core, fx = make_coordinator(max_waiting=1)
        assert accepted(core, fx, priority, "a", "b") == ["a"]


def test_a_refused_task_is_not_known(make_cluster):
    """It is accepted when it comes again and finds room; one that is known is only acknowledged."""
    core, fx = make_cluster("w1", max_waiting=1)
    assert accepted(core, fx, Priority.NORMAL, "runs", "waits", "refused") == ["runs", "waits"]
    assert core.task("refused") is None
    assert accepted(core, fx, Priority.NORMAL, "waits") == ["waits"]
    complete(core, "w1", "runs", 1, 1.0)
    fx.take()
    assert accepted(core, fx, Priority.NORMAL, "refused") == ["refused"]
    assert core.submitted == 3


def test_the_refusal_says_why(make_coordinator):
    """How many wait, and which priority is not taken."""
    core, fx = make_coordinator(max_waiting=1)
    said: list[tuple[str, object, str]] = []
    fx.refused = lambda task, why, now: said.append((task.id, task.payload, why))
    submit(core, "a", "b", priority=Priority.HIGH)
    assert said == [("b", "payload of b", "1 task waits: no more of high priority are taken at present")]
