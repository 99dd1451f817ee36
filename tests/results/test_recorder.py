"""What the recorder makes of the coordinator's effects."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.core.model import Attempt, Detail, Outcome, Task, TaskState, Worker, WorkerEvent
from orchestrator.results.recorder import Recorder


def run_one(recorder: Recorder, number: int, worker: Worker, *, outcome: Outcome = Outcome.COMPLETED) -> None:
    """A task that its first attempt settles at 2 s, by a result or by a failure."""
    task = Task(number, number, 1, "", 0.0)
    task.attempt = 1
    attempt = Attempt(task, worker, 1, 0.5)
    attempt.started_at, attempt.ran_s, attempt.ended_at = 1.0, 0.5, 2.0
    attempt.outcome, attempt.settles = outcome, True
    task.worker_id, task.settled_at = worker.id, 2.0
    recorder.ended(attempt, 2.0)
    recorder.settled(task, 2.0)


def test_a_slot_may_pass_to_another_worker():
    """Attempts name the worker that had the slot when they ended, also if its slot is used again."""
    recorder = Recorder()
    for number, name in enumerate(["w2", "w3", "w2"]):
        worker = Worker(name, 0)
        recorder.worker_changed(worker, WorkerEvent.UP, Detail.REGISTERED, 0.0)
        run_one(recorder, 2 * number, worker)
        run_one(recorder, 2 * number + 1, worker, outcome=Outcome.FAILED)
    made = recorder.tables(np.zeros(6), np.ones(6), np.ones(6, dtype=np.uint8), ["w1", "w2", "w3"], 9.0)
    expected = ["w2", "w2", "w3", "w3", "w2", "w2"]
    assert made.attempts["worker"].to_pylist() == expected
    assert made.tasks["worker"].to_pylist() == expected


@pytest.mark.parametrize(("told", "began_s"), [((1.1, 0.9), 1.1), ((4.0,), 1.3)])
def test_a_late_report_tells_when_its_attempt_began(told: tuple[float, ...], began_s: float):
    """Until then the row has the moment at which the news of the start came: its execution would end too late. Only
    the first report counts; by one that had to be repeated it would have begun after its end."""
    recorder, worker, task = Recorder(), Worker("w1", 0), Task(0, 0, 1, "", 0.0)
    recorder.worker_changed(worker, WorkerEvent.UP, Detail.REGISTERED, 0.0)
    task.attempt = 1
    attempt = Attempt(task, worker, 1, 0.5)
    attempt.started_at, attempt.given_up_at, attempt.ended_at = 1.3, 3.0, 3.1
    attempt.outcome = Outcome.CANCELLED
    recorder.ended(attempt, 3.1)
    task.state, task.worker_id, task.settled_at = TaskState.COMPLETED, worker.id, 3.0
    recorder.settled(task, 3.0)
    for started_at in told:
        recorder.reported(0, 1, started_at, 1.8)
    made = recorder.tables(np.zeros(1), np.ones(1), np.ones(1, dtype=np.uint8), ["w1"], 9.0)
    assert made.attempts["started_s"].to_pylist() == made.tasks["started_s"].to_pylist() == [began_s]
    assert made.attempts["ran_s"].to_pylist() == [1.8]
