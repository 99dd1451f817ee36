"""What becomes of workers: quarantined, suspected, declared dead, revived, ejected, forgotten."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable

from orchestrator.core.culprit import checked_review_at, nonsense
from orchestrator.core.dispatch import Dispatch
from orchestrator.core.inputs import Holding, Recovered, Registration
from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    AttemptState,
    Detail,
    Outcome,
    Quarantine,
    Task,
    TaskId,
    TaskState,
    Worker,
    WorkerEvent,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import EjectionPolicy, SleepAware, Verdict

HEARING_S = 0.25
"""After it slept, the coordinator listens so long before it acts."""
LONGEST_PAUSE_S = 30.0
"""Between two trials of a worker whose calls fail."""

_PENDING, _ASSIGNED, _RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING
_OPEN = AttemptState.OPEN
_ALIVE, _SUSPECT, _LEFT = WorkerState.ALIVE, WorkerState.SUSPECT, WorkerState.LEFT


class Membership(Dispatch):
    """The workers of a coordinator. What changes a worker changes the attempts that it holds."""

    __slots__ = ()

    def _find(self, worker_id: WorkerId, task_id: TaskId, number: int | None) -> Attempt | None:
        task = self._tasks.get(task_id)
        return None if task is None else task.newest(worker_id, number)

    @property
    def _beat_again_s(self) -> float:
        """In this time every worker that lives beats once more."""
        return 1.5 * self.heartbeat_s

    def _quarantine_until_trial(self, worker: Worker, now: float) -> None:
        """A call failed. Of several that fail together, only the first makes the next pause longer."""
        if worker.quarantined is not Quarantine.FAILED_CALL:
            worker.trial_at = now + worker.trial_pause_s
            worker.trial_pause_s = min(LONGEST_PAUSE_S, max(self.heartbeat_s, 2 * worker.trial_pause_s))
        self._quarantine(worker, Quarantine.FAILED_CALL)

    def _end_quarantine(self, worker: Worker, now: float) -> None:
        """The worker beats. It gets tasks again, unless its failed calls say otherwise."""
        if worker.quarantined is Quarantine.FAILED_CALL:
            if now >= worker.trial_at:
                worker.quarantined = None
                worker.on_trial = True
        elif worker.quarantined is Quarantine.TRIAL:
            if now >= worker.trial_at + self._call_timeout_s:  # had the call failed, that would be known
                self._passed_trial(worker)
        else:
            worker.quarantined = None

    def _passed_trial(self, worker: Worker) -> None:
        """The worker does say what becomes of what it is given."""
        worker.on_trial = False
        worker.trial_pause_s = 0.0
        if worker.quarantined is Quarantine.TRIAL:
            worker.quarantined = None
            self._reconsider(worker)

    def _suspect(self, worker: Worker, now: float) -> None:
        worker.state = _SUSPECT
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, WorkerEvent.SUSPECT, Detail.NONE, now)
        self._hedges.suspected(worker)

    def _declare_dead(self, worker: Worker, cause: Detail, now: float) -> None:
        worker.state = WorkerState.DEAD
        self._note_gone(worker, now)
        self._dead_share.declared_dead(worker, cause is Detail.DETECTOR)
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, WorkerEvent.DEAD, cause, now)
        self._blame.died(worker)
        for attempt in list(worker.open):
            self._give_up(attempt, Outcome.WORKER_DIED, "its worker was declared dead", now)
            self._retry_or_fail(attempt, now)
        for attempt in worker.abandoned:
            self._backlog.release(attempt.task)

    def _revive(self, worker: Worker, how: Detail, now: float) -> None:
        worker.state = _ALIVE
        worker.gone_at = math.inf
        self._fx.worker_changed(worker, WorkerEvent.UP, how, now)
        self._blame.absolve(worker)
        self._judge_spared(worker, now)
        self._hedges.revived(worker)

    def _judge_spared(self, worker: Worker, now: float) -> None:
        """The worker does not count as dead by the detector any more: others may be declared dead in its place.

        They are judged anew, as if they had been heard now. The rule was suspended while all of them were silent, so it
        must not condemn the next one at the moment at which the network is back.
        """
        for spared in self._dead_share.release(worker):
            if isinstance(spared.detector, SleepAware):  # this is no beat to learn from, nor is the pause to the next
                spared.detector.slept(now + self._beat_again_s)
            spared.detector.heard(now)
            self._review_later(spared, now)

    def _lose_everything(self, worker: Worker, reason: str, now: float) -> None:
        """The process that held these attempts is gone."""
        for attempt in list(worker.abandoned):
            self._close(attempt, now)
        for attempt in list(worker.open):
            self._give_up(attempt, Outcome.WORKER_DIED, reason, now)
            self._close(attempt, now)
            self._retry_or_fail(attempt, now)

    def _new_worker(self, worker_id: WorkerId) -> Worker:
        slot = heapq.heappop(self._free_slots) if self._free_slots else len(self._workers)
        worker = self._workers[worker_id] = Worker(worker_id, slot)
        return worker

    def _note_gone(self, worker: Worker, now: float) -> None:
        worker.gone_at = now
        self._gone.append((now, worker))

    def _forget_gone(self, now: float) -> None:
        """Forget the workers that left or died long ago."""
        while self._gone and self._gone[0][0] <= now - self._remember_workers_s:
            at, worker = self._gone.popleft()
            if worker.gone_at != at or self._workers.get(worker.id) is not worker:
                continue  # it came back
            for attempt in list(worker.abandoned):
                self._close(attempt, now)
            if worker.state is not _LEFT:
                self._dead_share.present -= 1
            worker.state = _LEFT
            worker.review_at = math.inf
            worker.ejected_until = -math.inf
            self._judge_spared(worker, now)
            del self._workers[worker.id]
            heapq.heappush(self._free_slots, worker.slot)
            self._fx.worker_changed(worker, WorkerEvent.FORGOTTEN, Detail.NONE, now)

    # ---- what an earlier coordinator knew

    def _recover_settled(self, task: Task, stored: Recovered, now: float) -> None:
        task.state = TaskState(stored.state)
        task.worker_id = stored.worker_id
        task.result = stored.result
        task.error = stored.error
        task.settled_at = stored.settled_at
        self.completed += task.state is TaskState.COMPLETED
        self.failed += task.state is TaskState.FAILED
        self._settled.add(task, now)

    def _recover_attempt(self, task: Task, holding: Holding, now: float) -> None:
        """Its worker may have it still. Until that registers, or is declared dead, the task counts on it."""
        worker = self._workers.get(holding.worker_id)
        if worker is None:
            worker = self._new_worker(holding.worker_id)
            worker.incarnation = holding.incarnation
            worker.awaited = True
            worker.state = _SUSPECT
            self._dead_share.present += 1
            worker.detector = self._new_detector(now)
            self._review_later(worker, now)
        if not worker.awaited or worker.incarnation != holding.incarnation:
            return  # what an earlier process of that name had is lost
        assigned_at = now if holding.assigned_at is None else holding.assigned_at
        attempt = Attempt(task, worker, holding.number, assigned_at)
        task.live = (*task.live, attempt)
        task.state = TaskState.ASSIGNED
        worker.open[attempt] = None
        worker.load += 1
        if self._hedges.policy is not None:
            self._ring_by(max(now, self._hedges.began(attempt, self._workers.values())))

    def _introduce(self, worker: Worker, registration: Registration, now: float) -> None:
        """What the worker says of itself. It gets nothing at this moment."""
        worker.incarnation = registration.incarnation
        worker.capacity = registration.capacity
        worker.limit = registration.capacity + registration.prefetch
        worker.kinds = registration.kinds
        worker.labels = registration.labels
        # Without prefetch an assignment starts at once, so a report of the start would tell nothing.
        worker.reports_start = registration.reports_start and registration.prefetch > 0
        if worker.awaited:
            worker.awaited = False
            for attempt in () if worker.reports_start else worker.open:
                self._time_out_later(attempt, now)

    # ---- judging workers

    def _note_sleep(self, now: float) -> None:
        """The alarm should have rung long ago: what is due may only seem so, by messages that are not heard yet."""
        if now < self._judges_from - self._beat_again_s:
            return  # it is listening already
        if self._listens_until == -math.inf:  # but once: it must act in the end, even if it never wakes in time
            self._listens_until = now + HEARING_S
        self._judges_from = now + HEARING_S + self._beat_again_s
        for worker in self._workers.values():
            if isinstance(worker.detector, SleepAware):
                worker.detector.slept(self._judges_from)

    def _review(self, worker: Worker, now: float) -> None:
        if worker.state not in (_ALIVE, _SUSPECT):
            return
        verdict = self._verdict(worker, now)
        if now < self._judges_from and verdict is not Verdict.ALIVE:
            self._review_by(worker, self._judges_from)
            return
        if verdict is Verdict.DEAD and self._dead_share.has_room:
            self._declare_dead(worker, Detail.DETECTOR, now)
            return
        if verdict is not Verdict.ALIVE and worker.state is _ALIVE:
            self._suspect(worker, now)
        if verdict is Verdict.DEAD:
            self._dead_share.spare(worker)
            return
        at = checked_review_at("failure detector", worker.detector)
        if at <= now:  # it would be asked at this moment for ever
            still = f"gave {at} at {now}, where verdict still says {verdict.name}: it must be later"
            raise nonsense("failure detector", worker.detector, "review_at", still)
        self._review_by(worker, at)

    @staticmethod
    def _verdict(worker: Worker, now: float) -> Verdict:
        verdict = worker.detector.verdict(now)
        if verdict.__class__ is not Verdict:
            raise nonsense("failure detector", worker.detector, "verdict", f"gave {verdict!r}, not a Verdict")
        return verdict

    def _eject_and_readmit(self, ejection: EjectionPolicy, now: float) -> None:
        while self._readmissions.earliest <= now:
            at, worker = self._readmissions.pop()
            if worker.ejected_until == at:
                worker.ejected_until = -math.inf
                self._fx.worker_changed(worker, WorkerEvent.READMITTED, Detail.NONE, now)
                self._reconsider(worker)
        if checked_review_at("ejection policy", ejection) > now:
            return
        for worker, why, for_s in ejection.review(self._workers.values(), now):
            if not isinstance(for_s, (int, float)) or not 0 < for_s < math.inf:
                raise nonsense("ejection policy", ejection, "review", f"gave {for_s!r}, not a number of seconds")
            if worker.state is not _LEFT and worker.ejected_until == -math.inf:
                worker.ejected_until = now + for_s
                self._readmissions.add(now + for_s, worker)
                self._make_unassignable(worker)
                self._fx.worker_changed(worker, WorkerEvent.EJECTED, why, now)
        if checked_review_at("ejection policy", ejection) <= now:
            raise nonsense("ejection policy", ejection, "review_at", "wants to be asked again at once, for ever")

    def _review_later(self, worker: Worker, now: float) -> None:
        """Judge the worker when its detector may change its mind."""
        at = checked_review_at("failure detector", worker.detector)
        self._review_by(worker, max(now, at))  # a beat may be so old that the verdict turned in the past

    def _review_by(self, worker: Worker, at: float) -> None:
        if self._detection_check is not None:
            at = self._detection_check.at_or_after(at)
        if at != worker.review_at:
            worker.review_at = at
            self._reviews.add(at, worker)
            self._ring_by(at)

    # ---- the return of a worker that was given up

    def _to_drop(self, worker: Worker, held: dict[AttemptKey, None]) -> list[AttemptKey]:
        """Which of the attempts that the worker holds nobody wants any more."""
        wanted = {
            attempt.key: None
            for attempt in (*worker.open, *worker.abandoned)
            if not attempt.task.settled and attempt.outcome is not Outcome.CANCELLED
        }
        return [key for key in held if key not in wanted]

    def _compare_with_replacements(self, worker: Worker, now: float) -> None:
        """What the worker still holds since it was given up goes on, or what replaced it elsewhere does.

        The original is the older one. If nothing runs elsewhere yet it goes on, and its place in the queue is stale.
        """
        for attempt in list(worker.abandoned):
            if attempt.outcome is not Outcome.WORKER_DIED or attempt.task.settled:
                continue
            rivals = self._rivals(attempt)
            is_original = all(attempt.number < rival.number for rival in rivals)
            if rivals and (self._on_return == "keep_replacement" or not is_original):
                attempt.outcome = Outcome.CANCELLED
                attempt.reason = "another attempt has taken its place"
                self._fx.cancel(attempt, now)
                continue
            for rival in rivals:
                self._give_up(rival, Outcome.CANCELLED, "the worker of the original returned", now)
            self._reopen(attempt, now)
            for rival in rivals:
                self._fx.cancel(rival, now)

    def _keep_recalled(self, attempts: Iterable[Attempt], now: float) -> None:
        """Their worker has begun them, or has them although the recall may be lost: what nobody else has goes on."""
        for attempt in attempts:
            if self._thefts is not None and self._thefts.thief_of(attempt) is not None:
                self._thefts.over(attempt)
                if attempt.task in self._backlog.crowded:
                    self._reopen(attempt, now)
                    self._thefts.kept.add(attempt)

    def _reopen(self, attempt: Attempt, now: float) -> None:
        """The task counts on it again; its execution timeout begins anew."""
        task, worker = attempt.task, attempt.worker
        attempt.state = _OPEN
        attempt.outcome = Outcome.UNFINISHED
        attempt.reason = ""
        attempt.given_up_at = None
        del worker.abandoned[attempt]
        worker.open[attempt] = None
        if task.state is _PENDING:
            self.pending -= 1
            self._backlog.forget(task)
        task.state = _ASSIGNED if attempt.started_at is None else _RUNNING
        if not worker.reports_start or attempt.started_at is not None:
            self._time_out_later(attempt, now)
        self._wait_again(task, now)
        self._hedges.look_again(attempt, now)

    @staticmethod
    def _rivals(attempt: Attempt) -> list[Attempt]:
        return [other for other in attempt.task.live if other.state is _OPEN]
