"""What a coordinator does, counted since it began, by kinds of tasks: only where somebody watches it.

A count costs a task some list items and no look at any other task. What can be read off the core's own counters and
workers is not counted here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from orchestrator.cluster.jobs import Job
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import (
    Attempt,
    Detail,
    Outcome,
    Priority,
    Task,
    TaskState,
    Worker,
    WorkerEvent,
    WorkerId,
)
from orchestrator.core.ports import Effects

KINDS_MAX = 50
"""Kinds that are counted by name. Who submits names them: those that come later are counted together, as OTHER."""
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the buckets of a time."""
_COMPLETED = TaskState.COMPLETED


class Histogram:
    """How many values were at most each of the bounds, in ascending order, and more than the one before."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def copy(self) -> Histogram:
        other = Histogram(self.bounds)
        other.counts, other.sum = self.counts.copy(), self.sum
        return other


class KindTally:
    """Of the tasks of a kind. `in_hand`: those that are not settled, by priority. `latency`: from submission to settled
    in s, of those that failed and of those that completed. `execution`: of these, in s by the worker's clock."""

    __slots__ = ("attempts", "execution", "in_hand", "latency", "retries", "submitted")

    def __init__(self) -> None:
        self.submitted = self.attempts = self.retries = 0
        self.in_hand = [0] * len(Priority)
        self.latency = (Histogram(), Histogram())
        self.execution = Histogram()


class Tally:
    """Implements `Effects`, once it is `counting` what it passes on. `begin` comes before anybody is heard.

    `mistakes`: workers that had been declared dead, and whose process then was heard again; like `deaths`, by what the
    verdict was based on (a `Detail`).
    """

    def __init__(self) -> None:
        self.kinds: dict[str, KindTally] = {}
        self.hedges = 0
        self.ends: Counter[Outcome] = Counter()
        self.suspicions = self.ejections = 0
        self.deaths: Counter[str] = Counter()
        self.mistakes: Counter[str] = Counter()
        self._others = KindTally()
        self._dead: dict[WorkerId, str] = {}  # of those that may return, how that came about

    def counting(self, onward: Effects) -> Effects:
        self._onward = onward
        self.refused = onward.refused
        self.registered = onward.registered
        self.cancel = onward.cancel
        self.recall = onward.recall
        self.timed_out = onward.timed_out
        self.acknowledged = onward.acknowledged
        self.heartbeat_answered = onward.heartbeat_answered
        self.wake_at = onward.wake_at
        return self

    def begin(self, core: Coordinator) -> None:
        """What an earlier coordinator had taken is in hand, and was counted by that one."""
        for task in core.unsettled():
            self.of(task).in_hand[task.priority] += 1

    def of(self, task: Task) -> KindTally:
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        return self.kinds.get(job.kind) or self._new(job.kind)

    def label(self, task: Task) -> str:
        """By which its kind is counted."""
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        return job.kind if self.of(task) is not self._others else OTHER

    def _new(self, kind: str) -> KindTally:
        if len(self.kinds) >= KINDS_MAX or kind == OTHER:
            self.kinds[OTHER] = self._others
            return self._others
        tally = self.kinds[kind] = KindTally()
        return tally

    # ---- effects of the core

    def accepted(self, task: Task, now: float) -> None:
        kind = self.of(task)
        kind.submitted += 1
        kind.in_hand[task.priority] += 1
        self._onward.accepted(task, now)

    def assign(self, attempt: Attempt, now: float) -> None:
        kind = self.of(attempt.task)
        kind.attempts += 1
        if attempt.number > 1:
            if attempt.hedge:
                self.hedges += 1
            else:
                kind.retries += 1
        self._onward.assign(attempt, now)

    def ended(self, attempt: Attempt, now: float) -> None:
        self.ends[attempt.outcome] += 1
        task = attempt.task
        if attempt.settles and attempt.ran_s is not None and task.state is _COMPLETED:
            self.of(task).execution.add(attempt.ran_s)
        self._onward.ended(attempt, now)

    def settled(self, task: Task, now: float) -> None:
        kind = self.of(task)
        kind.latency[task.state is _COMPLETED].add(now - task.submitted_at)
        kind.in_hand[task.priority] -= 1
        self._onward.settled(task, now)

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        if event is WorkerEvent.DEAD:
            self.deaths[detail] += 1
            self._dead[worker.id] = detail
        elif event is WorkerEvent.UP:
            cause = self._dead.pop(worker.id, None)
            if cause is not None and detail in (Detail.REVIVED, Detail.RECONNECTED):
                self.mistakes[cause] += 1
        elif event is WorkerEvent.SUSPECT:
            self.suspicions += 1
        elif event is WorkerEvent.EJECTED:
            self.ejections += 1
        elif event in (WorkerEvent.LEFT, WorkerEvent.FORGOTTEN):
            self._dead.pop(worker.id, None)
        self._onward.worker_changed(worker, event, detail, now)
