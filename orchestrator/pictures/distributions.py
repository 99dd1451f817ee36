"""Distributions of durations: the percentile curve with a stretched tail, and the CCDF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from orchestrator.pictures.style import Plot, colors, new_figure, note, seconds, seconds_axis, styled
from orchestrator.results.statistics import confidence_interval
from orchestrator.results.tables import Floats

CCDF_POINTS = 1500
NOTHING = "no completed task"

_TAIL_TICKS = {2.0: "p50", 4.0: "p75", 10.0: "p90", 20.0: "p95", 100.0: "p99", 1000.0: "p99.9"}


@dataclass(frozen=True)
class Curve:
    """A distribution to draw: the sample of one run, or the samples of its replications. float64[n] seconds each."""

    label: str
    samples: Sequence[Floats]

    @property
    def pooled(self) -> Floats:
        return np.concatenate([sample[~np.isnan(sample)] for sample in self.samples])


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

    A curve ends at the last percentile that its sample can show. Replications give a 95 % confidence band.
    """
    drawn = [np.empty(0)]
    for curve, color in _colored(curves):
        tail, values_s = tail_curve(curve.pooled)
        drawn.append(values_s)
        axes.plot(tail, values_s, color=color, label=curve.label)
        if len(curve.samples) > 1 and all(map(len, curve.samples)):
            low, high = confidence_interval(np.array([np.nanquantile(s, 1 - 1 / tail) for s in curve.samples]))
            axes.fill_between(tail, np.maximum(low, 0), high, color=color, alpha=0.2, lw=0, label="95 % confidence")
    axes.set_ylabel("time")
    tail_axis(axes, "percentile (the tail stretched)")
    seconds_axis(axes, "y", np.concatenate(drawn))
    _legend_or_note(axes)


def draw_ccdf(axes: Axes, curves: Sequence[Curve]) -> None:
    """The share of tasks that took at least as long, on two logarithmic axes, with a legend.

    At most CCDF_POINTS points are drawn, however large the sample is.
    """
    axes.set(xscale="log", yscale="log", xlabel="time", ylabel="share of tasks that took at least as long")
    for curve, color in _colored(curves):
        slowest_first = np.sort(curve.pooled)[::-1]
        rank = np.unique(np.geomspace(1, len(slowest_first), CCDF_POINTS).astype(np.int64))
        rank = rank[slowest_first[rank - 1] > 0]
        marker = "." if len(rank) < 20 else ""
        share = rank / len(slowest_first)
        axes.plot(slowest_first[rank - 1], share, color=color, label=curve.label, marker=marker, drawstyle="steps-post")
    axes.xaxis.set_major_formatter(FuncFormatter(seconds))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.10g}%"))
    _legend_or_note(axes)


def tail_curve(values_s: Floats) -> tuple[Floats, Floats]:
    """x = 1 / (1 - q) and the quantiles q of at least one value, from the median to what the sample can show."""
    tail = np.geomspace(2, np.clip(len(values_s), 2.001, 1000), 200)
    return tail, np.quantile(values_s, 1 - 1 / tail)


def tail_axis(axes: Axes, label: str) -> None:
    """Make the x axis one of percentiles with a stretched tail: x = 1 / (1 - q) on a logarithmic axis."""
    axes.set(xscale="log", xlim=(2, 1000), xlabel=label)
    axes.xaxis.set_major_locator(FixedLocator(list(_TAIL_TICKS)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _TAIL_TICKS.get(x, "")))
    axes.xaxis.set_minor_locator(NullLocator())


def _colored(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    """The curves with at least one value, each with the colour of its position among all."""
    return [pair for pair in zip(curves, colors(len(curves)), strict=True) if len(pair[0].pooled)]


def _legend_or_note(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    else:
        note(axes, NOTHING)
