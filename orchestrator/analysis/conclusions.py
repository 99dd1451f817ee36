"""What the differences between cells mean, in plain sentences: which of them are said, and in which order.

A sentence speaks of a cell against the baseline. A difference is shown if its interval of 95 % does not hold 0; where
there is no interval, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.analysis import by_class, losses, over_conditions
from orchestrator.analysis.contenders import SMALL, Against, Contender, Group, differ
from orchestrator.analysis.deltas import SHOWN, Delta, Verdict
from orchestrator.analysis.phrases import (
    FAR,
    LOST,
    NAMES,
    NO_PRICE,
    PRICES,
    a_run,
    amount,
    change,
    costs_of,
    each_moved,
    everybody,
    gains_of,
    hit_wait_s,
    moved,
    percent,
    price,
    victims,
)
from orchestrator.analysis.saturation import cannot_keep_up
from orchestrator.results.words import count, duration, listed
from orchestrator.scenario.titles import value_title

MOST = 5
"""Sentences of an answer."""
FEW = 3
"""So many cells beside the baseline have a price each; of more, the least and the most are told."""


def sentences(groups: Sequence[Group], runs: int) -> list[str]:
    """At most MOST: who cannot keep up; what is lost; who is better and by how much, for whom, at what price; and what
    is not known."""
    if len(groups) > 1:
        found = list(over_conditions.told(groups))
    elif len(groups[0].others) > 1:
        found = list(_several(groups[0]))
    else:
        found = list(_pair(groups[0].baseline, groups[0].others[0]))
    told = [*cannot_keep_up(groups), *losses.told(groups), *found]
    return [*told[: MOST - 1], _not_known(groups, runs)]


def _pair(base: Contender, other: Against) -> Iterator[str]:
    hit = victims(base, other)
    yield from hit
    yield everybody(base, other, "all tasks together" if hit else "the latency of all tasks")
    yield from by_class.classes(other)
    if not hit and (told := moved(other)):
        yield told
    yield price(base, other, losses.loses_more(base, other.cell))


# ---- several cells of one condition


def _several(group: Group) -> Iterator[str]:
    winner = next((other for other in group.others if other.cell is group.ranked[0]), None)
    first = [_best(group, winner), *_most_hit(group), *by_class.spread(group)]
    last = [*(list(_prices(group)) or [NO_PRICE]), *_main_effects(group)]
    yield from first
    if len(first) + len(last) < MOST - 1:
        yield from _farthest(group, winner)
    yield from last


def _best(group: Group, winner: Against | None) -> str:
    """The cells with the lowest p99, and the next; by another percentile where p99 does not tell them apart."""
    metric, aside = group.ranked_by, _aside(group)
    if metric is None:
        return f"{aside}."
    name, measure = NAMES[metric], f"latency_s.{metric}"
    pairs = [*group.others, *([group.runner_up] if group.runner_up is not None else [])]
    if all(one.delta(measure).verdict in (Verdict.EQUAL, Verdict.NOT_SHOWN) for one in pairs):
        ends = dict.fromkeys(duration(end(group.latencies(metric))) for end in (min, max))
        told = f"No cell is shown to have another {name} than {group.baseline.quoted}: {' to '.join(ends)}"
        return f"{told}. {aside}." if aside else f"{told}."
    best, value = group.best, group.place(group.ranked[0])[0]
    in_order = [cell.quoted for cell in group.cells if any(cell is one for one in best)]
    told = f"Lowest {name}: {_first(in_order)}, with {duration(value)}"
    told += " each" if len(best) > 1 else ""
    if winner is not None:
        told += f", against {group.baseline.quoted} {_or_not_shown(winner.delta(measure))}"
    if (next_one := group.runner_up) is not None:
        told += f". Next is {next_one.cell.quoted}"
        if winner is None or next_one.cell is not group.baseline:
            told += f": against {best[0].quoted} its {name} is {_or_not_shown(next_one.delta(measure))}"
    return f"{told}. {aside}." if aside else f"{told}."


def _aside(group: Group) -> str:
    """What is to be said of the percentiles that tell no cell from another."""
    values = {NAMES[metric]: group.latencies(metric) for metric in SHOWN}
    unknown = [name for name, each in values.items() if math.isinf(min(each))]
    known = {name: each for name, each in values.items() if name not in unknown}
    same = [name for name, each in known.items() if len(set(each)) == 1]
    near = [name for name, each in known.items() if name not in same and not differ(each)]
    parts = []
    if same:
        parts.append(f"{listed(same)} {'is' if len(same) == 1 else 'are'} the same in all cells")
    if near:
        parts.append(f"{listed(near)} {'differs' if len(near) == 1 else 'differ'} by less than {percent(SMALL)}")
    if unknown:
        bounds = [one.at_least for metric in SHOWN for one in group.deltas(f"latency_s.{metric}")]
        why = LOST if any(bound is not None for bound in bounds) else "because no task counts"
        parts.append(f"{listed(unknown)} {'is' if len(unknown) == 1 else 'are'} known in no cell, {why}")
    return "; ".join(parts)


def _or_not_shown(one: Delta) -> str:
    if one.verdict is Verdict.EQUAL:
        return "the same"
    if one.verdict is Verdict.NOT_SHOWN:
        return "not shown to differ"
    if one.change is None:
        return f"not known, {LOST}"
    return change(one) + (" in these runs, too few to tell how sure" if one.verdict is Verdict.TOO_FEW else "")


def _most_hit(group: Group) -> Iterator[str]:
    """The cell in which those that a fault hit wait longest, or shortest, against the baseline."""
    hit = [other for other in group.others if other.shifts is not None and other.shifts.hit]
    most = max(hit, key=lambda one: abs(hit_wait_s(one)), default=None)
    if most is not None and hit_wait_s(most):
        yield from victims(group.baseline, most)


def _farthest(group: Group, winner: Against | None) -> Iterator[str]:
    """All percentiles of the last cell against the baseline; of the first one, if the baseline is the last."""
    last = next((other for other in group.others if other.cell is group.ranked[-1]), winner)
    if last is not None and group.ranked_by is not None:
        told, shifts = everybody(group.baseline, last), last.shifts
        if shifts is not None and max(shifts.later.tasks, shifts.sooner.tasks) > 1:
            told = f"{told[:-1]}; {listed(each_moved(last))}."
        yield told


def _prices(group: Group) -> Iterator[str]:
    """What each cell costs, against the baseline; of many, who costs least and most."""
    if len(group.others) > FEW:
        yield from _dearest(group)
        return
    alike: dict[str, list[str]] = {}
    for other in group.others:
        costs, gains = costs_of(other), gains_of(other, losses.loses_more(group.baseline, other.cell))
        if costs or gains:
            parts = [*([listed(costs)] if costs else []), *([f"{listed(gains)} saved"] if gains else [])]
            alike.setdefault(", ".join(parts), []).append(other.cell.quoted)
    if alike:
        told = [f"with {'each of ' if len(names) > 1 else ''}{listed(names)}, {what}" for what, names in alike.items()]
        per_run = a_run(group.others[0])
        yield f"The price against {group.baseline.quoted}{per_run}: {'; '.join(told)}."


def _dearest(group: Group) -> Iterator[str]:
    told = []
    for measure, noun in PRICES.items():
        if not any(one.shown or one.verdict is Verdict.COUNTED for one in group.deltas(measure)):
            continue
        each = {cell.quoted: group.value(cell, measure) or 0.0 for cell in group.cells}
        show, what = (duration, "wasted slot time") if measure == "wasted_s" else (amount, f"{noun}s")
        ends = [
            f"{show(end)} with {_first([c for c in each if each[c] == end])}"
            for end in (min(each.values()), max(each.values()))
        ]
        told.append(f"{what} from {' to '.join(ends)}")
    if told:
        yield f"The price{a_run(group.others[0])}: {'; '.join(told)}."


def _first(names: Sequence[str]) -> str:
    """All of a few, the first of many."""
    return listed(names) if len(names) <= FEW else f"{names[0]} and {count(len(names) - 1, 'other cell')}"


def _main_effects(group: Group) -> Iterator[str]:
    """In a grid of two choices or more, what each does to a percentile, and to what is wasted, over the others."""
    keys = [key for key in group.baseline.values if len({repr(cell.values[key]) for cell in group.cells}) > 1]
    metric = group.ranked_by
    if len(keys) < 2 or metric is None:
        return
    told = []
    for key in keys:
        first = group.baseline.values[key]
        levels = {repr(cell.values[key]): cell.values[key] for cell in group.cells}
        effects = {level: _mean_ratio(group, f"latency_s.{metric}", key, first, levels[level]) for level in levels}
        known = {level: ratio for level, ratio in effects.items() if ratio is not None and level != repr(first)}
        if known:
            level = max(known, key=lambda level: abs(math.log(known[level])))
            effect = _moves(known[level], NAMES[metric])
            effect += _of_a_class(group, metric, key, first, levels[level], known[level])
            told.append(f"{key} from {value_title(key, first)} to {value_title(key, levels[level])} {effect}")
    if told:
        yield f"On average over the other choices, in these runs, {'; '.join(told)}."


def _of_a_class(group: Group, metric: str, key: str, first: object, level: object, of_all: float) -> str:
    """What the same does to the class that it changes most, where that is much more than to all tasks together."""
    found = {one.measure: by_class.class_of(one.measure) for one in group.others[0].deltas}
    ratios = {
        of: ratio
        for measure, of in found.items()
        if of and measure.endswith(f".{metric}") and (ratio := _mean_ratio(group, measure, key, first, level))
    }
    most = max(ratios, key=lambda of: abs(math.log(ratios[of])), default=None)
    if most is None or abs(math.log(ratios[most])) < abs(math.log(of_all)) + FAR:
        return ""
    return ", and " + _moves(ratios[most], f"that of {most}")


def _moves(ratio: float, name: str) -> str:
    share = ratio - 1
    if abs(share) < SMALL:
        return f"leaves {name} as it is"
    return f"{'lowers' if share < 0 else 'raises'} {name} by {percent(share)}"


def _mean_ratio(group: Group, measure: str, key: str, first: object, level: object) -> float | None:
    """The geometric mean of the ratios of a percentile between cells that differ in this key only; None if it is known
    of no such pair."""
    place = {_point(cell): value for cell in group.cells if (value := group.value(cell, measure)) is not None}
    ratios = []
    for cell in group.cells:
        if repr(cell.values[key]) == repr(level):
            before, after = place.get(_point(cell, {key: first})), place.get(_point(cell))
            if before and after:
                ratios.append(math.log(after / before))
    return math.exp(sum(ratios) / len(ratios)) if ratios else None


def _point(cell: Contender, instead_of: Mapping[str, object] | None = None) -> str:
    return repr(sorted({**cell.values, **(instead_of or {})}.items(), key=lambda item: item[0]))


# ---- what is not known


def _not_known(groups: Sequence[Group], runs: int) -> str:
    every = [one for group in groups for other in group.others for one in other.deltas if one.differs]
    few = any(one.verdict is Verdict.TOO_FEW for one in every)
    cells = [cell for group in groups for cell in group.cells]
    if all(cell.scenario.workload.arrivals.kind == "trace" for cell in cells):
        return "Not known: how it is on another day. The trace is one sample, and each replication replays it."
    if not all(other.same_tasks for group in groups for other in group.others):
        return "Not known: how much of it is chance. Not all have the same arrivals, so that it does not cancel."
    if runs == 1:
        more = "; and how sure the percentiles are that have too few tasks" if few else ""
        return f"Not known: how the counts are in other runs than this one{more}. --replications 10 tells."
    more = "; and how sure the percentiles are that have too few tasks" if few else ""
    return f"Not known: differences that {count(runs, 'replication')} are too few to show{more}."
