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

from orchestrator.pictures.style import Plot, colors, new_figure, note, seconds, seconds_axis, styled
from orchestrator.results.confidence import bounds, percentile_intervals
from orchestrator.results.statistics import quantile, with_sign
from orchestrator.results.tables import Floats

CCDF_POINTS = 1500
FEW = 2
"""The curve of so few values is a point at p50."""
NOTHING = "no completed task"
NOT_HALF = "no percentile is known: fewer than half of the tasks completed"

_TAIL_TICKS = {2.0: "p50", 4.0: "p75", 10.0: "p90", 20.0: "p95", 100.0: "p99", 1000.0: "p99.9"}


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
        return f"{self.label} ({of_sample(self.pooled, self.ends)})"


@styled
def percentiles(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """The picture of `draw_percentiles`."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    draw_percentiles(axes, curves)
    return figure


@styled
def ccdf(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """The picture of `draw_ccdf`."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    draw_ccdf(axes, curves)
    return figure


def draw_percentiles(axes: Axes, curves: Sequence[Curve]) -> None:
    """Time against percentile from p50 to p99.9, with a legend.

    A curve ends at the last percentile that its sample can show, or before the tasks that never ended. Replications
    give a 95 % confidence band, which ends where they are too few for it.
    """
    drawn = [np.empty(0)]
    for curve, color in _colored(curves):
        tail, values_s = tail_curve(curve.pooled)
        drawn.append(values_s)
        marker = "o" if len(curve.pooled) <= FEW else ""
        axes.plot(tail, values_s, color=color, label=curve.legend, marker=marker)
        samples = [sample[~np.isnan(sample)] for sample in curve.samples]
        if len(samples) > 1 and all(map(len, samples)):
            low, high = bounds(percentile_intervals(samples, 1 - 1 / tail))
            label = f"95 % confidence, {len(samples)} replications"
            axes.fill_between(tail, low, high, color=color, alpha=0.2, lw=0, label=label)
    axes.set_ylabel("time")
    tail_axis(axes, "percentile (the tail stretched)")
    seconds_axis(axes, "y", np.concatenate(drawn))
    _legend_or_note(axes)
    if len(drawn) > 1 and np.isnan(np.concatenate(drawn)).all():
        note(axes, NOT_HALF)


def draw_ccdf(axes: Axes, curves: Sequence[Curve]) -> None:
    """The share of tasks that took at least as long, on two logarithmic axes, with a legend.

    At most CCDF_POINTS points are drawn, however large the sample is.
    """
    axes.set(xscale="log", yscale="log", xlabel="time", ylabel="share of tasks that took at least as long")
    for curve, color in _colored(curves):
        slowest_first = np.sort(curve.pooled)[::-1]
        first = 1 + np.count_nonzero(np.isinf(slowest_first))
        if first > len(slowest_first):
            axes.plot([], [], color=color, label=curve.legend)
            continue
        rank = np.unique(np.geomspace(first, len(slowest_first), CCDF_POINTS).astype(np.int64))
        rank = rank[slowest_first[rank - 1] > 0]
        marker = "." if len(rank) < 20 else ""
        share = rank / len(slowest_first)
        axes.plot(
            slowest_first[rank - 1], share, color=color, label=curve.legend, marker=marker, drawstyle="steps-post"
        )
    axes.xaxis.set_major_formatter(FuncFormatter(seconds))
    axes.xaxis.set_minor_formatter(NullFormatter())
    percent = FuncFormatter(lambda share, _: f"{100 * share:.10g}%")
    axes.yaxis.set_major_formatter(percent)
    axes.yaxis.set_minor_formatter(percent if axes.get_ylim()[0] > 0.1 else NullFormatter())
    axes.set_ylim(top=min(axes.get_ylim()[1], 1.25))  # a single point would have room for ten times all tasks
    _legend_or_note(axes)


def tail_curve(values_s: Floats) -> tuple[Floats, Floats]:
    """x = 1 / (1 - q) and the quantiles q of at least one value, from the median to what the sample can show.

    NaN from where the durations are infinite.
    """
    tail = np.geomspace(2, np.clip(len(values_s), 2.001, 1000), 200)
    return tail, known(quantile(values_s, 1 - 1 / tail))


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


def tail_axis(axes: Axes, label: str) -> None:
    """Make the x axis one of percentiles with a stretched tail: x = 1 / (1 - q) on a logarithmic axis."""
    axes.set(xscale="log", xlim=(2, 1000), xlabel=label)
    axes.xaxis.set_major_locator(FixedLocator(list(_TAIL_TICKS)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _TAIL_TICKS.get(x, "")))
    axes.xaxis.set_minor_locator(NullLocator())


def _colored(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    """The curves with at least one value, each with the colour of its position among all."""
    pairs = zip(curves, colors(len(curves)), strict=True)
    return [pair for pair in pairs if len(pair[0].pooled)]


def _legend_or_note(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    else:
        note(axes, NOTHING)
