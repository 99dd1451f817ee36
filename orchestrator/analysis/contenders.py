"""Who is compared with whom: cells in groups of one condition, each against the baseline of its group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.deltas import Delta, Reading, deltas
from orchestrator.analysis.victims import TaskShifts
from orchestrator.results.runs import Run
from orchestrator.scenario.loads import occupancy

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

RANKED = ("p99", "p95", "p50", "p999")
"""The percentiles by which cells are ranked; the first that tells them apart."""
SMALL = 0.001
"""A smaller share of a percentile is not worth a sentence."""


@dataclass(frozen=True)
class Contender:
    """What takes part in a comparison: the runs of one cell, by the numbers of their replications."""

    name: str
    """Of the cell, or what the user calls it."""
    choice: str
    """What tells it from the others of its condition."""
    condition: str
    """Empty if there is only one."""
    values: Mapping[str, Any]
    """The swept values that make up the choice, by key."""
    runs: Mapping[int, Run]
    title: str = ""
    """What people call it, if that is not its name."""

    @property
    def scenario(self) -> Scenario:
        return next(iter(self.runs.values())).scenario

    @property
    def quoted(self) -> str:
        """The choice as a sentence calls it, in quotes where it has commas of its own."""
        return f'"{self.choice}"' if ", " in self.choice else self.choice


@dataclass(frozen=True)
class Against:
    """One cell against the baseline of its condition."""

    cell: Contender
    runs: int
    """How many pairs of runs were compared."""
    deltas: Sequence[Delta]
    shifts: TaskShifts | None
    """None if the two have different tasks, or if the baseline has no median by which to tell a delay."""
    same_tasks: bool = True
    """Whether each pair of runs has the same arrivals."""

    def delta(self, measure: str) -> Delta:
        """StopIteration if there is none."""
        return next(delta for delta in self.deltas if delta.measure == measure)


@dataclass(frozen=True)
class Group:
    """The cells of one condition."""

    condition: str
    baseline: Contender
    others: Sequence[Against]
    runner_up: Against | None = None
    """The next after the best of three or more cells, against the best one; None if no percentile tells them apart."""

    @property
    def load(self) -> float | None:
        """The offered load if it is the same in all cells."""
        loads = {cell.scenario.offered_load() for cell in self.cells}
        return loads.pop() if len(loads) == 1 else None

    @property
    def occupancy(self) -> float | None:
        """The share of the slots' time that tasks hold, if it is the same in all cells."""
        shares = {occupancy(cell.scenario) for cell in self.cells}
        return shares.pop() if len(shares) == 1 else None

    @property
    def cells(self) -> list[Contender]:
        return [self.baseline, *(other.cell for other in self.others)]

    def value(self, cell: Contender, measure: str) -> float | None:
        if cell is self.baseline:
            return self.others[0].delta(measure).baseline
        return next(other for other in self.others if other.cell is cell).delta(measure).value

    def latencies(self, metric: str) -> list[float]:
        """Of each cell; infinite where it falls on a task that was lost."""
        return [_or_infinite(self.value(cell, f"latency_s.{metric}")) for cell in self.cells]

    @property
    def ranked_by(self) -> str | None:
        """The percentile that tells the cells apart: p99 if it does; None if none does."""
        return next((metric for metric in RANKED if differ(self.latencies(metric))), None)

    def place(self, cell: Contender) -> tuple[float, float]:
        """By what cells are ranked: the percentile that tells them apart, then p50."""
        first, second = (
            _or_infinite(self.value(cell, f"latency_s.{metric}")) for metric in (self.ranked_by or RANKED[0], "p50")
        )
        return first, second

    @property
    def ranked(self) -> list[Contender]:
        """The best first."""
        return sorted(self.cells, key=self.place)

    @property
    def best(self) -> list[Contender]:
        """All that have the lowest value of what tells the cells apart."""
        ranked = self.ranked
        return [cell for cell in ranked if self.place(cell)[0] == self.place(ranked[0])[0]]

    def lowest(self, metric: str) -> list[Contender]:
        """All that have the lowest value of a percentile; empty if it is known of none."""
        values = self.latencies(metric)
        return [
            cell
            for cell, value in zip(self.cells, values, strict=True)
            if math.isfinite(value) and value == min(values)
        ]

    def deltas(self, measure: str) -> list[Delta]:
        """Of the other cells against the baseline."""
        return [other.delta(measure) for other in self.others]


def differ(values: Sequence[float]) -> bool:
    """By more than the rounding of what is printed."""
    return math.isfinite(min(values)) and max(values) > min(values) * (1 + SMALL)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def groups_of(contenders: Sequence[Contender], baseline: str | None = None) -> list[Group]:
    """The groups in which there is something to compare. `baseline`: the name of a contender, whose choice is the
    baseline of every group; the first one if it is None."""
    chosen = next((cell for cell in contenders if cell.name == baseline), contenders[0])
    found = []
    for condition in dict.fromkeys(cell.condition for cell in contenders):
        cells = [cell for cell in contenders if cell.condition == condition]
        first = next((cell for cell in cells if cell.choice == chosen.choice), None)
        others = [cell for cell in cells if cell is not first]
        if first is not None and others and (group := _group(condition, first, others)) is not None:
            found.append(group)
    return found


def _group(condition: str, first: Contender, others: Sequence[Contender]) -> Group | None:
    readings = {number: Reading.of(run) for number, run in first.runs.items()}
    against = [found for cell in others if (found := _against(readings, cell)) is not None]
    if not against:
        return None
    group = Group(condition, first, against)
    if len(against) == 1:
        return group
    best, rest = group.ranked[0], group.ranked[len(group.best) :]
    if not rest:
        return group
    return Group(condition, first, against, _against({n: Reading.of(run) for n, run in best.runs.items()}, rest[0]))


def _against(readings: Mapping[int, Reading], cell: Contender) -> Against | None:
    numbers = [number for number in readings if number in cell.runs]
    if not numbers:
        return None
    ours, base = [Reading.of(cell.runs[n]) for n in numbers], [readings[n] for n in numbers]
    found, shifted = deltas(base, ours)
    same = all(one.trial.same_tasks(other.trial) for one, other in zip(base, ours, strict=True))
    return Against(cell, len(numbers), found, shifted, same)
