"""One failure detector driven through one worker's heartbeats, as the coordinator would drive it.

How fast a detector is does not depend on the crashes that a trace happens to hold: the beats sent before any moment say
when a crash at that moment would have been noticed. So a trial asks for crashes at chosen moments. A beat that is on
its way at the crash still arrives, and may undo a verdict: detection ends with the verdict that stays.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from orchestrator.analysis.traces import Alarm, Life
from orchestrator.core.ports import DetectorFactory, FailureDetector, Verdict
from orchestrator.results.tables import Floats


@dataclass
class Tally:
    """How a detector fared on some lives."""

    mistake_s: list[float]
    mistaken_at_s: list[float]
    """When each of the mistakes began."""
    detection_s: list[float]
    """Detection times of the crashes that were tried."""
    own_detection_s: list[float]
    """Detection times of the trace's own crashes, of workers that were trusted. The others were missed, or not yet
    noticed at the end."""
    missed: int = 0
    already_dead: int = 0
    """The trace's own crashes of workers that had been declared dead before, and stayed so."""

    @classmethod
    def empty(cls) -> Tally:
        return cls([], [], [], [])

    def add(self, other: Tally) -> None:
        self.mistake_s += other.mistake_s
        self.mistaken_at_s += other.mistaken_at_s
        self.detection_s += other.detection_s
        self.own_detection_s += other.own_detection_s
        self.missed += other.missed
        self.already_dead += other.already_dead


def follow(new: DetectorFactory, life: Life, alarm: Alarm, crashes_s: Floats, until_s: float = math.inf) -> Tally:
    """Drive a detector through a life, and try crashes at these moments, in order.

    `until_s`: the end of the trace. A crash that is not noticed by then does not count as missed.
    """
    detector = new(life.registered_s)
    heard, review_at = detector.heard, detector.review_at
    due = review_at()
    verdicts: list[tuple[float, float]] = []  # when it was declared dead, and when it was trusted again
    tried_s: list[float] = []
    under_way = iter(life.under_way(crashes_s))
    for beats, crashes in _sections(life.beats_s, crashes_s):
        for now in beats:
            if due < now and (dead_s := _declared_dead(detector, alarm, now)) < now:
                verdicts.append((dead_s, now))
            heard(now)
            due = review_at()
        if crashes:
            silent_s, another = _declared_dead(copy.copy(detector), alarm, math.inf), None
            for crash_s, late in zip(crashes, under_way, strict=False):
                dead_s = silent_s
                if late:
                    another = another or _copier(detector)
                    dead_s = _declared_dead(_hearing(another(), late), alarm, math.inf)
                tried_s.append(max(0.0, dead_s - crash_s))
    if (dead_s := _declared_dead(detector, alarm, life.watched_until_s)) < life.watched_until_s:
        verdicts.append((dead_s, math.inf))
    return _judged(life, verdicts, tried_s, until_s)


def _sections(beats_s: Floats, crashes_s: Floats) -> Iterator[tuple[list[float], list[float]]]:
    """The beats and crashes in order of time: some beats, then the crashes to try before the next beat."""
    stops, first = np.unique(np.searchsorted(beats_s, crashes_s, "right"), return_index=True)
    beats, position = beats_s.tolist(), 0
    for stop, crashes in zip(stops.tolist(), np.split(crashes_s, first[1:]), strict=False):
        yield beats[position:stop], crashes.tolist()
        position = stop
    yield beats[position:], []


def _copier(detector: FailureDetector) -> Callable[[], FailureDetector]:
    """What makes copies of a detector as it is now. Pickling is two to four times as fast as a deep copy, if it is
    possible: a detector remembers a thousand gaps."""
    try:
        frozen = pickle.dumps(detector, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError):
        return partial(copy.deepcopy, detector)
    return partial(pickle.loads, frozen)


def _hearing(detector: FailureDetector, beats: list[float]) -> FailureDetector:
    """The detector, after it has heard these beats too."""
    for now in beats:
        detector.heard(now)
    return detector


def _declared_dead(detector: FailureDetector, alarm: Alarm, before: float) -> float:
    """When the silent worker is declared dead, if that is before the given moment; otherwise infinity."""
    at = alarm.at_or_after(detector.review_at())
    while at < before:
        if detector.verdict(at) is Verdict.DEAD:
            return at
        later = alarm.at_or_after(detector.review_at())
        if later <= at:
            break  # the verdict cannot change any more
        at = later
    return math.inf


def _judged(life: Life, verdicts: list[tuple[float, float]], tried_s: list[float], until_s: float) -> Tally:
    mistakes = [
        (max(dead_s, life.judged_from_s), min(trusted_s, life.up_until_s))
        for dead_s, trusted_s in verdicts
        if dead_s < life.up_until_s and trusted_s > life.judged_from_s
    ]
    tally = Tally([end_s - begin_s for begin_s, end_s in mistakes], [begin_s for begin_s, _ in mistakes], tried_s, [])
    if life.crash_s is not None:
        dead_s, trusted_s = verdicts[-1] if verdicts else (math.inf, 0.0)
        if trusted_s == math.inf and dead_s < life.crash_s:
            tally.already_dead += 1
        elif trusted_s == math.inf:
            tally.own_detection_s.append(dead_s - life.crash_s)
        elif life.watched_until_s < until_s:
            tally.missed += 1
    return tally
