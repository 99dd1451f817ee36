"""What has not started, wherever it waits: at the coordinator, or at a worker that was given more than it can run."""

from __future__ import annotations

import numpy as np

from orchestrator.core.model import Outcome
from orchestrator.results.tables import OUTCOMES, Codes, Floats, Tables, codes, floats

Changes = tuple[Floats, Floats]
"""The moments at which the number of waiting tasks changes, and by how much."""

_BEGUN = (Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMED_OUT)
"""Outcomes of attempts that began, even if nobody knows when."""


def at_coordinator(tables: Tables) -> Changes:
    """A task waits here while it is accepted, not settled and not held by an attempt.

    An attempt holds it from its assignment until the attempt is given up or ends, or another attempt settles the task.
    Two attempts at once, as of a hedged task, hold it once.
    """
    tasks, attempts = tables.tasks, tables.attempts
    held_s, released_s = _held_once(
        attempts.column("task").to_numpy(), floats(attempts, "assigned_s"), _released_s(tables)
    )
    accepted_s, settled_s = floats(tasks, "accepted_s"), floats(tasks, "settled_s")
    left_s = np.where(np.isnan(accepted_s), np.nan, settled_s)  # one that was refused was never here
    moments = [accepted_s, left_s, held_s, released_s]
    return _changes(moments, [1.0, -1.0, -1.0, 1.0])


def at_workers(tables: Tables) -> Changes:
    """An attempt waits here from its assignment until it begins, or no longer holds its task.

    One that began nobody knows when counts as begun when it was assigned, unless its worker said how long it ran.
    """
    attempts = tables.attempts
    assigned_s, started_s = floats(attempts, "assigned_s"), floats(attempts, "started_s")
    begun_s = np.where(np.isnan(started_s), floats(attempts, "ended_s") - floats(attempts, "ran_s"), started_s)
    silent = np.isnan(begun_s) & np.isin(codes(attempts, "outcome", OUTCOMES), [int(outcome) for outcome in _BEGUN])
    begun_s = np.where(silent, assigned_s, np.maximum(begun_s, assigned_s))
    left_s = np.fmin(begun_s, _released_s(tables))
    waited = ~(left_s <= assigned_s)
    return _changes([assigned_s[waited], left_s[waited]], [1.0, -1.0])


def at_the_door(tables: Tables) -> Changes:
    """A task waits here from its arrival until a coordinator accepts it, if it is too busy to do so, or refuses it."""
    accepted_s, settled_s = floats(tables.tasks, "accepted_s"), floats(tables.tasks, "settled_s")
    return _changes([floats(tables.tasks, "arrival_s"), np.fmin(accepted_s, settled_s)], [1.0, -1.0])


def everywhere(tables: Tables) -> Changes:
    """A task waits, from its arrival on, while it is neither executed nor settled; at the door of a coordinator that
    is too busy to accept it, or refuses it, too."""
    time_s, change = (
        np.concatenate(each)
        for each in zip(at_the_door(tables), at_coordinator(tables), at_workers(tables), strict=True)
    )
    return time_s, change


def levels(changes: Changes, moments_s: Floats) -> Floats:
    """At each of the moments, of a level that starts at 0."""
    order = np.argsort(changes[0], kind="stable")
    level = np.append(0.0, np.cumsum(changes[1][order]))
    found: Floats = level[np.searchsorted(changes[0][order], moments_s, side="right")]
    return found


def mean_level(changes: Changes, start_s: float, stop_s: float) -> float | None:
    """The time average, between two moments, of a level that starts at 0; None if there is no time between them."""
    time_s, change = changes
    if stop_s <= start_s:
        return None
    for_s = stop_s - np.clip(time_s, start_s, stop_s)
    area, rounding = float(change @ for_s), float(np.finfo(np.float64).eps * (np.abs(change) @ for_s))
    return area / (stop_s - start_s) if area > rounding else 0.0


def _held_once(task: Codes, held_s: Floats, released_s: Floats) -> tuple[Floats, Floats]:
    """Intervals that do not overlap, from those of attempts in the order of the table: each begins where the earlier
    ones of its task end, if it began before. NaN in both for one that adds nothing."""
    held_s, released_s = held_s.copy(), released_s.copy()
    until_s = np.where(np.isnan(released_s), np.inf, released_s)
    for row in np.flatnonzero(task[1:] == task[:-1]) + 1:
        before_s = until_s[row - 1]
        if held_s[row] < before_s:
            adds = until_s[row] > before_s
            held_s[row] = before_s if adds else np.nan
            released_s[row] = released_s[row] if adds else np.nan
            until_s[row] = max(until_s[row], before_s)
    return held_s, released_s


def _released_s(tables: Tables) -> Floats:
    """When each attempt no longer holds its task; NaN if it did until the end."""
    attempts = tables.attempts
    row: Codes = np.searchsorted(tables.tasks.column("task").to_numpy(), attempts.column("task").to_numpy())
    # A record that the history checker is to judge may have attempts of tasks that it lacks.
    settled_s = np.append(floats(tables.tasks, "settled_s"), np.nan)[row]
    given_up_s = np.fmin(floats(attempts, "given_up_s"), floats(attempts, "ended_s"))
    released_s: Floats = np.fmin(given_up_s, settled_s)
    return released_s


def _changes(moments: list[Floats], steps: list[float]) -> Changes:
    time_s = np.concatenate(moments)
    change = np.repeat(steps, [len(m) for m in moments])
    happened = ~np.isnan(time_s)
    return time_s[happened], change[happened]
