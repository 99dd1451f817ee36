"""Every change of state of a task, an attempt or a worker, with the effect that announces it.

A task's state, its attempt and its worker's load change together, before any effect. `core.coordinator` says when.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from typing import Literal

from orchestrator.core.admission import room_for
from orchestrator.core.backlog import Backlog
from orchestrator.core.blame import Blame
from orchestrator.core.culprit import checked_review_at, nonsense
from orchestrator.core.dead_share import DeadShare
from orchestrator.core.deadlines import AnyOrder, Expiries, Ticks, Timeouts
from orchestrator.core.hedges import Hedges, kind_of_payload
from orchestrator.core.model import (
    Attempt,
    AttemptState,
    Failure,
    Outcome,
    Quarantine,
    Task,
    TaskId,
    TaskState,
    Worker,
    WorkerId,
)
from orchestrator.core.ports import (
    DetectorFactory,
    Effects,
    EjectionPolicy,
    EndAware,
    HedgingPolicy,
    PolicyError,
    QueueDiscipline,
    RetryPolicy,
    RoutingPolicy,
    StealingPolicy,
)
from orchestrator.core.settled import SettledTasks
from orchestrator.core.thefts import Thefts

# Read for every task: a module's global is found faster than an enum's attribute.
_PENDING, _ASSIGNED, _RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING
_COMPLETED, _FAILED = TaskState.COMPLETED, TaskState.FAILED
_OPEN, _ABANDONED, _CLOSED = AttemptState.OPEN, AttemptState.ABANDONED, AttemptState.CLOSED


class Transitions:
    """The tasks and workers of a coordinator, with its settings.

    `queue`: makes a queue discipline; each lane of refused tasks has one of its own.
    `execution_timeout_s`: of tasks that have no limit of their own; None for no limit.
    `max_waiting`: when so many tasks wait no submission is accepted, of lower priorities sooner; None for no limit.
    `execution_check`, `detection_check`: None to act at the exact moment.
    `keep_settled`, `keep_settled_s`, `keep_settled_bytes`: settled tasks are remembered, to answer questions and to
    know a late report, up to that number, for that long, and up to that size in all. `keep_keyed_s`: for how long those
    that were submitted with a key.
    `remember_workers_s`: how long a worker that left or died is remembered.

    `own_pause_s`: an alarm that rings later than that means that the coordinator slept; it has itself woken that
    often at least, so that a pause of twice as much is never missed. Workers beat every `heartbeat_s`.
    `max_dead_share`: the share of the workers, though at least one, that the detector may declare dead at once; the
    others remain suspects until one of those is back or gone. `max_worker_kills`: a task is given up when so many
    workers died with it. `max_copies`: so many attempts of a task, hedges apart, may occupy workers at once.
    `on_return`: whose attempt goes on when a worker that was given up returns with it.
    `call_timeout_s`: a call of which nothing is heard for so long has failed.
    `term`: of this coordinator process; a later process has a higher one.
    """

    # More attributes than a shared dictionary of instances holds: slots are found faster.
    __slots__ = (
        "_alarm", "_backlog", "_blame", "_call_timeout_s", "_dead_share", "_detection_check", "_ejection",
        "_expiries", "_free_slots", "_fx", "_gone", "_hedges", "_judges_from", "_learners", "_limited",
        "_listens_until", "_max_copies", "_new_detector", "_on_failed_call", "_on_return", "_own_pause_s",
        "_readmissions", "_remember_workers_s", "_settled", "_retry", "_reviews", "_room_appeared", "_room_for",
        "_roomy", "_routing", "_tasks", "_thefts", "_timeouts", "_workers", "completed", "counters", "failed",
        "heartbeat_s", "pending", "submitted", "term",
    )  # fmt: skip

    def __init__(
        self,
        effects: Effects,
        *,
        routing: RoutingPolicy,
        queue: Callable[[], QueueDiscipline],
        detector: DetectorFactory,
        retry: RetryPolicy,
        execution_timeout_s: float | None = None,
        execution_check: Ticks | None = None,
        detection_check: Ticks | None = None,
        on_failed_call: Literal["hold", "dead"] = "hold",
        heartbeat_s: float = 2.0,
        own_pause_s: float = math.inf,
        on_suspect: Literal["hold", "hedge"] = "hold",
        max_dead_share: float | None = None,
        on_return: Literal["first_result", "keep_original", "keep_replacement"] = "first_result",
        max_worker_kills: int | None = None,
        max_copies: int = 2,
        hedging: HedgingPolicy | None = None,
        ejection: EjectionPolicy | None = None,
        stealing: StealingPolicy | None = None,
        kind_of: Callable[[object], Hashable] = kind_of_payload,
        call_timeout_s: float = 2.0,
        max_waiting: int | None = None,
        keep_settled: float = 100_000,
        keep_settled_s: float = math.inf,
        keep_settled_bytes: float = math.inf,
        keep_keyed_s: float = math.inf,
        remember_workers_s: float = 3600.0,
        term: int = 1,
    ) -> None:
        self._fx = effects
        self._routing = routing
        self._new_detector = detector
        self._retry = retry
        self._ejection = ejection
        self._detection_check = detection_check
        self._on_failed_call = on_failed_call
        self._own_pause_s = own_pause_s
        self._on_return = on_return
        self._call_timeout_s = call_timeout_s
        self._max_copies = max_copies
        self._remember_workers_s = remember_workers_s
        self.heartbeat_s = heartbeat_s
        self.term = term

        self._tasks: dict[TaskId, Task] = {}
        self._workers: dict[WorkerId, Worker] = {}
        self._free_slots: list[int] = []  # of forgotten workers, a heap
        self._settled = SettledTasks(self._tasks, keep_settled, keep_settled_s, keep_settled_bytes, keep_keyed_s)
        self._gone: deque[tuple[float, Worker]] = deque()  # since when workers are dead or have left, oldest first
        self._roomy = 0  # assignable workers with load < limit
        self._room_appeared = False  # since the refused tasks were tried

        self._backlog = Backlog(queue, routing)
        self._learners = [
            policy.ended for policy in (ejection, routing, self._backlog.queue) if isinstance(policy, EndAware)
        ]
        self._hedges = Hedges(hedging, on_suspect == "hedge", kind_of)
        self._thefts = None if stealing is None else Thefts(stealing, routing)
        self._blame = Blame(max_worker_kills)
        self._dead_share = DeadShare(max_dead_share)
        self._timeouts = Timeouts(self._tasks, execution_timeout_s, execution_check)
        self._limited = execution_timeout_s is not None
        self._expiries = Expiries(self._tasks)
        self._room_for = None if max_waiting is None else room_for(max_waiting)
        self._reviews: AnyOrder[Worker] = AnyOrder()
        self._readmissions: AnyOrder[Worker] = AnyOrder()
        self._alarm = math.inf
        self._listens_until = -math.inf  # after it slept: before then it acts on no deadline
        self._judges_from = -math.inf  # after it slept: before then it judges no worker

        self.submitted = 0
        self.pending = 0  # waiting for a worker, or for their retry
        self.completed = 0
        self.failed = 0
        self.counters: Counter[str] = Counter(
            late_results=0,
            unknown_results=0,
            refused_results=0,
            duplicate_submits=0,
            timeouts=0,
            queue_timeouts=0,
            missed_deadlines=0,
            refused_submissions=0,
        )

    def policies(self) -> Mapping[str, object]:
        """The policies by what they are. A detector stands for those of all workers."""
        policies = {
            "routing policy": getattr(self._routing, "base", self._routing),
            "queue": self._backlog.queue,
            "failure detector": self._new_detector,
            "retry policy": self._retry,
            "hedging policy": self._hedges.policy,
            "ejection policy": self._ejection,
            "stealing policy": None if self._thefts is None else self._thefts.policy,
        }
        return {role: policy for role, policy in policies.items() if policy is not None}

    # ---- tasks

    def _assign(self, task: Task, worker: Worker, now: float, make: type[Attempt] = Attempt) -> None:
        """The worker is whatever the routing policy chose."""
        if worker.__class__ is not Worker or not worker.assignable or worker.load >= worker.limit:
            raise self._wrong_choice(worker)
        before = worker.load
        number = task.attempt + 1
        attempt = make(task, worker, number, now)
        task.attempt = number
        task.state = _ASSIGNED
        task.live = (*task.live, attempt) if task.live else (attempt,)
        self.pending -= 1
        worker.open[attempt] = None
        worker.load = before + 1
        if before + 1 >= worker.limit:
            self._roomy -= 1
        self._routing.load_changed(worker, before)
        if self._thefts is not None:
            self._thefts.load_changed(worker, before)
        if not worker.reports_start and (self._limited or task.limits is not None):
            # As `_time_out_later` has it, which this does not call because every task pays for it.
            at = self._timeouts.start(attempt, now)
            if at < self._alarm:
                self._ring_by(at)
        if self._hedges.policy is not None:
            self._ring_by(self._hedges.began(attempt, self._workers.values()))
        if worker.on_trial:
            self._quarantine(worker, Quarantine.TRIAL)
            worker.trial_at = now
        self._fx.assign(attempt, now)

    def _wrong_choice(self, worker: object) -> PolicyError:
        if not isinstance(worker, Worker):
            why = f"{worker!r}, not a worker"
        else:
            why = f"{worker}, which {'is full' if worker.assignable else 'gets no tasks at present'}"
        return nonsense("routing policy", self.policies()["routing policy"], "choose", f"gave {why}")

    def _settle(
        self, task: Task, state: TaskState, worker_id: WorkerId | None, value: object, error: str, now: float
    ) -> None:
        """The one place where a task gets its outcome; the effects follow when its attempt is closed too."""
        if task.state is _PENDING:
            self.pending -= 1
            self._backlog.forget(task)
        if self._blame.killed:
            self._blame.forget(task)
        task.state = state
        task.settled_at = now
        task.worker_id = worker_id
        task.result = value
        task.error = error
        if state is _COMPLETED:
            self.completed += 1
        else:
            self.failed += 1
        if not task.live:
            self._settled.add(task, now)

    def _announce(self, task: Task, now: float) -> None:
        """The task is settled: its other attempts have become useless."""
        self._fx.settled(task, now)
        for other in task.live:
            if other.state is _OPEN:
                why = task.error if task.worker_id is None else "settled by another attempt"
                self._give_up(other, Outcome.CANCELLED, why, now)
            self._fx.cancel(other, now)

    def _retry_or_fail(self, attempt: Attempt, now: float, after_s: float = 0.0) -> None:
        """An attempt of the task was consumed: try again after the policy's delay, and no sooner than `after_s`, or
        give the task up."""
        task = attempt.task
        failure = Failure(attempt.number, attempt.worker.id, attempt.outcome, attempt.reason, now)
        if task.failures is None:
            task.failures = []
        task.failures.append(failure)
        if not attempt.hedge:
            task.tries += 1
        if task.state >= _COMPLETED:
            return
        if attempt.has_begun:
            task.begin()
        if task.has_open:
            self._hedge_again(task, now)
            return
        delay_s = None if self._blame.is_poison(task) else self._retry_delay_s(task.tries)
        if delay_s is None:
            self._fail(attempt, now)
        elif (delay_s := max(delay_s, after_s)) > 0:
            self._make_pending(task)
            self._backlog.retry_later(task, now + delay_s)
            self._ring_by(now + delay_s)
        else:
            self._make_pending(task)
            self._backlog.add(task)

    def _retry_delay_s(self, tries: int) -> float | None:
        delay_s = self._retry.delay_s(tries)
        if delay_s is not None and not (isinstance(delay_s, (int, float)) and 0 <= delay_s < math.inf):
            raise nonsense("retry policy", self._retry, "delay_s", f"gave {delay_s!r}, not a number of seconds or None")
        return delay_s

    def _requeue_if_orphaned(self, attempt: Attempt, now: float) -> None:
        """An attempt of the task came to nothing, and consumed nothing."""
        task = attempt.task
        if task.state >= _COMPLETED:
            return
        self._wait_again(task, now)
        if task.has_open:
            self._hedge_again(task, now)
            return
        # Tries may have been consumed while this one, a hedge, was still open.
        limit = self._retry.max_attempts
        if self._blame.is_poison(task) or (limit is not None and task.tries >= limit):
            self._fail(attempt, now)
        else:
            self._make_pending(task)
            self._backlog.add(task)

    def _fail(self, attempt: Attempt, now: float) -> None:
        """Give up its task: that was the last attempt."""
        task = attempt.task
        last = task.failures[-1].reason if task.failures else attempt.reason
        if self._blame.is_poison(task):
            reason = f"poison: {', '.join(self._blame.victims(task))} died with it, the last one because {last}"
        else:
            reason = f"gave up after {task.tries} attempts: {last}"
        self._settle(task, _FAILED, attempt.worker.id, None, reason, now)
        self._announce(task, now)

    def _make_pending(self, task: Task) -> None:
        task.state = _PENDING
        self.pending += 1

    # ---- attempts

    def _time_out_later(self, attempt: Attempt, now: float) -> None:
        at = self._timeouts.start(attempt, now)
        if at < self._alarm:
            self._ring_by(at)

    def _wait_again(self, task: Task, now: float) -> None:
        """What seemed to run may not have begun."""
        if task.limits is not None:
            self._ring_by(self._expiries.wait_again(task, now))

    def _give_up(self, attempt: Attempt, outcome: Outcome, reason: str, now: float) -> None:
        attempt.state = _ABANDONED
        attempt.outcome = outcome
        attempt.reason = reason
        attempt.given_up_at = now
        worker = attempt.worker
        del worker.open[attempt]
        worker.abandoned[attempt] = None
        if self._hedges.possible:
            self._hedges.over(attempt, now, False)

    def _close(self, attempt: Attempt, now: float) -> None:
        """The attempt's last word: it leaves its task and its worker."""
        worker, task = attempt.worker, attempt.task
        del (worker.open if attempt.state is _OPEN else worker.abandoned)[attempt]
        attempt.state = _CLOSED
        attempt.ended_at = now
        task.live = tuple(other for other in task.live if other is not attempt) if len(task.live) > 1 else ()
        if self._learners:
            for learn in self._learners:
                learn(attempt, now)
            if self._ejection is not None and checked_review_at("ejection policy", self._ejection) <= now:
                self._ring_by(now)
        before = worker.load
        worker.load = before - 1
        if worker.assignable:
            if before - 1 < worker.limit <= before:
                self._roomy += 1
            self._room_appeared = True
            self._routing.load_changed(worker, before)
        if self._thefts is not None:
            self._thefts.over(attempt)
            if worker.assignable:
                self._thefts.load_changed(worker, before)
        self._fx.ended(attempt, now)
        if task.state < _COMPLETED:
            task.keep_past(attempt)
            if self._backlog.crowded:
                self._backlog.release(task)
        elif not task.live:
            self._settled.add(task, now)

    def _come_to_nothing(self, attempt: Attempt, outcome: Outcome, reason: str, now: float) -> None:
        """Its worker does not have it, and that consumes nothing."""
        self._give_up(attempt, outcome, reason, now)
        self._close(attempt, now)
        self._requeue_if_orphaned(attempt, now)

    # ---- hedges

    def _hedge_again(self, task: Task, now: float) -> None:
        """One of a task's attempts came to nothing: those that remain may want another hedge."""
        if self._hedges.lost_one(task, now):
            self._ring_by(now)

    # ---- which workers get tasks

    def _quarantine(self, worker: Worker, why: Quarantine) -> None:
        if worker.quarantined is not Quarantine.FAILED_CALL:
            worker.quarantined = why
        self._make_unassignable(worker)

    def _reconsider(self, worker: Worker) -> None:
        """After something that may have made the worker assignable."""
        if not worker.assignable and worker.available:
            worker.assignable = True
            if worker.load < worker.limit:
                self._roomy += 1
            self._room_appeared = True
            self._routing.joined(worker)
            if self._thefts is not None:
                self._thefts.joined(worker)

    def _make_unassignable(self, worker: Worker) -> None:
        if worker.assignable:
            worker.assignable = False
            if worker.load < worker.limit:
                self._roomy -= 1
            self._routing.left(worker)
            if self._thefts is not None:
                self._thefts.left(worker)

    # ---- the alarm

    def _ring_by(self, at: float) -> None:
        at = max(at, self._listens_until)
        if at < self._alarm:
            self._alarm = at
            self._fx.wake_at(at)

    def _next_deadline(self) -> float:
        return min(
            self._timeouts.earliest(),
            self._expiries.earliest,
            self._reviews.earliest,
            self._backlog.next_retry_at(),
            self._hedges.next_age_at(),
            self._readmissions.earliest,
        )
