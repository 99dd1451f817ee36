"""What the coordinator must do, written from the meaning of the words and not from its code.

Slow and plain: lists that are searched, no index, no alarm, no queue. Each input method says what the input means;
`observe` then holds the coordinator's effects against it. Where the rules leave a choice (which worker, which of
several abandoned attempts), the model follows the coordinator and looks whether the choice was allowed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.deadlines import Ticks
from orchestrator.core.model import TaskId, TaskState, WorkerId
from tests.core.recording import Acknowledged, Answered, Assign, Cancel, Changed, Ended, Settled, WakeAt

Name = tuple[TaskId, WorkerId, int]
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


@dataclass
class Rules:
    """The settings that the model must know. `suspect_s`, `dead_s`: (at the earliest, at the latest) this silence
    makes a worker suspect or dead; `delay_s` maps tries to the wait before the next attempt."""

    by_priority: bool = True
    least_loaded: bool = False
    suspect_s: tuple[float, float] = (math.inf, math.inf)
    dead_s: tuple[float, float] = (math.inf, math.inf)
    detection_check: Ticks | None = None
    execution_timeout_s: float | None = None
    execution_check: Ticks | None = None
    max_attempts: int | None = None
    delay_s: Any = lambda tries: 0.0
    on_failed_call: str = "hold"
    keep_settled: int = 100_000


@dataclass(eq=False)
class Try:
    task: Job
    worker: str
    number: int
    timed_from: float | None
    open: bool = True
    live: bool = True  # it occupies its worker
    started: bool = False

    @property
    def name(self) -> Name:
        return (self.task.id, self.worker, self.number)


@dataclass(eq=False)
class Job:
    id: str
    seq: int
    priority: int
    tried: list[Try] = field(default_factory=list)
    consumed: int = 0
    ready_at: float | None = 0.0  # while it waits: for a worker (0) or for its retry; None: an attempt is open
    outcome: TaskState | None = None

    def live(self) -> list[Try]:
        return [attempt for attempt in self.tried if attempt.live]


@dataclass(eq=False)
class Host:
    id: str
    limit: float = 0
    reports_start: bool = False
    opinion: str = "alive"  # or suspect, dead, left
    held: str = ""
    draining: bool = False
    heard_at: float = 0.0


class Model:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.hosts: dict[str, Host] = {}
        self.attempts: list[Try] = []  # every one that was ever made
        self.submitted = self.late = self.unknown = 0
        self.settled = {COMPLETED: 0, FAILED: 0}
        self.alarm = math.inf
        self._begin()

    def _begin(self) -> None:
        self._to_settle: dict[TaskId, TaskState] = {}
        self._to_cancel: set[Name] = set()
        self._to_end: set[Name] = set()
        self._some_end: tuple[int, set[Name]] = (0, set())
        self._to_change: list[Changed] = []
        self._to_answer: list[Any] = []
        self._woken = False

    # ---- what the inputs mean

    def submit(self, job_id: str, priority: int, payload: object, now: float) -> None:
        if job_id not in self.jobs:
            self.jobs[job_id] = Job(job_id, self.submitted, priority)
            self.submitted += 1

    def register(self, host_id: str, capacity: int, prefetch: float, reports_start: bool, now: float) -> None:
        known = host_id in self.hosts
        self._lose(host_id, now)
        self.hosts[host_id] = Host(
            host_id, capacity + prefetch, reports_start and prefetch > 0, heard_at=now
        )  # fmt: skip
        self._to_change.append(Changed(host_id, "up", "reregistered" if known else "registered"))

    def heartbeat(self, host_id: str, active: int, now: float) -> None:
        host = self.hosts.get(host_id)
        known = host is not None and host.opinion != "left"
        self._to_answer.append(Answered(host_id, known))
        if host is None or not known:
            return
        host.heard_at = now
        host.held = ""
        if host.opinion != "alive":
            host.opinion = "alive"
            self._to_change.append(Changed(host_id, "up", "revived"))
        abandoned = {attempt.name for attempt in self.on(host_id) if not attempt.open}
        self._some_end = (max(0, len(abandoned) - max(0, active)), abandoned)

    def started(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None and not attempt.started:
            attempt.started = True
            if self.hosts[host_id].reports_start:
                attempt.timed_from = now

    def result(
        self,
        host_id: str,
        job_id: str,
        number: int | None,
        succeeded: bool,
        value: object,
        error: str,
        retryable: bool,
        started_at: float | None,
        ran_s: float | None,
        now: float,
    ) -> None:
        job = self.jobs.get(job_id)
        known = job is not None and bool(job.tried) and (number is None or 1 <= number <= len(job.tried))
        self._to_answer.append(Acknowledged(host_id, job_id, number, known))
        if job is None or not known:
            self.unknown += 1
            return
        attempt = self._find(host_id, job_id, number)
        if job.outcome is not None:
            self.late += 1
        was_open = attempt is not None and attempt.open
        if attempt is not None:
            self._end(attempt)
            if self.hosts[host_id].held == "rejected":
                self.hosts[host_id].held = ""
        if job.outcome is None and (succeeded or not retryable):
            self._settle(job, COMPLETED if succeeded else FAILED)
        elif was_open:
            self._consume(job, now)

    def rejected(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None:
            self.hosts[host_id].held = self.hosts[host_id].held or "rejected"
            self._give_up(attempt)
            self._end(attempt)

    def cancelled(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None and not attempt.open:
            self._end(attempt)

    def call_failed(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None:
            self._give_up(attempt)
            self.connection_lost(host_id, now)

    def connection_lost(self, host_id: str, now: float) -> None:
        host = self.hosts.get(host_id)
        if host is None or host.opinion not in ("alive", "suspect"):
            return
        if self.rules.on_failed_call == "hold":
            host.held = "failed_call"
        else:
            self._to_change.append(Changed(host_id, "dead", "failed_call"))
            self._bury(host, now)

    def drain(self, host_id: str, now: float) -> None:
        host = self.hosts.get(host_id)
        if host is not None and host.opinion != "left" and not host.draining:
            host.draining = True
            self._to_change.append(Changed(host_id, "drain"))

    def deregister(self, host_id: str, now: float) -> None:
        host = self.hosts.get(host_id)
        if host is not None and host.opinion != "left":
            host.opinion = "left"
            self._to_change.append(Changed(host_id, "left"))
            self._lose(host_id, now)

    def wake(self, now: float, effects: list[Any]) -> None:
        """The verdicts of the detectors are read from the effects, and held against the silence."""
        self._woken = True
        for attempt in [attempt for attempt in self.attempts if attempt.open and self.times_out_at(attempt) <= now]:
            self._give_up(attempt, consumed=True, now=now)
        for change in [effect for effect in effects if isinstance(effect, Changed)]:
            host = self.hosts[change.worker]
            silence = self.rules.dead_s if change.kind == "dead" else self.rules.suspect_s
            assert host.opinion in ("alive", "suspect"), f"{change} after {host.opinion}"
            assert host.heard_at + silence[0] <= now, f"{change} at {now}, heard at {host.heard_at}"
            self._to_change.append(change)
            if change.kind == "dead":
                assert change.detail == "detector"
                self._bury(host, now)
            else:
                assert (change.kind, host.opinion) == ("suspect", "alive")
                host.opinion = "suspect"
        for host in self.hosts.values():
            assert host.opinion in ("dead", "left") or self._at_latest(host, self.rules.dead_s) > now, host
            assert host.opinion != "alive" or self._at_latest(host, self.rules.suspect_s) > now, host
        for job in self.jobs.values():
            if job.ready_at is not None and job.ready_at <= now:
                job.ready_at = 0.0

    # ---- what follows from them

    def _find(self, host_id: str, job_id: str, number: int | None) -> Try | None:
        """The worker's live attempt of that number, or its newest."""
        job = self.jobs.get(job_id)
        found = [
            attempt
            for attempt in (job.live() if job else [])
            if attempt.worker == host_id and number in (None, attempt.number)
        ]
        return found[-1] if found else None

    def on(self, host_id: str) -> list[Try]:
        return [attempt for attempt in self.attempts if attempt.live and attempt.worker == host_id]

    def _settle(self, job: Job, outcome: TaskState) -> None:
        job.outcome = outcome
        job.ready_at = None
        self.settled[outcome] += 1
        self._to_settle[job.id] = outcome
        for attempt in job.live():
            attempt.open = False
            self._to_cancel.add(attempt.name)

    def _end(self, attempt: Try) -> None:
        attempt.live = attempt.open = False
        self._to_end.add(attempt.name)

    def _give_up(self, attempt: Try, consumed: bool = False, now: float = 0.0) -> None:
        if not attempt.open:
            return
        attempt.open = False
        if consumed:
            self._consume(attempt.task, now)
        else:
            attempt.task.ready_at = 0.0

    def _consume(self, job: Job, now: float) -> None:
        job.consumed += 1
        if job.consumed == self.rules.max_attempts:
            self._settle(job, FAILED)
        else:
            delay_s = self.rules.delay_s(job.consumed)
            job.ready_at = now + delay_s if delay_s else 0.0

    def _bury(self, host: Host, now: float) -> None:
        host.opinion = "dead"
        for attempt in self.on(host.id):
            self._give_up(attempt, consumed=True, now=now)

    def _lose(self, host_id: str, now: float) -> None:
        for attempt in self.on(host_id):
            attempt.live = False
            self._to_end.add(attempt.name)
            self._give_up(attempt, consumed=True, now=now)

    def times_out_at(self, attempt: Try) -> float:
        if self.rules.execution_timeout_s is None or attempt.timed_from is None:
            return math.inf
        return tick(self.rules.execution_check, attempt.timed_from + self.rules.execution_timeout_s)

    def _at_latest(self, host: Host, silence: tuple[float, float]) -> float:
        return tick(self.rules.detection_check, host.heard_at + silence[1])

    def may_take(self, host: Host) -> bool:
        free = len(self.on(host.id)) < host.limit
        return host.opinion == "alive" and not host.held and not host.draining and free

    def waiting(self) -> list[Job]:
        """Those that may be assigned, first in line first."""
        jobs = [job for job in self.jobs.values() if job.outcome is None and job.ready_at == 0.0]
        return sorted(jobs, key=lambda job: (-job.priority if self.rules.by_priority else 0, job.seq))

    def unsettled(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.outcome is None]

    # ---- what the coordinator made of it

    def observe(self, effects: list[Any], core: Coordinator, now: float) -> None:
        """Every effect is due and none is missing; then the coordinator's books agree with the model's."""
        for effect in effects:
            match effect:
                case Assign():
                    self._see_assign(effect, now)
                case Settled(job_id, outcome):
                    assert self._to_settle.pop(job_id, None) == outcome, f"unexpected: {effect}"
                case Cancel():
                    assert (effect.task, effect.worker, effect.number) in self._to_cancel, f"unexpected: {effect}"
                    self._to_cancel.remove((effect.task, effect.worker, effect.number))
                case Ended():
                    self._see_ended((effect.task, effect.worker, effect.number))
                case Changed():
                    assert [effect] == self._to_change[:1], f"unexpected: {effect}"
                    del self._to_change[0]
                case Answered() | Acknowledged():
                    assert [effect] == self._to_answer[:1], f"unexpected: {effect}"
                    del self._to_answer[0]
                case WakeAt(at):
                    assert at < self.alarm or self._woken, f"{effect} although the alarm is set for {self.alarm}"
                    self.alarm, self._woken = at, False
        assert not self._to_settle, f"not settled: {self._to_settle}"
        assert not self._to_cancel, f"not cancelled: {self._to_cancel}"
        assert not self._to_end, f"not ended: {self._to_end}"
        assert self._some_end[0] == 0, f"not ended: {self._some_end}"
        assert not self._to_change, f"not announced: {self._to_change}"
        assert not self._to_answer, f"not answered: {self._to_answer}"
        if self._woken:
            self.alarm = math.inf
        self._begin()
        self._forget(core)
        self._compare(core)
        self._check_alarm()

    def _see_assign(self, effect: Assign, now: float) -> None:
        line = self.waiting()
        assert line, f"{effect}, and nothing waits"
        assert line[0].id == effect.task, f"{effect} before {line[0].id}"
        job, host = line[0], self.hosts[effect.worker]
        assert effect.number == len(job.tried) + 1, f"{effect} after {len(job.tried)} attempts"
        assert self.may_take(host), f"{effect} to {host}"
        if self.rules.least_loaded:
            free = [len(self.on(other.id)) for other in self.hosts.values() if self.may_take(other)]
            assert len(self.on(host.id)) == min(free), f"{effect}, and others have less to do"
        attempt = Try(job, effect.worker, effect.number, timed_from=None if host.reports_start else now)
        job.tried.append(attempt)
        job.ready_at = None
        self.attempts.append(attempt)

    def _see_ended(self, name: Name) -> None:
        count, candidates = self._some_end
        if count and name in candidates:
            self._some_end = (count - 1, candidates - {name})
            next(attempt for attempt in self.attempts if attempt.live and attempt.name == name).live = False
        else:
            assert name in self._to_end, f"unexpected end of {name}"
            self._to_end.remove(name)

    def _forget(self, core: Coordinator) -> None:
        over = [job for job in self.jobs.values() if job.outcome is not None and not job.live()]
        gone = [job for job in self.jobs.values() if core.task(job.id) is None]
        assert all(job in over for job in gone), f"forgot too early: {gone}"
        assert len(over) - len(gone) == min(len(over), self.rules.keep_settled)
        for job in gone:
            del self.jobs[job.id]

    def _compare(self, core: Coordinator) -> None:
        for job in self.jobs.values():
            task = core.task(job.id)
            assert task is not None
            assert (task.attempt, task.tries) == (len(job.tried), job.consumed), task
            assert (task.state if task.settled else None) == job.outcome, task
            assert (task.state is TaskState.PENDING) == (job.ready_at is not None), task
        for host in self.hosts.values():
            worker = core.worker(host.id)
            assert worker is not None
            assert worker.load == len(self.on(host.id)), f"{worker} against {self.on(host.id)}"
            assert worker.state.name.lower() == host.opinion, worker
        assert (core.submitted, core.completed, core.failed) == (
            self.submitted, self.settled[COMPLETED], self.settled[FAILED],
        )  # fmt: skip
        assert core.pending == sum(job.ready_at is not None for job in self.jobs.values())
        assert (core.counters["late_results"], core.counters["unknown_results"]) == (self.late, self.unknown)
        idle = [host.id for host in self.hosts.values() if self.may_take(host)]
        assert not (self.waiting() and idle), f"{self.waiting()} wait although {idle} have room"

    def _check_alarm(self) -> None:
        """It rings no later than anything that must happen then."""
        deadlines = [self.times_out_at(attempt) for attempt in self.attempts if attempt.open]
        for host in self.hosts.values():
            if host.opinion in ("alive", "suspect"):
                deadlines.append(self._at_latest(host, self.rules.dead_s))
            if host.opinion == "alive":
                deadlines.append(self._at_latest(host, self.rules.suspect_s))
        deadlines += [job.ready_at for job in self.jobs.values() if job.ready_at]
        assert self.alarm <= min(deadlines, default=math.inf), f"alarm {self.alarm} after {min(deadlines)}"


def tick(check: Ticks | None, at: float) -> float:
    """When something that is due at `at` is looked at."""
    if check is None or at == math.inf:
        return at
    ticks = (check.phase_s + k * check.every_s for k in count(int(at / check.every_s) - 2))
    return next(tick for tick in ticks if tick >= at)
