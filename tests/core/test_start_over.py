"""A worker that registers again with the same process."""

from __future__ import annotations

from typing import Any

from orchestrator.core.worker import Key, WorkerAgent


class Noting:
    """Implements `WorkerEffects`: notes what concerns attempts."""

    def __init__(self) -> None:
        self.noted: list[tuple[Any, ...]] = []

    def take(self) -> list[tuple[Any, ...]]:
        noted, self.noted = self.noted, []
        return noted

    def answer(self, key: Key, accepted: bool, now: float) -> None: ...
    def report_start(self, key: Key, now: float) -> None: ...
    def cancel_done(self, key: Key, now: float) -> None: ...
    def beat(self, active: int, completed: int, now: float) -> None: ...
    def announce_drain(self, now: float) -> None: ...
    def wake_at(self, at: float) -> None: ...

    def execute(self, key: Key, payload: object, now: float) -> None:
        self.noted.append(("execute", key))

    def stop(self, key: Key, now: float) -> None:
        self.noted.append(("stop", key))

    def report(self, key: Key, result: object, now: float) -> None:
        self.noted.append(("report", key, result))

    def leave(self, now: float) -> None:
        self.noted.append(("leave",))


def agent_with(*finished: Key, running: Key, waiting: Key) -> tuple[WorkerAgent, Noting]:
    fx = Noting()
    agent = WorkerAgent(fx, capacity=1, prefetch=1, heartbeat_s=2, first_beat_at=1)
    for key in finished:
        agent.assigned(key, "", 0)
        agent.finished(key, "done", 0)
    agent.assigned(running, "", 0)
    agent.assigned(waiting, "", 0)
    fx.take()
    return agent, fx


def test_what_it_holds_stops_and_what_it_finished_is_reported_again():
    """The coordinator requeues the former, and wants to know the latter."""
    agent, fx = agent_with(("a", 1), running=("b", 1), waiting=("c", 1))
    agent.start_over(5)
    assert fx.take() == [("stop", ("b", 1)), ("report", ("a", 1), "done")]
    assert agent.active == 0
    agent.check()


def test_a_slot_is_free_afterwards():
    """The next assignment starts at once; a late repetition of what was stopped does not."""
    agent, fx = agent_with(running=("b", 1), waiting=("c", 1))
    agent.start_over(5)
    agent.assigned(("c", 1), "", 6)
    agent.assigned(("c", 2), "", 6)
    assert fx.take() == [("stop", ("b", 1)), ("execute", ("c", 2))]


def test_a_draining_worker_that_starts_over_leaves_when_nothing_is_due():
    """Nothing is held any more, and nothing is left to report."""
    agent, fx = agent_with(running=("b", 1), waiting=("c", 1))
    agent.drain(4)
    agent.start_over(5)
    assert fx.take() == [("stop", ("b", 1)), ("leave",)]
