"""The pictures of a sweep, drawn from the pooled summaries of its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from orchestrator.pictures.distributions import point, sizes
from orchestrator.pictures.style import (
    COLORS,
    MARKERS,
    Figures,
    Plot,
    legend_beside,
    new_figure,
    note,
    seconds,
    seconds_axis,
    styled,
)
from orchestrator.results.confidence import bounds
from orchestrator.results.runs import Sweep, readable
from orchestrator.results.statistics import TOO_FEW, UNKNOWN, flatten, ratio
from orchestrator.results.summaries import Summary, class_keys
from orchestrator.results.tables import Floats

SHOWN = ("p50", "p95", "p99")
_SHOWN = [f"latency_s.{name}" for name in SHOWN]


def of_sweep(sweep: Sweep) -> Figures:
    """Percentiles against each swept key, of all tasks and of each class, and the detector's trade-off if its settings
    are swept."""
    cells = sweep.summary["cells"]
    keys = list(cells[0]["values"])
    numeric = [key for key in keys if all(is_number(cell["values"][key]) for cell in cells)]
    setting = f"world: {sweep.summary['world']};  {_repetitions(cells)}"
    figures = Figures()
    for key in numeric or keys[:1]:
        title = f"{sweep.scenario.name}: latency against {axis_label(key)}"
        figures[f"sweep-{key}"] = against(cells, key, title, setting)
        if by_class := cells_of_classes(cells):
            title = f"{sweep.scenario.name}: latency of each class against {axis_label(key)}"
            figures[f"sweep-{key}-by-class"] = against(by_class, key, title, setting)
    detector = [key for key in keys if key.startswith("policies.detection")]
    if detector:
        key = next((key for key in detector if key in numeric), detector[0])
        title = f"{sweep.scenario.name}: how fast against how often wrong"
        figures["detection"] = detection_tradeoff(cells, key, title, setting)
    return figures


@styled
def against(cells: Sequence[Summary], key: str, title: str, setting: str) -> Plot:
    """p50, p95 and p99 of latency against one swept key, with a line for each combination of the other keys.

    `cells`: as in the summary of a sweep. Replications give 95 % confidence bands. A line is broken where a percentile
    is not known: a hollow triangle is its lower bound. A hollow circle is one of too few tasks. If any task failed or
    is unfinished, a fourth panel has their share.
    """
    lost = any(cell["tasks"]["failed"] + cell["tasks"]["unfinished"] for cell in cells)
    figure, panels = new_figure(title, f"{setting};  {_signs(cells)}", (11 + 3 * lost, 4.4), columns=3 + lost)
    lines = lines_of(cells, key)
    for axes, metric in zip(panels, SHOWN, strict=False):
        _draw_lines(axes, lines, key, f"latency_s.{metric}")
        _draw_signs(axes, lines, key, metric)
        seconds_axis(axes, "y", [p[0] for cell in cells if (p := point(cell, metric))])
        axes.set(title=metric, xlabel=axis_label(key))
    if lost:
        _draw_lines(panels[3], lines, key, "lost", known=_lost)
        most = max(map(_lost, cells))
        panels[3].set(
            title="failed or unfinished", xlabel=axis_label(key), ylim=(0, 1.08 * most), ylabel="share of the tasks"
        )
        panels[3].yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel("latency")
    _legend_of_lines(figure, lines)
    return figure


@styled
def detection_tradeoff(cells: Sequence[Summary], key: str, title: str, setting: str) -> Plot:
    """Detection time and false positives per hour: against each other, and each against the swept key."""
    figure, (tradeoff, delay, mistakes) = new_figure(title, setting, (11, 4.4), columns=3)
    lines = lines_of(cells, key)
    mean, p99, rate = "detection.time_s.mean", "detection.time_s.p99", "detection.false_positives_per_h"
    for line in lines:
        for metric, style, face in ((mean, "-", line.color), (p99, "--", "white")):
            known = [cell for cell in line.cells if not np.isnan(metric_of(cell, metric))]
            x, y = ([metric_of(cell, name) for cell in known] for name in (metric, rate))
            tradeoff.plot(x, y, color=line.color, ls=style, marker=line.marker, markerfacecolor=face)
            if metric == mean:
                for cell, point in zip(known, zip(x, y, strict=True), strict=True):
                    text = str(readable(cell["values"][key]))
                    tradeoff.annotate(text, point, (-5, 3), textcoords="offset points", ha="right", fontsize=7.5)
    _draw_lines(delay, lines, key, mean)
    _draw_lines(delay, lines, key, p99, "--")
    _draw_lines(mistakes, lines, key, rate)
    rates = [metric_of(cell, rate) for cell in cells]
    for axes in (tradeoff, mistakes):
        _rate_axis(axes, rates)
        axes.set_ylabel("false positives per hour")
    tradeoff.set(xlabel="detection time", title=f"by {axis_label(key)}: filled mean, hollow p99")
    tradeoff.xaxis.set_major_formatter(FuncFormatter(seconds))
    delay.set(xlabel=axis_label(key), ylabel="detection time", title="how fast: solid mean, dashed p99")
    delay.set_ylim(bottom=0)
    delay.yaxis.set_major_formatter(FuncFormatter(seconds))
    mistakes.set(xlabel=axis_label(key), title="how often wrong")
    if all(np.isnan(metric_of(cell, mean)) for cell in cells):
        note(tradeoff, "no crash was detected")
        note(delay, "no crash was detected")
    _legend_of_lines(figure, lines)
    return figure


@dataclass(frozen=True)
class Line:
    """The cells of a sweep that differ in one key only, in the order of its values."""

    label: str
    color: str
    marker: str
    cells: Sequence[Summary]
    offset: float
    """How far its points stand beside those of the other lines if the values are names."""


def lines_of(cells: Sequence[Summary], key: str) -> list[Line]:
    together: dict[str, list[Summary]] = {}
    for cell in cells:
        others = {other: readable(value) for other, value in cell["values"].items() if other != key}
        label = ", ".join(_line_label(other, value, alone=len(others) == 1) for other, value in others.items())
        together.setdefault(label, []).append(cell)
    count = len(together)
    numeric = all(is_number(cell["values"][key]) for cell in cells)
    return [
        Line(
            label,
            COLORS[index % len(COLORS)],
            MARKERS[(index + index // len(COLORS)) % len(MARKERS)],
            sorted(group, key=lambda cell: cell["values"][key]) if numeric else group,
            0.0 if numeric else (index - (count - 1) / 2) * 0.6 / count,
        )
        for index, (label, group) in enumerate(together.items())
    ]


def _places(lines: Sequence[Line], key: str) -> tuple[list[Floats], list[Any], bool]:
    """Where the cells of each line stand along the axis, the swept values, and whether these are numbers or names."""
    values = [cell["values"][key] for line in lines for cell in line.cells]
    numeric = all(map(is_number, values))
    names = list(dict.fromkeys(str(readable(value)) for value in values))
    places = []
    for line in lines:
        here = [cell["values"][key] for cell in line.cells]
        x = here if numeric else [names.index(str(readable(value))) + line.offset for value in here]
        places.append(np.array(x, dtype=np.float64))
    return places, values if numeric else names, numeric


def _draw_signs(axes: Axes, lines: Sequence[Line], key: str, metric: str) -> None:
    """Mark what a percentile does not say; see `against`."""
    for line, x in zip(lines, _places(lines, key)[0], strict=True):
        for place, cell in zip(x, line.cells, strict=True):
            value, sign = point(cell, metric) or (np.nan, "")
            if sign:
                shape = {UNKNOWN: "^", TOO_FEW: "o"}[sign]
                axes.plot(place, value, color=line.color, marker=shape, mfc="white", ms=8, ls="")


def _signs(cells: Sequence[Summary]) -> str:
    """The sizes of the samples, and what the signs that occur mean."""
    n = sizes([cell["latency_s"]["n"] for cell in cells])
    signs = {sign for cell in cells for metric in SHOWN for _, sign in filter(None, [point(cell, metric)])}
    meanings = {
        UNKNOWN: "hollow triangle: not known, longer than this, as too many tasks failed or are unfinished",
        TOO_FEW: "hollow circle: too few tasks for this percentile",
    }
    each = "class and cell" if "class" in cells[0]["values"] else "cell"
    return ";  ".join([f"n = {n} tasks per {each}", *(text for sign, text in meanings.items() if sign in signs)])


def cells_of_classes(cells: Sequence[Summary]) -> list[Summary]:
    """Each class of each cell as a cell of its own, as if the class were a swept key."""
    found = []
    for cell in cells:
        for name, (key, one) in class_keys(cell).items():
            path, own = f"{key}.{one}.", cell[key][one]
            found.append(
                {
                    "values": {**cell["values"], "class": name},
                    "tasks": own,
                    "latency_s": own["latency_s"],
                    "replications": cell["replications"],
                    "ci95": {k.removeprefix(path): ends for k, ends in cell["ci95"].items() if k.startswith(path)},
                }
            )
    return found


def _lost(cell: Summary) -> float:
    """The share of a cell's tasks that failed or are unfinished."""
    tasks = cell["tasks"]
    return ratio(tasks["failed"] + tasks["unfinished"], tasks["submitted"]) or 0.0


def _draw_lines(
    axes: Axes,
    lines: Sequence[Line],
    key: str,
    metric: str,
    style: str = "-",
    known: Callable[[Summary], float] | None = None,
) -> None:
    """One metric against one key: lines with bands for numbers, points with bars for names.

    `known` gives its value if the summary does not have it.
    """
    places, values, numeric = _places(lines, key)
    for line, x in zip(lines, places, strict=True):
        y = np.array([known(cell) if known else metric_of(cell, metric) for cell in line.cells])
        low, high = bounds([cell["ci95"].get(metric) for cell in line.cells])
        high = np.where(np.isnan(high), np.maximum(low, y), high)  # without an upper end, the lower half is drawn
        axes.plot(x, y, color=line.color, marker=line.marker, ms=5, ls=style if numeric else "", label=line.label)
        low = np.maximum(low, y / 100)  # a logarithmic axis has no zero
        if numeric:
            axes.fill_between(x, low, high, color=line.color, alpha=0.18, lw=0)
        else:
            axes.vlines(x, low, high, color=line.color, lw=1.5, alpha=0.6)
    if numeric:
        _number_axis(axes, sorted(set(values)))
    else:
        axes.set_xticks(range(len(values)), values, rotation=20 if max(map(len, values)) > 12 else 0)
        axes.set_xlim(-0.5, len(values) - 0.5)


def _number_axis(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at the swept values; logarithmic if they span more than a factor of 20."""
    if values[0] > 0 and values[-1] > 20 * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if len(values) <= 10:
        axes.set_xticks(values, [f"{value:g}" for value in values])


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """Logarithmic, but linear below the smallest positive rate, so that zero has a place too."""
    positive = [rate for rate in rates if rate > 0]
    if positive:
        # A tick below the linear part's end would stand on that of zero.
        least = 10.0 ** math.floor(math.log10(min(positive)))
        axes.set_yscale("symlog", linthresh=least, linscale=0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.10g}"))
    axes.set_ylim(bottom=0)


def _legend_of_lines(figure: Plot, lines: Sequence[Line]) -> None:
    handles = [Line2D([], [], color=line.color, marker=line.marker, label=line.label) for line in lines]
    legend_beside(figure, [handle for handle in handles if handle.get_label()])


def metric_of(cell: Summary, dotted: str) -> float:
    """A metric by its dotted name; NaN if the cell does not know it."""
    value = flatten(cell).get(dotted)
    return np.nan if value is None else float(value)


def _repetitions(cells: Sequence[Summary]) -> str:
    fewest, most = (extreme(cell["replications"] for cell in cells) for extreme in (min, max))
    if most == 1:
        return "1 replication per cell"
    counts = f"{most}" if fewest == most else f"{fewest} to {most}"
    few = any(metric in cell.get("ci95_too_few", ()) for cell in cells for metric in _SHOWN)
    half = ", the lower half where replications are too few for the upper" if few else ""
    return f"{counts} replications per cell;  bands and bars: 95 % confidence{half}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _line_label(key: str, value: Any, alone: bool) -> str:
    return str(value) if alone and isinstance(value, str) else f"{axis_label(key)} {value}"


def axis_label(key: str) -> str:
    """`workload.arrivals.rate_per_s` becomes `arrivals rate (1/s)`, `policies.routing.kind` becomes `routing`."""
    parts = key.removeprefix("policies.").removesuffix(".kind").split(".")[-2:]
    unit = ""
    for suffix, meaning in (("_per_s", " (1/s)"), ("_s", " (s)")):
        if parts[-1].endswith(suffix):
            parts[-1], unit = parts[-1].removesuffix(suffix), meaning
            break
    return " ".join(parts).replace("_", " ") + unit
