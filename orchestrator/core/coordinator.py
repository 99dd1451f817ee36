"""The coordinator: what each input decides.

Inputs are methods whose last parameter is `now` (seconds, monotonic); outputs are calls to `Effects`. Inputs may
come late, twice, out of order, for tasks and workers that are unknown, dead or gone: each is answered by these rules.

- Any attempt's result settles a task that is not settled; a result for a settled task is late: counted, dropped.
  When a task settles, its other attempts are cancelled. A result from a worker that never had the attempt is refused.
- An attempt that is given up (timeout, death, failed call) still occupies its worker: it is abandoned until a
  report, a cancel's acknowledgement or a registration closes it, or a heartbeat's `active` shows that it is gone.
- A death, a timeout and a retryable failure consume one of a task's tries. A rejection and a failed call do not, and
  what happens to a hedge does not.
- A worker is assignable while it is ALIVE, not draining, not ejected and not quarantined. A rejection quarantines it
  until its next heartbeat or result, a failed call until a heartbeat after a pause, or its next registration. Then it
  gets a single attempt on trial; if that fails too, the next pause is longer.
- A task that is not settled by its deadline, or has not begun by the end of its queue timeout, is FAILED, wherever it
  is; its attempts are cancelled.
- A submission is refused while so many tasks wait as its priority allows (`core.admission`).
- An attempt that timed out is cancelled. A task that has `max_copies` attempts on workers waits until one of them ends.
- A hedge starts on another worker than the attempts that it is to save, in room that no waiting task wants.
- A process that registers again keeps what it holds, if it is the same incarnation; what an earlier one held is lost.
- A coordinator that slept hears what came meanwhile before it acts on a deadline, and judges no worker before each
  had time to beat again.

An exception that escapes an input leaves a state that nobody can vouch for: whoever drives the core stops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from orchestrator.core.admission import refusal
from orchestrator.core.culprit import checked_review_at
from orchestrator.core.inputs import Recovered, Registration, Report, declared
from orchestrator.core.invariants import raise_if_broken
from orchestrator.core.membership import Membership
from orchestrator.core.model import (
    AttemptState,
    Detail,
    Outcome,
    Quarantine,
    Task,
    TaskId,
    TaskState,
    TimeLimits,
    Worker,
    WorkerEvent,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import Verdict
from orchestrator.core.proof import violations

CANCELLED = "cancelled by its submitter"
"""The error of a task that was cancelled."""

# Read for every task: a module's global is found faster than an enum's attribute.
_RUNNING, _COMPLETED, _FAILED = TaskState.RUNNING, TaskState.COMPLETED, TaskState.FAILED
_OPEN, _ABANDONED = AttemptState.OPEN, AttemptState.ABANDONED
_ALIVE, _SUSPECT, _LEFT = WorkerState.ALIVE, WorkerState.SUSPECT, WorkerState.LEFT
_SUCCESS, _REJECTED = Outcome.COMPLETED, Quarantine.REJECTED


class Coordinator(Membership):
    """Owns all tasks and workers; `core.transitions` tells its settings."""

    __slots__ = ()

    # ---- what drivers may ask

    def task(self, task_id: TaskId) -> Task | None:
        return self._tasks.get(task_id)

    def worker(self, worker_id: WorkerId) -> Worker | None:
        return self._workers.get(worker_id)

    def workers(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def tasks(self) -> list[Task]:
        """All that are known, the settled ones too, in the order of submission: a copy, as they are at this moment."""
        return list(self._tasks.values())

    def unsettled(self) -> Iterator[Task]:
        return (task for task in self._tasks.values() if not task.settled)

    def knows_incarnation(self, worker_id: WorkerId, incarnation: str) -> bool:
        """Whether that process is the one that the coordinator knows by this name: it `reconnected`. If not, it is
        to `register`."""
        worker = self._workers.get(worker_id)
        return worker is not None and incarnation == worker.incarnation != "" and worker.state is not _LEFT

    def check(self) -> None:
        """Raise InvariantError where an invariant does not hold. Scans everything: for tests and debugging."""
        raise_if_broken(violations(self))

    # ---- inputs from clients

    @declared
    def submit(self, task_id: TaskId, priority: int, payload: object, limits: TimeLimits | None, now: float) -> None:
        """A task, to be settled exactly once, or refused. An id that is known already is only acknowledged again.

        `limits`: the task's own, None for none. Of a task that was refused nothing is known.
        """
        known = self._tasks.get(task_id)
        if known is not None:
            self.counters["duplicate_submits"] += 1
            self._fx.accepted(known, now)
            return
        if self._room_for is not None and self.pending >= self._room_for[priority]:
            self.counters["refused_submissions"] += 1
            task = Task(task_id, self.submitted, priority, payload, now, limits)
            self._fx.refused(task, refusal(self.pending, priority), now)
            return
        task = Task(task_id, self.submitted, priority, payload, now, limits)
        self._tasks[task_id] = task
        self.submitted += 1
        self.pending += 1
        if limits is not None:
            self._ring_by(self._expiries.begin(task, now))
        self._fx.accepted(task, now)
        backlog = self._backlog
        if self._roomy and not backlog.size and not backlog.lanes:
            worker = self._routing.choose(task)
            if worker is None:
                backlog.refuse(task)
            else:
                self._assign(task, worker, now)
            return
        backlog.add(task)
        if self._roomy:
            self._dispatch(now)  # what stood before it may have been settled while it waited

    @declared
    def cancel(self, task_id: TaskId, now: float) -> None:
        """Nobody wants the task any more: it is FAILED, and its attempts are cancelled. A settled task stays."""
        task = self._tasks.get(task_id)
        if task is not None and task.state < _COMPLETED:
            self._settle(task, _FAILED, None, None, CANCELLED, now)
            self._announce(task, now)
            self._dispatch(now)

    # ---- input from the store

    @declared
    def recovered(self, stored: Recovered, now: float) -> None:
        """A task that an earlier coordinator had taken, before anything else is heard; settled ones first.

        One that no worker had waits again, with the tries that it has left. The others count on what their workers had,
        which may have begun.
        """
        task_id, priority, payload, limits, submitted_at, *_ = stored
        task = Task(task_id, self.submitted, priority, payload, submitted_at, limits)
        task.tries = stored.tries
        task.attempt = stored.attempt
        self._tasks[task_id] = task
        self.submitted += 1
        if stored.state >= _COMPLETED:
            self._recover_settled(task, stored, now)
            return
        for holding in stored.held:
            self._recover_attempt(task, holding, now)
            task.begin()
        if limits is not None:
            self._ring_by(self._expiries.begin(task, now))
        if not task.live:
            self.pending += 1
            self._backlog.add(task)
            self._dispatch(now)

    # ---- inputs from workers

    @declared
    def register(self, registration: Registration, now: float) -> None:
        """A worker process begins. What an earlier process of that id held is lost, and requeued at once."""
        worker = self._workers.get(registration.worker_id)
        if worker is None:
            worker = self._new_worker(registration.worker_id)
            detail = Detail.REGISTERED
        else:
            detail = Detail.REREGISTERED
            self._make_unassignable(worker)
            self._blame.died(worker)
            self._lose_everything(worker, "its worker registered again", now)
            worker.blamed.clear()
        if worker.state is _LEFT:
            self._dead_share.present += 1
        self._introduce(worker, registration, now)
        worker.state = _ALIVE
        worker.quarantined = None
        if registration.incarnation:
            worker.trial_pause_s = 0.0
        worker.on_trial = worker.trial_pause_s > 0  # to register again and again by the contract is no way round it
        worker.draining = False
        worker.ejected_until = -math.inf
        worker.gone_at = math.inf
        worker.detector = self._new_detector(now)
        self._fx.worker_changed(worker, WorkerEvent.UP, detail, now)
        self._fx.registered(worker, registration.request, registration.held, now)
        if registration.draining:
            self.drain(worker.id, now)
        self._review_later(worker, now)
        self._judge_spared(worker, now)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm(now)

    @declared
    def reconnected(self, registration: Registration, now: float) -> None:
        """A worker process that the coordinator knows is back, with what it holds.

        An assignment that it does not hold never reached it, which is nobody's fault.
        """
        if not self.knows_incarnation(registration.worker_id, registration.incarnation):
            self.register(registration, now)
            return
        worker = self._workers[registration.worker_id]
        if worker.awaited:
            self._introduce(worker, registration, now)
        if now > self._alarm + self._own_pause_s:
            self._note_sleep(now)
        worker.detector.heard(now)
        if now >= worker.trial_at:
            worker.quarantined = None
            worker.on_trial = worker.trial_pause_s > 0
        if worker.state is not _ALIVE:
            self._revive(worker, Detail.RECONNECTED, now)
        self._review_later(worker, now)
        held = dict.fromkeys(registration.held)
        for attempt in [attempt for attempt in worker.abandoned if attempt.key not in held]:
            self._close(attempt, now)
        lost = [attempt for attempt in worker.open if attempt.key not in held]
        for attempt in lost:
            self._give_up(attempt, Outcome.CALL_FAILED, "its worker never got it", now)
            self._close(attempt, now)
        self._keep_recalled(list(worker.abandoned), now)
        self._fx.registered(worker, registration.request, self._to_drop(worker, held), now)
        for attempt in lost:
            self._requeue_if_orphaned(attempt, now)
        for attempt in list(worker.abandoned):
            if attempt.outcome is Outcome.WORKER_DIED and not self._rivals(attempt) and not attempt.task.settled:
                self._reopen(attempt, now)
        if worker.abandoned and self._on_return != "first_result":
            self._compare_with_replacements(worker, now)
        if registration.draining:
            self.drain(worker.id, now)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm(now)

    @declared
    def heartbeat(self, worker_id: WorkerId, active: int, request: int | None, now: float) -> None:
        """A sign of life. `active`: how many attempts the worker holds, by its own count."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.state is _LEFT or worker.awaited:
            self._fx.heartbeat_answered(worker_id, request, False, now)
            return
        if now > self._alarm + self._own_pause_s:
            self._note_sleep(now)
        worker.detector.heard(now)
        if worker.state is _ALIVE and not worker.quarantined and not worker.abandoned:
            review_at = worker.detector.review_at()
            if review_at.__class__ is not float:
                review_at = checked_review_at("failure detector", worker.detector)
            if not review_at >= worker.review_at:  # NaN is neither
                self._review_later(worker, now)
            self._fx.heartbeat_answered(worker_id, request, True, now)
            return
        while worker.abandoned and len(worker.abandoned) > active:
            self._close(next(iter(worker.abandoned)), now)
        self._end_quarantine(worker, now)
        # A beat may be so old that even with it the worker is too silent.
        if worker.state is not _ALIVE and self._verdict(worker, now) is not Verdict.DEAD:
            self._revive(worker, Detail.REVIVED, now)
        if worker.state is not WorkerState.DEAD:
            self._review_later(worker, now)
        self._fx.heartbeat_answered(worker_id, request, True, now)
        if worker.state is _ALIVE and worker.abandoned and self._on_return != "first_result":
            self._compare_with_replacements(worker, now)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm(now)

    @declared
    def started(self, worker_id: WorkerId, task_id: TaskId, attempt: int, now: float) -> None:
        """Execution of an attempt began (workers with a prefetch queue report it)."""
        found = self._find(worker_id, task_id, attempt)
        if found is None or found.started_at is not None:
            return
        found.started_at = now
        found.task.begin()
        if found.state is _OPEN:
            found.task.state = _RUNNING
            if found.worker.reports_start:
                self._time_out_later(found, now)
        elif self._thefts is not None:
            self._keep_recalled((found,), now)
            self._dispatch(now)
            self._rearm(now)
        if found.worker.on_trial:
            self._passed_trial(found.worker)
            self._dispatch(now)

    @declared
    def result(self, report: Report, now: float) -> None:
        """An attempt's own word on how it ended."""
        worker_id, task_id, number, succeeded, value, error, retryable, started_at, ran_s, request, after_s = report
        task = self._tasks.get(task_id)
        if task is None or not task.attempt or (number is not None and not 0 < number <= task.attempt):
            self.counters["unknown_results"] += 1
            if request is not None:
                self._fx.acknowledged(worker_id, request, False, now)
            return
        attempt = task.live[-1] if task.live else None
        if attempt is not None and (attempt.worker.id != worker_id or number not in (None, attempt.number)):
            attempt = self._find(worker_id, task_id, number)
        if attempt is None and task.state < _COMPLETED and not task.had(worker_id, number):
            self.counters["refused_results"] += 1
            if request is not None:
                self._fx.acknowledged(worker_id, request, False, now)
            return
        settles = task.state < _COMPLETED and (succeeded or not retryable)
        if settles:
            self._settle(task, _COMPLETED if succeeded else _FAILED, worker_id, value, error, now)
        elif task.state >= _COMPLETED:
            self.counters["late_results"] += 1
        consumed = False
        if attempt is not None:
            if started_at is not None:
                attempt.started_at = started_at if started_at >= attempt.assigned_at else attempt.assigned_at
            if ran_s is not None and not 0 <= ran_s <= now - attempt.assigned_at:  # whatever its worker says
                ran_s = now - attempt.assigned_at
            attempt.ran_s = ran_s
            attempt.settles = settles
            if self._hedges.possible:
                self._hedges.over(attempt, now, settles and succeeded)
            if attempt.state is _OPEN:
                attempt.outcome = _SUCCESS if succeeded else Outcome.FAILED
                attempt.reason = error
                consumed = not settles
            self._close(attempt, now)
            if attempt.worker.on_trial:
                self._passed_trial(attempt.worker)
        if settles:
            self._announce(task, now)
        else:
            task.begin()
            if consumed and attempt is not None:
                self._retry_or_fail(attempt, now, after_s)
        if request is not None:
            self._fx.acknowledged(worker_id, request, True, now)
        if attempt is not None and attempt.worker.quarantined is _REJECTED:
            attempt.worker.quarantined = None
            self._reconsider(attempt.worker)
        if self.pending or self._hedges.wanted or self._thefts is not None:
            self._dispatch(now)
        if consumed:
            self._rearm(now)

    @declared
    def rejected(self, worker_id: WorkerId, task_id: TaskId, attempt: int, now: float) -> None:
        """The worker did not take the attempt: nobody's fault."""
        found = self._find(worker_id, task_id, attempt)
        if found is None:
            return
        if found.worker.on_trial:
            self._passed_trial(found.worker)
        self._quarantine(found.worker, Quarantine.REJECTED)
        if found.state is _OPEN:
            self._come_to_nothing(found, Outcome.REJECTED, "its worker did not take it", now)
        else:
            self._close(found, now)
        self._dispatch(now)

    @declared
    def cancelled(self, worker_id: WorkerId, task_id: TaskId, attempt: int, now: float) -> None:
        """The worker's acknowledgement of a cancel: it does not hold the attempt any more."""
        found = self._find(worker_id, task_id, attempt)
        if found is not None and (found.state is _ABANDONED or self._is_kept(found)):
            self._given_back(found, now)
            if found.worker.on_trial:
                self._passed_trial(found.worker)
            self._dispatch(now)

    @declared
    def drain(self, worker_id: WorkerId, now: float) -> None:
        """The worker takes nothing new, and will leave when it has finished what it holds."""
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.draining and worker.state is not _LEFT:
            worker.draining = True
            self._make_unassignable(worker)
            self._fx.worker_changed(worker, WorkerEvent.DRAIN, Detail.NONE, now)

    @declared
    def deregister(self, worker_id: WorkerId, now: float) -> None:
        """The worker is gone, by its own word. What it had not reported is lost, and requeued."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.state is _LEFT:
            return
        worker.state = _LEFT
        self._note_gone(worker, now)
        self._dead_share.present -= 1
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, WorkerEvent.LEFT, Detail.NONE, now)
        self._blame.absolve(worker)
        self._lose_everything(worker, "its worker left", now)
        self._judge_spared(worker, now)
        self._dispatch(now)
        self._rearm(now)

    # ---- inputs from the transport

    @declared
    def call_failed(self, worker_id: WorkerId, task_id: TaskId, attempt: int, now: float) -> None:
        """An assignment could not be delivered, or nobody knows whether it was."""
        found = self._find(worker_id, task_id, attempt)
        if found is None:
            return
        if found.state is _OPEN:
            self._give_up(found, Outcome.CALL_FAILED, "the call to its worker failed", now)
            self._requeue_if_orphaned(found, now)
        elif found.outcome is Outcome.WORKER_DIED:
            found.outcome = Outcome.CALL_FAILED  # its worker may never have heard of it, and won't return with it
        self.connection_lost(worker_id, now)

    @declared
    def connection_lost(self, worker_id: WorkerId, now: float) -> None:
        """The connection to a worker broke: what that means is the setting `on_failed_call`."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.state in (_ALIVE, _SUSPECT):
            if self._on_failed_call == "dead":
                self._declare_dead(worker, Detail.FAILED_CALL, now)
            else:
                self._quarantine_until_trial(worker, now)
        self._dispatch(now)
        self._rearm(now)

    # ---- the alarm

    @declared
    def wake(self, now: float) -> None:
        """The alarm: whatever is due by now."""
        if now > self._alarm + self._own_pause_s:
            self._note_sleep(now)
        if now < self._listens_until:
            self._alarm = math.inf
            self._ring_by(self._listens_until)
            return
        self._listens_until = -math.inf
        self._alarm = -math.inf  # one request, at the end, when every deadline is known
        for attempt in self._timeouts.due(now):
            limit_s = self._timeouts.limit_s(attempt.task)
            self._give_up(attempt, Outcome.TIMED_OUT, f"ran for over {limit_s} s", now)
            self.counters["timeouts"] += 1
            self._fx.timed_out(attempt, now)
            self._retry_or_fail(attempt, now)
            if not attempt.task.settled:
                self._fx.cancel(attempt, now)
        if self._expiries.earliest <= now:
            for task, counter, why in self._expiries.due(now):
                self.counters[counter] += 1
                self._settle(task, _FAILED, None, None, why, now)
                self._announce(task, now)
        while self._reviews.earliest <= now:
            at, worker = self._reviews.pop()
            if worker.review_at == at:
                worker.review_at = math.inf
                self._review(worker, now)
        for task in self._backlog.retries_due(now):
            self._backlog.add(task)
        if self._ejection is not None:
            self._eject_and_readmit(self._ejection, now)
        if self._hedges.policy is not None:
            self._hedges.find_slow(now)
        if self._gone:
            self._forget_gone(now)
        self._dispatch(now)
        self._alarm = math.inf
        self._rearm(now)

    def _rearm(self, now: float) -> None:
        self._timeouts.drop_stale()
        if self._expiries.earliest < math.inf:
            self._expiries.drop_stale()
        if self._hedges.policy is not None:
            self._hedges.drop_stale_ages()
        earliest = self._next_deadline()
        if self._ejection is not None:
            earliest = min(earliest, checked_review_at("ejection policy", self._ejection))
        if earliest < math.inf:
            self._ring_by(max(now, min(earliest, now + self._own_pause_s)))
