"""Deadline queues and the moments of a periodic check."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.deadlines import AnyOrder, Ticks

PERIODS = st.floats(1e-3, 100.0)
MOMENTS = st.floats(0.0, 1e6)


@st.composite
def ticks(draw):
    every_s = draw(PERIODS)
    return Ticks(every_s, every_s * draw(st.floats(0.0, 1.0, exclude_max=True)))


def tick(ticks: Ticks, k: int) -> float:
    return ticks.phase_s + k * ticks.every_s


@given(ticks(), MOMENTS)
def test_the_tick_is_not_before_the_moment(ticks, at):
    """What is due at a moment is looked at then or later."""
    assert ticks.at_or_after(at) >= at


@given(ticks(), MOMENTS)
def test_the_tick_is_the_first_one(ticks, at):
    """The tick before it lies before the moment."""
    found = ticks.at_or_after(at)
    k = round((found - ticks.phase_s) / ticks.every_s)
    assert found == tick(ticks, k)
    assert tick(ticks, k - 1) < at


@given(ticks(), st.integers(0, 10**6))
def test_a_tick_is_its_own_first_tick(ticks, k):
    """However the division rounds, a moment that is a tick is not put off to the next one."""
    assert ticks.at_or_after(tick(ticks, k)) == tick(ticks, k)


@given(ticks(), MOMENTS, MOMENTS)
def test_later_moments_have_later_ticks(ticks, one, other):
    """Ticks keep the order of deadlines, so that a queue in order stays in order."""
    assert ticks.at_or_after(min(one, other)) <= ticks.at_or_after(max(one, other))


def test_never_has_no_tick():
    """A detector that will not change its mind is not asked."""
    assert Ticks(2.0, 0.5).at_or_after(math.inf) == math.inf


@given(st.lists(MOMENTS))
def test_any_order_falls_due_in_order_of_time_and_then_of_addition(moments):
    """The heap sorts by time, and is stable."""
    queue: AnyOrder[int] = AnyOrder()
    for number, at in enumerate(moments):
        queue.add(at, number)
    assert queue.earliest == min(moments, default=math.inf)
    popped = [queue.pop() for _ in moments]
    assert popped == sorted((at, number) for number, at in enumerate(moments))
    assert queue.earliest == math.inf
