"""From the tables of a run to the numbers that people compare.

Task counts cover the whole run. Latency statistics cover the completed tasks that arrived from `warmup_s` on;
throughput and utilisation cover the window [warmup_s, duration_s]. Percentiles interpolate linearly between
order statistics (numpy's default, definition 7 of Hyndman and Fan, 1996). A statistic of nothing is None.

Several replications are pooled: their samples are put together and the percentiles taken of the whole, for the
mean of percentiles is no percentile. Confidence intervals come from the spread between replications, which are
independent, never from the correlated tasks within one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from orchestrator.results.tables import PRIORITIES, STATES, Codes, Floats, Tables, codes, floats

if TYPE_CHECKING:
    from orchestrator.results.runs import Run
    from orchestrator.scenario.schema import Scenario

Summary = dict[str, Any]

LATENCY = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
DETECTION = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

_COMPLETED = STATES.index("completed")
_IDENTITY = ("scenario", "world", "seed", "duration_s", "engine")


@dataclass(frozen=True)
class Sample:
    """The values that the percentiles of one or more runs are taken over."""

    latency_s: Floats
    """Of each completed task that arrived from warmup_s on; the next three follow the same order."""
    wait_s: Floats
    accept_s: Floats
    priority: Codes
    """Positions in PRIORITIES."""
    detection_s: Floats
    """Crash to conviction, of each detected crash."""
    mistake_s: Floats
    """How long each mistake of the detector lasted."""
    delayed_s: Floats
    """Of each task that a worker's crash struck: how long its attempts lay on the dead worker."""

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario, detection: Detection | None = None) -> Sample:
        """`detection`: that of these tables, where it is known already."""
        detection = detection or Detection.of(tables, end_s(tables, scenario))
        tasks = tables.tasks
        arrival_s = floats(tasks, "arrival_s")
        counted = (arrival_s >= scenario.warmup_s) & (codes(tasks, "state", STATES) == _COMPLETED)
        return cls(
            latency_s=floats(tasks, "latency_s")[counted],
            wait_s=floats(tasks, "wait_s")[counted],
            accept_s=(floats(tasks, "accepted_s") - arrival_s)[counted],
            priority=codes(tasks, "priority", PRIORITIES)[counted],
            detection_s=detection.time_s,
            mistake_s=detection.mistake_s,
            delayed_s=_delayed_s(tables, detection),
        )

    @classmethod
    def pooled(cls, samples: Sequence[Sample]) -> Sample:
        return cls(**{name: np.concatenate([getattr(s, name) for s in samples]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Detection:
    """How the failure detector fared against the crashes that really happened.

    A verdict that finds a crashed worker is a detection, timed from the crash. A worker that is back before any
    verdict was missed. A verdict on a worker whose process has not crashed is a false positive: a mistake in the
    sense of Chen, Toueg and Aguilera ("On the quality of service of failure detectors", 2002), also where the process
    is merely paused or cut off. Convictions by a failed call are no work of the detector and stand beside it.

    The detector is judged while a worker's process was up and registered, and not convicted by a failed call.
    """

    crashes: int
    missed: int
    by_failed_call: int
    time_s: Floats
    """Crash to conviction, of each detected crash."""
    false_positives: list[tuple[float, str]]
    """When each was pronounced, and on whom."""
    mistake_s: Floats
    """How long each of these lasted: until the worker was trusted again, crashed, left, or the run was over."""
    judged_s: float
    """Worker-seconds over which the detector is judged."""
    beating_s: float
    """Worker-seconds over which heartbeats were sent: a registered process was up, and not paused."""
    down: list[tuple[str, float, float]]
    """Worker, crash and the registration of its next process, or the end of the run."""

    @classmethod
    def of(cls, tables: Tables, until_s: float | None = None) -> Detection:
        """`until_s`: the end of the run; that of the last event if it is not given."""
        crashes = missed = by_failed_call = 0
        time_s: list[float] = []
        false_positives: list[tuple[float, str]] = []
        unnoticed: defaultdict[str, list[float]] = defaultdict(list)  # crashes on which nobody has ruled, by worker
        down: set[str] = set()  # in truth
        dead: set[str] = set()  # in the coordinator's eyes
        lives: defaultdict[str, _Life] = defaultdict(_Life)
        at_s = 0.0
        for at_s, kind, worker, detail in rows(tables.events):
            life = lives[worker]
            if kind == "crash":
                crashes += 1
                down.add(worker)
                unnoticed[worker].append(at_s)
                life.end(at_s)
                life.crashed_s = at_s if life.crashed_s is None else life.crashed_s
            elif kind == "heal" and detail == "restart":
                down.discard(worker)
            elif kind == "pause":
                life.silent(at_s)
            elif kind == "heal" and detail == "resume":
                life.beating(at_s)
            elif kind == "left":
                life.end(at_s)
            elif kind == "dead":
                dead.add(worker)
                if detail == "failed_call":
                    by_failed_call += 1
                    life.unjudged(at_s)
                elif unnoticed[worker]:
                    time_s += [at_s - crash_s for crash_s in unnoticed[worker]]
                elif worker not in down:
                    false_positives.append((at_s, worker))
                    life.mistaken_s = at_s
                unnoticed[worker].clear()
            elif kind == "up":
                if worker not in down:  # else it is a message that the crash overtook
                    missed += 0 if worker in dead else len(unnoticed[worker])
                    unnoticed[worker].clear()
                    life.trusted(at_s)
                dead.discard(worker)
        until_s = at_s if until_s is None else until_s
        for life in lives.values():
            life.end(until_s)
            life.back(until_s)
        return cls(
            crashes,
            missed,
            by_failed_call,
            np.array(time_s),
            false_positives,
            np.array([length_s for life in lives.values() for length_s in life.mistakes_s]),
            sum(life.judged_s for life in lives.values()),
            sum(life.beating_s for life in lives.values()),
            [(worker, *interval) for worker, life in lives.items() for interval in life.down],
        )


class _Life:
    """What is being measured of one worker, stretch by stretch."""

    def __init__(self) -> None:
        self.mistakes_s: list[float] = []
        self.judged_s = self.beating_s = 0.0
        self.down: list[tuple[float, float]] = []
        self.mistaken_s: float | None = None  # since when it is wrongly convicted
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


def rows(events: pa.Table) -> Iterator[tuple[float, str, str, str | None]]:
    """The events as tuples (time_s, kind, worker, detail), in the order of time."""
    columns = (events.column(name).to_pylist() for name in ("time_s", "kind", "worker", "detail"))
    return zip(*columns, strict=True)


def summarise(
    tables: Tables, scenario: Scenario, world: str, engine: Mapping[str, Any], counters: Mapping[str, int]
) -> Summary:
    """The summary of one run, as plain numbers, in the shape of `summary.json`.

    `engine` is copied; `counters` holds `late_results`, which no table shows.
    """
    ended_s = end_s(tables, scenario)
    detection = Detection.of(tables, ended_s)
    sample = Sample.of(tables, scenario, detection)
    state = codes(tables.tasks, "state", STATES)
    priority = codes(tables.tasks, "priority", PRIORITIES)
    runs_s = Executions.of(tables, scenario)
    unsettled = ~tables.attempts.column("settled").to_numpy()
    of_priority = np.bincount(priority[state == _COMPLETED], minlength=len(PRIORITIES))
    return {
        "scenario": scenario.name,
        "world": world,
        "seed": scenario.seed,
        "duration_s": float(scenario.duration_s),
        "tasks": {
            "submitted": len(state),
            **{name: int(np.count_nonzero(state == code)) for code, name in enumerate(STATES)},
            "attempts": tables.attempts.num_rows,
            "late_results": int(counters["late_results"]),
            "wasted_s": float(np.sum((runs_s.stop_s - runs_s.start_s)[unsettled])),
        },
        **_latencies(sample),
        "throughput_per_s": _throughput(tables, scenario),
        "utilization": _ratio(float(np.sum(runs_s.busy_s(scenario))), _slots(scenario) * _window_s(scenario)),
        "by_priority": {
            PRIORITIES[code]: {
                "completed": int(of_priority[code]),
                "latency_s": describe(sample.latency_s[sample.priority == code], LATENCY),
            }
            for code in np.unique(priority)
        },
        "detection": {
            "crashes": detection.crashes,
            "detected": len(detection.time_s),
            "missed": detection.missed,
            "false_positives": len(detection.false_positives),
            "by_failed_call": detection.by_failed_call,
            "false_positives_per_h": _ratio(3600.0 * len(detection.false_positives), ended_s),
            "time_s": describe(detection.time_s, DETECTION),
            **quality(len(detection.false_positives), detection.mistake_s, detection.judged_s),
            "mistake_s": describe(sample.mistake_s, DETECTION),
            "mistake_wasted_s": _wasted_by_mistakes_s(tables, scenario, detection, runs_s),
            "tasks_delayed": len(sample.delayed_s),
            "delayed_s": describe(sample.delayed_s, DETECTION),
            "heartbeats_per_s": _ratio(detection.beating_s, scenario.policies.detection.heartbeat_s * ended_s),
        },
        "engine": dict(engine),
    }


def pool(runs: Sequence[Run]) -> Summary:
    """The summary of several replications of one scenario, with `replications` and `ci95`.

    Counts are summed, percentiles taken over the pooled samples, rates averaged (the windows are equally long).
    `ci95` maps each dotted metric, such as `latency_s.p99`, to the 95 % confidence interval [low, high] of its
    mean over replications; None where fewer than two replications know it.
    """
    summaries = [run.summary for run in runs]
    sample = Sample.pooled([Sample.of(run.tables, run.scenario) for run in runs])
    first = summaries[0]
    return {
        **{key: first[key] for key in ("scenario", "world", "seed", "duration_s")},
        "tasks": {key: sum(s["tasks"][key] for s in summaries) for key in first["tasks"]},
        **_latencies(sample),
        "throughput_per_s": _mean([s["throughput_per_s"] for s in summaries]),
        "utilization": _mean([s["utilization"] for s in summaries]),
        "by_priority": {
            name: {
                "completed": sum(s["by_priority"].get(name, {"completed": 0})["completed"] for s in summaries),
                "latency_s": describe(sample.latency_s[sample.priority == code], LATENCY),
            }
            for code, name in enumerate(PRIORITIES)
            if any(name in s["by_priority"] for s in summaries)
        },
        "detection": {
            **{
                key: sum(s["detection"][key] for s in summaries)
                for key in ("crashes", "detected", "missed", "false_positives", "by_failed_call")
            },
            "false_positives_per_h": _mean([s["detection"]["false_positives_per_h"] for s in summaries]),
            "time_s": describe(sample.detection_s, DETECTION),
            **quality(
                sum(s["detection"]["mistakes"] for s in summaries),
                sample.mistake_s,
                sum(s["detection"]["judged_s"] for s in summaries),
            ),
            "mistake_s": describe(sample.mistake_s, DETECTION),
            "mistake_wasted_s": sum(s["detection"]["mistake_wasted_s"] for s in summaries),
            "tasks_delayed": len(sample.delayed_s),
            "delayed_s": describe(sample.delayed_s, DETECTION),
            "heartbeats_per_s": _mean([s["detection"]["heartbeats_per_s"] for s in summaries]),
        },
        "engine": _pooled_engine([s["engine"] for s in summaries]),
        "replications": len(runs),
        "ci95": _confidence(summaries),
    }


def quality(mistakes: int, mistake_s: Floats, judged_s: float) -> Summary:
    """A detector's quality of service after Chen, Toueg and Aguilera (2002), per worker-second of judged time: the
    mistake rate, and the query accuracy, which is the share of that time in which the workers were trusted."""
    wrong = _ratio(float(np.sum(mistake_s)), judged_s)
    return {
        "judged_s": judged_s,
        "mistakes": mistakes,
        "mistake_rate_per_s": _ratio(mistakes, judged_s),
        "query_accuracy": None if wrong is None else 1 - wrong,
    }


def describe(values: Floats, quantiles: Mapping[str, float]) -> dict[str, float | None]:
    """Mean, the named quantiles and maximum of the known values, in this order; all None where there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return dict.fromkeys(["mean", *quantiles, "max"])
    points = np.quantile(values, list(quantiles.values()))
    return {
        "mean": float(np.mean(values)),
        **{name: float(point) for name, point in zip(quantiles, points, strict=True)},
        "max": float(np.max(values)),
    }


def confidence_interval(values: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Student's t interval of the mean over the first axis: mean -+ t(n - 1) s / sqrt(n), for n >= 2 values."""
    from scipy.special import stdtrit  # a third of what importing scipy.stats takes

    n = len(values)
    half = stdtrit(n - 1, (1 + level) / 2) * np.std(values, axis=0, ddof=1) / np.sqrt(n)
    mean = np.mean(values, axis=0)
    return mean - half, mean + half


def flatten(summary: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in summary.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@dataclass(frozen=True)
class Series:
    """A run over time, in equal bins; `duration_s` is an edge. NaN where a bin holds nothing to take it from."""

    edges_s: Floats
    p50_s: Floats
    """Latency of the tasks that arrived in each bin, so that a wait shows where it began."""
    p99_s: Floats
    slowest_s: Floats
    arrivals_per_s: Floats
    completions_per_s: Floats
    waiting: Floats
    """Mean number of accepted tasks that no worker has, those between two attempts included."""


def series(tables: Tables, scenario: Scenario) -> Series:
    edges_s = _edges(scenario.duration_s, end_s(tables, scenario), tables.tasks.num_rows)
    n, width_s = len(edges_s) - 1, edges_s[1]
    arrival_s = floats(tables.tasks, "arrival_s")
    completed = codes(tables.tasks, "state", STATES) == _COMPLETED
    settled_s = floats(tables.tasks, "settled_s")[completed]
    arrival_bin = _bins(arrival_s, width_s, n)
    latency_s = floats(tables.tasks, "latency_s")[completed]
    quantiles = _binned_quantiles(arrival_bin[completed], latency_s, n, (0.5, 0.99, 1.0))
    return Series(
        edges_s=edges_s,
        p50_s=quantiles[0],
        p99_s=quantiles[1],
        slowest_s=quantiles[2],
        arrivals_per_s=np.bincount(arrival_bin, minlength=n) / width_s,
        completions_per_s=np.bincount(_bins(settled_s, width_s, n), minlength=n) / width_s,
        waiting=_mean_level(*_queue_changes(tables), edges_s),
    )


@dataclass(frozen=True)
class Executions:
    """Where and when each attempt executed, row by row of the attempts; an empty interval at 0 where it never did.

    From the start for as long as the worker reported; else until the attempt ended, its worker crashed or the run
    was over.
    """

    worker: Codes
    """Positions in the workers of the scenario."""
    start_s: Floats
    stop_s: Floats

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario) -> Executions:
        attempts, names = tables.attempts, scenario.worker_names()
        worker = codes(attempts, "worker", names)
        start_s = floats(attempts, "started_s")
        stop_s = start_s + floats(attempts, "ran_s")
        untold = np.flatnonzero(np.isnan(stop_s) & ~np.isnan(start_s))
        if len(untold):
            ended_s = floats(attempts, "ended_s")[untold]
            last_s = np.where(np.isnan(ended_s), end_s(tables, scenario), ended_s)
            stop_s[untold] = np.minimum(last_s, _next_crash(tables, names, worker[untold], start_s[untold]))
        return cls(worker, np.nan_to_num(start_s), np.nan_to_num(np.maximum(start_s, stop_s)))

    def busy_s(self, scenario: Scenario) -> Floats:
        """Execution seconds within [warmup_s, duration_s] by worker."""
        start_s, stop_s = (np.clip(t, scenario.warmup_s, scenario.duration_s) for t in (self.start_s, self.stop_s))
        known = self.worker >= 0
        workers = len(scenario.worker_names())
        busy_s = np.bincount(self.worker[known], (stop_s - start_s)[known], minlength=workers)
        return busy_s.astype(np.float64)


def worker_utilization(tables: Tables, scenario: Scenario) -> Floats:
    """Share of its slots that each worker of `scenario.worker_names()` kept busy in [warmup_s, duration_s]."""
    available_s = _capacities(scenario) * _window_s(scenario)
    busy_s = Executions.of(tables, scenario).busy_s(scenario)
    return np.divide(busy_s, available_s, out=np.zeros_like(busy_s), where=available_s > 0)


def end_s(tables: Tables, scenario: Scenario) -> float:
    """When the last thing happened, and not before `duration_s`."""
    columns = [
        floats(tables.tasks, "settled_s"),
        *(floats(tables.attempts, name) for name in ("assigned_s", "started_s", "given_up_s", "ended_s")),
        floats(tables.events, "time_s"),
    ]
    return float(np.fmax.reduce([np.fmax.reduce(column, initial=scenario.duration_s) for column in columns]))


def _next_crash(tables: Tables, names: Sequence[str], worker: Codes, after_s: Floats) -> Floats:
    """The first crash of each worker at or after each moment; infinity where there is none."""
    crash = codes(tables.events, "kind", ["crash"]) == 0
    crash_s = floats(tables.events, "time_s")[crash]
    crash_worker = codes(tables.events, "worker", names)[crash]
    # One integer orders (worker, time) exactly, where a sum of floats would round.
    moments, rank = np.unique(np.concatenate([crash_s, after_s]), return_inverse=True)
    key = np.concatenate([crash_worker, worker]) * len(moments) + rank
    order = np.argsort(key[: len(crash_s)])
    found = np.searchsorted(key[order], key[len(crash_s) :])
    next_worker = np.append(crash_worker[order], -2)[found]
    return np.where(next_worker == worker, np.append(crash_s[order], np.inf)[found], np.inf)


def _wasted_by_mistakes_s(tables: Tables, scenario: Scenario, detection: Detection, executions: Executions) -> float:
    """Execution seconds of the attempts that a mistaken verdict gave up and that then did not settle their task."""
    if not detection.false_positives:
        return 0.0
    attempts, place = tables.attempts, {name: slot for slot, name in enumerate(scenario.worker_names())}
    given_up_s = floats(attempts, "given_up_s")
    lost = np.flatnonzero(~np.isnan(given_up_s) & ~attempts.column("settled").to_numpy())
    wrong = {(at_s, place[worker]) for at_s, worker in detection.false_positives}
    injection = [
        row
        for row, at_s, worker in zip(lost, given_up_s[lost].tolist(), executions.worker[lost].tolist(), strict=True)
        if (at_s, worker) in wrong
    ]
    return float(np.sum(executions.stop_s[injection] - executions.start_s[injection]))


def _delayed_s(tables: Tables, detection: Detection) -> Floats:
    """Of each task with an attempt on a crashed worker: how long its attempts lay there until they were given up.

    From the crash, or the assignment if that came later, to the verdict, timeout, failed call or registration that
    freed the task, or the end of the run. An attempt whose result was on its way, or that a twin made needless,
    delays nothing.
    """
    if not detection.down:
        return np.empty(0)
    attempts, names = tables.attempts, sorted({worker for worker, _, _ in detection.down})
    needless = codes(attempts, "outcome", ["completed", "failed", "cancelled", "rejected"]) >= 0
    rows_ = np.flatnonzero(~needless & (codes(attempts, "worker", names) >= 0))
    worker = np.array(names)[codes(attempts, "worker", names)[rows_]]
    assigned_s = floats(attempts, "assigned_s")[rows_]
    freed_s = np.fmin(floats(attempts, "given_up_s"), floats(attempts, "ended_s"))[rows_]
    delayed_s = np.zeros(len(rows_))
    for name, crash_s, back_s in detection.down:
        mine = worker == name
        until_s = np.fmin(freed_s[mine], back_s)
        delayed_s[mine] += np.maximum(0.0, until_s - np.maximum(assigned_s[mine], crash_s))
    tasks, task = np.unique(attempts.column("task").to_numpy()[rows_], return_inverse=True)
    total_s = np.bincount(task, delayed_s, minlength=len(tasks))
    return np.asarray(total_s[total_s > 0], dtype=np.float64)


def _queue_changes(tables: Tables) -> tuple[Floats, Floats]:
    """The moments at which the number of waiting tasks changes, and by how much.

    Waiting = accepted and not settled, less those that an attempt holds: from its assignment until it is given
    up, ends, or its task is settled by another.
    """
    tasks, attempts = tables.tasks, tables.attempts
    settled_s = floats(tasks, "settled_s")
    task_row = np.searchsorted(tasks.column("task").to_numpy(), attempts.column("task").to_numpy())
    released_s = np.fmin(floats(attempts, "given_up_s"), floats(attempts, "ended_s"))
    released_s = np.fmin(released_s, settled_s[task_row])
    moments = [floats(tasks, "accepted_s"), settled_s, floats(attempts, "assigned_s"), released_s]
    change = np.repeat([1.0, -1.0, -1.0, 1.0], [len(m) for m in moments])
    time_s = np.concatenate(moments)
    happened = ~np.isnan(time_s)
    return time_s[happened], change[happened]


def _mean_level(time_s: Floats, change: Floats, edges_s: Floats) -> Floats:
    """The time average, in each bin, of the level that starts at 0 and changes at the given moments."""
    n, width_s = len(edges_s) - 1, edges_s[1]
    where = _bins(time_s, width_s, n)
    net = np.bincount(where, change, minlength=n)
    within = np.bincount(where, change * (edges_s[where + 1] - time_s), minlength=n) / width_s
    level: Floats = np.maximum(np.cumsum(net) - net + within, 0.0)
    return level


def _binned_quantiles(where: Codes, values: Floats, n: int, quantiles: Sequence[float]) -> Floats:
    """float64[quantiles, n]: quantiles of the values in each bin, NaN in an empty one."""
    ordered = np.append(values[np.lexsort((values, where))], np.nan)
    count = np.bincount(where, minlength=n)
    position = (np.cumsum(count) - count) + np.multiply.outer(quantiles, np.maximum(count - 1, 0))
    low = np.floor(position).astype(np.int64)
    high = np.ceil(position).astype(np.int64)
    points: Floats = ordered[low] + (position - low) * (ordered[high] - ordered[low])
    points[:, count == 0] = np.nan
    return points


def _edges(duration_s: float, until_s: float, tasks: int) -> Floats:
    """About 120 bins, fewer where tasks are few, so that a bin has something to say."""
    most = min(max(tasks / 60, 12), 120)
    width_s = duration_s / max(round(most * duration_s / until_s), 1)
    # The last bin holds whatever happens at its very end, an end that rounding must not push out.
    return np.arange(int(np.ceil(until_s / width_s - 1e-9)) + 1, dtype=np.float64) * width_s


def _bins(time_s: Floats, width_s: float, n: int) -> Codes:
    return np.clip((time_s / width_s).astype(np.int64), 0, n - 1)


def _latencies(sample: Sample) -> Summary:
    return {name: describe(getattr(sample, name), LATENCY) for name in ("latency_s", "wait_s", "accept_s")}


def _throughput(tables: Tables, scenario: Scenario) -> float | None:
    settled_s = floats(tables.tasks, "settled_s")[codes(tables.tasks, "state", STATES) == _COMPLETED]
    inside = (settled_s >= scenario.warmup_s) & (settled_s <= scenario.duration_s)
    return _ratio(float(np.count_nonzero(inside)), _window_s(scenario))


def _window_s(scenario: Scenario) -> float:
    return max(scenario.duration_s - scenario.warmup_s, 0.0)


def _capacities(scenario: Scenario) -> Floats:
    groups = scenario.cluster.groups
    return np.repeat(np.array([float(g.capacity) for g in groups]), [g.workers for g in groups])


def _slots(scenario: Scenario) -> float:
    return float(np.sum(_capacities(scenario)))


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _pooled_engine(engines: Sequence[Mapping[str, Any]]) -> Summary:
    """Totals over the runs; rates over the summed wall time."""
    wall_s = sum(engine["wall_s"] for engine in engines)
    pooled: Summary = {}
    for key in engines[0]:
        if key.endswith("_per_s"):
            pooled[key] = _ratio(sum(engine[key] * engine["wall_s"] for engine in engines), wall_s)
        else:
            pooled[key] = sum(engine[key] for engine in engines)
    return pooled


def _confidence(summaries: Sequence[Summary]) -> dict[str, list[float] | None]:
    flat = [flatten({key: s[key] for key in s if key not in _IDENTITY}) for s in summaries]
    intervals: dict[str, list[float] | None] = {}
    for metric in dict.fromkeys(key for f in flat for key in f):
        values = [f[metric] for f in flat if f.get(metric) is not None]
        if len(values) < 2:
            intervals[metric] = None
        else:
            intervals[metric] = [float(bound) for bound in confidence_interval(np.array(values, dtype=np.float64))]
    return intervals
