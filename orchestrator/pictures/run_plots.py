"""The pictures of a run, of its replications, and of several runs in the same axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from orchestrator.pictures import small_multiples
from orchestrator.pictures.distributions import MEANINGS, NOTHING, Curve, ccdf, of_sample, percentiles, point, sizes
from orchestrator.pictures.marks import faults_of
from orchestrator.pictures.style import (
    GREY,
    GRID,
    Figures,
    Plot,
    legend_of,
    looks,
    new_figure,
    note,
    seconds,
    seconds_axis,
    shortened,
    styled,
)
from orchestrator.pictures.timelines import timeline, timelines
from orchestrator.results.executions import worker_utilization
from orchestrator.results.runs import Run, Sweep
from orchestrator.results.statistics import UNKNOWN
from orchestrator.results.summaries import Sample, Summary
from orchestrator.results.tables import PRIORITIES, Tables
from orchestrator.results.timeline import series
from orchestrator.results.words import count
from orchestrator.scenario.titles import readable

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

FEW_WORKERS = 50


def of_run(run: Run) -> Figures:
    """Percentile curve, CCDF, the run over time, priorities and workers."""
    tables, scenario = run.tables, run.scenario
    name, setting = scenario.name, _setting(scenario, run.summary)
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
    """The distributions of a sweep's only cell, with the confidence bands that its replications give."""
    runs = sweep.cells[0].runs
    name = sweep.scenario.name
    setting = f"{_setting(sweep.scenario, sweep.summary)};  {len(runs)} replications"
    curves = _latency_and_wait([Sample.of(run.tables, run.scenario) for run in runs])
    over_time = small_multiples.of_replications(runs, f"{name}: the replications over time", setting)
    return Figures(
        {
            "latency-percentiles": percentiles(curves, f"{name}: latency by percentile", setting),
            "latency-ccdf": ccdf(curves, f"{name}: share of tasks that took longer", setting),
            "timeline": over_time,
            "latency-by-priority": by_priority(sweep.summary, f"{name}: latency by priority", setting),
        }
    )


def of_several(results: Mapping[str, Run | Sweep]) -> Figures:
    """Several results in the same axes, by label.

    A sweep stands for all its runs together; over time, it stands for its first run.
    """
    parts = {label: list(run.runs) if isinstance(run, Sweep) else [run] for label, run in results.items()}
    curves = [
        Curve(label, [Sample.of(run.tables, run.scenario).latency_s for run in part]) for label, part in parts.items()
    ]
    title = " and ".join(dict.fromkeys(part[0].scenario.name for part in parts.values()))
    worlds = dict.fromkeys(part[0].summary["world"] for part in parts.values())
    setting = f"world: {', '.join(worlds)}"
    over_time = {label: series(part[0].tables, part[0].scenario) for label, part in parts.items()}
    faults = {label: faults_of(part[0].tables) for label, part in parts.items()}
    return Figures(
        {
            "latency-percentiles": percentiles(curves, f"{title}: latency by percentile", setting),
            "latency-ccdf": ccdf(curves, f"{title}: share of tasks that took longer", setting),
            "timeline": timelines(over_time, faults, f"{title}: the runs over time", f"{setting};  {_sizes(curves)}"),
        }
    )


def _sizes(curves: Sequence[Curve]) -> str:
    """Of all curves if they are alike, else of each; of many, from the smallest to the largest."""
    each = list(dict.fromkeys(of_sample(curve.pooled) for curve in curves))
    return " and ".join(each) + " tasks" if len(each) <= 3 else f"n = {sizes([len(c.pooled) for c in curves])} tasks"


@styled
def by_priority(summary: Summary, title: str, setting: str) -> Plot:
    """The picture of `draw_priorities`."""
    classes = len(summary["by_priority"]) + len(summary.get("by_kind", {}))
    figure, (axes,) = new_figure(title, f"{setting}{_signs(summary)}", (7.5, 2.0 + 0.75 * max(classes, 2)))
    draw_priorities(axes, summary)
    return figure


@styled
def utilization(tables: Tables, scenario: Scenario, title: str, setting: str) -> Plot:
    """The picture of `draw_utilization`."""
    figure, (axes,) = new_figure(title, setting, (7.5, 4.4))
    draw_utilization(axes, tables, scenario)
    return figure


def draw_priorities(axes: Axes, summary: Summary) -> None:
    """p50, p95 and p99 of the latency of each priority and kind that occurred; `summary` of a run or of a pooled cell.

    A hollow triangle is the lower bound of a percentile that is not known; a hollow marker, one of too few tasks.
    """
    present = {name: summary["by_priority"][name] for name in PRIORITIES if name in summary["by_priority"]}
    present |= {f"kind {name}": one for name, one in summary.get("by_kind", {}).items()}
    drawn: list[float] = []
    for place, (metric, look) in enumerate(zip(("p50", "p95", "p99"), looks(3), strict=True)):
        points = [(y + (place - 1) * 0.26, *p) for y, one in enumerate(present.values()) if (p := point(one, metric))]
        drawn += [value for _, value, _ in points]
        if points:
            axes.plot([], [], color=look.color, marker=look.marker, ms=8, ls="", label=metric)
        for y, value, sign in points:
            shape, face = ("^" if sign == UNKNOWN else look.marker), ("none" if sign else look.color)
            axes.plot(value, y, color=look.color, marker=shape, mfc=face, ms=8, ls="")
            text = f"{sign}{seconds(value)}"
            axes.annotate(text, (value, y), (9, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(present)), [_counts(name, one) for name, one in present.items()])
    axes.set(
        ylim=(max(len(present), 1) - 0.5, -0.5),
        ylabel="priority and kind" if "by_kind" in summary else "priority",
        xlabel="latency",
    )
    axes.grid(False, axis="y")
    for y in range(1, len(present)):
        axes.axhline(y - 0.5, color=GRID, lw=0.6)
    seconds_axis(axes, "x", drawn)
    _make_room(axes)
    if drawn:
        legend_of(axes)
    else:
        note(axes, NOTHING)


def _make_room(axes: Axes) -> None:
    """Let the x axis go on to the right, for the text beside the last point."""
    low, high = axes.get_xlim()
    axes.set_xlim(right=high * (high / low) ** 0.15 if axes.get_xscale() == "log" else low + 1.15 * (high - low))


def _signs(summary: Summary) -> str:
    """What the hollow markers mean, if there are any."""
    every = [*summary["by_priority"].values(), *summary.get("by_kind", {}).values()]
    signs = {p[1] for one in every for metric in ("p50", "p95", "p99") if (p := point(one, metric))}
    return "".join(f";  {meaning}" for sign, meaning in MEANINGS.items() if sign in signs)


def _counts(name: str, one: Summary) -> str:
    """A class with its samples: how many tasks completed, and how many did not."""
    rest = [f"{one[key]:,} {key}" for key in ("failed", "unfinished") if one[key]]
    return "\n".join([shortened(name, 34), f"{one['completed']:,} of {one['submitted']:,} completed", *rest])


def draw_utilization(axes: Axes, tables: Tables, scenario: Scenario) -> None:
    """The busy share of each worker's slots: a bar for each of few workers, a curve for each group of many."""
    busy = worker_utilization(tables, scenario)
    groups = scenario.cluster.groups
    ends = np.cumsum([group.workers for group in groups])
    for group, end, look in zip(groups, ends, looks(len(groups)), strict=True):
        members = np.arange(end - group.workers, end)
        if len(busy) <= FEW_WORKERS:
            axes.bar(members, busy[members], color=look.color, label=group.name)
        else:
            share = np.linspace(0, 1, min(group.workers, 1000))
            busiest_first = np.quantile(busy[members], 1 - share)
            axes.plot(share, busiest_first, **look.line, label=f"{group.name} ({group.workers:,} workers)")
    mean = float(np.mean(busy))
    axes.axhline(mean, color=GREY, ls="--", lw=1, label=f"mean of the workers: {mean:.1%}")
    if len(busy) <= FEW_WORKERS:
        names = [shortened(name, 24) for name in scenario.worker_names()]
        axes.set_xticks(range(len(busy)), names, rotation=90 if sum(map(len, names)) + len(names) > 80 else 0)
        axes.set_xlabel("worker")
        axes.grid(False, axis="x")
    else:
        axes.set(xlabel="share of the workers, busiest first", xlim=(0, 1))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(ylabel="busy share of the slots, after warm-up", ylim=(0, max(1.0, float(np.max(busy)) * 1.05)))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    legend_of(axes)


def _latency_and_wait(samples: Sequence[Sample]) -> list[Curve]:
    return [
        Curve("latency: arrival to result", [sample.latency_s for sample in samples]),
        Curve("wait: arrival to first start", [sample.wait_s for sample in samples], "started"),
    ]


def _setting(scenario: Scenario, summary: Summary) -> str:
    """The world, the cluster, the main policies and how many tasks the statistics are of, in words."""
    groups = scenario.cluster.groups
    if len(groups) <= 3:
        cluster = " and ".join(f"{g.workers:,} workers x {g.capacity}" for g in groups)
    else:
        cluster = f"{sum(g.workers for g in groups):,} workers in {len(groups)} groups"
    policies = scenario.policies
    chosen = (("routing", policies.routing), ("queue", policies.queue), ("detection", policies.detection))
    words = [f"{name}: {readable({'kind': p.kind, **p.model_dump(exclude_defaults=True)})}" for name, p in chosen]
    n = f"n = {count(summary['latency_s']['n'], 'task')}"
    lost = [f"{summary['tasks'][key]:,} {key}" for key in ("failed", "unfinished") if summary["tasks"][key]]
    return ";  ".join([f"world: {summary['world']}", cluster, *words, ", ".join([n, *lost])])
