"""A modelled worker: the core's `WorkerAgent` in a process, its host's speed, and what faults do to both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from orchestrator.core.model import Attempt, AttemptKey, Worker
from orchestrator.core.recent_keys import RecentKeys
from orchestrator.core.worker import WorkerAgent
from orchestrator.scenario.workload import Affinity
from sim import keys
from sim.environment import Environment
from sim.network import Fate, Impairment, Link


class Job:
    """An attempt on its way through a worker, off the fused path.

    Its work: `remaining_s` is the execution that remains, in seconds of a healthy host. `run` counts how often the
    execution was begun or continued, so the end of an earlier run is known to be void.

    Its messages: the assignment is sent to the process of that `life`, and no other gets it. `result_delay_s` is the
    delay of its result, drawn for the attempt; `result_fate` and `start_fate` are what becomes of its first report, and
    of the first news of its start, on a network in order. `reports` counts the reports; `report_sent_at` is when the
    last one was sent. The call that assigns it ends at `call_ends_at`:
    `answer_in_time` says that the worker's answer will be there by then, `call_watched` that an event checks it.
    `arrived`: the assignment is at the process; `taken`: the agent answered it, so it was not a repetition. A copy
    names its `original`, whose call it answers.
    """

    __slots__ = (
        "answer_in_time", "arrived", "attempt", "call_ends_at", "call_watched", "finish_at", "key", "life", "number",
        "original", "remaining_s", "report_sent_at", "reports", "result_delay_s", "result_fate", "run",
        "start_fate", "started_at", "taken", "worker",
    )  # fmt: skip

    def __init__(
        self,
        attempt: Attempt,
        worker: SimWorker,
        work_s: float,
        result_delay_s: float,
        fates: tuple[Fate, Fate],
        call_ends_at: float,
        original: Job | None = None,
    ) -> None:
        self.attempt = attempt
        self.worker = worker
        self.life = worker.life
        self.key = attempt.key
        self.number = keys.attempt_number(attempt)
        self.remaining_s = work_s
        self.result_delay_s = result_delay_s
        self.result_fate, self.start_fate = fates
        self.reports = 0
        self.call_ends_at = call_ends_at
        self.original = original
        self.run = 0
        self.started_at: float | None = None
        self.finish_at = math.inf
        self.report_sent_at: float | None = None
        self.answer_in_time = self.call_watched = self.arrived = self.taken = False

    @property
    def call(self) -> Job:
        """The job whose call this one answers."""
        return self.original or self


class Outbox(Protocol):
    """The messages that a worker sends to the coordinator."""

    def send_confirmation(self, job: Job, now: float) -> None: ...
    def send_refusal(self, job: Job, now: float) -> None: ...
    def send_start(self, job: Job, now: float) -> None: ...
    def send_result(self, job: Job, now: float) -> None: ...
    def send_cancelled(self, worker: SimWorker, key: AttemptKey, recalled: bool, now: float) -> None: ...
    def send_heartbeat(self, worker: SimWorker, active: int, now: float) -> None: ...
    def send_drain(self, worker: SimWorker) -> None: ...
    def send_leave(self, worker: SimWorker) -> None: ...


class SimWorker:
    """Implements `core.worker.WorkerEffects`.

    A process comes and goes: it is `up` or not, and `life`, which counts starts and ends, names its incarnation. The
    host stays: its `speed_factor` (0: work hangs), and its links to the coordinator and back (None: unimpaired).
    `record` is the coordinator's side of the worker, an empty one until it registers. `jobs` are its attempts that
    are not on the fused path. `copies_under_way` counts copies of assignments that the network has not delivered.
    `may_fuse`: the scenario allows the fused path; `fusible`: so does the worker's state. `next_fault_s`: when a fault
    next changes anything for the worker. `last_message_arrives_at`: a leave must not arrive earlier;
    `registered_arrives_at`: an assignment must not arrive before that answer to a registration. `registering`: a
    registration was not sent successfully yet, so there are no heartbeats.
    """

    # Ten thousand of them: beyond 30 attributes, Python would give each a dict of its own.
    __slots__ = (
        "_affinity", "_arrived_in_pause", "_env", "_execution_started", "_heartbeat_s", "_impairments", "_outbox",
        "_rate", "_recalling", "_recent", "_reporting", "_running", "_wake_time", "agent", "beats", "capacity",
        "copies_under_way", "fusible", "index", "jobs", "kinds", "labels", "last_message_arrives_at", "life",
        "link_to_coordinator", "link_to_worker", "may_fuse", "name", "next_fault_s", "paused", "prefetch", "record",
        "registered_arrives_at", "registering", "speed", "speed_factor", "up",
    )  # fmt: skip

    agent: WorkerAgent

    def __init__(
        self,
        index: int,
        name: str,
        capacity: int,
        prefetch: float,
        speed: float,
        may_fuse: bool,
        heartbeat_s: float,
        env: Environment,
        outbox: Outbox,
        execution_started: Callable[[Attempt, float], None],
        affinity: Affinity | None,
    ) -> None:
        self.index = index
        self.name = name
        self.capacity = capacity
        self.prefetch = prefetch
        self.speed = speed
        self.kinds: tuple[str, ...] = ()
        self.labels: tuple[str, ...] = ()
        self.may_fuse = may_fuse
        self.record = Worker(name, -1)
        self.fusible = False
        self.next_fault_s = math.inf
        self.last_message_arrives_at = 0.0
        self.registered_arrives_at = 0.0
        self.beats = 0
        self.life = 0
        self.up = False
        self.paused = False
        self.registering = False
        self.speed_factor = 1.0
        self.link_to_worker: Link | None = None
        self.link_to_coordinator: Link | None = None
        self.jobs: dict[AttemptKey, Job] = {}
        self.copies_under_way = 0
        self._heartbeat_s = heartbeat_s
        self._env = env
        self._outbox = outbox
        self._execution_started = execution_started
        self._rate = 1.0  # the host's speed factor, or 0 while the process is paused
        self._running: dict[AttemptKey, Job] = {}
        self._arrived_in_pause: list[tuple[Callable[[Any], None], Any]] = []
        self._affinity = affinity
        self._recent: RecentKeys | None = None
        self._recalling = False
        self._reporting = True
        self._wake_time = math.inf
        self._impairments: dict[str, dict[str, Impairment]] = {"to_workers": {}, "to_coordinator": {}}

    def boot(self, first_beat_at: float) -> None:
        """Start a new process, which remembers nothing."""
        self.up = True
        self.life += 1
        if self._affinity is not None:
            self._recent = RecentKeys(self._affinity.remembers)
        self._rate = self.speed_factor
        self.agent = WorkerAgent(
            self,
            capacity=self.capacity,
            prefetch=self.prefetch,
            heartbeat_s=self._heartbeat_s,
            first_beat_at=first_beat_at,
        )
        self._update_fusible()

    # ---- what the world does to it

    def receive(self, handler: Callable[[Any], None], argument: Any) -> None:
        """A message arrives at the process; a paused process finds it when it goes on."""
        if self.paused:
            self._arrived_in_pause.append((handler, argument))
        elif self.up:
            handler(argument)

    def take(self, job: Job) -> None:
        """Hand an assignment or its copy to the agent, which takes it, refuses it, or has seen it before."""
        other = self.jobs.get(job.key)
        self.jobs[job.key] = job
        self.agent.assigned(job.key, job, self._env._now)
        if not job.taken:
            del self.jobs[job.key]
            if other is not None and other is not job:
                self.jobs[job.key] = other

    def recall(self, key: AttemptKey) -> None:
        """The coordinator wants an attempt back, if it has not begun."""
        self._recalling = True
        self.agent.recall(key, self._env._now)
        self._recalling = False

    def restore(self, job: Job, started_at: float, finish_at: float) -> None:
        """Put an attempt back that was fused: in the middle of its execution, or with its report under way."""
        now = self._env._now
        job.arrived = True
        job.started_at, job.finish_at = started_at, finish_at
        self.take(job)
        if finish_at <= now:
            job.run += 1
            job.report_sent_at = finish_at
            job.reports = 1
            del self._running[job.key]
            self._reporting = False
            self.agent.finished(job.key, job, now)
            self._reporting = True

    def expect_copy(self) -> None:
        """A copy of an assignment is under way. If it comes after the process forgot the original, it is executed."""
        self.copies_under_way += 1
        self._update_fusible()

    def receive_copy(self, copy: Job) -> None:
        self.copies_under_way -= 1
        self._update_fusible()
        if copy.life == self.life:
            self.receive(self.take, copy)

    def registered(self, term: int, dropped: Sequence[AttemptKey]) -> None:
        """The coordinator's answer to a registration."""
        # A simulated worker knows its rhythm from the start: the scenario has one heartbeat for all.
        self.agent.registered(term, self._heartbeat_s, math.inf, dropped, self._env._now)

    def drain(self) -> None:
        """The process is asked to leave."""
        self.agent.drain(self._env._now)
        self._update_fusible()

    def end(self) -> None:
        """The process is gone, with all that it held."""
        self.up = self.paused = self.registering = False
        self.life += 1
        self._arrived_in_pause.clear()
        for job in self._running.values():
            job.run += 1
        self._running.clear()
        self.jobs = {key: job for key, job in self.jobs.items() if not job.arrived}
        self._wake_time = math.inf
        self._update_fusible()

    def pause(self) -> None:
        self.paused = True
        self._change_rate()

    def resume(self) -> None:
        self.paused = False
        self._change_rate()
        arrived, self._arrived_in_pause = self._arrived_in_pause, []
        for handler, argument in arrived:
            self.receive(handler, argument)
        if self.up and self._wake_time <= self._env._now:
            self.agent.wake(self._env._now)

    def work_at(self, speed_factor: float) -> None:
        """The host goes on at that share of its speed."""
        self.speed_factor = speed_factor
        self._change_rate()

    def impair(self, direction: str, kind: str, impairment: Impairment | None) -> None:
        """Impair one direction of its network in one way; None ends that impairment."""
        impairments = self._impairments[direction]
        if impairment is None:
            del impairments[kind]
        else:
            impairments[kind] = impairment
        link = Link(impairments.values()) if impairments else None
        if direction == "to_workers":
            self.link_to_worker = link
        else:
            self.link_to_coordinator = link
        self._update_fusible()

    def lose_what_is_under_way(self) -> None:
        """The connection broke: no message that the coordinator sent, and that is not here, ever comes."""
        self.jobs = {key: job for key, job in self.jobs.items() if job.arrived}
        self.copies_under_way = 0
        self.registered_arrives_at = 0.0

    # ---- effects of its agent

    def answer(self, key: AttemptKey, accepted: bool, now: float) -> None:
        job = self.jobs[key]
        job.taken = True
        if not accepted:
            del self.jobs[key]
            self._outbox.send_refusal(job, now)
        elif self.link_to_coordinator is None:
            job.call.answer_in_time = True
        else:
            self._outbox.send_confirmation(job, now)

    def execute(self, key: AttemptKey, payload: Any, now: float) -> None:
        job: Job = payload
        self._running[key] = job
        if job.started_at is None:
            job.started_at = now
            if self._recent is not None:
                self._gain(job)
            self._continue(job)
        else:
            self._schedule_finish(job, job.finish_at)
        self._execution_started(job.attempt, job.started_at)

    def stop(self, key: AttemptKey, now: float) -> None:
        self._running.pop(key).run += 1

    def report_start(self, key: AttemptKey, now: float) -> None:
        self._outbox.send_start(self.jobs[key], now)

    def report(self, key: AttemptKey, result: Any, now: float) -> None:
        if self._reporting:
            self._outbox.send_result(result, now)

    def cancel_done(self, key: AttemptKey, now: float) -> None:
        job = self.jobs.get(key)
        if job is not None and job.arrived:
            del self.jobs[key]
        self._outbox.send_cancelled(self, key, self._recalling, now)

    def beat(self, active: int, completed: int, now: float) -> None:
        if not self.registering:
            self._outbox.send_heartbeat(self, active, now)

    def announce_drain(self, now: float) -> None:
        self._outbox.send_drain(self)

    def leave(self, now: float) -> None:
        self._outbox.send_leave(self)

    def wake_at(self, at: float) -> None:
        if at != self._wake_time:
            self._wake_time = at
            self._env.call_at(at, keys.worker_alarm_key(self.index), self._wake, at)

    # ---- inside

    def _wake(self, at: float) -> None:
        if at == self._wake_time and self.up and not self.paused:
            self.agent.wake(at)

    def _update_fusible(self) -> None:
        """An attempt may be fused while the process, its host and both of its links are in order."""
        self.fusible = (
            self.may_fuse
            and self.up
            and self._rate == 1.0
            and self.link_to_worker is None
            and self.link_to_coordinator is None
            and not self.copies_under_way
            and not self.agent.draining
        )

    def _change_rate(self) -> None:
        """Go on with what is executed, at the speed that the process and its host now have."""
        before, self._rate = self._rate, 0.0 if self.paused else self.speed_factor
        if self._rate != before:
            for job in self._running.values():
                if before:
                    job.remaining_s = (job.finish_at - self._env._now) * before
                self._continue(job)
        self._update_fusible()

    def _gain(self, job: Job) -> None:
        """A task whose key the worker remembers is shorter by a share of its demand."""
        assert self._affinity is not None
        assert self._recent is not None
        task: Any = job.attempt.task.payload
        if self._recent.use(task.affinity_key):
            job.remaining_s -= (1 - self._affinity.hit_factor) * task[0] / self.speed

    def _continue(self, job: Job) -> None:
        if self._rate:
            self._schedule_finish(job, self._env._now + job.remaining_s / self._rate)
        else:
            job.run += 1
            job.finish_at = math.inf

    def _schedule_finish(self, job: Job, finish_at: float) -> None:
        job.run += 1
        job.finish_at = finish_at
        self._env.call_at(finish_at, keys.finish_key(job.number), self._finish, (job, job.run))

    def _finish(self, event: tuple[Job, int]) -> None:
        job, run = event
        if job.run == run:
            del self._running[job.key]
            self.agent.finished(job.key, job, self._env._now)
