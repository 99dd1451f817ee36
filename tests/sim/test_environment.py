"""The environment is SimPy's, with a quicker queue."""

from __future__ import annotations

import itertools

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from sim.environment import Environment


def test_ordinary_processes_run_beside_callbacks():
    """A SimPy process with a resource and our callbacks share one clock and one order."""
    env, seen = Environment(), []
    machine = simpy.Resource(env, capacity=1)

    def customer(name: str):
        with machine.request() as turn:
            yield turn
            yield env.timeout(2)
            seen.append((env.now, name))

    env.process(customer("a"))
    env.process(customer("b"))
    for at in (1.0, 2.0, 3.0):
        env.call_at(at, int(at), lambda name: seen.append((env.now, name)), f"callback {at:g}")
    env.run()
    assert seen == [(1, "callback 1"), (2, "callback 2"), (2, "a"), (3, "callback 3"), (4, "b")]


def test_run_until_a_time_an_event_or_the_end():
    """`run` keeps SimPy's three meanings of `until`."""
    env = Environment()
    env.timeout(15)
    assert env.peek() == 15
    assert env.run(until=env.timeout(5, "done")) == "done"
    env.run(until=7)
    assert env.now == 7
    env.run()
    assert (env.now, env.peek()) == (15, float("inf"))


def test_a_failed_process_is_raised():
    """An error that nobody awaits ends the run, as in SimPy."""
    env = Environment()

    def broken():
        yield env.timeout(1)
        raise ValueError("broken")

    env.process(broken())
    with pytest.raises(ValueError, match="broken"):
        env.run()


def test_conditions_and_interrupts():
    """`a | b` and interrupts work on our queue."""
    env, seen = Environment(), []

    def sleeper():
        try:
            yield env.timeout(100)
        except simpy.Interrupt as interrupt:
            seen.append((env.now, interrupt.cause))

    def waker(process):
        fired = yield env.timeout(1, "quick") | env.timeout(3, "slow")
        seen.append((env.now, list(fired.values())))
        process.interrupt("enough")

    env.process(waker(env.process(sleeper())))
    env.run(until=10)
    assert seen == [(1, ["quick"]), (1, "enough")]


@given(
    times=st.lists(st.floats(0, 1e6), max_size=60),
    later=st.lists(st.floats(0, 1e3), max_size=20),
    events_per_s=st.sampled_from([1e-3, 1.0, 37.0, 1e5]),
)
def test_whatever_the_width_of_a_slot_events_come_in_order(times: list, later: list, events_per_s: float):
    """Time, then key; also for what is added while the clock runs."""
    env, seen = Environment(events_per_s=events_per_s), []
    expected = [(time, key) for key, time in enumerate(times)]
    added = iter(enumerate(later, len(times)))

    def fire(key: int) -> None:
        seen.append((env.now, key))
        for number, delay in itertools.islice(added, 1):
            expected.append((env.now + delay, number))
            env.call_at(env.now + delay, number, fire, number)

    for key, time in enumerate(times):
        env.call_at(time, key, fire, key)
    env.run_callbacks()
    # An event is added at the time of another, never before it: the order of time is the order of calls.
    assert sorted(seen) == sorted(expected)
    assert [time for time, _ in seen] == sorted(time for time, _ in seen)
    assert env.processed == len(expected)
