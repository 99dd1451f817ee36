"""Runs over time: latency, rates and the queue, with every fault and every verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from orchestrator.pictures import marks
from orchestrator.pictures.distributions import NOTHING, known
from orchestrator.pictures.style import (
    COLORS,
    Look,
    Plot,
    count_axis,
    legend_above,
    looks,
    new_figure,
    note,
    seconds_axis,
    styled,
)
from orchestrator.results.tables import Floats, Tables
from orchestrator.results.timeline import Series, series

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

Moments = Mapping[str, Sequence[marks.Moment]]
"""By the kind of mark."""

SLOWEST, P99, P50 = "#b0b0b0", COLORS[6], COLORS[0]
"""The colours of latencies: none is that of a fault."""
FEW_MARKS = 40
BAR = 0.025
"""The height of a bar that marks what is not known, as a share of the axes."""
AT_WORKERS = 0.02
"""A smaller share of the queue is on its way to the workers, rather than waiting there."""


@styled
def timeline(tables: Tables, scenario: Scenario, title: str, setting: str) -> Plot:
    """Latency, throughput and queue of one run over time, with every fault and every verdict.

    Few marks are lines through all panels; many marks get a panel with a row for each kind. If anything happened to
    a worker, one more panel counts the workers that were out.
    """
    moments = marks.marks_of(tables)
    few = sum(map(len, moments.values())) <= FEW_MARKS
    out = marks.outages(tables)
    anybody_out = bool(out[:, 1:].any())
    heights = [3.0, 2.0, 2.0] + [1.3] * anybody_out + [1.3] * (not few)
    size = (9, sum(heights))
    figure, panels = new_figure(title, setting, size, rows=len(heights), height_ratios=heights, sharex=True)
    line = series(tables, scenario)
    draw_latency(panels[0], line)
    draw_rates(panels[1], line)
    draw_queue(panels[2], line)
    if anybody_out:
        marks.draw_outages(panels[3], out, line.edges_s[-1])
    if few:
        for axes in panels:
            marks.draw_lines(axes, moments)
    else:
        marks.draw_rows(panels[-1], moments)
    spans = _shade(panels, scenario, line)
    time_axis(panels[-1], line.edges_s[-1])
    latencies = panels[0].get_legend_handles_labels()[0]
    kinds = [marks.handle(kind, when) for kind, when in moments.items()]
    legend_above(figure, [*latencies, *kinds, *spans], columns=4)
    return figure


@styled
def timelines(lines: Mapping[str, Series], faults: Mapping[str, Moments], title: str, setting: str) -> Plot:
    """The 99th percentile of latency, throughput and queue of several runs over time, by label.

    `faults`: as in `marks.faults_of`, of the same runs; what all of them have is drawn once, the rest with its label.
    """
    setting = with_signs(setting, list(lines.values()))
    figure, panels = new_figure(title, setting, (9, 7), rows=3, height_ratios=[3, 2, 2], sharex=True)
    for place, ((label, line), look) in enumerate(zip(lines.items(), looks(len(lines)), strict=True)):
        panels[0].stairs(known(line.p99_s), line.edges_s, baseline=None, **look.steps, label=label)
        mark_unknown(panels[0], line, line.p99_s, look.color, place)
        panels[1].stairs(line.completions_per_s, line.edges_s, baseline=None, **look.steps)
        draw_waiting(panels[2], line, look)
    panels[0].set_ylabel("p99 of latency, by arrival")
    seconds_axis(panels[0], "y", np.concatenate([line.p99_s for line in lines.values()]))
    fastest = max(np.max(line.completions_per_s) for line in lines.values())
    count_axis(panels[1], "completions per second", 1.05 * fastest)
    queue_axis(panels[2], list(lines.values()))
    time_axis(panels[2], max(line.edges_s[-1] for line in lines.values()))
    handles = panels[0].get_legend_handles_labels()[0]
    legend_above(figure, [*handles, *_mark_faults(panels, faults)])
    return figure


def _mark_faults(panels: Sequence[Axes], faults: Mapping[str, Moments]) -> list[Line2D]:
    """Lines through all panels, and what the legend says of them."""
    handles, drawn = [], []
    for label, moments in faults.items():
        if moments and moments not in drawn:
            alone = sum(moments == other for other in faults.values()) < len(faults)
            drawn.append(moments)
            for axes in panels:
                marks.draw_lines(axes, moments)
            for kind, when in moments.items():
                found = marks.handle(kind, when)
                found.set_label(f"{label}: {found.get_label()}" if alone else found.get_label())
                handles.append(found)
    return handles


def draw_latency(axes: Axes, line: Series) -> None:
    """p50, p99 and maximum of latency, by time of arrival; broken, with a bar at the top, where they are not known."""
    shown = [
        ("slowest", line.slowest_s, SLOWEST, 2.6),
        ("p99 of latency", line.p99_s, P99, 1.7),
        ("p50 of latency", line.p50_s, P50, 1.0),
    ]
    for label, values_s, color, width in shown:  # thinner and thinner, so that all are seen where they coincide
        axes.stairs(known(values_s), line.edges_s, baseline=None, color=color, lw=width, label=label)
    seconds_axis(axes, "y", [known(line.p50_s), known(line.slowest_s)])
    if any([mark_unknown(axes, line, line.p99_s, P99, 1), mark_unknown(axes, line, line.p50_s, P50)]):
        axes.plot([], [], color=P99, lw=4, label="not known: too many never completed")
    axes.set_ylabel("latency, by time of arrival")
    if not np.isfinite(line.p50_s).any():
        note(axes, NOTHING)


def with_signs(setting: str, lines: Sequence[Series]) -> str:
    """A setting, and what a bar along the top and an area of the queue mean if there is one."""
    if any(np.isinf(line.p99_s).any() for line in lines):
        setting += ";  bar at the top: not known, too many tasks never completed"
    return setting + ";  area: waiting at workers" * any(map(_waits_at_workers, lines))


def mark_unknown(axes: Axes, line: Series, values_s: Floats, color: str, place: int = 0) -> bool:
    """A bar along the top of the axes where a percentile falls on tasks that failed or are unfinished.

    `place`: how many bars are above it, so that none hides another.
    """
    spans = [(start, stop - start) for start, stop in zip(line.edges_s[:-1], line.edges_s[1:], strict=True)]
    unknown = [span for span, value in zip(spans, values_s, strict=True) if np.isinf(value)]
    if unknown:
        bar = (1 - (place + 1) * BAR, BAR)
        axes.broken_barh(unknown, bar, color=color, lw=0, transform=axes.get_xaxis_transform())
    return bool(unknown)


def draw_rates(axes: Axes, line: Series) -> None:
    """Arrivals and completions per second, with a legend."""
    axes.stairs(line.arrivals_per_s, line.edges_s, baseline=None, color=SLOWEST, lw=2.4, label="arrivals")
    axes.stairs(line.completions_per_s, line.edges_s, baseline=None, color=COLORS[2], lw=1.2, label="completions")
    count_axis(axes, "tasks per second", 1.3 * max(np.max(line.arrivals_per_s), np.max(line.completions_per_s)))
    axes.legend(loc="upper right", ncols=2)


def draw_queue(axes: Axes, line: Series) -> None:
    """The mean number of tasks that have not started: before a worker has them, and on top of it at the workers."""
    draw_waiting(axes, line, looks(1)[0])
    queue_axis(axes, [line])
    axes.legend(loc="upper right", ncols=2)


def draw_waiting(axes: Axes, line: Series, look: Look) -> None:
    """A line for the whole queue, and an area for the part of it that waits at workers if any does."""
    if _waits_at_workers(line):
        elsewhere = line.waiting - line.waiting_at_workers
        axes.stairs(line.waiting, line.edges_s, baseline=elsewhere, fill=True, color=look.color, alpha=0.25, lw=0)
        axes.plot([], [], color=look.color, alpha=0.25, lw=6, label="at workers")
    axes.stairs(line.waiting, line.edges_s, baseline=None, **look.steps, label="waiting, wherever")


def _waits_at_workers(line: Series) -> bool:
    return bool(np.max(line.waiting_at_workers) > AT_WORKERS * np.max(line.waiting))


def queue_axis(axes: Axes, lines: Sequence[Series]) -> None:
    count_axis(axes, "tasks waiting", 1.3 * max(float(np.max(line.waiting)) for line in lines))


def time_axis(axes: Axes, until_s: float) -> None:
    axes.set(xlabel="time since the start (s)", xlim=(0, until_s))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


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
