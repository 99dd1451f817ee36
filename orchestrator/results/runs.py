"""What a world gives back: one run, or a sweep of many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.results import summaries
from orchestrator.results.summaries import Summary
from orchestrator.results.tables import Tables

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.pictures.style import Figures
    from orchestrator.scenario.schema import Scenario


def plain(value: Any) -> Any:
    """A swept value that fits a table cell or a legend: `{kind: power_of_d, d: 2}` reads `power_of_d d=2`."""
    if isinstance(value, Mapping):
        return " ".join(str(v) if key == "kind" else f"{key}={plain(v)}" for key, v in value.items())
    if isinstance(value, list):
        return " + ".join(str(plain(item)) for item in value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return "none" if value is None else value


class Run:
    """One run of one scenario in one world: its summary, its tables and what it came from."""

    def __init__(self, summary: Summary, tables: Tables, scenario: Scenario) -> None:
        self.summary = summary
        self._tables = tables
        self._scenario = scenario

    def __repr__(self) -> str:
        tasks = self.summary["tasks"]
        return f"<Run {self.title}: {tasks['completed']} of {tasks['submitted']} tasks completed>"

    @property
    def title(self) -> str:
        return f"{self.summary['scenario']} ({self.summary['world']})"

    @property
    def tables(self) -> Tables:
        return self._tables

    @property
    def scenario(self) -> Scenario:
        return self._scenario

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row a task."""
        frame: pd.DataFrame = self.tables.tasks.to_pandas()
        return frame

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """One row an attempt."""
        frame: pd.DataFrame = self.tables.attempts.to_pandas()
        return frame

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row an event of a worker: up, suspect, dead, drain, left, crash, pause, heal."""
        frame: pd.DataFrame = self.tables.events.to_pandas()
        return frame

    def plot(self, out_dir: str | Path | None = None) -> Figures:
        """The figures by name, which a notebook shows; saved as PNG and SVG where `out_dir` is given."""
        from orchestrator.pictures import run_plots

        return run_plots.of_run(self).saved(out_dir)

    def save(self, folder: str | Path) -> None:
        """Write the run folder: tables, scenario, summary, trace and plots; an older run in it is replaced."""
        from orchestrator.results import folders

        folders.write_run(Path(folder), self.scenario, self.summary, self.tables)
        folders.draw(Path(folder), self)


@dataclass(frozen=True)
class CellRuns:
    """The replications of one cell of a sweep, and the summary of them all."""

    name: str
    values: dict[str, Any]
    """What this cell sets each swept key to; empty where nothing is swept."""
    runs: Sequence[Run]
    numbers: Sequence[int]
    """The replication that each run is: 0, 1, ..., with gaps where a sweep was interrupted."""
    pooled: Summary

    @classmethod
    def of(cls, name: str, values: dict[str, Any], runs: Mapping[int, Run]) -> CellRuns:
        """From the runs by the number of their replication."""
        numbered = dict(sorted(runs.items()))
        return cls(name, values, list(numbered.values()), list(numbered), summaries.pool(list(numbered.values())))


class Sweep:
    """Several runs: the cells of a sweep, each with its replications; at least one cell, each with a run."""

    def __init__(self, scenario: Scenario, cells: Sequence[CellRuns], interrupted: bool = False) -> None:
        self.scenario = scenario
        self.cells = list(cells)
        self.interrupted = interrupted

    def __repr__(self) -> str:
        return f"<Sweep {self.title}: {len(self.cells)} cells, {len(list(self.runs))} runs>"

    @property
    def title(self) -> str:
        return f"{self.summary['scenario']} ({self.summary['world']})"

    @property
    def runs(self) -> Iterator[Run]:
        return (run for cell in self.cells for run in cell.runs)

    @cached_property
    def summary(self) -> Summary:
        """The pooled summary of every cell; of a single cell also at the top level."""
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
            {"cell": cell.name, "values": cell.values, "runs": list(cell.numbers), **cell.pooled}
            for cell in self.cells
        ]
        return {**header, **(first if len(cells) == 1 else {}), "cells": cells}

    def table(self) -> pd.DataFrame:
        """One row a run: `cell`, the swept keys, `replication`, then every metric by its dotted name."""
        import pandas as pd

        return pd.DataFrame(
            {
                "cell": cell.name,
                **{key: plain(value) for key, value in cell.values.items()},
                "replication": number,
                **summaries.flatten(run.summary),
            }
            for cell in self.cells
            for number, run in zip(cell.numbers, cell.runs, strict=True)
        )

    def plot(self, out_dir: str | Path | None = None) -> Figures:
        """The figures by name, which a notebook shows; saved as PNG and SVG where `out_dir` is given.

        Of a grid: percentiles against each swept key, and the detector's trade-off. Of replications of a single
        cell: the distributions, with the confidence of their percentiles.
        """
        from orchestrator.pictures import run_plots, sweep_plots

        draw = run_plots.of_replications if len(self.cells) == 1 else sweep_plots.of_sweep
        return draw(self).saved(out_dir)

    def save(self, folder: str | Path) -> None:
        """Write `folder/<cell>/r<k>` for every run, the aggregate and its plots; an older sweep in it is replaced."""
        from orchestrator.results import folders

        folders.write_sweep(Path(folder), self)
        folders.draw(Path(folder), self)
