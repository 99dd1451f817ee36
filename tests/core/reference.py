"""What the coordinator must do, written from the meaning of the words and not from its code.

Slow and plain: lists that are searched, no index, no alarm, no queue. Each input method says what the input means;
`observe` then holds the coordinator's effects against it. Where the rules leave a choice (which worker, which of
several abandoned attempts), the model follows the coordinator and looks whether the choice was allowed.
"""

from __future__ import annotations

import math
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import TaskId, TaskState, WorkerId
from tests.core.recording import (
    Accepted,
    Acknowledged,
    Answered,
    Assign,
    Cancel,
    Changed,
    Ended,
    Refused,
    Settled,
    TimedOut,
    WakeAt,
)
from tests.core.reference_meaning import Meaning
from tests.core.reference_records import Job, Try

Name = tuple[TaskId, WorkerId, int]
COMPLETED, FAILED = TaskState.COMPLETED, TaskState.FAILED


class Model(Meaning):
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
                case TimedOut():
                    assert (effect.task, effect.worker, effect.number) in self._to_time_out, f"unexpected: {effect}"
                    self._to_time_out.remove((effect.task, effect.worker, effect.number))
                case Ended():
                    self._see_ended((effect.task, effect.worker, effect.number))
                case Changed():
                    assert [effect] == self._to_change[:1], f"unexpected: {effect}"
                    del self._to_change[0]
                case Answered() | Acknowledged() | Accepted() | Refused():
                    assert [effect] == self._to_answer[:1], f"unexpected: {effect}"
                    del self._to_answer[0]
                case WakeAt(at):
                    assert at < self.alarm or self._woken, f"{effect} although the alarm is set for {self.alarm}"
                    self.alarm, self._woken = at, False
        assert not self._to_settle, f"not settled: {self._to_settle}"
        assert not self._to_cancel, f"not cancelled: {self._to_cancel}"
        assert not self._to_time_out, f"not announced: {self._to_time_out}"
        assert not self._to_end, f"not ended: {self._to_end}"
        assert not self._to_change, f"not announced: {self._to_change}"
        assert not self._to_answer, f"not answered: {self._to_answer}"
        if self._woken:
            self.alarm = math.inf
        if not self._may_declare_dead():
            self.room_since = None
        elif self.room_since is None:
            self.room_since = now
            for host in self.hosts.values():
                if host.spared:  # it is judged anew
                    host.heard_at = now
                elif host.may_be_spared:
                    host.anew_at = now
                host.spared = host.may_be_spared = False
        self._begin()
        self._forget(core)
        self._compare(core)
        self._check_alarm(now)

    def _see_assign(self, effect: Assign, now: float) -> None:
        job, host = self.jobs[str(effect.task)], self.hosts[effect.worker]
        line, hedge = self.waiting(), bool(job.opened())
        holders = [attempt.worker for attempt in job.live()] if hedge else []
        if hedge:
            assert not line, f"{effect} is a hedge, and {line[0]} waits"
            self._see_hedge(effect, job)
        else:
            assert line, f"{effect}, and nothing waits"
            assert line[0] is job, f"{effect} before {line[0].id}"
        assert effect.number == len(job.tried) + 1, f"{effect} after {len(job.tried)} attempts"
        assert self.may_take(host), f"{effect} to {host}"
        assert host.id not in holders, f"{effect}, which has an attempt of it already"
        if self.rules.least_loaded:
            able = [other for other in self.hosts.values() if self.may_take(other) and other.id not in holders]
            free = [len(self.on(other.id)) for other in able]
            assert len(self.on(host.id)) == min(free), f"{effect}, and others have less to do"
        timed_from = None if host.reports_start else now
        attempt = Try(job, effect.worker, effect.number, timed_from, hedge)
        job.tried.append(attempt)
        job.ready_at = None
        if host.on_trial:
            host.held, host.trial_at = "trial", now
        self.attempts.append(attempt)

    def _see_hedge(self, effect: Assign, job: Job) -> None:
        assert not self._is_poison(job), f"{effect} is a hedge of {job}"
        slow = self.rules.hedges and len(job.opened()) == 1
        assert slow or self._is_orphan(job), f"{effect} is a hedge, and {job} needs none"

    def _is_orphan(self, job: Job) -> bool:
        """Its attempts are all on suspects, and it is to have another."""
        opinions = {self.hosts[attempt.worker].opinion for attempt in job.opened()}
        return self.rules.on_suspect == "hedge" and opinions == {"suspect"}

    def _see_ended(self, name: Name) -> None:
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
        assert (core.counters["refused_results"], core.counters["timeouts"]) == (self.refused, self.timeouts)
        told = core.counters["refused_submissions"], core.counters["queue_timeouts"] + core.counters["missed_deadlines"]
        assert told == (self.turned_away, self.expired)
        idle = [host.id for host in self.hosts.values() if self.may_take(host)]
        assert not (self.waiting() and idle), f"{self.waiting()} wait although {idle} have room"
        for job in self.jobs.values():
            holders = [attempt.worker for attempt in job.live()]
            alone = job.outcome is None and self._is_orphan(job) and not self._is_poison(job)
            assert not alone or all(host in holders for host in idle), f"{job} has no hedge on {idle}"

    def _check_alarm(self, now: float) -> None:
        """It rings no later than anything that must happen then."""
        deadlines = [self.times_out_at(attempt) for attempt in self.attempts if attempt.open]
        for host in self.hosts.values():
            if host.opinion in ("alive", "suspect") and self._may_declare_dead():
                deadlines.append(self._at_latest(host, self.rules.dead_s))
            if host.opinion == "alive":
                deadlines.append(self._at_latest(host, self.rules.suspect_s))
        # What seemed to run may have been none when its time was over.
        deadlines += [max(now, self.expires_at(job)) for job in self.unsettled()]
        deadlines += [job.ready_at for job in self.jobs.values() if job.ready_at]
        deadlines = [max(self.listens_until, at) for at in deadlines]
        assert self.alarm <= min(deadlines, default=math.inf), f"alarm {self.alarm} after {min(deadlines)}"
