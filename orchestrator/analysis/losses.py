"""How many tasks each cell loses: they failed, or were unfinished at the end. Losses that are equal are told too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.analysis.contenders import Against, Contender, Group
from orchestrator.analysis.phrases import amount, interval, percent
from orchestrator.results.summaries import class_keys
from orchestrator.results.words import count, listed

ALIKE = 0.1
"""Losses that differ by no larger share are about as many."""
MOST = 0.9
"""A class with this share of the lost tasks is named."""
ROUNDING = 1e-9
"""Of a mean over runs."""
FEW = 0.0005
"""A smaller share of all tasks is not written in percent."""


@dataclass(frozen=True)
class Losses:
    """Of one cell; a run's, on average."""

    submitted: float
    failed: float
    unfinished: float
    of_class: str
    """The class that has all of the lost tasks, or nearly all; empty if none has."""
    all_of_class: bool

    @classmethod
    def of(cls, cell: Contender) -> Losses:
        summaries = [run.summary for run in cell.runs.values()]
        submitted, failed, unfinished = (
            sum(one["tasks"][key] for one in summaries) / len(summaries)
            for key in ("submitted", "failed", "unfinished")
        )
        lost: dict[str, float] = {}
        for one in summaries:
            for key, which in class_keys(one).values():
                counts = one[key][which]
                lost[which] = lost.get(which, 0.0) + (counts["failed"] + counts["unfinished"]) / len(summaries)
        most = max(lost, key=lambda which: lost[which], default="")
        total = failed + unfinished
        of_class = most if len(lost) > 1 and total and lost[most] >= MOST * total else ""
        return cls(submitted, failed, unfinished, of_class, bool(most) and lost[most] >= total - ROUNDING)

    @property
    def lost(self) -> float:
        return self.failed + self.unfinished

    @property
    def share(self) -> float:
        return self.lost / self.submitted if self.submitted else 0.0

    @property
    def in_percent(self) -> str:
        """` (53 %)`, or nothing where it is too small."""
        return f" ({percent(self.share)})" if self.share >= FEW else ""


def told(groups: Sequence[Group]) -> list[str]:
    """One sentence, or none where nothing is lost."""
    cells = [cell for group in groups for cell in group.cells]
    each = {(cell.quoted if len(groups) == 1 else cell.title or cell.name): Losses.of(cell) for cell in cells}
    worst, least = (side(each, key=lambda name: each[name].share) for side in (max, min))
    if not each[worst].lost:
        return []
    most, fewest = each[worst], each[least]
    every = list(each.values())
    a_run = "" if all(len(cell.runs) == 1 for cell in cells) else " a run"
    same_tasks = len({one.submitted for one in every}) == 1
    where = "With either" if len(cells) == 2 else "In every cell"
    if most.lost == fewest.lost and same_tasks:
        return [f"{where}, {_of(most, a_run)} {_verb(every, most.lost)}{_whom(every)}."]
    if len(cells) == 2:
        return [_two(groups[0].baseline, groups[0].others[0], a_run)]
    if most.share - fewest.share <= ALIKE * most.share:
        of = f"{percent(fewest.share)} to {percent(most.share)}"
        if same_tasks:
            of = f"{amount(fewest.lost)} to {amount(most.lost)} of {amount(most.submitted)}{a_run}{most.in_percent}"
        return [f"In every cell about as many tasks {_verb(every)}: {of}{_whom(every)}."]
    none = [name for name, one in each.items() if not one.lost]
    if none:
        rest = f"none with {listed(none) if len(none) < 3 else f'{none[0]} and {len(none) - 1} other cells'}"
    else:
        rest = f"fewest with {least}, {amount(fewest.lost)}{fewest.in_percent}"
    others = len(each) - len(none) - 1
    some = f", and in {count(others, 'other cell')} fewer" if others and none else ""
    head = f"With {worst}, {_of(most, a_run)} {_verb(every, most.lost)}{_whom([most])}, the most of all"
    return [f"{head}{some}; {rest}."]


def loses_more(base: Contender, other: Contender) -> bool:
    return Losses.of(other).share > Losses.of(base).share


def _two(base: Contender, other: Against, a_run: str) -> str:
    ours, theirs = Losses.of(other.cell), Losses.of(base)
    told = f"With {other.cell.quoted}, {_of(ours, a_run)} {_verb([ours, theirs], ours.lost)}{_whom([ours])}"
    before = f"{amount(theirs.lost)}{theirs.in_percent}{_whom([theirs])}" if theirs.lost else "none"
    told += f"; with {base.quoted}, {before}"
    changes = [other.delta(measure) for measure in ("failed", "unfinished")]
    shown = [
        f"{amount(abs(one.difference or 0.0))} {'more' if (one.difference or 0.0) > 0 else 'fewer'} {one.measure}"
        f"{interval(one)}"
        for one in changes
        if one.shown
    ]
    if shown:
        told += f": {' and '.join(shown)}"
    elif other.runs > 1:
        told += "; no difference shown"
    return f"{told}."


def _of(one: Losses, a_run: str) -> str:
    if one.lost == one.submitted:
        return f"all {amount(one.submitted)} tasks{a_run}"
    return f"{amount(one.lost) if one.lost else 'none'} of {amount(one.submitted)} tasks{a_run}{one.in_percent}"


def _whom(losing: Sequence[Losses]) -> str:
    """`, nearly all of them low`, where one class has the lost tasks of all these."""
    classes = {one.of_class for one in losing}
    if len(classes) > 1 or not (name := classes.pop()):
        return ""
    return f", {'' if all(one.all_of_class for one in losing) else 'nearly '}all of them {name}"


def _verb(every: Sequence[Losses], n: float = 2.0) -> str:
    """`fail or stay unfinished`, as far as it happens; of one task in the singular."""
    s = "s" if n == 1 else ""
    words = [f"fail{s}"] if any(one.failed for one in every) else []
    words += [f"stay{s} unfinished"] if any(one.unfinished for one in every) else []
    return " or ".join(words)
