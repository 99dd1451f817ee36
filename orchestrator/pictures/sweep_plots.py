"""The pictures of a sweep, drawn from the pooled summaries of its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from orchestrator.pictures import small_multiples
from orchestrator.pictures.distributions import MEANINGS, Curve, percentiles, point, sizes
from orchestrator.pictures.style import (
    GRID,
    Figures,
    Look,
    Plot,
    legend_above,
    looks,
    new_figure,
    note,
    seconds,
    seconds_axis,
    styled,
    wrapped,
)
from orchestrator.results.confidence import bounds
from orchestrator.results.runs import Sweep
from orchestrator.results.statistics import TOO_FEW, UNKNOWN, flatten, ratio
from orchestrator.results.summaries import Sample, Summary, class_keys
from orchestrator.results.tables import Floats
from orchestrator.scenario.titles import cell_title, value_title

SHOWN = ("p50", "p95", "p99")
_SHOWN = [f"latency_s.{name}" for name in SHOWN]
PANELS = {"p50": "p50", "p95": "p95", "p99": "p99", "max": "slowest"}
FAILED_CALLS = "policies.detection.on_failed_call"
"""No setting of the detector: what it declares dead is not among the detector's detections and false positives."""
MOST_CURVES, MOST_LINES = 8, 24


def of_sweep(sweep: Sweep) -> Figures:
    """Percentiles against each swept key, of all tasks and of each class, and up to the slowest for each cell; the
    cells over time; and the detector's trade-off if its settings are swept."""
    cells = sweep.summary["cells"]
    keys = list(cells[0]["values"])
    numeric = [key for key in keys if all(is_number(cell["values"][key]) for cell in cells)]
    name, world = sweep.scenario.name, f"world: {sweep.summary['world']}"
    setting = f"{world};  {_repetitions(cells)}"
    figures = Figures()
    for key in numeric or keys[:1]:
        figures[f"sweep-{key}"] = against(cells, key, f"{name}: latency against {axis_label(key)}", setting)
        if by_class := cells_of_classes(cells):
            title = f"{name}: latency of each class against {axis_label(key)}"
            figures[f"sweep-{key}-by-class"] = against(by_class, key, title, setting)
    detector = [key for key in keys if key.startswith("policies.detection") and key != FAILED_CALLS]
    if detector:
        key = next((key for key in detector if key in numeric), detector[0])
        figures["detection"] = detection_tradeoff(cells, key, f"{name}: how fast against how often wrong", setting)
    first = sweep.cells[:MOST_CURVES]
    of = [f"the first {len(first)} of {len(cells)} cells are drawn"] if len(first) < len(cells) else []
    curves = [Curve(c.title, [Sample.of(run.tables, run.scenario).latency_s for run in c.runs]) for c in first]
    title = f"{name}: latency by percentile"
    figures["sweep-percentiles"] = percentiles(curves, title, ";  ".join([setting, *of]))
    counts = f"{world};  n = {sizes([cell['latency_s']['n'] for cell in cells])} tasks per cell{_lost_in(cells)}"
    figures["sweep-timeline"] = small_multiples.of_cells(sweep.cells, f"{name}: each cell over time", counts)
    return figures


@styled
def against(cells: Sequence[Summary], key: str, title: str, setting: str) -> Plot:
    """p50, p95, p99 and the slowest against one swept key, with a line for each combination of the other keys.

    `cells`: as in the summary of a sweep. Replications give 95 % confidence bands. A line is broken where a percentile
    is not known: a hollow triangle is its lower bound. Another hollow marker is one of too few tasks. If any task
    failed or is unfinished, one more panel has their share. Values that are no numbers stand in rows.
    """
    lost = any(map(_lost, cells))
    every = lines_of(cells, key)
    lines = every[:MOST_LINES]
    if len(lines) < len(every):
        setting += f";  the first {len(lines)} of {len(every)} combinations are drawn"
    numeric = is_numeric(cells, key)
    size = (13 + 2.6 * lost, 4.6 if numeric else _height(cells, key, lines))
    setting = f"{setting};  {_signs(cells)}{_lost_in(cells)}"
    figure, panels = new_figure(title, setting, size, columns=4 + lost, sharey=not numeric)
    for axes, (metric, name) in zip(panels, PANELS.items(), strict=False):
        _draw_lines(axes, lines, key, f"latency_s.{metric}")
        _draw_signs(axes, lines, key, metric)
        seconds_axis(axes, "y" if numeric else "x", [p[0] for cell in cells if (p := point(cell, metric))])
        axes.set_title(name)
        _name_axes(axes, key, "latency", numeric, first=axes is panels[0])
    if lost:
        _draw_lines(panels[4], lines, key, "lost", known=_lost)
        limits, which = (0, 1.08 * max(map(_lost, cells))), "y" if numeric else "x"
        panels[4].set(**{f"{which}lim": limits})
        getattr(panels[4], f"{which}axis").set_major_formatter(PercentFormatter(1.0))
        panels[4].set_title("failed or unfinished")
        _name_axes(panels[4], key, "share of the tasks", numeric, first=numeric)
    _legend_of_lines(figure, lines)
    return figure


@styled
def detection_tradeoff(cells: Sequence[Summary], key: str, title: str, setting: str) -> Plot:
    """Detection time and false positives per hour: against each other, and each against the swept key."""
    lines, numeric, names = lines_of(cells, key), is_numeric(cells, key), names_of(cells, key)
    found = sizes([cell["detection"]["detected"] for cell in cells])
    size = (12, 4.6 if numeric else max(4.6, _height(cells, key, lines)))
    figure, (tradeoff, delay, mistakes) = new_figure(title, f"{setting};  n = {found} detected crashes per cell", size,
                                                     columns=3)  # fmt: skip
    mean, p99, rate = "detection.time_s.mean", "detection.time_s.p99", "detection.false_positives_per_h"
    for line in lines:
        for metric, hollow in ((p99, True), (mean, False)):
            known = [cell for cell in line.cells if not np.isnan(metric_of(cell, metric))]
            x, y = ([metric_of(cell, name) for cell in known] for name in (metric, rate))
            look = line.look.marked | ({"ls": ":", "mfc": "white"} if hollow else {}) | ({} if numeric else {"ls": ""})
            tradeoff.plot(x, y, **look, clip_on=False)
            if not hollow:
                for cell, place in zip(known, zip(x, y, strict=True), strict=True):
                    text = value_title(key, cell["values"][key])
                    tradeoff.annotate(text if numeric else str(1 + names.index(text)), place, (1, 6),
                                      textcoords="offset points", fontsize=7.5)  # fmt: skip
    _draw_lines(delay, lines, key, p99, hollow=True)
    _draw_lines(delay, lines, key, mean)
    _draw_lines(mistakes, lines, key, rate)
    rates = [metric_of(cell, rate) for cell in cells]
    for axes, which in ((tradeoff, "y"), (mistakes, "y" if numeric else "x")):
        _rate_axis(axes, rates, which)
    tradeoff.set(xlabel="detection time", ylabel="false positives per hour")
    by = axis_label(key) if numeric else "row"
    tradeoff.set_title(f"by {by}: filled mean, hollow p99", loc="left")
    if not numeric:  # names are too long to stand beside points
        for axes in (delay, mistakes):
            _name_rows(axes, [f"{number} {name}" for number, name in enumerate(names, 1)])
    tradeoff.xaxis.set_major_formatter(FuncFormatter(seconds))
    tradeoff.margins(x=0.12)
    which = "y" if numeric else "x"
    delay.set(**{f"{which}lim": (0, None)})
    getattr(delay, f"{which}axis").set_major_formatter(FuncFormatter(seconds))
    delay.set_title("how fast: filled mean, hollow p99", loc="left")
    mistakes.set_title("how often the detector is wrong", loc="left")
    _name_axes(delay, key, "detection time", numeric)
    _name_axes(mistakes, key, "false positives per hour", numeric)
    if all(np.isnan(metric_of(cell, mean)) for cell in cells):
        for axes in (tradeoff, delay):
            axes.set(xticks=[], yticks=[])
            note(axes, "no crash was detected")
    _legend_of_lines(figure, lines)
    return figure


@dataclass(frozen=True)
class Line:
    """The cells of a sweep that differ in one key only, in the order of its values."""

    label: str
    look: Look
    cells: Sequence[Summary]
    offset: float
    """How far its points stand beside those of the other lines if the values are names."""


def lines_of(cells: Sequence[Summary], key: str) -> list[Line]:
    together: dict[str, list[Summary]] = {}
    for cell in cells:
        others = {other: value for other, value in cell["values"].items() if other != key}
        label = ", ".join(_line_label(other, value, alone=len(others) == 1) for other, value in others.items())
        together.setdefault(label, []).append(cell)
    count = len(together)
    numeric = is_numeric(cells, key)
    return [
        Line(
            label,
            look,
            sorted(group, key=lambda cell: cell["values"][key]) if numeric else group,
            0.0 if numeric else (index - (count - 1) / 2) * 0.7 / count,
        )
        for index, ((label, group), look) in enumerate(zip(together.items(), looks(count), strict=True))
    ]


def is_numeric(cells: Sequence[Summary], key: str) -> bool:
    return all(is_number(cell["values"][key]) for cell in cells)


def names_of(cells: Sequence[Summary], key: str) -> list[str]:
    return list(dict.fromkeys(value_title(key, cell["values"][key]) for cell in cells))


def _height(cells: Sequence[Summary], key: str, lines: Sequence[Line]) -> float:
    """Inches for a row for each value, with room for its name and for a point of each line."""
    row = max(0.5, 0.13 * len(lines))
    return max(3.2, 2.0 + row * len(names_of(cells, key)) + 0.18 * math.ceil(len(lines) / 3))


def places_of(lines: Sequence[Line], key: str) -> list[Floats]:
    """Where the cells of each line stand along the axis of the swept key."""
    every = [cell for line in lines for cell in line.cells]
    if is_numeric(every, key):
        return [np.array([cell["values"][key] for cell in line.cells], dtype=np.float64) for line in lines]
    rows = {name: row for row, name in enumerate(names_of(every, key))}
    return [
        np.array([rows[value_title(key, cell["values"][key])] + line.offset for cell in line.cells]) for line in lines
    ]


def _draw_signs(axes: Axes, lines: Sequence[Line], key: str, metric: str) -> None:
    """Mark what a percentile does not say; see `against`."""
    for line, x in zip(lines, places_of(lines, key), strict=True):
        for place, cell in zip(x, line.cells, strict=True):
            value, sign = point(cell, metric) or (np.nan, "")
            if sign:
                at = (place, value) if is_numeric(line.cells, key) else (value, place)
                shape = {UNKNOWN: "^", TOO_FEW: line.look.marker}[sign]
                axes.plot(*at, color=line.look.color, marker=shape, mfc="white", ms=line.look.size + 2, ls="", zorder=4)


def _signs(cells: Sequence[Summary]) -> str:
    """The sizes of the samples, and what the signs that occur mean."""
    n = sizes([cell["latency_s"]["n"] for cell in cells])
    signs = {sign for cell in cells for metric in PANELS for _, sign in filter(None, [point(cell, metric)])}
    each = "class and cell" if "class" in cells[0]["values"] else "cell"
    return ";  ".join([f"n = {n} tasks per {each}", *(text for sign, text in MEANINGS.items() if sign in signs)])


def _lost_in(cells: Sequence[Summary]) -> str:
    """How many tasks of all cells failed, or are unfinished, if any."""
    totals = {key: sum(cell["tasks"][key] for cell in cells) for key in ("failed", "unfinished")}
    told = [f"{total:,} {key}" for key, total in totals.items() if total]
    return f";  {' and '.join(told)} in all" if told and "class" not in cells[0]["values"] else ""


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
    hollow: bool = False,
    known: Callable[[Summary], float] | None = None,
) -> None:
    """One metric against one key: lines with bands for numbers, points with bars, in rows, for names.

    `known` gives its value if the summary does not have it. A hollow line has no bands: it stands beside another.
    """
    numeric = all(is_numeric(line.cells, key) for line in lines)
    for line, place in zip(lines, places_of(lines, key), strict=True):
        values = np.array([known(cell) if known else metric_of(cell, metric) for cell in line.cells])
        low, high = bounds([cell["ci95"].get(metric) for cell in line.cells])
        high = np.where(np.isnan(high), np.maximum(low, values), high)  # without an upper end, the lower half is drawn
        low = np.maximum(low, values / 100)  # a logarithmic axis has no zero
        look = line.look.marked | ({"ls": ":", "mfc": "white"} if hollow else {}) | ({} if numeric else {"ls": ""})
        if numeric:
            axes.plot(place, values, **look, label=line.label, clip_on=False, zorder=3)
        else:
            axes.plot(values, place, **look, label=line.label, clip_on=False, zorder=3)
        if numeric and not hollow:
            axes.fill_between(place, low, high, color=line.look.color, alpha=0.18, lw=0)
        elif not hollow:
            axes.hlines(place, low, high, color=line.look.color, lw=1.5, alpha=0.6)
    if numeric:
        _number_axis(axes, sorted({cell["values"][key] for line in lines for cell in line.cells}))
    else:
        _name_rows(axes, names_of([cell for line in lines for cell in line.cells], key))


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [wrapped(name, 30, 3) for name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    for row in range(1, len(names)):
        axes.axhline(row - 0.5, color=GRID, lw=0.6)


def _name_axes(axes: Axes, key: str, what: str, numeric: bool, first: bool = True) -> None:
    """Of the axes of `_draw_lines`; `first`: it has no neighbour to the left that says the same."""
    along, up = (axis_label(key), what) if numeric else (what, axis_label(key))
    axes.set(xlabel=along, ylabel=up if first else "")


def _number_axis(axes: Axes, values: Sequence[float]) -> None:
    """Ticks at the swept values where these leave room; logarithmic if they span more than a factor of 20."""
    if values[0] > 0 and values[-1] > 20 * values[0]:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    scale = np.log if axes.get_xscale() == "log" else np.asarray
    places = scale(np.array(values, dtype=np.float64))
    ticks: list[float] = []
    for value, place in zip(values, places, strict=True):
        room = 0.036 * max(len(f"{value:,.10g}"), 3) * (places[-1] - places[0])
        if not ticks or place - scale(np.float64(ticks[-1])) >= room:
            ticks.append(value)
    axes.set_xticks(ticks, [f"{value:,.10g}" for value in ticks])


def _rate_axis(axes: Axes, rates: Sequence[float], which: str) -> None:
    """Logarithmic, but linear below the smallest positive rate, so that zero has a place too."""
    positive = [rate for rate in rates if rate > 0]
    axis = axes.yaxis if which == "y" else axes.xaxis
    if positive:
        # A tick below the linear part's end would stand on that of zero.
        least = 10.0 ** math.floor(math.log10(min(positive)))
        getattr(axes, f"set_{which}scale")("symlog", linthresh=least, linscale=0.5)
    axis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:,.10g}"))
    axes.set(**{f"{which}lim": (0, 3 * max(positive) if positive else 1.0)})


def _legend_of_lines(figure: Plot, lines: Sequence[Line]) -> None:
    handles = [Line2D([], [], **line.look.marked, label=line.label) for line in lines]
    legend_above(figure, [handle for handle in handles if handle.get_label()])


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
    """A value with its key, which is left out where the value tells what it is."""
    if value is None or key == "faults":
        return cell_title({key: value})
    if key == "class":
        return str(value)
    if alone and (isinstance(value, str) or (isinstance(value, Mapping) and "kind" in value)):
        return value_title(key, value)
    return f"{axis_label(key)} {value_title(key, value)}"


def axis_label(key: str) -> str:
    """`workload.arrivals.rate_per_s` becomes `arrivals rate (1/s)`, `policies.routing.kind` becomes `routing`,
    `faults.1.at_s` becomes `fault 2 at (s)`."""
    parts = key.removeprefix("policies.").removesuffix(".kind").split(".")
    if parts[0] == "faults" and len(parts) > 2:
        parts[:2] = [f"fault {int(parts[1]) + 1}"]
    parts = parts[-2:]
    unit = ""
    for suffix, meaning in (("_per_s", " (1/s)"), ("_s", " (s)")):
        if parts[-1].endswith(suffix):
            parts[-1], unit = parts[-1].removesuffix(suffix), meaning
            break
    return " ".join(parts).replace("_", " ") + unit
