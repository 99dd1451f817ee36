"""Runs without a simulator: tables from rows written by hand, and a whole M/M/1 queue in a few lines of numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.results.summaries import summarise
from orchestrator.results.tables import OUTCOMES, PRIORITIES, STATES, Tables
from orchestrator.scenario.schema import Scenario

NAN = float("nan")
ENGINE = {"wall_s": 2.0, "events": 300, "tasks_per_s": 50.0, "events_per_s": 150.0}


def scenario(**changes: Any) -> Scenario:
    """Two workers with one slot each for 100 s; the first 10 s are warm-up."""
    tree: dict[str, Any] = {
        "name": "synthetic",
        "seed": 1,
        "duration_s": 100,
        "warmup_s": 10,
        "workload": {
            "arrivals": {"kind": "poisson", "rate_per_s": 1},
            "service": {"kind": "exponential", "mean_s": 1},
        },
        "cluster": {"workers": 2, "capacity": 1},
    }
    return Scenario.model_validate(tree | changes)


def task(arrival_s: float, settled_s: float = NAN, **changes: Any) -> dict[str, Any]:
    """A task that was accepted on arrival, started at once and, if `settled_s` is given, completed then."""
    settled = settled_s == settled_s
    return {
        "priority": "normal",
        "arrival_s": arrival_s,
        "accepted_s": arrival_s,
        "started_s": arrival_s,
        "settled_s": settled_s,
        "service_s": 1.0,
        "state": "completed" if settled else "unfinished",
        "attempts": 1,
        "worker": 0 if settled else -1,
    } | changes


def attempt(task: int, assigned_s: float, **changes: Any) -> dict[str, Any]:
    """An attempt on w1 that started when it was assigned; nothing more is known of it."""
    return {
        "task": task,
        "attempt": 1,
        "worker": 0,
        "assigned_s": assigned_s,
        "started_s": assigned_s,
        "given_up_s": NAN,
        "ended_s": NAN,
        "ran_s": NAN,
        "outcome": "unfinished",
        "settled": False,
    } | changes


def tables(
    tasks: Sequence[Mapping[str, Any]] = (),
    attempts: Sequence[Mapping[str, Any]] = (),
    events: Sequence[tuple[float, str, int, str | None]] = (),
    workers: Sequence[str] = ("w1", "w2"),
) -> Tables:
    """Tables from rows; events are (time_s, kind, position of the worker, detail)."""
    times, kinds, who, details = zip(*events, strict=True) if events else ((), (), (), ())
    numbered = [{"task": number} | dict(row) for number, row in enumerate(tasks)]
    return Tables.from_columns(
        _columns(numbered, {"task": 0, **task(0.0)}),
        _columns(attempts, attempt(0, 0.0)),
        {"time_s": times, "kind": kinds, "worker": who, "detail": details},
        workers,
    )


def run(tables_: Tables, scenario_: Scenario | None = None, world: str = "sim", late_results: int = 0) -> Run:
    scenario_ = scenario_ or scenario()
    return Run(summarise(tables_, scenario_, world, ENGINE, {"late_results": late_results}), tables_, scenario_)


def mm1(n: int = 2000, offered_load: float = 0.7, seed: int = 1, world: str = "sim") -> Run:
    """M/M/1 queues at w1 and w2 with alternating tasks; w2 crashes, is detected and comes back."""
    rng = np.random.default_rng(seed)
    arrival_s = np.cumsum(rng.exponential(1 / (2 * offered_load), n))
    service_s = rng.exponential(1.0, n)
    worker = np.arange(n) % 2
    started_s = np.empty(n)
    for w in (0, 1):
        mine = worker == w
        work_s = np.cumsum(service_s[mine])
        started_s[mine] = np.maximum.accumulate(arrival_s[mine] - work_s + service_s[mine]) + work_s - service_s[mine]
    settled_s = started_s + service_s
    duration_s = max(20.0, float(np.ceil(arrival_s[-1])))
    crash_s = duration_s / 2
    ones = np.ones(n, dtype=np.int64)
    columns = {
        "task": np.arange(n),
        "priority": rng.integers(0, 4, n),
        "arrival_s": arrival_s,
        "accepted_s": arrival_s,
        "started_s": started_s,
        "settled_s": settled_s,
        "service_s": service_s,
        "state": 0 * ones,
        "attempts": ones,
        "worker": worker,
    }
    attempts = {
        "task": np.arange(n),
        "attempt": ones,
        "worker": worker,
        "assigned_s": started_s,
        "started_s": started_s,
        "given_up_s": np.full(n, NAN),
        "ended_s": settled_s,
        "ran_s": service_s,
        "outcome": 0 * ones,
        "settled": ones.astype(bool),
    }
    events: dict[str, Sequence[Any]] = {
        "time_s": [0.0, 0.0, crash_s, crash_s + 5, crash_s + 8, crash_s + 8],
        "kind": ["up", "up", "crash", "dead", "heal", "up"],
        "worker": [0, 1, 1, 1, 1, 1],
        "detail": ["registered", "registered", None, "detector", "restart", "reregistered"],
    }
    return run(Tables.from_columns(columns, attempts, events, ["w1", "w2"]), scenario(duration_s=duration_s), world)


def sweep(values: Mapping[str, Sequence[Any]], replications: int = 2, n: int = 400) -> Sweep:
    """A grid of M/M/1 runs; later cells are busier."""
    grid = scenario(sweep={key: list(choices) for key, choices in values.items()})
    cells = [
        CellRuns.of(
            cell.name,
            cell.values,
            {k: mm1(n, offered_load=0.3 + 0.05 * index, seed=10 * index + k) for k in range(replications)},
        )
        for index, cell in enumerate(grid.cells())
    ]
    return Sweep(grid, cells)


def _columns(rows: Sequence[Mapping[str, Any]], example: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    names = {"priority": PRIORITIES, "state": STATES, "outcome": OUTCOMES}
    columns = {}
    for key, value in example.items():
        values = [names[key].index(row[key]) if key in names else row[key] for row in rows]
        columns[key] = np.array(
            values, dtype=np.float64 if isinstance(value, float) else type(values[0] if values else 0)
        )
    return columns
