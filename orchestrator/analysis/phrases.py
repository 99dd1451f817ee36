"""How one cell reads against another in an answer: percentiles, classes, costs, in the words of a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from orchestrator.analysis.contenders import SMALL, Against, Contender
from orchestrator.analysis.deltas import SHOWN, Delta, Verdict
from orchestrator.analysis.victims import Shift
from orchestrator.results.words import count, duration, listed, number

NAMES = {"p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}
UNTOLD = 0.01
"""Of a percentile with too few tasks, a smaller change is not worth one."""
FAR = 0.1
"""By how much a maximum must change to be told."""
UNSURE = "in these runs, too short to say how sure that is"
LOST = "because too many tasks are lost"
MISTAKES = "healthy_declared_dead"
"""The measure of healthy workers that are declared dead."""
PRICES = {
    "workers": "worker",
    "slots": "slot",
    "attempts": "attempt",
    "wasted_s": "wasted slot time",
    MISTAKES: "mistaken death",
}
"""What a cell may cost more than another."""
NO_PRICE = "None is shown to cost more than another: in workers, attempts, wasted slots or mistaken deaths."


class Reads(Enum):
    """What is said of a percentile."""

    TOLD = auto()
    SMALL = auto()
    UNSURE = auto()
    SILENT = auto()
    SAME = auto()
    ONE_UNKNOWN = auto()
    BOTH_UNKNOWN = auto()
    NOTHING = auto()

    @classmethod
    def of(cls, one: Delta) -> Reads:
        if one.value is None or one.baseline is None:
            return cls._of_unknown(one)
        if one.verdict is Verdict.EQUAL:
            return cls.SAME
        if one.shown:
            return cls.TOLD if is_worth(one) else cls.SMALL
        return cls.UNSURE if one.verdict is Verdict.TOO_FEW and abs(one.change or 0.0) >= UNTOLD else cls.SILENT

    @classmethod
    def _of_unknown(cls, one: Delta) -> Reads:
        bounds = (one.at_least, one.baseline_at_least)
        if bounds == (None, None):
            return cls.NOTHING
        return cls.BOTH_UNKNOWN if one.value is None and one.baseline is None else cls.ONE_UNKNOWN


def everybody(base: Contender, other: Against, whom: str = "the latency of all tasks") -> str:
    """All that the percentiles of all tasks say, the largest change first."""
    found = [other.delta(f"latency_s.{name}") for name in SHOWN]
    reads = {kind: [one for one in found if Reads.of(one) is kind] for kind in Reads}
    told = [(_size(one), f"{name(one)} {change(one)}, {instead(one)}") for one in reads[Reads.TOLD]]
    if unsure := sorted(reads[Reads.UNSURE], key=_size, reverse=True):
        each = "; ".join(f"{name(one)} {change(one)}, {instead(one)}" for one in unsure)
        told.append((_size(unsure[0]), f"{each}: {UNSURE}"))
    parts = [part for _, part in sorted(told, key=lambda pair: -pair[0])]
    parts += _unknown(reads[Reads.ONE_UNKNOWN], reads[Reads.BOTH_UNKNOWN])
    parts += _alike(reads)
    maximum = other.delta("latency_s.max")
    if maximum.differs and maximum.difference is not None and _size(maximum) > FAR:
        parts.append(f"the maximum is {instead(maximum)} in these runs")
    said = "; ".join(parts) or "there are none to compare"
    return f"{other.cell.quoted} against {base.quoted}, {whom}: {said}."


def _unknown(one_side: Sequence[Delta], both: Sequence[Delta]) -> list[str]:
    parts = []
    if one_side:
        first, *rest = one_side
        above = f" ({listed(names(rest))} not known either)" if rest else ""
        parts.append(f"{name(first)} {instead(first)}{above}, {LOST}")
    if both:
        parts.append(f"{listed(names(both))} not known in either, {LOST}")
    return parts


def _alike(reads: dict[Reads, list[Delta]]) -> list[str]:
    parts = []
    if small := reads[Reads.SMALL]:
        parts.append(f"{listed(names(small))} within {percent(SMALL)}")
    if same := reads[Reads.SAME]:
        parts.append(f"{listed(names(same))} {'is' if len(same) == 1 else 'are'} the same")
    if silent := reads[Reads.SILENT]:
        parts.append(f"no difference shown in {listed(names(silent))}")
    return parts


# ---- task by task


def victims(base: Contender, other: Against) -> list[str]:
    """Those that a fault hit, who vanish among all tasks: each of them, paired with itself in the other cell."""
    shifts, here = other.shifts, f"With {other.cell.quoted}"
    if shifts is None or not shifts.hit:
        return []
    hit = other.delta("hit")
    alike = shifts.hit == round(other.runs * (hit.value or 0.0)) == round(other.runs * (hit.baseline or 0.0))
    where = "" if alike else " in one of the two or in both"
    in_all = "" if other.runs == 1 else f" (in all {other.runs} runs together)"
    moved = [
        _waits(shift, way) for shift, way in ((shifts.hit_later, "longer"), (shifts.hit_sooner, "less")) if shift.tasks
    ]
    those = f"{'one task' if shifts.hit == 1 else f'{shifts.hit:,} tasks'} hit by a fault{where}{in_all}"
    of = f"of the {those}"
    if not moved:
        whom = f"the {those}" if shifts.hit == 1 else f"none {of}"
        waits = "does not wait" if shifts.hit == 1 else "waits"
        return [f"{here}, {whom} {waits} longer or shorter than with {base.quoted} by over {_threshold(other)}."]
    if shifts.hit == 1:
        of = f"the {those}"
    return [f"{here}, {' and '.join(moved)} than with {base.quoted}, {of}."]


def _waits(shift: Shift, way: str) -> str:
    """The median is told as each one's only where nearly all are alike."""
    tasks, median = count(shift.tasks, "task"), duration(shift.median_s)
    if shift.tasks == 1:
        return f"{tasks} waits {median} {way}"
    if (shift.high_s or 0.0) - (shift.low_s or 0.0) <= 0.1 * (shift.median_s or math.inf):
        return f"{tasks} wait {median} {way} each"
    most = f"90 % of them {duration(shift.low_s)} to {duration(shift.high_s)}"
    return f"{tasks} wait {median} {way} in the median ({most})"


def hit_wait_s(other: Against) -> float:
    """Roughly how many seconds longer all tasks that were hit wait."""
    if other.shifts is None:
        return 0.0
    later, sooner = other.shifts.hit_later, other.shifts.hit_sooner
    return later.tasks * (later.median_s or 0.0) - sooner.tasks * (sooner.median_s or 0.0)


def moved(other: Against) -> str:
    """How many tasks are faster, and how many slower, each paired with itself; empty if none is."""
    told = each_moved(other)
    return f"Task by task, where it makes more than {_threshold(other)}: {' and '.join(told)}." if told else ""


def each_moved(other: Against) -> list[str]:
    """`12 tasks a run are faster by 1.00 s in the median`, and as many as are slower."""
    shifts = other.shifts
    if shifts is None:
        return []
    return [
        f"{_plural(shift.tasks / other.runs, 'task')}{a_run(other)} {'is' if shift.tasks == other.runs else 'are'} "
        f"{way} by {duration(shift.median_s)}{' in the median' if shift.tasks != 1 else ''}"
        for shift, way in ((shifts.sooner, "faster"), (shifts.later, "slower"))
        if shift.tasks
    ]


# ---- what it costs


def price(base: Contender, other: Against, loses_more: bool) -> str:
    """What a cell costs more than the baseline, and what it saves. Tasks that are lost save no attempts."""
    costs, gains = costs_of(other), gains_of(other, loses_more)
    saved = f"{listed(gains)}{a_run(other)}" if gains else ""
    if costs:
        more = f"; it saves {saved}" if gains else ""
        return f"The price of {other.cell.quoted}{a_run(other)}: {'; '.join(costs)} than with {base.quoted}{more}."
    if gains:
        return f"{other.cell.quoted} saves {saved} against {base.quoted}."
    mistakes, found = other.delta(MISTAKES), [other.delta(measure) for measure in PRICES]
    equal = all(one.verdict is Verdict.EQUAL for one in found)
    if not equal and any(one.shown or one.verdict is Verdict.COUNTED for one in found):
        return f"Nothing costs more with {other.cell.quoted}, which loses more tasks."
    told = "It costs the same: as many workers, attempts and wasted slots" if equal else (
        "It costs the same: no difference is shown in attempts or wasted slots"
    )  # fmt: skip
    if mistakes.verdict is Verdict.EQUAL:
        n = mistakes.value or 0.0
        told += f"; {_plural(n, PRICES[MISTAKES])}{a_run(other)} in both" if n else (
            "; no healthy worker is declared dead in either"
        )  # fmt: skip
    return f"{told}."


def costs_of(other: Against) -> list[str]:
    """`1,107 more attempts`, of each measure of which the cell has more."""
    return [_more(one) for one in _unequal(other) if (one.difference or 0.0) > 0]


def gains_of(other: Against, loses_more: bool) -> list[str]:
    """`8 mistaken deaths`, of each measure of which it has fewer."""
    fewer = [one for one in _unequal(other) if (one.difference or 0.0) < 0]
    return [_less(one) for one in fewer if not (loses_more and one.measure == "attempts")]


def cost_of(other: Against) -> tuple[float, ...]:
    """By how much it costs more or less, what is dearest first."""
    found = {one.measure: abs(one.difference or 0.0) for one in _unequal(other)}
    return tuple(found.get(measure, 0.0) for measure in ("slots", "workers", "wasted_s", MISTAKES, "attempts"))


def _unequal(other: Against) -> list[Delta]:
    found = [other.delta(measure) for measure in PRICES]
    return [one for one in found if one.shown or one.verdict is Verdict.COUNTED]


def _more(one: Delta) -> str:
    by = abs(one.difference or 0.0)
    if one.measure == "wasted_s":
        return f"{duration(by)} more wasted slot time{interval(one)}"
    return f"{amount(by)} more {_noun(by, PRICES[one.measure])}{interval(one)}"


def _less(one: Delta) -> str:
    by = abs(one.difference or 0.0)
    if one.measure == "wasted_s":
        return f"{duration(by)} of wasted slot time{interval(one)}"
    return f"{_plural(by, PRICES[one.measure])}{interval(one)}"


# ---- words


def is_worth(one: Delta) -> bool:
    return one.shown and one.change is not None and abs(one.change) >= SMALL


def change(one: Delta) -> str:
    """Never below -100 %."""
    way = "lower" if (one.change or 0.0) < 0 else "higher"
    ends = sorted(abs(end) for end in one.ci95 or ())
    return f"{percent(one.change)} {way}" + (f" ({_number(ends[0])} to {percent(ends[1])})" if ends else "")


def instead(one: Delta) -> str:
    """Where it falls on a lost task, its age: it is more."""
    value, baseline = (
        f"over {duration(bound)}" if bound is not None else duration(known)
        for known, bound in ((one.value, one.at_least), (one.baseline, one.baseline_at_least))
    )
    return f"{value} instead of {baseline}"


def name(one: Delta) -> str:
    return NAMES[one.measure.rpartition(".")[2]]


def names(found: Iterable[Delta]) -> list[str]:
    return [name(one) for one in found]


def amount(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def a_run(other: Against) -> str:
    return "" if other.runs == 1 else " a run"


def interval(one: Delta) -> str:
    if one.ci95 is None or one.ci95[0] == one.ci95[1]:
        return ""
    show = duration if one.measure == "wasted_s" else amount
    low, high = sorted(abs(end) for end in one.ci95)
    return f" ({show(low)} to {show(high)})"


def percent(share: float | None) -> str:
    return f"{_number(abs(share or 0.0))} %"


def _number(share: float) -> str:
    return f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:,.0f}"


def _plural(value: float, noun: str) -> str:
    return f"{amount(value)} {_noun(value, noun)}"


def _noun(value: float, noun: str) -> str:
    return noun if value == 1 else f"{noun}s"


def _size(one: Delta) -> float:
    return abs(one.change or 0.0)


def _threshold(other: Against) -> str:
    return duration(None if other.shifts is None else other.shifts.threshold_s)
