"""Any interleaving of the coordinator's inputs, held against a simple model after every step."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.model import Priority, TimeLimits
from tests.core import making
from tests.core.configurations import RESULTS, SETTINGS, WORKERS, configurations, same_settings
from tests.core.recording import Recorder, tell
from tests.core.reference import Model
from tests.core.reference_records import Try

TASKS = [f"t{number}" for number in range(8)]
WORDS = ["started", "rejected", "cancelled", "call_failed"]

anyone = st.sampled_from([*WORKERS, "ghost"])
any_task = st.sampled_from([None, None, *TASKS, "nope"])
numbers = st.sampled_from([-1, 0, 1, 2, 3, 99])
pick = st.integers(0, 1000)
limits = st.none() | st.builds(
    TimeLimits,
    queue_timeout_s=st.sampled_from([None, 0.5, 3.0]),
    execution_timeout_s=st.sampled_from([None, 2.0]),
    deadline_s=st.sampled_from([None, 1.5, 6.0]),
)


class Interleavings(RuleBasedStateMachine):
    """The coordinator's inputs in any order, for live, settled, unknown, dead and departed alike."""

    @initialize(
        chosen=configurations,
        capacities=st.tuples(*[st.integers(0, 3)] * 3),
        max_waiting=st.sampled_from([None, None, 1, 4]),
    )
    def begin(self, chosen: dict[str, Any], capacities: tuple[int, ...], max_waiting: int | None) -> None:
        self.fx = Recorder()
        configuration, rules = same_settings(chosen)
        rules.max_waiting = max_waiting
        self.core = making.coordinator(self.fx, max_waiting=max_waiting, **configuration)
        self.model = Model(rules)
        self.now = 0.0
        self.sound = True
        for worker, capacity in zip(WORKERS, capacities, strict=True):
            if capacity:
                self.drive("register", worker, capacity, 0, True)

    def drive(self, name: str, *arguments: Any) -> None:
        """One input to both, and the effects held against the model."""
        self.sound = False
        tell(self.core, name, *arguments, self.now)
        effects = self.fx.take()
        if name in ("wake", "heartbeat"):
            getattr(self.model, name)(*arguments, self.now, effects)
        else:
            getattr(self.model, name)(*arguments, self.now)
        self.model.observe(effects, self.core, self.now)
        self.sound = True

    def attempt(self, pick: int, live: bool) -> Try:
        known = [attempt for attempt in self.model.attempts if attempt.live] if live else []
        known = known or self.model.attempts
        return known[pick % len(known)]

    # Of the other rules hypothesis leaves some out of each run, and little would ever be done without all of these.
    @rule(
        steps=st.lists(
            st.tuples(st.sampled_from(["submit", "submit again", "beat", "complete", "start", "alarm"]), pick),
            min_size=1,
            max_size=4,
        )
    )
    def ordinary_course(self, steps: list[tuple[str, int]]) -> None:
        """What happens in a cluster on a good day."""
        for what, pick in steps:
            live = [attempt for attempt in self.model.attempts if attempt.live]
            if what == "submit":
                self.submit(Priority(pick % len(Priority)), 1, None)
            elif what == "submit again":
                self.submit_perhaps_again(TASKS[pick % len(TASKS)], Priority.NORMAL, None)
            elif what == "beat":
                self.beat(WORKERS[pick % len(WORKERS)], None)
            elif what == "alarm":
                self.pass_time(None, True)
            elif live:
                attempt = live[pick % len(live)]
                self.tell(
                    attempt.worker, attempt.task.id, attempt.number, "started" if what == "start" else "completed"
                )

    # ---- time

    @rule(seconds=st.sampled_from([None, None, None, 0.1, 0.5, 1.0, 2.5, 7.0]), wake=st.booleans())
    def pass_time(self, seconds: float | None, wake: bool) -> None:
        """Until the alarm (None), or a while in which it may be overslept, or ring unasked."""
        if seconds is not None:
            self.now += seconds
        elif self.model.alarm < math.inf:
            self.now = max(self.now, self.model.alarm)
        if wake or seconds is None:
            self.drive("wake")

    # ---- clients

    @rule(priority=st.sampled_from(Priority), count=st.integers(1, 3), limits=limits)
    def submit(self, priority: Priority, count: int, limits: TimeLimits | None) -> None:
        for _ in range(count):
            self.drive("submit", f"t{self.model.submitted}", priority, None, limits)

    @rule(task=st.sampled_from(TASKS), priority=st.sampled_from(Priority), limits=limits)
    def submit_perhaps_again(self, task: str, priority: Priority, limits: TimeLimits | None) -> None:
        self.drive("submit", task, priority, None, limits)

    @rule(task=st.sampled_from(TASKS))
    def cancel(self, task: str) -> None:
        self.drive("cancel", task)

    # ---- workers

    @rule(worker=st.sampled_from(WORKERS), capacity=st.integers(0, 3), prefetch=st.sampled_from([0, 0, 1, math.inf]),
          reports_start=st.booleans(), suddenly=st.integers(0, 3))  # fmt: skip
    def register(self, worker: str, capacity: int, prefetch: float, reports_start: bool, suddenly: int) -> None:
        """Mostly one that is not there, for a restart ends everything of before."""
        host = self.model.hosts.get(worker)
        if host is None or host.draining or host.opinion != "alive" or not suddenly:
            self.drive("register", worker, capacity, prefetch, reports_start)
        else:
            self.beat(worker, None)

    @rule(worker=anyone, active=st.sampled_from([None, None, None, 0, 1, 2, 5, -1]))
    def beat(self, worker: str, active: int | None) -> None:
        """With the truth (None) or any other number."""
        self.drive("heartbeat", worker, len(self.model.on(worker)) if active is None else active)

    @precondition(lambda self: self.model.attempts)
    @rule(pick=pick, live=st.sampled_from([True, True, False]), numbered=st.booleans(),
          what=st.sampled_from(["completed", "completed", "started", "started", *RESULTS, *WORDS]))  # fmt: skip
    def word(self, pick: int, live: bool, numbered: bool, what: str) -> None:
        """About an attempt that was made: in time or late, for the first time or again."""
        attempt = self.attempt(pick, live)
        number = attempt.number if numbered or what in WORDS else None
        self.tell(attempt.worker, attempt.task.id, number, what)

    @rule(pick=pick, worker=anyone, task=any_task, number=st.none() | numbers,
          what=st.sampled_from([*WORDS, *RESULTS]))  # fmt: skip
    def confusion(self, pick: int, worker: str, task: str | None, number: int | None, what: str) -> None:
        """A worker, a task and a number that need not belong together."""
        if task is None:
            task = self.attempt(pick, True).task.id if self.model.attempts else "t0"
        self.tell(worker, task, number if number is not None or what in RESULTS else 1, what)

    def tell(self, worker: str, task: str, number: int | None, what: str) -> None:
        if what in RESULTS:
            succeeded, retryable = RESULTS[what]
            self.drive("result", worker, task, number, succeeded, None, "", retryable, None, None)
        else:
            self.drive(what, worker, task, number)

    @rule(worker=anyone, what=st.sampled_from(["connection_lost", "connection_lost", "drain", "deregister"]))
    def go_away(self, worker: str, what: str) -> None:
        self.drive(what, worker)

    # ---- what must hold

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "core"):
            self.core.check()

    def teardown(self) -> None:
        if getattr(self, "sound", False):
            self.heal()

    def heal(self) -> None:
        """Faults stop and workers remain: then every task is settled, woken by nothing but the alarm."""
        self.drive("register", "w1", 2, 0, True)
        for _ in range(300):
            for host in list(self.model.hosts.values()):
                if host.opinion != "left":
                    self.drive("heartbeat", host.id, len(self.model.on(host.id)))
            for attempt in [attempt for attempt in self.model.attempts if attempt.live]:
                if attempt.live:
                    self.tell(attempt.worker, attempt.task.id, attempt.number, "completed")
            self.core.check()
            if not self.model.unsettled():
                break
            self.pass_time(None, True)
        assert not self.model.unsettled(), "lost"
        assert self.core.submitted == self.core.completed + self.core.failed


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = SETTINGS
