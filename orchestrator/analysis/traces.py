"""Heartbeat traces: every heartbeat of a run as it reached the coordinator, and when each worker was truly up.

`sim.heartbeats` makes the trace of a simulated run, `orchestrator.rehearsal.heartbeats` that of a saved live run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.absences import NEW_PROCESS
from orchestrator.core.deadlines import Ticks
from orchestrator.core.model import WorkerEvent
from orchestrator.policies.streams import python_random
from orchestrator.results.tables import Event, FaultEvent, Floats, HealDetail
from orchestrator.scenario.schema import Scenario

_ASLEEP = (FaultEvent.COORDINATOR_PAUSE, FaultEvent.COORDINATOR_CRASH)


@dataclass(frozen=True)
class Life:
    """A worker from one registration to the next: what the coordinator heard, and what was true."""

    worker: str
    registered_s: float
    beats_s: Floats
    """When its heartbeats arrived at the coordinator."""
    sent_s: Floats
    """When each of them was sent; where that is not known, when it arrived."""
    up_until_s: float
    """When the process ended, or the trace did."""
    watched_until_s: float
    """When the detector was no longer needed: the worker left or registered again, or the trace ended."""
    crash_s: float | None
    """When it crashed. The crash is detected if a last verdict before `watched_until_s` says dead."""

    @property
    def judged_from_s(self) -> float:
        return max(0.0, self.registered_s)

    @property
    def judged_s(self) -> float:
        return max(0.0, self.up_until_s - self.judged_from_s)

    def under_way(self, crashes_s: Floats) -> list[list[float]]:
        """For each moment, the later arrivals of heartbeats that had been sent before: a crash does not stop them."""
        # Arrivals may overtake each other: how early the earliest of those from here on was sent.
        earliest_s = np.minimum.accumulate(self.sent_s[::-1])[::-1]
        firsts, lasts = np.searchsorted(self.beats_s, crashes_s, "right"), np.searchsorted(earliest_s, crashes_s)
        return [
            self.beats_s[first:last][self.sent_s[first:last] < crash_s].tolist() if first < last else []
            for crash_s, first, last in zip(crashes_s, firsts, lasts, strict=True)
        ]


@dataclass(frozen=True)
class Trace:
    """The heartbeats of one run, in seconds since its start, and the truth about its workers.

    `began_s`: the coordinator's clock at the start. `asleep_s`: from when to when the coordinator's process was
    paused, or there was none.
    """

    world: str
    heartbeat_s: float
    replication: int
    began_s: float
    lives: list[Life]
    asleep_s: list[tuple[float, float]]

    @classmethod
    def of(
        cls,
        world: str,
        heartbeat_s: float,
        events: Iterable[Event],
        beats: Mapping[str, npt.ArrayLike],
        until_s: float,
        replication: int = 0,
        began_s: float = 0.0,
        sent: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Trace:
        """From a run's events in order of time and each worker's beats in order of arrival, until `until_s`.

        `sent`: when each of the beats was sent, where that is known. Where it is not, no beat counts as under way when
        its worker crashes, which makes detection look faster by what a beat takes.
        """
        events = [event for event in events if event.time_s <= until_s]
        asleep, slept_from = [], math.inf
        for at_s, kind, worker, detail in events:
            if worker is None and kind in _ASLEEP:
                slept_from = at_s
            elif worker is None and kind == FaultEvent.HEAL and detail in _ASLEEP:
                asleep.append((slept_from, at_s))
        return cls(
            world, heartbeat_s, replication, began_s, list(_lives(events, beats, sent or beats, until_s)), asleep
        )

    @property
    def length_s(self) -> float:
        """Until the last of its workers was watched no more."""
        return max((life.watched_until_s for life in self.lives), default=0.0)

    @property
    def workers(self) -> int:
        return len({life.worker for life in self.lives})

    @property
    def beats(self) -> int:
        return sum(len(life.beats_s) for life in self.lives)

    @property
    def judged_s(self) -> float:
        """Worker-seconds in which a worker was registered and its process was up."""
        return sum(life.judged_s for life in self.lives)

    def disturbed(self, heartbeats: float) -> int:
        """How many silences of a worker were longer than so many heartbeats, while the coordinator was not paused."""
        return sum(
            sum(
                not any(since <= end_s <= until + self.heartbeat_s for since, until in self.asleep_s)
                for end_s in ends_s
            )
            for life in self.lives
            for ends_s in [life.beats_s[1:][np.diff(life.beats_s) > heartbeats * self.heartbeat_s].tolist()]
        )

    def alarm(self, scenario: Scenario) -> Alarm:
        """When the coordinator of this run looks at verdicts. A periodic check has the same phase as in the run."""
        every_s = scenario.policies.detection.check_every_s
        if every_s is None:
            return Alarm(None, self.asleep_s)
        phase = python_random(scenario.seed, self.replication, "phase", "detection").random()
        return Alarm(Ticks(every_s, every_s * phase - self.began_s), self.asleep_s)


class Alarm(NamedTuple):
    """When the coordinator looks at verdicts: at once or at the ticks of a check, and never while it is paused."""

    ticks: Ticks | None
    asleep_s: list[tuple[float, float]]

    def at_or_after(self, at: float) -> float:
        """The first moment from `at` on at which it looks."""
        if self.ticks is not None:
            at = self.ticks.at_or_after(at)
        for since, until in self.asleep_s:
            if since <= at < until:
                return until
        return at


def _lives(
    events: Iterable[Event], beats: Mapping[str, npt.ArrayLike], sent: Mapping[str, npt.ArrayLike], until_s: float
) -> Iterator[Life]:
    heard = {worker: np.asarray(times, dtype=np.float64) for worker, times in beats.items()}
    sent_s = {worker: np.asarray(times, dtype=np.float64) for worker, times in sent.items()}
    open_: dict[str, Life] = {}
    down: set[str] = set()
    restarted_s: dict[str, float] = {}
    crashed_s: dict[str, float] = {}

    def ended(worker: str, at_s: float) -> Iterator[Life]:
        life = open_.pop(worker, None)
        if life is not None:
            times = heard.get(worker, np.empty(0))
            # If a beat and a registration come at the same moment, the beat comes first.
            first, last = np.searchsorted(times, (life.registered_s, at_s), "right")
            replaced_s = math.inf if life.crash_s is None else restarted_s.get(worker, math.inf)
            sending = sent_s.get(worker, np.empty(0))[first:last]
            mine = sending < replaced_s  # a later one is the new process's, and has overtaken its registration
            yield replace(
                life,
                beats_s=times[first:last][mine],
                sent_s=sending[mine],
                up_until_s=min(life.up_until_s, at_s),
                watched_until_s=at_s,
            )

    unknown: set[str] = set()  # to a coordinator that came in the place of one that crashed
    for at_s, kind, worker, detail in events:
        if worker is None:
            if kind == FaultEvent.COORDINATOR_CRASH:
                unknown.update(open_)
                for each in list(open_):
                    yield from ended(each, at_s)
            continue
        if kind == WorkerEvent.UP and (detail in NEW_PROCESS or worker in unknown):
            unknown.discard(worker)
            life = Life(worker, at_s, np.empty(0), np.empty(0), math.inf, math.inf, None)
            before = open_.get(worker)
            if worker in down:  # the registration arrived after the crash of its process
                life = replace(life, up_until_s=at_s, crash_s=crashed_s[worker])
                if before and before.crash_s == crashed_s[worker]:  # and not after that of an earlier one
                    open_[worker] = replace(before, crash_s=None)
            yield from ended(worker, at_s)
            open_[worker] = life
        elif kind == WorkerEvent.LEFT:
            yield from ended(worker, at_s)
        elif kind == FaultEvent.CRASH:
            down.add(worker)
            crashed_s[worker] = at_s
            if worker in open_ and open_[worker].crash_s is None:
                open_[worker] = replace(open_[worker], up_until_s=at_s, crash_s=at_s)
        elif kind == FaultEvent.HEAL and detail == HealDetail.RESTART:
            down.discard(worker)
            restarted_s[worker] = at_s
    for worker in list(open_):
        yield from ended(worker, until_s)
