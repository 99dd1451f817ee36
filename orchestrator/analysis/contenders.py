"""Who is compared with whom: cells in groups of one condition, each against the baseline of its group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.analysis.deltas import Delta, Reading, deltas
from orchestrator.analysis.victims import TaskShifts
from orchestrator.results.runs import Run
from orchestrator.scenario.loads import occupancy

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario


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


@dataclass(frozen=True)
class Against:
    """One cell against the baseline of its condition."""

    cell: Contender
    runs: int
    """How many pairs of runs were compared."""
    deltas: Sequence[Delta]
    shifts: TaskShifts | None
    """None if the two have different tasks."""

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
    """The best of three or more cells by p99, against which the second-best is measured: see `best`."""

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

    def place(self, cell: Contender) -> tuple[float, float]:
        """By what cells are ranked: p99, then p50 of the latency; infinite where too many tasks were lost."""
        values = []
        for measure in ("latency_s.p99", "latency_s.p50"):
            if cell is self.baseline:
                value = self.others[0].delta(measure).baseline
            else:
                value = next(other for other in self.others if other.cell is cell).delta(measure).value
            values.append(float("inf") if value is None else value)
        return values[0], values[1]

    @property
    def ranked(self) -> list[Contender]:
        """The best first."""
        return sorted(self.cells, key=self.place)


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
    best, second = group.ranked[:2]
    return Group(condition, first, against, _against({n: Reading.of(run) for n, run in best.runs.items()}, second))


def _against(readings: Mapping[int, Reading], cell: Contender) -> Against | None:
    numbers = [number for number in readings if number in cell.runs]
    if not numbers:
        return None
    found, shifted = deltas([readings[n] for n in numbers], [Reading.of(cell.runs[n]) for n in numbers])
    return Against(cell, len(numbers), found, shifted)
