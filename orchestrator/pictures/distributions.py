"""Distributions of durations: the percentile curve with a stretched tail, and the CCDF.

Infinite durations are those of tasks that failed or are unfinished. They count: a percentile curve ends where they
begin, and a CCDF never falls below their share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from orchestrator.pictures.style import (
    Color,
    Dashes,
    Look,
    Plot,
    legend_of,
    log_seconds_axis,
    looks,
    new_figure,
    note,
    seconds_axis,
    shortened,
    styled,
)
from orchestrator.results.confidence import bounds, percentile_intervals
from orchestrator.results.statistics import TOO_FEW, UNKNOWN, quantile, with_sign
from orchestrator.results.tables import Floats

CCDF_POINTS = 1500
INSTANT_S = 1e-9
"""What is shorter has no place on a logarithmic axis."""
FEW = 2
"""The curve of so few values is a point at p50."""
NOTHING = "no completed task"
NOT_HALF = "no percentile is known: fewer than half of the tasks completed"

TAIL = "percentile (the tail stretched); dot: the slowest"
LONGEST_LABEL = 64
MEANINGS = {
    UNKNOWN: "hollow triangle: not known, longer than this, as too many tasks failed or are unfinished",
    TOO_FEW: "other hollow marker: too few tasks for this percentile",
}
"""What the markers mean, by the signs of `point`."""
_TAIL_TICKS = {
    2.0: "p50",
    4.0: "p75",
    10.0: "p90",
    20.0: "p95",
    100.0: "p99",
    1e3: "p99.9",
    1e4: "p99.99",
    1e5: "p99.999",
}


@dataclass(frozen=True)
class Curve:
    """A distribution to draw: the sample of one run, or the samples of its replications. float64[n] seconds each,
    infinite for what never ended."""

    label: str
    samples: Sequence[Floats]
    ends: str = "completed"
    """What never happened to a task whose duration is infinite."""

    @property
    def pooled(self) -> Floats:
        return np.concatenate([sample[~np.isnan(sample)] for sample in self.samples])

    @property
    def legend(self) -> str:
        """The label, with the size of the sample and how many of it never ended."""
        return f"{shortened(self.label, LONGEST_LABEL)} ({of_sample(self.pooled, self.ends)})"


@styled
def percentiles(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """The picture of `draw_percentiles`."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4 + 0.18 * max(len(curves) - 2, 0)))
    draw_percentiles(axes, curves)
    return figure


@styled
def ccdf(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """The picture of `draw_ccdf`."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4 + 0.18 * max(len(curves) - 2, 0)))
    draw_ccdf(axes, curves)
    return figure


def draw_percentiles(axes: Axes, curves: Sequence[Curve]) -> None:
    """Time against percentile from p50 to the slowest, with a legend.

    A curve ends before the tasks that never ended. Replications give a 95 % confidence band, which ends where they are
    too few for it.
    """
    drawn, named = [np.empty(0)], [""]
    for curve, look in _with_looks(curves):
        drawn.append(draw_tail(axes, curve.pooled, look.color, look.dashes, look.width, curve.legend))
        samples = [sample[~np.isnan(sample)] for sample in curve.samples]
        if len(samples) > 1 and all(map(len, samples)):
            tail = tail_curve(curve.pooled)[0][:-1]
            low, high = bounds(percentile_intervals(samples, 1 - 1 / tail))
            label = f"95 % confidence, {len(samples)} replications"
            label = "" if label in named else label
            named.append(label)
            axes.fill_between(tail, low, high, color=look.color, alpha=0.2, lw=0, label=label)
    axes.set_ylabel("time")
    tail_axis(axes, TAIL, max((len(curve.pooled) for curve in curves), default=0))
    seconds_axis(axes, "y", np.concatenate(drawn))
    legend_or_note(axes)
    if len(drawn) > 1 and np.isnan(np.concatenate(drawn)).all():
        note(axes, NOT_HALF)


def draw_tail(axes: Axes, values_s: Floats, color: Color, dashes: Dashes, width: float, label: str) -> Floats:
    """The curve of `tail_curve`, with a dot for the slowest; the quantiles that it shows."""
    tail, points_s = tail_curve(values_s)
    marker = "o" if len(values_s) <= FEW else ""
    axes.plot(tail, points_s, color=color, ls=dashes, lw=width, marker=marker, label=label)
    axes.plot(tail[-1:], points_s[-1:], color=color, ls="", marker="o", ms=3 + width)
    return points_s


def draw_ccdf(axes: Axes, curves: Sequence[Curve]) -> None:
    """The share of tasks that took at least as long, on two logarithmic axes, with a legend.

    At most CCDF_POINTS points are drawn, however large the sample is.
    """
    axes.set(
        xscale="log", yscale="log", xlabel="time; dot: the slowest", ylabel="share of tasks that took at least as long"
    )
    every = [np.empty(0)]
    for curve, look in _with_looks(curves):
        slowest_first = np.sort(curve.pooled)[::-1]
        first = 1 + np.count_nonzero(np.isinf(slowest_first))
        if first > len(slowest_first):
            axes.plot([], [], **look.line, label=curve.legend)
            continue
        rank = np.unique(np.geomspace(first, len(slowest_first), CCDF_POINTS).astype(np.int64))
        rank = rank[slowest_first[rank - 1] > INSTANT_S]
        marker = "." if len(rank) < 20 else ""
        x_s, share = slowest_first[rank - 1], rank / len(slowest_first)
        axes.plot(x_s, share, **look.line, label=curve.legend, marker=marker, drawstyle="steps-post")
        axes.plot(x_s[:1], share[:1], color=look.color, ls="", marker="o", ms=3 + look.width)
        every.append(x_s)
    log_seconds_axis(axes, "x", np.concatenate(every))
    percent = FuncFormatter(lambda share, _: f"{100 * share:.10g}%")
    axes.yaxis.set_major_formatter(percent)
    axes.yaxis.set_minor_formatter(percent if axes.get_ylim()[0] > 0.1 else NullFormatter())
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.25))  # a single point would have room for ten times all tasks
    legend_or_note(axes)


def tail_curve(values_s: Floats) -> tuple[Floats, Floats]:
    """x = 1 / (1 - q) and the quantiles q of n > 0 values: from the median to q = 1 - 1 / n, and then the slowest at
    x = 2 n. NaN from where the durations are infinite."""
    n = len(values_s)
    if n == 1:
        return np.array([2.0]), known(values_s)
    tail = np.geomspace(2, max(n, 2.001), 200)
    q = np.append(1 - 1 / tail, 1.0)
    return np.append(tail, 2.0 * n), known(quantile(values_s, q))


def known(values: Floats) -> Floats:
    """NaN, which is not drawn, in the place of infinity."""
    return np.where(np.isfinite(values), values, np.nan)


def point(summary: Mapping[str, Any], metric: str) -> tuple[float, str] | None:
    """Where to draw a percentile of latency, and its sign, as in `with_sign`. None of no tasks."""
    value, sign = with_sign(summary["latency_s"], metric)
    return None if value is None else (value, sign)


def sizes(counts: Sequence[int]) -> str:
    """Of several samples, from the smallest to the largest."""
    return " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))


def of_sample(values: Floats, ends: str = "completed") -> str:
    """How many values there are, and how many of them are infinite, in words."""
    lost = np.count_nonzero(np.isinf(values))
    return f"n = {len(values):,}" + (f", {lost:,} never {ends}" if lost else "")


def tail_axis(axes: Axes, label: str, n: int) -> None:
    """Make the x axis one of percentiles with a stretched tail, for the curves of at most n values."""
    axes.set(xscale="log", xlim=(1.9, max(2.4 * n, 220.0)), xlabel=label)
    axes.xaxis.set_major_locator(FixedLocator([x for x in _TAIL_TICKS if x <= max(n, 100)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _TAIL_TICKS.get(x, "")))
    axes.xaxis.set_minor_locator(NullLocator())


def _with_looks(curves: Sequence[Curve]) -> list[tuple[Curve, Look]]:
    """The curves with at least one value, each with the look of its position among all."""
    pairs = zip(curves, looks(len(curves)), strict=True)
    return [pair for pair in pairs if len(pair[0].pooled)]


def legend_or_note(axes: Axes) -> None:
    """Of empty axes a note says why they are empty."""
    if axes.get_legend_handles_labels()[0]:
        legend_of(axes, columns=2)
    else:
        note(axes, NOTHING)
