"""From the tables of a run to the numbers of its `summary.json`; `columns.SUMMARY` explains every key.

Task counts cover the whole run. Latency statistics cover all tasks that arrived from `warmup_s` on: one that failed or
is unfinished is slower than every one that completed. Throughput, utilisation and the queue cover the window
[warmup_s, duration_s]. A statistic of no values is None.

Several replications are pooled: percentiles are taken over the samples of all of them together, because a mean of
percentiles is not a percentile. Confidence intervals are of the pooled numbers (`confidence`). They come from the
spread between replications, which are independent, and never from the tasks within one run, which are correlated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from orchestrator.core.model import Outcome
from orchestrator.results import durations
from orchestrator.results.detection import DetectionRecord, quality_of_service
from orchestrator.results.executions import Executions, end_s, slots, stated_load, window_s
from orchestrator.results.pooled_intervals import Cluster, Clusters, intervals
from orchestrator.results.queues import at_coordinator, at_workers, mean_level
from orchestrator.results.statistics import describe, ratio
from orchestrator.results.tables import KIND, OUTCOMES, PRIORITIES, STATES, Codes, Floats, State, Tables, codes, floats
from orchestrator.results.transient import batches, unsettled_until_s

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

Summary = dict[str, Any]

LATENCY_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
DETECTION_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

COUNTS = ("submitted", *STATES)
_OF_WORKERS = (
    "crashes",
    "detected",
    "missed",
    "already_dead",
    "false_positives",
    "by_failed_call",
    "healthy_declared_dead",
)
_COMPLETED, _FAILED = STATES.index(State.COMPLETED), STATES.index(State.FAILED)
_NOT_DELAYED = (Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED, Outcome.REJECTED)
"""Outcomes of attempts that delay no task: a result was on its way, the attempt was not needed, or it never began."""


class Finished(Protocol):
    """What is needed of a run to pool it."""

    @property
    def summary(self) -> Summary: ...
    @property
    def tables(self) -> Tables: ...
    @property
    def scenario(self) -> Scenario: ...


@dataclass(frozen=True)
class Sample:
    """The values over which the percentiles of one run or of several runs are taken."""

    latency_s: Floats
    """Of each task that arrived from warmup_s on, as in `durations`; the next four arrays have the same order."""
    wait_s: Floats
    accept_s: Floats
    age_s: Floats
    priority: Codes
    """Positions in PRIORITIES."""
    kind: Codes
    """Positions in the scenario's kinds; -1 without kinds."""
    detection_s: Floats
    """From crash to verdict, of each detected crash."""
    mistake_s: Floats
    """How long each mistake of the detector lasted."""
    delayed_s: Floats
    """Of each task that a crash of a worker delayed: how long its attempts lay on the dead worker."""

    @classmethod
    def of(cls, tables: Tables, scenario: Scenario, detection: DetectionRecord | None = None) -> Sample:
        """`detection`: the record of these tables, if it is known already."""
        ended_s = end_s(tables, scenario)
        detection = detection or DetectionRecord.of(tables, ended_s)
        tasks = tables.tasks
        counted = floats(tasks, "arrival_s") >= scenario.warmup_s
        return cls(
            latency_s=durations.latency_s(tasks)[counted],
            wait_s=durations.wait_s(tasks)[counted],
            accept_s=durations.accept_s(tasks)[counted],
            age_s=durations.age_s(tasks, ended_s)[counted],
            priority=codes(tasks, "priority", PRIORITIES)[counted],
            kind=kind_codes(tables, scenario)[counted],
            detection_s=detection.time_s,
            mistake_s=detection.mistake_s,
            delayed_s=_delayed_s(tables, detection),
        )

    @classmethod
    def pooled(cls, samples: Sequence[Sample]) -> Sample:
        """The values of several runs together."""
        return cls(**{name: np.concatenate([getattr(s, name) for s in samples]) for name in cls.__dataclass_fields__})

    def latencies(self) -> Summary:
        names = ("latency_s", "wait_s", "accept_s")
        return {name: describe(getattr(self, name), LATENCY_QUANTILES, self.age_s) for name in names}

    def latency_of(self, mine: npt.NDArray[np.bool_]) -> Summary:
        return describe(self.latency_s[mine], LATENCY_QUANTILES, self.age_s[mine])


def engine_summary(wall_s: float, events: int, tasks: int) -> Summary:
    """The key `engine`: how fast a world ran.

    `wall_s`: real seconds from the start of the run until its tables are written. `events`: what the engine processed
    in that time (events of the simulator, inputs of a live coordinator). `tasks`: rows of the tasks table.
    """
    return {"wall_s": wall_s, "events": events, "tasks_per_s": tasks / wall_s, "events_per_s": events / wall_s}


def summarise(
    tables: Tables,
    scenario: Scenario,
    world: str,
    engine: Mapping[str, Any],
    counters: Mapping[str, int],
    interrupted: bool = False,
) -> Summary:
    """The summary of one run, as plain numbers, in the shape of `summary.json`.

    `engine` is copied (see `engine_summary`). `counters`: the coordinator's, some of which no table shows.
    `interrupted`: the run was stopped before its end, and the summary says so.
    """
    ended_s = end_s(tables, scenario)
    detection = DetectionRecord.of(tables, ended_s)
    sample = Sample.of(tables, scenario, detection)
    state = codes(tables.tasks, "state", STATES)
    priority = codes(tables.tasks, "priority", PRIORITIES)
    by_kind = _by_class(sample, state, kind_codes(tables, scenario), sample.kind, scenario.workload.kind_names())
    runs_s = Executions.of(tables, scenario)
    used = runs_s.shares_s(scenario)
    unsettled = ~tables.attempts.column("settled").to_numpy()
    summary = {
        "scenario": scenario.name,
        "world": world,
        "seed": scenario.seed,
        "duration_s": float(scenario.duration_s),
        "ended_s": ended_s,
        "tasks": {
            **_counts(state),
            "attempts": tables.attempts.num_rows,
            "late_results": int(counters["late_results"]),
            "wasted_s": float(np.sum(runs_s.executed_s[unsettled])),
        },
        **_limits(tables, scenario, state, counters),
        **sample.latencies(),
        "throughput_per_s": _throughput(tables, scenario),
        "utilization": ratio(used["executed_s"], slots(scenario) * window_s(scenario)),
        "slots": used,
        "by_priority": _by_class(sample, state, priority, sample.priority, PRIORITIES),
        **({"by_kind": by_kind} if by_kind else {}),
        "queue": {
            where: mean_level(changes(tables), scenario.warmup_s, scenario.duration_s)
            for where, changes in (("at_coordinator", at_coordinator), ("at_workers", at_workers))
        },
        "detection": {
            "crashes": detection.crashes,
            "detected": len(detection.time_s),
            "missed": detection.missed,
            "already_dead": detection.already_dead,
            "false_positives": len(detection.false_positives),
            "by_failed_call": detection.by_failed_call,
            "healthy_declared_dead": len(detection.healthy_declared_dead),
            "false_positives_per_h": ratio(3600.0 * len(detection.false_positives), ended_s),
            "time_s": describe(detection.time_s, DETECTION_QUANTILES),
            **quality_of_service(len(detection.false_positives), detection.mistake_s, detection.judged_s),
            "mistake_s": describe(sample.mistake_s, DETECTION_QUANTILES),
            "mistake_wasted_s": _wasted_by_mistakes_s(tables, scenario, detection, runs_s),
            "tasks_delayed": len(sample.delayed_s),
            "delayed_s": describe(sample.delayed_s, DETECTION_QUANTILES),
            "heartbeats_per_s": ratio(detection.beating_s, scenario.policies.detection.heartbeat_s * ended_s),
        },
        "unsettled_until_s": unsettled_until_s([batches(tables, scenario, ended_s)]),
        "engine": dict(engine),
    }
    return summary | {"interrupted": True} if interrupted else summary


def pool(runs: Sequence[Finished]) -> Summary:
    """The summary of several replications of one scenario, with the keys `replications`, `ci95` and `ci95_too_few`.

    Counts are summed. Percentiles are taken over the pooled samples. Rates are averaged, because the windows are
    equally long. `ci95` maps each dotted metric, such as `latency_s.p99`, to the 95 % confidence interval [low, high]
    of the number in this summary, and `ci95_too_few` names those of which the replications do not tell the upper end.
    """
    summaries, samples, early = [run.summary for run in runs], [], []
    kinds = runs[0].scenario.workload.kind_names()
    for run in runs:
        tables, scenario = run.tables, run.scenario  # read from their files at each access
        samples.append(Sample.of(tables, scenario))
        early.append(batches(tables, scenario, run.summary["ended_s"]))
    summary = _pooled(summaries, Sample.pooled(samples), kinds) | {"unsettled_until_s": unsettled_until_s(early)}
    scenario = runs[0].scenario
    found = intervals(summaries, summary, _clusters(samples, kinds), slots(scenario), stated_load(scenario))
    return summary | found


def _pooled(summaries: Sequence[Summary], sample: Sample, kinds: Sequence[str]) -> Summary:
    first = summaries[0]
    by_kind = _pooled_by_class(summaries, "by_kind", sample, sample.kind, kinds)
    return {
        **{key: first[key] for key in ("scenario", "world", "seed", "duration_s")},
        "ended_s": max(s["ended_s"] for s in summaries),
        **{
            section: {key: sum(s[section][key] for s in summaries) for key in first[section]}
            for section in ("tasks", "limits")
            if section in first
        },
        **sample.latencies(),
        "throughput_per_s": _mean([s["throughput_per_s"] for s in summaries]),
        "utilization": _mean([s["utilization"] for s in summaries]),
        "slots": {key: sum(s["slots"][key] for s in summaries) for key in first["slots"]},
        "by_priority": _pooled_by_class(summaries, "by_priority", sample, sample.priority, PRIORITIES),
        **({"by_kind": by_kind} if by_kind else {}),
        "queue": {where: _mean([s["queue"][where] for s in summaries]) for where in first["queue"]},
        "detection": {
            **{key: sum(s["detection"][key] for s in summaries) for key in _OF_WORKERS},
            "false_positives_per_h": _mean([s["detection"]["false_positives_per_h"] for s in summaries]),
            "time_s": describe(sample.detection_s, DETECTION_QUANTILES),
            **quality_of_service(
                sum(s["detection"]["mistakes"] for s in summaries),
                sample.mistake_s,
                sum(s["detection"]["judged_s"] for s in summaries),
            ),
            "mistake_s": describe(sample.mistake_s, DETECTION_QUANTILES),
            "mistake_wasted_s": sum(s["detection"]["mistake_wasted_s"] for s in summaries),
            "tasks_delayed": len(sample.delayed_s),
            "delayed_s": describe(sample.delayed_s, DETECTION_QUANTILES),
            "heartbeats_per_s": _mean([s["detection"]["heartbeats_per_s"] for s in summaries]),
        },
        "engine": pooled_engine([s["engine"] for s in summaries]),
        "replications": len(summaries),
    }


def has_limits(scenario: Scenario) -> bool:
    """Whether its tasks may expire or be refused, so that its summary has `limits`."""
    return bool(scenario.workload.limits()) or scenario.coordinator.max_waiting is not None


def _limits(tables: Tables, scenario: Scenario, state: Codes, counters: Mapping[str, int]) -> Summary:
    """How many of the failed tasks were not served in time, or not accepted, where the scenario has such limits."""
    if not has_limits(scenario):
        return {}
    refused = (state == _FAILED) & np.isnan(floats(tables.tasks, "accepted_s"))
    expired = {name: int(counters[name]) for name in ("queue_timeouts", "missed_deadlines")}
    return {"limits": {**expired, "refused": int(np.count_nonzero(refused))}}


def _clusters(samples: Sequence[Sample], kinds: Sequence[str]) -> Clusters:
    """What the percentiles of the pooled summary are taken of, replication by replication."""
    wait_s = [sample.wait_s for sample in samples]
    clusters = {
        "latency_s": Cluster([sample.latency_s for sample in samples], LATENCY_QUANTILES, wait_s),
        "wait_s": Cluster(wait_s, LATENCY_QUANTILES, wait_s),
        "accept_s": Cluster([sample.accept_s for sample in samples], LATENCY_QUANTILES),
    }
    for key, field, names in (("by_priority", "priority", PRIORITIES), ("by_kind", "kind", kinds)):
        for code, name in enumerate(names):
            mine = [getattr(sample, field) == code for sample in samples]
            if any(map(np.any, mine)):
                latency_s, waits_s = (
                    [values[of] for values, of in zip(each, mine, strict=True)]
                    for each in ([sample.latency_s for sample in samples], wait_s)
                )
                clusters[f"{key}.{name}.latency_s"] = Cluster(latency_s, LATENCY_QUANTILES, waits_s)
    for name, field in (("time_s", "detection_s"), ("mistake_s", "mistake_s"), ("delayed_s", "delayed_s")):
        clusters[f"detection.{name}"] = Cluster([getattr(s, field) for s in samples], DETECTION_QUANTILES)
    return clusters


def classes(summary: Mapping[str, Any]) -> dict[str, Summary]:
    """By a name to show: the priorities, if there is more than one, and the kinds, if there are any."""
    return {name: summary[key][one] for name, (key, one) in class_keys(summary).items()}


def class_keys(summary: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The same, with the keys that lead to each."""
    kinds = list(summary.get("by_kind", {}).values())
    every = summary["by_priority"] if len(summary["by_priority"]) > 1 else {}
    priorities = [name for name, of in every.items() if of not in kinds]  # one that is a kind is told as that
    return {
        **{name: ("by_priority", name) for name in priorities},
        **{f"kind {name}": ("by_kind", name) for name in summary.get("by_kind", ())},
    }


def _counts(state: Codes) -> dict[str, int]:
    """COUNTS of the tasks in these states."""
    return {"submitted": len(state), **{name: int(np.count_nonzero(state == n)) for n, name in enumerate(STATES)}}


def kind_codes(tables: Tables, scenario: Scenario) -> Codes:
    """Of each task the position of its kind among the scenario's; -1 without kinds."""
    if KIND.name not in tables.tasks.column_names:
        return np.full(tables.tasks.num_rows, -1)
    return codes(tables.tasks, KIND.name, scenario.workload.kind_names())


def _by_class(sample: Sample, state: Codes, of: Codes, of_sample: Codes, names: Sequence[str]) -> Summary:
    """Counts and latency of each class that occurs, in the order of `names`. `of`: the class of each task of the run;
    `of_sample`: that of each task of the sample."""
    return {
        name: {**_counts(state[of == code]), "latency_s": sample.latency_of(of_sample == code)}
        for code, name in enumerate(names)
        if np.any(of == code)
    }


def _pooled_by_class(
    summaries: Sequence[Summary], key: str, sample: Sample, of_sample: Codes, names: Sequence[str]
) -> Summary:
    """The same of several runs together, whose summaries have theirs under this key, if they have any."""
    each = [s.get(key, {}) for s in summaries]
    return {
        name: {
            **{count: sum(one.get(name, {}).get(count, 0) for one in each) for count in COUNTS},
            "latency_s": sample.latency_of(of_sample == code),
        }
        for code, name in enumerate(names)
        if any(name in one for one in each)
    }


def _throughput(tables: Tables, scenario: Scenario) -> float | None:
    settled_s = floats(tables.tasks, "settled_s")[codes(tables.tasks, "state", STATES) == _COMPLETED]
    inside = (settled_s >= scenario.warmup_s) & (settled_s <= scenario.duration_s)
    return ratio(float(np.count_nonzero(inside)), window_s(scenario))


def _wasted_by_mistakes_s(
    tables: Tables, scenario: Scenario, detection: DetectionRecord, executions: Executions
) -> float:
    """Execution seconds of the attempts that a mistaken verdict gave up and that did not settle their task."""
    if not detection.false_positives:
        return 0.0
    attempts, place = tables.attempts, {name: slot for slot, name in enumerate(scenario.worker_names())}
    given_up_s = floats(attempts, "given_up_s")
    lost = np.flatnonzero(~np.isnan(given_up_s) & ~attempts.column("settled").to_numpy())
    wrong = {(at_s, place[worker]) for at_s, worker in detection.false_positives}
    wasted = [
        row
        for row, at_s, worker in zip(lost, given_up_s[lost].tolist(), executions.worker[lost].tolist(), strict=True)
        if (at_s, worker) in wrong
    ]
    return float(np.sum(executions.executed_s[wasted]))


def _delayed_s(tables: Tables, detection: DetectionRecord) -> Floats:
    """For each task with an attempt on a crashed worker: how long its attempts lay there until they were given up.

    The delay begins with the crash, or with a later assignment. It ends with the verdict, timeout, failed call or
    registration that freed the task, or with the run.
    """
    if not detection.down:
        return np.empty(0)
    attempts, names = tables.attempts, sorted({worker for worker, _, _ in detection.down})
    not_delayed = np.isin(codes(attempts, "outcome", OUTCOMES), _NOT_DELAYED)
    rows = np.flatnonzero(~not_delayed & (codes(attempts, "worker", names) >= 0))
    worker = np.array(names)[codes(attempts, "worker", names)[rows]]
    assigned_s = floats(attempts, "assigned_s")[rows]
    freed_s = np.fmin(floats(attempts, "given_up_s"), floats(attempts, "ended_s"))[rows]
    delayed_s = np.zeros(len(rows))
    for name, crash_s, back_s in detection.down:
        mine = worker == name
        until_s = np.fmin(freed_s[mine], back_s)
        delayed_s[mine] += np.maximum(0.0, until_s - np.maximum(assigned_s[mine], crash_s))
    tasks, task = np.unique(attempts.column("task").to_numpy()[rows], return_inverse=True)
    total_s = np.bincount(task, delayed_s, minlength=len(tasks))
    return np.asarray(total_s[total_s > 0], dtype=np.float64)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def pooled_engine(engines: Sequence[Mapping[str, Any]]) -> Summary:
    """Totals over the runs, and rates over the summed wall time."""
    wall_s = sum(engine["wall_s"] for engine in engines)
    pooled: Summary = {}
    for key in engines[0]:
        if key.endswith("_per_s"):
            pooled[key] = ratio(sum(engine[key] * engine["wall_s"] for engine in engines), wall_s)
        else:
            pooled[key] = sum(engine[key] for engine in engines)
    return pooled
