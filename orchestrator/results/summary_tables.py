"""Summaries as tables: how long the tasks took, what became of them, and how the workers did."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.results.html_tables import Table
from orchestrator.results.statistics import statistic_of
from orchestrator.results.summaries import Summary, classes
from orchestrator.results.words import MOMENTS, number, percent


def tables_of(summaries: Mapping[str, Summary], of: str = "") -> list[Table]:
    """A row for each of the summaries, by what they are called, and one for each class of its tasks. `of`: what begins
    the title of each table."""
    times, counts = [], []
    for name, summary in summaries.items():
        by_class = {f"  {one}": numbers for one, numbers in classes(summary).items()}
        for row, one in {name: {**summary["tasks"], "latency_s": summary["latency_s"]}, **by_class}.items():
            times.append([row, f"{one['latency_s']['n']:,}", *(statistic_of(one["latency_s"], m) for m in MOMENTS)])
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
