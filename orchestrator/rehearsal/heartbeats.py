"""The heartbeats of saved live runs, from the decision records of their coordinators."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from orchestrator.analysis.absences import NEW_PROCESS
from orchestrator.analysis.traces import Trace
from orchestrator.cluster import decision_record
from orchestrator.core.model import Detail, WorkerEvent
from orchestrator.results.executions import end_s
from orchestrator.results.folders import RunFolderError, StoredRun, load
from orchestrator.results.runs import Sweep
from orchestrator.results.tables import Event, event_rows, floats


def recorded(folder: Path) -> list[Trace]:
    """The trace of the live run in `folder`; if it holds replications of one scenario, a trace of each.

    Raises RunFolderError if there is no such run, or if nothing tells when it began.
    """
    result = load(folder)
    if isinstance(result, Sweep) and len(result.cells) > 1:
        raise RunFolderError(f"{folder} holds a sweep: name the folder of one of its runs")
    runs = (
        zip(result.cells[0].runs, result.cells[0].numbers, strict=True) if isinstance(result, Sweep) else [(result, 0)]
    )
    return [_trace(run, number) for run, number in runs if isinstance(run, StoredRun)]


def _trace(run: StoredRun, replication: int) -> Trace:
    path = run.folder / decision_record.NAME
    if not path.is_file():
        hint = "heartbeats are kept of live runs only; of a simulated one, give the scenario instead"
        raise RunFolderError(f"{run.folder} has no {decision_record.NAME}: {hint}")
    scenario, tables = run.scenario, run.tables
    accepted_s = floats(tables.tasks, "accepted_s")
    heard, registered, submitted_at = _read_record(path)
    if submitted_at is None or np.isnan(accepted_s).all():
        raise RunFolderError(f"{run.folder}: no task was submitted, so nothing tells when the run began")
    began = submitted_at - float(np.nanmin(accepted_s))
    ups = [Event(at - began, WorkerEvent.UP, worker, Detail.REGISTERED) for at, worker in registered]
    others = [
        event
        for event in event_rows(tables.events)
        if not (event.kind == WorkerEvent.UP and event.detail in NEW_PROCESS)
    ]
    beats = {worker: np.array(times) - began for worker, times in heard.items()}
    last_s = max((float(times[-1]) for times in beats.values()), default=0.0)
    return Trace.of(
        "live",
        scenario.policies.detection.heartbeat_s,
        sorted([*ups, *others], key=lambda event: event.time_s),
        beats,
        min(end_s(tables, scenario), last_s),
        replication,
        began,
    )


def _read_record(path: Path) -> tuple[dict[str, list[float]], list[tuple[float, str]], float | None]:
    """Signs of life by worker, registrations of new processes, and the first submission, by the coordinator's clock."""
    heard: defaultdict[str, list[float]] = defaultdict(list)
    registered: list[tuple[float, str]] = []
    record = decision_record.Recorded(path)
    for item in record.inputs(("heartbeat", "register", "reconnected")):
        if item.name == "heartbeat":
            heard[item.arguments[0]].append(item.now)
        elif item.name == "reconnected":
            heard[item.arguments[0].worker_id].append(item.now)
        else:
            registered.append((item.now, item.arguments[0].worker_id))
    submission = next(record.inputs(("submit",)), None)
    return heard, registered, None if submission is None else submission.now
