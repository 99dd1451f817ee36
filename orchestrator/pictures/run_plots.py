"""The pictures of a run, of its replications, and of several runs in the same axes, as the literature draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from orchestrator.pictures.style import (
    COLORS,
    GREY,
    MARKERS,
    Figures,
    Plot,
    count_axis,
    legend_above,
    new_figure,
    note,
    seconds,
    seconds_axis,
    styled,
)
from orchestrator.results.runs import Run, Sweep, plain
from orchestrator.results.summaries import (
    Detection,
    Sample,
    Series,
    Summary,
    confidence_interval,
    rows,
    series,
    worker_utilization,
)
from orchestrator.results.tables import FAULTS, HEALS, PRIORITIES, Floats, Tables

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

MARKS: dict[str, tuple[str, str]] = {
    "crash": ("#d62728", "-"),
    "restart": ("#ff9896", "-"),
    "pause": ("#f0a30a", "-"),
    "slow": ("#8c6d31", "-"),
    "hang": ("#5c4033", "-"),
    "partition": ("#1f77b4", "-"),
    "delay": ("#17becf", "-"),
    "loss": ("#6baed6", "-"),
    "duplicate": ("#9ecae1", "-"),
    "coordinator pause": ("#e6550d", "-"),
    "drain": ("#9edae5", "-."),
    "suspect": ("#999999", ":"),
    "ejected": ("#7b4173", ":"),
    "declared dead": ("#333333", "--"),
    "declared dead while alive": ("#b01ec8", "--"),
    "recovery": ("#2ca02c", "-"),
}
"""What befell the workers, each with its colour and line style, in the order of the legend."""
FEW_MARKS = 40
FEW_WORKERS = 50

TAIL_TICKS = {2.0: "p50", 4.0: "p75", 10.0: "p90", 20.0: "p95", 100.0: "p99", 1000.0: "p99.9"}
CCDF_POINTS = 1500
NOTHING = "no completed task"


@dataclass(frozen=True)
class Curve:
    """A distribution to draw: the sample of one run, or those of its replications."""

    label: str
    samples: Sequence[Floats]

    @property
    def pooled(self) -> Floats:
        return np.concatenate([sample[~np.isnan(sample)] for sample in self.samples])


def of_run(run: Run) -> Figures:
    """Percentile curve, CCDF, the run over time, priorities and workers."""
    tables, scenario = run.tables, run.scenario
    name, setting = scenario.name, _setting(scenario, run.summary["world"])
    curves = _latency_and_wait([Sample.of(tables, scenario)])
    return Figures(
        {
            "latency-percentiles": percentiles(curves, f"{name}: latency by percentile", setting),
            "latency-ccdf": ccdf(curves, f"{name}: share of tasks that took longer", setting),
            "timeline": timeline(tables, scenario, f"{name}: the run over time", setting),
            "latency-by-priority": by_priority(run.summary, f"{name}: latency by priority", setting),
            "worker-utilization": utilization(tables, scenario, f"{name}: how busy the workers were", setting),
        }
    )


def of_replications(sweep: Sweep) -> Figures:
    """The distributions of a sweep's single cell, with the confidence that its replications give them."""
    runs = sweep.cells[0].runs
    name = sweep.scenario.name
    setting = f"{_setting(sweep.scenario, sweep.summary['world'])};  {len(runs)} replications"
    curves = _latency_and_wait([Sample.of(run.tables, run.scenario) for run in runs])
    return Figures(
        {
            "latency-percentiles": percentiles(curves, f"{name}: latency by percentile", setting),
            "latency-ccdf": ccdf(curves, f"{name}: share of tasks that took longer", setting),
            "latency-by-priority": by_priority(sweep.summary, f"{name}: latency by priority", setting),
        }
    )


def overlay(runs: Mapping[str, Run | Sweep]) -> Figures:
    """Several runs in the same axes, by label. A sweep stands for all its runs together; over time, for its first."""
    parts = {label: list(run.runs) if isinstance(run, Sweep) else [run] for label, run in runs.items()}
    curves = [
        Curve(label, [Sample.of(run.tables, run.scenario).latency_s for run in part]) for label, part in parts.items()
    ]
    title = " and ".join(dict.fromkeys(part[0].scenario.name for part in parts.values()))
    worlds = dict.fromkeys(part[0].summary["world"] for part in parts.values())
    setting = f"world: {', '.join(worlds)}"
    over_time = {label: series(part[0].tables, part[0].scenario) for label, part in parts.items()}
    return Figures(
        {
            "latency-percentiles": percentiles(curves, f"{title}: latency by percentile", setting),
            "latency-ccdf": ccdf(curves, f"{title}: share of tasks that took longer", setting),
            "timeline": timelines(over_time, f"{title}: the runs over time", setting),
        }
    )


@styled
def percentiles(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """Time against percentile from p50 to p99.9, the tail stretched: x = 1 / (1 - q) on a logarithmic axis.

    A curve ends where its sample has nothing left to say. Replications give a 95 % confidence band.
    """
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    drawn = [np.empty(0)]
    for curve, color in _colored(curves):
        tail = np.geomspace(2, np.clip(len(curve.pooled), 2.001, 1000), 200)
        drawn.append(np.quantile(curve.pooled, 1 - 1 / tail))
        axes.plot(tail, drawn[-1], color=color, label=curve.label)
        if len(curve.samples) > 1 and all(map(len, curve.samples)):
            low, high = confidence_interval(np.array([np.nanquantile(s, 1 - 1 / tail) for s in curve.samples]))
            axes.fill_between(tail, np.maximum(low, 0), high, color=color, alpha=0.2, lw=0, label="95 % confidence")
    axes.set(xscale="log", xlim=(2, 1000), xlabel="percentile (the tail stretched)", ylabel="time")
    axes.xaxis.set_major_locator(FixedLocator(list(TAIL_TICKS)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: TAIL_TICKS.get(x, "")))
    axes.xaxis.set_minor_locator(NullLocator())
    seconds_axis(axes, "y", np.concatenate(drawn))
    _legend_or_note(axes)
    return figure


@styled
def ccdf(curves: Sequence[Curve], title: str, setting: str) -> Plot:
    """The share of tasks that took at least so long, on two logarithmic axes; a few points stand for millions."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    axes.set(xscale="log", yscale="log", xlabel="time", ylabel="share of tasks that took at least as long")
    for curve, color in _colored(curves):
        slowest_first = np.sort(curve.pooled)[::-1]
        rank = np.unique(np.geomspace(1, len(slowest_first), CCDF_POINTS).astype(np.int64))
        rank = rank[slowest_first[rank - 1] > 0]
        marker = "." if len(rank) < 20 else ""
        axes.plot(
            slowest_first[rank - 1],
            rank / len(slowest_first),
            color=color,
            label=curve.label,
            marker=marker,
            ds="steps-post",
        )
    axes.xaxis.set_major_formatter(FuncFormatter(seconds))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.10g}%"))
    _legend_or_note(axes)
    return figure


@styled
def timeline(tables: Tables, scenario: Scenario, title: str, setting: str) -> Plot:
    """Latency, throughput and queue over time, with every fault and every verdict.

    Few marks are lines through all panels; many get a panel with a row for each kind. Where workers were out,
    one more panel counts them.
    """
    marks, outages = _marks(tables), _outages(tables)
    few = sum(map(len, marks.values())) <= FEW_MARKS
    heights = [3.0, 2.0, 2.0] + [1.3] * bool(marks) + [1.3] * (not few)
    size = (9, sum(heights))
    figure, panels = new_figure(title, setting, size, rows=len(heights), height_ratios=heights, sharex=True)
    line = series(tables, scenario)
    _latency_over_time(panels[0], line)
    _rates_over_time(panels[1], line)
    panels[2].stairs(line.waiting, line.edges_s, baseline=None, color=COLORS[0], lw=1.4)
    count_axis(panels[2], "tasks waiting", 1.05 * np.max(line.waiting))
    if marks:
        _workers_out(panels[3], outages, line.edges_s[-1])
    if few:
        for axes in panels:
            for kind, moments in marks.items():
                color, style = MARKS[kind]
                times_s = [time_s for time_s, _ in moments]
                axes.vlines(times_s, 0, 1, color=color, ls=style, lw=1.1, transform=axes.get_xaxis_transform())
    else:
        _rows_of_marks(panels[4], marks)
    spans = _spans_of_time(panels, scenario, line)
    panels[-1].set(xlabel="time since the start (s)", xlim=(0, line.edges_s[-1]))
    latencies = panels[0].get_legend_handles_labels()[0]
    legend_above(panels[0], [*latencies, *(_mark_handle(*mark) for mark in marks.items()), *spans], columns=4)
    return figure


@styled
def timelines(lines: Mapping[str, Series], title: str, setting: str) -> Plot:
    """The 99th percentile of latency, throughput and queue of several runs over time."""
    figure, panels = new_figure(title, setting, (9, 7), rows=3, height_ratios=[3, 2, 2], sharex=True)
    for (label, line), color in zip(lines.items(), _colors(len(lines)), strict=True):
        panels[0].stairs(line.p99_s, line.edges_s, baseline=None, color=color, lw=1.4, label=label)
        panels[1].stairs(line.completions_per_s, line.edges_s, baseline=None, color=color, lw=1.4)
        panels[2].stairs(line.waiting, line.edges_s, baseline=None, color=color, lw=1.4)
    panels[0].set_ylabel("p99 of latency, by arrival")
    seconds_axis(panels[0], "y", np.concatenate([line.p99_s for line in lines.values()]))
    count_axis(
        panels[1], "completions per second", 1.05 * max(np.max(line.completions_per_s) for line in lines.values())
    )
    count_axis(panels[2], "tasks waiting", 1.05 * max(np.max(line.waiting) for line in lines.values()))
    panels[2].set(xlabel="time since the start (s)", xlim=(0, max(line.edges_s[-1] for line in lines.values())))
    legend_above(panels[0])
    return figure


@styled
def by_priority(summary: Summary, title: str, setting: str) -> Plot:
    """p50, p95 and p99 of each priority that occurred."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    present = [name for name in PRIORITIES if name in summary["by_priority"]]
    drawn: list[float] = []
    for metric, color, marker in zip(("p50", "p95", "p99"), COLORS, MARKERS, strict=False):
        values = [summary["by_priority"][name]["latency_s"][metric] for name in present]
        points = [(x, value) for x, value in enumerate(values) if value is not None]
        drawn += [value for _, value in points]
        if points:
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=8, ls="", label=metric)
        for x, value in points:
            axes.annotate(seconds(value), (x, value), (9, 0), textcoords="offset points", va="center", fontsize=8)
    ticks = [f"{name}\n{summary['by_priority'][name]['completed']:,} completed" for name in present]
    axes.set_xticks(range(len(present)), ticks)
    axes.set(xlim=(-0.5, max(len(present), 1) - 0.5), xlabel="priority", ylabel="latency")
    axes.grid(False, axis="x")
    seconds_axis(axes, "y", drawn)
    if drawn:
        legend_above(axes)
    else:
        note(axes, NOTHING)
    return figure


@styled
def utilization(tables: Tables, scenario: Scenario, title: str, setting: str) -> Plot:
    """The busy share of each worker's slots: a bar for each of few, a curve for each group of many."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    busy = worker_utilization(tables, scenario)
    groups = scenario.cluster.groups
    ends = np.cumsum([group.workers for group in groups])
    for group, end, color in zip(groups, ends, _colors(len(groups)), strict=True):
        members = np.arange(end - group.workers, end)
        if len(busy) <= FEW_WORKERS:
            axes.bar(members, busy[members], color=color, label=group.name)
        else:
            share = np.linspace(0, 1, min(group.workers, 1000))
            busiest_first = np.quantile(busy[members], 1 - share)
            axes.plot(share, busiest_first, color=color, label=f"{group.name} ({group.workers:,} workers)")
    mean = float(np.mean(busy))
    axes.axhline(mean, color=GREY, ls="--", lw=1, label=f"mean of the workers: {mean:.1%}")
    if len(busy) <= FEW_WORKERS:
        axes.set_xticks(range(len(busy)), scenario.worker_names(), rotation=90 if len(busy) > 16 else 0)
        axes.set_xlabel("worker")
        axes.grid(False, axis="x")
    else:
        axes.set(xlabel="share of the workers, busiest first", xlim=(0, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylabel="busy share of the slots, after warm-up", ylim=(0, max(1.0, float(np.max(busy)) * 1.05)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_above(axes)
    return figure


def _latency_and_wait(samples: Sequence[Sample]) -> list[Curve]:
    return [
        Curve("latency: arrival to result", [sample.latency_s for sample in samples]),
        Curve("wait: arrival to first start", [sample.wait_s for sample in samples]),
    ]


def _setting(scenario: Scenario, world: str) -> str:
    """What was run, in words."""
    groups = scenario.cluster.groups
    if len(groups) <= 3:
        cluster = " and ".join(f"{g.workers:,} workers x {g.capacity}" for g in groups)
    else:
        cluster = f"{sum(g.workers for g in groups):,} workers in {len(groups)} groups"
    policies = scenario.policies
    chosen = (("routing", policies.routing), ("queue", policies.queue), ("detection", policies.detection))
    words = [f"{name}: {plain({'kind': p.kind, **p.model_dump(exclude_defaults=True)})}" for name, p in chosen]
    return ";  ".join([f"world: {world}", cluster, *words])


def _colors(count: int) -> list[str]:
    return [COLORS[index % len(COLORS)] for index in range(count)]


def _colored(curves: Sequence[Curve]) -> list[tuple[Curve, str]]:
    """The curves that have anything to show, each with the colour of its place."""
    return [pair for pair in zip(curves, _colors(len(curves)), strict=True) if len(pair[0].pooled)]


def _legend_or_note(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    else:
        note(axes, NOTHING)


def _latency_over_time(axes: Axes, line: Series) -> None:
    axes.stairs(line.slowest_s, line.edges_s, baseline=None, color="#bbbbbb", lw=1.0, label="slowest")
    axes.stairs(line.p99_s, line.edges_s, baseline=None, color=COLORS[5], lw=1.4, label="p99 of latency")
    axes.stairs(line.p50_s, line.edges_s, baseline=None, color=COLORS[0], lw=1.4, label="p50 of latency")
    seconds_axis(axes, "y", [line.p50_s, line.slowest_s])
    axes.set_ylabel("latency, by time of arrival")
    if np.isnan(line.p50_s).all():
        note(axes, NOTHING)


def _rates_over_time(axes: Axes, line: Series) -> None:
    axes.stairs(line.arrivals_per_s, line.edges_s, baseline=None, color="#aaaaaa", lw=1.2, label="arrivals")
    axes.stairs(line.completions_per_s, line.edges_s, baseline=None, color=COLORS[2], lw=1.4, label="completions")
    count_axis(axes, "tasks per second", 1.3 * max(np.max(line.arrivals_per_s), np.max(line.completions_per_s)))
    axes.legend(loc="upper right", ncols=2)


def _marks(tables: Tables) -> dict[str, list[tuple[float, str]]]:
    """When each kind of MARKS happened, and to which worker; kinds that never did are left out."""
    wrong = set(Detection.of(tables).false_positives)
    marks: dict[str, list[tuple[float, str]]] = {kind: [] for kind in MARKS}
    for time_s, kind, worker, detail in rows(tables.events):
        if kind == "dead":
            mark = "declared dead while alive" if (time_s, worker) in wrong else "declared dead"
        elif kind in ("heal", "readmitted") or (kind == "up" and detail in ("reregistered", "revived")):
            mark = "recovery"
        else:
            mark = kind.replace("_", " ")
        if mark in marks:
            marks[mark].append((time_s, worker))
    return {mark: moments for mark, moments in marks.items() if moments}


OUTAGES = {"crashed": "crash", "paused": "pause", "impaired": "slow", "held dead": "declared dead"}
"""How a worker may be out, each with the mark whose colour it has; impaired: slow, stuck, or its network troubled."""


def _outages(tables: Tables) -> Floats:
    """float64[events, 1 + OUTAGES]: the time of each event, and how many workers are out in each way after it."""
    injection: dict[str, set[tuple[str, str]]] = {way: set() for way in OUTAGES}
    way_of = {"crash": "crashed", "restart": "", "pause": "paused", "coordinator_pause": ""}
    counts: list[tuple[float, ...]] = []
    for time_s, kind, worker, detail in rows(tables.events):
        if kind in FAULTS and (way := way_of.get(kind, "impaired")):
            injection[way].add((kind, worker))
        elif kind == "heal" and detail is not None:
            for healed in HEALS.get(detail, (detail,)):
                for victims in injection.values():
                    victims.discard((healed, worker))
        elif kind == "dead":
            injection["held dead"].add(("dead", worker))
        elif kind == "up":
            injection["held dead"].discard(("dead", worker))
        counts.append((time_s, *(len({name for _, name in victims}) for victims in injection.values())))
    return np.array(counts, dtype=np.float64).reshape(-1, 1 + len(OUTAGES))


def _workers_out(axes: Axes, outages: Floats, until_s: float) -> None:
    edges_s = np.append(outages[:, 0], max(until_s, outages[-1, 0]))
    for (label, kind), count in zip(OUTAGES.items(), outages[:, 1:].T, strict=True):
        if count.any():
            color, style = MARKS[kind]
            axes.stairs(count, edges_s, baseline=None, color=color, ls=style, lw=1.3, label=label)
    count_axis(axes, "workers out", 1.6 * max(1.0, np.max(outages[:, 1:])))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    if outages[:, 1:].any():
        axes.legend(loc="upper right", ncols=len(OUTAGES))


def _rows_of_marks(axes: Axes, marks: Mapping[str, Sequence[tuple[float, str]]]) -> None:
    """A row of ticks for each kind, the first on top; the fuller, the fainter."""
    kinds = list(reversed(list(marks)))
    for row, kind in enumerate(kinds):
        times_s = sorted({time_s for time_s, _ in marks[kind]})
        color, _ = MARKS[kind]
        alpha = float(np.clip(300 / len(times_s), 0.15, 1))
        axes.vlines(times_s, row + 0.1, row + 0.9, color=color, lw=0.8, alpha=alpha)
    axes.set_yticks(np.arange(len(kinds)) + 0.5, kinds, fontsize=7)
    axes.grid(False, axis="y")


def _spans_of_time(panels: Sequence[Axes], scenario: Scenario, line: Series) -> list[Patch]:
    """Shade what the statistics leave out, and what came after the last arrival."""
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


def _mark_handle(kind: str, moments: Sequence[tuple[float, str]]) -> Line2D:
    """Named after its workers where they are few."""
    color, style = MARKS[kind]
    label = kind if kind == "recovery" else kind + victims([worker for _, worker in moments])
    return Line2D([], [], color=color, ls=style, label=label)


def victims(workers: Sequence[str | None]) -> str:
    """To stand behind a kind of event: the workers where they are few, else the number of events."""
    names = [name for name in dict.fromkeys(workers) if name is not None]
    return f": {', '.join(names)}" if 0 < len(names) <= 3 else f" ({len(workers):,})" if len(workers) > 1 else ""
