"""A worker's report, as far as it is believed."""

from __future__ import annotations

from orchestrator.cluster.executions import ERROR_CHARACTERS
from orchestrator.cluster.wire import translate
from orchestrator.cluster.wire.translate import Reported
from orchestrator.core.inputs import Report
from orchestrator.core.model import Task


def believed(
    reported: Reported, worker_id: str, task: Task | None, request: int, result_characters: int, now: float
) -> Report:
    """`task`: the one that it is about. `result_characters`: what a result may have."""
    task_id, attempt, succeeded, result, error, retryable, queued_s, ran_s, _, after_s = reported
    if len(result) > result_characters:
        succeeded, result, error = False, "", "the result is too large"
    if len(error) > ERROR_CHARACTERS:
        error = error[:ERROR_CHARACTERS]
    begun_at = None
    for live in task.live if task else ():
        if live.number == attempt or attempt is None:
            begun_at = started_at(live.assigned_at, queued_s, ran_s, now)
            break
    fields = worker_id, task_id, attempt, succeeded, result, error, retryable, begun_at, ran_s, request, after_s
    return translate.make(Report, fields)


def started_at(assigned_at: float, queued_s: float, ran_s: float, now: float) -> float:
    """When an execution reported `now` began, from durations alone: both messages are taken to last equally long."""
    travelled_s = max(0.0, now - assigned_at - queued_s - ran_s)
    return min(now, assigned_at + travelled_s / 2 + queued_s)
