"""What the coordinator tells of itself: throughput of the last seconds, percentiles of the last completions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from orchestrator.cluster.wire.translate import Metrics, Percentiles
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import WorkerState

WINDOW_S = 5.0
REMEMBERED = 10_000
LONGEST_S = 1e9
"""What a worker claims beyond that, is that: a number that can be printed, whatever it was."""


class Window:
    """Of each task that an attempt settled: its latency, submitted to settled, and its execution, by its worker's
    clock, in seconds. Completions are counted by tenths of a second."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._latency_s: deque[float] = deque(maxlen=REMEMBERED)
        self._ran_s: deque[float] = deque(maxlen=REMEMBERED)
        self._counts: deque[list[int]] = deque()  # [tenth, completions], oldest first

    def add(self, latency_s: float, ran_s: float, now: float) -> None:
        self._latency_s.append(latency_s)
        self._ran_s.append(ran_s if 0 <= ran_s <= LONGEST_S else LONGEST_S)
        tenth = int(now * 10)
        if self._counts and self._counts[-1][0] == tenth:
            self._counts[-1][1] += 1
        else:
            self._counts.append([tenth, 1])
            self._forget(now)

    def summary(self, core: Coordinator, now: float) -> Metrics:
        self._forget(now)
        span_s = max(0.1, min(WINDOW_S, now - self._began))
        return Metrics(
            throughput_per_s=sum(count for _, count in self._counts) / span_s,
            latency_ms=_percentiles_ms(self._latency_s),
            execution_ms=_percentiles_ms(self._ran_s),
            queue_depth=core.pending,
            alive_workers=sum(worker.state <= WorkerState.SUSPECT for worker in core.workers()),
            completed=core.completed,
            failed=core.failed,
            timeouts=core.counters["timeouts"],
            refused_results=core.counters["refused_results"],
        )

    def _forget(self, now: float) -> None:
        first = int((now - WINDOW_S) * 10) + 1
        while self._counts and self._counts[0][0] < first:
            self._counts.popleft()


def _percentiles_ms(seconds: Iterable[float]) -> Percentiles | None:
    """By nearest rank: of n in order, the one whose number is the least that is no less than the share of n."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return Percentiles(*(1000 * ordered[-(-percent * len(ordered) // 100) - 1] for percent in (50, 95, 99)))


def line(metrics: Metrics) -> str:
    parts = [
        f"{metrics.throughput_per_s:.1f} tasks/s",
        f"latency {_shown(metrics.latency_ms)}",
        f"execution {_shown(metrics.execution_ms)}",
        f"{metrics.alive_workers} workers alive",
        f"{metrics.queue_depth} queued",
        f"{metrics.completed} completed",
        f"{metrics.failed} failed",
    ]
    if metrics.timeouts:
        parts.append(f"{metrics.timeouts} timeouts")
    if metrics.refused_results:
        parts.append(f"{metrics.refused_results} results refused")
    return ", ".join(parts)


def _shown(percentiles_ms: Percentiles | None) -> str:
    if percentiles_ms is None:
        return "unknown"
    p50, p95, p99 = percentiles_ms
    return f"p50 {p50:.2f} ms p95 {p95:.2f} ms p99 {p99:.2f} ms"
