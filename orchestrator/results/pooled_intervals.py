"""The intervals of the pooled summary of replications: each is of the very number that stands in the summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.results.confidence import (
    Interval,
    count_interval,
    mean_interval,
    named_percentile_intervals,
    pooled_mean_interval,
    share_interval,
)
from orchestrator.results.relaxation import Queue, likely_load
from orchestrator.results.statistics import flatten
from orchestrator.results.tables import Floats

_IDENTITY = ("scenario", "world", "seed", "duration_s", "ended_s", "engine", "replications", "unsettled_until_s")
_NOT_ESTIMATED = (".max", ".too_few")
"""A maximum grows with the sample, so it is no statistic that an interval could be of."""


@dataclass(frozen=True)
class Cluster:
    """What a group of statistics is of."""

    values: Sequence[Floats]
    """Of each replication."""
    quantiles: Mapping[str, float]
    """By name."""
    wait_s: Sequence[Floats] = ()
    """The waits of the same tasks, which tell how many of the values count as independent."""


Clusters = Mapping[str, Cluster]
"""By the dotted name of the group."""


def intervals(
    summaries: Sequence[Mapping[str, Any]],
    pooled: Mapping[str, Any],
    clusters: Clusters,
    slots: float,
    offered_load: float | None,
) -> dict[str, Any]:
    """The keys `ci95`, [low, high] by dotted metric, and `ci95_too_few`, the metrics whose upper end that is.

    An interval is None without two replications that have the metric, and an upper end if it is not known.
    """
    flat = [flatten({key: s[key] for key in s if key not in _IDENTITY}) for s in summaries]
    whole = flatten({key: pooled[key] for key in pooled if key not in _IDENTITY})
    ended_s = sum(s["ended_s"] for s in summaries)
    of_values: dict[str, Interval | None] = {}
    every = clusters["latency_s"]
    used = _of_one("utilization", [f["utilization"] for f in flat], pooled["utilization"], flat, ended_s)
    load = likely_load(offered_load, used) if pooled["utilization"] else None
    queue = Queue.of(sum(map(len, every.values)), load, slots, every.values, every.wait_s)
    for name, of in clusters.items():
        independent = queue.most_independent(of.values, of.wait_s)
        of_values[f"{name}.mean"] = pooled_mean_interval(of.values)
        of_values |= named_percentile_intervals(
            name, of.values, of.quantiles, independent=independent, wait_s=of.wait_s
        )
    found: dict[str, Interval | None] = {
        metric: of_values[metric]
        if metric in of_values
        else _of_one(metric, [f.get(metric) for f in flat], value, flat, ended_s)
        for metric, value in whole.items()
        if not metric.endswith(_NOT_ESTIMATED) and ".at_least." not in metric
    }
    return {
        "ci95": {metric: interval and [interval.low, interval.high] for metric, interval in found.items()},
        "ci95_too_few": [metric for metric, interval in found.items() if interval is not None and interval.too_few],
    }


def _of_one(
    metric: str,
    values: Sequence[Any],
    pooled: Any,
    flat: Sequence[Mapping[str, Any]],
    ended_s: float,
) -> Interval | None:
    """Of a number that each replication has by itself; `values` are None where one has not. `ended_s`: how long all of
    them lasted."""
    if metric == "detection.false_positives_per_h":
        return _rate(flat, "detection.false_positives", ended_s / 3600)
    if metric == "detection.mistake_rate_per_s":
        return _rate(flat, "detection.mistakes", sum(f["detection.judged_s"] for f in flat))
    if isinstance(pooled, int):
        return count_interval(np.array([value or 0 for value in values], dtype=np.float64))
    if pooled is None:
        return None
    known = [(float(value), f) for value, f in zip(values, flat, strict=True) if value is not None]
    if len(known) < 2:
        return None
    numbers, ones = np.array([value for value, _ in known]), np.ones(len(known))
    if metric == "utilization":
        return share_interval(numbers, ones)
    if metric == "detection.query_accuracy":
        judged_s = np.array([f["detection.judged_s"] for _, f in known], dtype=np.float64)
        return share_interval(numbers * judged_s, judged_s)
    mean = mean_interval(numbers, ones)
    if mean is None or not np.any(numbers):
        return mean
    scale = float(pooled) / float(np.mean(numbers))  # 1, or the number of replications if they are summed
    return Interval(mean.low * scale, None if mean.high is None else mean.high * scale, mean.too_few)


def _rate(flat: Sequence[Mapping[str, Any]], count: str, exposure: float) -> Interval | None:
    events = count_interval(np.array([f[count] for f in flat], dtype=np.float64))
    if events is None or exposure <= 0:
        return None
    return Interval(events.low / exposure, None if events.high is None else events.high / exposure)
