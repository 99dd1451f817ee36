"""By how much one cell differs from another: every measure, and how sure the difference is.

Replications are paired by their numbers: under common random numbers both have the same arrivals, demands and faults,
so what chance decided for both cancels. A percentile changes by a ratio, whose interval is that of `intervals`: of
paired replications, or of the blocks of a single pair of runs. A count changes by a difference per run; its interval
is Student's t of the paired differences, and a single pair of runs has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from orchestrator.analysis.intervals import Spread, relative_error
from orchestrator.analysis.measures import LATENCY, Clock, Observed, Together, at_least, counted_tasks, whole_run
from orchestrator.analysis.victims import TaskShifts, Trial, hit_tasks, shifts
from orchestrator.results.confidence import jackknife
from orchestrator.results.durations import latency_s
from orchestrator.results.executions import slots
from orchestrator.results.runs import Run
from orchestrator.results.summaries import class_keys, kind_codes
from orchestrator.results.tables import PRIORITIES, Tables, codes, floats

SHOWN = ("p50", "p95", "p99", "p999")
"""The percentiles of the latency that are compared."""
OF_CLASS = ("p50", "p99")
"""Those of each class of tasks."""
COUNTED = (
    "hit",
    "delayed",
    "sped_up",
    "failed",
    "unfinished",
    "attempts",
    "wasted_s",
    "healthy_declared_dead",
    "workers",
    "slots",
)
"""What is counted, or added up, in each run."""


class Verdict(StrEnum):
    """What may be said of a difference."""

    EQUAL = "equal"
    """The same number in both."""
    LOWER = "lower"
    HIGHER = "higher"
    NOT_SHOWN = "no difference shown"
    """The interval of 95 % holds no difference as well."""
    TOO_FEW = "too few"
    """The runs are too few, or too short, to say how sure the difference is."""
    COUNTED = "counted"
    """Different in these runs; nothing is said of others."""


@dataclass(frozen=True)
class Delta:
    """One measure of a cell against its baseline; counts are those of a run, on average over the replications."""

    measure: str
    """Its key in the summary, such as `latency_s.p99` or `by_kind.report.latency_s.p50`; or one of COUNTED."""
    baseline: float | None
    """None if it falls on a task that never completed, as the value; then there is a lower bound."""
    value: float | None
    difference: float | None
    """value - baseline."""
    change: float | None
    """Of a percentile: difference / baseline."""
    ci95: tuple[float, float] | None
    """Of the change of a percentile, of the difference of a count."""
    verdict: Verdict
    baseline_at_least: float | None = None
    at_least: float | None = None

    @property
    def differs(self) -> bool:
        return self.verdict is not Verdict.EQUAL

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out that there is no difference."""
        return self.verdict in (Verdict.LOWER, Verdict.HIGHER)


@dataclass(frozen=True)
class Reading:
    """What is compared of one run."""

    observed: Observed
    classes: Mapping[str, Observed]
    """By the key of a class in the summary, such as `by_priority.low`."""
    trial: Trial
    numbers: Mapping[str, float]

    @classmethod
    def of(cls, run: Run) -> Reading:
        tables, scenario = run.tables, run.scenario
        clock = Clock.of([whole_run(run)])
        observed = Observed.of(run, clock)
        hit = hit_tasks(tables, scenario)
        tasks = run.summary["tasks"]
        return cls(
            observed,
            _by_class(run, tables, observed, clock),
            Trial(floats(tables.tasks, "arrival_s"), latency_s(tables.tasks), hit),
            {
                "hit": float(np.count_nonzero(hit)),
                **{key: float(tasks[key]) for key in ("failed", "unfinished", "attempts", "wasted_s")},
                "healthy_declared_dead": float(run.summary["detection"]["healthy_declared_dead"]),
                "workers": float(len(scenario.worker_names())),
                "slots": slots(scenario),
            },
        )


def deltas(baseline: Sequence[Reading], others: Sequence[Reading]) -> tuple[list[Delta], TaskShifts | None]:
    """Every measure of `others` against the baseline, pair by pair of their runs; and the tasks that both have."""
    ours, theirs = [one.observed for one in others], [one.observed for one in baseline]
    found = _latencies("latency_s", ours, theirs, SHOWN)
    found.append(_maximum(ours, theirs))
    for name in dict.fromkeys(name for one in (*baseline, *others) for name in one.classes):
        mine, base = ([one.classes[name] for one in side if name in one.classes] for side in (others, baseline))
        if len(mine) == len(base) == len(others):
            found += _latencies(f"{name}.latency_s", mine, base, OF_CLASS)
    (median,) = (one.baseline for one in found if one.measure == "latency_s.p50")
    pairs = [(one.trial, other.trial) for one, other in zip(baseline, others, strict=True)]
    shifted = None if median is None else shifts(pairs, median)
    counted = {key: _numbers(key, others, baseline) for key in others[0].numbers}
    if shifted is not None:
        nobody = [0.0] * len(pairs)
        counted["delayed"] = _difference("delayed", [float(n) for n in shifted.delayed], nobody)
        counted["sped_up"] = _difference("sped_up", [float(n) for n in shifted.sped_up], nobody)
    return found + [counted[key] for key in COUNTED if key in counted], shifted


def _by_class(run: Run, tables: Tables, observed: Observed, clock: Clock) -> dict[str, Observed]:
    rows = counted_tasks(tables, clock)
    priority, kind = codes(tables.tasks, "priority", PRIORITIES)[rows], kind_codes(tables, run.scenario)[rows]
    found = {}
    for key, name in class_keys(run.summary).values():
        of, names = (priority, PRIORITIES) if key == "by_priority" else (kind, run.scenario.workload.kind_names())
        found[f"{key}.{name}"] = observed.only(of == list(names).index(name))
    return found


def _latencies(name: str, ours: Sequence[Observed], theirs: Sequence[Observed], shown: Sequence[str]) -> list[Delta]:
    values, references = Together(ours).measure(), Together(theirs).measure()
    spread = Spread.over_runs(ours, theirs) if len(ours) > 1 else Spread.over_blocks(ours[0], theirs[0])
    bounds, reference_bounds = at_least(ours), at_least(theirs)
    return [
        _percentile(
            f"{name}.{metric.partition('.')[2]}",
            values[metric],
            references[metric],
            spread.errors.get(metric),
            bounds.get(metric),
            reference_bounds.get(metric),
        )
        for metric in LATENCY
        if metric.partition(".")[2] in shown
    ]


def _percentile(
    measure: str,
    value: float,
    baseline: float,
    ci95: tuple[float, float] | None,
    bound: float | None,
    baseline_bound: float | None,
) -> Delta:
    known = math.isfinite(value) and math.isfinite(baseline)
    if value == baseline or (math.isnan(value) and math.isnan(baseline)):
        verdict = Verdict.EQUAL if bound == baseline_bound else Verdict.COUNTED
    elif ci95 is not None:
        verdict = _of_interval(ci95)
    else:
        verdict = Verdict.TOO_FEW if known else Verdict.COUNTED
    change = relative_error(value, baseline)
    return Delta(
        measure,
        _known(baseline),
        _known(value),
        value - baseline if known else None,
        _known(change),
        ci95,
        verdict,
        baseline_bound,
        bound,
    )


def _maximum(ours: Sequence[Observed], theirs: Sequence[Observed]) -> Delta:
    """The longest latency of all runs. It grows with the sample, so it has no interval."""
    value, baseline = (
        max((float(np.max(one.latency_s)) for one in side if len(one.latency_s)), default=math.nan)
        for side in (ours, theirs)
    )
    bound, baseline_bound = (at_least(side).get("latency_s.max") for side in (ours, theirs))
    found = _percentile("latency_s.max", value, baseline, None, bound, baseline_bound)
    return replace(found, verdict=Verdict.COUNTED) if found.differs else found


def _numbers(key: str, others: Sequence[Reading], baseline: Sequence[Reading]) -> Delta:
    return _difference(key, [one.numbers[key] for one in others], [one.numbers[key] for one in baseline])


def _difference(key: str, ours: Sequence[float], theirs: Sequence[float]) -> Delta:
    """Of the mean over the runs, with the interval of the paired differences."""
    pairs = np.array(ours) - np.array(theirs)
    mean, n = float(np.mean(pairs)), len(pairs)
    ci95 = None
    if n > 1:
        ci95 = jackknife(mean, (np.sum(pairs) - pairs) / (n - 1))
    verdict = Verdict.EQUAL if not np.any(pairs) else Verdict.COUNTED if ci95 is None else _of_interval(ci95)
    return Delta(key, float(np.mean(theirs)), float(np.mean(ours)), mean, None, ci95, verdict)


def _of_interval(ci95: tuple[float, float]) -> Verdict:
    if ci95[0] > 0:
        return Verdict.HIGHER
    return Verdict.LOWER if ci95[1] < 0 else Verdict.NOT_SHOWN


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
