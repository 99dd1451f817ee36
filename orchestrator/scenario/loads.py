"""How much of the cluster's time arriving tasks take: not the work alone, which the offered load counts, but all that
keeps a slot from the next task. Where that is more than there is, the queue grows for as long as tasks arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.scenario.datafiles import Floats
from orchestrator.scenario.distributions import Distribution
from orchestrator.scenario.sections import Group
from orchestrator.scenario.workload import Closed, Trace

if TYPE_CHECKING:
    from orchestrator.scenario.run_settings import RunSettings


@dataclass(frozen=True)
class Recorded:
    """The service seconds in a trace, with what is asked of a distribution here."""

    values_s: Floats

    def mean(self) -> float:
        return float(np.mean(self.values_s))

    def share_from(self, limit_s: float) -> float:
        return float(np.mean(self.values_s >= limit_s))

    def mean_up_to(self, limit_s: float) -> float:
        return float(np.mean(np.minimum(self.values_s, limit_s)))


@dataclass(frozen=True)
class Held:
    """What a task takes of a worker of one group, on average over all tasks."""

    execution_s: float
    """In all its attempts, none longer than the timeout."""
    messages_s: float
    """Of each attempt on its way to the worker, and of its result on the way back."""
    attempts: float
    over_timeout: float
    """The share of the tasks that run as long as the timeout, so that each of their attempts is given up."""

    def most_per_s(self, group: Group) -> float:
        """How many such tasks a worker of the group can do in a second: no more than its slots execute, and no more
        than it may hold, which while messages are on their way it does too."""
        return min(self._executes_per_s(group), self._holds_per_s(group))

    def waits_for_messages(self, group: Group) -> bool:
        """Whether its slots are free at times because the worker holds no task that could begin."""
        return self._holds_per_s(group) < self._executes_per_s(group)

    def _executes_per_s(self, group: Group) -> float:
        return group.capacity / self.execution_s if self.execution_s else math.inf

    def _holds_per_s(self, group: Group) -> float:
        whole_s = self.execution_s + self.attempts * self.messages_s
        if group.prefetch == "unlimited" or not whole_s:
            return math.inf
        return (group.capacity + group.prefetch) / whole_s


def occupancy(run: RunSettings) -> float | None:
    """The share of all slots' time that the arriving tasks would hold; from 1 on, the queue grows.

    It differs from the offered load in that a timeout cuts an attempt off, that each attempt counts, and with it the
    overhead of its execution; and with prefetch 0 a slot is held while the messages are on their way. None for a trace
    without a span. Closed clients wait for their results, and never make more than 1.
    """
    held = [(group, held_by(run, group)) for group in run.cluster.groups]
    most_per_s = sum(group.workers * one.most_per_s(group) for group, one in held)
    rate = arrivals_per_s(run)
    if rate is None:
        return None
    if math.isinf(most_per_s):
        return 0.0
    arrivals = run.workload.arrivals
    if not isinstance(arrivals, Closed):
        return rate / most_per_s
    slots = sum(group.workers * group.capacity for group in run.cluster.groups)
    return min(1.0, arrivals.clients / (arrivals.think.mean() + slots / most_per_s) / most_per_s)


def over_timeout(run: RunSettings) -> float | None:
    """The share of tasks that run as long as the timeout of an attempt, over all slots; None without a timeout."""
    if run.attempt_timeout_s is None:
        return None
    groups = [(group.workers * group.capacity, held_by(run, group).over_timeout) for group in run.cluster.groups]
    return sum(slots * share for slots, share in groups) / sum(slots for slots, _ in groups)


def coordinator_load(run: RunSettings) -> float | None:
    """The share of its time that the coordinator needs for heartbeats, and a submission and a result for each task."""
    rate = arrivals_per_s(run)
    beats_per_s = sum(group.workers for group in run.cluster.groups) / run.policies.detection.heartbeat_s
    return None if rate is None else run.coordinator.cost_s * (2 * rate + beats_per_s)


def beyond_work(run: RunSettings) -> list[str]:
    """What makes the occupancy another number than the offered load."""
    held = [(group, held_by(run, group)) for group in run.cluster.groups]
    told = ["the overhead of executions"] if run.cluster.overhead else []
    if any(one.over_timeout for _, one in held):
        told.append("attempts cut off by the timeout")
    if any(one.waits_for_messages(group) for group, one in held):
        told.append(f"messages on their way ({messages_s(run):g} s a task, which more prefetch would hide)")
    return told


def arrivals_per_s(run: RunSettings) -> float | None:
    """Of a trace, over its span, which it may lack; 0 of closed clients, who have no rate of their own."""
    arrivals = run.workload.arrivals
    if isinstance(arrivals, Closed):
        return 0.0
    if not isinstance(arrivals, Trace):
        return arrivals.expected(run.duration_s) / run.duration_s
    span_s = arrivals.last_s(run.workload.traced(run.duration_s))
    return run.workload.traced(run.duration_s) / span_s if span_s else None


def messages_s(run: RunSettings) -> float:
    """From the coordinator's decision to the worker, and from the worker until the coordinator has seen the result."""
    on_the_way_s = sum(run.network.delay_of(kind).mean() for kind in ("assign", "result"))
    # An assignment leaves when it is stored: behind half a group, in the mean, and with its own.
    stored_s = 0.0 if run.coordinator.commit is None else 1.5 * run.coordinator.commit.mean()
    return on_the_way_s + run.coordinator.cost_s + stored_s


def held_by(run: RunSettings, group: Group) -> Held:
    overhead_s = run.cluster.overhead.mean() if run.cluster.overhead else 0.0
    limit_s, way_s = run.attempt_timeout_s, messages_s(run)
    services = _services(run)
    if limit_s is None:
        work_s = sum(share * service.mean() for share, service in services)
        return Held(overhead_s + work_s / group.speed, way_s, 1.0, 0.0)
    # With prefetch 0 no worker says when it starts, so that the coordinator's clock runs from the assignment.
    left_s = limit_s - overhead_s - (0.0 if group.prefetch else way_s)
    if left_s <= 0:
        over, executed_s = 1.0, limit_s
    else:
        most_s = left_s * group.speed
        over = sum(share * service.share_from(most_s) for share, service in services)
        executed_s = overhead_s + sum(share * service.mean_up_to(most_s) for share, service in services) / group.speed
    attempts = _attempts(run, limit_s)
    return Held(executed_s + over * (attempts - 1) * limit_s, way_s, 1 + over * (attempts - 1), over)


def _services(run: RunSettings) -> Sequence[tuple[float, Distribution | Recorded]]:
    """Shares of the tasks, each with its seconds of work; they sum to 1."""
    arrivals = run.workload.arrivals
    if not isinstance(arrivals, Trace):
        return run.workload.services()
    data, arrived = arrivals.data(), run.workload.traced(run.duration_s)
    return run.workload.services(arrived) if data.service_s is None else [(1.0, Recorded(data.service_s[:arrived]))]


def _attempts(run: RunSettings, limit_s: float) -> float:
    """Of a task that times out each time. Without a limit on attempts it goes on until the run ends, which is half of
    its duration on average."""
    most = run.policies.retry.max_attempts or math.inf
    return max(1.0, min(most, run.duration_s / 2 / limit_s))
