"""Failure detectors judged on one heartbeat trace: which detector, with which setting, at which price?

The measures are those of Chen, Toueg and Aguilera ("On the quality of service of failure detectors", IEEE
Transactions on Computers 51, 2002). The truth is whether a worker's process is up. A verdict on a process that is
only paused or cut off is a mistake, and so is a verdict after lost heartbeats. Every detector hears the same trace
(common random numbers), and is asked as the coordinator asks: after each beat for the time of the next look, then for
its verdict. While the coordinator's process is paused, nobody looks. The coordinator's own rules (the cap on deaths,
the guard against its own pauses, failed calls) are left out.

Detection times are those of crashes at uniformly random moments of the judged time. A worker that is already wrongly
declared dead when it crashes is detected at once.

What is told of a setting is to hold on another trace as long, not only on this one: its mistakes and its detection time
have upper prediction bounds. Where nothing disturbed the heartbeats, a trace can't tell which setting withstands noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from orchestrator.analysis.detector_replay import Tally, follow
from orchestrator.analysis.traces import Alarm, Life, Trace
from orchestrator.policies import catalogue
from orchestrator.policies.detection import Detection
from orchestrator.results import manifests
from orchestrator.results.detection import quality_of_service
from orchestrator.results.parallel import unordered
from orchestrator.results.statistics import describe
from orchestrator.results.summaries import DETECTION_QUANTILES, Summary
from orchestrator.results.sweeps import Progress
from orchestrator.results.tables import Floats
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator

DAY_S = 86400.0
CRASHES = 5_000
"""How many crashes are tried, one in each of as many equal slices of the judged time."""
CONFIDENCE = 0.99
"""Of each of the two bounds of a setting, so that both together hold on 95 % of other traces, although the setting was
chosen among many for having fared well on this one."""
STRETCHES = 50
"""Of the traces' time: how unevenly mistakes fall into them tells whether they come together."""
DISTURBED = 1.25
"""A silence of more than so many heartbeats is one in which some beat was lost, or late."""
FEW = 5
"""With fewer disturbed silences a trace tells nothing of what disturbs heartbeats."""
BURST = 10
"""With fewer mistakes, a setting does not tell how they come together."""
_CHUNK_BEATS = 50_000
_ALONE_BEATS = 2_000_000
"""With fewer beats in all, starting processes would take longer than the work."""


class Candidate(NamedTuple):
    """A detector with one value of its main parameter. `own`: the scenario's own setting."""

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
        if not issubclass(cls, Detection):
            raise TypeError(f"{cls.__name__} is in the catalogue of detectors, but it is not a Detection")
        mine = isinstance(own, cls)
        kinds = get_args(cls.model_fields["kind"].annotation)
        if not mine and not kinds:
            continue  # a user's own class, whose parameters are not known
        base: Any = own if mine else cls.model_construct(None, kind=kinds[0], heartbeat_s=own.heartbeat_s)  # type: ignore[call-arg]
        kind = base.kind
        parameter, value = _main(base)
        grid = [Candidate(kind, parameter, v, config, config == own) for v, config in varied(base, own.heartbeat_s)]
        if mine and not any(candidate.own for candidate in grid):
            grid.append(Candidate(kind, parameter, value, own, True))
        found += sorted(grid, key=lambda candidate: (candidate.value is None, candidate.value))
    return found


def varied(rule: Any, heartbeat_s: float) -> list[tuple[float, Any]]:
    """A detector's config with each value of its main parameter; if it has a detector inside, of that one's."""
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
    """How one candidate fared. `detection_s`: of the crashes that were tried. `dispersion`: the variance over the mean
    of the number of mistakes in equal stretches of time, at least 1, which it is where they do not come together.
    `crashes`: as how many independent ones those that were tried count. `own_detection_s`, `missed` and `already_dead`
    are those of the trace's own crashes."""

    candidate: Candidate
    judged_s: float
    mistake_s: Floats
    detection_s: Floats
    own_detection_s: Floats
    missed: int
    dispersion: float = 1.0
    crashes: float = CRASHES
    already_dead: int = 0

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

    @cached_property
    def rate_upper_per_s(self) -> float:
        """The upper prediction bound of the rate on another trace as long.

        After k mistakes of a Poisson process, their number in an equal time is negative binomial, with k + 1 successes
        of probability 1/2 (Hahn and Meeker, "Statistical intervals", 1991, 7.6). Pauses and partitions strike workers
        together: mistakes of dispersion d count as a d-th of as many incidents of d mistakes each (quasi-likelihood:
        McCullagh and Nelder, "Generalized linear models", 1989, 6.2.3).
        """
        return self.dispersion * upper_number(self.mistakes / self.dispersion) / self.judged_s

    @cached_property
    def accuracy(self) -> float:
        """The share of the judged time in which the workers were trusted."""
        return 1.0 - float(np.sum(self.mistake_s)) / self.judged_s

    @cached_property
    def p99_s(self) -> float:
        """The time within which 99 % of the crashes were found; infinite if some crash was never found."""
        if not np.isfinite(self.detection_s).all():
            return math.inf
        return float(np.quantile(self.detection_s, 0.99))

    @cached_property
    def p99_upper_s(self) -> float:
        """The upper prediction bound of `p99_s` on another trace as long; infinite if there are too few crashes.

        It is an order statistic: of n crashes on either trace, the share that is found within the 99th percentile of
        the other one has a variance of 2 * 0.99 * 0.01 / n.
        """
        from scipy.special import ndtri

        share = 0.99 + float(ndtri(CONFIDENCE)) * math.sqrt(2 * 0.99 * 0.01 / self.crashes)
        if share >= 1 or math.isinf(self.p99_s):
            return math.inf
        return float(np.quantile(self.detection_s, share, method="higher"))


@dataclass(frozen=True)
class Recommendation:
    """`qualifies`: the point keeps every budget. `excess`: its largest ratio of cost to budget. `quiet`: nothing
    disturbed the heartbeats, so that the trace can't tell whether a budget of mistakes is kept."""

    point: Point
    qualifies: bool
    excess: float
    quiet: bool = False


@dataclass(frozen=True)
class Budget:
    """What a setting may cost; None for no limit."""

    mistakes_per_day: float | None = None
    """How often workers may wrongly be declared dead, of all workers together."""
    detection_s: float | None = None
    """The time within which 99 % of the crashes must be found."""

    def ratios(self, point: Point, workers: int) -> list[float]:
        """The share of each given budget that a setting takes, by the upper bounds of what it costs."""
        found = []
        if self.mistakes_per_day is not None:
            found.append(point.rate_upper_per_s * workers * DAY_S / self.mistakes_per_day)
        if self.detection_s is not None:
            found.append(point.p99_upper_s / self.detection_s)
        return found

    def recommend(self, points: Sequence[Point], workers: int, quiet: bool = False) -> Recommendation | None:
        """The best point that keeps the budgets; if none does, the nearest. None if there is no budget.

        With a budget of mistakes alone, the best is the fastest. With one of time, it is the one with fewest mistakes,
        and with both the one with the most room. Of equals it is then the slowest: it withstands more. On a `quiet`
        trace nothing qualifies for a budget of mistakes.
        """
        if self.mistakes_per_day is None and self.detection_s is None:
            return None
        cant_tell = quiet and self.mistakes_per_day is not None
        excess = [max(self.ratios(point, workers)) for point in points]
        qualified = [] if cant_tell else [(e, p) for e, p in zip(excess, points, strict=True) if e <= 1]

        def rank(scored: tuple[float, Point]) -> tuple[float, ...]:
            ratio, point = scored
            if not qualified:
                return ratio, point.p99_s, point.mistakes
            if self.detection_s is None:
                return point.p99_s, point.mistakes
            if self.mistakes_per_day is None:
                return point.rate_upper_per_s, 1 - point.accuracy, -point.p99_s
            return ratio, -point.p99_s, point.mistakes

        ratio, best = min(qualified or list(zip(excess, points, strict=True)), key=rank)
        return Recommendation(best, bool(qualified), ratio, quiet)


def upper_number(seen: float) -> float:
    """The upper prediction bound of how many incidents another trace has that is as long as one with so many."""
    from scipy.stats import nbinom

    return float(nbinom.ppf(CONFIDENCE, seen + 1, 0.5))


def dispersion(moments_s: Floats, length_s: float) -> float:
    """Of events in [0, length_s): the variance over the mean of their number in equal stretches, at least 1."""
    if len(moments_s) < 2:
        return 1.0
    stretch = np.clip((moments_s * (STRETCHES / length_s)).astype(np.int64), 0, STRETCHES - 1)
    counts = np.bincount(stretch, minlength=STRETCHES)
    return max(1.0, float(np.var(counts, ddof=1) / np.mean(counts)))


def front(points: Sequence[Point], cost: Callable[[Point], float] = lambda point: point.mistakes) -> list[Point]:
    """The Pareto front of detection time (p99) and cost, the fastest point first."""

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
    """All detectors on one trace, or on the traces of several replications. `orchestrator.pictures.draw` draws it."""

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
        return self.budget.recommend(self.points, self.workers, self.disturbed < FEW)

    @cached_property
    def disturbed(self) -> int:
        """How many silences of a worker that was up were longer than a heartbeat by more than jitter."""
        return sum(trace.disturbed(DISTURBED) for trace in self.traces)

    def per_day(self, rate_per_s: float) -> float:
        """A rate per worker-second as a rate per day of all workers together."""
        return rate_per_s * self.workers * DAY_S

    def summary(self) -> Summary:
        """The content of `detectors.json`: the trace, every point and the recommendation, as plain numbers."""
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
                "disturbed": self.disturbed,
                "disturbed_needed": FEW,
                "heartbeat_s": detection.heartbeat_s,
                "heartbeats_per_s": self.workers / detection.heartbeat_s,
                "check_every_s": detection.check_every_s,
                "judged_s": sum(trace.judged_s for trace in self.traces),
                "crashes": sum(life.crash_s is not None for life in lives),
            },
            "detection_times": f"of n = {len(self.points[0].detection_s):,} crashes at uniformly random moments",
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
                "quiet": recommended.quiet,
                "least_judged_s": self._least_judged_s,
            },
            "points": [self._point(point) for point in self.points],
        }

    def save(self, folder: str | Path) -> None:
        """Write `detectors.json` into `folder`, which is made if it does not exist. Raises RunFolderError for another
        file of that name."""
        manifests.write_json(folder, "detectors.json", self.summary())

    @property
    def _least_judged_s(self) -> float | None:
        """How long the workers must be watched for a setting without any mistake to keep the budget of mistakes."""
        allowed = self.budget.mistakes_per_day
        return None if allowed is None else upper_number(0) * self.workers * DAY_S / allowed

    def _point(self, point: Point) -> Summary:
        _, parameter, value, config, own = point.candidate
        return {
            "detector": point.candidate.detector,
            "parameter": parameter,
            "value": value,
            "setting": config.model_dump(exclude_none=True),
            "own": own,
            "pareto": point in self.front,
            **quality_of_service(point.mistakes, point.mistake_s, point.judged_s),
            "mistake_rate_upper_per_s": point.rate_upper_per_s,
            "dispersion": point.dispersion,
            "mistakes_per_day": self.per_day(point.rate_per_s),
            "mistakes_per_day_upper": self.per_day(point.rate_upper_per_s),
            "mistake_s": describe(point.mistake_s, DETECTION_QUANTILES),
            "detection_p99_upper_s": _finite(point.p99_upper_s),
            "detection_s": describe(point.detection_s if point.p99_s < math.inf else np.empty(0), DETECTION_QUANTILES),
            "own_crashes": {
                "detected": len(point.own_detection_s),
                "missed": point.missed,
                "already_dead": point.already_dead,
                "time_s": describe(point.own_detection_s, DETECTION_QUANTILES),
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
    """Judge every candidate, or only those in `tried`, on the same traces.

    The traces' heartbeats must have the scenario's interval. `progress` is called with the share that is done. Raises
    ValueError if no worker was ever up.
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
    judged_s, length_s = sum(trace.judged_s for trace in traces), sum(trace.length_s for trace in traces)
    tried_at_s = np.concatenate([chunk.after_s + crashes for chunk in chunks for _, crashes in chunk.lives])
    beats = sum(trace.beats for trace in traces)
    points = []
    for candidate, tally in zip(listed, tallies, strict=True):
        detection_s = np.array(tally.detection_s)
        slowest_at_s = tried_at_s[detection_s > np.quantile(detection_s, 0.99, method="higher")]
        point = Point(
            candidate,
            judged_s,
            np.array(tally.mistake_s),
            detection_s,
            np.array(tally.own_detection_s),
            tally.missed,
            dispersion(np.array(tally.mistaken_at_s), length_s),
            # Crashes between the same two beats are found at the same time, and so tell no more than one.
            min(len(detection_s), beats) / dispersion(slowest_at_s, length_s),
            tally.already_dead,
        )
        points.append(point)
    return Judgement(scenario, traces, _as_dispersed_as_others(points), budget or Budget())


def _as_dispersed_as_others(points: Sequence[Point]) -> list[Point]:
    """A setting with few mistakes does not show what strikes all workers together; a quicker one of its kind does."""
    found, widest = list(points), dict.fromkeys((point.candidate.detector for point in points), 1.0)
    for index in sorted(range(len(points)), key=lambda index: -points[index].mistakes):
        point = points[index]
        kind = point.candidate.detector
        if point.mistakes >= BURST:
            widest[kind] = max(widest[kind], point.dispersion)
        found[index] = replace(point, dispersion=max(widest[kind], point.dispersion))
    return found


class _Chunk(NamedTuple):
    """Some lives with the crashes to try: the work of one process at a time. `after_s`: where their trace begins when
    all traces are put one behind the other."""

    number: int
    after_s: float
    alarm: Alarm
    until_s: float
    lives: list[tuple[Life, Floats]]


def _chunks(scenario: Scenario, traces: Sequence[Trace]) -> Iterator[_Chunk]:
    lives = [(trace, life) for trace in traces for life in trace.lives]
    ends_s = np.cumsum([life.judged_s for _, life in lives])
    rng = generator(scenario.seed, 0, "detectors", "crash")
    moments_s = (np.arange(CRASHES) + rng.random(CRASHES)) / CRASHES * ends_s[-1]
    parts = np.split(moments_s, np.searchsorted(moments_s, ends_s[:-1]))
    number, after_s = 0, 0.0
    for trace in traces:
        alarm, until_s = trace.alarm(scenario), trace.length_s
        together: list[tuple[Life, Floats]] = []
        for life in trace.lives:
            into = parts[number] - (ends_s[number] - life.judged_s)
            together.append((life, life.judged_from_s + np.clip(into, 0.0, life.judged_s)))
            number += 1
            if sum(len(one.beats_s) for one, _ in together) >= _CHUNK_BEATS or life is trace.lives[-1]:
                yield _Chunk(number, after_s, alarm, until_s, together)
                together = []
        after_s += until_s


def _follow_all(configs: Sequence[Detection], chunk: _Chunk) -> tuple[int, list[Tally]]:
    tallies = []
    for config in configs:
        tally = Tally.empty()
        new = config.detectors(config.heartbeat_s)
        for life, crashes_s in chunk.lives:
            tally.add(follow(new, life, chunk.alarm, crashes_s, chunk.until_s))
        tally.mistaken_at_s = [chunk.after_s + at_s for at_s in tally.mistaken_at_s]
        tallies.append(tally)
    return chunk.number, tallies


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
