"""A coordinator's metrics as Prometheus has them: read between two inputs, and written elsewhere.

`reading` looks at the core, on its loop, and keeps numbers only; `written` makes text of them, in any thread.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from orchestrator.cluster.coordinator import LiveCoordinator
from orchestrator.cluster.tally import Histogram, KindTally, Tally
from orchestrator.cluster.wire.fingerprint import fingerprint
from orchestrator.core.culprit import checked_review_at
from orchestrator.core.model import Detail, Outcome, Priority, Task, Worker, WorkerState

WORKERS_MAX = 1000
"""Beyond so many, none has a series of its own."""
Row = tuple[tuple[str, ...], Any]
"""Values of the labels; a number, or a Histogram."""
Class = tuple[str, str]
"""The label of a kind, and the name of a priority."""


class Family(NamedTuple):
    """A metric: what it is made of, its name without `orchestrator_`, what it means, its labels."""

    make: Callable[..., Any]
    name: str
    help: str
    labels: tuple[str, ...]
    rows: Sequence[Row]


def reading(live: LiveCoordinator, tally: Tally, version: str) -> list[Family]:
    """All that is told. It takes as long as there are workers and attempts, however many tasks wait. `version`: of this
    package."""
    return [
        *_of_kinds(tally),
        *_of_queues(live, tally),
        *_of_workers(live, tally),
        *_of_commits(live),
        *(
            _count(name, f"{name.replace('_', ' ').capitalize()}, of all kinds of tasks.", number)
            for name, number in live.core.counters.items()
        ),
        _gauge("clients", "Clients that are connected by a stream.", len(live.clients)),
        _build(version),
        _gauge("term", "Of this process: that of a later one is higher.", live.core.term),
    ]


def written(families: Sequence[Family], accept: str) -> tuple[bytes, str]:
    """The text, and its type, in the version of the format that a scraper accepts."""
    registry = CollectorRegistry()
    registry.register(_Families(families))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Families:
    """What a registry collects."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        for make, name, meaning, labels, rows in self._families:
            family = make(f"orchestrator_{name}", meaning, labels=labels)
            for values, value in rows:
                if isinstance(value, Histogram):
                    family.add_metric(values, buckets=_buckets(value), sum_value=value.sum)
                else:
                    family.add_metric(values, value)
            yield family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets, so_far = [], 0
    for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
        so_far += count
        buckets.append(("+Inf" if bound == math.inf else str(float(bound)), float(so_far)))
    return buckets


def _build(version: str) -> Family:
    values = (version, platform.python_version(), fingerprint())
    return Family(
        GaugeMetricFamily, "build_info", "What this process is; always 1.", ("version", "python", "wire"), [(values, 1)]
    )


def _count(name: str, meaning: str, number: float) -> Family:
    return Family(CounterMetricFamily, name, meaning, (), [((), number)])


def _gauge(name: str, meaning: str, number: float) -> Family:
    return Family(GaugeMetricFamily, name, meaning, (), [((), number)])


def _of_kinds(tally: Tally) -> Iterator[Family]:
    kinds = tally.kinds

    def counts(name: str, meaning: str, of: Callable[[KindTally], int]) -> Family:
        rows = [((label,), of(kind)) for label, kind in kinds.items()]
        return Family(CounterMetricFamily, name, meaning, ("kind",), rows)

    yield counts("tasks_submitted", "Tasks that were taken.", lambda kind: kind.submitted)
    yield counts("tasks_completed", "Tasks that completed.", lambda kind: sum(kind.latency[True].counts))
    yield counts("tasks_failed", "Tasks that failed for good.", lambda kind: sum(kind.latency[False].counts))
    yield counts("attempts", "Attempts that workers were given.", lambda kind: kind.attempts)
    yield counts("retries", "Those that were not a task's first, hedges apart.", lambda kind: kind.retries)
    yield _count("hedges", "Attempts beside another one that was slow.", tally.hedges)
    ends = [((outcome.name.lower(),), tally.ends[outcome]) for outcome in Outcome if outcome is not Outcome.UNFINISHED]
    yield Family(CounterMetricFamily, "attempts_ended", "Attempts that occupy no worker any more.", ("outcome",), ends)
    latency = [
        ((label, outcome), kind.latency[completed].copy())
        for label, kind in kinds.items()
        for completed, outcome in enumerate(("failed", "completed"))
    ]
    meaning = "From submission at the coordinator until the task is settled."
    yield Family(HistogramMetricFamily, "task_latency_seconds", meaning, ("kind", "outcome"), latency)
    execution = [((label,), kind.execution.copy()) for label, kind in kinds.items()]
    meaning = "Execution of tasks that completed, by the workers' clocks."
    yield Family(HistogramMetricFamily, "task_execution_seconds", meaning, ("kind",), execution)


def _of_queues(live: LiveCoordinator, tally: Tally) -> Iterator[Family]:
    names = [priority.name.lower() for priority in Priority]
    waiting = Counter(
        {
            (label, name): number
            for label, kind in tally.kinds.items()
            for name, number in zip(names, kind.in_hand, strict=True)
        }
    )
    held: Counter[Class] = Counter()
    running: Counter[Class] = Counter()
    assigned: dict[Task, None] = {}
    for worker in live.core.workers():
        for attempt in worker.open:
            task = attempt.task
            of = tally.label(task), names[task.priority]
            (running if attempt.has_begun else held)[of] += 1
            if task not in assigned:
                assigned[task] = None
                waiting[of] -= 1
    depth = [
        ((*of, where), counts[of]) for of in waiting for where, counts in (("coordinator", waiting), ("workers", held))
    ]
    meaning = "Tasks that wait at the coordinator, and attempts that workers hold and have not begun."
    yield Family(GaugeMetricFamily, "queue_depth", meaning, ("kind", "priority", "where"), depth)
    rows = [(of, running[of]) for of in waiting]
    yield Family(GaugeMetricFamily, "attempts_running", "Attempts that have begun.", ("kind", "priority"), rows)


def _of_workers(live: LiveCoordinator, tally: Tally) -> Iterator[Family]:
    now = live.now()
    workers = list(live.core.workers())
    states = Counter(worker.state for worker in workers)
    rows = [((state.name.lower(),), states[state]) for state in WorkerState]
    yield Family(GaugeMetricFamily, "workers", "Workers of the last hour, as they are now.", ("state",), rows)
    alive = [worker for worker in workers if worker.state is WorkerState.ALIVE]
    yield _gauge("workers_draining", "Those alive that take nothing new.", sum(worker.draining for worker in alive))
    ejected = sum(worker.ejected_until > now for worker in alive)
    yield _gauge("workers_ejected", "Those alive that get nothing for a while.", ejected)
    yield _gauge("slots", "What workers that are alive execute at a time.", sum(worker.capacity for worker in alive))
    judged = [worker for worker in workers if worker.state <= WorkerState.SUSPECT]
    due = [((worker.id,), _due_s(worker, now)) for worker in judged] if len(judged) <= WORKERS_MAX else []
    meaning = "Until a failure detector changes its verdict, if nothing more is heard; below 0 it waits for a place."
    yield Family(GaugeMetricFamily, "worker_verdict_due_seconds", meaning, ("worker",), due)
    yield _count("worker_suspicions", "Times that a worker became a suspect.", tally.suspicions)
    yield _count("worker_ejections", "Times that a worker was ejected.", tally.ejections)
    causes = [str(cause) for cause in (Detail.DETECTOR, Detail.FAILED_CALL)]
    deaths = [((cause,), tally.deaths[cause]) for cause in causes]
    yield Family(CounterMetricFamily, "worker_deaths", "Workers that were declared dead.", ("cause",), deaths)
    mistakes = [((cause,), tally.mistakes[cause]) for cause in causes]
    meaning = "Those of them whose process was heard again."
    yield Family(CounterMetricFamily, "worker_mistakes", meaning, ("cause",), mistakes)


def _due_s(worker: Worker, now: float) -> float:
    return checked_review_at("failure detector", worker.detector) - now


def _of_commits(live: LiveCoordinator) -> Iterator[Family]:
    groups = live.window.groups
    if groups is None:
        return
    meaning = "How long it took to store a group of changes."
    yield Family(HistogramMetricFamily, "commit_seconds", meaning, (), [((), groups.took.copy())])
    meaning = "How many tasks a group had changes of."
    yield Family(HistogramMetricFamily, "commit_tasks", meaning, (), [((), groups.sizes.copy())])
    yield _gauge("recovery_seconds", "How long it took to read the store at the start.", groups.recovery_s)
