"""How a run's failure detector fared against the crashes that really happened.

A verdict on a crashed worker is a detection, timed from the crash; where a heartbeat that was on its way undoes it, the
next one is, because detection ends with the verdict that stays. A crash is missed if the worker is back before any
verdict, and neither is said of one whose worker was held dead already. A verdict on a worker whose process is up is a
false positive: a mistake in the sense of Chen, Toueg and Aguilera ("On the quality of service of failure detectors",
IEEE Transactions on Computers 51, 2002). That includes a process that is only paused or cut off. A worker that was
declared dead after a failed call is counted apart: this was not the detector's verdict.

The detector is judged while a worker's process is up and registered, except after a failed call, until the worker is
trusted again.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.core.model import Detail, WorkerEvent
from orchestrator.results.statistics import ratio
from orchestrator.results.tables import FaultEvent, Floats, HealDetail, Tables, event_rows

Death = tuple[float, str]
"""When a worker was declared dead, and which."""


@dataclass(frozen=True)
class DetectionRecord:
    """The crashes and the verdicts of one run."""

    crashes: int
    missed: int
    already_dead: int
    """Crashes of workers that were declared dead before, and stayed so."""
    by_failed_call: int
    """Workers declared dead after a failed call."""
    time_s: Floats
    """From crash to verdict, of each detected crash."""
    false_positives: list[Death]
    """The mistaken verdicts of the detector."""
    wrong_calls: list[Death]
    """Healthy workers declared dead after a failed call."""
    mistake_s: Floats
    """How long each mistake lasted: until the worker was trusted again, crashed or left, or the run ended."""
    judged_s: float
    """Worker-seconds during which the detector is judged."""
    beating_s: float
    """Worker-seconds during which heartbeats were sent: the process was up, registered and not paused."""
    down: list[tuple[str, float, float]]
    """Worker, time of a crash, and time of its next process's registration or the end of the run."""

    @property
    def healthy_declared_dead(self) -> list[Death]:
        """By whatever rule: the detector, or a failed call."""
        return [*self.false_positives, *self.wrong_calls]

    @classmethod
    def of(cls, tables: Tables, until_s: float | None = None) -> DetectionRecord:
        """`until_s`: the end of the run; the time of the last event by default."""
        crashes = missed = by_failed_call = 0
        ended: list[_Crashes] = []
        false_positives: list[Death] = []
        wrong_calls: list[Death] = []
        crashed: defaultdict[str, _Crashes] = defaultdict(_Crashes)  # of the worker's last process
        down: set[str] = set()  # in truth
        dead: set[str] = set()  # as the coordinator sees it
        workers: defaultdict[str, _WorkerTime] = defaultdict(_WorkerTime)
        last_s = 0.0
        for at_s, kind, name, detail in event_rows(tables.events):
            last_s = at_s
            if name is None:
                if kind == FaultEvent.COORDINATOR_CRASH:  # the next one knows nobody before it hears of them
                    dead.clear()
                    for each in workers.values():
                        each.unjudged(at_s)
                continue
            worker = workers[name]
            if kind == FaultEvent.CRASH:
                crashes += 1
                down.add(name)
                if name in crashed and crashed[name].declared_s is not None:
                    ended.append(crashed.pop(name))  # that crash was found; this is another process
                crashed[name].add(at_s, name in dead)
                worker.end(at_s)
                worker.crashed_s = at_s if worker.crashed_s is None else worker.crashed_s
            elif kind == FaultEvent.HEAL and detail == HealDetail.RESTART:
                down.discard(name)
            elif kind == FaultEvent.PAUSE:
                worker.silent(at_s)
            elif kind == FaultEvent.HEAL and detail == HealDetail.RESUME:
                worker.beating(at_s)
            elif kind == WorkerEvent.LEFT:
                worker.end(at_s)
            elif kind == WorkerEvent.DEAD:
                dead.add(name)
                if detail == Detail.FAILED_CALL:
                    by_failed_call += 1
                    worker.unjudged(at_s)
                    if name in crashed:
                        crashed[name].by_call = True
                    elif name not in down:
                        wrong_calls.append((at_s, name))
                elif name in crashed:
                    crashed[name].declared_s = at_s
                elif name not in down:
                    false_positives.append((at_s, name))
                    worker.mistaken_s = at_s
            elif kind == WorkerEvent.UP:
                if name not in down:
                    worker.trusted(at_s)
                    found = crashed.pop(name, None)
                    if found is not None:
                        missed += found.unnoticed
                        ended.append(found)
                elif name in crashed:
                    crashed[name].undo()  # the message was sent before the crash
                dead.discard(name)
        ended += crashed.values()
        until_s = last_s if until_s is None else until_s
        for worker in workers.values():
            worker.end(until_s)
            worker.back(until_s)
        return cls(
            crashes,
            missed,
            sum(each.already_dead for each in ended),
            by_failed_call,
            np.array([time_s for each in ended for time_s in each.times_s]),
            false_positives,
            wrong_calls,
            np.array([length_s for worker in workers.values() for length_s in worker.mistakes_s]),
            sum(worker.judged_s for worker in workers.values()),
            sum(worker.beating_s for worker in workers.values()),
            [(name, *interval) for name, worker in workers.items() for interval in worker.down],
        )


def quality_of_service(mistakes: int, mistake_s: Floats, judged_s: float) -> dict[str, Any]:
    """The measures of Chen, Toueg and Aguilera (2002) per worker-second of judged time.

    The mistake rate counts mistakes. The query accuracy is the share of the time in which the workers were trusted.
    """
    wrong = ratio(float(np.sum(mistake_s)), judged_s)
    return {
        "judged_s": judged_s,
        "mistakes": mistakes,
        "mistake_rate_per_s": ratio(mistakes, judged_s),
        "query_accuracy": None if wrong is None else 1 - wrong,
    }


class _Crashes:
    """The crashes of a worker since it was last heard of, and the verdict on them."""

    def __init__(self) -> None:
        self.declared_s: float | None = None
        self.by_call = False  # whether a failed call told, before the detector did
        self._at_s: list[float] = []  # of those that happened while it was trusted
        self._dead_at_s: list[float] = []  # of those that happened while it was held dead

    def add(self, at_s: float, dead: bool) -> None:
        (self._dead_at_s if dead else self._at_s).append(at_s)

    def undo(self) -> None:
        """It is trusted again, and still down."""
        self.declared_s, self.by_call = None, False
        self._at_s += self._dead_at_s
        self._dead_at_s.clear()

    @property
    def unnoticed(self) -> int:
        return 0 if self.by_call or self.declared_s is not None else len(self._at_s)

    @property
    def already_dead(self) -> int:
        return len(self._dead_at_s)

    @property
    def times_s(self) -> list[float]:
        return [] if self.declared_s is None else [self.declared_s - at_s for at_s in self._at_s]


class _WorkerTime:
    """Adds up the stretches of time of one worker."""

    def __init__(self) -> None:
        self.mistakes_s: list[float] = []
        self.judged_s = self.beating_s = 0.0
        self.down: list[tuple[float, float]] = []
        self.mistaken_s: float | None = None  # since when it is wrongly declared dead
        self.crashed_s: float | None = None
        self._judged_since: float | None = None
        self._beating_since: float | None = None

    def trusted(self, now: float) -> None:
        """The coordinator hears of a process that is up."""
        self._correct(now)
        self.back(now)
        if self._judged_since is None:
            self._judged_since = now
            self.beating(now)

    def back(self, now: float) -> None:
        if self.crashed_s is not None:
            self.down.append((self.crashed_s, now))
            self.crashed_s = None

    def unjudged(self, now: float) -> None:
        self._correct(now)
        if self._judged_since is not None:
            self.judged_s += now - self._judged_since
            self._judged_since = None

    def beating(self, now: float) -> None:
        self._beating_since = now if self._beating_since is None else self._beating_since

    def silent(self, now: float) -> None:
        if self._beating_since is not None:
            self.beating_s += now - self._beating_since
            self._beating_since = None

    def end(self, now: float) -> None:
        """The process is gone."""
        self.unjudged(now)
        self.silent(now)

    def _correct(self, now: float) -> None:
        if self.mistaken_s is not None:
            self.mistakes_s.append(now - self.mistaken_s)
            self.mistaken_s = None
