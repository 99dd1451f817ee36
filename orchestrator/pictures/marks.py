"""What happened to the workers during a run, as it is drawn over time: moments, and how many workers were out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from orchestrator.core.model import Detail, WorkerEvent
from orchestrator.pictures.style import Dashes, count_axis
from orchestrator.results.detection import DetectionRecord
from orchestrator.results.tables import (
    FAULTS,
    CoordinatorEvent,
    FaultEvent,
    Floats,
    Tables,
    event_rows,
    faults_ended_by,
)

RECOVERY, DECLARED_DEAD, MISTAKE = "recovery", "declared dead", "declared dead while alive"
FAULT, NETWORK, ORDER = "-", (0, (6, 1.5, 1.5, 1.5)), (0, (6, 6))
VERDICT, DOUBT, RELIEF = (0, (4, 2)), (0, (1, 2)), (0, (1.5, 1))
MARKS: dict[str, tuple[str, Dashes]] = {
    "crash": ("#d55e00", FAULT),
    "restart": ("#cc79a7", ORDER),
    "pause": ("#e69f00", FAULT),
    "slow": ("#56b4e9", FAULT),
    "hang": ("#555555", FAULT),
    "partition": ("#0072b2", NETWORK),
    "delay": ("#56b4e9", NETWORK),
    "loss": ("#d55e00", NETWORK),
    "duplicate": ("#555555", NETWORK),
    "coordinator pause": ("#d55e00", ORDER),
    "coordinator crash": ("#0072b2", ORDER),
    "drain": ("#56b4e9", (6, (6, 6))),
    "suspect": ("#555555", DOUBT),
    "ejected": ("#cc79a7", DOUBT),
    DECLARED_DEAD: ("#000000", VERDICT),
    MISTAKE: ("#cc79a7", VERDICT),
    RECOVERY: ("#009e73", RELIEF),
}
"""The kinds of marks, each with its colour and line style, in the order of the legend. Marks of one style have colours
that colour-blind readers can tell apart; a drain is seen in the gaps of the restart that it is part of."""
OUTAGES = {
    "crashed": "crash",
    "paused": "pause",
    "impaired": "slow",
    "restarting": "restart",
    "declared dead": DECLARED_DEAD,
}
"""The ways in which a worker may be out, each with the mark whose colour it has.

An impaired worker is slow, hangs, or has a network that fails it.
"""

MANY = 8
"""So many lines leave room for what is drawn with them."""

Moment = tuple[float, str | None]
"""A time, and the worker; None for the coordinator."""

_OUT_BY: dict[str, str] = {
    FaultEvent.CRASH: "crashed",
    FaultEvent.PAUSE: "paused",
    FaultEvent.RESTART: "restarting",
    **dict.fromkeys(
        (
            FaultEvent.SLOW,
            FaultEvent.HANG,
            FaultEvent.PARTITION,
            FaultEvent.DELAY,
            FaultEvent.LOSS,
            FaultEvent.DUPLICATE,
        ),
        "impaired",
    ),
}
_FAULTS = {kind.replace("_", " ") for kind in FAULTS}
_RECOVERIES = (FaultEvent.HEAL, CoordinatorEvent.RECOVERED, WorkerEvent.READMITTED)
_RETURNS = (Detail.REREGISTERED, Detail.RECONNECTED, Detail.REVIVED)


def name_of_fault(kind: str) -> str:
    """The mark of a fault's event: `coordinator_pause` becomes `coordinator pause`, the end of a fault RECOVERY."""
    return RECOVERY if kind == FaultEvent.HEAL else kind.replace("_", " ")


def marks_of(tables: Tables) -> dict[str, list[Moment]]:
    """When each kind of MARKS happened, and to which worker; without the kinds that never happened."""
    mistakes = set(DetectionRecord.of(tables).healthy_declared_dead)
    marks: dict[str, list[Moment]] = {kind: [] for kind in MARKS}
    for time_s, kind, worker, detail in event_rows(tables.events):
        if kind == WorkerEvent.DEAD:
            mark = MISTAKE if (time_s, worker) in mistakes else DECLARED_DEAD
        elif kind in _RECOVERIES or (kind == WorkerEvent.UP and detail in _RETURNS):
            mark = RECOVERY
        else:
            mark = name_of_fault(kind)
        if mark in marks:
            marks[mark].append((time_s, worker))
    return {mark: moments for mark, moments in marks.items() if moments}


def faults_of(tables: Tables) -> dict[str, list[Moment]]:
    """As `marks_of`, without what the coordinator made of it."""
    return {kind: moments for kind, moments in marks_of(tables).items() if kind in _FAULTS}


def outages(tables: Tables) -> Floats:
    """float64[events, 1 + OUTAGES]: the time of each event, and how many workers are out in each way after it."""
    out: dict[str, set[tuple[str, str | None]]] = {way: set() for way in OUTAGES}
    counts: list[tuple[float, ...]] = []
    for time_s, kind, worker, detail in event_rows(tables.events):
        if kind in _OUT_BY:
            out[_OUT_BY[kind]].add((kind, worker))
        elif kind == FaultEvent.HEAL:
            for ended in faults_ended_by(detail):
                for victims in out.values():
                    victims.discard((ended, worker))
        elif kind == WorkerEvent.DEAD:
            out[DECLARED_DEAD].add((WorkerEvent.DEAD, worker))
        elif kind == WorkerEvent.UP:
            out[DECLARED_DEAD].discard((WorkerEvent.DEAD, worker))
        counts.append((time_s, *(len({name for _, name in victims}) for victims in out.values())))
    return np.array(counts, dtype=np.float64).reshape(-1, 1 + len(OUTAGES))


def draw_outages(axes: Axes, counts: Floats, until_s: float) -> None:
    """How many workers are out over time, in each way of OUTAGES; `counts` as from `outages`, at least one row.

    Ways that coincide are drawn thinner and thinner.
    """
    edges_s = np.append(counts[:, 0], max(until_s, counts[-1, 0]))
    width = 2.8
    for (label, kind), count in zip(OUTAGES.items(), counts[:, 1:].T, strict=True):
        if count.any():
            color, style = MARKS[kind]
            dashes = style if kind == DECLARED_DEAD else "-"
            axes.stairs(count, edges_s, baseline=None, color=color, ls=dashes, lw=width, label=label, clip_on=False)
            width = max(width - 0.8, 1.2)
    count_axis(axes, "workers out", 1.6 * max(1.0, np.max(counts[:, 1:])))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    if counts[:, 1:].any():
        axes.legend(loc="upper right", ncols=len(OUTAGES))


def draw_rows(axes: Axes, marks: Mapping[str, Sequence[Moment]]) -> None:
    """A row of ticks for each kind, the first on top; the more ticks, the fainter they are."""
    kinds = list(reversed(list(marks)))
    for row, kind in enumerate(kinds):
        times_s = sorted({time_s for time_s, _ in marks[kind]})
        color, _ = MARKS[kind]
        alpha = float(np.clip(300 / len(times_s), 0.15, 1))
        axes.vlines(times_s, row + 0.1, row + 0.9, color=color, lw=0.8, alpha=alpha)
    axes.set_yticks(np.arange(len(kinds)) + 0.5, kinds, fontsize=7)
    axes.grid(False, axis="y")


def draw_lines(axes: Axes, marks: Mapping[str, Sequence[Moment]]) -> None:
    """A vertical line through the axes for each moment, behind the curves; the more lines, the thinner they are."""
    for kind, moments in marks.items():
        color, style = MARKS[kind]
        times_s = sorted({time_s for time_s, _ in moments})
        width = float(np.clip(MANY / len(times_s), 0.5, 1)) * 1.3
        axes.vlines(times_s, 0, 1, color=color, ls=style, lw=width, zorder=0.9, transform=axes.get_xaxis_transform())


def handle(kind: str, moments: Sequence[Moment]) -> Line2D:
    """The legend's entry of a kind."""
    color, style = MARKS[kind]
    return Line2D([], [], color=color, ls=style, label=named(kind, [worker for _, worker in moments]))


def named(kind: str, workers: Sequence[str | None]) -> str:
    """A kind, with the names of the workers if they are few, otherwise with the number of events.

    A recovery stands alone: the end of a fault and the return of its worker are two events of one.
    """
    names = [name for name in dict.fromkeys(workers) if name is not None]
    if kind == RECOVERY:
        return kind
    if 0 < len(names) <= 3:
        return f"{kind}: {', '.join(names)}"
    return f"{kind} ({len(workers):,})" if len(workers) > 1 else kind
