"""As many replications as a number needs: until its 95 % interval is narrow enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.results.recorder import Recorder
from orchestrator.results.runs import CellRuns, Run
from orchestrator.results.statistics import flatten
from orchestrator.results.summaries import engine_summary, summarise
from orchestrator.scenario.schema import Scenario

MOST = 100
"""Replications, if nobody says how many at most."""


class UnknownMetric(Exception):
    """A number that no summary has, or that has no interval. One sentence."""


@dataclass(frozen=True)
class Precision:
    """What is wanted: half the width of the interval of `metric` over its value, and at most so many replications.

    `metric`: by its dotted name in the summary, such as `latency_s.p99`.
    """

    metric: str
    half_width: float
    most: int = MOST

    def require_known(self, scenario: Scenario) -> None:
        """Raises UnknownMetric if no summary of this scenario can have the number, as far as that is known before."""
        none = np.empty(0)
        tables = Recorder().tables(none, none, none.astype(np.uint8), scenario.worker_names(), 0.0)
        tables = tables.with_kinds([] if scenario.workload.kind_names() else None)
        run = Run(summarise(tables, scenario, "sim", engine_summary(1.0, 0, 0), Counter()), tables, scenario)
        if not self.metric.startswith(("by_priority.", "by_kind.")):  # which there are depends on what arrives
            self.reached(CellRuns.of("base", {}, {0: run, 1: run}))

    def further(self, cells: Sequence[CellRuns]) -> dict[str, int]:
        """How many replications each of those cells is to have next that have too few.

        The width falls with the square root of their number, so that as many are aimed at as would do, and at most
        twice as many as there are: the width is itself only estimated. Raises UnknownMetric.
        """
        wanted = {}
        for cell in cells:
            there, now = len(cell.runs), self.reached(cell)
            if now is None or now > self.half_width:
                aim = math.ceil(there * (now / self.half_width) ** 2) if now is not None else 2 * there
                wanted[cell.name] = min(max(aim, there + 1), 2 * there, self.most)
        return {cell.name: wanted[cell.name] for cell in cells if wanted.get(cell.name, 0) > len(cell.runs)}

    def reached(self, cell: CellRuns) -> float | None:
        """Half the width of the interval over the value; None if the replications are too few to tell."""
        intervals = cell.pooled["ci95"]
        if self.metric not in intervals:
            raise UnknownMetric(f"{self.metric} has no interval, expected one of {', '.join(sorted(intervals))}")
        value, interval = flatten(cell.pooled).get(self.metric), intervals[self.metric]
        if interval is None or interval[1] is None or value is None:
            return None
        half = (interval[1] - interval[0]) / 2
        return half / abs(value) if value else (0.0 if not half else None)

    def told(self, cells: Sequence[CellRuns]) -> list[str]:
        """A sentence for each cell: what was reached, and with how many replications."""
        sentences = []
        for cell in cells:
            now, count = self.reached(cell), len(cell.runs)
            where = f"{cell.name}: " if len(cells) > 1 else ""
            how = "the replications are too few to tell its interval" if now is None else f"known to ± {now:.2%}"
            missed = now is None or now > self.half_width
            asked = f", and ± {self.half_width:.2%} was asked for" if missed else ""
            sentences.append(f"{where}{self.metric} after {count:,} replications: {how}{asked}")
        return sentences
