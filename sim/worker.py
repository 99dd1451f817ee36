"""A modelled worker: the core's `WorkerAgent` in a process, its host's speed, and what faults do to both."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator.core.model import Attempt, Worker
from orchestrator.core.worker import Key, WorkerAgent
from sim.network import Impairment, Link

if TYPE_CHECKING:
    from sim.world import World

# With 15 ranks, a million workers and tasks up to 2^32, keys stay below 2^60: small integers for Python.
RANK = 1 << 56


class Rank:
    """The order of what happens at one moment: faults, then the workers' inside, then what the coordinator sees.

    A key is made of a rank and the number of whom it concerns, never of a running count: events that the fused path
    leaves out must not change the order of the others.
    """

    FAULT = 0 * RANK
    DELIVER = 1 * RANK
    FINISH = 2 * RANK
    BEAT = 3 * RANK
    SERVER = 4 * RANK
    START = 5 * RANK
    RESULT = 6 * RANK
    REFUSAL = 7 * RANK
    CANCELLED = 8 * RANK
    HEARTBEAT = 9 * RANK
    REGISTER = 10 * RANK
    ARRIVE = 11 * RANK
    SUBMIT = 12 * RANK
    WAKE = 13 * RANK
    STOP = 14 * RANK
    TICK = 15 * RANK


class Job:
    """An attempt on its way through a worker, off the fused path.

    `left_s` is the execution that remains, in seconds of a host in health; `run` counts how often it was begun or
    continued, so that the end of an earlier run is known to be void. `back_s` is the delay of its result, drawn at
    the assignment; `sent_at`: when its report was last sent. Its call ends at `call_ends_at`: `answered` says that
    the worker's answer will be there in time, `watched` that this is looked at. `arrived` at the process, it is
    `heeded` there unless it is known already. A copy names its `original`, whose call it answers.
    """

    __slots__ = (
        "answered", "arrived", "attempt", "back_s", "call_ends_at", "finish_at", "heeded", "key", "left_s", "number",
        "original", "run", "sent_at", "started_at", "watched", "worker",
    )  # fmt: skip

    def __init__(
        self, attempt: Attempt, worker: SimWorker, left_s: float, back_s: float, original: Job | None = None
    ) -> None:
        self.attempt = attempt
        self.worker = worker
        self.key = (attempt.task.id, attempt.number)
        self.number = number_of(attempt)
        self.left_s = left_s
        self.back_s = back_s
        self.run = 0
        self.started_at: float | None = None
        self.finish_at = math.inf
        self.original = original
        self.sent_at: float | None = None
        self.call_ends_at = 0.0
        self.answered = self.watched = self.arrived = self.heeded = False


def number_of(attempt: Attempt) -> int:
    """A number for the keys of an attempt's events; its last two bits are left to tell its messages apart."""
    return attempt.task.id << 24 | attempt.number << 2  # type: ignore[operator]  # ids are row numbers here


class SimWorker:
    """Implements `core.worker.WorkerEffects`.

    A process comes and goes (`up`; `life` counts those that came and went), the host stays: its `factor` of speed (0:
    the work hangs), and its ways out from the coordinator and back to it (None where nothing is wrong).
    `record` is the coordinator's side of it, an empty one until it registers; `jobs` are its attempts that are not on
    the fused path, `strays` copies of assignments on their way to it; `may_fuse`: the scenario allows that path,
    `fusible`: and so does the worker's state; `next_fault_s`: when a fault next changes anything for it.
    `last_word_at`: when the last message arrives that a leave must not overtake.
    """

    agent: WorkerAgent

    def __init__(
        self, world: World, index: int, name: str, capacity: int, prefetch: float, speed: float, may_fuse: bool
    ) -> None:
        self.world = world
        self.index = index
        self.name = name
        self.capacity = capacity
        self.prefetch = prefetch
        self.speed = speed
        self.record = Worker(name, -1)
        self.may_fuse = may_fuse
        self.fusible = False
        self.next_fault_s = math.inf
        self.last_word_at = 0.0
        self.beats = 0
        self.life = 0
        self.up = False
        self.paused = False
        self.joining = False
        self.factor = 1.0
        self.out: Link | None = None
        self.back: Link | None = None
        self.jobs: dict[Key, Job] = {}
        self.strays = 0
        self._rate = 1.0
        self._running: dict[Key, Job] = {}
        self._frozen: list[tuple[Callable[[Any], None], Any]] = []  # what arrived during a pause
        self._silent = False
        self._wake_time = math.inf
        self._impairments: dict[str, dict[str, Impairment]] = {"to_workers": {}, "to_coordinator": {}}

    def boot(self, first_beat_at: float) -> None:
        """A new process, that remembers nothing."""
        self.up = True
        self.life += 1
        self._rate = self.factor
        self.agent = WorkerAgent(
            self,
            capacity=self.capacity,
            prefetch=self.prefetch,
            heartbeat_s=self.world.heartbeat_s,
            first_beat_at=first_beat_at,
        )
        self._reckon()

    # ---- what the world does to it

    def receive(self, handler: Callable[[Any], None], argument: Any) -> None:
        """A message arrives at the process; a paused one finds it when it goes on."""
        if self.paused:
            self._frozen.append((handler, argument))
        elif self.up:
            handler(argument)

    def take(self, job: Job) -> None:
        """An assignment, or its copy, is handed over: the agent takes it, refuses it, or has met it before."""
        other = self.jobs.get(job.key)
        self.jobs[job.key] = job
        self.agent.assigned(job.key, job, self.world.now)
        if not job.heeded:
            del self.jobs[job.key]
            if other is not None and other is not job:
                self.jobs[job.key] = other

    def adopt(self, job: Job, started_at: float, finish_at: float, now: float) -> None:
        """Take over an attempt in the middle of its execution, or whose report is under way."""
        job.arrived = True
        job.started_at, job.finish_at = started_at, finish_at
        self.take(job)
        if finish_at <= now:
            job.run += 1
            job.sent_at = finish_at
            del self._running[job.key]
            self._silent = True
            self.agent.finished(job.key, job, now)
            self._silent = False

    def expect_copy(self, copy: Job) -> None:
        """A copy of an assignment is on its way; once the process forgot its original, it might be executed."""
        self.strays += 1
        self._reckon()

    def receive_copy(self, copy: Job) -> None:
        self.strays -= 1
        self._reckon()
        self.receive(self.take, copy)

    def start_over(self, now: float) -> None:
        """Before it registers again."""
        self.agent.start_over(now)
        self.jobs = {key: job for key, job in self.jobs.items() if not job.arrived or job.finish_at <= now}

    def drain(self, now: float) -> None:
        """The process is asked to leave."""
        self.agent.drain(now)
        self._reckon()

    def joined(self) -> None:
        """Its registration is on its way for certain."""
        self.joining = False

    def end(self) -> None:
        """The process is gone, with all that it held."""
        self.up = self.paused = self.joining = False
        self.life += 1
        self._frozen.clear()
        for job in self._running.values():
            job.run += 1
        self._running.clear()
        self.jobs = {key: job for key, job in self.jobs.items() if not job.arrived}
        self._wake_time = math.inf
        self._reckon()

    def pause(self, now: float) -> None:
        self.paused = True
        self._change_rate(now)

    def resume(self, now: float) -> None:
        self.paused = False
        self._change_rate(now)
        frozen, self._frozen = self._frozen, []
        for handler, argument in frozen:
            self.receive(handler, argument)
        if self.up and self._wake_time <= now:
            self.agent.wake(now)

    def work_at(self, factor: float, now: float) -> None:
        """The host goes on at so much of its speed."""
        self.factor = factor
        self._change_rate(now)

    def impairment(self, direction: str, kind: str, impairment: Impairment | None) -> None:
        """One direction of its network is troubled in this way, or no longer."""
        impairments = self._impairments[direction]
        if impairment is None:
            del impairments[kind]
        else:
            impairments[kind] = impairment
        link = Link(impairments.values()) if impairments else None
        if direction == "to_workers":
            self.out = link
        else:
            self.back = link
        self._reckon()

    # ---- effects of its agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        job = self.jobs[key]
        job.heeded = True
        if not accepted:
            del self.jobs[key]
            self.world.send_refusal(job, now)
        elif self.back is None:
            (job.original or job).answered = True
        else:
            self.world.send_confirmation(job, now)

    def execute(self, key: Key, payload: Any, now: float) -> None:
        job: Job = payload
        self._running[key] = job
        if job.started_at is None:
            job.started_at = now
            self._go_on(job, now)
        else:
            self._run(job, job.finish_at)
        self.world.recorder.started(job.attempt, job.started_at)

    def stop(self, key: Key, now: float) -> None:
        self._running.pop(key).run += 1

    def report_start(self, key: Key, now: float) -> None:
        self.world.send_start(self.jobs[key], now)

    def report(self, key: Key, result: Any, now: float) -> None:
        if not self._silent:
            self.world.send_result(result, now)

    def cancel_done(self, key: Key, now: float) -> None:
        job = self.jobs.get(key)
        if job is not None and job.arrived:
            del self.jobs[key]
        self.world.send_cancelled(self, key, now)

    def beat(self, active: int, completed: int, now: float) -> None:
        if not self.joining:
            self.world.send_heartbeat(self, active, now)

    def announce_drain(self, now: float) -> None:
        self.world.send_drain(self)

    def leave(self, now: float) -> None:
        self.world.send_leave(self)

    def wake_at(self, at: float) -> None:
        if at != self._wake_time:
            self._wake_time = at
            self.world.env.call_at(at, Rank.BEAT + self.index, self._wake, at)

    # ---- inside

    def _wake(self, at: float) -> None:
        if at == self._wake_time and self.up and not self.paused:
            self.agent.wake(at)

    def _reckon(self) -> None:
        """Whether an attempt may be fused: the process is well, and so are its host and all its ways."""
        self.fusible = (
            self.may_fuse
            and self.up
            and self._rate == 1.0
            and self.out is None
            and self.back is None
            and not self.strays
            and not self.agent.draining
        )

    def _change_rate(self, now: float) -> None:
        """What is being executed goes on at the speed that the process and its host now have."""
        before, self._rate = self._rate, 0.0 if self.paused else self.factor
        if self._rate != before:
            for job in self._running.values():
                if before:
                    job.left_s = (job.finish_at - now) * before
                self._go_on(job, now)
        self._reckon()

    def _go_on(self, job: Job, now: float) -> None:
        if self._rate:
            self._run(job, now + job.left_s / self._rate)
        else:
            job.run += 1
            job.finish_at = math.inf

    def _run(self, job: Job, finish_at: float) -> None:
        job.run += 1
        job.finish_at = finish_at
        self.world.env.call_at(finish_at, Rank.FINISH + job.number, self._finish, (job, job.run))

    def _finish(self, event: tuple[Job, int]) -> None:
        job, run = event
        if job.run == run:
            del self._running[job.key]
            self.agent.finished(job.key, job, self.world.now)
