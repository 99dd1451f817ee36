"""Failure detectors judged on one heartbeat trace: which one, and which setting of it, for which price?

The measures are those of Chen, Toueg and Aguilera ("On the quality of service of failure detectors", IEEE
Transactions on Computers 51, 2002). Truth is whether a worker's process is up: a verdict on one that is merely paused
or cut off is a mistake, as is one that lost heartbeats cause. Every detector hears the same trace (common random
numbers), and is asked as the coordinator asks it: after each beat when to look, then what it says. What the
coordinator does beyond the detector (a cap on convictions, the guard against its own pauses, failed calls) is left
aside; but while its process stood still nothing is looked at.

The speed of a detector does not depend on the crashes that a trace happens to hold: whatever the moment of a crash,
the beats before it say when it would have been noticed. So the detection times are those of crashes spread uniformly
at random over all the time that is judged; a worker that is wrongly convicted already is detected at once.
"""

from __future__ import annotations

import copy
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from orchestrator.core.deadlines import Ticks
from orchestrator.core.ports import DetectorFactory, FailureDetector, Verdict
from orchestrator.policies import catalogue
from orchestrator.policies.detection import Detection
from orchestrator.policies.streams import python_random
from orchestrator.results import folders
from orchestrator.results.parallel import unordered
from orchestrator.results.summaries import DETECTION, Summary, describe, end_s, quality, rows
from orchestrator.results.sweeps import Progress
from orchestrator.results.tables import Floats, floats
from orchestrator.scenario.streams import generator

if TYPE_CHECKING:
    from orchestrator.pictures.style import Figures
    from orchestrator.scenario.schema import Scenario

DAY_S = 86400.0
CRASHES = 5_000
"""How many moments of a crash are tried; each in a slice of the judged time of its own."""
CONFIDENCE = 0.95
_JOURNAL = "journal.jsonl"
_REGISTRATIONS = ("registered", "reregistered")
_CHUNK_BEATS = 50_000
_ALONE_BEATS = 2_000_000

Event = tuple[float, str, str | None, str | None]
"""Time, kind, worker and detail, as in the table of events."""


@dataclass(frozen=True)
class Life:
    """A worker from one registration to the next: what the coordinator heard of it, and what was true."""

    worker: str
    registered_s: float
    beats_s: Floats
    """When its heartbeats arrived at the coordinator."""
    up_until_s: float
    """When the process was gone, or the trace was over."""
    watched_until_s: float
    """When its detector was done with: it left, it registered again, or the trace was over."""
    crash_s: float | None
    """When it crashed; detected if it is convicted for good before `watched_until_s`."""

    @property
    def judged_from_s(self) -> float:
        return max(0.0, self.registered_s)

    @property
    def judged_s(self) -> float:
        return max(0.0, self.up_until_s - self.judged_from_s)


@dataclass(frozen=True)
class Trace:
    """Every heartbeat of a run as it reached the coordinator, in seconds since the beginning, and the truth.

    `began_s`: the coordinator's clock at the beginning. `asleep_s`: from when to when its process stood still.
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
    ) -> Trace:
        """From a run's events, in order of time, and each worker's beats, in order of arrival, until `until_s`."""
        events = [event for event in events if event[0] <= until_s]
        asleep, slept_from = [], math.inf
        for at_s, kind, worker, detail in events:
            if worker is None and kind == "coordinator_pause":
                slept_from = at_s
            elif worker is None and kind == "heal" and detail == "coordinator_pause":
                asleep.append((slept_from, at_s))
        return cls(world, heartbeat_s, replication, began_s, list(_lives(events, beats, until_s)), asleep)

    @classmethod
    def recorded(cls, folder: Path) -> list[Trace]:
        """The trace of the live run that was saved in `folder`; of several alike, each. RunFolderError otherwise."""
        from orchestrator.results.runs import Sweep

        result = folders.load(folder)
        if isinstance(result, Sweep) and len(result.cells) > 1:
            raise folders.RunFolderError(f"{folder} holds a sweep: name the folder of one of its runs")
        runs = (
            zip(result.cells[0].runs, result.cells[0].numbers, strict=True)
            if isinstance(result, Sweep)
            else [(result, 0)]
        )
        return [_recorded(run, number) for run, number in runs if isinstance(run, folders.StoredRun)]

    @property
    def workers(self) -> int:
        return len({life.worker for life in self.lives})

    @property
    def beats(self) -> int:
        return sum(len(life.beats_s) for life in self.lives)

    @property
    def judged_s(self) -> float:
        """Worker-seconds of truth: registered, and the process up."""
        return sum(life.judged_s for life in self.lives)

    def alarm(self, scenario: Scenario) -> Alarm:
        """When the coordinator of this run looks at verdicts; the phase of a periodic check is the run's own."""
        every_s = scenario.policies.detection.check_every_s
        if every_s is None:
            return Alarm(None, self.asleep_s)
        phase = python_random(scenario.seed, self.replication, "phase", "detection").random()
        return Alarm(Ticks(every_s, every_s * phase - self.began_s), self.asleep_s)


class Alarm(NamedTuple):
    """When the coordinator looks at verdicts: at once or at the ticks of a check, and never while it stands still."""

    ticks: Ticks | None
    asleep_s: list[tuple[float, float]]

    def at_or_after(self, at: float) -> float:
        if self.ticks is not None:
            at = self.ticks.at_or_after(at)
        for since, until in self.asleep_s:
            if since <= at < until:
                return until
        return at


def _lives(events: Iterable[Event], beats: Mapping[str, npt.ArrayLike], until_s: float) -> Iterator[Life]:
    heard = {worker: np.asarray(times, dtype=np.float64) for worker, times in beats.items()}
    open_: dict[str, Life] = {}
    down: set[str] = set()

    def ended(worker: str, at_s: float) -> Iterator[Life]:
        life = open_.pop(worker, None)
        if life is not None:
            times = heard.get(worker, np.empty(0))
            # A beat and a registration at the same moment: the beat comes first.
            first, last = np.searchsorted(times, (life.registered_s, at_s), "right")
            yield replace(
                life, beats_s=times[first:last], up_until_s=min(life.up_until_s, at_s), watched_until_s=at_s
            )

    for at_s, kind, worker, detail in events:
        if worker is None:
            continue
        if kind == "up" and detail in _REGISTRATIONS:
            life = Life(worker, at_s, np.empty(0), math.inf, math.inf, None)
            before = open_.get(worker)
            if worker in down:  # its own crash overtook the registration
                life = replace(life, up_until_s=at_s, crash_s=before.crash_s if before else None)
                if before:
                    open_[worker] = replace(before, crash_s=None)
            yield from ended(worker, at_s)
            open_[worker] = life
        elif kind == "left":
            yield from ended(worker, at_s)
        elif kind == "crash":
            down.add(worker)
            if worker in open_ and open_[worker].crash_s is None:
                open_[worker] = replace(open_[worker], up_until_s=at_s, crash_s=at_s)
        elif kind == "heal" and detail == "restart":
            down.discard(worker)
    for worker in list(open_):
        yield from ended(worker, until_s)


def _recorded(run: folders.StoredRun, replication: int) -> Trace:
    path = run.folder / _JOURNAL
    if not path.is_file():
        hint = "heartbeats are kept of live runs only; of a simulated one, give the scenario instead"
        raise folders.RunFolderError(f"{run.folder} has no {_JOURNAL}: {hint}")
    scenario, tables = run.scenario, run.tables
    accepted_s = floats(tables.tasks, "accepted_s")
    heard, registered, submitted_at = _read_journal(path)
    if submitted_at is None or np.isnan(accepted_s).all():
        raise folders.RunFolderError(f"{run.folder}: no task was submitted, so nothing tells when the run began")
    began = submitted_at - float(np.nanmin(accepted_s))
    ups: list[Event] = [(at - began, "up", worker, "registered") for at, worker in registered]
    others = [event for event in rows(tables.events) if not (event[1] == "up" and event[3] in _REGISTRATIONS)]
    beats = {worker: np.array(times) - began for worker, times in heard.items()}
    last_s = max((float(times[-1]) for times in beats.values()), default=0.0)
    return Trace.of(
        "live",
        scenario.policies.detection.heartbeat_s,
        sorted([*ups, *others], key=lambda event: event[0]),
        beats,
        min(end_s(tables, scenario), last_s),
        replication,
        began,
    )


def _read_journal(path: Path) -> tuple[dict[str, list[float]], list[tuple[float, str]], float | None]:
    """Heartbeats by worker, registrations, and the first submission, by the coordinator's clock."""
    heard: defaultdict[str, list[float]] = defaultdict(list)
    registered: list[tuple[float, str]] = []
    submitted_at: float | None = None
    with path.open() as lines:
        next(lines, None)
        for line in lines:
            start = line[:48]  # of the million lines about tasks, not one need be parsed
            if '"heartbeat"' in start or '"register"' in start or (submitted_at is None and '"submit"' in start):
                try:
                    at, name, arguments, _ = json.loads(line)
                except ValueError:
                    break  # its end was never written
                if name == "heartbeat":
                    heard[arguments[0]].append(at)
                elif name == "register":
                    registered.append((at, arguments[0]))
                elif name == "submit":
                    submitted_at = at
    return heard, registered, submitted_at


# ---- one detector on one life


@dataclass
class Tally:
    """What became of a detector on some lives."""

    mistake_s: list[float]
    detection_s: list[float]
    """Of the crashes that were tried."""
    own_detection_s: list[float]
    """Of the trace's own crashes; those that nothing found are missed or still unnoticed at the end."""
    missed: int = 0

    @classmethod
    def empty(cls) -> Tally:
        return cls([], [], [])

    def add(self, other: Tally) -> None:
        self.mistake_s += other.mistake_s
        self.detection_s += other.detection_s
        self.own_detection_s += other.own_detection_s
        self.missed += other.missed


def follow(new: DetectorFactory, life: Life, alarm: Alarm, crashes_s: Floats, until_s: float = math.inf) -> Tally:
    """Drive a detector through a life as the coordinator does, trying crashes at these moments, in order.

    `until_s`: the end of the trace, at which a crash that is not noticed is not missed yet.
    """
    detector = new(life.registered_s)
    heard, review_at = detector.heard, detector.review_at
    due = review_at()
    convicted: list[tuple[float, float]] = []  # and trusted again
    tried_s: list[float] = []
    for beats, crashes in _sections(life.beats_s, crashes_s):
        for now in beats:
            if due < now and (dead_s := _conviction(detector, alarm, now)) < now:
                convicted.append((dead_s, now))
            heard(now)
            due = review_at()
        if crashes:
            dead_s = _conviction(copy.copy(detector), alarm, math.inf)
            tried_s += [max(0.0, dead_s - crash_s) for crash_s in crashes]
    if (dead_s := _conviction(detector, alarm, life.watched_until_s)) < life.watched_until_s:
        convicted.append((dead_s, math.inf))
    return _judged(life, convicted, tried_s, until_s)


def _sections(beats_s: Floats, crashes_s: Floats) -> Iterator[tuple[list[float], list[float]]]:
    """The beats, cut where crashes are tried after them: some beats, then crashes before the next."""
    stops, first = np.unique(np.searchsorted(beats_s, crashes_s, "right"), return_index=True)
    beats, position = beats_s.tolist(), 0
    for stop, crashes in zip(stops.tolist(), np.split(crashes_s, first[1:]), strict=False):
        yield beats[position:stop], crashes.tolist()
        position = stop
    yield beats[position:], []


def _conviction(detector: FailureDetector, alarm: Alarm, before: float) -> float:
    """When the silent worker is declared dead, if it is before that moment; else infinity."""
    at = alarm.at_or_after(detector.review_at())
    while at < before:
        if detector.verdict(at) is Verdict.DEAD:
            return at
        later = alarm.at_or_after(detector.review_at())
        if later <= at:
            break  # it has nothing more to say
        at = later
    return math.inf


def _judged(life: Life, convicted: list[tuple[float, float]], tried_s: list[float], until_s: float) -> Tally:
    mistake_s = [
        min(trusted_s, life.up_until_s) - max(dead_s, life.judged_from_s)
        for dead_s, trusted_s in convicted
        if dead_s < life.up_until_s and trusted_s > life.judged_from_s
    ]
    tally = Tally(mistake_s, tried_s, [])
    if life.crash_s is not None:
        if convicted and convicted[-1][1] == math.inf:
            tally.own_detection_s.append(max(0.0, convicted[-1][0] - life.crash_s))
        elif life.watched_until_s < until_s:
            tally.missed += 1
    return tally


# ---- all detectors over a grid


class Candidate(NamedTuple):
    """A detector with one value of its main parameter; `own`: as the scenario has it."""

    detector: str
    parameter: str
    value: float | None
    config: Detection
    own: bool


def candidates(own: Detection) -> list[Candidate]:
    """Every kind of the catalogue over the grid of its main parameter, and the scenario's own setting.

    The own kind keeps its other parameters; the other kinds have their defaults, at the same heartbeat.
    """
    found: list[Candidate] = []
    for cls in catalogue()["detection"]:
        assert issubclass(cls, Detection)
        mine = isinstance(own, cls)
        kinds = get_args(cls.model_fields["kind"].annotation)
        if not mine and not kinds:
            continue  # a user's own class, of which nothing is known here
        base: Any = own if mine else cls.model_construct(None, kind=kinds[0], heartbeat_s=own.heartbeat_s)  # type: ignore[call-arg]
        kind = base.kind
        parameter, value = _main(base)
        grid = [Candidate(kind, parameter, v, config, config == own) for v, config in varied(base, own.heartbeat_s)]
        if mine and not any(candidate.own for candidate in grid):
            grid.append(Candidate(kind, parameter, value, own, True))
        found += sorted(grid, key=lambda candidate: (candidate.value is None, candidate.value))
    return found


def varied(rule: Any, heartbeat_s: float) -> list[tuple[float, Any]]:
    """A rule with each value of its main parameter; of one that has a detector inside, by that one's."""
    inner, main = getattr(rule, "detector", None), getattr(rule, "main", None)
    if inner is not None:
        return [(value, rule.model_copy(update={"detector": one})) for value, one in varied(inner, heartbeat_s)]
    if main is None:
        return []
    scale = heartbeat_s if main.name.endswith("_s") else 1.0
    values = [float(f"{value * scale:.6g}") for value in main.values]
    return [(value, rule.model_copy(update={main.name: value})) for value in values]


def _main(rule: Any) -> tuple[str, float | None]:
    inner, main = getattr(rule, "detector", None), getattr(rule, "main", None)
    if inner is not None:
        return _main(inner)
    return ("", None) if main is None else (main.name, float(getattr(rule, main.name)))


@dataclass(frozen=True, eq=False)
class Point:
    """How one candidate fared. Detection times are those of the crashes that were tried."""

    candidate: Candidate
    judged_s: float
    mistake_s: Floats
    detection_s: Floats
    own_detection_s: Floats
    missed: int

    @property
    def label(self) -> str:
        _, parameter, value, _, _ = self.candidate
        return self.candidate.detector if value is None else f"{self.candidate.detector} {parameter}={value:g}"

    @property
    def mistakes(self) -> int:
        return len(self.mistake_s)

    @property
    def rate_per_s(self) -> float:
        """Mistakes per worker-second."""
        return self.mistakes / self.judged_s

    @property
    def rate_upper_per_s(self) -> float:
        """95 % upper bound of the rate of a Poisson process with so many mistakes; of none, the rule of three."""
        from scipy.special import gammaincinv

        return float(gammaincinv(self.mistakes + 1, CONFIDENCE)) / self.judged_s

    @cached_property
    def accuracy(self) -> float:
        """Share of the judged time in which the workers were trusted."""
        return 1.0 - float(np.sum(self.mistake_s)) / self.judged_s

    @cached_property
    def p99_s(self) -> float:
        """99 % of the crashes were found within this time; infinite where not all are found at all."""
        if not np.isfinite(self.detection_s).all():
            return math.inf
        return float(np.quantile(self.detection_s, 0.99))


@dataclass(frozen=True)
class Recommendation:
    """`qualifies`: within every budget. `excess`: the largest ratio of what it takes to its budget."""

    point: Point
    qualifies: bool
    excess: float


@dataclass(frozen=True)
class Budget:
    """What may be asked for; each may be None."""

    mistakes_per_day: float | None = None
    """Wrong convictions of all workers together."""
    detection_s: float | None = None
    """Within which 99 % of the crashes must be found."""

    def ratios(self, point: Point, workers: int) -> list[float]:
        """How much of each budget a setting takes, at most: mistakes by the upper bound of their rate."""
        found = []
        if self.mistakes_per_day is not None:
            found.append(point.rate_upper_per_s * workers * DAY_S / self.mistakes_per_day)
        if self.detection_s is not None:
            found.append(point.p99_s / self.detection_s)
        return found

    def recommend(self, points: Sequence[Point], workers: int) -> Recommendation | None:
        """Of one budget, the best in the other respect; of two, the one with most room in both. Where none qualifies,
        the nearest. None without a budget."""
        if self.mistakes_per_day is None and self.detection_s is None:
            return None
        excess = [max(self.ratios(point, workers)) for point in points]
        qualified = [(e, p) for e, p in zip(excess, points, strict=True) if e <= 1]

        def rank(scored: tuple[float, Point]) -> tuple[float, ...]:
            ratio, point = scored
            if not qualified or None not in (self.mistakes_per_day, self.detection_s):
                return ratio, point.p99_s, point.mistakes
            if self.detection_s is None:
                return point.p99_s, point.mistakes
            return point.mistakes, 1 - point.accuracy, point.p99_s

        ratio, best = min(qualified or list(zip(excess, points, strict=True)), key=rank)
        return Recommendation(best, bool(qualified), ratio)


def front(points: Sequence[Point], cost: Callable[[Point], float] = lambda point: point.mistakes) -> list[Point]:
    """Those that no other beats in detection time (p99) or in cost without being worse in the other, by speed."""

    def beaten(point: Point) -> bool:
        return any(
            other.p99_s <= point.p99_s
            and cost(other) <= cost(point)
            and (other.p99_s < point.p99_s or cost(other) < cost(point))
            for other in points
        )

    return sorted((point for point in points if not beaten(point)), key=lambda point: point.p99_s)


@dataclass(frozen=True)
class Judgement:
    """All detectors on one trace, or on those of several replications together."""

    scenario: Scenario
    traces: Sequence[Trace]
    points: Sequence[Point]
    budget: Budget

    @property
    def workers(self) -> int:
        return max(trace.workers for trace in self.traces)

    @cached_property
    def front(self) -> list[Point]:
        return front(self.points)

    @cached_property
    def recommendation(self) -> Recommendation | None:
        return self.budget.recommend(self.points, self.workers)

    def per_day(self, rate_per_s: float) -> float:
        """Of all workers together, from a rate per worker-second."""
        return rate_per_s * self.workers * DAY_S

    def summary(self) -> Summary:
        """As plain numbers: what was heard, every point, and the recommendation."""
        detection = self.scenario.policies.detection
        lives = [life for trace in self.traces for life in trace.lives]
        recommended = self.recommendation
        return {
            "scenario": self.scenario.name,
            "world": self.traces[0].world,
            "seed": self.scenario.seed,
            "trace": {
                "replications": len(self.traces),
                "workers": self.workers,
                "heartbeats": sum(trace.beats for trace in self.traces),
                "heartbeat_s": detection.heartbeat_s,
                "heartbeats_per_s": self.workers / detection.heartbeat_s,
                "check_every_s": detection.check_every_s,
                "judged_s": sum(trace.judged_s for trace in self.traces),
                "crashes": sum(life.crash_s is not None for life in lives),
            },
            "detection_times": f"of {len(self.points[0].detection_s)} crashes at uniformly random moments",
            "budget": {
                "max_mistakes_per_day": self.budget.mistakes_per_day,
                "max_detection_s": self.budget.detection_s,
            },
            "recommendation": None
            if recommended is None
            else {
                **self._point(recommended.point),
                "qualifies": recommended.qualifies,
                "excess": _finite(recommended.excess),
            },
            "points": [self._point(point) for point in self.points],
        }

    def save(self, folder: Path, plots: bool = True) -> None:
        """Write `detectors.json` and the picture."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.summary(), indent=2, allow_nan=False) + "\n"
        (folder / "detectors.json").write_text(text, encoding="utf-8")
        if plots:
            self.plot(folder)

    def plot(self, folder: Path | None = None) -> Figures:
        from orchestrator.pictures import detector_plots

        return detector_plots.of_judgement(self).saved(folder)

    def _point(self, point: Point) -> Summary:
        _, parameter, value, config, own = point.candidate
        return {
            "detector": point.candidate.detector,
            "parameter": parameter,
            "value": value,
            "setting": config.model_dump(exclude_none=True),
            "own": own,
            "pareto": point in self.front,
            **quality(point.mistakes, point.mistake_s, point.judged_s),
            "mistake_rate_upper_per_s": point.rate_upper_per_s,
            "mistakes_per_day": self.per_day(point.rate_per_s),
            "mistakes_per_day_upper": self.per_day(point.rate_upper_per_s),
            "mistake_s": describe(point.mistake_s, DETECTION),
            "detection_s": describe(point.detection_s if point.p99_s < math.inf else np.empty(0), DETECTION),
            "own_crashes": {
                "detected": len(point.own_detection_s),
                "missed": point.missed,
                "time_s": describe(point.own_detection_s, DETECTION),
            },
        }


def judge(
    scenario: Scenario,
    traces: Sequence[Trace],
    budget: Budget | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
    tried: Sequence[Candidate] | None = None,
) -> Judgement:
    """Every candidate (`tried`: only these) on the same traces, their heartbeats at the scenario's interval.

    ValueError where no worker was up at all. `progress` is called with the share that is done.
    """
    if sum(trace.judged_s for trace in traces) <= 0:
        raise ValueError("the trace holds no time in which a worker was up")
    listed = list(candidates(scenario.policies.detection) if tried is None else tried)
    configs = [candidate.config for candidate in listed]
    chunks = list(_chunks(scenario, traces))
    beats = len(configs) * sum(trace.beats for trace in traces)
    tallies = [Tally.empty() for _ in listed]
    results: list[tuple[int, list[Tally]]] = []
    work = unordered(partial(_follow_all, configs), chunks, jobs if beats > _ALONE_BEATS else 1)
    for done, result in enumerate(work, start=1):
        results.append(result)
        if progress is not None:
            progress(done / len(chunks))
    for _, found in sorted(results, key=lambda result: result[0]):
        for tally, more in zip(tallies, found, strict=True):
            tally.add(more)
    judged_s = sum(trace.judged_s for trace in traces)
    points = [
        Point(
            candidate,
            judged_s,
            np.array(tally.mistake_s),
            np.array(tally.detection_s),
            np.array(tally.own_detection_s),
            tally.missed,
        )
        for candidate, tally in zip(listed, tallies, strict=True)
    ]
    return Judgement(scenario, traces, points, budget or Budget())


class _Chunk(NamedTuple):
    """Some lives with their crashes to try, for one process at a time."""

    number: int
    alarm: Alarm
    until_s: float
    lives: list[tuple[Life, Floats]]


def _chunks(scenario: Scenario, traces: Sequence[Trace]) -> Iterator[_Chunk]:
    lives = [(trace, life) for trace in traces for life in trace.lives]
    ends_s = np.cumsum([life.judged_s for _, life in lives])
    rng = generator(scenario.seed, 0, "detectors", "crash")
    moments_s = (np.arange(CRASHES) + rng.random(CRASHES)) / CRASHES * ends_s[-1]
    parts = np.split(moments_s, np.searchsorted(moments_s, ends_s[:-1]))
    number = 0
    for trace in traces:
        alarm, until_s = trace.alarm(scenario), max((life.watched_until_s for life in trace.lives), default=0.0)
        together: list[tuple[Life, Floats]] = []
        for life in trace.lives:
            into = parts[number] - (ends_s[number] - life.judged_s)
            together.append((life, life.judged_from_s + np.clip(into, 0.0, life.judged_s)))
            number += 1
            if sum(len(one.beats_s) for one, _ in together) >= _CHUNK_BEATS or life is trace.lives[-1]:
                yield _Chunk(number, alarm, until_s, together)
                together = []


def _follow_all(configs: Sequence[Detection], chunk: _Chunk) -> tuple[int, list[Tally]]:
    tallies = []
    for config in configs:
        tally = Tally.empty()
        new = config.detectors(config.heartbeat_s)
        for life, crashes_s in chunk.lives:
            tally.add(follow(new, life, chunk.alarm, crashes_s, chunk.until_s))
        tallies.append(tally)
    return chunk.number, tallies


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
