"""A run as a Chrome trace: a row for each slot of each worker, to be opened in Perfetto or chrome://tracing.

The format is the JSON of the "Trace Event Format" (Google, 2016). Executions are complete events `X`, what happened
to the workers is instant events `i`, and names are metadata `M`. Times are in microseconds.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.core.model import Detail, WorkerEvent
from orchestrator.results.executions import Executions
from orchestrator.results.summaries import kind_codes
from orchestrator.results.tables import (
    FAULTS,
    OUTCOMES,
    PRIORITIES,
    Codes,
    FaultEvent,
    Floats,
    Tables,
    codes,
    event_rows,
    floats,
)

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

LIMIT = 50_000
"""Viewers become slow with more executions."""


def write(path: Path, tables: Tables, scenario: Scenario, limit: int = LIMIT) -> None:
    """Write at most `limit` of the attempts that executed (see `chosen`), and every event of the workers."""
    lines = ",\n".join(json.dumps(event, separators=(",", ":")) for event in _events(tables, scenario, limit))
    path.write_text(f'{{"displayTimeUnit":"ms","traceEvents":[\n{lines}\n]}}\n', encoding="utf-8")


def chosen(start_s: Floats, latency_s: Floats, fault_s: Floats, limit: int) -> Codes:
    """Which executions to show, as ascending rows: all of them if they are at most `limit`.

    Otherwise a quarter of the limit are the slowest (by the latency of their task, infinite if it never settled), a
    quarter are the nearest to a fault, and the rest is every k-th of the others.
    """
    n = len(start_s)
    if n <= limit:
        return np.arange(n)
    picked = np.zeros(n, dtype=bool)
    slowness = np.where(np.isnan(latency_s), np.inf, latency_s)
    picked[np.argsort(-slowness, kind="stable")[: limit // 4]] = True
    if len(fault_s):
        picked[np.argsort(_distance(start_s, np.sort(fault_s)), kind="stable")[: limit // 4]] = True
    others = np.flatnonzero(~picked)
    picked[others[np.linspace(0, len(others) - 1, limit - np.count_nonzero(picked)).astype(np.int64)]] = True
    return np.flatnonzero(picked)


def _distance(time_s: Floats, sorted_s: Floats) -> Floats:
    """From each moment to the nearest of `sorted_s`."""
    after = np.searchsorted(sorted_s, time_s)
    fenced = np.concatenate([[-np.inf], sorted_s, [np.inf]])
    nearest: Floats = np.minimum(time_s - fenced[after], fenced[after + 1] - time_s)
    return nearest


def _events(tables: Tables, scenario: Scenario, limit: int) -> Iterator[dict[str, Any]]:
    names = scenario.worker_names()
    spans = list(_spans(tables, scenario, limit))
    instants = list(_instants(tables, names))
    for index in sorted({event["pid"] for event in (*instants, *spans)}):
        yield {"ph": "M", "name": "process_name", "pid": index, "args": {"name": names[index]}}
        yield {"ph": "M", "name": "process_sort_index", "pid": index, "args": {"sort_index": index}}
    for index, slot in sorted({(span["pid"], span["tid"]) for span in spans}):
        yield {"ph": "M", "name": "thread_name", "pid": index, "tid": slot, "args": {"name": f"slot {slot}"}}
    yield from spans
    yield from instants


def _instants(tables: Tables, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The events of the workers. First registrations are left out: they say nothing that the rows do not show."""
    position: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    for time_s, kind, worker, detail in event_rows(tables.events):
        if worker in position and detail != Detail.REGISTERED:
            name = f"{kind} ({detail})" if detail else kind
            place = {"s": "p", "ts": _us(time_s), "pid": position[worker], "tid": 0}
            yield {"ph": "i", "cat": "worker", "name": name, **place}


def _spans(tables: Tables, scenario: Scenario, limit: int) -> Iterator[dict[str, Any]]:
    """The chosen executions in the order of their starts, each in the lowest free slot of its worker."""
    tasks, attempts = tables.tasks, tables.attempts
    task = attempts.column("task").to_numpy()
    of_task = np.searchsorted(tasks.column("task").to_numpy(), task)
    runs = Executions.of(tables, scenario)
    executed = np.flatnonzero(~np.isnan(floats(attempts, "started_s")) & (runs.worker >= 0))
    latency_s = floats(tasks, "latency_s")[of_task]
    picked = executed[chosen(runs.start_s[executed], latency_s[executed], _fault_times(tables), limit)]
    picked = picked[np.argsort(runs.start_s[picked], kind="stable")]
    columns = (
        runs.worker,
        runs.start_s,
        runs.stop_s,
        task,
        attempts.column("attempt").to_numpy(),
        codes(attempts, "outcome", OUTCOMES),
        codes(tasks, "priority", PRIORITIES)[of_task],
        kind_codes(tables, scenario)[of_task],
    )
    kinds = scenario.workload.kind_names()
    slots = _Slots()
    for worker, start_s, stop_s, number, attempt, outcome, priority, kind in zip(
        *(column[picked].tolist() for column in columns), strict=True
    ):
        start_us, stop_us = _us(start_s), _us(stop_s)
        about: dict[str, Any] = {
            "task": number,
            "attempt": attempt,
            "outcome": OUTCOMES[outcome],
            "priority": PRIORITIES[priority],
        }
        if kind >= 0:
            about["kind"] = kinds[kind]
        yield {
            "ph": "X",
            "cat": OUTCOMES[outcome],
            "name": f"task {number}" if attempt == 1 else f"task {number} #{attempt}",
            "ts": start_us,
            "dur": round(stop_us - start_us, 3),
            "pid": worker,
            "tid": slots.take(worker, start_us, stop_us),
            "args": about,
        }


class _Slots:
    """The slot of each execution. The tables do not show it, and for a picture it is enough that none overlap."""

    def __init__(self) -> None:
        self._busy: defaultdict[int, list[tuple[float, int]]] = defaultdict(list)
        self._free: defaultdict[int, list[int]] = defaultdict(list)

    def take(self, worker: int, start_us: float, stop_us: float) -> int:
        busy, free = self._busy[worker], self._free[worker]
        while busy and busy[0][0] <= start_us:
            heapq.heappush(free, heapq.heappop(busy)[1])
        slot = heapq.heappop(free) if free else len(busy) + 1
        heapq.heappush(busy, (stop_us, slot))
        return slot


def _fault_times(tables: Tables) -> Floats:
    kinds = (*FAULTS, FaultEvent.HEAL, WorkerEvent.DEAD)
    return floats(tables.events, "time_s")[codes(tables.events, "kind", kinds) >= 0]


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)
