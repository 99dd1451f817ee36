"""What each class of tasks, a priority or a kind, has of a choice: it may be another thing than all tasks have."""

from __future__ import annotations

import math

from orchestrator.analysis.contenders import Against, Group
from orchestrator.analysis.deltas import Delta
from orchestrator.analysis.phrases import UNSURE, Reads, change, instead, name, percent
from orchestrator.results.words import duration, listed

MOST = 3
"""Classes that are told of many cells."""
NEAR = 0.05
"""Cells between which the p99 of a class differs by less are not told one by one, where another class differs more."""
NAMED = 4
"""Cells of which each is told; of more, the lowest and the highest."""


def class_of(measure: str) -> str:
    """`report` of `by_kind.report.latency_s.p99`; empty for a measure of all tasks."""
    section, *rest = measure.split(".")
    return ".".join(rest[:-2]) if section in ("by_priority", "by_kind") else ""


def classes(other: Against) -> list[str]:
    """What each class of tasks has of it; one that starves has percentiles that nobody knows."""
    own: dict[str, list[Delta]] = {}
    for one in other.deltas:
        if of := class_of(one.measure):
            own.setdefault(of, []).append(one)
    told, unsure, silent, same = [], False, [], []
    for what, deltas in own.items():
        kinds = {one.measure: Reads.of(one) for one in deltas}
        parts = []
        for one in deltas:
            if kinds[one.measure] in (Reads.TOLD, Reads.UNSURE):
                parts.append(f"{name(one)} {change(one)}")
            elif kinds[one.measure] is Reads.ONE_UNKNOWN:
                parts.append(f"{name(one)} {instead(one)}")
        unsure |= Reads.UNSURE in kinds.values()
        if parts:
            told.append(f"{what} {' and '.join(parts)}")
        elif set(kinds.values()) == {Reads.SAME}:
            same.append(what)
        elif set(kinds.values()) & {Reads.SILENT, Reads.SMALL}:
            silent.append(what)
    if not told:
        return []
    rest = f"; the same for {listed(same)}" if same else ""
    rest += f"; no difference shown for {listed(silent)}" if silent else ""
    return [f"By class: {'; '.join(told)}{rest}{f' ({UNSURE})' if unsure else ''}."]


def spread(group: Group) -> list[str]:
    """The p99 of each class in every cell, or where it is lowest and highest; one sentence, of the classes that differ
    most."""
    found = {one.measure: class_of(one.measure) for one in group.others[0].deltas if one.measure.endswith(".p99")}
    said = {measure: of for measure, of in found.items() if of and _is_said(group, measure)}
    widths = {measure: _width(group, measure) for measure in said}
    wide = [measure for measure in said if widths[measure] >= 1 + NEAR] or list(said)
    most = sorted(wide, key=lambda measure: -widths[measure])[:MOST]
    if not most:
        return []
    told = "; ".join(f"{of} {_in_each(group, measure)}" for measure, of in said.items() if measure in most)
    if near := [of for measure, of in said.items() if measure not in wide]:
        told += f"; {listed(near)} within {percent(NEAR)} in all cells"
    unsure = any(Reads.of(one) is Reads.UNSURE for measure in most for one in group.deltas(measure))
    return [f"By class, p99: {told}{f' ({UNSURE})' if unsure else ''}."]


def _is_said(group: Group, measure: str) -> bool:
    """Whether every cell has the class, and one of them another p99 than the baseline."""
    if not all(any(one.measure == measure for one in other.deltas) for other in group.others):
        return False
    return any(Reads.of(one) in (Reads.TOLD, Reads.UNSURE, Reads.ONE_UNKNOWN) for one in group.deltas(measure))


def _width(group: Group, measure: str) -> float:
    values = [group.value(cell, measure) for cell in group.cells]
    known = [value for value in values if value is not None]
    return max(known) / min(known) if len(known) == len(values) and min(known) else math.inf


def _in_each(group: Group, measure: str) -> str:
    """`3.70 s with A, 1.22 s with B`; a lower bound where too many tasks of the class are lost."""
    base, pairs = group.others[0].delta(measure), [(other.cell, other.delta(measure)) for other in group.others]
    each = [(group.baseline.quoted, base.baseline, base.baseline_at_least)]
    each += [(cell.quoted, one.value, one.at_least) for cell, one in pairs]
    if len(each) > NAMED:
        ranked = sorted(each, key=lambda one: math.inf if one[1] is None else one[1])
        each = [ranked[0], ranked[-1]]
    told = [
        f"{duration(value) if bound is None else f'over {duration(bound)}'} with {cell}" for cell, value, bound in each
    ]
    return (" to " if len(group.cells) > NAMED else ", ").join(told)
