"""What the differences between cells mean, in plain sentences.

A sentence speaks of a cell against the baseline. A difference is shown if its interval of 95 % does not hold 0; where
there is no interval, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.analysis.contenders import Against, Contender, Group
from orchestrator.analysis.deltas import SHOWN, Delta, Verdict
from orchestrator.analysis.saturation import cannot_keep_up
from orchestrator.analysis.victims import Shift
from orchestrator.results.words import count, duration, number
from orchestrator.scenario.titles import value_title

MOST = 5
"""Sentences of an answer."""
NAMES = {"p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}
SMALL = 0.001
"""A smaller share of a percentile is not worth a sentence."""
LONG = 3
"""More conditions than that are told in one sentence by their first and their last."""
_UNSURE = "in these runs, too short to say how sure that is"


def sentences(groups: Sequence[Group], runs: int) -> list[str]:
    """At most MOST: who is better and by how much, for whom, at what price, and what is not known."""
    if len(groups) > 1:
        places = _places(groups)
        found = [*_over_conditions(groups, places), *_victims_over(groups, places), *_losses(groups)]
    elif len(groups[0].others) > 1:
        (group,) = groups
        found = [*_best(group), *_mistakes(group), *_main_effects(group), *_most_hit(group), *_losses(groups)]
    else:
        found = _pair(groups[0].baseline, groups[0].others[0])
    return [*[*cannot_keep_up(groups), *found][: MOST - 1], _not_known(groups, runs)]


Places = Mapping[str, str]
"""How a sentence calls each condition."""


# ---- two cells


def _pair(base: Contender, other: Against) -> list[str]:
    hit = _hit(base, other)
    return [
        *hit,
        _everybody(base, other, bool(hit)),
        *_classes(other),
        *([] if hit else _moved(other)),
        *_lost(base, other),
        _price(base, other),
    ]


def _hit(base: Contender, other: Against) -> list[str]:
    """Those that a fault hit, who vanish among all tasks: each of them, paired with itself in the other cell."""
    shifts, here = other.shifts, f"With {other.cell.choice}"
    if shifts is None or not shifts.hit:
        return []
    in_all = "" if other.runs == 1 else f" (in all {other.runs} runs together)"
    moved = [
        f"{_tasks(shift.tasks)} {'wait' if shift.tasks != 1 else 'waits'} {_by(shift)} {way}"
        f"{' each' if shift.tasks != 1 else ''}"
        for shift, way in ((shifts.hit_later, "longer"), (shifts.hit_sooner, "shorter"))
        if shift.tasks
    ]
    of = f"of the {count(shifts.hit, 'task')} hit by a fault{in_all}"
    if not moved:
        return [f"{here}, none {of} waits longer or shorter than with {base.choice} by over {_threshold(other)}."]
    return [f"{here}, {' and '.join(moved)} than with {base.choice}, {of}."]


def _by(shift: Shift) -> str:
    """The median, and where it is not nearly all of them the range of most."""
    median, low, high = duration(shift.median_s), duration(shift.low_s), duration(shift.high_s)
    wide = (shift.high_s or 0.0) - (shift.low_s or 0.0) > 0.1 * (shift.median_s or math.inf)
    return f"{median} (90 % of them {low} to {high})" if wide and shift.tasks > 1 else median


def _everybody(base: Contender, other: Against, after_hit: bool) -> str:
    """The percentiles of all tasks."""
    found = [other.delta(f"latency_s.{name}") for name in SHOWN]
    told = [f"{_name(one)} {_change(one)}, {_instead(one)}" for one in found if _worth(one)]
    few = [one for one in found if one.verdict is Verdict.TOO_FEW]
    unsure = [f"{_name(one)} {_change(one)}, {_instead(one)}" for one in few if _name(one) in ("p50", "p99")]
    silent = [_name(one) for one in found if one not in few and not _worth(one) and one.verdict is not Verdict.COUNTED]
    lost = [_name(one) for one in found if one.difference is None and one.verdict is Verdict.COUNTED]
    parts = [
        *told,
        *([f"{'; '.join(unsure)}: {_UNSURE}"] if unsure else []),
        *([f"no difference shown in {_listed(silent)}"] if silent else []),
        *([f"{_listed(lost)} not known, because too many tasks were lost"] if lost else []),
    ]
    whom = "all tasks together" if after_hit else "the latency of all tasks"
    return f"{other.cell.choice} against {base.choice}, {whom}: {'; '.join(parts)}."


def _worth(one: Delta) -> bool:
    return one.shown and one.change is not None and abs(one.change) >= SMALL


def _change(one: Delta) -> str:
    """Never below -100 %."""
    way = "lower" if (one.change or 0.0) < 0 else "higher"
    ends = sorted(abs(end) for end in one.ci95 or ())
    return f"{_percent(one.change)} {way}" + (f" ({_number(ends[0])} to {_percent(ends[1])})" if ends else "")


def _instead(one: Delta) -> str:
    return f"{duration(one.value)} instead of {duration(one.baseline)}"


def _classes(other: Against) -> list[str]:
    """What each class of tasks has of it."""
    told, unsure, silent = [], False, []
    for name, own in _by_class(other).items():
        named = [one for one in own if _worth(one) or one.verdict is Verdict.TOO_FEW]
        unsure |= any(one.verdict is Verdict.TOO_FEW for one in named)
        if named:
            told.append(f"{name} {' and '.join(f'{_name(one)} {_change(one)}' for one in named)}")
        else:
            silent.append(name)
    if not told:
        return []
    rest = f"; no difference shown for {_listed(silent)}" if silent else ""
    return [f"By class: {'; '.join(told)}{rest}{f' ({_UNSURE})' if unsure else ''}."]


def _moved(other: Against) -> list[str]:
    """How many tasks are faster, and how many slower, each paired with itself."""
    shifts = other.shifts
    if shifts is None or not (shifts.later.tasks or shifts.sooner.tasks):
        return []
    told = [
        f"{_tasks(shift.tasks)} {'are' if shift.tasks != 1 else 'is'} {way} by {duration(shift.median_s)} in the median"
        for shift, way in ((shifts.sooner, "faster"), (shifts.later, "slower"))
        if shift.tasks
    ]
    return [f"Task by task, where it makes more than {_threshold(other)}: {' and '.join(told)}."]


def _by_class(other: Against) -> dict[str, list[Delta]]:
    found: dict[str, list[Delta]] = {}
    for one in other.deltas:
        parts = one.measure.split(".")
        if parts[0] in ("by_priority", "by_kind"):
            found.setdefault(".".join(parts[1:-2]), []).append(one)
    return found


def _lost(base: Contender, other: Against) -> list[str]:
    told = []
    for measure in ("failed", "unfinished"):
        one = other.delta(measure)
        if one.shown or one.verdict is Verdict.COUNTED:
            by, way = abs(one.difference or 0.0), "more" if (one.difference or 0.0) > 0 else "fewer"
            told.append(f"{_amount(by)} {way} {measure} task{'' if by == 1 else 's'}{_a_run(other)}{_interval(one)}")
    return [f"With {other.cell.choice}, {' and '.join(told)} than with {base.choice}."] if told else []


def _price(base: Contender, other: Against) -> str:
    """What a cell costs more, or less, than the baseline."""
    words = {
        "workers": "worker",
        "slots": "slot",
        "attempts": "attempt",
        "wasted_s": "of slot time wasted",
        "healthy_declared_dead": "mistaken death",
    }
    told = []
    for measure, what in words.items():
        one = other.delta(measure)
        if one.shown or one.verdict is Verdict.COUNTED:
            by = abs(one.difference or 0.0)
            if measure == "wasted_s":
                told.append(
                    f"{duration(by)} {'more' if (one.difference or 0.0) > 0 else 'less'} {what}{_interval(one)}"
                )
                continue
            way = "more" if (one.difference or 0.0) > 0 else "fewer"
            told.append(f"{_amount(by)} {what}{'' if by == 1 else 's'} {way}{_interval(one)}")
    if told:
        return f"The price{_a_run(other)}: {'; '.join(told)} than with {base.choice}."
    mistakes = other.delta("healthy_declared_dead")
    nobody = mistakes.verdict is Verdict.EQUAL and not mistakes.value
    equal = all(other.delta(measure).verdict is Verdict.EQUAL for measure in words)
    same = (
        "as many workers, attempts and wasted slots" if equal else "no difference is shown in attempts or wasted slots"
    )
    return f"It costs the same: {same}{'; no healthy worker is declared dead in either' if nobody else ''}."


# ---- several cells of one condition


def _best(group: Group) -> Iterator[str]:
    """The cell with the lowest p99, and the next; what the best one costs, and does to each class."""
    best, second = group.ranked[:2]
    value = group.place(best)[0]
    if math.isinf(value):
        yield "No cell keeps its p99: in all of them too many tasks fail or never end."
        return
    told = f"Lowest p99: {best.choice}, with {duration(value)}"
    winner = next((other for other in group.others if other.cell is best), None)
    if winner is not None:
        told += f", against {group.baseline.choice} {_or_not_shown(winner.delta('latency_s.p99'))}"
    if group.runner_up is not None:
        one = group.runner_up.delta("latency_s.p99")
        told += f". Next is {second.choice}: against {best.choice} its p99 is {_or_not_shown(one)}"
    yield f"{told}."
    if winner is not None:
        yield _price(group.baseline, winner)
        yield from _classes(winner)


def _mistakes(group: Group) -> Iterator[str]:
    """The cells in which healthy workers are declared dead, if that differs."""
    found = {other.cell.choice: other.delta("healthy_declared_dead") for other in group.others}
    if not any(one.differs for one in found.values()):
        return
    each = {group.baseline.choice: group.others[0].delta("healthy_declared_dead").baseline or 0.0}
    each |= {choice: one.value or 0.0 for choice, one in found.items()}
    worst, least = (side(each, key=lambda choice: each[choice]) for side in (max, min))
    a_run = _a_run(group.others[0])
    yield (
        f"Healthy workers are declared dead {_amount(each[worst])} times{a_run} with {worst}, "
        f"{_amount(each[least]) if each[least] else 'no'} times with {least}."
    )


def _or_not_shown(one: Delta) -> str:
    if one.verdict is Verdict.EQUAL:
        return "the same"
    if one.verdict is Verdict.NOT_SHOWN:
        return "not shown to differ"
    if one.change is None:
        return "not known, because too many tasks were lost"
    return _change(one) + (" in these runs, too few to tell how sure" if one.verdict is Verdict.TOO_FEW else "")


def _main_effects(group: Group) -> Iterator[str]:
    """In a grid of two choices or more, what each does to p99 on average over the others."""
    keys = [key for key in group.baseline.values if len({repr(cell.values[key]) for cell in group.cells}) > 1]
    if len(keys) < 2:
        return
    told = []
    for key in keys:
        first = group.baseline.values[key]
        levels = {repr(cell.values[key]): cell.values[key] for cell in group.cells}
        effects = {level: _mean_ratio(group, key, first, levels[level]) for level in levels if level != repr(first)}
        known = {level: ratio for level, ratio in effects.items() if ratio is not None}
        if known:
            level = max(known, key=lambda level: abs(math.log(known[level])))
            told.append(
                f"{key} from {value_title(key, first)} to {value_title(key, levels[level])} {_moves(known[level] - 1)}"
            )
    if told:
        yield f"On average over the rest of the grid, as it came out, {'; '.join(told)}."


def _moves(share: float) -> str:
    return f"{'lowers' if share < 0 else 'raises'} p99 by {_percent(share)}"


def _mean_ratio(group: Group, key: str, first: object, level: object) -> float | None:
    """The geometric mean of the ratios of p99 between cells that differ in this key only."""
    place = {_point(cell): group.place(cell)[0] for cell in group.cells}
    ratios = []
    for cell in group.cells:
        if repr(cell.values[key]) == repr(level):
            before = place.get(_point(cell, {key: first}))
            after = place[_point(cell)]
            if before and 0 < after < math.inf and math.isfinite(before):
                ratios.append(math.log(after / before))
    return math.exp(sum(ratios) / len(ratios)) if ratios else None


def _point(cell: Contender, instead: Mapping[str, object] | None = None) -> str:
    return repr(sorted({**cell.values, **(instead or {})}.items(), key=lambda item: item[0]))


def _most_hit(group: Group) -> Iterator[str]:
    """The cell in which those that a fault hit wait longest, or shortest, against the baseline."""
    hit = [other for other in group.others if other.shifts is not None and other.shifts.hit]
    worst = max(hit, key=lambda one: _cost(one), default=None)
    best = min(hit, key=lambda one: _cost(one), default=None)
    if worst is not None and _cost(worst) > 0:
        yield from _hit(group.baseline, worst)
    if best is not None and best is not worst and _cost(best) < 0:
        yield from _hit(group.baseline, best)


def _cost(other: Against) -> float:
    """Roughly how many seconds longer all tasks that were hit wait."""
    shifts = other.shifts
    if shifts is None:
        return 0.0
    later, sooner = shifts.hit_later, shifts.hit_sooner
    return later.tasks * (later.median_s or 0.0) - sooner.tasks * (sooner.median_s or 0.0)


# ---- several conditions


def _over_conditions(groups: Sequence[Group], places: Places) -> Iterator[str]:
    """Each choice against the baseline, from condition to condition."""
    choices = dict.fromkeys(other.cell.choice for group in groups for other in group.others)
    for choice in choices:
        mine = [(group, other) for group in groups for other in group.others if other.cell.choice == choice]
        for metric in ("p99", "p50"):
            yield from _through(mine, choice, metric, places)
    if len(choices) > 1:
        best = [(group, group.ranked[0].choice) for group in groups]
        names = dict.fromkeys(choice for _, choice in best)
        where = [f"{name} {_at([g for g, b in best if b == name], len(groups), places)}" for name in names]
        yield f"Lowest p99: {'; '.join(where)}."


def _through(mine: Sequence[tuple[Group, Against]], choice: str, metric: str, places: Places) -> Iterator[str]:
    """One percentile of a choice against the baseline, from condition to condition."""
    base, name = mine[0][0].baseline.choice, NAMES[metric]
    found = [(group, other.delta(f"latency_s.{metric}")) for group, other in mine]
    for way, verdict in (("higher", Verdict.HIGHER), ("lower", Verdict.LOWER)):
        there = [(group, one) for group, one in found if one.verdict is verdict and _worth(one)]
        if there:
            where = f" {_at([group for group, _ in there], len(found), places)}"
            yield f"{choice} has a {way} {name} than {base}{where}: {_range(there, places)}."
    silent = [group for group, one in found if one.verdict in (Verdict.NOT_SHOWN, Verdict.EQUAL) or
              (one.shown and not _worth(one))]  # fmt: skip
    if silent:
        yield f"Between the {name} of {choice} and {base}, no difference is shown {_at(silent, len(found), places)}."
    few = [(group, one) for group, one in found if one.verdict is Verdict.TOO_FEW]
    if few:
        where = _at([group for group, _ in few], len(found), places)
        yield f"Too few tasks to tell how sure it is {where}: {choice} has a {name} that is {_range(few, places)}."


def _range(found: Sequence[tuple[Group, Delta]], places: Places) -> str:
    """The least and the largest change, and where; only the change if there is one."""
    least, most = (side(found, key=lambda pair: abs(pair[1].change or 0.0)) for side in (min, max))
    if len(found) == 1:
        return f"{_change(most[1])}, {_instead(most[1])}"
    ends = [f"{_change(one)} {places[group.condition]}" for group, one in (least, most)]
    return f"from {ends[0]} to {ends[1]}, {_instead(most[1])}"


def _at(groups: Sequence[Group], of: int, places: Places) -> str:
    if len(groups) == of and of > 1:
        return "in every condition"
    if len(groups) > LONG:
        return f"{places[groups[0].condition]} and {len(groups) - 1} others"
    return _listed([places[group.condition] for group in groups])


def _places(groups: Sequence[Group]) -> Places:
    """`at a load of 70 %` where that tells the conditions apart, `at loss=0.01` otherwise."""
    loads = [group.load for group in groups]
    shown = [None if load is None else f"{100 * load:.0f}" for load in loads]
    if None not in shown and len(set(shown)) == len(shown):
        return {group.condition: f"at a load of {load} %" for group, load in zip(groups, shown, strict=True)}
    return {group.condition: f"{'at' if '=' in group.condition[:20] else 'with'} {group.condition}" for group in groups}


def _victims_over(groups: Sequence[Group], places: Places) -> Iterator[str]:
    """The condition in which those that a fault hit gain or lose most; without faults, that of the last class."""
    every = [(group, other) for group in groups for other in group.others]
    hit = [(group, other) for group, other in every if other.shifts is not None and other.shifts.hit]
    if hit:
        group, other = max(hit, key=lambda pair: abs(_cost(pair[1])))
        told = _hit(group.baseline, other)
    else:
        group, other = every[-1]
        told = _classes(other)
    for sentence in told:
        place = places[group.condition]
        yield f"{place[0].upper()}{place[1:]}: {sentence[0].lower()}{sentence[1:]}"


def _losses(groups: Sequence[Group]) -> Iterator[str]:
    """The cells that lose tasks."""
    lost: dict[str, float] = {}
    for group in groups:
        for cell in group.cells:
            tasks = [run.summary["tasks"] for run in cell.runs.values()]
            lost[cell.title or cell.name] = sum(one["failed"] + one["unfinished"] for one in tasks)
    losing = [name for name, tasks in lost.items() if tasks]
    if losing:
        worst = max(losing, key=lambda name: lost[name])
        others = f", and {count(len(losing) - 1, 'other cell')} lose some" if len(losing) > 1 else ""
        yield f"{worst} loses {_tasks(int(lost[worst]))}, failed or unfinished{others}."


# ---- what is not known


def _not_known(groups: Sequence[Group], runs: int) -> str:
    every = [one for group in groups for other in group.others for one in other.deltas if one.differs]
    few = any(one.verdict is Verdict.TOO_FEW for one in every)
    cells = [cell for group in groups for cell in group.cells]
    if all(cell.scenario.workload.arrivals.kind == "trace" for cell in cells):
        return "Not known: how it is on another day. The trace is one sample, and each replication replays it."
    if any(other.shifts is None for group in groups for other in group.others):
        return "Not known: how much of it is chance. Not all have the same arrivals, so that it does not cancel."
    if runs == 1:
        more = "; and how sure the percentiles are that have too few tasks" if few else ""
        return f"Not known: how the counts are in other runs than this one{more}. --replications 10 tells."
    more = ", among it percentiles with too few tasks" if few else ""
    return f"Not known: what {count(runs, 'replication')} cannot show{more}. What is not shown may still be there."


# ---- words


def _name(one: Delta) -> str:
    return NAMES[one.measure.rpartition(".")[2]]


def _tasks(n: int) -> str:
    return count(n, "task")


def _amount(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def _a_run(other: Against) -> str:
    return "" if other.runs == 1 else " a run"


def _interval(one: Delta) -> str:
    if one.ci95 is None or one.ci95[0] == one.ci95[1]:
        return ""
    show = duration if one.measure == "wasted_s" else _amount
    low, high = sorted(abs(end) for end in one.ci95)
    return f" ({show(low)} to {show(high)})"


def _threshold(other: Against) -> str:
    return duration(None if other.shifts is None else other.shifts.threshold_s)


def _percent(share: float | None) -> str:
    return f"{_number(abs(share or 0.0))} %"


def _number(share: float) -> str:
    return f"{100 * share:.1f}" if share < 0.0995 else f"{100 * share:,.0f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
