"""Queue disciplines: oldest first, and whoever comes back keeps its place."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.model import Attempt, Outcome, Priority, Task, TimeLimits, Worker
from orchestrator.policies.queueing import (
    Aging,
    EarliestDeadline,
    Fifo,
    ServiceTimes,
    ShortestFirst,
    ShortestFirstConfig,
    StrictPriority,
    WeightedFair,
    WeightedFairConfig,
)


class OfKind:
    def __init__(self, kind):
        self.kind = kind


SECONDS = {"long": 9.0, "unknown": 5.0, "short": 1.0}
KINDS = [OfKind(kind) for kind in SECONDS]
TIMES = ServiceTimes()
TIMES.learn("long", 9.0)
TIMES.learn("short", 1.0)


ORDER: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "fifo": (Fifo, lambda task: task.seq),
    "priority": (StrictPriority, lambda task: (-task.priority, task.seq)),
    "aging": (lambda: Aging(5.0), lambda task: (task.submitted_at - 5.0 * task.priority, task.seq)),
    "aging at once": (lambda: Aging(1e-9), lambda task: task.seq),
    "aging never": (lambda: Aging(1e9), lambda task: (-task.priority, task.seq)),
    "edf": (EarliestDeadline, lambda task: (task.deadline_at, task.seq)),
    "sjf": (lambda: ShortestFirst(TIMES), lambda task: (SECONDS[task.payload.kind], task.seq)),
}


def tasks(*priorities):
    return [Task(f"t{seq}", seq, priority, None, 0.0) for seq, priority in enumerate(priorities)]


@pytest.mark.parametrize("name", ORDER)
@settings(deadline=None, derandomize=True)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["submit", "submit", "pop", "return"]), st.integers(0, 100)), max_size=100)
)
def test_the_first_in_line_is_popped(name, steps):
    """However tasks come, go and come back, the queue is a sorted list, and iteration takes nothing out of it."""
    make, key = ORDER[name]
    queue = make()
    waiting: list[Task] = []
    out: list[Task] = []
    for seq, (what, pick) in enumerate(steps):
        if what == "submit":
            task = Task(f"t{seq}", seq, Priority(pick % len(Priority)), KINDS[pick % len(KINDS)], float(seq))
            task.limits = (None, TimeLimits(deadline_s=float(pick)), TimeLimits(queue_timeout_s=1.0))[pick % 3]
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
        assert sorted(queue, key=key) == waiting
    assert [queue.pop() for _ in waiting] == waiting
    assert len(queue) == 0


@pytest.mark.parametrize("make", [*(make for make, _ in ORDER.values()), lambda: by_priority()])
def test_an_empty_queue_gives_nothing(make):
    """Popping from it is an error."""
    with pytest.raises(IndexError):
        make().pop()


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


# ---- aging


def test_what_has_waited_long_enough_goes_before_the_urgent():
    """With tau 10 s a low task is worth an urgent one that was submitted 30 s later, and a normal one 10 s later."""
    queue = Aging(10.0)
    low = Task("low", 0, Priority.LOW, None, 0.0)
    others = [
        Task("normal, earlier", 1, Priority.NORMAL, None, 9.0),
        Task("normal, later", 2, Priority.NORMAL, None, 11.0),
        Task("urgent, earlier", 3, Priority.URGENT, None, 29.0),
        Task("urgent, later", 4, Priority.URGENT, None, 31.0),
    ]
    for task in (low, *others):
        queue.push(task)
    order = [queue.pop().id for _ in range(5)]
    place = order.index("low")
    assert {"normal, earlier", "urgent, earlier"} == set(order[:place])


# ---- edf


def test_a_deadline_for_each_priority_is_aging():
    """Jackson's urgency numbers: whoever waits with deadlines 0, 5, 10 and 15 s after the submission, ages by 5 s."""
    aging, deadlines = Aging(5.0), EarliestDeadline()
    rng = random.Random(1)
    for seq in range(200):
        priority = Priority(rng.randrange(4))
        limits = TimeLimits(deadline_s=1.0 + 5.0 * (Priority.URGENT - priority))
        task = Task(f"t{seq}", seq, priority, None, seq * 0.31, limits)
        aging.push(task)
        deadlines.push(task)
    assert [aging.pop().id for _ in range(200)] == [deadlines.pop().id for _ in range(200)]


# ---- weighted_fair

WEIGHTS = {Priority.LOW: 1.0, Priority.NORMAL: 2.0, Priority.HIGH: 4.0, Priority.URGENT: 8.0}


def by_priority(weights=WEIGHTS):
    return WeightedFair(lambda task: task.priority, weights)


def test_classes_that_wait_share_by_their_weights():
    """Of 150 tasks that are served while all classes wait, 10, 20, 40 and 80."""
    queue = by_priority()
    for seq in range(800):
        queue.push(Task(f"t{seq}", seq, Priority(seq % 4), None, 0.0))
    served = [queue.pop().priority for _ in range(150)]
    assert [served.count(priority) for priority in Priority] == [10, 20, 40, 80]


@settings(deadline=None, derandomize=True)
@given(
    weights=st.lists(st.floats(0.1, 10), min_size=2, max_size=4),
    steps=st.lists(st.integers(-1, 3), min_size=1, max_size=300),
)
def test_no_class_that_waits_is_far_behind_another(weights, steps):
    """While two classes wait, what each was served, over its weight, differs by 1 / w + 1 / w' at most (Golestani 1994,
    theorem 1, for tasks of one length)."""
    queue = by_priority({Priority(place): weight for place, weight in enumerate(weights)})
    waiting, served = [0] * len(weights), [0.0] * len(weights)
    since: dict[tuple[int, int], float] = {}  # when both began to wait: how much more the first had been served
    for seq, step in enumerate(steps):
        if step >= 0:
            priority = step % len(weights)
            queue.push(Task(f"t{seq}", seq, priority, None, 0.0))
            waiting[priority] += 1
        elif len(queue):
            priority = queue.pop().priority
            waiting[priority] -= 1
            served[priority] += 1 / weights[priority]
        for one in range(len(weights)):
            for other in range(one):
                ahead = served[one] - served[other]
                if not (waiting[one] and waiting[other]):
                    since.pop((one, other), None)
                else:
                    began = since.setdefault((one, other), ahead)
                    assert abs(ahead - began) <= 1 / weights[one] + 1 / weights[other] + 1e-6


@settings(deadline=None, derandomize=True)
@given(steps=st.lists(st.sampled_from([0, 1, 2, 3, None, "back"]), max_size=200))
def test_inside_a_class_the_oldest_goes_first(steps):
    """Whoever comes back is the oldest again, and none is lost."""
    queue = by_priority()
    waiting: list[Task] = []
    out: list[Task] = []
    for seq, step in enumerate(steps):
        if step is None and waiting:
            task = queue.pop()
            assert task is min((one for one in waiting if one.priority == task.priority), key=lambda one: one.seq)
            waiting.remove(task)
            out.append(task)
        elif step is not None:
            task = out.pop() if step == "back" and out else Task(f"t{seq}", seq, seq % 4, None, 0.0)
            queue.push(task)
            waiting.append(task)
        assert len(queue) == len(waiting)
        assert sorted(task.seq for task in queue) == sorted(task.seq for task in waiting)


@pytest.mark.parametrize(("kind", "name"), [("sleep:report", "report"), ("prime", "prime"), (None, "")])
def test_a_class_of_kind_has_the_name_that_scenarios_use(kind, name):
    """In both worlds, whatever stands in for the work."""
    config = WeightedFairConfig(kind="weighted_fair", by="kind", weights={name: 3.0})
    queue = config.build()()
    for seq in range(8):
        payload = OfKind(kind if seq % 2 else "other")
        queue.push(Task(f"t{seq}", seq, Priority.NORMAL, payload, 0.0))
    assert [kind_of(queue.pop()) for _ in range(4)].count(kind) == 3


def kind_of(task):
    return task.payload.kind


# ---- sjf


def ended(kind, ran_s, outcome=Outcome.COMPLETED):
    attempt = Attempt(Task("t", 0, 1, OfKind(kind), 0.0), Worker("w1", 0), 1, 0.0)
    attempt.outcome, attempt.ran_s = outcome, ran_s
    return attempt


def test_the_order_of_kinds_follows_what_they_took():
    """What waits changes its place with what is learnt, and failures teach nothing."""
    queue = ShortestFirst(ServiceTimes())
    for seq, kind in enumerate(["a", "b", "a", "b"]):
        queue.push(Task(f"{kind}{seq}", seq, Priority.NORMAL, OfKind(kind), 0.0))
    queue.ended(ended("a", 2.0), 2.0)
    queue.ended(ended("b", 1.0), 3.0)
    assert queue.pop().id == "b1"
    queue.ended(ended("a", 0.001, Outcome.FAILED), 4.0)
    assert queue.pop().id == "b3"
    assert [queue.pop().id for _ in range(2)] == ["a0", "a2"]


def test_the_queues_of_a_coordinator_know_the_same_times():
    """A lane of refused tasks has a queue of its own, which hears of no result."""
    make: Callable[[], Any] = ShortestFirstConfig(kind="sjf").build()
    main, lane = make(), make()
    main.ended(ended("a", 2.0), 2.0)
    main.ended(ended("b", 1.0), 2.0)
    for seq, kind in enumerate(["a", "b"]):
        lane.push(Task(kind, seq, Priority.NORMAL, OfKind(kind), 0.0))
    assert lane.pop().id == "b"
