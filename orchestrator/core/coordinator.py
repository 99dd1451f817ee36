"""The coordinator: every task and worker transition there is.

Inputs are methods whose last parameter is `now` (seconds, monotonic); outputs are calls to `Effects`. Inputs may
come late, twice, out of order, for tasks and workers that are unknown, dead or gone: each is answered by these rules.

- One place per decision: a task's state, its attempt and its worker's load change together, before any effect.
- Any attempt's result settles a task that is not settled; a result for a settled task is late: counted, dropped.
  When a task settles, its other attempts are cancelled.
- An attempt that is given up (timeout, death, failed call) still occupies its worker: it is abandoned until a
  report, a cancel's acknowledgement or a re-registration closes it, or a heartbeat's `active` shows that it is gone.
- A death, a timeout and a retryable failure consume one of a task's tries; a rejection and a failed call do not.
- A worker is assignable while it is ALIVE, not draining and not held back. A rejection holds it until its next
  heartbeat or result, a failed call until its next heartbeat.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator
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
    Worker,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import (
    DetectorFactory,
    Effects,
    QueueDiscipline,
    RetryPolicy,
    RoutingPolicy,
    Verdict,
)

# Read on every task: a module's global is found faster than an enum's attribute.
_PENDING, _ASSIGNED, _RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING
_COMPLETED, _FAILED = TaskState.COMPLETED, TaskState.FAILED
_OPEN, _ABANDONED, _CLOSED = AttemptState.OPEN, AttemptState.ABANDONED, AttemptState.CLOSED
_ALIVE, _SUCCESS = WorkerState.ALIVE, Outcome.COMPLETED


class Coordinator:
    """Owns all tasks and workers.

    `execution_timeout_s`: None for no limit. `execution_check`, `detection_check`: None to act at the exact moment.
    `keep_settled`: how many settled tasks are remembered, to answer questions and to know a late report for one.
    """

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
        self._keep_settled = keep_settled

        self._tasks: dict[TaskId, Task] = {}
        self._workers: dict[WorkerId, Worker] = {}
        self._remembered: deque[TaskId] = deque()  # settled, nothing live, oldest first
        self._roomy = 0  # assignable workers with load < limit

        # A constant timeout makes deadlines fall due in the order in which they are set. The id, not the attempt:
        # nearly all attempts end long before, and their memory should be free by then.
        self._timeouts: deque[tuple[float, TaskId]] = deque()
        self._reviews: AnyOrder[Worker] = AnyOrder()
        self._retries: AnyOrder[Task] = AnyOrder()
        self._alarm = math.inf

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
            self._lose_everything(worker, "its worker registered again", now)
        worker.capacity = capacity
        worker.limit = capacity + prefetch
        # Without prefetch an assignment starts at once, so a report of the start would tell nothing.
        worker.reports_start = reports_start and prefetch > 0
        worker.state = _ALIVE
        worker.held = ""
        worker.draining = False
        worker.detector = self._new_detector(now)
        self._fx.worker_changed(worker, "up", detail, now)
        self._review_later(worker)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm()

    def heartbeat(self, worker_id: WorkerId, active: int, now: float) -> None:
        """A sign of life. `active`: how many attempts the worker holds, by its own count."""
        worker = self._workers.get(worker_id)
        if worker is None or worker.state is WorkerState.LEFT:
            self._fx.heartbeat_answered(worker_id, False)
            return
        worker.detector.heard(now)
        if worker.state is _ALIVE and not worker.held and not worker.abandoned:
            if worker.detector.review_at() < worker.review_at:
                self._review_later(worker)
            self._fx.heartbeat_answered(worker_id, True)
            return
        while worker.abandoned and len(worker.abandoned) > active:
            self._close(next(iter(worker.abandoned)), now)
        worker.held = ""
        if worker.state is not _ALIVE:
            worker.state = _ALIVE
            self._fx.worker_changed(worker, "up", "revived", now)
        self._review_later(worker)
        self._fx.heartbeat_answered(worker_id, True)
        self._reconsider(worker)
        self._dispatch(now)
        self._rearm()

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
        if self.pending:
            self._dispatch(now)
        if consumed:
            self._rearm()

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
            self._requeue_if_orphaned(attempt.task)
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
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, "left", "", now)
        self._lose_everything(worker, "its worker left", now)
        self._dispatch(now)
        self._rearm()

    # ---- inputs from the transport

    def call_failed(self, worker_id: WorkerId, task_id: TaskId, number: int, now: float) -> None:
        """An assignment could not be delivered, or nobody knows whether it was."""
        attempt = self._find(worker_id, task_id, number)
        if attempt is None:
            return
        if attempt.state is _OPEN:
            self._give_up(attempt, Outcome.CALL_FAILED, "the call to its worker failed", now)
            self._requeue_if_orphaned(attempt.task)
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
        self._rearm()

    def wake(self, now: float) -> None:
        """The alarm: whatever is due by now."""
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
            _, task = self._retries.pop()
            if task.state is _PENDING:
                self._queue.push(task)
        self._dispatch(now)
        self._alarm = math.inf
        self._rearm()

    # ---- tasks

    def _assign(self, task: Task, worker: Worker, now: float) -> None:
        before = worker.load
        if before >= worker.limit:
            raise ValueError(f"the routing policy chose {worker}, which has no room")
        number = task.attempt + 1
        attempt = Attempt(task, worker, number, now)
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
        self._fx.assign(attempt, now)

    def _dispatch(self, now: float) -> None:
        """Assign waiting tasks while a worker has room."""
        queue = self._queue
        while self._roomy and len(queue):
            task = queue.pop()
            if task.state is not _PENDING:
                continue  # settled by a late result while it waited
            worker = self._routing.choose(task)
            if worker is None:
                queue.push(task)
                break
            self._assign(task, worker, now)

    def _settle(
        self, task: Task, state: TaskState, worker_id: WorkerId, value: object, error: str, now: float
    ) -> None:
        """The one place where a task gets its outcome; the effects follow when its attempt is closed too."""
        if task.state is _PENDING:
            self.pending -= 1
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
        task.tries += 1
        if task.state >= _COMPLETED or self._has_open(task):
            return
        delay_s = self._retry.delay_s(task.tries)
        if delay_s is None:
            reason = f"gave up after {task.tries} attempts: {attempt.reason}"
            self._settle(task, _FAILED, attempt.worker.id, None, reason, now)
            self._announce(task, now)
        elif delay_s > 0:
            self._make_pending(task)
            self._retries.add(now + delay_s, task)
            self._ring_by(now + delay_s)
        else:
            self._make_pending(task)
            self._queue.push(task)

    def _requeue_if_orphaned(self, task: Task) -> None:
        if task.state < _COMPLETED and not self._has_open(task):
            self._make_pending(task)
            self._queue.push(task)

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

    def _close(self, attempt: Attempt, now: float) -> None:
        """The attempt's last word: it leaves its task and its worker."""
        worker, task = attempt.worker, attempt.task
        del (worker.open if attempt.state is _OPEN else worker.abandoned)[attempt]
        attempt.state = _CLOSED
        attempt.ended_at = now
        task.live = tuple(other for other in task.live if other is not attempt) if len(task.live) > 1 else ()
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
        if not worker.assignable and worker.state is _ALIVE and not worker.held and not worker.draining:
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

    def _convict(self, worker: Worker, cause: str, now: float) -> None:
        worker.state = WorkerState.DEAD
        self._make_unassignable(worker)
        self._fx.worker_changed(worker, "dead", cause, now)
        for attempt in list(worker.open):
            self._give_up(attempt, Outcome.WORKER_DIED, "its worker was declared dead", now)
            self._retry_or_fail(attempt, now)

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
        if verdict is Verdict.DEAD:
            self._convict(worker, "detector", now)
            return
        if verdict is Verdict.SUSPECT and worker.state is _ALIVE:
            worker.state = WorkerState.SUSPECT
            self._make_unassignable(worker)
            self._fx.worker_changed(worker, "suspect", "", now)
        self._review_later(worker)

    def _review_later(self, worker: Worker) -> None:
        at = worker.detector.review_at()
        if self._detection_check is not None:
            at = self._detection_check.at_or_after(at)
        if at != worker.review_at:
            worker.review_at = at
            self._reviews.add(at, worker)
            self._ring_by(at)

    # ---- the alarm

    def _rearm(self) -> None:
        timeouts = self._timeouts
        while timeouts and self._timing_out(*timeouts[0]) is None:
            timeouts.popleft()
        self._ring_by(
            min(timeouts[0][0] if timeouts else math.inf, self._reviews.earliest(), self._retries.earliest())
        )

    def _ring_by(self, at: float) -> None:
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
        waiting = (
            self._timeouts[0][0] if self._timeouts else math.inf,
            self._reviews.earliest(),
            self._retries.earliest(),
        )
        assert self._alarm <= min(waiting), f"the alarm at {self._alarm} misses {min(waiting)}"

    def _check_worker(self, worker: Worker) -> None:
        assert worker.load == len(worker.open) + len(worker.abandoned), f"{worker}: load"
        for attempt in (*worker.open, *worker.abandoned):
            assert attempt in attempt.task.live, f"{attempt} is not with its task"
            assert attempt.worker is worker, f"{attempt} is counted at {worker}"
        may = worker.state is _ALIVE and not worker.held and not worker.draining
        assert worker.assignable == may, f"{worker} assignable={worker.assignable} held={worker.held!r}"
        if worker.state in (_ALIVE, WorkerState.SUSPECT):
            assert worker.review_at < math.inf or worker.detector.review_at() == math.inf, f"{worker}: no review"
