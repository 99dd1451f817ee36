"""What the coordinator tells of itself: rates of the last seconds, percentiles of the last tasks, and queues.

The words are those of a run's summary: throughput is completions, and a failed task is slower than every one that
completed, at whatever age it failed. What is not settled is in no percentile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from orchestrator.cluster.figures import Commits, Metrics, Percentiles
from orchestrator.cluster.tally import Histogram
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import WorkerState

WINDOW_S = 5.0
REMEMBERED = 10_000
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
"""Upper bounds of the buckets of a group's tasks."""
LONGEST_S = 1e9
"""What a worker claims beyond that, is that: a number that can be printed, whatever it was."""


class Window:
    """The last settled tasks. Rates are counted by tenths of a second.

    `executed(ran_s)` adds the execution of a task that completed, in seconds by its worker's clock.
    """

    def __init__(self, now: float) -> None:
        self._began = now
        self._settled: deque[tuple[bool, float]] = deque(maxlen=REMEMBERED)  # completed, submitted to settled in s
        self._ran_s: deque[float] = deque(maxlen=REMEMBERED)
        self.executed = self._ran_s.append
        self._counts: deque[list[int]] = deque()  # [tenth, failed, completed], oldest first
        self.groups: Groups | None = None  # where changes are stored

    def settled(self, completed: bool, latency_s: float, now: float) -> None:
        self._settled.append((completed, latency_s))
        tenth = int(now * 10)
        if self._counts and self._counts[-1][0] == tenth:
            self._counts[-1][1 + completed] += 1
        else:
            self._counts.append([tenth, not completed, completed])
            self._forget(now)

    def summary(self, core: Coordinator, now: float) -> Metrics:
        self._forget(now)
        span_s = max(0.1, min(WINDOW_S, now - self._began))
        latency_ms, at_least_ms = self._latency_ms()
        workers = list(core.workers())
        return Metrics(
            throughput_per_s=sum(completed for _, _, completed in self._counts) / span_s,
            failed_per_s=sum(failed for _, failed, _ in self._counts) / span_s,
            latency_ms=latency_ms,
            latency_at_least_ms=at_least_ms,
            execution_ms=_percentiles_ms([ran_s if 0 <= ran_s <= LONGEST_S else LONGEST_S for ran_s in self._ran_s]),
            queue_depth=core.pending,
            # Where no start is reported, an assignment counts as one.
            queue_at_workers=sum(
                attempt.started_at is None for worker in workers if worker.reports_start for attempt in worker.open
            ),
            alive_workers=sum(worker.state <= WorkerState.SUSPECT for worker in workers),
            completed=core.completed,
            failed=core.failed,
            timeouts=core.counters["timeouts"],
            refused_results=core.counters["refused_results"],
            queue_timeouts=core.counters["queue_timeouts"],
            missed_deadlines=core.counters["missed_deadlines"],
            refused_submissions=core.counters["refused_submissions"],
            commits=None if self.groups is None else self.groups.summary(now),
        )

    def _latency_ms(self) -> tuple[Percentiles | None, Percentiles | None]:
        """Percentiles of the latency, and a lower bound for each that falls on a failed task: the age at which it
        failed, but no less than the largest latency."""
        completed_s = [latency_s for completed, latency_s in self._settled if completed]
        largest_s = max(completed_s, default=0.0)
        failed_s = [max(age_s, largest_s) for completed, age_s in self._settled if not completed]
        everything = _percentiles_ms(completed_s + failed_s)
        if everything is None or not failed_s:
            return everything, None
        known = [rank <= len(completed_s) for rank in _ranks(len(self._settled))]
        return (
            Percentiles(*(value if is_known else None for value, is_known in zip(everything, known, strict=True))),
            Percentiles(*(None if is_known else value for value, is_known in zip(everything, known, strict=True))),
        )

    def _forget(self, now: float) -> None:
        first = int((now - WINDOW_S) * 10) + 1
        while self._counts and self._counts[0][0] < first:
            self._counts.popleft()


class Groups:
    """The last groups of changes that were stored. `recovery_s`: how long it took to read the store."""

    def __init__(self, now: float) -> None:
        self.recovery_s = 0.0
        self.took = Histogram()  # since the process began, as are the sizes, in tasks
        self.sizes = Histogram(SIZES)
        self._began = now
        self._stored: deque[tuple[float, int, float]] = deque(maxlen=REMEMBERED)  # when, tasks, how long in s

    def stored(self, tasks: int, latency_s: float, now: float) -> None:
        self._stored.append((now, tasks, latency_s))
        self.took.add(latency_s)
        self.sizes.add(tasks)

    def summary(self, now: float) -> Commits:
        span_s = max(0.1, min(WINDOW_S, now - self._began))
        count = len(self._stored)
        return Commits(
            sum(at > now - WINDOW_S for at, _, _ in self._stored) / span_s,
            sum(tasks for _, tasks, _ in self._stored) / count if count else None,
            _percentiles_ms([latency_s for _, _, latency_s in self._stored]),
            self.recovery_s,
        )


def _ranks(count: int) -> list[int]:
    """Nearest ranks: of so many in order, the least number that is no less than the share."""
    return [-(-percent * count // 100) for percent in (50, 95, 99)]


def _percentiles_ms(seconds: Sequence[float]) -> Percentiles | None:
    ordered = sorted(seconds)
    return Percentiles(*(1000 * ordered[rank - 1] for rank in _ranks(len(ordered)))) if ordered else None


def line(metrics: Metrics) -> str:
    parts = [
        f"{metrics.throughput_per_s:.1f} tasks/s",
        f"latency {_shown(metrics.latency_ms, metrics.latency_at_least_ms)}",
        f"execution {_shown(metrics.execution_ms)}",
        f"{metrics.alive_workers} workers alive",
        f"{metrics.queue_depth} queued, {metrics.queue_at_workers} at workers",
        f"{metrics.completed} completed",
        f"{metrics.failed} failed",
    ]
    if metrics.timeouts:
        parts.append(f"{metrics.timeouts} timeouts")
    if metrics.refused_results:
        parts.append(f"{metrics.refused_results} results refused")
    if metrics.queue_timeouts:
        parts.append(f"{metrics.queue_timeouts} queue timeouts")
    if metrics.missed_deadlines:
        parts.append(f"{metrics.missed_deadlines} missed deadlines")
    if metrics.refused_submissions:
        parts.append(f"{metrics.refused_submissions} submissions refused")
    if metrics.commits is not None:
        per_s, tasks_each, latency_ms, _ = metrics.commits
        each = "" if tasks_each is None else f" of {tasks_each:.1f} changed tasks each, {_shown(latency_ms)}"
        parts.append(f"{per_s:.1f} commits/s{each}")
    return ", ".join(parts)


def _shown(percentiles_ms: Percentiles | None, at_least_ms: Percentiles | None = None) -> str:
    if percentiles_ms is None:
        return "unknown"
    values = zip(Percentiles._fields, percentiles_ms, at_least_ms or percentiles_ms, strict=True)
    return " ".join(f"{name} {told_ms(value, at_least)} ms" for name, value, at_least in values)


def told_ms(value: float | None, at_least: float | None, digits: int = 2) -> str:
    """A percentile in words: `> 3.00` where it is not known but no less."""
    if value is not None:
        return f"{value:.{digits}f}"
    return "unknown" if at_least is None else f"> {at_least:.{digits}f}"
