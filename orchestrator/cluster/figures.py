"""What a coordinator tells of itself, in numbers."""

from __future__ import annotations

from typing import NamedTuple


class Percentiles(NamedTuple):
    """By nearest rank; None where the rank falls on a task that has none."""

    p50: float | None
    p95: float | None
    p99: float | None


class Commits(NamedTuple):
    """Of the groups in which changes are stored: how many a second in the last seconds; of the last ones how many tasks
    a group had, and how long it took; and how long it took to read the store at the start."""

    per_s: float
    tasks_each: float | None
    latency_ms: Percentiles | None
    recovery_s: float


class Metrics(NamedTuple):
    """The fields of GetMetrics; None where nothing is known.

    `throughput_per_s`, `failed_per_s`: tasks that completed and that failed, in the last seconds. `latency_ms`: from
    submission at the coordinator to settled, of the last tasks; one that failed is slower than every one that
    completed, so a percentile that falls on it is not known, but no less than that of `latency_at_least_ms`.
    `execution_ms`: by the workers' clocks, of the last that completed. `queue_depth`: tasks that wait at the
    coordinator; `queue_at_workers`: attempts that workers hold and have not begun. `completed` and the counts after it
    are of the coordinator's whole life. `commits`: None where nothing is stored.
    """

    throughput_per_s: float
    failed_per_s: float | None
    latency_ms: Percentiles | None
    latency_at_least_ms: Percentiles | None
    execution_ms: Percentiles | None
    queue_depth: int
    queue_at_workers: int | None
    alive_workers: int
    completed: int
    failed: int
    timeouts: int = 0
    refused_results: int = 0
    queue_timeouts: int = 0
    missed_deadlines: int = 0
    refused_submissions: int = 0
    commits: Commits | None = None
