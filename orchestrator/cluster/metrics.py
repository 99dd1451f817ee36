"""What the coordinator tells of itself: throughput of the last seconds, percentiles of the last executions."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from orchestrator.cluster.wire.translate import Metrics
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import WorkerState

WINDOW_S = 5.0
REMEMBERED = 10_000


class Window:
    """Execution times in seconds, and completions counted by tenths of a second."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._ran_s: deque[float] = deque(maxlen=REMEMBERED)
        self._counts: deque[list[int]] = deque()  # [tenth, completions], oldest first

    def add(self, ran_s: float, now: float) -> None:
        self._ran_s.append(ran_s)
        tenth = int(now * 10)
        if self._counts and self._counts[-1][0] == tenth:
            self._counts[-1][1] += 1
        else:
            self._counts.append([tenth, 1])
            self._forget(now)

    def summary(self, core: Coordinator, now: float) -> Metrics:
        self._forget(now)
        ran_s = sorted(self._ran_s)
        span_s = max(0.1, min(WINDOW_S, now - self._began))
        return Metrics(
            throughput_per_s=sum(count for _, count in self._counts) / span_s,
            p50_ms=_percentile_ms(ran_s, 0.50),
            p95_ms=_percentile_ms(ran_s, 0.95),
            p99_ms=_percentile_ms(ran_s, 0.99),
            queue_depth=core.pending,
            alive_workers=sum(worker.state <= WorkerState.SUSPECT for worker in core.workers()),
            completed=core.completed,
            failed=core.failed,
        )

    def _forget(self, now: float) -> None:
        first = int((now - WINDOW_S) * 10) + 1
        while self._counts and self._counts[0][0] < first:
            self._counts.popleft()


def _percentile_ms(ordered: Sequence[float], share: float) -> int:
    """Nearest rank; 0 where there is nothing."""
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]) if ordered else 0


def line(metrics: Metrics) -> str:
    return (
        f"{metrics.throughput_per_s:.1f} tasks/s, execution p50 {metrics.p50_ms} ms p95 {metrics.p95_ms} ms "
        f"p99 {metrics.p99_ms} ms, {metrics.alive_workers} workers alive, {metrics.queue_depth} queued, "
        f"{metrics.completed} completed, {metrics.failed} failed"
    )
