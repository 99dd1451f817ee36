"""The table of an answer: differences from the baseline as a person reads them, and what its measures mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from orchestrator.analysis.assumptions import WORTH
from orchestrator.analysis.contenders import Group
from orchestrator.analysis.deltas import Delta
from orchestrator.results.html_tables import Table
from orchestrator.results.words import duration, number, signed

NOT_SHOWN, TOO_FEW, EQUAL = "·", "~ ", "="
NAMES = {
    "latency_s.p50": "p50",
    "latency_s.p95": "p95",
    "latency_s.p99": "p99",
    "latency_s.p999": "p99.9",
    "latency_s.max": "max",
    "sped_up": "sped up",
    "wasted_s": "wasted",
    "healthy_declared_dead": "mistakes",
}
MEANINGS = {
    "hit": "hit: tasks at a worker while a fault of it lasted",
    "delayed": "delayed, sped up: tasks whose latency differs from their own in the baseline by over {threshold}",
    "sped_up": "delayed, sped up: tasks whose latency differs from their own in the baseline by over {threshold}",
    "wasted_s": "wasted: executed seconds of attempts that settled nothing",
    "healthy_declared_dead": "mistakes: healthy workers declared dead, by the detector or after a failed call",
}


def _different(groups: Sequence[Group]) -> list[str]:
    """The measures that differ in any cell, in the order of the first cell that has them."""
    every = [delta for group in groups for other in group.others for delta in other.deltas]
    return [measure for measure in dict.fromkeys(one.measure for one in every) if _any(every, measure)]


def _any(every: Sequence[Delta], measure: str) -> bool:
    return any(one.differs for one in every if one.measure == measure)


def table_of(groups: Sequence[Group], runs: int) -> Table | None:
    """Of two cells one row a measure, of more one row a cell; None if nothing differs. `runs`: of each cell."""
    measures = _different(groups)
    if not measures:
        return None
    return _pair(groups[0], runs, measures) if is_pair(groups) else _cells(groups, runs, measures)


def is_pair(groups: Sequence[Group]) -> bool:
    return len(groups) == len(groups[0].others) == 1


def _pair(group: Group, runs: int, measures: Sequence[str]) -> Table:
    baseline, other = group.baseline.choice, group.others[0]
    rows = []
    for measure in measures:
        one = other.delta(measure)
        sides = _value(one, one.baseline, one.baseline_at_least), _value(one, one.value, one.at_least)
        rows.append([name_of(measure), *sides, _difference(one)])
    columns = ["", baseline, other.cell.choice, "difference (95 %)"]
    return Table(title_of(other.cell.choice, baseline, runs), columns, rows)


def title_of(what: str, baseline: str, runs: int) -> str:
    over = f"{runs:,} paired replications; counts are those of a run" if runs > 1 else "one run each"
    return f"{what} against {baseline}: {over}"


def _cells(groups: Sequence[Group], runs: int, measures: Sequence[str]) -> Table:
    """The baseline of each condition as it is, the others as differences from it."""
    rows: list[list[str]] = []
    for group in groups:
        rows += _rows_of(group, measures, len(groups) > 1)
    signs = f"{NOT_SHOWN} no difference shown (95 %), {TOO_FEW}too few to tell how sure"
    where = " of the same condition" if len(groups) > 1 else ""
    title = title_of("Each cell", f"{groups[0].baseline.choice}{where}", runs)
    return Table(f"{title}\n{signs}", ["", *map(name_of, measures)], rows)


def _rows_of(group: Group, measures: Sequence[str], conditions: bool) -> Iterator[list[str]]:
    indent = ""
    if conditions:
        indent = "  "
        load = "" if group.load is None else f", load {group.load:.0%}"
        if group.load is not None and group.occupancy is not None and abs(group.occupancy - group.load) >= WORTH:
            load += f", occupancy {group.occupancy:.0%}"
        yield [f"{group.condition}{load}", *([""] * len(measures))]
    first = {one.measure: one for one in group.others[0].deltas}
    yield [
        f"{indent}{group.baseline.choice}",
        *(_value(first[m], first[m].baseline, first[m].baseline_at_least) if m in first else "-" for m in measures),
    ]
    for other in group.others:
        mine = {one.measure: one for one in other.deltas}
        yield [f"{indent}{other.cell.choice}", *(_short(mine[m]) if m in mine else "-" for m in measures)]


def meanings_in(groups: Sequence[Group]) -> list[str]:
    """What the measures of the table are, where a name does not say it; and which measures differ nowhere."""
    measures = _different(groups)
    every = [other for group in groups for other in group.others]
    thresholds = {other.shifts.threshold_s for other in every if other.shifts is not None}
    threshold = duration(thresholds.pop()) if len(thresholds) == 1 else "the baseline's p50"
    told = list(dict.fromkeys(MEANINGS[m].format(threshold=threshold) for m in measures if m in MEANINGS))
    alike = [one for other in every for one in other.deltas if one.measure not in measures]
    lost = dict.fromkeys(name_of(one.measure) for one in alike if one.at_least is not None)
    same = dict.fromkeys(name for one in alike if (name := name_of(one.measure)) not in lost)
    if same:
        told.append(f"the same in all cells: {', '.join(same)}")
    if lost:
        told.append(f"alike, but not known, because tasks failed or did not end: {', '.join(lost)}")
    return told


def name_of(measure: str) -> str:
    """`by_kind.report.latency_s.p99` reads `report p99`."""
    parts = measure.split(".")
    if parts[0] in ("by_priority", "by_kind"):
        return f"{'.'.join(parts[1:-2])} {parts[-1]}"
    return NAMES.get(measure, measure)


def _show(one: Delta) -> Callable[[float | None], str]:
    return duration if "_s" in one.measure else _count


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None and float(value).is_integer() else number(value)


def _value(one: Delta, value: float | None, bound: float | None) -> str:
    return f"> {duration(bound)}" if bound is not None else _show(one)(value)


def _difference(one: Delta) -> str:
    """With its interval, or what keeps it from having one."""
    if one.verdict == "equal":
        return EQUAL
    if one.verdict == "no difference shown":
        return str(one.verdict)
    if one.difference is None:
        return "not known"
    if one.ci95 is not None and one.ci95[0] != one.ci95[1]:
        show: Any = _percent if one.change is not None else lambda value: _signed(one, value)
        return f"{_by(one)} ({show(one.ci95[0])} to {show(one.ci95[1])})"
    return f"{_by(one)} (too few)" if one.verdict == "too few" else _by(one)


def _short(one: Delta) -> str:
    if one.verdict == "equal":
        return EQUAL
    if one.verdict == "no difference shown":
        return NOT_SHOWN
    if one.difference is None:
        return _value(one, one.value, one.at_least)
    return f"{TOO_FEW if one.verdict == 'too few' else ''}{_by(one)}"


def _by(one: Delta) -> str:
    if one.change is not None and not one.measure.endswith(".max"):
        return signed(one.change)
    return _signed(one, one.difference or 0.0)


def _percent(share: float) -> str:
    return f"{share:+.1%}"


def _signed(one: Delta, value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_show(one)(abs(value))}"
