"""The picture of a judgement: how often a detector is wrong, and how often it is right, against its speed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from orchestrator.analysis.detectors import DAY_S, Judgement, Point, front
from orchestrator.pictures.style import (
    COLORS,
    GREY,
    MARKERS,
    Figures,
    Plot,
    new_figure,
    note,
    seconds,
    seconds_axis,
    styled,
)

FRONT, BUDGET = "#d5d5d5", "#b01ec8"

Height = Callable[[Point], float]


def of_judgement(judgement: Judgement) -> Figures:
    """Mistake rate and query accuracy against detection time, with one curve per detector."""
    return Figures({"detectors": tradeoff(judgement)})


@styled
def tradeoff(judgement: Judgement) -> Plot:
    """Left: mistakes per day, logarithmic; a setting without mistakes is hollow and stands at its upper bound.

    Right: the share of time in which healthy workers were trusted; each decade is one more nine. Grey: the Pareto
    front.
    """
    title = f"{judgement.scenario.name}: how fast against how often wrong, by failure detector"
    figure, (mistakes, accuracy) = new_figure(title, _setting(judgement), (11, 5.2), columns=2)
    shown = [point for point in judgement.points if math.isfinite(point.p99_s)]
    if not shown:
        note(mistakes, "no detector found every crash")
        note(accuracy, "no detector found every crash")
        return figure
    least = min((1 - point.accuracy for point in shown if point.mistakes), default=1e-3) / 3

    def per_day(point: Point) -> float:
        return judgement.per_day(point.rate_per_s if point.mistakes else point.rate_upper_per_s)

    def doubt(point: Point) -> float:
        return max(1 - point.accuracy, least) if point.mistakes else least

    curves = _curves(shown)
    _draw(mistakes, judgement, curves, shown, per_day, lambda point: point.mistakes)
    _draw(accuracy, judgement, curves, shown, doubt, lambda point: 1 - point.accuracy)
    for point in shown:
        if not point.mistakes:  # an upper bound, so a line points down
            bound = per_day(point)
            mistakes.vlines(point.p99_s, bound / 1.8, bound, color="#999999", lw=0.8, zorder=2)
    _bar_recommendation(mistakes, judgement, per_day)
    _mistake_axis(mistakes, judgement)
    _accuracy_axis(accuracy, least if any(not point.mistakes for point in shown) else None)
    if not any(point.mistakes for point in shown):
        accuracy.set_yticks([], [], minor=False)
        accuracy.minorticks_off()
    handles = [*(line for _, line in curves), *_meanings(judgement, shown)]
    figure.legend(handles=handles, loc="outside right upper")
    return figure


def _draw(
    axes: Axes,
    judgement: Judgement,
    curves: Sequence[tuple[list[Point], Line2D]],
    shown: Sequence[Point],
    height: Height,
    cost: Height,
) -> None:
    best = front(shown, cost)
    axes.plot([p.p99_s for p in best], [height(p) for p in best], color=FRONT, lw=9, solid_capstyle="round", zorder=1)
    for points, line in curves:
        x, y = [point.p99_s for point in points], [height(point) for point in points]
        color, marker, size = line.get_color(), line.get_marker(), line.get_markersize()
        axes.plot(x, y, color=color, ls=line.get_linestyle(), lw=line.get_linewidth(), zorder=3)
        for hollow in (False, True):
            at = [i for i, point in enumerate(points) if hollow != bool(point.mistakes)]
            face = "white" if hollow else color
            axes.plot(
                [x[i] for i in at], [y[i] for i in at], color=color, marker=marker, mfc=face, ms=size, ls="", zorder=4
            )
    recommended = judgement.recommendation
    rings = [(point, "k", 13.0) for point in shown if point.candidate.own]
    rings += [] if recommended is None else [(recommended.point, BUDGET, 17.0)]
    for point, color, size in rings:
        if math.isfinite(point.p99_s):
            axes.plot(point.p99_s, height(point), color=color, marker="o", mfc="none", ms=size, mew=1.6, zorder=6)
    if judgement.budget.detection_s is not None:
        axes.axvline(judgement.budget.detection_s, color=BUDGET, ls=":", lw=1.2, zorder=2)
    seconds_axis(axes, "x", [point.p99_s for point in shown])
    axes.set(xlabel="detection time: 99 % of crashes are found within", yscale="log")
    low, high = axes.get_ylim()
    if high < 100 * low:  # the axis is readable with at least two powers of ten
        axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))


def _bar_recommendation(axes: Axes, judgement: Judgement, height: Height) -> None:
    recommended = judgement.recommendation
    if recommended is not None and math.isfinite(recommended.point.p99_s):
        point = recommended.point
        upper = judgement.per_day(point.rate_upper_per_s)
        axes.vlines(point.p99_s, height(point), upper, color=BUDGET, lw=1.6, zorder=7)


def _curves(points: Sequence[Point]) -> list[tuple[list[Point], Line2D]]:
    """The points of each detector by speed, and how they are drawn: thin and dashed if they repeat other points."""
    by_kind: dict[str, list[Point]] = {}
    for point in points:
        by_kind.setdefault(point.candidate.detector, []).append(point)
    curves = []
    seen: set[tuple[float, int]] = set()
    for index, (kind, mine) in enumerate(by_kind.items()):
        places = {(point.p99_s, point.mistakes) for point in mine}
        repeated = places <= seen
        seen |= places
        # Later curves are thinner and smaller, so that curves on top of one another can be told apart.
        style: dict[str, Any] = {"ls": "--", "lw": 0.8} if repeated else {"ls": "-", "lw": max(3.4 - 0.6 * index, 1.0)}
        parameter = mine[0].candidate.parameter
        label = f"{kind}, by {parameter}" if parameter else kind
        color, marker, size = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)], max(8.5 - index, 3.5)
        line = Line2D([], [], color=color, marker=marker, ms=size, label=label, **style)
        curves.append((sorted(mine, key=lambda point: point.p99_s), line))
    return curves


def _mistake_axis(axes: Axes, judgement: Judgement) -> None:
    axes.set(ylabel=f"wrong verdicts per day, all {judgement.workers:,} workers together")
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_title("mistake rate (lower left is better)", loc="left")
    if judgement.budget.mistakes_per_day is not None:
        axes.axhline(judgement.budget.mistakes_per_day, color=BUDGET, ls=":", lw=1.2, zorder=2)


def _accuracy_axis(axes: Axes, perfect: float | None) -> None:
    """`perfect`: where the settings stand that were never wrong; None if there are none."""
    axes.set(ylabel="query accuracy: share of time a healthy worker is trusted")
    axes.invert_yaxis()
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda doubt, _: f"{100 * (1 - doubt):.10g} %"))
    axes.set_title("query accuracy (upper left is better)", loc="left")
    if perfect is not None:
        place = (1, perfect), (0, 7)
        axes.annotate("100 % in the trace", *place, xycoords=("axes fraction", "data"), textcoords="offset points",
                      ha="right", fontsize=7.5, color=GREY)  # fmt: skip


def _meanings(judgement: Judgement, shown: Sequence[Point]) -> list[Line2D]:
    """The entries of the legend for the marks that are drawn."""
    none = any(not point.mistakes for point in shown)
    own = next((point for point in judgement.points if point.candidate.own), None)
    recommended = judgement.recommendation
    blank: dict[str, Any] = {"ls": "", "mfc": "none"}
    found = [Line2D([], [], color=FRONT, lw=6, label="Pareto front")]
    if none:
        found.append(
            Line2D([], [], color="#555555", marker="o", **blank, label="n = 0 mistakes in the trace:\nupper bound")
        )
    if own is not None:
        found.append(Line2D([], [], color="k", marker="o", ms=11, **blank, label="as in the scenario"))
    if recommended is not None:
        label = "recommended" if recommended.qualifies else "nearest: none qualifies"
        count = f"n = {recommended.point.mistakes:,} in the trace"
        label += f":\n{recommended.point.label}\n{count}\n(bar: to its upper bound)"
        found.append(Line2D([], [], color=BUDGET, marker="o", ms=13, mew=1.6, **blank, label=label))
        found.append(Line2D([], [], color=BUDGET, ls=":", lw=1.2, label="budget"))
    return found


def _setting(judgement: Judgement) -> str:
    trace, detection = judgement.summary()["trace"], judgement.scenario.policies.detection
    check = "" if detection.check_every_s is None else f", checked every {seconds(detection.check_every_s)}"
    return (
        f"world: {judgement.traces[0].world};  {trace['workers']:,} workers, a heartbeat every "
        f"{seconds(detection.heartbeat_s)}{check};  {trace['heartbeats']:,} heartbeats, "
        f"{trace['judged_s'] / DAY_S:.3g} worker-days;  detection of "
        f"n = {len(judgement.points[0].detection_s):,} crashes "
        "at uniformly random moments of them"
    )
