"""How far the simulated world is from the live one, beside how far live runs of the same plan are from each other.

An error is (sim - live) / live. With one live result it has the interval of `comparison`, from replications or blocks.
With several live runs of the same scenario and seed, the noise floor, the error is that against their geometric mean,
and its interval Student's t of the logarithms of the ratios to each of them: what is left between live runs of one plan
is the noise of the machine, and they are independent. It is then an interval of this plan's error.

Equivalence takes two one-sided tests at 2.5 % each (Schuirmann, "A comparison of the two one-sided tests procedure and
the power approach", 1987): both reject just if the 95 % interval of the error lies within the margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.analysis.comparison import (
    JUDGED,
    WHOLE,
    CellComparison,
    Comparison,
    Incomparable,
    Row,
    compare,
    texts_of,
)
from orchestrator.results import manifests
from orchestrator.results.confidence import LEVEL
from orchestrator.results.durations import latency_s
from orchestrator.results.folders import load
from orchestrator.results.html_tables import Table, html_of
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.tables import Floats, floats
from orchestrator.results.words import count
from orchestrator.scenario.arguments import require

if TYPE_CHECKING:
    import pandas as pd

NAME = "fidelity.json"
PERCENTILES = [metric for metric in JUDGED if metric.startswith("latency_s.")]
"""Of latency: what the verdicts in words and the order of cells are about."""
EQUIVALENT, NOT_SHOWN, DIFFERENT = "equivalent", "not shown", "different"


@dataclass(frozen=True)
class Measured:
    """One statistic in both worlds."""

    row: Row
    """`value` is of the simulated world and `reference` of the live one; of several live runs, their mean."""
    floor: Sequence[float]
    """The size of the error between each two live runs; empty without two of them."""
    margin: float

    @property
    def verdict(self) -> str | None:
        """EQUIVALENT if the interval of the error lies within the margin, DIFFERENT if it lies outside of it, else
        NOT_SHOWN; None where one side does not know the statistic."""
        if self.row.error is None:
            return None
        if self.row.error_ci95 is None:
            return NOT_SHOWN
        low, high = self.row.error_ci95
        if -self.margin < low and high < self.margin:
            return EQUIVALENT
        return DIFFERENT if low > self.margin or high < -self.margin else NOT_SHOWN


@dataclass(frozen=True)
class CellFidelity:
    """One cell of a sweep, or the only one."""

    name: str
    rows: Sequence[Measured]
    ks: float | None
    """The Kolmogorov-Smirnov distance of latency: the largest difference between the shares of tasks that were no
    slower, over all latencies. Of several live runs the mean of the distances."""
    ks_floor: Sequence[float]
    """The same between each two live runs."""

    def __repr__(self) -> str:
        return f"<CellFidelity {self.name}: {len(self.rows)} statistics>"

    def row(self, metric: str, where: str = WHOLE) -> Measured:
        """StopIteration if there is none."""
        return next(one for one in self.rows if (one.row.metric, one.row.where) == (metric, where))


@dataclass(frozen=True)
class Order:
    """Whether both worlds put the cells in the same order where they tell them apart."""

    metric: str
    tau: float | None
    """Kendall's tau-b over all cells."""
    apart: int
    """Pairs of cells whose intervals are disjoint in both worlds."""
    alike: int
    """Those of them that stand in the same order in both."""


@dataclass(frozen=True)
class Fidelity:
    """Both worlds side by side. `orchestrator.pictures.draw` draws `comparison`."""

    comparison: Comparison
    """With the first of the live results."""
    cells: Sequence[CellFidelity]
    live_runs: int
    """Live results of the same plan."""
    margin: float
    notes: Sequence[str]
    """What the two have not in common, a sentence each."""

    def __repr__(self) -> str:
        live, cells = count(self.live_runs, "live run"), f", {len(self.cells)} cells" if len(self.cells) > 1 else ""
        return f"<Fidelity {self.comparison.scenario}: sim against {live}, margin {self.margin:.0%}{cells}>"

    def _repr_html_(self) -> str:
        return "".join(html_of(self._verdicts(cell)) for cell in self.cells)

    def _verdicts(self, cell: CellFidelity) -> Table:
        name = "" if len(self.cells) == 1 else f"{cell.name}: "
        rows = [[*texts_of(one.row), _largest(one.floor), one.verdict or "-"] for one in cell.rows if one.row.judged]
        distance = "" if cell.ks is None else f"; KS distance of latency {cell.ks:.3f}"
        if cell.ks_floor:
            distance += f", between live runs up to {max(cell.ks_floor):.3f}"
        title = f"{name}sim against live, margin {self.margin:.0%}{distance}"
        return Table(title, ["", "sim", "live", "error", "its interval", "live against live", "verdict"], rows)

    @property
    def order(self) -> list[Order]:
        """By each of PERCENTILES; nothing of a single cell."""
        ranks = {rank.metric: rank.tau for rank in self.comparison.ranking}
        return [Order(metric, ranks.get(metric), *_apart(self.comparison, metric)) for metric in PERCENTILES if ranks]

    def table(self) -> pd.DataFrame:
        """One row per cell, stretch of time and metric."""
        import pandas as pd

        return pd.DataFrame({"cell": cell.name, **_plain(one)} for cell in self.cells for one in cell.rows)

    def summary(self) -> dict[str, Any]:
        """The content of `fidelity.json`, as plain numbers."""
        pairs = zip(self.cells, self.comparison.cells, strict=True)
        return {
            "scenario": self.comparison.scenario,
            "live_runs": self.live_runs,
            "margin": self.margin,
            "notes": list(self.notes),
            "cells": [
                {
                    "cell": cell.name,
                    "replications": len(compared.runs),
                    "intervals": self._intervals(compared),
                    "tasks": dict(zip(("sim", "live"), compared.tasks.values(), strict=True)),
                    "ks": cell.ks,
                    "ks_floor": list(cell.ks_floor),
                    "rows": [_plain(one) for one in cell.rows],
                }
                for cell, compared in pairs
            ],
            "order": [asdict(order) for order in self.order],
        }

    def _intervals(self, cell: CellComparison) -> str:
        return f"{self.live_runs} live runs of the same plan" if self.live_runs > 1 else cell.intervals

    def save(self, folder: str | Path) -> None:
        """Write `fidelity.json` into `folder`, which is made if it does not exist."""
        manifests.write_json(folder, NAME, self.summary())

    def miss(self, max_error: float) -> str | None:
        """A sentence about the largest error of the whole run if it is larger than allowed; otherwise None."""
        judged = [(cell.name, one.row) for cell in self.cells for one in cell.rows if one.row.judged]
        name, row = max(judged, key=lambda pair: pair[1].off)
        if row.off <= max_error:
            return None
        where = f"{name}: " if len(self.cells) > 1 else ""
        off = "is known to one world only" if row.error is None else f"is off by {row.error:+.1%}"
        return f"{where}{row.metric} {off}; at most {max_error:.1%} is allowed"


def fidelity(results: Sequence[Run | Sweep | str | Path], margin: float = 0.1) -> Fidelity:
    """How far the one simulated result is from the live ones, given as runs, as sweeps or as their folders, in any
    order. Two or more live results are of the same scenario and seed, and give the noise floor.

    Raises Incomparable if there is not one simulated and at least one live result, or if they have no cell in common,
    RunFolderError for a folder without a finished run, and TypeError for what is no result.
    """
    require("results", results, (list, tuple), "a list of a simulated result and live ones")
    found = [load(one) if isinstance(one, str | Path) else one for one in results]
    for place, one in enumerate(found):
        require(f"results[{place}]", one, (Run, Sweep), "a Run, a Sweep, or the folder of one")
    worlds = [one.summary["world"] for one in found]
    simulated = [one for one, world in zip(found, worlds, strict=True) if world == "sim"]
    lived = [one for one, world in zip(found, worlds, strict=True) if world == "live"]
    if len(simulated) != 1 or not lived:
        got = ", ".join(worlds)
        raise Incomparable(f"these results are of {got}: expected one of the simulated world and at least one live one")
    against = [compare(simulated[0], one) for one in lived]
    between = [compare(one, other) for one, other in combinations(lived, 2)]
    return Fidelity(against[0], list(_cells(against, between, margin)), len(lived), margin, _notes(simulated[0], lived))


def _cells(against: Sequence[Comparison], between: Sequence[Comparison], margin: float) -> Iterator[CellFidelity]:
    """`against`: the simulated result against each live one; `between`: each two live ones."""
    common = set.intersection(*({cell.name for cell in one.cells} for one in against))
    for cell in against[0].cells:
        if cell.name not in common:
            continue
        ours = [_cell(one, cell.name) for one in against]
        floors = [_cell(one, cell.name) for one in between]
        rows = [
            Measured(_together([_like(one, row) for one in ours]), list(_floor(row, floors)), margin)
            for row in cell.rows
        ]
        distances, ks_floor = ([_ks(one) for one in cells] for cells in (ours, floors))
        known = [one for one in distances if one is not None]
        ks = float(np.mean(known)) if known else None
        yield CellFidelity(cell.name, rows, ks, [one for one in ks_floor if one is not None])


def _cell(comparison: Comparison, name: str) -> CellComparison:
    """Of this name; the only one of results without a sweep, whose cells may have any."""
    cells = comparison.cells
    return cells[0] if len(cells) == 1 else next(cell for cell in cells if cell.name == name)


def _like(cell: CellComparison, row: Row) -> Row | None:
    found = [one for one in cell.rows if (one.metric, one.where) == (row.metric, row.where)]
    return found[0] if found else None


def _together(rows: Sequence[Row | None]) -> Row:
    """The row against the geometric mean of the live runs, and Student's t over the logarithms of the ratios."""
    from scipy import stats

    first = rows[0]
    assert first is not None
    pairs = [(row.value, row.reference) for row in rows if row is not None and row.error is not None]
    ratios = [value / reference for value, reference in pairs if value and reference]
    if len(rows) == 1 or len(ratios) < len(rows) or min(ratios) <= 0:  # of a small difference of times even the sign
        return first
    logs = np.log(ratios)
    mean = float(np.mean(logs))
    error = float(stats.sem(logs))
    low, high = stats.t.interval(LEVEL, len(logs) - 1, mean, error) if error else (mean, mean)
    assert first.value is not None
    return replace(
        first,
        reference=first.value / math.exp(mean),
        error=math.expm1(mean),
        reference_ci95=None,
        error_ci95=(math.expm1(low), math.expm1(high)),
        too_few=False,
    )


def _floor(row: Row, floors: Sequence[CellComparison]) -> Iterator[float]:
    for cell in floors:
        like = _like(cell, row)
        if like is not None and like.error is not None:
            yield abs(like.error)


def _ks(cell: CellComparison) -> float | None:
    """The two-sample Kolmogorov-Smirnov distance of the latencies of both sides; a task without one is the slowest."""
    from scipy import stats

    ours, theirs = (np.concatenate([_latencies_s(run) for run in side]) for side in (cell.runs, cell.references))
    if not len(ours) or not len(theirs):
        return None
    with np.errstate(divide="ignore"):  # its p-value would take the tasks as independent, and nobody asks for it
        return float(stats.ks_2samp(ours, theirs, method="asymp").statistic)


def _latencies_s(run: Run) -> Floats:
    tasks = run.tables.tasks
    values: Floats = latency_s(tasks)[floats(tasks, "arrival_s") >= run.scenario.warmup_s]
    return values


def _apart(comparison: Comparison, metric: str) -> tuple[int, int]:
    """How many pairs of cells both worlds tell apart, and how many of them stand in the same order."""
    apart = alike = 0
    for one, other in combinations([cell.row(metric) for cell in comparison.cells], 2):
        signs = [_before(a, b) for a, b in ((one.ci95, other.ci95), (one.reference_ci95, other.reference_ci95))]
        if all(signs):
            apart += 1
            alike += signs[0] == signs[1]
    return apart, alike


def _before(one: tuple[float, float | None] | None, other: tuple[float, float | None] | None) -> int:
    """-1 if the first interval ends before the second begins, 1 the other way round, and 0 if neither is known."""
    if one is None or other is None:
        return 0
    if one[1] is not None and one[1] < other[0]:
        return -1
    return 1 if other[1] is not None and other[1] < one[0] else 0


def _notes(simulated: Run | Sweep, lived: Sequence[Run | Sweep]) -> list[str]:
    """What differs of that which decides the plan."""
    parts = ("seed", "duration_s", "workload", "faults", "cluster")
    return [
        f"{part} differs: the worlds did not run the same plan, and the errors hold what chance decided for each"
        for part in parts
        if any(getattr(one.scenario, part) != getattr(simulated.scenario, part) for one in lived)
    ]


def _largest(floor: Sequence[float]) -> str:
    return f"up to {max(floor):.1%}" if floor else "-"


def _plain(one: Measured) -> Mapping[str, Any]:
    row = asdict(one.row)
    row["sim"], row["live"] = row.pop("value"), row.pop("reference")
    row["sim_ci95"], row["live_ci95"] = row.pop("ci95"), row.pop("reference_ci95")
    row["sim_at_least"], row["live_at_least"] = row.pop("at_least"), row.pop("reference_at_least")
    return {**row, "floor": list(one.floor), "verdict": one.verdict}
