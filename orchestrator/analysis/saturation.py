"""Cells that cannot keep up: more arrives than is done, so that their latencies say how long they ran."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.analysis.contenders import Contender, Group
from orchestrator.results.queues import everywhere, levels
from orchestrator.results.runs import Run
from orchestrator.results.tables import Floats, floats
from orchestrator.results.words import listed, number
from orchestrator.scenario.workload import Closed

LEAST = 0.01
"""The share of the arrivals by which the queue has to grow."""
PIECES = 20
QUARTERS = 4
SURE = 3.0
"""Standard errors by which the mean growth of the pieces of a run is over 0. Of 4,000 runs of 1,000 tasks on two M/M/1
queues that begin empty it is told of none at a load of 0.9, of 2 at 0.95 and of 16 at 0.99; and of 967 at 1.1, where
such short runs seldom show it."""
MOST_NAMED = 2


@dataclass(frozen=True)
class Overrun:
    """A cell whose queue grows from the warm-up to the end of the arrivals."""

    cell: str
    arrivals_per_s: float
    completed_per_s: float

    def __str__(self) -> str:
        return f"{number(self.completed_per_s)}/s of {number(self.arrivals_per_s)}/s"


def cannot_keep_up(groups: Sequence[Group]) -> list[str]:
    """One sentence on the cells of which that is sure, the worst one first; none if there is none."""
    found = [one for group in groups for cell in group.cells if (one := overrun(cell)) is not None]
    if not found:
        return []
    if len(found) == 1:
        return [f"{found[0].cell} cannot keep up ({found[0]}): its latencies depend on how long it runs."]
    found.sort(key=lambda one: one.completed_per_s / one.arrivals_per_s)
    named = [f"{one.cell} ({one})" for one in found[:MOST_NAMED]]
    rest = [f"{len(found) - MOST_NAMED} more"] if len(found) > MOST_NAMED else []
    return [f"{listed([*named, *rest])} cannot keep up: their latencies depend on how long they run."]


def overrun(cell: Contender) -> Overrun | None:
    """None if it keeps up, or if that is not sure; and of closed clients, who wait for their results."""
    runs, scenario = list(cell.runs.values()), cell.scenario
    if isinstance(scenario.workload.arrivals, Closed) or not any(map(_may_be_behind, runs)):
        return None
    edges_s = np.linspace(scenario.warmup_s, scenario.duration_s, PIECES + 1)
    read = [_pieces(run, edges_s) for run in runs]
    arrived, grown = (np.array(each) for each in zip(*read, strict=True))
    if np.sum(grown) < LEAST * np.sum(arrived) or not _grows(grown):
        return None
    arrivals_per_s = float(np.sum(arrived)) / len(runs) / (scenario.duration_s - scenario.warmup_s)
    completed_per_s = float(np.mean([run.summary["throughput_per_s"] for run in runs]))
    return Overrun(cell.title or cell.name, arrivals_per_s, completed_per_s)


def _may_be_behind(run: Run) -> bool:
    """By its summary alone, because tables take long to read."""
    told = run.summary
    return bool(told["throughput_per_s"] < (1 - LEAST) * told["tasks"]["submitted"] / run.scenario.duration_s)


def _pieces(run: Run, edges_s: Floats) -> tuple[Floats, Floats]:
    """Between each two moments: how many tasks arrived, and by how many more tasks wait."""
    tables = run.tables
    arrived, _ = np.histogram(floats(tables.tasks, "arrival_s"), edges_s)
    return arrived.astype(np.float64), np.diff(levels(everywhere(tables), edges_s))


def _grows(grown: Floats) -> bool:
    """Of all runs together, on average and in each quarter: a burst, or a fault that ends, makes no queue grow on."""
    quarters = grown.reshape(len(grown), QUARTERS, -1).sum(axis=(0, 2))
    error = float(np.std(grown, ddof=1)) / grown.size**0.5
    return bool(np.all(quarters > 0) and np.mean(grown) > SURE * error)
