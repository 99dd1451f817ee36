"""When each worker was away, as the events of a run show it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.core.model import Detail, WorkerEvent
from orchestrator.results.tables import Event, FaultEvent

_UNKNOWN = "had not registered since the coordinator crashed"
NEW_PROCESS = (Detail.REGISTERED, Detail.REREGISTERED)
"""The details of the UP events with which a new process of a worker begins."""


class Absence(NamedTuple):
    """From `since_s` to `until_s` nothing may be assigned to the worker."""

    worker: int
    since_s: float
    until_s: float
    why: str


class Parting(NamedTuple):
    """At this time the coordinator stops counting on what the worker holds. `gone`: it also knows that it is lost.

    `back_s`: when the same process was there again, infinity if it never was. From then on the coordinator may count on
    it again; at which moment it did, no event shows. A crash of the coordinator counts as such a return: that it had
    stopped counting may not have been stored.
    """

    worker: int
    at_s: float
    gone: bool
    why: str
    back_s: float = math.inf


class _Away(NamedTuple):
    """An absence begins: which state of the worker it is, and what the state is called."""

    state: WorkerEvent
    why: str


_AWAY: dict[str, _Away] = {
    WorkerEvent.SUSPECT: _Away(WorkerEvent.DEAD, "was suspect"),
    WorkerEvent.DEAD: _Away(WorkerEvent.DEAD, "was declared dead"),
    WorkerEvent.LEFT: _Away(WorkerEvent.DEAD, "had left"),
    WorkerEvent.DRAIN: _Away(WorkerEvent.DRAIN, "drained"),
    WorkerEvent.EJECTED: _Away(WorkerEvent.EJECTED, "was ejected"),
}
"""The events that begin an absence. Any UP ends the absences of state DEAD."""


def absences_of(workers: int, events: Iterable[tuple[int, Event]]) -> tuple[list[Absence], list[Parting]]:
    """The absences and partings of workers 0 to `workers` - 1. `events`: the position of the worker and the event, in
    the order of time."""
    absences: list[Absence] = []
    partings: list[Parting] = []
    away: dict[tuple[int, str], tuple[float, str]] = {
        (worker, WorkerEvent.DEAD): (-math.inf, "had never registered") for worker in range(workers)
    }
    dead: dict[int, int] = {}  # where the last parting of each worker that is dead stands

    def back(worker: int, state: str, at_s: float) -> None:
        if (worker, state) in away:
            since_s, why = away.pop((worker, state))
            absences.append(Absence(worker, since_s, at_s, why))

    for worker, (at_s, kind, _, detail) in events:
        if kind == FaultEvent.COORDINATOR_CRASH:
            for each, state in list(away):
                back(each, state, at_s)
            away |= {(each, WorkerEvent.DEAD): (at_s, _UNKNOWN) for each in range(workers)}
            partings[:] = [parting._replace(back_s=min(parting.back_s, at_s)) for parting in partings]
            dead.clear()
        elif kind == WorkerEvent.UP:
            back(worker, WorkerEvent.DEAD, at_s)
            place = dead.pop(worker, None)
            if detail in NEW_PROCESS:
                back(worker, WorkerEvent.DRAIN, at_s)
                back(worker, WorkerEvent.EJECTED, at_s)
            elif place is not None:
                partings[place] = partings[place]._replace(back_s=at_s)
            if detail == Detail.REREGISTERED:
                partings.append(Parting(worker, at_s, True, "began anew"))
        elif kind == WorkerEvent.READMITTED:
            back(worker, WorkerEvent.EJECTED, at_s)
        elif kind in _AWAY:
            begins = _AWAY[kind]
            away.setdefault((worker, begins.state), (at_s, begins.why))
            if kind == WorkerEvent.DEAD:
                dead[worker] = len(partings)
            if kind in (WorkerEvent.DEAD, WorkerEvent.LEFT):
                partings.append(Parting(worker, at_s, kind == WorkerEvent.LEFT, begins.why))
    for worker, state in list(away):
        back(worker, state, math.inf)
    return absences, partings
