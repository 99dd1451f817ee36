"""What those who look are told: read from the core between its inputs, in slices, so that no look holds anybody up.

A look changes nothing, and costs the tasks that run nothing: whatever is counted, is counted when somebody asks. What
takes longer to count is counted less often, whoever asks.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import TypeVar

from orchestrator.cluster.app import DEFAULT
from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.placeable import Placeable
from orchestrator.cluster.views import (
    AttemptView,
    FailureView,
    HeldView,
    LaneView,
    QueueView,
    Snapshot,
    TaskClass,
    TaskDetail,
    Tasks,
    TaskView,
    Workers,
    WorkerView,
)
from orchestrator.core.backlog import Waits
from orchestrator.core.model import Attempt, AttemptState, Task, TaskState, Worker, WorkerState

Item = TypeVar("Item")

SLICE = 1000
MOST_ITEMS = 1000
"""Of workers and of tasks in an answer."""
WATCHED_WORKERS = 200
WATCHED_EVENTS = 20
MOST_CLASSES = 1000
"""Which are counted apart; submitters may make up kinds."""
SHOWN_CLASSES = 50
SHOWN_KINDS = 20
SHOWN_FAILURES = 20
ERROR_CHARACTERS = 200
FRESH_S = 0.2
"""An answer so young is given again."""
REST = 20
"""What took so long to count is not counted again in so many times that time."""
_PENDING, _ASSIGNED, _RUNNING = TaskState.PENDING, TaskState.ASSIGNED, TaskState.RUNNING
_OPEN = AttemptState.OPEN

Class = tuple[int, str, str]
"""Priority, kind, required labels."""


class Looking:
    """`live`: the coordinator that is looked at."""

    def __init__(self, live: LiveCoordinator) -> None:
        self._live = live
        self._core = live.core
        self._now = live.now
        self._began = live.now()
        self._scanning = asyncio.Lock()
        self._counting = asyncio.Lock()
        self._queue: QueueView | None = None
        self._counted_at = self._count_again_at = -math.inf
        self._snapping = asyncio.Lock()
        self._snapshot: Snapshot | None = None
        self._snapped_at = -math.inf

    # ---- workers

    async def workers(self, name: str, limit: int) -> Workers:
        """The one of that name, or those that have not left, by their names."""
        if name:
            worker = self._core.worker(name)
            found = [] if worker is None else [worker]
        else:
            found = [worker for worker in self._core.workers() if worker.state is not WorkerState.LEFT]
        return Workers(await self._workers(found[: min(limit, MOST_ITEMS)]), len(found))

    async def _workers(self, workers: Iterable[Worker]) -> tuple[WorkerView, ...]:
        """By their names."""
        return tuple([self._worker(worker) async for worker in _by_load(sorted(workers, key=_natural))])

    def _worker(self, worker: Worker) -> WorkerView:
        now = self._now()
        running = _running(worker)
        heard_at = self._live.lately.heard.get(worker.id)
        present = worker.state <= WorkerState.SUSPECT
        return WorkerView(
            worker.id,
            worker.state,
            worker.draining,
            _hindrance(worker),
            worker.capacity,
            worker.load,
            running,
            len(worker.open) - running,
            len(worker.abandoned),
            None if heard_at is None else now - heard_at,
            _suspicion(worker, heard_at, now) if present else None,
            worker.incarnation != "",
            worker.incarnation,
            worker.kinds[:SHOWN_KINDS],
            worker.labels,
        )

    # ---- tasks

    async def tasks(self, states: Collection[TaskState], limit: int) -> Tasks:
        """Those in these states, in none: all that are not settled. Settled ones newest first, the others oldest."""
        wanted = states or (_PENDING, _ASSIGNED, _RUNNING)
        async with self._scanning:
            return await self._matching(wanted, limit)

    async def _matching(self, wanted: Collection[TaskState], limit: int) -> Tasks:
        newest_first = all(state >= TaskState.COMPLETED for state in wanted)
        found: list[Task] = []
        total = 0
        limit = min(limit, MOST_ITEMS)
        async for part in _slices(self._core.tasks(), newest_first):
            matches = [task for task in part if state_of(task) in wanted]
            total += len(matches)
            found += matches[: limit - len(found)]
        placeable = await Placeable.of(self._core.workers())
        return Tasks(tuple([self._task(task, placeable) async for task in _in_slices(found, 100)]), total)

    async def task(self, name: str) -> TaskDetail:
        """By its id or its key. Raises Refused for an unknown one."""
        placeable = await Placeable.of(self._core.workers())
        task, now = self._live.find(name), self._now()
        attempts = tuple(_attempt(attempt, now) for attempt in task.live)
        failures = tuple(
            FailureView(failure.attempt, failure.worker_id, failure.outcome.name, failure.reason, now - failure.at)
            for failure in (task.failures or ())[-SHOWN_FAILURES:]
        )
        return TaskDetail(self._task(task, placeable), attempts, failures)

    def _task(self, task: Task, placeable: Placeable) -> TaskView:
        now = self._now()
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        state = state_of(task)
        has = next((attempt for attempt in reversed(task.live) if attempt.state is _OPEN), None)
        if task.settled_at is not None:
            worker, since = task.worker_id or "", task.settled_at
        elif has is not None:
            worker, since = has.worker.id, _since(has)
        else:
            worker, since = "", max(task.submitted_at, task.failures[-1].at if task.failures else -math.inf)
        return TaskView(
            str(task.id),
            state,
            job.kind or DEFAULT,
            task.priority,
            job.key,
            task.attempt,
            worker,
            now - since,
            now - task.submitted_at,
            self._reason(task, placeable) if state is _PENDING else "",
            task.error[:ERROR_CHARACTERS],
        )

    def _reason(self, task: Task, placeable: Placeable) -> str:
        """Why a pending task is with no worker."""
        waits, retry_at = self._core.waits_for(task)
        if retry_at is not None:
            return f"its next try, in {max(0.0, retry_at - self._now()):.1f} s"
        if waits is Waits.ATTEMPT:
            return "one of its attempts to end, which still occupy workers"
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        return placeable.reason(job.kind, job.requires, waits is Waits.LANE)

    # ---- what waits

    async def queue(self) -> QueueView:
        """By class, as it was when it was counted last, which is soon again."""
        async with self._counting:
            now = self._now()
            if self._queue is None or now >= self._count_again_at:
                self._queue = await self._count()
                self._counted_at = self._now()
                self._count_again_at = self._counted_at + max(FRESH_S, REST * (self._counted_at - now))
        return self._queue._replace(
            tasks=self._core.pending, retries=self._core.retries, counted_s=self._now() - self._counted_at
        )

    async def _count(self) -> QueueView:
        core = self._core
        counts: dict[Class, int] = {}
        oldest: dict[Class, Task] = {}
        others = 0
        left = core.submitted - core.completed - core.failed  # behind these all are settled
        async for part in _slices(core.tasks(), newest_first=True):
            if left <= 0:
                break
            for task in part:
                if task.state >= TaskState.COMPLETED:
                    continue
                left -= 1
                if task.state is not _PENDING:
                    continue
                payload: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
                named = task.priority, payload.kind, payload.requires
                if named in counts:
                    counts[named] += 1
                elif len(counts) < MOST_CLASSES:
                    counts[named] = 1
                else:
                    others += 1
                    continue
                known = oldest.get(named)
                if known is None or task.submitted_at < known.submitted_at:
                    oldest[named] = task
        placeable = await Placeable.of(core.workers())
        lanes = await self._lanes(counts, oldest, placeable)
        classes = self._classes(counts, oldest)
        held = await self._held()
        held_tasks = sum(each.tasks for each in held)
        most = heapq.nlargest(SHOWN_CLASSES, held, key=lambda each: each.tasks)
        shown = tuple(classes[:SHOWN_CLASSES])
        unshown = others + sum(each.tasks for each in classes[SHOWN_CLASSES:])
        return QueueView(
            core.pending, shown, unshown, lanes[:SHOWN_CLASSES], core.retries, tuple(most), held_tasks, 0.0
        )

    def _classes(self, counts: dict[Class, int], oldest: dict[Class, Task]) -> list[TaskClass]:
        """Of whatever labels; the most urgent first, and the most tasks."""
        now = self._now()
        merged: dict[tuple[int, str], TaskClass] = {}
        for named, tasks in counts.items():
            priority, kind = named[0], named[1] or DEFAULT
            before = merged.get((priority, kind), TaskClass(priority, kind, 0, 0.0))
            age_s = max(before.oldest_s, now - oldest[named].submitted_at)
            merged[priority, kind] = TaskClass(priority, kind, before.tasks + tasks, age_s)
        return sorted(merged.values(), key=lambda each: (-each.priority, -each.tasks, each.kind))

    async def _lanes(
        self, counts: dict[Class, int], oldest: dict[Class, Task], placeable: Placeable
    ) -> tuple[LaneView, ...]:
        """Of tasks that no worker present can take, or none that gets tasks, or that the routing policy refuses."""
        now = self._now()
        lanes: dict[tuple[str, str], LaneView] = {}
        async for (_, kind, requires), task in _in_slices(list(oldest.items()), 20):
            if task.state is not _PENDING:
                continue
            waits, _ = self._core.waits_for(task)
            reason = placeable.obstacle(kind, requires, waits is Waits.LANE)
            if reason:
                shown = kind or DEFAULT
                before = lanes.get((shown, requires), LaneView(shown, requires, 0, 0.0, reason))
                tasks = before.tasks + counts[task.priority, kind, requires]
                lanes[shown, requires] = before._replace(
                    tasks=tasks, oldest_s=max(before.oldest_s, now - task.submitted_at)
                )
        return tuple(sorted(lanes.values(), key=lambda each: -each.tasks))

    async def _held(self) -> list[HeldView]:
        """What workers hold and have not begun."""
        found = []
        async for worker in _by_load(list(self._core.workers())):
            waiting = [each for each in worker.open if each.started_at is None] if worker.reports_start else []
            if waiting:
                found.append(HeldView(worker.id, len(waiting), self._now() - waiting[0].assigned_at))
        return found

    # ---- all at once

    async def snapshot(self) -> Snapshot:
        async with self._snapping:
            if self._snapshot is None or self._now() - self._snapped_at >= FRESH_S:
                self._snapshot = await self._look()
                self._snapped_at = self._now()
            return self._snapshot

    async def _look(self) -> Snapshot:
        live, core = self._live, self._core
        queue = await self.queue()
        workers = [worker for worker in core.workers() if worker.state is not WorkerState.LEFT]
        of: Counter[WorkerState] = Counter()
        slots = running = draining = 0
        async for worker in _by_load(workers):
            of[worker.state] += 1
            draining += worker.draining
            if worker.state <= WorkerState.SUSPECT:
                slots += worker.capacity
                running += _running(worker)
        shown = workers
        if len(workers) > WATCHED_WORKERS:
            shown = heapq.nsmallest(WATCHED_WORKERS, workers, key=lambda worker: worker.available)
        views = await self._workers(shown)
        metrics, now = live.window.summary(core, self._now()), self._now()
        return Snapshot(
            core.term,
            now - self._began,
            metrics,
            of[WorkerState.ALIVE],
            of[WorkerState.SUSPECT],
            of[WorkerState.DEAD],
            draining,
            slots,
            running,
            views,
            len(workers) - len(views),
            queue,
            live.lately.deaths,
            tuple(live.lately.events(WATCHED_EVENTS, now)),
        )


async def _slices(items: Sequence[Item], newest_first: bool = False) -> AsyncIterator[Sequence[Item]]:
    """Between two of them it is the turn of the others."""
    begins = range(0, len(items), SLICE)
    for begin in reversed(begins) if newest_first else begins:
        part = items[begin : begin + SLICE]
        yield part[::-1] if newest_first else part
        await asyncio.sleep(0)


async def _in_slices(items: Iterable[Item], size: int) -> AsyncIterator[Item]:
    """One after the other, and the turn of the others after so many."""
    for number, item in enumerate(items, 1):
        yield item
        if number % size == 0:
            await asyncio.sleep(0)


async def _by_load(workers: Iterable[Worker]) -> AsyncIterator[Worker]:
    """The same of workers, each of which costs as much as the attempts that it has."""
    cost = 0
    for worker in workers:
        yield worker
        cost += 10 + len(worker.open)
        if cost >= SLICE:
            cost = 0
            await asyncio.sleep(0)


def _running(worker: Worker) -> int:
    """How many attempts it executes; where it reports no start, an assignment counts as one."""
    if not worker.reports_start:
        return len(worker.open)
    return sum(attempt.started_at is not None for attempt in worker.open)


def state_of(task: Task) -> TaskState:
    """RUNNING also where an assignment counts as the start, because the worker reports none."""
    if task.state is _ASSIGNED and any(attempt.state is _OPEN and attempt.has_begun for attempt in task.live):
        return _RUNNING
    return task.state


def _since(attempt: Attempt) -> float:
    return attempt.assigned_at if attempt.started_at is None else attempt.started_at


def _attempt(attempt: Attempt, now: float) -> AttemptView:
    if attempt.given_up_at is not None:
        state, since = "given up", attempt.given_up_at
    else:
        state, since = "running" if attempt.has_begun else "waiting", _since(attempt)
    return AttemptView(attempt.number, attempt.worker.id, state, now - since, attempt.hedge, attempt.reason)


def _hindrance(worker: Worker) -> str:
    """Why one that is alive and does not drain gets nothing new: what a draining one hands back says nothing more."""
    if worker.awaited:
        return "has not registered with this coordinator yet"
    if worker.state is not WorkerState.ALIVE or worker.draining:
        return ""
    if worker.quarantined:
        return f"quarantined: {worker.quarantined.replace('_', ' ')}"
    return "ejected" if worker.ejected_until != -math.inf else ""


def _suspicion(worker: Worker, heard_at: float | None, now: float) -> float | None:
    try:
        tolerated_s = worker.detector.review_at() - (now if heard_at is None else heard_at)
    except Exception:  # of the user's own detector: the next input tells it
        return None
    if heard_at is None or not 0 < tolerated_s < math.inf:
        return None
    return max(0.0, now - heard_at) / tolerated_s


def _natural(worker: Worker) -> list[tuple[int, str]]:
    """So that w10 comes behind w9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,15})", worker.id)]
