"""How sure the pooled numbers of replications are, in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.cli.terminal import duration, number, percent, print_table
from orchestrator.results.words import MOMENTS


def print_intervals(summary: Mapping[str, Any]) -> None:
    """Those of the main numbers, and over how many replications they are; nothing of a single run."""
    if summary.get("replications", 1) < 2:
        return
    from orchestrator.results.statistics import UNKNOWN

    columns = {moment: name for moment, name in MOMENTS.items() if moment != "max"}
    empty = [""] * (len(columns) - 1)
    rows = [
        *(
            [what, *(_told(summary, f"{what}_s.{moment}", duration) for moment in columns)]
            for what in ("latency", "wait")
        ),
        ["throughput", _told(summary, "throughput_per_s", lambda value: f"{number(value)}/s"), *empty],
        ["utilisation", _told(summary, "utilization", percent), *empty],
    ]
    print()
    print_table(f"intervals of 95 % over {summary['replications']:,} replications", ["", *columns.values()], rows)
    if any(cell.startswith(UNKNOWN) for row in rows for cell in row):
        print(f"\n{UNKNOWN}at least that: too few replications, or too many lost tasks, to tell how much more")


def _told(summary: Mapping[str, Any], metric: str, show: Callable[[float | None], str]) -> str:
    from orchestrator.results.statistics import UNKNOWN

    low, high = summary["ci95"].get(metric) or (None, None)
    if low is None:
        return "-"
    return f"{UNKNOWN}{show(low)}" if high is None else f"{show(low)} to {show(high)}"
