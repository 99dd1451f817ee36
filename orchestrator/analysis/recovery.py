"""What a history must show of a coordinator that crashed and was followed by another: promises, as in `promises`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from orchestrator.analysis.absences import NEW_PROCESS
from orchestrator.analysis.history import Breach, History, Violation, at_time
from orchestrator.core.model import Outcome, WorkerEvent
from orchestrator.results.tables import CoordinatorEvent, FaultEvent, HealDetail

_LOST = (Outcome.CALL_FAILED, Outcome.WORKER_DIED)


def durable(h: History) -> Iterator[Breach]:
    """What a client was told, that its task is taken or how it ended, is known to every later coordinator."""
    lost = h.events_of(CoordinatorEvent.LOST)

    def say(i: int) -> Violation:
        task, at_s = int(lost[i].detail or -1), lost[i].time_s
        told = f"the coordinator that began at {at_time(at_s)} does not know what a client had been told of task {task}"
        return Violation("", told, task, at_s=at_s)

    yield Breach(np.arange(len(lost)), say)


def terms(h: History) -> Iterator[Breach]:
    """Each coordinator has a higher term than the one before."""
    told = [int((event.detail or "").split()[-1]) for event in h.events_of(CoordinatorEvent.RECOVERED)]
    fell = [(before, term) for before, term in pairwise(told) if term <= before]
    yield Breach(
        np.arange(len(fell)),
        lambda i: Violation("", f"a coordinator of term {fell[i][0]} was followed by one of term {fell[i][1]}"),
    )


def adopted(h: History) -> Iterator[Breach]:
    """What a worker held as the coordinator crashed goes on: it is not lost when the worker is back, in the same
    process."""
    for worker, crashed_s, back_s, changed_s in _returns(h):
        rows = h.given(worker, -math.inf, crashed_s)
        begun = (h.started_s[rows] < crashed_s) & (h.started_s[rows] > changed_s)
        dropped = np.isin(h.outcome[rows], _LOST) & (h.ended_s[rows] == back_s) & (h.given_up_s[rows] == back_s)
        yield h.attempts(
            rows[begun & dropped],
            lambda i: f"had begun at {at_time(h.started_s[i])}, and was dropped when its worker was back",
        )


class _Return(NamedTuple):
    """The first registration of a worker with a later coordinator that still waits for it. `changed_s`: when the one
    before last heard which process the worker is; infinite if a fault has changed that since."""

    worker: int
    crashed_s: float
    back_s: float
    changed_s: float


def _returns(h: History) -> Iterator[_Return]:
    if not h.events_of(FaultEvent.COORDINATOR_CRASH):
        return
    crashed_s = math.inf
    unknown: set[int] = set()
    changed_s: dict[int, float] = {}
    for worker, (at_s, kind, _, detail) in h.events():
        if kind == FaultEvent.COORDINATOR_CRASH:
            crashed_s, unknown = at_s, set(range(len(h.workers)))
        elif kind in (FaultEvent.CRASH, FaultEvent.RESTART) or detail == HealDetail.RESTART:
            changed_s[worker] = math.inf
        elif kind == WorkerEvent.DEAD:
            unknown.discard(worker)  # nobody waits for it any more
        elif kind == WorkerEvent.UP:
            if worker in unknown:
                unknown.discard(worker)
                yield _Return(worker, crashed_s, at_s, changed_s.get(worker, -math.inf))
            if detail in NEW_PROCESS:
                changed_s[worker] = at_s
