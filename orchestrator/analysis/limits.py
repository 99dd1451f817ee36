"""What a history shows of tasks' own limits, and of refusals: who was given up by them, in time and not too soon."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from orchestrator.analysis.history import Breach, History, Mask, at_time
from orchestrator.core.model import TimeLimits
from orchestrator.results.tables import STATES, Floats, State
from orchestrator.scenario.faults import WorkerFault
from orchestrator.scenario.schema import Scenario

_COMPLETED, _FAILED, _UNFINISHED = (STATES.index(state) for state in State)
_ROUNDING_S = 1e-6


def given_up(h: History) -> Mask:
    """The tasks that failed by no attempt: at one of their limits, or never accepted by a coordinator that refuses."""
    queue_timeout_s, deadline_s = _limits_s(h)
    expired = h.settled_s - h.accepted_s >= np.minimum(queue_timeout_s, deadline_s) - _ROUNDING_S
    refuses = h.scenario.coordinator.max_waiting is not None
    refused = np.isnan(h.accepted_s) & (h.counted == 0) & refuses
    found: Mask = (h.state == _FAILED) & (h.settled_by < 0) & (expired | refused)
    return found


def breaches(h: History) -> Iterator[Breach]:
    """No task is first assigned after its queue timeout, completes after its deadline, or outlives that."""
    queue_timeout_s, deadline_s = _limits_s(h)
    late_s = h.accepted_s + deadline_s + h.grace_s + _ROUNDING_S
    done = np.flatnonzero((h.state == _COMPLETED) & (h.settled_s > late_s))
    yield h.tasks(done, lambda i: f"completed at {at_time(h.settled_s[i])}, after its deadline of {deadline_s[i]:g} s")
    left = np.flatnonzero((h.state == _UNFINISHED) & (late_s < h.summary["ended_s"]))
    yield h.tasks(left, lambda i: f"was never settled, although its deadline was {deadline_s[i]:g} s")
    waited_s = h.assigned_s - h.of_task(h.accepted_s)
    most_s = h.of_task(queue_timeout_s)
    began = np.flatnonzero((h.number == 1) & (waited_s > most_s + h.grace_s + _ROUNDING_S))
    yield h.attempts(
        began, lambda i: f"was assigned {waited_s[i]:g} s after its task was accepted, which waits for {most_s[i]:g} s"
    )


def unless(scenario: Scenario) -> str:
    """Why that is not certain."""
    stands_still = any(not isinstance(fault, WorkerFault) for fault in scenario.faults)
    return "the coordinator stands still" if stands_still and scenario.workload.limits() else ""


def _limits_s(h: History) -> tuple[Floats, Floats]:
    """The queue timeout and the deadline of each task; infinity for none."""
    workload = h.scenario.workload
    each = [workload.limits_of(name) or TimeLimits() for name in workload.kind_names() or ("",)]
    kind = np.maximum(h.kind, 0)
    queue_timeout_s, deadline_s = (
        np.array([np.inf if limit is None else limit for limit in limits])[kind]
        for limits in zip(*((one.queue_timeout_s, one.deadline_s) for one in each), strict=True)
    )
    return queue_timeout_s, deadline_s
