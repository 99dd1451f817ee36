"""The statistics of a run over any stretches of its time: the whole window, the time around faults, or blocks.

A clock runs only during the chosen stretches. Everything is read on that clock, so that pieces of a run can be
measured as if they were a run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from orchestrator.core.model import WorkerEvent
from orchestrator.results.durations import age_s, latency_s, wait_s
from orchestrator.results.executions import Executions, end_s, per_worker, slots, stated_load
from orchestrator.results.runs import Run
from orchestrator.results.statistics import describe
from orchestrator.results.tables import (
    FAULTS,
    STATES,
    FaultEvent,
    Floats,
    HealDetail,
    State,
    Tables,
    codes,
    event_rows,
    faults_ended_by,
    floats,
)

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

AFTERMATH_S = 5.0
"""How long after a recovery the time still counts as being around a fault."""
ROUNDING_S = 1e-9
"""Smaller differences of times come from rounding."""
_NOTHING = 1e-9
"""A share of the weights of Harrell and Davis that is left out at either end."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
PERCENTILES = ("latency_s", "wait_s", "excess_s")
LATENCY, EXCESS = [[f"{what}.{name}" for name in QUANTILES] for what in ("latency_s", "excess_s")]
METRICS = [*LATENCY, "wait_s.mean", "wait_s.p99", *EXCESS, "throughput_per_s", "utilization"]

Stretch = tuple[float, float]
Measures = dict[str, float]
"""METRICS by name; NaN for an empty statistic, infinite where the rank falls on a task that never completed."""
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


def whole_run(run: Run) -> Stretch:
    """The stretch of time that the statistics of a run cover."""
    return run.scenario.warmup_s, run.scenario.duration_s


def around_faults(runs: Sequence[Run]) -> list[Stretch]:
    """The stretches of time around the faults of these runs: merged, in order, within [warmup_s, duration_s].

    A stretch begins with a fault. It ends AFTERMATH_S after the worker is back, or after the worker was declared dead
    if it never comes back.
    """
    scenario = runs[0].scenario
    stretches = sorted(outage for run in runs for outage in _outages(run.tables))
    merged: list[Stretch] = []
    for start_s, back_s in stretches:
        start_s = max(start_s, scenario.warmup_s)
        stop_s = min(back_s + AFTERMATH_S, scenario.duration_s)
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop_s, merged[-1][1]))
        elif start_s < stop_s:
            merged.append((start_s, stop_s))
    return merged


def counted_tasks(tables: Tables, clock: Clock) -> Positions:
    """The rows of the tasks that arrived while the clock ran, in the order of arrival: those of `Observed`."""
    arrival_s = floats(tables.tasks, "arrival_s")
    counted = np.flatnonzero(clock.runs_at(arrival_s))
    return counted[np.argsort(arrival_s[counted], kind="stable")]


def excess_s(tables: Tables, scenario: Scenario) -> Floats:
    """The part of each task's latency that is not service: float64[tasks] seconds, NaN where unknown, infinite for a
    task that failed or is unfinished.

    It is the latency minus the demand divided by the speed of the worker that settled the task. Of tasks with keys that
    a worker may remember it is not known: nothing records which of them took less than their demand.
    """
    worker = codes(tables.tasks, "worker", scenario.worker_names())
    service_s = floats(tables.tasks, "service_s") / per_worker(scenario, "speed")[worker]
    excess: Floats = latency_s(tables.tasks) - np.nan_to_num(service_s)
    excess[np.isnan(service_s) & np.isfinite(excess)] = np.nan
    affinity = scenario.workload.affinity
    if affinity is not None and affinity.hit_factor < 1:
        excess[np.isfinite(excess)] = np.nan
    excess[np.abs(excess) < ROUNDING_S] = 0.0
    return excess


@dataclass(frozen=True)
class Clock:
    """A clock that runs during some stretches of time only, starting at 0."""

    start_s: Floats
    stop_s: Floats

    @classmethod
    def of(cls, stretches: Sequence[Stretch]) -> Clock:
        start_s, stop_s = np.array(stretches, dtype=np.float64).T
        return cls(start_s, stop_s)

    @property
    def length_s(self) -> float:
        return float(np.sum(self.stop_s - self.start_s))

    def runs_at(self, time_s: Floats) -> Flags:
        """Whether it runs at each moment."""
        which = np.searchsorted(self.start_s, time_s, side="right") - 1
        runs: Flags = (which >= 0) & (time_s <= self.stop_s[which])
        return runs

    def read(self, time_s: Floats) -> Floats:
        """The reading at each moment; it does not change between two stretches."""
        marks_s = np.column_stack([self.start_s, self.stop_s]).ravel()
        shown_s = np.concatenate([[0.0], np.cumsum(np.diff(marks_s) * (np.arange(len(marks_s) - 1) % 2 == 0))])
        read: Floats = np.interp(time_s, marks_s, shown_s)
        return read


@dataclass(frozen=True)
class Ordered:
    """Values in order, without NaN, so that the statistics of a part of them need no sorting."""

    values: Floats
    origin: Positions
    """The position of each value before it was sorted."""

    @classmethod
    def of(cls, values: Floats) -> Ordered:
        origin = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
        return cls(values[origin], origin)

    def mean(self, times: Positions) -> float:
        """The mean of the finite values if that at original position i counts `times[i]` times; NaN if none counts."""
        finite = int(np.searchsorted(self.values, np.inf))
        weights = times[self.origin[:finite]]
        total = int(np.sum(weights))
        return float(np.sum(weights * self.values[:finite])) / total if total else math.nan

    def quantiles(self, times: Positions, points: Sequence[float]) -> list[float]:
        """The quantiles of the same values; they interpolate linearly, and are infinite next to an infinite value."""
        until = np.cumsum(times[self.origin])
        if not len(until) or not until[-1]:
            return [math.nan] * len(points)
        place = np.array(points) * (until[-1] - 1)
        low, high = (self.values[np.searchsorted(until, end(place), side="right")] for end in (np.floor, np.ceil))
        with np.errstate(invalid="ignore"):
            between = low + (place % 1) * (high - low)
        found: list[float] = np.where(np.isinf(high), np.inf, between).tolist()
        return found

    def smooth_quantiles(self, times: Positions, points: Sequence[float]) -> list[float]:
        """The estimates of Harrell and Davis ("A new distribution-free quantile estimator", 1982), which average over
        the order statistics around a quantile; infinite if one of these is."""
        values = np.repeat(self.values, times[self.origin])
        found = []
        for q in points if len(values) else ():
            low, weights = _harrell_davis(len(values), q)
            chosen = values[low : low + len(weights)]
            found.append(math.inf if math.isinf(chosen[-1]) else float(np.dot(weights, chosen)))
        return found or [math.nan] * len(points)


@dataclass(frozen=True)
class Observed:
    """One run as read on a clock."""

    arrival_s: Floats
    """On the clock and in order: arrivals while it ran. The next four arrays match it; see `durations`."""
    latency_s: Floats
    wait_s: Floats
    excess_s: Floats
    age_s: Floats
    completed_s: Floats
    """On the clock and in order: completions while it ran."""
    change_s: Floats
    """On the clock: when the number of busy slots changed."""
    busy_s: Floats
    """Execution seconds until each change."""
    slots: float
    length_s: float
    offered_load: float | None
    """What the scenario says of it, if anything."""

    @classmethod
    def of(cls, run: Run, clock: Clock) -> Observed:
        tables, scenario = run.tables, run.scenario
        tasks = tables.tasks
        completed = codes(tasks, "state", STATES) == STATES.index(State.COMPLETED)
        arrival_s, settled_s = floats(tasks, "arrival_s"), floats(tasks, "settled_s")[completed]
        counted = counted_tasks(tables, clock)
        executions = Executions.of(tables, scenario)
        moments_s, steps = executions.changes()
        change_s, change = np.append(0.0, clock.read(moments_s)), np.append(0.0, steps)
        order = np.argsort(change_s, kind="stable")
        change_s, level = change_s[order], np.cumsum(change[order])
        return cls(
            arrival_s=clock.read(arrival_s[counted]),
            latency_s=latency_s(tasks)[counted],
            wait_s=wait_s(tasks)[counted],
            excess_s=excess_s(tables, scenario)[counted],
            age_s=age_s(tasks, end_s(tables, scenario))[counted],
            completed_s=np.sort(clock.read(settled_s[clock.runs_at(settled_s)])),
            change_s=change_s,
            busy_s=np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(change_s))]),
            slots=slots(scenario),
            length_s=clock.length_s,
            offered_load=stated_load(scenario),
        )

    def only(self, chosen: Flags) -> Observed:
        """The same with the times of some of its tasks only; what was completed and how busy it was stay."""
        names = ("arrival_s", "latency_s", "wait_s", "excess_s", "age_s")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def blocks(self, number: int) -> list[Observed]:
        """The run cut into pieces of equal length, which follow each other."""
        edges_s = np.linspace(0.0, self.length_s, number + 1)
        busy_s = np.diff(np.interp(edges_s, self.change_s, self.busy_s))
        edges_s[-1] = math.inf  # what happens at the very end belongs to the last piece
        arrivals, completions = (
            [slice(*ends) for ends in pairwise(np.searchsorted(at_s, edges_s).tolist())]
            for at_s in (self.arrival_s, self.completed_s)
        )
        return [
            Observed(
                arrival_s=self.arrival_s[arrived],
                latency_s=self.latency_s[arrived],
                wait_s=self.wait_s[arrived],
                excess_s=self.excess_s[arrived],
                age_s=self.age_s[arrived],
                completed_s=self.completed_s[completed],
                change_s=np.array([0.0, self.length_s / number]),
                busy_s=np.array([0.0, busy]),
                slots=self.slots,
                length_s=self.length_s / number,
                offered_load=self.offered_load,
            )
            for arrived, completed, busy in zip(arrivals, completions, busy_s.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Together:
    """Several runs, or the blocks of one: percentiles are over all their tasks, and rates over all their time."""

    parts: Sequence[Observed]

    def measure(self, without: int | None = None, smooth: bool = False) -> Measures:
        """The statistics of all parts, or of all but one. `smooth`: percentiles that do not jump from one task to the
        next if a part is left out, as `Ordered.smooth_quantiles` gives them."""
        chosen = [part for place, part in enumerate(self.parts) if place != without]
        times = np.repeat([place != without for place in range(len(self.parts))], self._tasks).astype(np.int64)
        seconds = sum(part.length_s for part in chosen)
        completed, busy_s = sum(len(part.completed_s) for part in chosen), sum(part.busy_s[-1] for part in chosen)
        rates = completed / seconds, float(busy_s) / (self.parts[0].slots * seconds)
        return _measures(self._ordered, times, *rates, smooth)

    def ranks_away(self, ranks: int) -> Measures:
        """The percentiles of all parts if their ranks were so many higher, or lower if it is negative."""
        found: Measures = {}
        for what, values in zip(PERCENTILES, self._ordered, strict=True):
            all_of_them, last = np.ones(sum(self._tasks), dtype=np.int64), max(len(values.values) - 1, 1)
            for name, q in QUANTILES.items():
                point = min(max(q + ranks / last, 0.0), 1.0)
                (found[f"{what}.{name}"],) = values.quantiles(all_of_them, [point])
        return found

    @cached_property
    def _tasks(self) -> list[int]:
        return [len(part.arrival_s) for part in self.parts]

    @cached_property
    def _ordered(self) -> list[Ordered]:
        return [Ordered.of(np.concatenate([getattr(part, name) for part in self.parts])) for name in PERCENTILES]


@lru_cache(maxsize=256)
def _harrell_davis(n: int, q: float) -> tuple[int, Floats]:
    """The first order statistic of n that counts for the quantile q, and the weights from there on: those of latencies,
    waits and excesses are the same."""
    from scipy.special import betainc, betaincinv

    shape = (n + 1) * q, (n + 1) * (1 - q)
    low, high = math.floor(n * betaincinv(*shape, _NOTHING)), math.ceil(n * betaincinv(*shape, 1 - _NOTHING))
    weights: Floats = np.diff(betainc(*shape, np.arange(low, high + 1) / n))
    return low, weights / np.sum(weights)


def at_least(parts: Sequence[Observed]) -> Measures:
    """Lower bounds of the percentiles that fall on tasks that never completed, of several runs together."""
    bounds: Measures = {}
    for what in PERCENTILES:
        values_s, age_s = (np.concatenate([getattr(part, name) for part in parts]) for name in (what, "age_s"))
        least = age_s if what != "excess_s" else np.zeros_like(age_s)  # an age is service, or not, nobody knows
        bounds |= {f"{what}.{name}": bound for name, bound in describe(values_s, QUANTILES, least)["at_least"].items()}
    return bounds


def _measures(
    ordered: Sequence[Ordered], times: Positions, throughput: float, utilization: float, smooth: bool
) -> Measures:
    latency, wait, excess = ordered
    points = list(QUANTILES.values())
    quantiles = Ordered.smooth_quantiles if smooth else Ordered.quantiles
    values = [
        *quantiles(latency, times, points),
        wait.mean(times),
        *quantiles(wait, times, [0.99]),
        *quantiles(excess, times, points),
        throughput,
        utilization,
    ]
    return dict(zip(METRICS, values, strict=True))


def _outages(tables: Tables) -> Iterator[Stretch]:
    """From each fault of a worker until it has ended and the worker is back; see `around_faults`."""
    out: dict[str | None, tuple[float, set[str]]] = {}  # since when, and which faults have not ended
    dead: dict[str | None, float] = {}
    for time_s, kind, worker, detail in event_rows(tables.events):
        if kind in FAULTS:
            out.setdefault(worker, (time_s, set()))[1].add(kind)
        elif kind == WorkerEvent.DEAD:
            dead[worker] = time_s
        elif kind == FaultEvent.HEAL and detail is not None and worker in out:
            out[worker][1].difference_update(faults_ended_by(detail))
            if detail == HealDetail.RESTART:
                continue  # the worker is back when it has registered
        elif kind == WorkerEvent.UP:
            dead.pop(worker, None)
        ends = kind in (FaultEvent.HEAL, WorkerEvent.UP)
        if ends and worker in out and worker not in dead and not out[worker][1]:
            yield out.pop(worker)[0], time_s
    for worker, (time_s, _) in out.items():
        yield time_s, dead.get(worker, time_s)
