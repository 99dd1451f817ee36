"""How far two results agree: runs or sweeps, of two worlds or of one.

One side is the reference: the live result if there is one. An error is relative to it: (value - reference) /
reference. The cells and the replications that both sides have are compared pair by pair. Both worlds run the same
plan of arrivals, so what chance decided for both cancels in the error. `intervals` says how sure each number is.

Two stretches of time are compared: the whole run, and the time around its faults (`measures.around_faults`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis import outages
from orchestrator.analysis.intervals import BLOCKS, Spread, error_intervals, relative_error
from orchestrator.analysis.measures import (
    LATENCY,
    METRICS,
    Clock,
    Measures,
    Observed,
    Together,
    around_faults,
    at_least,
    whole_run,
)
from orchestrator.results import manifests
from orchestrator.results.confidence import pooled_mean_interval
from orchestrator.results.detection import DetectionRecord
from orchestrator.results.folders import load
from orchestrator.results.html_tables import Table, html_of
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.summaries import COUNTS, Summary, classes
from orchestrator.results.tables import Floats
from orchestrator.results.words import count, duration, number, signed
from orchestrator.scenario.arguments import require

if TYPE_CHECKING:
    import pandas as pd

WHOLE, AROUND = "whole run", "around the faults"
DETECTION_TIME = "detection.time_s.mean"
_SURE = [metric for metric in LATENCY if not metric.endswith(".p999")]  # few runs are long enough for the last
JUDGED = [*_SURE, "wait_s.mean", "throughput_per_s", "utilization", DETECTION_TIME, *outages.OUTAGES]
"""The statistics of the whole run to which an allowed error applies."""
RANKED = [*_SURE, "wait_s.mean", DETECTION_TIME]
"""The statistics by which alternatives are ranked; less is better. A mean is of the tasks that started or completed,
so it ranks only cells that lost none: the best would be one whose slow tasks never started."""
SIDES = ("value", "reference")


class Incomparable(ValueError):
    """The two results have nothing in common. One sentence."""


@dataclass(frozen=True)
class Row:
    """One statistic on both sides; None where a side has no values for it, or does not know it."""

    metric: str
    where: str
    value: float | None
    reference: float | None
    error: float | None
    """(value - reference) / reference; None if either is unknown or the reference is 0."""
    ci95: tuple[float, float | None] | None
    """An upper end is None if it is not known, or not told by so few replications or blocks."""
    reference_ci95: tuple[float, float | None] | None
    error_ci95: tuple[float, float] | None
    too_few: bool = False
    """Whether the replications or blocks are too few for the interval of the error."""
    at_least: float | None = None
    """A lower bound of the value if it falls on a task that never completed, and so is not known."""
    reference_at_least: float | None = None

    @property
    def judged(self) -> bool:
        """Whether an allowed error applies to this row.

        The detection time is judged over replications only. In a single run it depends on the phases of heartbeats
        and checks.
        """
        by_chance = self.metric == DETECTION_TIME and self.error is not None and self.error_ci95 is None
        return self.where == WHOLE and self.metric in JUDGED and not by_chance

    @property
    def off(self) -> float:
        """The size of the error; infinite if only one side knows the statistic or only the reference is 0."""
        if self.error is not None:
            return abs(self.error)
        return 0.0 if self.value == self.reference else math.inf


@dataclass(frozen=True)
class CellComparison:
    """One alternative of a sweep, or the only one."""

    name: str
    runs: Sequence[Run]
    references: Sequence[Run]
    """The reference of each of `runs`."""
    rows: Sequence[Row]
    title: str = ""
    """What people call it."""

    @property
    def tasks(self) -> dict[str, dict[str, int]]:
        """How many tasks each side has, in the whole of its runs, and what became of them."""
        return {side: _counted(run.summary["tasks"] for run in runs) for side, runs in self._sides().items()}

    @property
    def classes(self) -> dict[str, dict[str, dict[str, int]]]:
        """The same of each class that either side has: priorities, where there are several, and kinds."""
        each = {side: [classes(run.summary) for run in runs] for side, runs in self._sides().items()}
        names = dict.fromkeys(name for found in each.values() for one in found for name in one)
        return {
            side: {name: _counted(one[name] for one in found if name in one) for name in names}
            for side, found in each.items()
        }

    def __repr__(self) -> str:
        return f"<CellComparison {self.name}: {len(self.rows)} statistics>"

    def _sides(self) -> dict[str, Sequence[Run]]:
        return dict(zip(SIDES, (self.runs, self.references), strict=True))

    @property
    def intervals(self) -> str:
        """How the intervals were found, in words."""
        return f"{len(self.runs)} replications" if len(self.runs) > 1 else f"{BLOCKS} blocks of the run"

    def row(self, metric: str, where: str = WHOLE) -> Row:
        """The row of a metric; StopIteration if there is none."""
        return next(row for row in self.rows if (row.metric, row.where) == (metric, where))


@dataclass(frozen=True)
class Rank:
    """Whether both sides put the alternatives in the same order."""

    metric: str
    tau: float | None
    """Kendall's tau-b over the cells: 1 for the same order, -1 for the reverse; None if all cells are alike."""
    p_value: float | None
    best: str
    reference_best: str


@dataclass(frozen=True)
class Comparison:
    """Two results side by side, cell by cell. `orchestrator.pictures.draw` draws it."""

    scenario: str
    label: str
    reference_label: str
    cells: Sequence[CellComparison]
    ranking: Sequence[Rank]

    def __repr__(self) -> str:
        cells = f", {len(self.cells)} cells" if len(self.cells) > 1 else ""
        return f"<Comparison {self.scenario}: {self.label} against {self.reference_label}{cells}>"

    def _repr_html_(self) -> str:
        return "".join(map(html_of, self.tables()))

    def tables(self) -> list[Table]:
        """One of each cell, for a person: its statistics over the whole run. Then the order of the cells."""
        found = []
        for cell in self.cells:
            name = "" if len(self.cells) == 1 else f"{cell.title}: "
            title = f"{name}{self.label} against {self.reference_label}, intervals of 95 % by {cell.intervals}"
            rows = [texts_of(row) for row in cell.rows if row.where == WHOLE]
            found.append(Table(title, ["", self.label, self.reference_label, "error", "its interval"], rows))
        ranked = [
            [_short(r.metric), number(r.tau), r.best, r.reference_best] for r in self.ranking if r.tau is not None
        ]
        columns = ["", "Kendall's tau", f"best, {self.label}", f"best, {self.reference_label}"]
        title = "Do both rank the cells alike? 1: the same order, -1: the reverse"
        return [*found, Table(title, columns, ranked)] if ranked else found

    def table(self) -> pd.DataFrame:
        """One row per cell, stretch of time and metric."""
        import pandas as pd

        return pd.DataFrame({"cell": cell.name, **asdict(row)} for cell in self.cells for row in cell.rows)

    def summary(self) -> dict[str, Any]:
        """The content of `comparison.json`, as plain numbers."""
        return {
            "scenario": self.scenario,
            "of": self.label,
            "against": self.reference_label,
            "cells": [
                {
                    "cell": cell.name,
                    "replications": len(cell.runs),
                    "intervals": cell.intervals,
                    "tasks": cell.tasks,
                    "classes": cell.classes,
                    "rows": [asdict(row) for row in cell.rows],
                }
                for cell in self.cells
            ],
            "ranking": [asdict(rank) for rank in self.ranking],
        }

    def worst(self) -> tuple[CellComparison, Row]:
        """The cell and the row with the largest error among the judged rows."""
        judged = [(cell, row) for cell in self.cells for row in cell.rows if row.judged]
        return max(judged, key=lambda pair: pair[1].off)

    def miss(self, max_error: float) -> str | None:
        """A sentence about the worst judged row if its error is larger than allowed; otherwise None."""
        cell, row = self.worst()
        if row.off <= max_error:
            return None
        where = f"{cell.name}: " if len(self.cells) > 1 else ""
        off = "is known to one side only" if row.error is None else f"is off by {row.error:+.1%}"
        sides = f"{self.label} {_in_words(row.value)}, {self.reference_label} {_in_words(row.reference)}"
        return f"{where}{row.metric} {off} ({sides}); at most {max_error:.1%} is allowed"

    def save(self, folder: str | Path) -> None:
        """Write `comparison.json` into `folder`, which is made if it does not exist. Raises RunFolderError for another
        file of that name."""
        manifests.write_json(folder, "comparison.json", self.summary())


def compare(
    one: Run | Sweep | str | Path, other: Run | Sweep | str | Path, labels: tuple[str, str] | None = None
) -> Comparison:
    """Compare two results, given as runs, as sweeps or as the folders in which they are saved.

    The live result is the reference. If both are of one world, the second is the reference, and `labels` name the
    two. Raises Incomparable if no cell is on both sides, RunFolderError for a folder without a finished run, and
    TypeError or ValueError for what is no result, or no pair of labels.
    """
    one, other = (load(side) if isinstance(side, str | Path) else side for side in (one, other))
    _require_results(one, other, labels)
    worlds = one.summary["world"], other.summary["world"]
    if worlds[0] != worlds[1]:
        labels = worlds
    elif labels is None:
        labels = f"{worlds[0]} 1", f"{worlds[1]} 2"
    if worlds[0] == "live" != worlds[1]:
        one, other, labels = other, one, (labels[1], labels[0])
    titles = {cell.name: cell.title for side in (one, other) if isinstance(side, Sweep) for cell in side.cells}
    cells = [
        CellComparison(name, runs, references, list(_rows(runs, references)), titles.get(name, name))
        for name, runs, references in _pairs(one, other)
    ]
    return Comparison(other.summary["scenario"], *labels, cells, list(_ranking(cells)) if len(cells) > 1 else [])


def _require_results(one: object, other: object, labels: Any) -> None:
    """TypeError for what is no result, or no pair of labels."""
    for name, side in (("one", one), ("other", other)):
        require(name, side, (Run, Sweep), "a Run, a Sweep, or the folder of one")
    if labels is None:
        return
    expected = 'two texts, as ("before", "after")'
    require("labels", labels, (tuple, list), expected)
    if len(labels) != 2:
        raise ValueError(f"labels has {count(len(labels), 'text')}, expected {expected}")
    for place, label in enumerate(labels):
        require(f"labels[{place}]", label, str, expected)
    if labels[0] == labels[1]:
        raise ValueError(f"labels are both {labels[0]!r}, expected {expected}")


# ---- what is compared with what


def _pairs(one: Run | Sweep, other: Run | Sweep) -> list[tuple[str, list[Run], list[Run]]]:
    """The cells that both sides have, by name, with the replications that both have, by number."""
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


# ---- the rows of a cell


def _rows(runs: Sequence[Run], references: Sequence[Run]) -> Iterator[Row]:
    ours, theirs = (Clock.of([whole_run(side[0])]) for side in (runs, references))
    pairs = list(zip(runs, references, strict=True))
    yield from _measured(WHOLE, [(run, ours, reference, theirs) for run, reference in pairs])
    yield _detection_time(runs, references)
    yield from _coordinator_crashes(runs, references)
    faulty = [
        (run, clock, reference, clock)
        for run, reference in pairs
        if (stretches := around_faults((run, reference)))
        for clock in [Clock.of(stretches)]
    ]
    if faulty:
        yield from _measured(AROUND, faulty)


def _measured(where: str, pairs: Sequence[tuple[Run, Clock, Run, Clock]]) -> Iterator[Row]:
    """Of each pair of runs: the run and its clock, its reference and its clock."""
    left = [Observed.of(run, clock) for run, clock, _, _ in pairs]
    right = [Observed.of(reference, clock) for _, _, reference, clock in pairs]
    values, references = Together(left).measure(), Together(right).measure()
    spread = Spread.over_runs(left, right) if len(pairs) > 1 else Spread.over_blocks(left[0], right[0])
    bounds = at_least(left), at_least(right)
    for metric in METRICS:
        row = _row(metric, where, values[metric], references[metric], spread)
        yield replace(row, at_least=bounds[0].get(metric), reference_at_least=bounds[1].get(metric))


def _detection_time(runs: Sequence[Run], references: Sequence[Run]) -> Row:
    """From crash to verdict, over all detected crashes. A single run has no interval for its few detections."""
    left, right = ([DetectionRecord.of(run.tables).time_s for run in side] for side in (runs, references))
    ours, theirs = ({DETECTION_TIME: found} if (found := pooled_mean_interval(side)) else {} for side in (left, right))
    errors = error_intervals(partial(_mean_without, left), partial(_mean_without, right), len(runs))
    value, reference = (_mean(np.concatenate(side)) for side in (left, right))
    return _row(DETECTION_TIME, WHOLE, value, reference, Spread(ours, theirs, errors))


def _coordinator_crashes(runs: Sequence[Run], references: Sequence[Run]) -> Iterator[Row]:
    """What they did to the tasks, where there are any. They are too few for an interval."""
    values, bases = outages.measure(runs), outages.measure(references)
    for metric in outages.OUTAGES if values and bases else ():
        yield _row(metric, WHOLE, values[metric], bases[metric], Spread({}, {}, {}))


def _mean_without(times_s: Sequence[Floats], without: int | None) -> Measures:
    return {DETECTION_TIME: _mean(np.concatenate([np.empty(0), *(t for k, t in enumerate(times_s) if k != without)]))}


def _row(metric: str, where: str, value: float, reference: float, spread: Spread) -> Row:
    ours, theirs = spread.values.get(metric), spread.references.get(metric)
    return Row(
        metric,
        where,
        _known(value),
        _known(reference),
        _known(relative_error(value, reference)),
        ours and (ours.low, ours.high),
        theirs and (theirs.low, theirs.high),
        spread.errors.get(metric),
        spread.errors.get(metric, ()) is None,
    )


def texts_of(row: Row) -> list[str]:
    """As a person reads them: metric, both sides, error and its interval."""
    show = duration if "_s." in row.metric else number
    bounds = ((row.value, row.at_least), (row.reference, row.reference_at_least))
    sides = [f"> {duration(bound)}" if value is None and bound is not None else show(value) for value, bound in bounds]
    interval = "-" if row.error_ci95 is None else f"{signed(row.error_ci95[0])} to {signed(row.error_ci95[1])}"
    return [_short(row.metric), *sides, signed(row.error), interval]


def _short(metric: str) -> str:
    return (
        metric.replace("_s.", " ")
        .replace(".time ", " time ")
        .replace("_per_s", " (1/s)")
        .replace("p999", "p99.9")
        .replace("_", " ")
    )


def _counted(tasks: Iterable[Summary]) -> dict[str, int]:
    """COUNTS of several runs together."""
    tasks = list(tasks)
    return {key: sum(one[key] for one in tasks) for key in COUNTS}


def _in_words(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ---- the order of the cells


def _ranking(cells: Sequence[CellComparison]) -> Iterator[Rank]:
    lossless = not any(tasks["failed"] + tasks["unfinished"] for cell in cells for tasks in cell.tasks.values())
    for metric in RANKED:
        if metric.endswith(".mean") and metric != DETECTION_TIME and not lossless:
            continue
        rows = [(cell.name, cell.row(metric)) for cell in cells]
        sides = [
            (name, _place(row.value, row.at_least), _place(row.reference, row.reference_at_least)) for name, row in rows
        ]
        there = [(name, *pair) for name, *pair in sides if not any(map(math.isnan, pair))]
        if len(there) > 1:
            names, values, references = zip(*there, strict=True)
            tau, p_value = _kendall(values, references)
            yield Rank(metric, tau, p_value, names[np.argmin(values)], names[np.argmin(references)])


def _place(value: float | None, bound: float | None) -> float:
    """What a cell is ranked by: what is not known is slower than all that is; NaN if there is nothing."""
    if value is not None:
        return value
    return math.nan if bound is None else math.inf


def _kendall(values: Sequence[float], references: Sequence[float]) -> tuple[float | None, float | None]:
    """Kendall's tau-b, and the probability of a tau at least as far from 0 if the two orders were unrelated."""
    from scipy import stats

    found = stats.kendalltau(values, references)
    return _known(float(found.statistic)), _known(float(found.pvalue))
