"""How long the tasks of a run took. What never ended is infinite: slower than everything that did."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from orchestrator.results.tables import STATES, Floats, State, codes, floats

_COMPLETED = STATES.index(State.COMPLETED)


def latency_s(tasks: pa.Table) -> Floats:
    """Arrival to result; infinite for a task that failed or is unfinished."""
    return np.where(codes(tasks, "state", STATES) == _COMPLETED, floats(tasks, "latency_s"), np.inf)


def wait_s(tasks: pa.Table) -> Floats:
    """Arrival to first start; infinite for a task that never started, NaN if it completed and its start is unknown."""
    waited_s, completed = floats(tasks, "wait_s"), codes(tasks, "state", STATES) == _COMPLETED
    return np.where(np.isnan(waited_s) & ~completed, np.inf, waited_s)


def accept_s(tasks: pa.Table) -> Floats:
    """Arrival to acceptance; infinite for a task that was never accepted."""
    return np.nan_to_num(floats(tasks, "accepted_s") - floats(tasks, "arrival_s"), nan=np.inf)


def age_s(tasks: pa.Table, ended_s: float) -> Floats:
    """Arrival to settling, or to the end of the run: what is infinite above had lasted for so long."""
    settled_s = floats(tasks, "settled_s")
    age: Floats = np.where(np.isnan(settled_s), ended_s, settled_s) - floats(tasks, "arrival_s")
    return np.maximum(age, 0.0)
