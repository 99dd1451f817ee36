"""Runs and sweeps as plain data: what a world returns and what a run folder gives back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from orchestrator.results.html_tables import html_of
from orchestrator.results.statistics import flatten
from orchestrator.results.summaries import Summary, pool
from orchestrator.results.summary_tables import tables_of
from orchestrator.results.tables import Tables
from orchestrator.results.words import count
from orchestrator.scenario.titles import cell_title, table_value

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.scenario.schema import Scenario


MOST_SHOWN = 50
"""Cells that a notebook shows."""


class Run:
    """One run of one scenario in one world: its summary, its tables and its scenario."""

    def __init__(self, summary: Summary, tables: Tables, scenario: Scenario) -> None:
        self.summary = summary
        self._tables = tables
        self._scenario = scenario

    def __repr__(self) -> str:
        tasks = self.summary["tasks"]
        return f"<Run {self.title}: {tasks['completed']} of {tasks['submitted']} tasks completed>"

    def _repr_html_(self) -> str:
        return "".join(map(html_of, tables_of({"all tasks": self.summary}, f"{self.title}: ")))

    @property
    def title(self) -> str:
        """`NAME (WORLD)`."""
        return f"{self.summary['scenario']} ({self.summary['world']})"

    @property
    def tables(self) -> Tables:
        return self._tables

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """The tasks table, one row per task; docs/columns.md explains its columns."""
        frame: pd.DataFrame = self.tables.tasks.to_pandas()
        return frame

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """The attempts table, one row per attempt."""
        frame: pd.DataFrame = self.tables.attempts.to_pandas()
        return frame

    @cached_property
    def events(self) -> pd.DataFrame:
        """The events table, one row per change of a worker and per beginning or end of a fault."""
        frame: pd.DataFrame = self.tables.events.to_pandas()
        return frame


@dataclass(frozen=True)
class CellRuns:
    """The replications of one cell of a sweep, and their pooled summary."""

    name: str
    values: dict[str, Any]
    """The value of each swept key in this cell; empty if nothing is swept."""
    runs: Sequence[Run]
    numbers: Sequence[int]
    """The replication number of each run: 0, 1, ..., with gaps if the sweep was interrupted."""
    pooled: Summary

    def __repr__(self) -> str:
        return f"<CellRuns {self.name}: {count(len(self.runs), 'run')}>"

    @property
    def title(self) -> str:
        """What people call it; its name is that of its folder."""
        return cell_title(self.values) or self.name

    @classmethod
    def of(cls, name: str, values: dict[str, Any], runs: Mapping[int, Run]) -> CellRuns:
        """`runs`: the runs by their replication numbers."""
        numbered = dict(sorted(runs.items()))
        return cls(name, values, list(numbered.values()), list(numbered), pool(list(numbered.values())))


class Sweep(Mapping[str, CellRuns]):
    """Several runs: at least one cell, each with at least one replication. A mapping of the cells by their names."""

    def __init__(self, scenario: Scenario, cells: Sequence[CellRuns], interrupted: bool = False) -> None:
        self.scenario = scenario
        self.cells = list(cells)
        self.interrupted = interrupted

    def __repr__(self) -> str:
        runs = sum(len(cell.runs) for cell in self.cells)
        return f"<Sweep {self.title}: {count(len(self.cells), 'cell')}, {count(runs, 'run')}>"

    def _repr_html_(self) -> str:
        shown = {cell.name: cell.pooled for cell in self.cells[:MOST_SHOWN]}
        left_out = len(self.cells) - len(shown)
        more = f"<p>and {count(left_out, 'more cell')}: see table()</p>" if left_out else ""
        return "".join(map(html_of, tables_of(shown, f"{self.title}: "))) + more

    def __getitem__(self, name: str) -> CellRuns:
        """The cell of that name; KeyError says which there are."""
        if name not in self._by_name:
            names = [cell.name for cell in self.cells[:MOST_SHOWN]]
            raise KeyError(f"there is no cell {name}, expected one of {', '.join(names)}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> dict[str, CellRuns]:
        return {cell.name: cell for cell in self.cells}

    def __iter__(self) -> Iterator[str]:
        return (cell.name for cell in self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def title(self) -> str:
        """`NAME (WORLD)`."""
        return f"{self.summary['scenario']} ({self.summary['world']})"

    @property
    def runs(self) -> Iterator[Run]:
        """Every run of every cell."""
        return (run for cell in self.cells for run in cell.runs)

    @cached_property
    def summary(self) -> Summary:
        """The pooled summary of every cell. If there is one cell, its summary is also at the top level."""
        first = self.cells[0].pooled
        header: Summary = {
            "scenario": self.scenario.name,
            "world": first["world"],
            "seed": self.scenario.seed,
            "duration_s": float(self.scenario.duration_s),
        }
        if self.interrupted:
            header["interrupted"] = True
        cells = [
            {"cell": cell.name, "values": cell.values, "runs": list(cell.numbers), **cell.pooled} for cell in self.cells
        ]
        return {**header, **(first if len(cells) == 1 else {}), "cells": cells}

    def table(self) -> pd.DataFrame:
        """One row per run: `cell`, the swept keys, `replication`, then every metric by its dotted name."""
        import pandas as pd

        return pd.DataFrame(
            {
                "cell": cell.name,
                **{key: table_value(key, value) for key, value in cell.values.items()},
                "replication": number,
                **flatten(run.summary),
            }
            for cell in self.cells
            for number, run in zip(cell.numbers, cell.runs, strict=True)
        )
