"""Summaries as tables: how long the tasks took, what became of them, and how the workers did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.results.html_tables import Table
from orchestrator.results.statistics import with_sign
from orchestrator.results.summaries import Summary, classes
from orchestrator.results.words import duration, number, percent

MOMENTS = {"mean": "mean", "p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}


def tables_of(summaries: Mapping[str, Summary], of: str = "") -> list[Table]:
    """A row for each of the summaries, by what they are called, and one for each class of its tasks. `of`: what begins
    the title of each table."""
    times, counts = [], []
    for name, summary in summaries.items():
        by_class = {f"  {one}": numbers for one, numbers in classes(summary).items()}
        for row, one in {name: {**summary["tasks"], "latency_s": summary["latency_s"]}, **by_class}.items():
            times.append([row, f"{one['latency_s']['n']:,}", *(_statistic(one["latency_s"], m) for m in MOMENTS)])
            counts.append([row, *(f"{one[key]:,}" for key in ("submitted", "completed", "failed", "unfinished"))])
        counts[-1 - len(by_class)] += [
            f"{number(summary['throughput_per_s'])}/s",
            percent(summary["utilization"]),
            f"{summary['detection']['crashes']:,}",
            f"{summary['detection']['detected']:,}",
            f"{summary['detection']['healthy_declared_dead']:,}",
        ]
    columns = ["", "submitted", "completed", "failed", "unfinished", "throughput", "utilisation", "crashes"]
    return [
        Table(f"{of}Latency, from arrival to result", ["", "n", *MOMENTS.values()], times),
        Table(f"{of}Tasks and workers", [*columns, "detected", "mistakes"], counts),
    ]


def _statistic(moments: Mapping[str, Any], name: str) -> str:
    value, sign = with_sign(moments, name)
    return sign + duration(value)
