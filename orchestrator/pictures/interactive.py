"""Charts to hover and zoom, for the report: what the pictures show, drawn by plotly.

Whatever a user named (kinds, workers, scenarios) is escaped before it becomes a label: plotly reads tags in texts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.analysis.task_lives import Life
from orchestrator.pictures import marks
from orchestrator.pictures.distributions import CCDF_POINTS, INSTANT_S, Curve, known, of_sample, tail_curve
from orchestrator.pictures.small_multiples import common_faults
from orchestrator.pictures.style import COLORS, GREY, Dashes, seconds
from orchestrator.pictures.sweep_plots import PANELS, axis_label, is_numeric, lines_of, metric_of, names_of, places_of
from orchestrator.pictures.timelines import P50, P99
from orchestrator.results.confidence import bounds, percentile_intervals
from orchestrator.results.executions import worker_utilization
from orchestrator.results.runs import Run
from orchestrator.results.summaries import Summary
from orchestrator.results.tables import Floats
from orchestrator.results.timeline import Series, series
from orchestrator.scenario.titles import value_title

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-down", "triangle-up", "cross", "star", "x")
"""As the markers of the pictures: colours alone tell nothing to many readers."""
FEW_LINES = 40
"""More marks than these have no line through the whole chart, only their row."""
MOST_OVERLAID = 3
"""More runs than these over time have axes of their own."""
MOST_WORKERS = 60
"""More workers than these are a curve instead of bars."""
TAIL = {2: "p50", 10: "p90", 100: "p99", 1e3: "p99.9", 1e4: "p99.99", 1e5: "p99.999"}
PARTS = {
    "waits at the coordinator": ("#d9d9d9", ""),
    "waits at the worker": ("#56b4e9", "/"),
    "runs": ("#0072b2", ""),
    "lost: its worker had crashed": ("#d55e00", "x"),
    "given up, still held by the worker": ("#e69f00", "."),
}
"""What a bar of a task's timeline may mean: its colour and its pattern."""


def percentiles(curves: Sequence[Curve]) -> go.Figure:
    """Time against percentile up to the slowest task, with bands of 95 % where there are replications."""
    figure, every, longest = go.Figure(), [np.empty(0)], 2.0
    for place, curve in enumerate(curves):
        values_s = curve.pooled
        if not len(values_s):
            continue
        tail, points_s = tail_curve(values_s)
        q = np.append(1 - 1 / tail[:-1], 1.0)  # the slowest task of all
        every.append(points_s)
        longest = max(longest, float(len(values_s)))
        color = COLORS[place % len(COLORS)]
        samples = [sample[~np.isnan(sample)] for sample in curve.samples]
        if len(samples) > 1 and all(map(len, samples)):
            low, high = bounds(percentile_intervals(samples, 1 - 1 / tail[:-1]))
            _band(figure, tail[:-1], low, high, color)
        figure.add_scatter(
            x=tail,
            y=points_s,
            name=_label(curve),
            line={"color": color, "dash": DASHES[place % len(DASHES)]},
            text=[
                f"{'slowest' if at == 1 else f'p{100 * at:.5g}'}: {seconds(y)}"
                for at, y in zip(q, points_s, strict=True)
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    shown = {x: name for x, name in TAIL.items() if x <= longest}
    figure.update_xaxes(
        type="log",
        tickangle=0,
        title="percentile (the tail stretched)",
        tickvals=list(shown),
        ticktext=list(shown.values()),
    )
    _seconds(figure, "y", np.concatenate(every), "time")
    return _laid(figure)


def ccdf(curves: Sequence[Curve]) -> go.Figure:
    """The share of tasks that took at least as long, on two logarithmic axes."""
    figure, every = go.Figure(), [np.empty(0)]
    for place, curve in enumerate(curves):
        slowest_first = np.sort(curve.pooled)[::-1]
        first = 1 + int(np.count_nonzero(np.isinf(slowest_first)))
        if first > len(slowest_first):
            continue
        rank = np.unique(np.geomspace(first, len(slowest_first), CCDF_POINTS).astype(np.int64))
        rank = rank[slowest_first[rank - 1] > INSTANT_S]
        x, share = slowest_first[rank - 1], rank / len(slowest_first)
        every.append(x)
        figure.add_scatter(
            x=x,
            y=share,
            name=_label(curve),
            line={"color": COLORS[place % len(COLORS)], "dash": DASHES[place % len(DASHES)], "shape": "hv"},
            text=[f"{100 * s:.3g} % took {seconds(at)} or longer" for at, s in zip(x, share, strict=True)],
            hovertemplate="%{text}<extra></extra>",
        )
    _seconds(figure, "x", np.concatenate(every), "time", log=True)
    figure.update_xaxes(tickangle=0)
    figure.update_yaxes(type="log", title="share of tasks that took at least as long", tickformat="~%", dtick=1)
    return _laid(figure)


def timeline(run: Run) -> go.Figure:
    """Latency, rates and queue over time; below them a row for each kind of fault and verdict, on the same axis."""
    line, moments = series(run.tables, run.scenario), marks.marks_of(run.tables)
    rows = 3 + bool(moments)
    heights = [3.0, 2.0, 2.0, *([0.6 + 0.35 * len(moments)] if moments else [])]
    figure = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.035, row_heights=heights)
    over_time = (
        *((1, *latency, "latency") for latency in _latencies(line)),
        (2, "arrivals", line.arrivals_per_s, "#999999", "dot", "tasks per s"),
        (2, "completions", line.completions_per_s, COLORS[2], "solid", "tasks per s"),
        (3, "waiting, wherever", line.waiting, COLORS[0], "solid", "tasks waiting"),
        (3, "waiting at workers", line.waiting_at_workers, COLORS[1], "dash", "tasks waiting"),
    )
    for row, name, values, color, dash, what in over_time:
        _stairs(figure, line, known(values), name, color, dash, row, in_seconds=what == "latency")
        figure.update_yaxes(title=what, row=row, col=1)
    _seconds(figure, "y", known(np.concatenate([line.p50_s, line.slowest_s])), "latency, by arrival", row=1)
    for row in (2, 3):
        figure.update_yaxes(rangemode="tozero", row=row, col=1)
    if moments:
        _draw_moments(figure, moments, rows)
    figure.update_xaxes(title="time since the start (s)", row=rows, col=1)
    figure.update_xaxes(range=[0, float(line.edges_s[-1])])
    if run.scenario.warmup_s:
        figure.add_vrect(x0=0, x1=run.scenario.warmup_s, fillcolor="#eeeeee", line_width=0, layer="below")
    return _laid(figure, 330 + 60 * len(heights) + 26 * len(moments))


def over_time(runs: Mapping[str, Run]) -> go.Figure:
    """Several runs over time, by label, with the faults of them all: p99 of latency and the queue in the same axes.

    More than MOST_OVERLAID would hide one another: each has axes of its own then, for latency alone.
    """
    lines = {escape(label): series(run.tables, run.scenario) for label, run in runs.items()}
    figure = _overlaid(lines) if len(lines) <= MOST_OVERLAID else _one_above_the_other(lines)
    for kind, moments in common_faults(list(runs.values())).items():
        color, style = marks.MARKS[kind]
        for time_s in sorted({time_s for time_s, _ in moments})[:FEW_LINES]:
            line_style = {"color": color, "dash": _dash(style), "width": 1}
            figure.add_vline(x=time_s, line=line_style, opacity=0.7, row="all", col=1)
            figure.add_annotation(
                x=time_s, y=1, yref="y domain", text=kind, showarrow=False, xanchor="left", yanchor="top", row=1, col=1
            )
    return figure


def _overlaid(lines: Mapping[str, Series]) -> go.Figure:
    figure = make_subplots(2, 1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[3, 2])
    for place, (label, line) in enumerate(lines.items()):
        color, dash = COLORS[place % len(COLORS)], DASHES[place % len(DASHES)]
        _stairs(figure, line, known(line.p99_s), label, color, dash, 1, in_seconds=True)
        _stairs(figure, line, line.waiting, label, color, dash, 2, legend=False)
    p99_s = np.concatenate([np.empty(0), *(known(line.p99_s) for line in lines.values())])
    _seconds(figure, "y", p99_s, "p99 of latency, by arrival", row=1)
    figure.update_yaxes(title="tasks waiting", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title="time since the start (s)", row=2, col=1)
    return _laid(figure, 560)


def _one_above_the_other(lines: Mapping[str, Series]) -> go.Figure:
    """All on one scale of latency."""
    rows = len(lines)
    figure = make_subplots(rows, 1, shared_xaxes=True, vertical_spacing=0.3 / rows, subplot_titles=list(lines))
    figure.update_annotations(x=0, xanchor="left", font={"size": 12})
    every = [np.empty(0)]
    for row, line in enumerate(lines.values(), 1):
        for name, values, color, dash in _latencies(line):
            every.append(known(values))
            _stairs(figure, line, every[-1], name, color, dash, row, in_seconds=True, legend=row == 1)
    for row in range(1, rows + 1):
        _seconds(figure, "y", np.concatenate(every), "", row=row)
    figure.update_xaxes(title="time since the start (s)", row=rows, col=1)
    return _laid(figure, 130 + 130 * rows).update_layout(legend_y=1 + 0.2 / rows)  # above the first title


def _latencies(line: Series) -> tuple[tuple[str, Floats, str, str], ...]:
    """What is drawn of latency over time: its name, values, colour and dashes."""
    return (
        ("slowest", line.slowest_s, "#999999", "dot"),
        ("p99 of latency", line.p99_s, P99, "dash"),
        ("p50 of latency", line.p50_s, P50, "solid"),
    )


def utilisation(run: Run) -> go.Figure:
    """How busy each worker was: a bar for each of few workers, a curve for each group of many."""
    busy, names, figure = worker_utilization(run.tables, run.scenario), run.scenario.worker_names(), go.Figure()
    first = 0
    for place, group in enumerate(run.scenario.cluster.groups):
        mine = slice(first, first + group.workers)
        first += group.workers
        color = COLORS[place % len(COLORS)]
        if len(busy) <= MOST_WORKERS:
            pattern = {"shape": ("", "/", "x", ".")[place % 4]}
            named = [escape(name) for name in names[mine]]
            figure.add_bar(x=named, y=busy[mine], name=escape(group.name), marker={"color": color, "pattern": pattern})
        else:
            share = np.linspace(0, 1, min(group.workers, 1000))
            dash = DASHES[place % len(DASHES)]
            figure.add_scatter(
                x=share,
                y=np.quantile(busy[mine], 1 - share),
                name=escape(f"{group.name} ({group.workers:,} workers)"),
                line={"color": color, "dash": dash},
            )
    figure.update_traces(hovertemplate="%{x}: %{y:.1%}<extra></extra>")
    mean = float(np.mean(busy))
    figure.add_hline(y=mean, line={"color": GREY, "dash": "dash"})
    title = "worker" if len(busy) <= MOST_WORKERS else "share of the workers, busiest first"
    figure.update_xaxes(title=f"{title} (dashed: their mean, {mean:.1%})")
    if len(busy) > MOST_WORKERS:
        figure.update_xaxes(tickformat=".0%")
    if len(busy) > 16:
        figure.update_xaxes(tickangle=-90)
    figure.update_yaxes(title="busy share of the slots", tickformat=".0%", range=[0, max(1.0, 1.05 * float(max(busy)))])
    return _laid(figure)


def against(cells: Sequence[Summary], key: str) -> go.Figure:
    """p50, p95, p99 and the slowest against one swept key; a line for each combination of the other keys.

    Of values that are names, the points of each line stand beside those of the others.
    """
    figure = make_subplots(len(PANELS), 1, shared_xaxes=True, vertical_spacing=0.05)
    numeric, lines = is_numeric(cells, key), lines_of(cells, key)
    for row, (statistic, name) in enumerate(PANELS.items(), 1):
        metric = f"latency_s.{statistic}"
        every: list[float] = []
        for place, (line, x) in enumerate(zip(lines, places_of(lines, key), strict=True)):
            y = np.array([metric_of(cell, metric) for cell in line.cells])
            low, high = bounds([cell["ci95"].get(metric) for cell in line.cells])
            every += [*y.tolist(), *high.tolist()]
            named = [wrapped_tags(value_title(key, cell["values"][key]), 40) for cell in line.cells]
            figure.add_scatter(
                x=x,
                y=y,
                name=escape(line.label),
                legendgroup=str(place),
                showlegend=row == 1 and bool(line.label),
                mode="lines+markers" if numeric else "markers",
                line={"color": line.look.color, "dash": DASHES[place % len(DASHES)], "width": line.look.width},
                marker={"symbol": SYMBOLS[place % len(SYMBOLS)], "size": 4 + line.look.size},
                error_y={"type": "data", "symmetric": False, "array": high - y, "arrayminus": y - low, "thickness": 1},
                text=[f"{what}<br>{name}: {seconds(value)}" for what, value in zip(named, y, strict=True)],
                hovertemplate="%{text}<extra></extra>",
                row=row,
                col=1,
            )
        _seconds(figure, "y", np.array(every), name, row=row)
    if not numeric:
        names = names_of(cells, key)
        width = max(10, 110 // len(names))
        figure.update_xaxes(
            tickvals=list(range(len(names))),
            ticktext=[wrapped_tags(name, width) for name in names],
            range=[-0.5, len(names) - 0.5],
        )
    figure.update_xaxes(title=escape(axis_label(key)), row=len(PANELS), col=1)
    return _laid(figure, 760)


def wrapped_tags(text: str, letters: int) -> str:
    """A name as a label of plotly, in lines of so many letters."""
    return "<br>".join(map(escape, textwrap.wrap(text, letters)))


def life(found: Life) -> go.Figure:
    """The attempts of one task as bars over time since its arrival, with worker and outcome of each."""
    figure, shown = go.Figure(), set[str]()
    rows = ["at the coordinator", *(escape(f"{one.number}: {one.worker}") for one in found.tries)]
    for row, part, start_s, stop_s, told in _bars(found, rows):
        color, pattern = PARTS[part]
        figure.add_bar(
            y=[row],
            x=[stop_s - start_s],
            base=[start_s],
            orientation="h",
            name=part,
            legendgroup=part,
            showlegend=part not in shown,
            marker={"color": color, "pattern": {"shape": pattern}, "line": {"color": "#333333", "width": 0.5}},
            hovertext=[escape(f"{part}: {seconds(stop_s - start_s)}{told}")],
            hoverinfo="text",
        )
        shown.add(part)
    for row, one in zip(rows[1:], found.tries, strict=True):
        end_s = min(found.until_s if one.ended_s is None else one.ended_s, found.until_s)
        if one.lost_s is not None and one.given_up_s is not None:
            end_s = min(end_s, one.given_up_s)
        text = "settles it" if one.settled else one.fate
        right = end_s > 0.6 * found.until_s
        figure.add_annotation(
            x=end_s,
            y=row,
            text=f"{text} ",
            showarrow=False,
            xanchor="right" if right else "left",
            bgcolor="rgba(255,255,255,0.85)",
            font={"size": 12, "color": "#111111"},
        )
    figure.update_yaxes(categoryorder="array", categoryarray=list(reversed(rows)), title="attempt: worker")
    figure.update_xaxes(title="seconds since the arrival of the task", rangemode="tozero", range=[0, found.until_s])
    figure.update_layout(barmode="overlay")
    return _laid(figure, 190 + 34 * len(rows))


def _bars(found: Life, rows: Sequence[str]) -> list[tuple[str, str, float, float, str]]:
    bars, free_s = [], 0.0
    for row, one in zip(rows[1:], found.tries, strict=True):
        if one.assigned_s > free_s:
            bars.append((rows[0], "waits at the coordinator", free_s, one.assigned_s, ""))
        end_s = found.until_s if one.ended_s is None else one.ended_s
        held_s = end_s if one.given_up_s is None else min(one.given_up_s, end_s)
        lost_s = held_s if one.lost_s is None else min(one.lost_s, held_s)
        begun_s = lost_s if one.started_s is None else min(max(one.started_s, one.assigned_s), lost_s)
        told = f" at {one.worker}; attempt {one.number}: {one.fate}"
        parts = [
            ("waits at the worker", one.assigned_s, begun_s),
            ("runs", begun_s, lost_s),
            ("lost: its worker had crashed", lost_s, held_s),
        ]
        if one.lost_s is None:
            parts.append(("given up, still held by the worker", held_s, min(end_s, found.until_s)))
        bars += [(row, part, start_s, stop_s, told) for part, start_s, stop_s in parts if stop_s > start_s]
        free_s = max(free_s, held_s)
    if found.until_s > free_s:
        bars.append((rows[0], "waits at the coordinator", free_s, found.until_s, ""))
    return bars


def _draw_moments(figure: go.Figure, moments: Mapping[str, Sequence[marks.Moment]], row: int) -> None:
    few = sum(map(len, moments.values())) <= FEW_LINES
    for place, (kind, happened) in enumerate(moments.items()):
        color, style = marks.MARKS[kind]
        times_s = [time_s for time_s, _ in happened]
        figure.add_scatter(
            x=times_s,
            y=[kind] * len(times_s),
            mode="markers",
            name=kind,
            showlegend=False,
            marker={"color": color, "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9},
            text=[escape(f"{kind}: {worker or 'the coordinator'}") for _, worker in happened],
            hovertemplate="%{text} at %{x:.4g} s<extra></extra>",
            row=row,
            col=1,
        )
        if few:
            for time_s in sorted(set(times_s)):
                figure.add_vline(x=time_s, line={"color": color, "dash": _dash(style), "width": 1}, opacity=0.7)
    figure.update_yaxes(categoryorder="array", categoryarray=list(moments)[::-1], row=row, col=1)


def _dash(style: Dashes) -> str:
    """The same pattern in the words of plotly."""
    return "solid" if isinstance(style, str) else ",".join(f"{2 * length:g}px" for length in style[1])


def _stairs(
    figure: go.Figure,
    line: Series,
    values: Floats,
    name: str,
    color: str,
    dash: str,
    row: int,
    in_seconds: bool = False,
    legend: bool = True,
) -> None:
    texts = [seconds(value) if in_seconds else f"{value:,.4g}" for value in values]
    figure.add_scatter(
        x=line.edges_s,
        y=np.append(values, values[-1:]),
        name=name,
        legendgroup=name,
        showlegend=legend,
        line={"color": color, "dash": dash, "shape": "hv", "width": 1.8},
        text=[*texts, *texts[-1:]],
        hovertemplate="%{text}",
        row=row,
        col=1,
    )


def _band(figure: go.Figure, x: Floats, low: Floats, high: Floats, color: str) -> None:
    """Where both of its ends are known."""
    shown = np.isfinite(low) & np.isfinite(high)
    red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
    edge: dict[str, Any] = {"x": x[shown], "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip"}
    figure.add_scatter(y=low[shown], showlegend=False, **edge)
    fill = f"rgba({red},{green},{blue},0.2)"
    figure.add_scatter(y=high[shown], showlegend=False, fill="tonexty", fillcolor=fill, **edge)


def _label(curve: Curve) -> str:
    return escape(f"{curve.label} ({of_sample(curve.pooled, curve.ends)})").replace(" (", "<br>(")


def _seconds(
    figure: go.Figure, axis: str, values: Floats, title: str, row: int | None = None, log: bool = False
) -> None:
    """An axis of durations with their units: from 0, or logarithmic if its values span more than a factor of 20."""
    positive = values[np.isfinite(values) & (values > 0)]
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    where: dict[str, Any] = {} if row is None else {"row": row, "col": 1}
    if len(positive) and (log or positive.max() > 20 * positive.min()):
        low, high = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
        steps = (1, 2, 5) if high - low <= 2 else (1, 3) if high - low <= 3 else (1,)
        powers = np.arange(low, high + 1, 2 if high - low > 5 else 1)
        ticks = [step * 10.0**power for power in powers for step in steps]
        margin = 0.07 * max(float(np.log10(positive.max() / positive.min())), 0.5)
        ends = [float(np.log10(positive.min())) - margin, float(np.log10(positive.max())) + margin]
        ticktext = [seconds(tick) for tick in ticks]
        update(type="log", range=ends, tickvals=ticks, ticktext=ticktext, title=title, **where)
    else:
        top = 1.05 * float(positive.max(initial=0.0)) or 1.0
        ticks = np.linspace(0, _round(top), 6).tolist()
        update(range=[0, top], tickvals=ticks, ticktext=[seconds(tick) for tick in ticks], title=title, **where)


def _round(top: float) -> float:
    """The next larger number of five equal steps that people read easily."""
    power = 10.0 ** np.floor(np.log10(top / 5))
    return float(5 * power * next(step for step in (1, 2, 2.5, 5, 10) if 5 * power * step >= top))


def _laid(figure: go.Figure, height: int = 420) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        margin={"l": 10, "r": 14, "t": 75, "b": 10},
        font={"color": "#222222", "size": 13},
        legend={"traceorder": "normal", "orientation": "h", "yanchor": "bottom", "y": 1.01, "x": 0, "xanchor": "left"},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, showline=True, linecolor="#555555", ticks="outside")
    figure.update_yaxes(automargin=True, showline=True, linecolor="#555555")
    return figure
