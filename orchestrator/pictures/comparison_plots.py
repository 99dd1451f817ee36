"""The pictures of a comparison: two runs in the same axes, and the errors and ranks of many cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from orchestrator.analysis.comparison import AROUND, WHOLE, CellComparison, Comparison
from orchestrator.analysis.fidelity import Fidelity
from orchestrator.analysis.measures import Stretch, around_faults, excess_s, whole_run
from orchestrator.core.model import WorkerEvent
from orchestrator.pictures.distributions import TAIL, draw_tail, known, legend_or_note, of_sample, sizes, tail_axis
from orchestrator.pictures.marks import DECLARED_DEAD, MARKS, name_of_fault, named
from orchestrator.pictures.style import (
    COLORS,
    GREY,
    MARKERS,
    Dashes,
    Figures,
    Look,
    Plot,
    legend_above,
    new_figure,
    pale,
    seconds_axis,
    styled,
    wrapped,
)
from orchestrator.pictures.timelines import draw_waiting, mark_unknown, queue_axis, time_axis, with_signs
from orchestrator.results.durations import latency_s
from orchestrator.results.runs import Run
from orchestrator.results.statistics import quantile
from orchestrator.results.tables import FAULTS, FaultEvent, Floats, event_rows, floats
from orchestrator.results.timeline import series

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

MANY_MARKS = 40
"""More marks of one kind are drawn fainter."""
FEW_CELLS, MOST_NAMED = len(COLORS), 24
QUANTITIES = {"latency": ("-", "o"), "latency minus service": ("--", "s")}
SHOWN = ("latency_s.p50", "latency_s.p95", "latency_s.p99")

VERDICTS: tuple[Dashes, Dashes] = (0, (4, 4)), (4, (4, 4))
"""The dashes of each side's verdicts: where they coincide, both can be seen."""

Sides = list[tuple[str, Sequence[Run], Look]]
"""The reference, then what is compared with it: label, runs, colour and width."""


def of_comparison(comparison: Comparison) -> Figures:
    """The distributions and the time of a single cell; the errors and the ranks of several cells."""
    if len(comparison.cells) > 1:
        figures = Figures({"comparison-errors": errors(comparison), "comparison-ranks": ranks(comparison)})
        if len(comparison.cells) <= FEW_CELLS:
            figures["comparison-percentiles"] = percentiles_by_cell(comparison)
        return figures
    return Figures(
        {
            "comparison-percentiles": percentiles(comparison),
            "comparison-qq": quantiles(comparison),
            "comparison-timeline": timeline(comparison),
        }
    )


def of_fidelity(fidelity: Fidelity) -> Figures:
    """One picture of both worlds: latency by percentile, or of many cells the errors."""
    comparison = fidelity.comparison
    if len(comparison.cells) > FEW_CELLS:
        return Figures({"fidelity-errors": errors(comparison)})
    drawn = percentiles if len(comparison.cells) == 1 else percentiles_by_cell
    return Figures({"fidelity-percentiles": drawn(comparison)})


@styled
def percentiles(comparison: Comparison) -> Plot:
    """Latency, and the part of it that is not service, by percentile: of the whole run and around the faults."""
    (cell,) = comparison.cells
    stretches = [around_faults(pair) for pair in zip(cell.references, cell.runs, strict=True)]
    places = [WHOLE, AROUND] if any(stretches) else [WHOLE]
    size = (8.0 if len(places) == 1 else 11.0, 4.8)
    figure, panels = new_figure(
        _title(comparison, "latency by percentile"), _setting(comparison), size, columns=len(places), sharey=True
    )
    drawn = [np.empty(0)]
    for axes, place in zip(panels, places, strict=True):
        most = 0
        for label, runs, look in _sides(comparison, cell):
            for quantity, (style, _) in QUANTITIES.items():
                values_s = _pooled(runs, _whole(runs) if place == WHOLE else stretches, quantity)
                most = max(most, len(values_s))
                if len(values_s):
                    name = f"{label}: {quantity} ({of_sample(values_s)})"
                    drawn.append(draw_tail(axes, values_s, look.color, style, look.width, name))
        tail_axis(axes, TAIL, most)
        axes.set_title(place, loc="left")
    seconds_axis(panels[0], "y", np.concatenate(drawn))
    panels[0].set_ylabel("time")
    legend_or_note(panels[0])
    return figure


@styled
def percentiles_by_cell(comparison: Comparison) -> Plot:
    """Latency by percentile: a colour for each cell of the sweep; one side pale and broad, the other dashed on it."""
    title = _title(comparison, "latency by percentile")
    figure, (axes,) = new_figure(title, _setting(comparison), (9, 4.0 + 0.4 * len(comparison.cells)))
    drawn, most = [np.empty(0)], 0
    for cell, color in zip(comparison.cells, COLORS, strict=False):
        shades = pale(color), color
        for (label, runs, look), (style, _), shade in zip(
            _sides(comparison, cell), QUANTITIES.values(), shades, strict=True
        ):
            values_s = _pooled(runs, _whole(runs), "latency")
            most = max(most, len(values_s))
            if len(values_s):
                name = f"{label}: {cell.title} ({of_sample(values_s)})"
                drawn.append(draw_tail(axes, values_s, shade, style, look.width, name))
    tail_axis(axes, TAIL, most)
    seconds_axis(axes, "y", np.concatenate(drawn))
    axes.set_ylabel("latency")
    legend_or_note(axes)
    return figure


@styled
def quantiles(comparison: Comparison) -> Plot:
    """Q-Q plot: each percentile against that of the reference. On the diagonal they are equal."""
    (cell,) = comparison.cells
    figure, (axes,) = new_figure(_title(comparison, "quantile against quantile"), _setting(comparison), (6.4, 6.0))
    (reference, theirs, _), (label, ours, _) = _sides(comparison, cell)
    drawn = [np.empty(0)]
    for (quantity, (_, marker)), color in zip(QUANTITIES.items(), (COLORS[2], COLORS[3]), strict=True):
        x_s, y_s = (_pooled(runs, _whole(runs), quantity) for runs in (theirs, ours))
        points = [q for q in (*np.arange(1, 100) / 100, 0.995, 0.999) if (1 - q) * min(len(x_s), len(y_s)) >= 1]
        if points:
            x, y = known(quantile(x_s, points)), known(quantile(y_s, points))
            axes.plot(x, y, color=color, marker=marker, ms=4, ls="", alpha=0.8, label=f"{quantity}, p1 to p99.9")
            drawn += [x, y]
    values_s = np.concatenate(drawn)
    positive = values_s[values_s > 0]  # and so known
    if len(positive):
        ends_s = np.array([positive.min() / 1.3, positive.max() * 1.3])
        axes.plot(ends_s, ends_s, color=GREY, lw=1, label="equal")
        axes.fill_between(ends_s, 0.9 * ends_s, 1.1 * ends_s, color=GREY, alpha=0.15, lw=0, label="within 10 %")
        for which in "xy":
            seconds_axis(axes, which, ends_s if len(positive) > 1 else positive)
        axes.set(xlim=ends_s, ylim=ends_s)
    axes.set(xlabel=wrapped(reference, 60, 2), ylabel=wrapped(label, 60, 2), aspect="equal")
    legend_or_note(axes)
    return figure


@styled
def timeline(comparison: Comparison) -> Plot:
    """p50 and p99 of latency and the queue over time, with every fault, and each side's verdicts in its colour."""
    (cell,) = comparison.cells
    sides = _sides(comparison, cell)
    lines = [series(runs[0].tables, runs[0].scenario) for _, runs, _ in sides]
    figure, panels = new_figure(
        _title(comparison, "latency over time"),
        with_signs(_setting(comparison), lines),
        (9, 7.5),
        rows=3,
        height_ratios=[3, 3, 2],
        sharex=True,
    )
    for place, ((label, _, look), line) in enumerate(zip(sides, lines, strict=True)):
        for axes, values in zip(panels[:2], (line.p50_s, line.p99_s), strict=True):
            axes.stairs(known(values), line.edges_s, baseline=None, **look.steps, label=label)
            mark_unknown(axes, line, values, look.color, place)
        draw_waiting(panels[2], line, look)
    latencies_s = {"p50": [known(line.p50_s) for line in lines], "p99": [known(line.p99_s) for line in lines]}
    for axes, (name, values_s) in zip(panels, latencies_s.items(), strict=False):
        seconds_axis(axes, "y", np.concatenate(values_s))
        axes.set_ylabel(f"{name} of latency, by arrival")
    queue_axis(panels[2], lines)
    time_axis(panels[2], max(line.edges_s[-1] for line in lines))
    marks = [_mark(panels, *moments) for moments in _moments(sides)]
    legend_above(figure, [*panels[0].get_legend_handles_labels()[0], *marks], columns=4)
    return figure


@styled
def errors(comparison: Comparison) -> Plot:
    """The relative errors of each cell's percentiles, with their intervals."""
    cells = comparison.cells
    figure, (axes,) = new_figure(
        _title(comparison, "relative error by cell"), _setting(comparison), (9, 1.8 + 0.5 * len(cells))
    )
    for place, (metric, color, marker) in enumerate(zip(SHOWN, COLORS, MARKERS, strict=False)):
        offset = (place - 1) * 0.2
        for y, cell in enumerate(cells):
            row = cell.row(metric)
            if row.error is None and (row.at_least is not None or row.reference_at_least is not None):
                axes.text(0, y + offset, f"{metric.rpartition('.')[2]} not known", color=color, fontsize=7, va="center")
            if row.error is not None:
                axes.plot(row.error, y + offset, color=color, marker=marker, ms=5, ls="")
                if row.error_ci95 is not None:
                    axes.hlines(y + offset, *row.error_ci95, color=color, lw=1.2)
    axes.axvline(0, color=GREY, lw=1)
    axes.set_yticks(range(len(cells)), [wrapped(cell.title, 44, 3) for cell in cells], fontsize=8)
    axes.set(
        ylim=(len(cells) - 0.5, -0.5),
        xlabel=f"relative error;  bars: 95 % confidence, by {cells[0].intervals}, where these are enough",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(False, axis="y")
    handles = zip(SHOWN, COLORS, MARKERS, strict=False)
    legend_above(figure, [Line2D([], [], color=c, marker=m, ls="", label=_words(name)) for name, c, m in handles])
    return figure


@styled
def ranks(comparison: Comparison) -> Plot:
    """Each cell's percentiles on both sides; the sides agree if the order across is the order upwards."""
    figure, panels = new_figure(
        _title(comparison, "the cells in order"), _setting(comparison), (11, 4.4), columns=len(SHOWN)
    )
    tau = {rank.metric: rank.tau for rank in comparison.ranking}
    for axes, metric in zip(panels, SHOWN, strict=True):
        rows = [(place, cell.row(metric)) for place, cell in enumerate(comparison.cells)]
        points = [(n, r.reference, r.value) for n, r in rows if r.value is not None and r.reference is not None]
        for place, x, y in points:
            color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
            axes.plot(x, y, color=color, marker=marker, ms=7, ls="", label=comparison.cells[place].title)
        values_s = [value for _, *pair in points for value in pair]
        if values_s:
            ends_s = [min(values_s) / 1.2, max(values_s) * 1.2]
            axes.plot(ends_s, ends_s, color=GREY, lw=1)
            for which in "xy":
                seconds_axis(axes, which, values_s)
            limits_s = [ends_s[0] if axes.get_xscale() == "log" else 0, ends_s[1]]
            axes.set(xlim=limits_s, ylim=limits_s)
        unknown = sum(r.at_least is not None or r.reference_at_least is not None for _, r in rows)
        if unknown:
            axes.text(
                0.03, 0.97, f"not known of {unknown} of {len(rows)}", transform=axes.transAxes, va="top", fontsize=7
            )
        agreement = tau.get(metric)
        axes.set_title(_words(metric) + ("" if agreement is None else f":  τ = {agreement:.2f}"), loc="left")
        axes.set(xlabel=wrapped(comparison.reference_label, 34, 2), ylabel=wrapped(comparison.label, 34, 2))
    handles = panels[0].get_legend_handles_labels()[0]
    if len(handles) <= MOST_NAMED:
        legend_above(figure, handles)
    return figure


def _sides(comparison: Comparison, cell: CellComparison) -> Sides:
    """The reference in the first colour, and what is compared with it in the second."""
    return [
        (comparison.reference_label, cell.references, Look(COLORS[0], "-", 3.2, MARKERS[0], 8)),
        (comparison.label, cell.runs, Look(COLORS[1], "-", 1.3, MARKERS[1], 5)),
    ]


def _whole(runs: Sequence[Run]) -> list[list[Stretch]]:
    """The stretches of time that the statistics of each run cover."""
    return [[whole_run(run)] for run in runs]


def _pooled(runs: Sequence[Run], pieces: Sequence[Sequence[Stretch]], quantity: str) -> Floats:
    """A quantity of the tasks that arrived in each run's stretches of time, of all runs together; see `durations`."""
    parts = [np.empty(0)]
    for run, stretches in zip(runs, pieces, strict=True):
        tasks = run.tables.tasks
        arrival_s = floats(tasks, "arrival_s")
        inside = np.zeros(len(arrival_s), dtype=bool)
        for start_s, stop_s in stretches:
            inside |= (arrival_s >= start_s) & (arrival_s <= stop_s)
        values_s = latency_s(tasks) if quantity == "latency" else excess_s(run.tables, run.scenario)
        parts.append(values_s[inside & ~np.isnan(values_s)])
    return np.concatenate(parts)


def _moments(sides: Sides) -> Iterator[tuple[str, str, Dashes, list[float]]]:
    """What to mark over time: its name, colour, style and times."""
    faults: dict[str, tuple[list[str | None], list[float]]] = {}
    for time_s, kind, worker, _ in event_rows(sides[0][1][0].tables.events):
        if kind in (*FAULTS, FaultEvent.HEAL):
            workers, times_s = faults.setdefault(name_of_fault(kind), ([], []))
            workers.append(worker)
            times_s.append(time_s)
    for name, (workers, times_s) in faults.items():
        color, style = MARKS[name]
        yield named(name, workers), color, style, times_s
    for (label, runs, look), dashes in zip(sides, VERDICTS, strict=True):
        dead_s = [event.time_s for event in event_rows(runs[0].tables.events) if event.kind == WorkerEvent.DEAD]
        if dead_s:
            yield f"{label}: {DECLARED_DEAD}", look.color, dashes, dead_s


def _mark(panels: Sequence[Axes], label: str, color: str, style: Dashes, times_s: Sequence[float]) -> Line2D:
    faint = float(np.clip(MANY_MARKS / len(times_s), 0.15, 1))
    for axes in panels:
        transform = axes.get_xaxis_transform()
        axes.vlines(times_s, 0, 1, color=color, ls=style, lw=1.1, alpha=faint, transform=transform)
    return Line2D([], [], color=color, ls=style, lw=1.1, label=label)


def _title(comparison: Comparison, what: str) -> str:
    return f"{comparison.scenario}: {what}, {comparison.label} and {comparison.reference_label}"


def _setting(comparison: Comparison) -> str:
    """Cluster, load and faults in words; if the cells differ, their number and the range of the load."""
    scenarios = [cell.references[0].scenario for cell in comparison.cells]
    words = {"; ".join(_words_of(scenario)) for scenario in scenarios}
    setting = words.pop() if len(words) == 1 else f"{len(scenarios):,} cells;  load {_span(scenarios)}"
    n = sizes([sum(run.summary["latency_s"]["n"] for run in cell.references) for cell in comparison.cells])
    return f"{setting};  n = {n} tasks"


def _words_of(scenario: Scenario) -> Iterator[str]:
    workers = sum(group.workers for group in scenario.cluster.groups)
    slots = sum(group.workers * group.capacity for group in scenario.cluster.groups)
    yield f"{workers:,} workers with {slots:,} slots"
    yield f" load {_span([scenario])}"
    yield f" faults: {', '.join(map(str, scenario.faults)) or 'none'}"


def _span(scenarios: Sequence[Scenario]) -> str:
    """The offered loads, from the smallest to the largest."""
    loads = [offered_load for scenario in scenarios if (offered_load := scenario.offered_load()) is not None]
    ends = dict.fromkeys(f"{end(loads):.2f}" for end in (min, max) if loads)
    return " to ".join(ends) or "unknown"


def _words(metric: str) -> str:
    """`latency_s.p95` becomes `p95 of latency`."""
    quantity, _, statistic = metric.partition("_s.")
    return f"{statistic} of {quantity}"
