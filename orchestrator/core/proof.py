"""The invariants of a coordinator: counts, loads, indexes, and where every task waits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from orchestrator.core.invariants import InvariantError
from orchestrator.core.model import AttemptState, Task, TaskState, Worker, WorkerState
from orchestrator.core.transitions import Transitions

_OPEN, _CLOSED = AttemptState.OPEN, AttemptState.CLOSED


def violations(core: Transitions) -> Iterator[str]:
    """A sentence for each invariant that does not hold."""
    tasks, workers = core._tasks.values(), core._workers.values()
    yield from _violated_counts(core)
    for task in tasks:
        yield from _violated_by_task(core, task)
    for worker in workers:
        yield from _violated_by_worker(core, worker)
    yield from core._backlog.violations(tasks)
    yield from core._expiries.violations(tasks)
    yield from core._blame.violations(workers)
    yield from core._dead_share.violations(workers)
    yield from core._hedges.violations()
    yield from core._settled.violations()


def _violated_counts(core: Transitions) -> Iterator[str]:
    states = Counter(task.state for task in core._tasks.values())
    settled = states[TaskState.COMPLETED] + states[TaskState.FAILED]
    forgotten = core.submitted - len(core._tasks)
    if core.pending != states[TaskState.PENDING]:
        yield f"{states[TaskState.PENDING]} tasks are pending, not {core.pending}"
    if core.completed + core.failed != settled + forgotten:
        yield f"{settled} tasks are settled and {forgotten} forgotten, not {core.completed + core.failed} in all"
    assignable = [worker for worker in core._workers.values() if worker.assignable]
    roomy = sum(worker.load < worker.limit for worker in assignable)
    if core._roomy != roomy:
        yield f"{roomy} workers have room, not {core._roomy}"
    check_index = getattr(core._routing, "check", None)
    if check_index is not None:
        try:
            check_index(assignable)
        except (AssertionError, InvariantError) as error:
            yield f"the routing policy's index is wrong: {error}"
    slots = [worker.slot for worker in core._workers.values()] + core._free_slots
    if sorted(slots) != list(range(len(slots))):
        yield "two workers share a slot, or one is lost"
    due = max(core._listens_until, core._next_deadline())
    if core._alarm > due:
        yield f"the alarm at {core._alarm} misses {due}"


def _violated_by_task(core: Transitions, task: Task) -> Iterator[str]:
    opened = [attempt for attempt in task.live if attempt.state is _OPEN]
    if any(attempt.state is _CLOSED for attempt in task.live):
        yield f"{task} has a closed attempt"
    if bool(opened) != (task.state in (TaskState.ASSIGNED, TaskState.RUNNING)):
        yield f"{task} counts on {opened}"
    if len({attempt.worker.id for attempt in opened}) != len(opened):
        yield f"{task} has two attempts on one worker"
    if task in core._backlog.crowded and not core._is_crowded(task):
        yield f"{task} waits for one of its {len(task.live)} attempts although it may have one more"
    if task.state is TaskState.PENDING and core._blame.is_poison(task):
        yield f"{task} waits and is poison"
    for attempt in task.live:
        if attempt not in (attempt.worker.open if attempt.state is _OPEN else attempt.worker.abandoned):
            yield f"{attempt} is not with its worker"


def _violated_by_worker(core: Transitions, worker: Worker) -> Iterator[str]:
    gone = worker.state in (WorkerState.DEAD, WorkerState.LEFT)
    if worker.load != len(worker.open) + len(worker.abandoned):
        yield f"{worker} holds {len(worker.open)} open and {len(worker.abandoned)} abandoned attempts"
    for attempt in (*worker.open, *worker.abandoned):
        if attempt not in attempt.task.live:
            yield f"{attempt} is not with its task"
        if attempt.worker is not worker:
            yield f"{attempt} is counted at {worker}"
    if worker.assignable != worker.available:
        yield f"{worker} is assignable: {worker.assignable}, available: {worker.available}"
    if worker.blamed and not gone:
        yield f"{worker} is blamed on tasks and not gone"
    if gone != (worker.gone_at < math.inf):
        yield f"{worker} is gone since {worker.gone_at}"
    if gone and worker.open:
        yield f"{worker} is counted on"
    judged = not gone and not core._dead_share.spares(worker)
    if judged and worker.review_at == math.inf != worker.detector.review_at():
        yield f"{worker} is never reviewed"
