"""How much a run will have to do, and how long it will take: told before it begins, because a simulated year of
heartbeats in which nothing happens takes as long as one in which much does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.scenario.workload import Closed

if TYPE_CHECKING:
    from orchestrator.scenario.run_settings import RunSettings

EVENTS_PER_S = 250_000
"""Of the simulator, roughly: 216,000 to 303,000 were measured on runs of a second and more, on one of two busy
processors, 2026-11-26."""
EVENTS_PER_HEARTBEAT = 2
EVENTS_PER_TASK, EVENTS_PER_QUEUED_TASK = 2, 5
"""Where nothing can disturb an attempt, it is one event beside its arrival; see docs/architecture.md."""
START_S = 3.0
"""What the processes of a live run take to begin and to end, roughly."""


@dataclass(frozen=True)
class Effort:
    """What one or more runs will have to do."""

    tasks: float = 0.0
    task_events: float = 0.0
    """Events of the simulator that tasks make."""
    idle_events: float = 0.0
    """Those that come whether or not there is a task: heartbeats and periodic checks."""
    live_s: float = 0.0
    """Seconds that live runs take, one after the other."""

    @property
    def events(self) -> float:
        """All events of the simulator."""
        return self.task_events + self.idle_events

    @property
    def simulated_s(self) -> float:
        """Seconds that one process takes to simulate them, roughly."""
        return self.events / EVENTS_PER_S

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.tasks + other.tasks,
            self.task_events + other.task_events,
            self.idle_events + other.idle_events,
            self.live_s + other.live_s,
        )


def effort(run: RunSettings) -> Effort:
    """Of one run, without its faults and without what it drains."""
    detection, duration_s = run.policies.detection, run.duration_s
    workers = sum(group.workers for group in run.cluster.groups)
    periods = (detection.check_every_s, run.policies.execution_check_every_s)
    checks = sum(duration_s / period_s for period_s in periods if period_s)
    queued = run.network.loss or run.network.duplicate or any(group.prefetch for group in run.cluster.groups)
    each, tasks = EVENTS_PER_QUEUED_TASK if queued else EVENTS_PER_TASK, _tasks(run)
    return Effort(
        tasks=tasks,
        task_events=each * tasks,
        idle_events=EVENTS_PER_HEARTBEAT * workers * duration_s / detection.heartbeat_s + checks,
        live_s=duration_s + START_S,
    )


def together(runs: Iterable[RunSettings], replications: int) -> Effort:
    """Of several runs, so many times each."""
    return sum((effort(run) for run in runs for _ in range(replications)), Effort())


def _tasks(run: RunSettings) -> float:
    arrivals = run.workload.arrivals
    if isinstance(arrivals, Closed):
        cycle_s = arrivals.think.mean() + run.workload.mean_service_s()
        rate = min(arrivals.clients / cycle_s if cycle_s else math.inf, _capacity_per_s(run))
        return min(rate * run.duration_s, run.workload.tasks or math.inf)
    return min(arrivals.expected(run.duration_s), run.workload.tasks or math.inf)


def _capacity_per_s(run: RunSettings) -> float:
    service_s = run.workload.mean_service_s()
    return run.slots_of_speed_1() / service_s if service_s else 0.0
