"""The answer to a scenario's question: each cell against a baseline, in numbers and in sentences.

    answer(sweep)                              the cells of a sweep, against its first one
    between([("A", result), ("B", result)])    results of any folders, against the first one

What a sweep varies is of two sorts. A *choice* is what its owner can decide: policies and the cluster. A *condition* is
what happens to it: the workload, the network, the faults. Cells are compared within their condition, where they have
the same tasks; a sweep of conditions alone compares them with one another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from orchestrator.analysis.answer_tables import table_of
from orchestrator.analysis.assumptions import assumptions
from orchestrator.analysis.comparison import Incomparable
from orchestrator.analysis.conclusions import sentences
from orchestrator.analysis.contenders import Contender, Group, groups_of
from orchestrator.results.html_tables import html_of
from orchestrator.results.runs import CellRuns, Run, Sweep
from orchestrator.results.words import count
from orchestrator.scenario.arguments import require
from orchestrator.scenario.titles import cell_title

CHOICES = ("policies", "cluster")
"""The sections of a scenario that its owner decides."""


@dataclass(frozen=True)
class Answer:
    """Cells against a baseline, condition by condition."""

    scenario: str
    question: str | None
    world: str
    runs: int
    """Replications of each cell; the fewest if they differ."""
    groups: Sequence[Group]

    def __repr__(self) -> str:
        others = count(sum(len(group.others) for group in self.groups), "other")
        return f"<Answer {self.scenario} ({self.world}): {others} against {self.baseline}>"

    def _repr_html_(self) -> str:
        table = table_of(self.groups, self.runs)
        lead = f"<p><b>{escape(self.question)}</b></p>" if self.question else ""
        told = "".join(f"<li>{escape(one)}</li>" for one in self.sentences)
        assumed = f"<p>Assumed: {escape('; '.join(self.assumptions))}</p>" if self.assumptions else ""
        return f"{lead}<ul>{told}</ul>{'' if table is None else html_of(table)}{assumed}"

    @property
    def baseline(self) -> str:
        return self.groups[0].baseline.choice

    @property
    def sentences(self) -> list[str]:
        """At most five."""
        return sentences(self.groups, self.runs)

    @property
    def assumptions(self) -> list[str]:
        """What it rests on, and what a reader may take for granted wrongly."""
        return assumptions(self.groups)

    def summary(self) -> dict[str, Any]:
        """As plain numbers and sentences: the key `answer` of a sweep's `summary.json`."""
        return {
            "question": self.question,
            "baseline": self.baseline,
            "replications": self.runs,
            "sentences": self.sentences,
            "assumed": self.assumptions,
            "conditions": [
                {
                    "condition": group.condition,
                    "baseline": group.baseline.name,
                    "cells": [
                        {
                            "cell": other.cell.name,
                            "deltas": [asdict(delta) for delta in other.deltas],
                            "same_tasks": None if other.shifts is None else asdict(other.shifts),
                        }
                        for other in group.others
                    ],
                }
                for group in self.groups
            ],
        }


def answer(sweep: Sweep, baseline: str | None = None) -> Answer | None:
    """Every cell of a sweep against the baseline, which is the first cell if none is named; None if there is one cell.

    Raises Incomparable if no cell has that name, or if no two cells have a replication in common, and TypeError for
    what is no sweep.
    """
    require("sweep", sweep, Sweep, "a Sweep, as sim.sweep gives one; orchestrator.compare takes runs")
    if len(sweep.cells) < 2:
        return None
    contenders = list(_contenders(sweep.cells))
    named = next((cell.name for cell in contenders if baseline in (cell.name, cell.title)), None)
    if baseline is not None and named is None:
        names = ", ".join(cell.name for cell in contenders)
        raise Incomparable(f"there is no cell {baseline}, expected one of {names}")
    return _answer(sweep.scenario.name, sweep.scenario.question, sweep.summary["world"], contenders, named)


def between(results: Sequence[tuple[str, Run | Sweep]], baseline: str | None = None) -> Answer:
    """Any results by what they are called, against the first or the one that is named.

    Sweeps are compared cell by cell, by the names that they have in common. Raises Incomparable if there are none.
    """
    each = [(label, _cells(result)) for label, result in results]
    single = all(len(cells) == 1 for _, cells in each)
    contenders = [
        Contender(f"{label}: {name}" if name and not single else label, label, "" if single else name, {}, runs)
        for label, cells in each
        for name, runs in cells.items()
    ]
    if baseline is not None and baseline not in (label for label, _ in results):
        raise Incomparable(f"nothing is called {baseline}, expected one of {', '.join(label for label, _ in results)}")
    named = next((cell.name for cell in contenders if cell.choice == (baseline or results[0][0])), None)
    first = next(iter(contenders[0].runs.values()))
    questions = {cell.scenario.question for cell in contenders}
    question = questions.pop() if len(questions) == 1 else None
    return _answer(first.summary["scenario"], question, first.summary["world"], contenders, named)


def _answer(
    scenario: str, question: str | None, world: str, contenders: Sequence[Contender], baseline: str | None
) -> Answer:
    groups = groups_of(contenders, baseline)
    if not groups:
        names = ", ".join(cell.name for cell in contenders)
        raise Incomparable(f"nothing to compare: no cell with a replication on both sides ({names})")
    runs = min(other.runs for group in groups for other in group.others)
    return Answer(scenario, question, world, runs, groups)


def _contenders(cells: Sequence[CellRuns]) -> Iterator[Contender]:
    """The cells of a sweep; a key whose value is a condition is told by its first part."""
    keys = list(cells[0].values)
    chosen = [key for key in keys if key.partition(".")[0] in CHOICES] or keys
    given = [key for key in keys if key not in chosen]
    for cell in cells:
        values = {key: cell.values[key] for key in chosen}
        condition = cell_title({key: cell.values[key] for key in given})
        runs = dict(zip(cell.numbers, cell.runs, strict=True))
        yield Contender(cell.name, cell_title(values), condition, values, runs, cell.title)


def _cells(result: Run | Sweep) -> dict[str, dict[int, Run]]:
    """The runs of each cell by their numbers; a lone run is number 0, whichever replication it was."""
    if isinstance(result, Run):
        return {"": {0: result}}
    if len(list(result.runs)) == 1:
        return {"": dict(enumerate(result.runs))}
    return {cell.name: dict(zip(cell.numbers, cell.runs, strict=True)) for cell in result.cells}
