"""How a run's failure detector fared against the crashes that really happened.

A verdict on a crashed worker is a detection, timed from the crash. A crash is missed if the worker is back before any
verdict. A verdict on a worker whose process is up is a false positive: a mistake in the sense of Chen, Toueg and
Aguilera ("On the quality of service of failure detectors", IEEE Transactions on Computers 51, 2002). That includes a
process that is only paused or cut off. A worker that was declared dead after a failed call is counted apart: this was
not the detector's verdict.

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


@dataclass(frozen=True)
class DetectionRecord:
    """The crashes and the verdicts of one run."""

    crashes: int
    missed: int
    by_failed_call: int
    """Workers declared dead after a failed call."""
    time_s: Floats
    """From crash to verdict, of each detected crash."""
    false_positives: list[tuple[float, str]]
    """Time and worker of each mistaken verdict."""
    mistake_s: Floats
    """How long each mistake lasted: until the worker was trusted again, crashed or left, or the run ended."""
    judged_s: float
    """Worker-seconds during which the detector is judged."""
    beating_s: float
    """Worker-seconds during which heartbeats were sent: the process was up, registered and not paused."""
    down: list[tuple[str, float, float]]
    """Worker, time of a crash, and time of its next process's registration or the end of the run."""

    @classmethod
    def of(cls, tables: Tables, until_s: float | None = None) -> DetectionRecord:
        """`until_s`: the end of the run; the time of the last event by default."""
        crashes = missed = by_failed_call = 0
        time_s: list[float] = []
        false_positives: list[tuple[float, str]] = []
        unnoticed: defaultdict[str, list[float]] = defaultdict(list)  # crashes without a verdict, by worker
        down: set[str] = set()  # in truth
        dead: set[str] = set()  # as the coordinator sees it
        workers: defaultdict[str, _WorkerTime] = defaultdict(_WorkerTime)
        last_s = 0.0
        for at_s, kind, name, detail in event_rows(tables.events):
            last_s = at_s
            if name is None:
                continue
            worker = workers[name]
            if kind == FaultEvent.CRASH:
                crashes += 1
                down.add(name)
                unnoticed[name].append(at_s)
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
                elif unnoticed[name]:
                    time_s += [at_s - crash_s for crash_s in unnoticed[name]]
                elif name not in down:
                    false_positives.append((at_s, name))
                    worker.mistaken_s = at_s
                unnoticed[name].clear()
            elif kind == WorkerEvent.UP:
                if name not in down:  # otherwise the message was sent before the crash
                    missed += 0 if name in dead else len(unnoticed[name])
                    unnoticed[name].clear()
                    worker.trusted(at_s)
                dead.discard(name)
        until_s = last_s if until_s is None else until_s
        for worker in workers.values():
            worker.end(until_s)
            worker.back(until_s)
        return cls(
            crashes,
            missed,
            by_failed_call,
            np.array(time_s),
            false_positives,
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
