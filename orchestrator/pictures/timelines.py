"""Runs over time: latency, rates and the queue, with every fault and every verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from orchestrator.pictures import marks
from orchestrator.pictures.distributions import NOTHING
from orchestrator.pictures.style import (
    COLORS,
    Plot,
    colors,
    count_axis,
    legend_above,
    new_figure,
    note,
    seconds_axis,
    styled,
)
from orchestrator.results.tables import Tables
from orchestrator.results.timeline import Series, series

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

FEW_MARKS = 40


@styled
def timeline(tables: Tables, scenario: Scenario, title: str, setting: str) -> Plot:
    """Latency, throughput and queue of one run over time, with every fault and every verdict.

    Few marks are lines through all panels; many marks get a panel with a row for each kind. If anything happened to
    a worker, one more panel counts the workers that were out.
    """
    moments = marks.marks_of(tables)
    few = sum(map(len, moments.values())) <= FEW_MARKS
    heights = [3.0, 2.0, 2.0] + [1.3] * bool(moments) + [1.3] * (not few)
    size = (9, sum(heights))
    figure, panels = new_figure(title, setting, size, rows=len(heights), height_ratios=heights, sharex=True)
    line = series(tables, scenario)
    draw_latency(panels[0], line)
    draw_rates(panels[1], line)
    draw_queue(panels[2], line)
    if moments:
        marks.draw_outages(panels[3], marks.outages(tables), line.edges_s[-1])
    if few:
        for axes in panels:
            marks.draw_lines(axes, moments)
    else:
        marks.draw_rows(panels[4], moments)
    spans = _shade(panels, scenario, line)
    panels[-1].set(xlabel="time since the start (s)", xlim=(0, line.edges_s[-1]))
    latencies = panels[0].get_legend_handles_labels()[0]
    kinds = [marks.handle(kind, when) for kind, when in moments.items()]
    legend_above(panels[0], [*latencies, *kinds, *spans], columns=4)
    return figure


@styled
def timelines(lines: Mapping[str, Series], title: str, setting: str) -> Plot:
    """The 99th percentile of latency, throughput and queue of several runs over time, by label."""
    figure, panels = new_figure(title, setting, (9, 7), rows=3, height_ratios=[3, 2, 2], sharex=True)
    for (label, line), color in zip(lines.items(), colors(len(lines)), strict=True):
        panels[0].stairs(line.p99_s, line.edges_s, baseline=None, color=color, lw=1.4, label=label)
        panels[1].stairs(line.completions_per_s, line.edges_s, baseline=None, color=color, lw=1.4)
        panels[2].stairs(line.waiting, line.edges_s, baseline=None, color=color, lw=1.4)
    panels[0].set_ylabel("p99 of latency, by arrival")
    seconds_axis(panels[0], "y", np.concatenate([line.p99_s for line in lines.values()]))
    fastest = max(np.max(line.completions_per_s) for line in lines.values())
    count_axis(panels[1], "completions per second", 1.05 * fastest)
    count_axis(panels[2], "tasks waiting", 1.05 * max(np.max(line.waiting) for line in lines.values()))
    panels[2].set(xlabel="time since the start (s)", xlim=(0, max(line.edges_s[-1] for line in lines.values())))
    legend_above(panels[0])
    return figure


def draw_latency(axes: Axes, line: Series) -> None:
    """p50, p99 and maximum of latency, by time of arrival."""
    axes.stairs(line.slowest_s, line.edges_s, baseline=None, color="#bbbbbb", lw=1.0, label="slowest")
    axes.stairs(line.p99_s, line.edges_s, baseline=None, color=COLORS[5], lw=1.4, label="p99 of latency")
    axes.stairs(line.p50_s, line.edges_s, baseline=None, color=COLORS[0], lw=1.4, label="p50 of latency")
    seconds_axis(axes, "y", [line.p50_s, line.slowest_s])
    axes.set_ylabel("latency, by time of arrival")
    if np.isnan(line.p50_s).all():
        note(axes, NOTHING)


def draw_rates(axes: Axes, line: Series) -> None:
    """Arrivals and completions per second, with a legend."""
    axes.stairs(line.arrivals_per_s, line.edges_s, baseline=None, color="#aaaaaa", lw=1.2, label="arrivals")
    axes.stairs(line.completions_per_s, line.edges_s, baseline=None, color=COLORS[2], lw=1.4, label="completions")
    count_axis(axes, "tasks per second", 1.3 * max(np.max(line.arrivals_per_s), np.max(line.completions_per_s)))
    axes.legend(loc="upper right", ncols=2)


def draw_queue(axes: Axes, line: Series) -> None:
    """The mean number of waiting tasks."""
    axes.stairs(line.waiting, line.edges_s, baseline=None, color=COLORS[0], lw=1.4)
    count_axis(axes, "tasks waiting", 1.05 * np.max(line.waiting))


def _shade(panels: Sequence[Axes], scenario: Scenario, line: Series) -> list[Patch]:
    """Shade the warm-up and the time after the last arrival; the entries of the legend for them."""
    spans = [
        (0.0, scenario.warmup_s, "#e8e8e8", "warm-up, not in the statistics"),
        (scenario.duration_s, float(line.edges_s[-1]), "#e3edf7", "arrivals are over"),
    ]
    handles = []
    for start_s, stop_s, color, label in spans:
        if stop_s - start_s > 0.002 * line.edges_s[-1]:
            handles.append(Patch(color=color, label=label))
            for axes in panels:
                axes.axvspan(start_s, stop_s, color=color, lw=0, zorder=0)
    return handles
