"""A coordinator and its workers behind a network that loses, repeats and reorders, in processes that crash and pause.

Hypothesis plays the network and the faults. At the end both stop: every task must settle, exactly once, and no
worker may be left with a load that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.inputs import Registration
from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    Outcome,
    Priority,
    Task,
    TaskId,
    TaskState,
    Worker,
    WorkerEvent,
    WorkerId,
)
from orchestrator.core.worker import Key, WorkerAgent
from orchestrator.policies.detection import ChenConfig
from tests.core import making
from tests.core.configurations import HEARTBEAT_S, RESULTS, SETTINGS, WORKERS, configurations, same_settings
from tests.core.recording import reported, tell


@dataclass(eq=False)
class Message:
    """`deliver` is what it does when it arrives, `lost` what its sender does when it learns that it did not."""

    what: str
    deliver: Callable[[], None]
    lost: Callable[[], None] | None = None
    retried: bool = False  # by its sender, until it arrives


@dataclass(eq=False)
class Process:
    """A worker process: it implements `core.worker.WorkerEffects` by messages to the coordinator."""

    cluster: Cluster
    name: WorkerId
    capacity: int
    prefetch: float
    up: bool = True
    paused: bool = False
    alarm: float = math.inf
    running: dict[Key, None] = field(default_factory=dict)
    executed: set[Key] = field(default_factory=set)
    stalled: list[Callable[[], None]] = field(default_factory=list)  # what arrived during a pause

    def __post_init__(self) -> None:
        self.agent = WorkerAgent(
            self,
            capacity=self.capacity,
            prefetch=self.prefetch,
            heartbeat_s=HEARTBEAT_S,
            first_beat_at=self.cluster.now + HEARTBEAT_S,
        )
        self.incarnation = self.cluster.new_incarnation()
        self.register()

    def receive(self, call: Callable[[], None]) -> None:
        if self.paused:
            self.stalled.append(call)
        elif self.up:
            call()

    def register(self) -> None:
        """Say what it holds. By the time at which that arrives it may hold more."""
        held = self.agent.held

        def deliver() -> None:
            if self.cluster.processes[self.name] is self:
                self.cluster.introduce(self, held)

        self.cluster.send(Message("register", deliver, retried=True))

    def register_again(self) -> None:
        if self.up:
            self.register()

    def speak(self, call: str, *arguments: Any, retried: bool = False) -> None:
        """A message about itself: of no meaning any more when another process of that name speaks."""

        def deliver() -> None:
            if self.cluster.processes[self.name] is self:
                self.cluster.tell(call, self.name, *arguments)

        self.cluster.send(Message(call, deliver, retried=retried))

    def say(self, call: str, key: Key, lost: Callable[[], None] | None = None, retried: bool = False) -> None:
        """A message about an attempt."""
        self.cluster.send(Message(call, lambda: self.cluster.tell(call, self.name, *key), lost, retried))

    def call_failed(self, key: Key) -> None:
        self.cluster.send(
            Message("call_failed", lambda: self.cluster.tell("call_failed", self.name, *key), retried=True)
        )

    # ---- effects of its agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        if accepted:
            self.cluster.send(Message("accepted", lambda: None, lambda: self.call_failed(key)))
        else:
            self.say("rejected", key, lost=lambda: self.call_failed(key))

    def execute(self, key: Key, payload: object, now: float) -> None:
        assert key not in self.executed, f"{key} is executed twice by {self.name}"
        self.executed.add(key)
        self.running[key] = None

    def stop(self, key: Key, now: float) -> None:
        del self.running[key]

    def report_start(self, key: Key, now: float) -> None:
        self.say("started", key, retried=True)

    def report(self, key: Key, result: Any, now: float) -> None:
        succeeded, retryable = RESULTS[result]
        self.cluster.send(
            Message(
                "result",
                lambda: self.cluster.tell("result", self.name, *key, succeeded, None, "", retryable, None, None),
                lambda: self.receive(lambda: self.agent.report_failed(key, self.cluster.now)),
            )
        )

    def cancel_done(self, key: Key, now: float) -> None:
        self.say("cancelled", key)

    def beat(self, active: int, completed: int, now: float) -> None:
        self.speak("heartbeat", active)

    def announce_drain(self, now: float) -> None:
        self.speak("drain")

    def leave(self, now: float) -> None:
        self.up = False
        self.speak("deregister")

    def wake_at(self, at: float) -> None:
        self.alarm = at


class Cluster(RuleBasedStateMachine):
    """Implements `core.ports.Effects` by messages to the processes."""

    @initialize(
        chosen=configurations,
        detector=st.sampled_from([None, "chen"]),
        shapes=st.tuples(*[st.tuples(st.integers(1, 2), st.sampled_from([0, 0, 1, math.inf]))] * len(WORKERS)),
    )
    def begin(self, chosen: dict[str, Any], detector: str | None, shapes: tuple[tuple[int, float], ...]) -> None:
        self.now = 0.0
        self.alarm = math.inf
        self.messages: list[Message] = []
        self.outcomes: dict[TaskId, TaskState] = {}
        self.done: set[TaskId] = set()
        self.incarnations = 0
        self.sound = True
        configuration, _ = same_settings(chosen)
        if detector == "chen":
            chen = ChenConfig(kind="chen", heartbeat_s=HEARTBEAT_S, alpha_s=1.0, suspect_after=0.5)
            configuration["detector"] = chen.build()
        self.returns = chosen["on_return"] != "first_result"
        self.core = making.coordinator(self, **configuration)
        self.processes: dict[WorkerId, Process] = {}
        for name, (capacity, prefetch) in zip(WORKERS, shapes, strict=True):
            self.processes[name] = Process(self, name, capacity, prefetch)

    # ---- effects of the coordinator

    def accepted(self, task: Task, now: float) -> None:
        pass

    def refused(self, task: Task, why: str, now: float) -> None:
        pass

    def assign(self, attempt: Attempt, now: float) -> None:
        name, key = attempt.worker.id, (attempt.task.id, attempt.number)

        def deliver() -> None:
            process = self.processes[name]
            if process.up:
                process.receive(lambda: process.agent.assigned(key, None, self.now))
            else:
                process.call_failed(key)

        self.send(Message("assign", deliver, lambda: self.processes[name].call_failed(key)))

    def cancel(self, attempt: Attempt, now: float) -> None:
        useless = attempt.task.settled or attempt.outcome is Outcome.TIMED_OUT
        assert useless or self.returns, f"{attempt} is cancelled, and its task is not settled"
        key = (attempt.task.id, attempt.number)
        self.send_to(attempt.worker.id, "cancel", lambda process: process.agent.cancel(key, self.now))

    def timed_out(self, attempt: Attempt, now: float) -> None:
        pass

    def ended(self, attempt: Attempt, now: float) -> None:
        pass

    def settled(self, task: Task, now: float) -> None:
        assert task.id not in self.outcomes, f"{task} is settled twice"
        assert task.state is not TaskState.COMPLETED or task.id in self.done, f"{task}, and nobody did it"
        self.outcomes[task.id] = task.state

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        incarnation, dropped = worker.incarnation, tuple(dropped)

        def take(process: Process) -> None:
            if process.incarnation == incarnation:
                assert process.agent.registered(1, HEARTBEAT_S, self.now + HEARTBEAT_S, dropped, self.now)

        self.send_to(worker.id, "registered", take)

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        key = reported(request)
        self.send_to(
            worker_id,
            "acknowledged",
            lambda process: process.agent.reported(key, self.now),
            lost=lambda process: process.agent.report_failed(key, self.now),
        )

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        if not known:
            self.send_to(worker_id, "unknown", lambda process: process.register_again())

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        pass

    def wake_at(self, at: float) -> None:
        self.alarm = at

    # ---- the network

    def send(self, message: Message) -> None:
        self.messages.append(message)

    def send_to(
        self,
        name: WorkerId,
        what: str,
        call: Callable[[Process], None],
        lost: Callable[[Process], None] | None = None,
    ) -> None:
        """To whichever process has that name when it arrives."""

        def hand_over(call: Callable[[Process], None]) -> None:
            process = self.processes[name]
            process.receive(lambda: call(process))

        self.send(Message(what, lambda: hand_over(call), None if lost is None else lambda: hand_over(lost)))

    def tell(self, call: str, *arguments: Any) -> None:
        """An input of the coordinator. Until it returns without an error, nothing is worth healing."""
        self.sound = False
        tell(self.core, call, *arguments, self.now)
        self.sound = True

    def introduce(self, process: Process, held: tuple[Key, ...]) -> None:
        """A registration, as a driver hands it over."""
        registration = Registration(process.name, process.incarnation, process.capacity, process.prefetch, True, held)
        known = self.core.knows_incarnation(process.name, process.incarnation)
        self.sound = False
        (self.core.reconnected if known else self.core.register)(registration, self.now)
        self.sound = True

    def new_incarnation(self) -> str:
        self.incarnations += 1
        return str(self.incarnations)

    def deliver(self) -> None:
        """What is on its way now, in order; what it causes comes later."""
        messages, self.messages = self.messages, []
        for message in messages:
            message.deliver()

    @precondition(lambda self: self.messages)
    @rule(pick=st.integers(0, 1000), fate=st.sampled_from(["overtake", "repeat", "lose", "lose", "seem lost"]))
    def meddle(self, pick: int, fate: str) -> None:
        """With one message: `seem lost` is what its sender believes, and it arrives all the same."""
        message = self.messages[pick % len(self.messages)]
        if fate == "overtake" or (fate == "lose" and not message.retried):
            self.messages.remove(message)
        if fate in ("overtake", "repeat"):
            message.deliver()
        elif message.lost is not None:
            message.lost()

    # ---- time, clients and work

    # One rule, for hypothesis leaves some rules out of a run, and without any of these nothing would happen in it.
    @rule(
        priority=st.sampled_from([None, *Priority]),
        picks=st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(["completed", *RESULTS])), max_size=3),
        arrive=st.integers(0, 2),
        seconds=st.sampled_from([0.0, 0.0, 0.1, 0.1, 1.0, 2.5, 7.0]),
    )
    def go_on(self, priority: Priority | None, picks: list[tuple[int, str]], arrive: int, seconds: float) -> None:
        """A task is submitted, messages arrive, some work ends, time passes."""
        if priority is not None:
            self.tell("submit", self.core.submitted, priority, None)
        for _ in range(arrive):
            self.deliver()
        for pick, how in picks:
            busy = [
                (process, key) for process in self.processes.values() if not process.paused for key in process.running
            ]
            if busy:
                self.end(*busy[pick % len(busy)], how)
        self.pass_time(seconds)

    def end(self, process: Process, key: Key, how: str) -> None:
        del process.running[key]
        if how == "completed":
            self.done.add(key[0])
        process.agent.finished(key, how, self.now)

    def pass_time(self, seconds: float) -> None:
        """Every alarm rings on time, but for those of paused processes."""
        end = self.now + seconds
        while (at := self.next_alarm()) <= end:
            self.ring(at)
        self.now = end

    @rule(seconds=st.sampled_from([0.7, 3.0, 8.0]))
    def oversleep(self, seconds: float) -> None:
        """The coordinator stands still: its alarm does not ring, and what arrives waits."""
        alarm, self.alarm = self.alarm, math.inf
        self.pass_time(seconds)
        self.alarm = alarm

    def next_alarm(self) -> float:
        ready = [process.alarm for process in self.processes.values() if process.up and not process.paused]
        return min([self.alarm, *ready])

    def ring(self, at: float) -> None:
        self.now = max(self.now, at)
        if self.alarm <= self.now:
            self.alarm = math.inf
            self.tell("wake")
        for process in self.processes.values():
            if process.up and not process.paused and process.alarm <= self.now:
                process.alarm = math.inf
                process.agent.wake(self.now)

    # ---- faults

    @rule(
        name=st.sampled_from(WORKERS),
        what=st.sampled_from(["crash", "restart", "pause", "resume", "resume", "drain", "break_connection"]),
    )
    def inject(self, name: WorkerId, what: str) -> None:
        getattr(self, what)(self.processes[name])

    def crash(self, process: Process) -> None:
        process.up = process.paused = False
        process.running.clear()
        process.stalled.clear()

    def restart(self, process: Process) -> None:
        """Whether the old process is gone or not: nobody can tell the coordinator."""
        self.crash(process)
        self.processes[process.name] = Process(self, process.name, process.capacity, process.prefetch)

    def pause(self, process: Process) -> None:
        process.paused = process.up

    def resume(self, process: Process) -> None:
        """Or let the supervisor start it again, where it is gone."""
        process.paused = False
        stalled, process.stalled = process.stalled, []
        for call in stalled:
            process.receive(call)
        if not process.up:
            self.restart(process)

    def drain(self, process: Process) -> None:
        process.receive(lambda: process.agent.drain(self.now))

    def break_connection(self, process: Process) -> None:
        """Both ends notice, and the process dials again."""
        self.tell("connection_lost", process.name)
        process.receive(process.register_again)

    # ---- what must hold

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "core"):
            self.core.check()
            for process in self.processes.values():
                process.agent.check()

    def teardown(self) -> None:
        if getattr(self, "sound", False):
            self.heal()

    def heal(self) -> None:
        """Faults stop: everything settles, and then no load remains."""
        for name in WORKERS:
            self.resume(self.processes[name])
            if self.processes[name].agent.draining:
                self.restart(self.processes[name])
        for _ in range(500):
            self.settle_down()
            if len(self.outcomes) == self.core.submitted:
                break
            self.ring(self.next_alarm())
        assert len(self.outcomes) == self.core.submitted, "lost"
        for _ in range(5):
            self.pass_time(HEARTBEAT_S)
            self.settle_down()
        assert {worker.id: worker.load for worker in self.core.workers() if worker.load} == {}
        assert all(process.agent.idle for process in self.processes.values())

    def settle_down(self) -> None:
        """All messages arrive and all work ends."""
        while self.messages or any(process.running for process in self.processes.values()):
            self.deliver()
            for process in self.processes.values():
                for key in list(process.running):
                    if key in process.running:
                        self.end(process, key, "completed")
            self.books_balance()


TestCluster = Cluster.TestCase
TestCluster.settings = SETTINGS
