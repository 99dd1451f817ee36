"""Queue disciplines: oldest first, and whoever comes back keeps its place."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Priority, Task
from orchestrator.policies.queueing import Fifo, StrictPriority

ORDER = {
    Fifo: lambda task: task.seq,
    StrictPriority: lambda task: (-task.priority, task.seq),
}


def tasks(*priorities):
    return [Task(f"t{seq}", seq, priority, None, 0.0) for seq, priority in enumerate(priorities)]


@pytest.mark.parametrize("discipline", ORDER)
@settings(deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["submit", "submit", "pop", "return"]), st.integers(0, 100)), max_size=100)
)
def test_the_first_in_line_is_popped(discipline, steps):
    """However tasks come, go and come back, the queue is a sorted list, and iteration takes nothing out of it."""
    queue, key = discipline(), ORDER[discipline]
    waiting: list[Task] = []
    out: list[Task] = []
    for seq, (what, pick) in enumerate(steps):
        if what == "submit":
            task = Task(f"t{seq}", seq, Priority(pick % len(Priority)), None, 0.0)
        elif what == "return" and out:
            task = out.pop(pick % len(out))
        else:
            if waiting:
                out.append(waiting.pop(0))
                assert queue.pop() is out[-1]
            continue
        queue.push(task)
        waiting = sorted([*waiting, task], key=key)
        assert len(queue) == len(waiting)
        assert list(queue) == waiting
    assert [queue.pop() for _ in waiting] == waiting
    assert len(queue) == 0


@pytest.mark.parametrize("discipline", ORDER)
def test_an_empty_queue_gives_nothing(discipline):
    """Popping from it is an error."""
    with pytest.raises(IndexError):
        discipline().pop()


def test_fifo_does_not_see_priorities():
    """An urgent task waits its turn."""
    queue = Fifo()
    low, urgent = tasks(Priority.LOW, Priority.URGENT)
    queue.push(low)
    queue.push(urgent)
    assert queue.pop() is low


def test_priority_prefers_a_late_urgent_task():
    """Within one priority the oldest goes first."""
    queue = StrictPriority()
    first, second, urgent = tasks(Priority.LOW, Priority.LOW, Priority.URGENT)
    for task in (first, second, urgent):
        queue.push(task)
    assert [queue.pop() for _ in range(3)] == [urgent, first, second]
