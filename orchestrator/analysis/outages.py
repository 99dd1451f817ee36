"""A crash of the coordinator as tasks show it: for how long none is settled, and how the backlog goes away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.analysis.measures import Measures
from orchestrator.results.queues import mean_level
from orchestrator.results.runs import Run
from orchestrator.results.tables import FaultEvent, Floats, event_rows, floats

SHARES = {"half": 0.5, "quarter": 0.25, "tenth": 0.1}
"""Of the backlog that a crash leaves, what is still there after a while."""
OUTAGE = "outage_s.mean"
BACKLOG = "backlog.mean"
RECOVERY = [f"recovery_s.{name}" for name in SHARES]
OUTAGES = [OUTAGE, BACKLOG, *RECOVERY]


def measure(runs: Sequence[Run]) -> Measures:
    """OUTAGES by name, the means over all crashes of coordinators in these runs; NaN where there are none.

    An outage lasts from the crash until the next task is settled. The backlog is the largest number of tasks in hand
    (arrived and not settled) after a crash, beyond their mean number from `warmup_s` to the first crash; recovery takes
    from the crash until no more than a share of that is left.
    """
    found = [each for run in runs for each in _outages(run)]
    columns: list[Floats] = [np.array(column) for column in zip(*found, strict=True)]
    return {name: float(np.mean(column)) for name, column in zip(OUTAGES, columns, strict=False)}


def _outages(run: Run) -> list[list[float]]:
    """In the order of OUTAGES; NaN where it was not over when the next one began, or the run ended."""
    crashes_s = [event.time_s for event in event_rows(run.tables.events, [FaultEvent.COORDINATOR_CRASH])]
    if not crashes_s:
        return []
    arrival_s, settled_s = floats(run.tables.tasks, "arrival_s"), floats(run.tables.tasks, "settled_s")
    settled_s = np.sort(settled_s[~np.isnan(settled_s)])
    at_s, change = np.concatenate([arrival_s, settled_s]), np.repeat([1.0, -1.0], [len(arrival_s), len(settled_s)])
    usual = mean_level((at_s, change), run.scenario.warmup_s, crashes_s[0]) or 0.0
    order = np.argsort(at_s, kind="stable")
    at_s, in_hand = at_s[order], np.cumsum(change[order])
    found = []
    for crash_s, until_s in zip(crashes_s, [*crashes_s[1:], math.inf], strict=True):
        after = slice(*np.searchsorted(at_s, [crash_s, until_s]))
        next_s = settled_s[np.searchsorted(settled_s, crash_s, side="right") :]
        backlog = in_hand[after] - usual
        if not len(backlog) or not len(next_s):
            continue
        peak = int(np.argmax(backlog))
        falls = [np.flatnonzero(backlog[peak:] <= share * backlog[peak]) for share in SHARES.values()]
        recovery_s = [at_s[after][peak + fall[0]] - crash_s if len(fall) else math.nan for fall in falls]
        found.append([float(next_s[0]) - crash_s, float(backlog[peak]), *map(float, recovery_s)])
    return found
