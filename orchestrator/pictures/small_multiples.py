"""Many runs over time: small axes alike for the cells of a sweep, thin lines for replications."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from orchestrator.pictures import marks
from orchestrator.pictures.distributions import NOTHING, known
from orchestrator.pictures.style import (
    COLORS,
    Plot,
    count_axis,
    legend_above,
    new_figure,
    note,
    seconds_axis,
    styled,
    wrapped,
)
from orchestrator.pictures.timelines import P50, P99, SLOWEST, Moments, mark_unknown, time_axis
from orchestrator.results.runs import CellRuns, Run
from orchestrator.results.tables import Floats
from orchestrator.results.timeline import Series, series

MOST_CELLS, MOST_REPLICATIONS = 12, 10
COLUMNS = 3


@styled
def of_cells(cells: Sequence[CellRuns], title: str, setting: str) -> Plot:
    """Latency over time, in axes of its own for each of the first cells, all of one scale, with the cell's faults.

    Of replications the median of their percentiles is drawn, and the slowest task of all of them.
    """
    shown = cells[:MOST_CELLS]
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    lines = [[series(run.tables, run.scenario) for run in cell.runs[:MOST_REPLICATIONS]] for cell in shown]
    every_line = [line for replications in lines for line in replications]
    figure, panels = new_figure(
        title,
        ";  ".join([setting, *_left_out(cells, lines), *_unknown(every_line)]),
        (11, 1.4 + 2.1 * rows),
        rows=rows,
        columns=columns,
        sharex=True,
        sharey=True,
    )
    happened: dict[str, Line2D] = {}
    every = [np.empty(0)]
    for axes, cell, replications in zip(panels, shown, lines, strict=False):
        every += _draw_cell(axes, replications)
        axes.set_title(wrapped(cell.title, 52, 2), loc="left", fontsize=8)
        moments = common_faults(cell.runs[: len(replications)])
        marks.draw_lines(axes, moments)
        happened |= {kind: marks.handle(kind, []) for kind in moments if kind not in happened}
    seconds_axis(panels[0], "y", np.concatenate(every))
    until_s = max(line.edges_s[-1] for line in every_line)
    for place, axes in enumerate(panels):
        if place >= len(shown):
            axes.remove()
        elif place % columns == 0:
            axes.set_ylabel("latency, by arrival", fontsize=8)
        if place < len(shown) <= place + columns:
            time_axis(axes, until_s)
            axes.xaxis.set_tick_params(labelbottom=True)
    legend_above(figure, [*panels[0].get_legend_handles_labels()[0], *happened.values()])
    return figure


def _draw_cell(axes: Axes, lines: Sequence[Series]) -> list[Floats]:
    """The curves of one cell; their values."""
    edges_s = max((line.edges_s for line in lines), key=len)
    drawn = []
    for name, color, width in (("slowest", SLOWEST, 2.6), ("p99", P99, 1.7), ("p50", P50, 1.0)):
        values = np.array([_on(edges_s, line, getattr(line, f"{name}_s")) for line in lines])
        middle = known(_highest(values) if name == "slowest" else _median(values))
        axes.stairs(middle, edges_s, baseline=None, color=color, lw=width, label=f"{name} of latency")
        drawn.append(middle)
    for line in lines:
        mark_unknown(axes, line, line.p99_s, P99)
    if not np.isfinite(np.concatenate(drawn)).any():
        note(axes, NOTHING)
    return drawn


@styled
def of_replications(runs: Sequence[Run], title: str, setting: str) -> Plot:
    """p99 of latency, throughput and queue over time: a thin line for each replication, a thick one for the median."""
    runs_shown = runs[:MOST_REPLICATIONS]
    lines = [series(run.tables, run.scenario) for run in runs_shown]
    setting = ";  ".join([setting, *_unknown(lines)])
    if len(lines) < len(runs):
        setting += f";  the first {len(lines)} of {len(runs)} replications are drawn"
    figure, panels = new_figure(title, setting, (9, 7), rows=3, height_ratios=[3, 2, 2], sharex=True)
    edges_s = max((line.edges_s for line in lines), key=len)
    for axes, name in zip(panels, ("p99_s", "completions_per_s", "waiting"), strict=True):
        values = np.array([_on(edges_s, line, getattr(line, name)) for line in lines])
        for one in values:
            axes.stairs(known(one), edges_s, baseline=None, color="#999999", lw=0.7)
        axes.stairs(known(_median(values)), edges_s, baseline=None, color=COLORS[0], lw=1.8)
        if name == "p99_s":
            seconds_axis(axes, "y", values)
        else:
            label = "completions per second" if name == "completions_per_s" else "tasks waiting"
            count_axis(axes, label, 1.05 * float(np.nanmax(values)))
    for line in lines:
        mark_unknown(panels[0], line, line.p99_s, P99)
    panels[0].set_ylabel("p99 of latency, by arrival")
    time_axis(panels[2], edges_s[-1])
    moments = common_faults(runs_shown)
    for axes in panels:
        marks.draw_lines(axes, moments)
    handles = [
        Line2D([], [], color="#999999", lw=0.7, label="one replication"),
        Line2D([], [], color=COLORS[0], lw=1.8, label=f"median of {len(lines)} replications"),
        *(marks.handle(kind, when) for kind, when in moments.items()),
    ]
    legend_above(figure, handles)
    return figure


def common_faults(runs: Sequence[Run]) -> Moments:
    """The faults that all runs have at the same times; those that chance places are not."""
    each = [marks.faults_of(run.tables) for run in runs]
    return {kind: when for kind, when in each[0].items() if all(one.get(kind) == when for one in each)}


def _on(edges_s: Floats, line: Series, values: Floats) -> Floats:
    """The values of a run in the bins of another one; NaN after its end."""
    middle_s = (edges_s[:-1] + edges_s[1:]) / 2
    place = np.searchsorted(line.edges_s, middle_s, side="right") - 1
    return np.where(place < len(values), values[np.minimum(place, len(values) - 1)], np.nan)


def _median(values: Floats) -> Floats:
    """Of each column without its NaN; infinite where it falls on an infinite one, NaN where there is none."""
    present = np.sort(values, axis=0)  # NaN last
    count = np.count_nonzero(~np.isnan(values), axis=0)
    columns = np.arange(values.shape[1])
    low, high = present[np.maximum(count - 1, 0) // 2, columns], present[count // 2 * (count > 0), columns]
    with np.errstate(invalid="ignore"):
        middle: Floats = np.where(count % 2 == 1, low, (low + high) / 2)
    return np.where(count == 0, np.nan, middle)


def _highest(values: Floats) -> Floats:
    """The largest finite one of each column, NaN if there is none."""
    finite = np.where(np.isfinite(values), values, -np.inf)
    highest: Floats = np.max(finite, axis=0)
    return known(np.where(np.isneginf(highest), np.nan, highest))


def _left_out(cells: Sequence[CellRuns], lines: Sequence[Sequence[Series]]) -> list[str]:
    told = []
    if len(cells) > len(lines):
        told.append(f"the first {len(lines)} of {len(cells)} cells are drawn")
    most = max(len(cell.runs) for cell in cells)
    if most > 1:
        drawn = f"the first {MOST_REPLICATIONS}" if most > MOST_REPLICATIONS else f"{most}"
        told.append(f"p50 and p99: median of {drawn} replications, slowest: of all of them")
    return told


def _unknown(lines: Sequence[Series]) -> list[str]:
    if any(np.isinf(line.p99_s).any() for line in lines):
        return ["bar at the top: p99 not known, too many tasks never completed"]
    return []
