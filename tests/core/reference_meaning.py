"""What the inputs of the coordinator mean, and what follows from them: the first half of the reference model."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import count
from typing import Any

from orchestrator.core.deadlines import Ticks
from orchestrator.core.model import Priority, TaskId, TaskState, TimeLimits, WorkerId
from tests.core.recording import Accepted, Acknowledged, Answered, Changed, Ended, Refused
from tests.core.reference_records import NO_LIMITS, Death, Host, Job, Rules, Try

Name = tuple[TaskId, WorkerId, int]
CALL_TIMEOUT_S = 2.0
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED
ROOM = {Priority.LOW: 0.5, Priority.NORMAL: 0.75, Priority.HIGH: 0.875, Priority.URGENT: 1.0}


class Meaning:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.jobs: dict[str, Job] = {}
        self.hosts: dict[str, Host] = {}
        self.attempts: list[Try] = []  # every one that was ever made
        self.submitted = self.late = self.unknown = self.refused = self.timeouts = self.expired = self.turned_away = 0
        self.settled = {COMPLETED: 0, FAILED: 0}
        self.alarm = math.inf
        self.listens_until = self.judges_from = -math.inf
        self.room_since: float | None = -math.inf  # among the dead, where their share is limited
        self._begin()

    def _begin(self) -> None:
        self._to_settle: dict[TaskId, TaskState] = {}
        self._to_cancel: list[Name] = []
        self._to_time_out: set[Name] = set()
        self._to_end: set[Name] = set()
        self._to_change: list[Changed] = []
        self._to_answer: list[Any] = []
        self._woken = False

    # ---- what the inputs mean

    def submit(self, job_id: str, priority: int, payload: object, limits: TimeLimits | None, now: float) -> None:
        waiting = sum(job.ready_at is not None for job in self.jobs.values())
        if job_id not in self.jobs and waiting >= ROOM[Priority(priority)] * (self.rules.max_waiting or math.inf):
            self.turned_away += 1
            self._to_answer.append(Refused(job_id))
            return
        self._to_answer.append(Accepted(job_id))
        if job_id not in self.jobs:
            job = Job(job_id, self.submitted, priority, accepted_at=now, limits=limits or NO_LIMITS)
            self.jobs[job_id] = job
            self.submitted += 1

    def cancel(self, job_id: str, now: float) -> None:
        job = self.jobs.get(job_id)
        if job is not None and job.outcome is None:
            self._settle(job, FAILED)

    def register(self, host_id: str, capacity: int, prefetch: float, reports_start: bool, now: float) -> None:
        known = host_id in self.hosts
        if known:
            self._blame(self.hosts[host_id])
        self._lose(host_id, now)
        before = self.hosts.get(host_id)
        host = Host(host_id, capacity + prefetch, reports_start and prefetch > 0, capacity=capacity, heard_at=now)
        if before is not None:
            host.trial_at, host.trial_pause_s = before.trial_at, before.trial_pause_s
            host.on_trial = host.trial_pause_s > 0
        self.hosts[host_id] = host
        self._to_change.append(Changed(host_id, "up", "reregistered" if known else "registered"))

    def heartbeat(self, host_id: str, active: int, now: float, effects: list[Any]) -> None:
        """Which of the attempts given up are gone is read from the effects: so many that no more are left than
        `active`."""
        host = self.hosts.get(host_id)
        known = host is not None and host.opinion != "left"
        self._to_answer.append(Answered(host_id, known))
        if host is None or not known:
            return
        if now > self.alarm + self.rules.own_pause_s:
            self._note_sleep(now)
        host.heard_at = now
        host.spared = host.may_be_spared = False
        self._let_go(host, now)
        abandoned = {attempt.name: attempt for attempt in self.on(host_id) if not attempt.open}
        ended = [(effect.task, effect.worker, effect.number) for effect in effects if isinstance(effect, Ended)]
        assert len(ended) == max(0, len(abandoned) - max(0, active)), f"{ended} of {abandoned}"
        for name in ended:
            self._end(abandoned[name])
        if host.opinion != "alive":
            host.opinion = "alive"
            host.by_detector = False
            self._absolve(host)
            self._to_change.append(Changed(host_id, "up", "revived"))
            for attempt in self.on(host_id):
                if attempt.lost and attempt.task.outcome is None:
                    self._return(attempt, now)

    def _let_go(self, host: Host, now: float) -> None:
        """It beats."""
        if host.held == "failed_call":
            if now >= host.trial_at:
                host.held, host.on_trial = "", True
        elif host.held != "trial" or now >= host.trial_at + CALL_TIMEOUT_S:
            if host.held == "trial":
                self._pass(host)
            host.held = ""

    def _pass(self, host: Host) -> None:
        """It says what became of what it was given."""
        if host.on_trial:
            host.on_trial, host.trial_pause_s = False, 0.0
            if host.held == "trial":
                host.held = ""

    def _return(self, attempt: Try, now: float) -> None:
        """Its worker is back, and holds it."""
        rivals = attempt.task.opened()
        attempt.lost = self.rules.on_return == "first_result"
        if attempt.lost:
            return
        if rivals and (self.rules.on_return == "keep_replacement" or rivals[0].number < attempt.number):
            self._to_cancel.append(attempt.name)
            return
        for rival in rivals:
            rival.open = False
            self._to_cancel.append(rival.name)
        attempt.open = True
        attempt.task.ready_at = None
        if attempt.started or not self.hosts[attempt.worker].reports_start:
            attempt.timed_from = now

    def started(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None and not attempt.started:
            attempt.started = attempt.task.begun = True
            self._pass(self.hosts[host_id])
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
        refused = job is not None and known and job.outcome is None and not self._had(host_id, job, number)
        self._to_answer.append(Acknowledged(host_id, job_id, number, known and not refused))
        if job is None or not known:
            self.unknown += 1
            return
        if refused:
            self.refused += 1
            return
        attempt = self._find(host_id, job_id, number)
        if job.outcome is not None:
            self.late += 1
        was_open = attempt is not None and attempt.open
        if attempt is not None:
            self._end(attempt)
            self._pass(self.hosts[host_id])
            if self.hosts[host_id].held == "rejected":
                self.hosts[host_id].held = ""
        if job.outcome is None and (succeeded or not retryable):
            self._settle(job, COMPLETED if succeeded else FAILED)
            return
        job.begun = True
        if was_open and attempt is not None:
            self._consume(attempt, now)

    def _had(self, host_id: str, job: Job, number: int | None) -> bool:
        return any(attempt.worker == host_id and number in (None, attempt.number) for attempt in job.tried)

    def rejected(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None:
            self._pass(self.hosts[host_id])
            self.hosts[host_id].held = self.hosts[host_id].held or "rejected"
            attempt.live = False  # should its task fail now, this attempt is not to be cancelled
            self._give_up(attempt)
            self._end(attempt)

    def cancelled(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None and not attempt.open:
            self._end(attempt)
            self._pass(self.hosts[host_id])

    def call_failed(self, host_id: str, job_id: str, number: int, now: float) -> None:
        attempt = self._find(host_id, job_id, number)
        if attempt is not None:
            attempt.lost = False
            self._give_up(attempt)
            self.connection_lost(host_id, now)

    def connection_lost(self, host_id: str, now: float) -> None:
        host = self.hosts.get(host_id)
        if host is None or host.opinion not in ("alive", "suspect"):
            return
        if self.rules.on_failed_call == "hold":
            if host.held != "failed_call":
                host.trial_at = now + host.trial_pause_s
                host.trial_pause_s = min(30.0, max(self.rules.heartbeat_s, 2 * host.trial_pause_s))
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
            host.by_detector = False
            self._absolve(host)
            self._to_change.append(Changed(host_id, "left"))
            self._lose(host_id, now)

    def wake(self, now: float, effects: list[Any]) -> None:
        """The verdicts of the detectors, and of the policy that ejects, are read from the effects; those of the
        detectors are held against the silence."""
        self._woken = True
        if now > self.alarm + self.rules.own_pause_s:
            self._note_sleep(now)
        if now < self.listens_until:
            return
        self.listens_until = -math.inf
        for attempt in [attempt for attempt in self.attempts if attempt.open and self.times_out_at(attempt) <= now]:
            self.timeouts += 1
            self._to_time_out.add(attempt.name)
            self._give_up(attempt, consumed=True, now=now)
            if attempt.task.outcome is None:
                self._to_cancel.append(attempt.name)
        for job in self.unsettled():
            if self.expires_at(job) <= now:
                self.expired += 1
                self._settle(job, FAILED)
        for change in [effect for effect in effects if isinstance(effect, Changed)]:
            self._to_change.append(change)
            host = self.hosts[change.worker]
            if change.kind in ("ejected", "readmitted"):
                assert self.rules.ejects
                assert host.ejected == (change.kind == "readmitted"), f"{change} of {host}"
                host.ejected = change.kind == "ejected"
            else:
                self._judge(host, change, now)
        assert sum(host.ejected for host in self.hosts.values()) <= 1, "more than a third ejected"
        for host in self.hosts.values():
            overdue = self._at_latest(host, self.rules.dead_s) <= now
            spared = host.opinion == "suspect" and not self._may_declare_dead()
            assert host.opinion in ("dead", "left") or spared or not overdue, host
            assert host.opinion != "alive" or self._at_latest(host, self.rules.suspect_s) > now, host
            host.spared = spared and overdue
            host.may_be_spared = spared and host.heard_at + self.rules.dead_s[0] <= now
        for job in self.jobs.values():
            if job.ready_at is not None and job.ready_at <= now:
                job.ready_at = 0.0

    def _judge(self, host: Host, change: Changed, now: float) -> None:
        assert now >= self.judges_from, f"{change} at {now}, and it slept"
        assert host.opinion in ("alive", "suspect"), f"{change} after {host.opinion}"
        is_dead = host.heard_at + self.rules.dead_s[0] <= now
        if change.kind == "dead":
            assert change.detail == "detector"
            assert is_dead, f"{change} at {now}, heard at {host.heard_at}"
            assert self._may_declare_dead(), f"{change}, and enough are dead"
            host.by_detector = True
            self._bury(host, now)
        else:
            assert (change.kind, host.opinion) == ("suspect", "alive")
            is_suspect = host.heard_at + self.rules.suspect_s[0] <= now
            assert is_suspect or (is_dead and not self._may_declare_dead()), (
                f"{change} at {now}, heard at {host.heard_at}"
            )
            host.opinion = "suspect"

    def _may_declare_dead(self) -> bool:
        if self.rules.max_dead_share is None:
            return True
        present = sum(host.opinion != "left" for host in self.hosts.values())
        dead = sum(host.by_detector for host in self.hosts.values())
        return dead < max(1, int(self.rules.max_dead_share * present + 1e-9))

    def _note_sleep(self, now: float) -> None:
        """The alarm is overdue: it listens for a quarter of a second, and judges nobody until all could beat."""
        if now < self.judges_from - 1.5 * self.rules.heartbeat_s:
            return
        if self.listens_until == -math.inf:
            self.listens_until = now + 0.25
        self.judges_from = now + 0.25 + 1.5 * self.rules.heartbeat_s

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
            self._to_cancel.append(attempt.name)

    def _end(self, attempt: Try) -> None:
        attempt.live = attempt.open = False
        self._to_end.add(attempt.name)

    def _give_up(self, attempt: Try, consumed: bool = False, now: float = 0.0) -> None:
        if not attempt.open:
            return
        attempt.open = False
        job = attempt.task
        if consumed:
            self._consume(attempt, now)
        elif not job.opened():
            if self._is_spent(job):
                self._settle(job, FAILED)
            else:
                job.ready_at = 0.0

    def _consume(self, attempt: Try, now: float) -> None:
        job = attempt.task
        job.consumed += not attempt.hedge
        job.begun = job.begun or self._has_begun(attempt)
        if job.opened():
            return
        if self._is_spent(job):
            self._settle(job, FAILED)
        else:
            delay_s = self.rules.delay_s(max(1, job.consumed))
            job.ready_at = now + delay_s if delay_s else 0.0

    def _is_spent(self, job: Job) -> bool:
        limit = self.rules.max_attempts
        return self._is_poison(job) or (limit is not None and job.consumed >= limit)

    def _is_poison(self, job: Job) -> bool:
        enough = self.rules.max_worker_kills
        in_all = sum(Fraction(1, death.running) for death in job.killed)
        return enough is not None and len({death.worker for death in job.killed}) >= enough and in_all >= 1

    def _blame(self, host: Host) -> None:
        opened = [attempt for attempt in self.on(host.id) if attempt.open]
        running = [attempt for attempt in opened if attempt.started] if host.reports_start else opened[: host.capacity]
        for attempt in running:
            death = Death(host.id, len(running) + len(self.on(host.id)) - len(opened))
            attempt.task.killed.append(death)
            host.blames.append((attempt.task, death))

    def _absolve(self, host: Host) -> None:
        for job, death in host.blames:
            job.killed.remove(death)
        host.blames.clear()

    def is_crowded(self, job: Job) -> bool:
        copies = [try_ for try_ in job.live() if not try_.hedge and self.hosts[try_.worker].opinion != "dead"]
        return len(copies) >= self.rules.max_copies

    def _bury(self, host: Host, now: float) -> None:
        host.opinion = "dead"
        self._blame(host)
        for attempt in self.on(host.id):
            if attempt.open:
                attempt.lost = True
                self._give_up(attempt, consumed=True, now=now)

    def _lose(self, host_id: str, now: float) -> None:
        for attempt in self.on(host_id):
            attempt.live = False
            self._to_end.add(attempt.name)
            self._give_up(attempt, consumed=True, now=now)

    def times_out_at(self, attempt: Try) -> float:
        limit_s = attempt.task.limits.execution_timeout_s or self.rules.execution_timeout_s
        if limit_s is None or attempt.timed_from is None:
            return math.inf
        return tick(self.rules.execution_check, attempt.timed_from + limit_s)

    def expires_at(self, job: Job) -> float:
        """By its deadline, or by its queue timeout as long as it has not begun."""
        queue_timeout_s, _, deadline_s = job.limits
        runs = job.begun or any(map(self._has_begun, job.opened()))
        limits = (deadline_s, None if runs else queue_timeout_s)
        return min((job.accepted_at + limit_s for limit_s in limits if limit_s is not None), default=math.inf)

    def _has_begun(self, attempt: Try) -> bool:
        return attempt.started or not self.hosts[attempt.worker].reports_start

    def _at_latest(self, host: Host, silence: tuple[float, float]) -> float:
        since = -math.inf if self.room_since is None else self.room_since
        heard_at = max(host.heard_at, host.anew_at)
        return tick(self.rules.detection_check, max(self.judges_from, since, heard_at + silence[1]))

    def may_take(self, host: Host) -> bool:
        free = len(self.on(host.id)) < host.limit
        return host.opinion == "alive" and not host.held and not host.draining and not host.ejected and free

    def waiting(self) -> list[Job]:
        """Those that may be assigned, first in line first."""
        jobs = [
            job
            for job in self.jobs.values()
            if job.outcome is None and job.ready_at == 0.0 and not self.is_crowded(job)
        ]
        return sorted(jobs, key=lambda job: (-job.priority if self.rules.by_priority else 0, job.seq))

    def unsettled(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.outcome is None]


def tick(check: Ticks | None, at: float) -> float:
    """When something that is due at `at` is looked at."""
    if check is None or at == math.inf:
        return at
    ticks = (check.phase_s + k * check.every_s for k in count(int(at / check.every_s) - 2))
    return next(tick for tick in ticks if tick >= at)
