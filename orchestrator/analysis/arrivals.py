"""What a file of recorded arrivals holds: how many, how fast, how bursty, how long they ran, of which classes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.core.model import Priority
from orchestrator.results.statistics import describe, ratio
from orchestrator.scenario.datafiles import Floats, is_compressed, read_columns
from orchestrator.scenario.loading import one_line
from orchestrator.scenario.trace_settings import MOST_CLASSES, Inferred, is_class
from orchestrator.scenario.traces import is_kind

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
RATE_WINDOWS = 60
"""Windows of equal length for which the rate over time is told."""
LEAST_WINDOWS = 30
"""An index of dispersion is told for windows of which there are so many."""
WINDOWS_S = tuple(10.0**exponent for exponent in range(-6, 8))
ASSUMED_S = 1.0
"""The mean service time where the file tells none."""
BUSY = 0.7
"""The share of all slots that the trace is to keep busy."""


def profile(inferred: Inferred) -> dict[str, Any]:
    """The trace in plain numbers, as `orchestrator trace --json` prints them. DataError as the trace itself.

    The span is that from the first arrival to the last, and rates are arrivals over it.
    """
    data = inferred.trace.data()
    arrival_s = data.arrival_s
    span_s = float(arrival_s[-1] - arrival_s[0])
    first = datetime.fromtimestamp(inferred.first_s, UTC).isoformat() if inferred.since_1970 else None
    return {
        "file": inferred.trace.file,
        "format": inferred.format,
        "gzip": is_compressed(inferred.trace.file),
        "rows": len(arrival_s),
        "left_out": data.left_out,
        "first_s": inferred.first_s,
        "first": first,
        "span_s": span_s,
        "rate_per_s": ratio(len(arrival_s), span_s),
        "rate_over_time": _rate_over_time(arrival_s, span_s),
        "interarrival_s": _described(np.diff(arrival_s)),
        "dispersion": _dispersion(arrival_s, span_s),
        "service_s": None if data.service_s is None else _described(data.service_s),
        "busy_slots": None if data.service_s is None else ratio(float(data.service_s.sum()), span_s),
        "classes": {
            **({} if data.priority is None else {"priority": _priorities(data.priority)}),
            **_classes(inferred),
        },
        "reasons": inferred.reasons,
    }


def index_of_dispersion(arrival_s: Floats, window_s: float) -> float | None:
    """Variance over mean of the number of arrivals in windows of this length, the last incomplete one left out.

    1 for a Poisson process at every length, 0 for a regular one (Cox and Lewis, "The Statistical Analysis of Series of
    Events", 1966). `arrival_s` is in order. None for fewer than two windows.
    """
    windows = int((arrival_s[-1] - arrival_s[0]) / window_s)
    if windows < 2:
        return None
    counts = _counts(arrival_s, window_s, windows)
    return float(np.var(counts, ddof=1) / np.mean(counts))


def _counts(arrival_s: Floats, window_s: float, windows: int) -> Floats:
    edges = arrival_s[0] + window_s * np.arange(windows + 1)
    return np.asarray(np.diff(np.searchsorted(arrival_s, edges)), dtype=np.float64)


def _rate_over_time(arrival_s: Floats, span_s: float) -> dict[str, Any] | None:
    if not span_s:
        return None
    window_s = span_s / RATE_WINDOWS
    window = np.minimum((arrival_s - arrival_s[0]) / window_s, RATE_WINDOWS - 1).astype(np.int64)
    return {"window_s": window_s, "per_s": (np.bincount(window, minlength=RATE_WINDOWS) / window_s).tolist()}


def _dispersion(arrival_s: Floats, span_s: float) -> list[dict[str, float | None]]:
    """For windows that hold an arrival on average, and of which there are many."""
    fit = [w for w in WINDOWS_S if span_s / w >= LEAST_WINDOWS and len(arrival_s) * w >= span_s]
    return [{"window_s": window_s, "index": index_of_dispersion(arrival_s, window_s)} for window_s in fit]


def _described(values: Floats) -> dict[str, Any]:
    """Statistics of seconds, and the coefficient of variation: standard deviation over mean, 1 for an exponential."""
    told = describe(values, QUANTILES)
    cv = ratio(float(np.std(values, ddof=1)), told["mean"]) if len(values) > 1 else None
    return {**{name: told[name] for name in ("mean", *QUANTILES, "max", "n")}, "cv": cv}


def _priorities(codes: Any) -> dict[str, float]:
    shares = np.bincount(codes, minlength=len(Priority)) / len(codes)
    return {priority.name.lower(): float(shares[priority]) for priority in Priority if shares[priority]}


def _classes(inferred: Inferred) -> dict[str, dict[str, float]]:
    """The shares of what stands in each column of classes, the most frequent first."""
    found = {}
    columns = read_columns(inferred.trace.file, inferred.classes).values if inferred.classes else {}
    for name in inferred.classes:
        values = columns[name]
        counts = Counter(map(str, values))
        if 1 < len(counts) <= MOST_CLASSES:
            found[name] = {value: count / len(values) for value, count in counts.most_common()}
    return found


def _kind_column(inferred: Inferred, classes: dict[str, dict[str, float]]) -> str | None:
    """The column of classes that tells kinds: the first that is called so, or else the first.

    None where a kind is given already, and for a log in the Standard Workload Format, whose rows without a queue would
    be left out.
    """
    if inferred.trace.columns.kind or inferred.format == "Standard Workload Format":
        return None
    fit = [name for name in inferred.classes if all(is_kind(value.strip()) for value in classes.get(name, ("",)))]
    return min(fit, key=lambda name: not is_class(name), default=None)


def scenario_tree(inferred: Inferred, told: dict[str, Any], file: str) -> tuple[dict[str, Any], list[str]]:
    """A scenario that simulates the trace, as a plain tree, and what it assumes.

    `told`: the profile. `file`: what the scenario is to call the file. It has as many workers as keep 70 % of their
    slots busy.
    """
    settings = inferred.trace.model_dump(exclude_defaults=True) | {"file": file}
    workload: dict[str, Any] = {"arrivals": {"kind": "trace", **settings}}
    assumptions = []
    busy = told["busy_slots"]
    if told["service_s"] is None:
        workload["service"] = {"kind": "exponential", "mean_s": ASSUMED_S}
        busy = ratio(told["rows"] * ASSUMED_S, told["span_s"])
        assumptions += [
            f"The file is not known to tell service times: a mean of {ASSUMED_S:g} s is assumed.",
            "Say columns.service_s=COLUMN, or seconds_per={COLUMN: SECONDS} where other columns tell the work.",
        ]
    kind = _kind_column(inferred, told["classes"])
    if kind is not None:
        workload["arrivals"]["columns"] = {**settings.get("columns", {}), "kind": kind}
        others = [name for name in inferred.classes if name in told["classes"] and name != kind]
        assumptions.append(
            f"{one_line(kind)} is taken for the kind of each task"
            + (f"; columns.kind=COLUMN could name {' or '.join(map(one_line, others))} instead." if others else ".")
        )
    spanned = float(inferred.trace.data().arrival_s[-1]) > 0
    workers = min(1_000_000, max(1, int(np.ceil((busy or 0.0) / BUSY))))
    return {
        "name": "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(file).name.partition(".")[0]) or "trace",
        "duration_s": "trace" if spanned else 1.0,
        "workload": workload,
        "cluster": {"workers": workers, "capacity": 1},
    }, assumptions
