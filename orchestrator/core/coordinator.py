"""The coordinator: every task and worker transition there is.

Inputs are methods whose last parameter is `now` (seconds, monotonic); outputs are calls to `Effects`. Inputs may
come late, twice, out of order, for tasks and workers that are unknown, dead or gone: each is answered by these rules.

- One place per decision: a task's state, its attempt and its worker's load change together, before any effect.
- Any attempt's result settles a task that is not settled; a result for a settled task is late: counted, dropped.
  When a task settles, its other attempts are cancelled.
- An attempt that is given up (timeout, death, failed call) still occupies its worker: it is abandoned until a
  report, a cancel's acknowledgement or a re-registration closes it, or a heartbeat's `active` shows that it is gone.
- A death, a timeout and a retryable failure consume one of a task's tries; a rejection and a failed call do not, and
  what happens to a twin does not.
- A worker is assignable while it is ALIVE, not draining, not ejected and not held back. A rejection holds it until
  its next heartbeat or result, a failed call until its next heartbeat.
- A twin starts on another worker than the attempts that it is to save, in room that no waiting task wants.
- A worker's death is blamed on the tasks that it was running when it was convicted, or when a new process of its name
  registered. Neither a leave, which is the worker's own word, nor the death of one that then returns is.
- A coordinator that slept hears what came meanwhile before it acts on a deadline, and judges no worker before each
  had time to beat again.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator
from typing import Literal

from orchestrator.core.deadlines import AnyOrder, Ticks
from orchestrator.core.model import (
    Attempt,
    AttemptState,
    Failure,
    Hold,
    Outcome,
    Task,
    TaskId,
    TaskState,
    Twin,
    Worker,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import (
    DetectorFactory,
    Effects,
    EjectionPolicy,
    HedgingPolicy,
    QueueDiscipline,
    RetryPolicy,
    RoutingPolicy,
    SleepAware,
    Verdict,
)

HEARING_S = 0.25
"""After it slept, the coordinator listens so long before it acts."""

# Read on every task: a module's global is found faster than an enum's attribute.
_PENDING, _ASSIGNED, _RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING
_COMPLETED, _FAILED = TaskState.COMPLETED, TaskState.FAILED
_OPEN, _ABANDONED, _CLOSED = AttemptState.OPEN, AttemptState.ABANDONED, AttemptState.CLOSED
_ALIVE, _SUCCESS = WorkerState.ALIVE, Outcome.COMPLETED


def kind_of_payload(payload: object) -> Hashable:
    """What a payload calls its own kind; all that say nothing are of one kind."""
    kind: Hashable = getattr(payload, "kind", None)
    return kind


class Coordinator:
    """Owns all tasks and workers.

    `execution_timeout_s`: None for no limit. `execution_check`, `detection_check`: None to act at the exact moment.
    `keep_settled`: how many settled tasks are remembered, to answer questions and to know a late report for one.

    `own_pause_s`: an alarm that rings later than that means that the coordinator slept; it has itself woken that
    often at least, so that a pause of twice as much is never missed. Workers beat every `heartbeat_s`.
    `max_ejected`: the share of the workers, though at least one, that the detector may declare dead at once; the
    others remain suspects until one of those is back or gone. `max_worker_kills`: a task is given up when so many
    workers died with it. `on_return`: whose attempt goes on when a worker that was given up returns with it.
    """

    # More attributes than a shared dictionary of instances holds: slots are found faster.
    __slots__ = (
        "_ages", "_alarm", "_convicted", "_detection_check", "_ejection", "_execution_check",
        "_execution_timeout_s", "_fx", "_heartbeat_s", "_hedging", "_judges_from", "_keep_settled", "_killed",
        "_kind_of", "_known_kinds", "_listens_until", "_max_ejected", "_new_detector", "_on_failed_call",
        "_on_return", "_on_suspect", "_orphans", "_own_pause_s", "_max_worker_kills", "_present", "_queue",
        "_readmissions", "_remembered", "_retries", "_retry", "_retry_at", "_reviews", "_roomy", "_routing",
        "_slow", "_spared", "_tasks", "_timeouts", "_twins_possible", "_twins_wanted", "_void", "_workers",
        "completed", "counters", "failed", "pending", "submitted",
    )  # fmt: skip

    def __init__(
        self,
        effects: Effects,
        *,
        routing: RoutingPolicy,
        queue: QueueDiscipline,
        detector: DetectorFactory,
        retry: RetryPolicy,
        execution_timeout_s: float | None = None,
        execution_check: Ticks | None = None,
        detection_check: Ticks | None = None,
        on_failed_call: Literal["hold", "dead"] = "hold",
        heartbeat_s: float = 2.0,
        own_pause_s: float = math.inf,
        on_suspect: Literal["hold", "hedge"] = "hold",
        max_ejected: float | None = None,
        on_return: Literal["first_result", "keep_original", "keep_replacement"] = "first_result",
        max_worker_kills: int | None = None,
        hedging: HedgingPolicy | None = None,
        ejection: EjectionPolicy | None = None,
        kind_of: Callable[[object], Hashable] = kind_of_payload,
        keep_settled: int = 100_000,
    ) -> None:
        self._fx = effects
        self._routing = routing
        self._queue = queue
        self._new_detector = detector
        self._retry = retry
        self._execution_timeout_s = execution_timeout_s
        self._execution_check = execution_check
        self._detection_check = detection_check
        self._on_failed_call = on_failed_call
        self._own_pause_s = own_pause_s
        self._heartbeat_s = heartbeat_s
        self._on_suspect = on_suspect
        self._max_ejected = max_ejected
        self._on_return = on_return
        self._max_worker_kills = math.inf if max_worker_kills is None else max_worker_kills
        self._hedging = hedging
        self._ejection = ejection
        self._kind_of = kind_of
        self._keep_settled = keep_settled

        self._tasks: dict[TaskId, Task] = {}
        self._workers: dict[WorkerId, Worker] = {}
        self._remembered: deque[TaskId] = deque()  # settled, nothing live, oldest first
        self._roomy = 0  # assignable workers with load < limit
        self._present = 0  # workers that have not left
        self._convicted: dict[Worker, None] = {}  # dead by the detector
        self._spared: dict[Worker, None] = {}  # suspects that only `max_ejected` keeps from being convicted

        # Attempts that are to have a twin: those of suspects, and slow ones, which the hedging policy must allow.
        self._orphans: dict[Attempt, None] = {}
        self._slow: dict[Attempt, None] = {}
        self._twins_wanted = False
        self._known_kinds: dict[Hashable, None] = {}
        self._twins_possible = hedging is not None or on_suspect == "hedge"

        self._killed: dict[Task, tuple[WorkerId, ...]] = {}  # who died while it was on them
        self._retry_at: dict[Task, float] = {}  # of those that wait for their retry
        self._void: dict[Task, None] = {}  # tasks that were taken back, and left a place in the queue

        # A constant timeout makes deadlines fall due in the order in which they are set. The id, not the attempt:
        # nearly all attempts end long before, and their memory should be free by then.
        self._timeouts: deque[tuple[float, TaskId]] = deque()
        self._reviews: AnyOrder[Worker] = AnyOrder()
        self._retries: AnyOrder[Task] = AnyOrder()
        self._ages: AnyOrder[Attempt] = AnyOrder()
        self._readmissions: AnyOrder[Worker] = AnyOrder()
        self._alarm = math.inf
        self._listens_until = -math.inf  # after it slept: before then it acts on no deadline
        self._judges_from = -math.inf  # after it slept: before then it judges no worker

        self.submitted = 0
        self.pending = 0  # waiting in the queue, or for their retry
        self.completed = 0
        self.failed = 0
        self.counters: Counter[str] = Counter(late_results=0, unknown_results=0, duplicate_submits=0)

    # ---- what drivers may ask

    def task(self, task_id: TaskId) -> Task | None:
        return self._tasks.get(task_id)

    def worker(self, worker_id: WorkerId) -> Worker | None:
        return self._workers.get(worker_id)

    def workers(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def unsettled(self) -> Iterator[Task]:
        return (task for task in self._tasks.values() if not task.settled)

    # ---- inputs from clients

    def submit(self, task_id: TaskId, priority: int, payload: object, now: float) -> None:
        """A task, to be settled exactly once. An id that is known already is only acknowledged again."""
        known = self._tasks.get(task_id)
        if known is not None:
            self.counters["duplicate_submits"] += 1
            self._fx.accepted(known, now)
            return
        task = Task(task_id, self.submitted, priority, payload, now)
        self._tasks[task_id] = task
        self.submitted += 1
        self.pending += 1
        self._fx.accepted(task, now)
        if self._roomy and not len(self._queue):
            worker = self._routing.choose(task)
            if worker is not None:
                self._assign(task, worker, now)
                return
        self._queue.push(task)
        if self._roomy:
            self._dispatch(now)  # what stood before it may have been settled while it waited

    # ---- inputs from workers

    def register(self, worker_id: WorkerId, capacity: int, prefetch: float, reports_start: bool, now: float) -> None:
        """A worker process begins. What an earlier process of that id held is lost, and requeued at once."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = Worker(worker_id, len(self._workers))
            detail = "registered"
        else:
            detail = "reregistered"
            self._make_unassignable(worker)
            self._blame(worker)
            self._lose_everything(worker, "its worker registered again", now)
            worker.blamed.clear()
        if worker.state is WorkerState.LEFT:
            self._present += 1
        worker.capacity = capacity
        worker.limit = capacity + prefetch
        # Without prefetch an assignment starts at once, so a report of the start would tell nothing.
        worker.reports_start = reports_start and prefetch > 0
        worker.state = _ALIVE
        worker.held = ""
        worker.draining = False
        worker.ejected_until = -math.inf
        worker.detector = self._new_detector(now)
        self._fx.worker_changed(worker, "up", detail, now)
        self._review_later(worker, now)
        self._not_condemned(worker, now)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm(now)

    def heartbeat(self, worker_id: WorkerId, active: int, now: float) -> None:
        """A sign of life. `active`: how many attempts the worker holds, by its own count."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.state is WorkerState.LEFT:
            self._fx.heartbeat_answered(worker_id, False)
            return
        if now > self._alarm + self._own_pause_s:
            self._note_sleep(now)
        worker.detector.heard(now)
        if worker.state is _ALIVE and not worker.held and not worker.abandoned:
            if worker.detector.review_at() < worker.review_at:
                self._review_later(worker, now)
            self._fx.heartbeat_answered(worker_id, True)
            return
        while worker.abandoned and len(worker.abandoned) > active:
            self._close(next(iter(worker.abandoned)), now)
        worker.held = ""
        # A beat may be so old that even with it the worker is too silent.
        if worker.state is not _ALIVE and worker.detector.verdict(now) is not Verdict.DEAD:
            self._revive(worker, now)
        if worker.state is not WorkerState.DEAD:
            self._review_later(worker, now)
        self._fx.heartbeat_answered(worker_id, True)
        if worker.state is _ALIVE and worker.abandoned and self._on_return != "first_result":
            self._compare_with_replacements(worker, now)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm(now)

    def started(self, worker_id: WorkerId, task_id: TaskId, number: int, now: float) -> None:
        """Execution of an attempt began (workers with a prefetch queue report it)."""
        attempt = self._find(worker_id, task_id, number)
        if attempt is None or attempt.started_at is not None:
            return
        attempt.started_at = now
        if attempt.state is _OPEN:
            attempt.task.state = _RUNNING
            if attempt.worker.reports_start:
                self._time_out_later(attempt, now)

    def result(
        self,
        worker_id: WorkerId,
        task_id: TaskId,
        number: int | None,
        succeeded: bool,
        value: object,
        error: str,
        retryable: bool,
        started_at: float | None,
        ran_s: float | None,
        now: float,
    ) -> None:
        """An attempt's own word on how it ended.

        `number` None: the worker's newest attempt of the task. `started_at`: the driver's estimate of the start, on
        the coordinator's clock; `ran_s`: seconds of execution by the worker's clock.
        """
        task = self._tasks.get(task_id)
        if task is None or not task.attempt or (number is not None and not 0 < number <= task.attempt):
            self.counters["unknown_results"] += 1
            self._fx.acknowledged(worker_id, task_id, number, False)
            return
        attempt = task.live[-1] if task.live else None
        if attempt is not None and (attempt.worker.id != worker_id or number not in (None, attempt.number)):
            attempt = self._newest(task, worker_id, number)
        settles = task.state < _COMPLETED and (succeeded or not retryable)
        if settles:
            self._settle(task, _COMPLETED if succeeded else _FAILED, worker_id, value, error, now)
        elif task.state >= _COMPLETED:
            self.counters["late_results"] += 1
        consumed = False
        if attempt is not None:
            if started_at is not None:
                attempt.started_at = started_at
            attempt.ran_s = ran_s
            attempt.settles = settles
            if self._twins_possible:
                self._needs_no_twin(attempt, now, settles and succeeded)
            if attempt.state is _OPEN:
                attempt.outcome = _SUCCESS if succeeded else Outcome.FAILED
                attempt.reason = error
                consumed = not settles
            self._close(attempt, now)
        if settles:
            self._announce(task, now)
        elif consumed and attempt is not None:
            self._retry_or_fail(attempt, now)
        self._fx.acknowledged(worker_id, task_id, number, True)
        if attempt is not None and attempt.worker.held == "rejected":
            attempt.worker.held = ""
            self._reconsider(attempt.worker)
        if self.pending or self._twins_wanted:
            self._dispatch(now)
        if consumed:
            self._rearm(now)

    def rejected(self, worker_id: WorkerId, task_id: TaskId, number: int, now: float) -> None:
        """The worker did not take the attempt: nobody's fault."""
        attempt = self._find(worker_id, task_id, number)
        if attempt is None:
            return
        self._hold(attempt.worker, "rejected")
        was_open = attempt.state is _OPEN
        if was_open:
            self._give_up(attempt, Outcome.REJECTED, "its worker did not take it", now)
        self._close(attempt, now)
        if was_open:
            self._requeue_if_orphaned(attempt, now)
        self._dispatch(now)

    def cancelled(self, worker_id: WorkerId, task_id: TaskId, number: int, now: float) -> None:
        """The worker's acknowledgement of a cancel: it does not hold the attempt any more."""
        attempt = self._find(worker_id, task_id, number)
        if attempt is not None and attempt.state is _ABANDONED:
            self._close(attempt, now)
            self._dispatch(now)

    def drain(self, worker_id: WorkerId, now: float) -> None:
        """The worker takes nothing new, and will leave when it has finished what it holds."""
        worker = self._workers.get(worker_id)
        if worker is not None and not worker.draining and worker.state is not WorkerState.LEFT:
            worker.draining = True
            self._make_unassignable(worker)
            self._fx.worker_changed(worker, "drain", "", now)

    def deregister(self, worker_id: WorkerId, now: float) -> None:
        """The worker is gone, by its own word. What it had not reported is lost, and requeued."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.state is WorkerState.LEFT:
            return
        worker.state = WorkerState.LEFT
        self._present -= 1
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, "left", "", now)
        self._absolve(worker)
        self._lose_everything(worker, "its worker left", now)
        self._not_condemned(worker, now)
        self._dispatch(now)
        self._rearm(now)

    # ---- inputs from the transport

    def call_failed(self, worker_id: WorkerId, task_id: TaskId, number: int, now: float) -> None:
        """An assignment could not be delivered, or nobody knows whether it was."""
        attempt = self._find(worker_id, task_id, number)
        if attempt is None:
            return
        if attempt.state is _OPEN:
            self._give_up(attempt, Outcome.CALL_FAILED, "the call to its worker failed", now)
            self._requeue_if_orphaned(attempt, now)
        elif attempt.outcome is Outcome.WORKER_DIED:
            attempt.outcome = Outcome.CALL_FAILED  # its worker may never have heard of it, and won't return with it
        self.connection_lost(worker_id, now)

    def connection_lost(self, worker_id: WorkerId, now: float) -> None:
        """The way to a worker broke: what that means is the setting `on_failed_call`."""
        worker = self._workers.get(worker_id)
        if worker is not None and worker.state in (_ALIVE, WorkerState.SUSPECT):
            if self._on_failed_call == "dead":
                self._convict(worker, "failed_call", now)
            else:
                self._hold(worker, "failed_call")
        self._dispatch(now)
        self._rearm(now)

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
        timeouts = self._timeouts
        while timeouts and timeouts[0][0] <= now:
            attempt = self._timing_out(*timeouts.popleft())
            if attempt is not None:
                self._give_up(attempt, Outcome.TIMED_OUT, f"ran for over {self._execution_timeout_s} s", now)
                self._retry_or_fail(attempt, now)
        while self._reviews.earliest() <= now:
            at, worker = self._reviews.pop()
            if worker.review_at == at:
                worker.review_at = math.inf
                self._review(worker, now)
        while self._retries.earliest() <= now:
            at, task = self._retries.pop()
            if self._retry_at.get(task) == at:
                del self._retry_at[task]
                self._enqueue(task)
        if self._ejection is not None:
            self._eject_and_readmit(self._ejection, now)
        if self._hedging is not None:
            self._find_slow(self._hedging, now)
        self._dispatch(now)
        self._alarm = math.inf
        self._rearm(now)

    # ---- tasks

    def _assign(self, task: Task, worker: Worker, now: float, make: type[Attempt] = Attempt) -> None:
        before = worker.load
        if before >= worker.limit:
            raise ValueError(f"the routing policy chose {worker}, which has no room")
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
        if self._execution_timeout_s is not None and not worker.reports_start:
            self._time_out_later(attempt, now)
        if self._hedging is not None:
            self._watch_age(self._hedging, attempt)
        self._fx.assign(attempt, now)

    def _dispatch(self, now: float) -> None:
        """Assign waiting tasks while a worker has room."""
        queue = self._queue
        while self._roomy and len(queue):
            task = queue.pop()
            if task.state is not _PENDING or (self._void and task in self._void):
                self._void.pop(task, None)
                continue  # settled by a late result while it waited, or taken back
            worker = self._routing.choose(task)
            if worker is None:
                queue.push(task)
                break
            self._assign(task, worker, now)
        if self._twins_wanted and self._roomy:
            self._start_twins(now)

    def _enqueue(self, task: Task) -> None:
        if task in self._void:
            del self._void[task]  # its old place is as good
        else:
            self._queue.push(task)

    def _settle(
        self, task: Task, state: TaskState, worker_id: WorkerId, value: object, error: str, now: float
    ) -> None:
        """The one place where a task gets its outcome; the effects follow when its attempt is closed too."""
        if task.state is _PENDING:
            self.pending -= 1
            self._retry_at.pop(task, None)
        if self._killed:
            self._killed.pop(task, None)
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
            self._remember(task)

    def _announce(self, task: Task, now: float) -> None:
        """The task is settled: its other attempts have become useless."""
        self._fx.settled(task, now)
        for twin in task.live:
            if twin.state is _OPEN:
                self._give_up(twin, Outcome.CANCELLED, "settled by another attempt", now)
            self._fx.cancel(twin, now)

    def _retry_or_fail(self, attempt: Attempt, now: float) -> None:
        """An attempt of the task was consumed: try again after the policy's delay, or give the task up."""
        task = attempt.task
        self._note_failure(attempt, now)
        if not attempt.hedge:
            task.tries += 1
        if task.state >= _COMPLETED:
            return
        if self._has_open(task):
            self._twin_again(task, now)
            return
        delay_s = None if self._is_poison(task) else self._retry.delay_s(max(1, task.tries))
        if delay_s is None:
            self._fail(attempt, now)
        elif delay_s > 0:
            self._make_pending(task)
            self._retry_at[task] = now + delay_s
            self._retries.add(now + delay_s, task)
            self._ring_by(now + delay_s)
        else:
            self._make_pending(task)
            self._enqueue(task)

    def _requeue_if_orphaned(self, attempt: Attempt, now: float) -> None:
        """An attempt of the task came to nothing, and consumed nothing."""
        task = attempt.task
        if task.state >= _COMPLETED:
            return
        if self._has_open(task):
            self._twin_again(task, now)
            return
        # Tries may have been consumed while this one, a twin, was still open.
        limit = self._retry.max_attempts
        if self._is_poison(task) or (limit is not None and task.tries >= limit):
            self._fail(attempt, now)
        else:
            self._make_pending(task)
            self._enqueue(task)

    def _fail(self, attempt: Attempt, now: float) -> None:
        """Give up its task: that was the last attempt."""
        task = attempt.task
        last = task.failures[-1].reason if task.failures else attempt.reason
        if self._is_poison(task):
            reason = f"poison: {', '.join(self._killed[task])} died with it, the last one because {last}"
        else:
            reason = f"gave up after {task.tries} attempts: {last}"
        self._settle(task, _FAILED, attempt.worker.id, None, reason, now)
        self._announce(task, now)

    def _is_poison(self, task: Task) -> bool:
        return len(self._killed.get(task, ())) >= self._max_worker_kills

    def _make_pending(self, task: Task) -> None:
        task.state = _PENDING
        self.pending += 1

    def _note_failure(self, attempt: Attempt, now: float) -> None:
        failure = Failure(attempt.number, attempt.worker.id, attempt.outcome, attempt.reason, now)
        if attempt.task.failures is None:
            attempt.task.failures = []
        attempt.task.failures.append(failure)

    @staticmethod
    def _has_open(task: Task) -> bool:
        return any(attempt.state is _OPEN for attempt in task.live)

    def _remember(self, task: Task) -> None:
        """Keep a settled task for a while, and forget the oldest."""
        self._remembered.append(task.id)
        if len(self._remembered) > self._keep_settled:
            del self._tasks[self._remembered.popleft()]

    # ---- attempts

    def _find(self, worker_id: WorkerId, task_id: TaskId, number: int | None) -> Attempt | None:
        task = self._tasks.get(task_id)
        return None if task is None else self._newest(task, worker_id, number)

    @staticmethod
    def _newest(task: Task, worker_id: WorkerId, number: int | None) -> Attempt | None:
        for attempt in reversed(task.live):
            if attempt.worker.id == worker_id and (number is None or attempt.number == number):
                return attempt
        return None

    def _timing_out(self, at: float, task_id: TaskId) -> Attempt | None:
        """The open attempt whose deadline this is; the id may have gone to another task since."""
        task = self._tasks.get(task_id)
        for attempt in task.live if task is not None else ():
            if attempt.state is _OPEN and attempt.times_out_at == at:
                return attempt
        return None

    def _time_out_later(self, attempt: Attempt, now: float) -> None:
        if self._execution_timeout_s is not None:
            at = now + self._execution_timeout_s
            if self._execution_check is not None:
                at = self._execution_check.at_or_after(at)
            attempt.times_out_at = at
            self._timeouts.append((at, attempt.task.id))
            if at < self._alarm:
                self._ring_by(at)

    def _give_up(self, attempt: Attempt, outcome: Outcome, reason: str, now: float) -> None:
        attempt.state = _ABANDONED
        attempt.outcome = outcome
        attempt.reason = reason
        attempt.given_up_at = now
        worker = attempt.worker
        del worker.open[attempt]
        worker.abandoned[attempt] = None
        if self._twins_possible:
            self._needs_no_twin(attempt, now, False)

    def _close(self, attempt: Attempt, now: float) -> None:
        """The attempt's last word: it leaves its task and its worker."""
        worker, task = attempt.worker, attempt.task
        del (worker.open if attempt.state is _OPEN else worker.abandoned)[attempt]
        attempt.state = _CLOSED
        attempt.ended_at = now
        task.live = tuple(other for other in task.live if other is not attempt) if len(task.live) > 1 else ()
        if self._ejection is not None:
            self._judge(self._ejection, attempt, now)
        before = worker.load
        worker.load = before - 1
        if worker.assignable:
            if before - 1 < worker.limit <= before:
                self._roomy += 1
            self._routing.load_changed(worker, before)
        self._fx.ended(attempt, now)
        if not task.live and task.state >= _COMPLETED:
            self._remember(task)

    # ---- workers

    def _reconsider(self, worker: Worker) -> None:
        """After something that may have made the worker assignable."""
        if not worker.assignable and worker.available:
            worker.assignable = True
            if worker.load < worker.limit:
                self._roomy += 1
            self._routing.joined(worker)

    def _make_unassignable(self, worker: Worker) -> None:
        if worker.assignable:
            worker.assignable = False
            if worker.load < worker.limit:
                self._roomy -= 1
            self._routing.left(worker)

    def _hold(self, worker: Worker, why: Hold) -> None:
        if worker.held != "failed_call":
            worker.held = why
        self._make_unassignable(worker)

    def _suspect(self, worker: Worker, now: float) -> None:
        worker.state = WorkerState.SUSPECT
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, "suspect", "", now)
        if self._on_suspect == "hedge":
            for attempt in worker.open:
                self._orphans[attempt] = None
                self._twins_wanted = True

    def _convict(self, worker: Worker, cause: str, now: float) -> None:
        worker.state = WorkerState.DEAD
        self._spared.pop(worker, None)
        if cause == "detector":
            self._convicted[worker] = None
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, "dead", cause, now)
        self._blame(worker)
        for attempt in list(worker.open):
            self._give_up(attempt, Outcome.WORKER_DIED, "its worker was declared dead", now)
            self._retry_or_fail(attempt, now)

    def _may_convict(self) -> bool:
        if self._max_ejected is None:
            return True
        # The product of a share and a whole number may come out just below one.
        return len(self._convicted) < max(1, math.floor(self._max_ejected * self._present + 1e-9))

    def _not_condemned(self, worker: Worker, now: float) -> None:
        """The worker is not, or not any more, one that the detector holds for dead: others may be convicted."""
        self._convicted.pop(worker, None)
        self._spared.pop(worker, None)
        if self._spared and self._may_convict():
            for other in self._spared:
                self._review_later(other, now)
            self._spared.clear()

    def _revive(self, worker: Worker, now: float) -> None:
        worker.state = _ALIVE
        self._fx.worker_changed(worker, "up", "revived", now)
        self._absolve(worker)
        self._not_condemned(worker, now)
        if self._twins_wanted:
            for attempt in worker.open:
                self._orphans.pop(attempt, None)

    def _blame(self, worker: Worker) -> None:
        """The worker died: each task that it was running may have been the cause."""
        if self._max_worker_kills < math.inf:
            for attempt in worker.open:
                killed = self._killed.get(attempt.task, ())
                if worker.id not in killed:
                    self._killed[attempt.task] = (*killed, worker.id)
                    worker.blamed.append(attempt.task)

    def _absolve(self, worker: Worker) -> None:
        """It did not die after all."""
        for task in worker.blamed:
            if task in self._killed:
                self._killed[task] = tuple(killed for killed in self._killed[task] if killed != worker.id)
        worker.blamed.clear()

    def _lose_everything(self, worker: Worker, reason: str, now: float) -> None:
        """The process that held these attempts is gone."""
        for attempt in list(worker.abandoned):
            self._close(attempt, now)
        for attempt in list(worker.open):
            self._give_up(attempt, Outcome.WORKER_DIED, reason, now)
            self._close(attempt, now)
            self._retry_or_fail(attempt, now)

    def _review(self, worker: Worker, now: float) -> None:
        if worker.state not in (_ALIVE, WorkerState.SUSPECT):
            return
        verdict = worker.detector.verdict(now)
        if now < self._judges_from and verdict is not Verdict.ALIVE:
            self._review_by(worker, self._judges_from)
            return
        if verdict is Verdict.DEAD and self._may_convict():
            self._convict(worker, "detector", now)
            return
        if verdict is not Verdict.ALIVE and worker.state is _ALIVE:
            self._suspect(worker, now)
        if verdict is Verdict.DEAD:
            self._spared[worker] = None
        else:
            self._review_later(worker, now)

    def _review_later(self, worker: Worker, now: float) -> None:
        # A beat may be so old that the verdict turned in the past.
        self._review_by(worker, max(now, worker.detector.review_at()))

    def _review_by(self, worker: Worker, at: float) -> None:
        if self._detection_check is not None:
            at = self._detection_check.at_or_after(at)
        if at != worker.review_at:
            worker.review_at = at
            self._reviews.add(at, worker)
            self._ring_by(at)

    # ---- the return of a worker that was given up

    def _compare_with_replacements(self, worker: Worker, now: float) -> None:
        """What the worker still holds since it was given up goes on, or what replaced it elsewhere does.

        The original is the older one; where nothing runs elsewhere yet it goes on, its place in the queue being void.
        """
        for attempt in list(worker.abandoned):
            if attempt.outcome is not Outcome.WORKER_DIED or attempt.task.state >= _COMPLETED:
                continue
            rivals = [other for other in attempt.task.live if other.state is _OPEN]
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
            if self._retry_at.pop(task, None) is None:
                self._void[task] = None
        task.state = _ASSIGNED if attempt.started_at is None else _RUNNING
        if not worker.reports_start or attempt.started_at is not None:
            self._time_out_later(attempt, now)
        if self._hedging is not None:
            self._ages.add(now, attempt)

    # ---- twins

    def _watch_age(self, hedging: HedgingPolicy, attempt: Attempt) -> None:
        """Of an attempt that begins now."""
        now, kind = attempt.assigned_at, self._kind_of(attempt.task.payload)
        if attempt.hedge:
            return
        hedging.began(kind, False)
        due_s = hedging.due_s(kind)
        if due_s == math.inf:
            return
        if kind not in self._known_kinds:  # for those that began before anybody could tell when they are slow
            self._known_kinds[kind] = None
            for worker in self._workers.values():
                for other in worker.open:
                    if self._kind_of(other.task.payload) == kind:
                        self._ages.add(max(now, other.assigned_at + due_s), other)
        else:
            self._ages.add(now + due_s, attempt)
        self._ring_by(max(now, self._ages.earliest()))

    def _find_slow(self, hedging: HedgingPolicy, now: float) -> None:
        """Attempts that have come to the age at which they deserve a twin."""
        while self._ages.earliest() <= now:
            _, attempt = self._ages.pop()
            if self._is_alone(attempt):
                at = attempt.assigned_at + hedging.due_s(self._kind_of(attempt.task.payload))
                if at > now:
                    self._ages.add(at, attempt)
                else:
                    self._slow[attempt] = None
                    self._twins_wanted = True

    def _is_alone(self, attempt: Attempt) -> bool:
        """Its task counts on no other attempt."""
        return attempt.state is _OPEN and all(
            other is attempt or other.state is not _OPEN for other in attempt.task.live
        )

    def _is_orphan(self, attempt: Attempt) -> bool:
        """Its task counts on nothing but suspects."""
        return all(other.state is not _OPEN or other.worker.state is not _ALIVE for other in attempt.task.live)

    def _needs_no_twin(self, attempt: Attempt, now: float, done: bool) -> None:
        """It ended, or was given up; `done`: with success that counts."""
        if self._twins_wanted:
            self._orphans.pop(attempt, None)
            self._slow.pop(attempt, None)
        if done and self._hedging is not None:
            self._hedging.finished(self._kind_of(attempt.task.payload), now - attempt.assigned_at)

    def _twin_again(self, task: Task, now: float) -> None:
        """One of a task's twins came to nothing: those that remain may want another."""
        for attempt in task.live:
            if attempt.state is _OPEN:
                if attempt.worker.state is WorkerState.SUSPECT and self._on_suspect == "hedge":
                    self._orphans[attempt] = None
                    self._twins_wanted = True
                if self._hedging is not None:
                    self._ages.add(now, attempt)
                    self._ring_by(now)

    def _start_twins(self, now: float) -> None:
        """In room that no task waits for: first beside the suspects' attempts, then beside slow ones."""
        served = []
        for attempt in self._orphans:
            if not self._roomy:
                break
            if not self._is_orphan(attempt) or self._is_poison(attempt.task) or self._start_twin(attempt, now):
                served.append(attempt)
        for attempt in served:
            del self._orphans[attempt]
        if self._hedging is not None:
            self._start_hedges(self._hedging, now)
        self._twins_wanted = bool(self._orphans or self._slow)

    def _start_hedges(self, hedging: HedgingPolicy, now: float) -> None:
        served = []
        for attempt in self._slow:
            if not self._roomy:
                break
            if self._is_alone(attempt) and not self._is_poison(attempt.task):
                if not hedging.may_begin():
                    break
                if not self._start_twin(attempt, now):
                    continue
                hedging.began(self._kind_of(attempt.task.payload), True)
            served.append(attempt)
        for attempt in served:
            del self._slow[attempt]

    def _start_twin(self, attempt: Attempt, now: float) -> bool:
        """On a worker that holds no attempt of that task, if there is one with room."""
        task = attempt.task
        holders = [other.worker for other in task.live if other.worker.assignable]
        for worker in holders:
            self._make_unassignable(worker)
        chosen = self._routing.choose(task) if self._roomy else None
        if chosen is not None:
            before = task.state
            self._make_pending(task)
            self._assign(task, chosen, now, Twin)
            task.state = before
        for worker in holders:
            self._reconsider(worker)
        return chosen is not None

    # ---- ejection

    def _judge(self, ejection: EjectionPolicy, attempt: Attempt, now: float) -> None:
        ejection.ended(attempt, now)
        if ejection.review_at() <= now:
            self._ring_by(now)

    def _eject_and_readmit(self, ejection: EjectionPolicy, now: float) -> None:
        while self._readmissions.earliest() <= now:
            at, worker = self._readmissions.pop()
            if worker.ejected_until == at:
                worker.ejected_until = -math.inf
                self._fx.worker_changed(worker, "readmitted", "", now)
                self._reconsider(worker)
        if ejection.review_at() <= now:
            for worker, why, for_s in ejection.review(self._workers.values(), now):
                if worker.state is not WorkerState.LEFT and worker.ejected_until == -math.inf:
                    worker.ejected_until = now + for_s
                    self._readmissions.add(now + for_s, worker)
                    self._make_unassignable(worker)
                    self._fx.worker_changed(worker, "ejected", why, now)

    # ---- the alarm

    def _note_sleep(self, now: float) -> None:
        """The alarm should have rung long ago: what is due may only seem so, by messages that are not heard yet."""
        beat_again_s = 1.5 * self._heartbeat_s
        if now < self._judges_from - beat_again_s:
            return  # it is listening already
        if self._listens_until == -math.inf:  # but once: it must act in the end, even if it never wakes in time
            self._listens_until = now + HEARING_S
        self._judges_from = now + HEARING_S + beat_again_s
        for worker in self._workers.values():
            if isinstance(worker.detector, SleepAware):
                worker.detector.slept(self._judges_from)

    def _rearm(self, now: float) -> None:
        timeouts = self._timeouts
        while timeouts and self._timing_out(*timeouts[0]) is None:
            timeouts.popleft()
        if self._hedging is not None:
            self._ages.drop(lambda attempt: not self._is_alone(attempt))
        earliest = self._next_deadline()
        if self._ejection is not None:
            earliest = min(earliest, self._ejection.review_at())
        if earliest < math.inf:
            self._ring_by(max(now, min(earliest, now + self._own_pause_s)))

    def _next_deadline(self) -> float:
        return min(
            self._timeouts[0][0] if self._timeouts else math.inf,
            self._reviews.earliest(),
            self._retries.earliest(),
            self._ages.earliest(),
            self._readmissions.earliest(),
        )

    def _ring_by(self, at: float) -> None:
        at = max(at, self._listens_until)
        if at < self._alarm:
            self._alarm = at
            self._fx.wake_at(at)

    # ---- the proof

    def check(self) -> None:
        """Raise AssertionError where an invariant does not hold. Scans everything: for tests and debugging."""
        states = Counter(task.state for task in self._tasks.values())
        forgotten = self.submitted - len(self._tasks)
        assert self.pending == states[_PENDING], f"{self.pending} pending, but {states}"
        assert self.completed + self.failed == states[_COMPLETED] + states[_FAILED] + forgotten, states
        for task in self._tasks.values():
            opened = [attempt for attempt in task.live if attempt.state is _OPEN]
            assert all(attempt.state is not _CLOSED for attempt in task.live), task
            assert bool(opened) == (task.state in (_ASSIGNED, _RUNNING)), f"{task} with {opened}"
            assert len({attempt.worker.id for attempt in opened}) == len(opened), f"{task}: twins on one worker"
            assert not task.settled or not opened, f"{task} is settled and counts on {opened}"
            assert task.state is not _PENDING or not self._is_poison(task), f"{task} waits and is poison"
            assert task.state is _PENDING or task not in self._retry_at, f"{task} waits for a retry"
            assert task in self._retry_at or task.state is not _PENDING or task not in self._void, f"{task}: no place"
            assert not task.settled or task not in self._killed, f"{task} is settled and blamed"
            for attempt in task.live:
                held = attempt.worker.open if attempt.state is _OPEN else attempt.worker.abandoned
                assert attempt in held, f"{attempt} is not with its worker"
        for worker in self._workers.values():
            self._check_worker(worker)
        assignable = [worker for worker in self._workers.values() if worker.assignable]
        assert self._roomy == sum(worker.load < worker.limit for worker in assignable), "count of workers with room"
        check_index = getattr(self._routing, "check", None)
        if check_index is not None:
            check_index(assignable)
        present = sum(worker.state is not WorkerState.LEFT for worker in self._workers.values())
        assert self._present == present, f"{self._present} present, not {present}"
        assert all(worker.state is WorkerState.DEAD for worker in self._convicted), self._convicted
        assert all(worker.state is WorkerState.SUSPECT for worker in self._spared), self._spared
        assert not self._spared or not self._may_convict(), f"{self._spared} are spared for nothing"
        assert self._twins_wanted or not (self._orphans or self._slow), "twins are wanted, and nobody knows"
        assert all(attempt.state is _OPEN for attempt in (*self._orphans, *self._slow)), "twins of what is over"
        due = max(self._listens_until, self._next_deadline())
        assert self._alarm <= due, f"the alarm at {self._alarm} misses {due}"

    def _check_worker(self, worker: Worker) -> None:
        assert worker.load == len(worker.open) + len(worker.abandoned), f"{worker}: load"
        for attempt in (*worker.open, *worker.abandoned):
            assert attempt in attempt.task.live, f"{attempt} is not with its task"
            assert attempt.worker is worker, f"{attempt} is counted at {worker}"
        assert worker.assignable == worker.available, f"{worker} assignable={worker.assignable} held={worker.held!r}"
        assert worker.state in (WorkerState.DEAD, WorkerState.LEFT) or not worker.blamed, f"{worker} killed nothing"
        blamed = [task for task in worker.blamed if not task.settled]
        assert all(worker.id in self._killed[task] for task in blamed), f"{worker} died unseen"
        if worker.state is WorkerState.DEAD or worker.state is WorkerState.LEFT:
            assert not worker.open, f"{worker} is counted on"
        elif worker not in self._spared:
            assert worker.review_at < math.inf or worker.detector.review_at() == math.inf, f"{worker}: no review"
