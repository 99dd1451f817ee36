"""How far two results agree: runs or sweeps, of two worlds or of one.

One side is the reference (a live result where there is one); an error is relative to it, (value - reference) /
reference. Compared are the replications and cells that both sides have, each with its namesake: the same plan of
arrivals runs in both worlds, so what chance gave to both cancels in the error.

Intervals (95 %) never take the tasks of one run as independent. With two replications or more they are Student's t
over replications, of the error over its pairs. A single run is resampled in moving blocks (Künsch 1989): 20 pieces
of its time, each a twentieth of it, are drawn with replacement, at the same places of both runs, and the
statistics taken anew; the interval is value -+ t(19) times the standard deviation of what comes out. A single run
knows no interval for its few detections.

`around the faults` is the time from each crash or pause until `AFTERMATH_S` after its worker is back (or was
convicted, if it never comes back), in either world.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from orchestrator.results.runs import Run, Sweep
from orchestrator.results.summaries import (
    Detection,
    Executions,
    confidence_interval,
    rows,
)
from orchestrator.results.tables import FAULTS, HEALS, STATES, Floats, Tables, codes, floats
from orchestrator.scenario.streams import generator

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.pictures.style import Figures
    from orchestrator.scenario.schema import Scenario

WHOLE, AROUND = "whole run", "around the faults"
AFTERMATH_S = 5.0
ROUNDING_S = 1e-9
"""A difference of times that is less than this is none."""
BLOCKS = 20
RESAMPLES = 400
DRAWS = 20_000_000  # tasks resampled in all, at most: more of them need fewer resamples

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
LATENCY, EXCESS = [[f"{what}.{name}" for name in QUANTILES] for what in ("latency_s", "excess_s")]
DETECTION = "detection.time_s.mean"
TIMES = [*LATENCY, "wait_s.mean", "wait_s.p99", *EXCESS]
METRICS = [*TIMES, "throughput_per_s", "utilization"]
JUDGED = [*LATENCY, "wait_s.mean", "throughput_per_s", "utilization", DETECTION]
"""Of the whole run: what an allowed error applies to."""
RANKED = [*LATENCY, "wait_s.mean", DETECTION]
"""What alternatives are ranked by; the less the better."""

Interval = tuple[float, float]
Measures = dict[str, float]
Flags = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


class Incomparable(ValueError):
    """Two results that have nothing in common, in one sentence."""


@dataclass(frozen=True)
class Row:
    """One statistic on both sides; None where a side has nothing to take it from."""

    metric: str
    where: str
    value: float | None
    reference: float | None
    error: float | None
    """(value - reference) / reference; None where either is unknown, or the reference 0."""
    ci95: Interval | None
    reference_ci95: Interval | None
    error_ci95: Interval | None

    @property
    def judged(self) -> bool:
        """Whether an allowed error applies to it. When a single run detects its crash is a matter of the phases of
        heartbeats and checks: only replications tell."""
        by_chance = self.metric == DETECTION and self.error is not None and self.error_ci95 is None
        return self.where == WHOLE and self.metric in JUDGED and not by_chance

    @property
    def off(self) -> float:
        """How far off, without sign: infinite where one side alone knows the statistic, or is alone not 0."""
        if self.error is not None:
            return abs(self.error)
        return 0.0 if self.value == self.reference else math.inf


@dataclass(frozen=True)
class CellComparison:
    """One alternative of a sweep, or the only one."""

    name: str
    runs: Sequence[Run]
    references: Sequence[Run]
    """Replication by replication those of `runs`."""
    rows: Sequence[Row]

    @property
    def intervals(self) -> str:
        """Where the intervals come from."""
        return f"{len(self.runs)} replications" if len(self.runs) > 1 else f"moving blocks, {BLOCKS} to the run"

    def row(self, metric: str, where: str = WHOLE) -> Row:
        return next(row for row in self.rows if (row.metric, row.where) == (metric, where))


@dataclass(frozen=True)
class Rank:
    """Whether both sides put the alternatives in the same order."""

    metric: str
    tau: float | None
    """Kendall's tau-b over the cells: 1 the same order, -1 the reverse; None where all cells are alike."""
    p_value: float | None
    best: str
    reference_best: str


@dataclass(frozen=True)
class Comparison:
    """Two results side by side, cell by cell."""

    scenario: str
    label: str
    reference_label: str
    cells: Sequence[CellComparison]
    ranking: Sequence[Rank]

    def table(self) -> pd.DataFrame:
        """One row a cell, place and metric."""
        import pandas as pd

        return pd.DataFrame({"cell": cell.name, **asdict(row)} for cell in self.cells for row in cell.rows)

    def summary(self) -> dict[str, Any]:
        """What `comparison.json` holds."""
        return {
            "scenario": self.scenario,
            "of": self.label,
            "against": self.reference_label,
            "cells": [
                {
                    "cell": cell.name,
                    "replications": len(cell.runs),
                    "intervals": cell.intervals,
                    "rows": [asdict(row) for row in cell.rows],
                }
                for cell in self.cells
            ],
            "ranking": [asdict(rank) for rank in self.ranking],
        }

    def worst(self) -> tuple[CellComparison, Row]:
        """The largest error among what is judged."""
        judged = [(cell, row) for cell in self.cells for row in cell.rows if row.judged]
        return max(judged, key=lambda pair: pair[1].off)

    def plot(self, out_dir: str | Path | None = None) -> Figures:
        """Percentiles, Q-Q and time of two runs; of several cells their errors and their ranks."""
        from orchestrator.pictures import comparison_plots

        return comparison_plots.of_comparison(self).saved(out_dir)

    def miss(self, max_error: float) -> str | None:
        """What to say where an error among what is judged is larger than allowed: the worst, in a sentence."""
        cell, row = self.worst()
        if row.off <= max_error:
            return None
        where = f"{cell.name}: " if len(self.cells) > 1 else ""
        off = "is known to one side only" if row.error is None else f"is off by {row.error:+.1%}"
        sides = f"{self.label} {_told(row.value)}, {self.reference_label} {_told(row.reference)}"
        return f"{where}{row.metric} {off} ({sides}), allowed are {max_error:.1%}"

    def save(self, folder: str | Path, plots: bool = True) -> None:
        """Write `comparison.json` and the pictures."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.summary(), indent=2, allow_nan=False) + "\n"
        (Path(folder) / "comparison.json").write_text(text, encoding="utf-8")
        if plots:
            self.plot(folder)


def compare(one: Run | Sweep, other: Run | Sweep, labels: tuple[str, str] | None = None) -> Comparison:
    """Two results, the live one of them as the reference; of two of one world, the second.

    `labels` name the two where their worlds do not tell them apart. Incomparable where no cell is on both sides.
    """
    worlds = one.summary["world"], other.summary["world"]
    labels = labels if labels is not None and worlds[0] == worlds[1] else worlds
    if worlds[0] == "live" != worlds[1]:
        one, other, labels = other, one, (labels[1], labels[0])
    cells = [
        CellComparison(name, runs, references, list(_rows(runs, references)))
        for name, runs, references in _pairs(one, other)
    ]
    return Comparison(other.summary["scenario"], *labels, cells, list(_ranking(cells)) if len(cells) > 1 else [])


def around_faults(runs: Sequence[Run]) -> list[Interval]:
    """The stretches of time around the faults of these runs, merged, in order, within [warmup_s, duration_s]."""
    scenario = runs[0].scenario
    stretches = sorted(outage for run in runs for outage in _outages(run.tables))
    merged: list[Interval] = []
    for start_s, back_s in stretches:
        start_s = max(start_s, scenario.warmup_s)
        stop_s = min(back_s + AFTERMATH_S, scenario.duration_s)
        if merged and start_s <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop_s, merged[-1][1]))
        elif start_s < stop_s:
            merged.append((start_s, stop_s))
    return merged


def excess_s(tables: Tables, scenario: Scenario) -> Floats:
    """Latency less the demand at the speed of the worker that settled it, of each task; NaN where unknown."""
    speed = np.repeat(
        [group.speed for group in scenario.cluster.groups], [group.workers for group in scenario.cluster.groups]
    )
    worker = codes(tables.tasks, "worker", scenario.worker_names())
    excess: Floats = floats(tables.tasks, "latency_s") - floats(tables.tasks, "service_s") / speed[worker]
    excess[np.abs(excess) < ROUNDING_S] = 0.0
    return excess


@dataclass(frozen=True)
class Clock:
    """A clock that runs in some stretches of time only, from 0."""

    start_s: Floats
    stop_s: Floats

    @classmethod
    def of(cls, stretches: Sequence[Interval]) -> Clock:
        start_s, stop_s = np.array(stretches, dtype=np.float64).T
        return cls(start_s, stop_s)

    @property
    def length_s(self) -> float:
        return float(np.sum(self.stop_s - self.start_s))

    def runs_at(self, time_s: Floats) -> Flags:
        which = np.searchsorted(self.start_s, time_s, side="right") - 1
        runs: Flags = (which >= 0) & (time_s <= self.stop_s[which])
        return runs

    def read(self, time_s: Floats) -> Floats:
        """What it shows; the same at all times between two stretches."""
        marks_s = np.column_stack([self.start_s, self.stop_s]).ravel()
        shown_s = np.concatenate([[0.0], np.cumsum(np.diff(marks_s) * (np.arange(len(marks_s) - 1) % 2 == 0))])
        read: Floats = np.interp(time_s, marks_s, shown_s)
        return read


@dataclass(frozen=True)
class Ordered:
    """The known ones of some values in order, so that statistics of any resample of them need no sorting."""

    values: Floats
    origin: Positions
    """Where each value stood before."""

    @classmethod
    def of(cls, values: Floats) -> Ordered:
        origin = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]
        return cls(values[origin], origin)

    def mean(self, times: Positions) -> float:
        """Each value counted so many times, by where it stood; NaN where none counts."""
        weights = times[self.origin]
        total = int(np.sum(weights))
        return float(weights @ self.values) / total if total else math.nan

    def quantiles(self, times: Positions, points: Sequence[float]) -> list[float]:
        """The same of quantiles, which interpolate linearly as numpy's do."""
        until = np.cumsum(times[self.origin])
        if not len(until) or not until[-1]:
            return [math.nan] * len(points)
        place = np.array(points) * (until[-1] - 1)
        low, high = (self.values[np.searchsorted(until, end(place), side="right")] for end in (np.floor, np.ceil))
        found: list[float] = (low + (place % 1) * (high - low)).tolist()
        return found


@dataclass(frozen=True)
class Observed:
    """One run on a clock, so that any pieces of it can be measured as if they were a run."""

    arrival_s: Floats
    """On the clock and in order, of the completed tasks that arrived while it ran; the next three are theirs."""
    latency_s: Floats
    wait_s: Floats
    excess_s: Floats
    completed_s: Floats
    """On the clock, in order: completions while it ran."""
    change_s: Floats
    """On the clock: when the number of busy slots changed."""
    busy_s: Floats
    """Execution seconds until each change."""
    slots: float
    length_s: float

    @classmethod
    def of(cls, run: Run, clock: Clock) -> Observed:
        tables, scenario = run.tables, run.scenario
        tasks = tables.tasks
        completed = codes(tasks, "state", STATES) == STATES.index("completed")
        arrival_s, settled_s = floats(tasks, "arrival_s"), floats(tasks, "settled_s")[completed]
        counted = np.flatnonzero(completed & clock.runs_at(arrival_s))
        counted = counted[np.argsort(arrival_s[counted], kind="stable")]
        executions = Executions.of(tables, scenario)
        change_s = np.concatenate([[0.0], clock.read(executions.start_s), clock.read(executions.stop_s)])
        change = np.repeat([0.0, 1.0, -1.0], [1, len(executions.start_s), len(executions.stop_s)])
        order = np.argsort(change_s, kind="stable")
        change_s, level = change_s[order], np.cumsum(change[order])
        return cls(
            arrival_s=clock.read(arrival_s[counted]),
            latency_s=floats(tasks, "latency_s")[counted],
            wait_s=floats(tasks, "wait_s")[counted],
            excess_s=excess_s(tables, scenario)[counted],
            completed_s=np.sort(clock.read(settled_s[clock.runs_at(settled_s)])),
            change_s=change_s,
            busy_s=np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(change_s))]),
            slots=float(sum(group.workers * group.capacity for group in scenario.cluster.groups)),
            length_s=clock.length_s,
        )

    def measure(self) -> Measures:
        """The statistics of all that was observed."""
        return pooled([self])

    def measure_blocks(self, begin_s: Floats, length_s: float) -> Measures:
        """The same of blocks that begin at some readings of the clock, put together."""
        end_s = begin_s + length_s
        steps = np.zeros(len(self.arrival_s) + 1, dtype=np.int64)
        np.add.at(steps, np.searchsorted(self.arrival_s, begin_s), 1)
        np.add.at(steps, np.searchsorted(self.arrival_s, end_s), -1)
        completed = np.searchsorted(self.completed_s, end_s) - np.searchsorted(self.completed_s, begin_s)
        busy_s = np.interp(end_s, self.change_s, self.busy_s) - np.interp(begin_s, self.change_s, self.busy_s)
        seconds = length_s * len(begin_s)
        rates = float(np.sum(completed)) / seconds, float(np.sum(busy_s)) / (self.slots * seconds)
        return _measures(self._ordered, np.cumsum(steps[:-1]), *rates)

    @cached_property
    def _ordered(self) -> list[Ordered]:
        return [Ordered.of(values_s) for values_s in (self.latency_s, self.wait_s, self.excess_s)]


def pooled(parts: Sequence[Observed]) -> Measures:
    """The statistics of several runs together: percentiles over all their tasks, rates over all their time."""
    ordered = [
        Ordered.of(np.concatenate([getattr(part, name) for part in parts]))
        for name in ("latency_s", "wait_s", "excess_s")
    ]
    once = np.ones(sum(len(part.arrival_s) for part in parts), dtype=np.int64)
    seconds = sum(part.length_s for part in parts)
    completed, busy_s = sum(len(part.completed_s) for part in parts), sum(part.busy_s[-1] for part in parts)
    return _measures(ordered, once, completed / seconds, float(busy_s) / (parts[0].slots * seconds))


def _measures(ordered: Sequence[Ordered], times: Positions, throughput: float, utilization: float) -> Measures:
    latency, wait, excess = ordered
    points = list(QUANTILES.values())
    values = [
        *latency.quantiles(times, points),
        wait.mean(times),
        *wait.quantiles(times, [0.99]),
        *excess.quantiles(times, points),
        throughput,
        utilization,
    ]
    return dict(zip(METRICS, values, strict=True))


def _pairs(one: Run | Sweep, other: Run | Sweep) -> list[tuple[str, list[Run], list[Run]]]:
    """The cells of both sides by name, with the replications of both by number."""
    left, right = _cells(one), _cells(other)
    if len(left) == len(right) == 1:
        right = {name: next(iter(right.values())) for name in left}
    pairs = []
    for name in left:
        numbers = [number for number in left[name] if number in right.get(name, {})]
        if numbers:
            pairs.append((name, [left[name][n] for n in numbers], [right[name][n] for n in numbers]))
    if not pairs:
        sides = " and ".join(", ".join(cells) for cells in (left, right))
        raise Incomparable(f"nothing to compare: no cell with a replication on both sides ({sides})")
    return pairs


def _cells(result: Run | Sweep) -> dict[str, dict[int, Run]]:
    if isinstance(result, Run):
        return {"base": {0: result}}
    cells = {cell.name: dict(zip(cell.numbers, cell.runs, strict=True)) for cell in result.cells}
    lone = len(cells) == len(list(result.runs)) == 1
    return {name: dict(enumerate(runs.values())) for name, runs in cells.items()} if lone else cells


def _rows(runs: Sequence[Run], references: Sequence[Run]) -> Iterator[Row]:
    scenario = references[0].scenario
    whole = Clock.of([(scenario.warmup_s, scenario.duration_s)])
    pairs = list(zip(runs, references, strict=True))
    yield from _measured(WHOLE, [(*pair, whole) for pair in pairs])
    yield _detections(runs, references)
    faulty = [(*pair, Clock.of(stretches)) for pair in pairs if (stretches := around_faults(pair))]
    if faulty:
        yield from _measured(AROUND, faulty)


def _measured(where: str, pairs: Sequence[tuple[Run, Run, Clock]]) -> Iterator[Row]:
    left = [Observed.of(run, clock) for run, _, clock in pairs]
    right = [Observed.of(reference, clock) for _, reference, clock in pairs]
    values, references = pooled(left), pooled(right)
    if len(pairs) > 1:
        spread = Spread.over_runs([part.measure() for part in left], [part.measure() for part in right])
    else:
        rng = generator(pairs[0][1].scenario.seed, 0, "comparison", where)
        spread = Spread.over_blocks(left[0], right[0], rng)
    for metric in METRICS:
        yield _row(metric, where, values[metric], references[metric], spread)


def _detections(runs: Sequence[Run], references: Sequence[Run]) -> Row:
    """Crash to conviction, over all detected crashes."""
    times_s = [[Detection.of(run.tables).time_s for run in side] for side in (runs, references)]
    spread = Spread({}, {}, {})
    if len(runs) > 1:
        left, right = ([{DETECTION: _mean(one)} for one in side] for side in times_s)
        spread = Spread.over_runs(left, right)
    value, reference = (_mean(np.concatenate(side)) for side in times_s)
    return _row(DETECTION, WHOLE, value, reference, spread)


@dataclass(frozen=True)
class Spread:
    """Intervals of the statistics of one side, of the other, and of the relative errors."""

    values: Mapping[str, Interval]
    references: Mapping[str, Interval]
    errors: Mapping[str, Interval]

    @classmethod
    def over_runs(cls, left: Sequence[Measures], right: Sequence[Measures]) -> Spread:
        """Student's t over replications, of the errors over their pairs."""
        errors = [_errors(a, b) for a, b in zip(left, right, strict=True)]
        return cls(*(dict(_t_intervals(side)) for side in (left, right, errors)))

    @classmethod
    def over_blocks(cls, left: Observed, right: Observed, rng: np.random.Generator) -> Spread:
        """By resampling the same moving blocks of both runs. Too few tasks for their blocks know no interval."""
        tasks = [len(side.arrival_s) for side in (left, right)]
        if min(tasks) < 2 * BLOCKS:
            return cls({}, {}, {})
        length_s = left.length_s / BLOCKS
        resamples = int(np.clip(DRAWS / max(tasks), 50, RESAMPLES))
        begins_s = rng.uniform(0, left.length_s - length_s, (resamples, BLOCKS))
        drawn = [[side.measure_blocks(begin_s, length_s) for begin_s in begins_s] for side in (left, right)]
        errors = [_errors(a, b) for a, b in zip(*drawn, strict=True)]
        centres = [left.measure(), right.measure()]
        return cls(
            dict(_block_intervals(centres[0], drawn[0])),
            dict(_block_intervals(centres[1], drawn[1])),
            dict(_block_intervals(_errors(*centres), errors)),
        )


def _t_intervals(measures: Sequence[Measures]) -> Iterator[tuple[str, Interval]]:
    for metric in measures[0]:
        known = np.array([one[metric] for one in measures])
        known = known[np.isfinite(known)]
        if len(known) > 1:
            low, high = confidence_interval(known)
            yield metric, (float(low), float(high))


def _block_intervals(centre: Measures, drawn: Sequence[Measures]) -> Iterator[tuple[str, Interval]]:
    from scipy.special import stdtrit

    for metric, value in centre.items():
        resampled = np.array([one[metric] for one in drawn])
        known = resampled[np.isfinite(resampled)]
        if math.isfinite(value) and len(known) > 1:
            half = float(stdtrit(BLOCKS - 1, 0.975) * np.std(known))
            yield metric, (value - half, value + half)


def _errors(values: Measures, references: Measures) -> Measures:
    return {metric: _error(values[metric], references[metric]) for metric in values}


def _error(value: float, reference: float) -> float:
    return (value - reference) / abs(reference) if reference else math.nan


def _row(metric: str, where: str, value: float, reference: float, spread: Spread) -> Row:
    return Row(
        metric,
        where,
        _known(value),
        _known(reference),
        _known(_error(value, reference)),
        _not_negative(spread.values.get(metric)),
        _not_negative(spread.references.get(metric)),
        spread.errors.get(metric),
    )


def _not_negative(interval: Interval | None) -> Interval | None:
    """No time and no rate is below 0."""
    return interval and (max(interval[0], 0.0), max(interval[1], 0.0))


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _ranking(cells: Sequence[CellComparison]) -> Iterator[Rank]:
    for metric in RANKED:
        told = [(cell.name, cell.row(metric)) for cell in cells]
        known = [
            (name, row.value, row.reference)
            for name, row in told
            if row.value is not None and row.reference is not None
        ]
        if len(known) > 1:
            names, values, references = zip(*known, strict=True)
            tau, p_value = _kendall(values, references)
            yield Rank(metric, tau, p_value, names[np.argmin(values)], names[np.argmin(references)])


def _kendall(values: Sequence[float], references: Sequence[float]) -> tuple[float | None, float | None]:
    """Kendall's tau-b and the probability of one as far from 0 if the orders had nothing to do with each other."""
    from scipy import stats

    found = stats.kendalltau(values, references)
    return _known(float(found.statistic)), _known(float(found.pvalue))


def _outages(tables: Tables) -> Iterator[Interval]:
    """From each fault until it is over and its worker back; until it was convicted where it never is."""
    injection: dict[str, tuple[float, set[str]]] = {}  # since when, and what still holds
    convicted: dict[str, float] = {}
    for time_s, kind, worker, detail in rows(tables.events):
        if kind in FAULTS:
            injection.setdefault(worker, (time_s, set()))[1].add(kind)
        elif kind == "dead":
            convicted[worker] = time_s
        elif kind == "heal" and detail is not None and worker in injection:
            injection[worker][1].difference_update(HEALS.get(detail, (detail,)))
            if detail == "restart":
                continue  # it is back when it has registered
        elif kind == "up":
            convicted.pop(worker, None)
        if kind in ("heal", "up") and worker in injection and worker not in convicted and not injection[worker][1]:
            yield injection.pop(worker)[0], time_s
    for worker, (time_s, _) in injection.items():
        yield time_s, convicted.get(worker, time_s)
