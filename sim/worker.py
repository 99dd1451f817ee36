"""A modelled worker process: the core's `WorkerAgent`, a speed, and what a crash or a pause does to it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orchestrator.core.model import Attempt, Worker
from orchestrator.core.worker import Key, WorkerAgent

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

    `left_s` is the execution that remains, `run` counts how often it was begun or continued, so that the end of an
    earlier run is known to be void. `back_s` is the delay of its result, drawn at the assignment.
    """

    __slots__ = (
        "answered", "attempt", "back_s", "call_ends_at", "finish_at", "key", "left_s", "number", "run",
        "started_at", "worker",
    )  # fmt: skip

    def __init__(self, attempt: Attempt, worker: SimWorker, left_s: float, back_s: float) -> None:
        self.attempt = attempt
        self.worker = worker
        self.key = (attempt.task.id, attempt.number)
        self.number = number_of(attempt)
        self.left_s = left_s
        self.back_s = back_s
        self.run = 0
        self.started_at: float | None = None
        self.finish_at = math.inf
        self.call_ends_at = 0.0
        self.answered = False


def number_of(attempt: Attempt) -> int:
    """A number for the keys of an attempt's events; its last two bits are left to tell its messages apart."""
    return attempt.task.id << 24 | attempt.number << 2  # type: ignore[operator]  # ids are row numbers here


class SimWorker:
    """Implements `core.worker.WorkerEffects`.

    `record` is the coordinator's side of it; `faults` are the times of those to come; `jobs` its attempts that are
    not on the fused path; `may_fuse`: the scenario allows that path, `fusible`: and so does the process's state.
    """

    record: Worker
    agent: WorkerAgent

    def __init__(
        self, world: World, slot: int, name: str, capacity: int, prefetch: float, speed: float, may_fuse: bool
    ) -> None:
        self.world = world
        self.slot = slot
        self.name = name
        self.capacity = capacity
        self.prefetch = prefetch
        self.speed = speed
        self.may_fuse = may_fuse
        self.fusible = may_fuse
        self.beats = 0
        self.faults: deque[float] = deque()
        self.next_fault_s = math.inf
        self.up = True
        self.paused = False
        self.jobs: dict[Key, Job] = {}
        self._running: dict[Key, Job] = {}
        self._frozen: list[tuple[Callable[[Any], None], Any]] = []  # what arrived during a pause
        self._wake_time = math.inf

    def boot(self, first_beat_at: float) -> None:
        """A new process, that remembers nothing."""
        self.up = True
        self.fusible = self.may_fuse
        self.agent = WorkerAgent(
            self,
            capacity=self.capacity,
            prefetch=self.prefetch,
            heartbeat_s=self.world.heartbeat_s,
            first_beat_at=first_beat_at,
        )

    # ---- what the world does to it

    def receive(self, handler: Callable[[Any], None], argument: Any) -> None:
        """A message arrives at the process; a paused one finds it when it goes on."""
        if self.paused:
            self._frozen.append((handler, argument))
        elif self.up:
            handler(argument)

    def take(self, job: Job) -> None:
        self.jobs[job.key] = job
        self.agent.assigned(job.key, job, self.world.now)

    def adopt(self, job: Job, started_at: float, finish_at: float) -> None:
        """Take over an attempt in the middle of its execution."""
        job.started_at, job.finish_at = started_at, finish_at
        self.take(job)

    def expect(self, faults: list[float]) -> None:
        """The times of its faults, in order."""
        self.faults = deque(faults)
        self.next_fault_s = faults[0]

    def struck(self) -> None:
        """The next of its faults happens now."""
        self.faults.popleft()
        self.next_fault_s = self.faults[0] if self.faults else math.inf

    def drain(self, now: float) -> None:
        """The process is asked to leave."""
        self.fusible = False
        self.agent.drain(now)

    def crash(self) -> None:
        self.up = self.paused = self.fusible = False
        self._frozen.clear()
        for job in self._running.values():
            job.run += 1
        self._running.clear()
        self.jobs.clear()
        self._wake_time = math.inf

    def pause(self, now: float) -> None:
        self.paused = True
        self.fusible = False
        for job in self._running.values():
            job.run += 1
            job.left_s = job.finish_at - now

    def resume(self, now: float) -> None:
        self.paused = False
        self.fusible = self.may_fuse
        for job in self._running.values():
            self._run(job, now + job.left_s)
        frozen, self._frozen = self._frozen, []
        for handler, argument in frozen:
            handler(argument)
        if self._wake_time <= now:
            self.agent.wake(now)

    # ---- effects of its agent

    def answer(self, key: Key, accepted: bool, now: float) -> None:
        job = self.jobs[key]
        job.answered = True
        if not accepted:
            del self.jobs[key]
            self.world.send_refusal(job, now)

    def execute(self, key: Key, payload: Any, now: float) -> None:
        job: Job = payload
        self._running[key] = job
        if job.started_at is None:
            job.started_at = now
            job.finish_at = now + job.left_s
        self.world.recorder.started(job.attempt, job.started_at)
        self._run(job, job.finish_at)

    def stop(self, key: Key, now: float) -> None:
        self._running.pop(key).run += 1

    def report_start(self, key: Key, now: float) -> None:
        self.world.send_start(self.jobs[key], now)

    def report(self, key: Key, result: Any, now: float) -> None:
        self.world.send_result(result, now)

    def cancel_done(self, key: Key, now: float) -> None:
        self.jobs.pop(key, None)
        self.world.send_cancelled(self, key, now)

    def beat(self, active: int, completed: int, now: float) -> None:
        self.world.send_heartbeat(self, active, now)

    def announce_drain(self, now: float) -> None:
        self.world.send_drain(self, now)

    def leave(self, now: float) -> None:
        self.up = False
        self.world.send_leave(self, now)

    def wake_at(self, at: float) -> None:
        if at != self._wake_time:
            self._wake_time = at
            self.world.env.call_at(at, Rank.BEAT + self.slot, self._wake, at)

    def _wake(self, at: float) -> None:
        if at == self._wake_time and self.up and not self.paused:
            self.agent.wake(at)

    def _run(self, job: Job, finish_at: float) -> None:
        job.run += 1
        job.finish_at = finish_at
        self.world.env.call_at(finish_at, Rank.FINISH + job.number, self._finish, (job, job.run))

    def _finish(self, event: tuple[Job, int]) -> None:
        job, run = event
        if job.run == run:
            del self._running[job.key]
            self.agent.finished(job.key, job, self.world.now)
