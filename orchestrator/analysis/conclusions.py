"""What the differences between cells mean, in plain sentences: which of them are said, and in which order.

A sentence speaks of a cell against the baseline. A difference is shown if its interval of 95 % does not hold 0; where
there is no interval, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.analysis import losses, over_conditions
from orchestrator.analysis.contenders import SMALL, Against, Contender, Group, differ
from orchestrator.analysis.deltas import SHOWN, Delta, Verdict
from orchestrator.analysis.phrases import (
    LOST,
    NAMES,
    NO_PRICE,
    PRICES,
    a_run,
    amount,
    change,
    classes,
    costs_of,
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
    yield from classes(other)
    if not hit and (told := moved(other)):
        yield told
    yield price(base, other, losses.loses_more(base, other.cell))


# ---- several cells of one condition


def _several(group: Group) -> Iterator[str]:
    winner = next((other for other in group.others if other.cell is group.ranked[0]), None)
    yield _best(group, winner)
    yield from _most_hit(group)
    yield from _farthest(group, winner)
    prices = list(_prices(group))
    yield from prices
    yield from _main_effects(group)
    if winner is not None:
        yield from classes(winner)
    if not prices:
        yield NO_PRICE


def _best(group: Group, winner: Against | None) -> str:
    """The cells with the lowest p99, and the next; by another percentile where p99 does not tell them apart."""
    metric, aside = group.ranked_by, _aside(group)
    if metric is None:
        return f"{aside}."
    best, value = group.best, group.place(group.ranked[0])[0]
    name = NAMES[metric]
    told = f"Lowest {name}: {_first([cell.choice for cell in best])}, with {duration(value)}"
    told += " each" if len(best) > 1 else ""
    if winner is not None:
        told += f", against {group.baseline.choice} {_or_not_shown(winner.delta(f'latency_s.{metric}'))}"
    if group.runner_up is not None:
        one = group.runner_up.delta(f"latency_s.{metric}")
        told += f". Next is {group.runner_up.cell.choice}: against {best[0].choice} its {name} is {_or_not_shown(one)}"
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
        if shifts is not None and shifts.later.tasks > 1:
            later = f"{count(shifts.later.tasks, 'task')} are slower by {duration(shifts.later.median_s)} in the median"
            told = f"{told[:-1]}; {later}."
        yield told


def _prices(group: Group) -> Iterator[str]:
    """What each cell costs, against the baseline; of many, who costs least and most."""
    if len(group.others) > FEW:
        yield from _dearest(group)
        return
    told = []
    for other in group.others:
        costs, gains = costs_of(other), gains_of(other, losses.loses_more(group.baseline, other.cell))
        if costs or gains:
            parts = [*([listed(costs)] if costs else []), *([f"{listed(gains)} saved"] if gains else [])]
            told.append(f"with {other.cell.choice}, {', '.join(parts)}")
    if told:
        per_run = a_run(group.others[0])
        yield f"The price against {group.baseline.choice}{per_run}: {'; '.join(told)}."


def _dearest(group: Group) -> Iterator[str]:
    told = []
    for measure, noun in PRICES.items():
        if not any(one.shown or one.verdict is Verdict.COUNTED for one in group.deltas(measure)):
            continue
        each = {cell.choice: group.value(cell, measure) or 0.0 for cell in group.cells}
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
        effects = {level: _mean_ratio(group, metric, key, first, levels[level]) for level in levels}
        known = {level: ratio for level, ratio in effects.items() if ratio is not None and level != repr(first)}
        if known:
            level = max(known, key=lambda level: abs(math.log(known[level])))
            effect = _moves(known[level] - 1, NAMES[metric])
            told.append(f"{key} from {value_title(key, first)} to {value_title(key, levels[level])} {effect}")
    if told:
        yield f"On average over the rest of the grid, as it came out, {'; '.join(told)}."


def _moves(share: float, name: str) -> str:
    if abs(share) < SMALL:
        return f"leaves {name} as it is"
    return f"{'lowers' if share < 0 else 'raises'} {name} by {percent(share)}"


def _mean_ratio(group: Group, metric: str, key: str, first: object, level: object) -> float | None:
    """The geometric mean of the ratios of a percentile between cells that differ in this key only."""
    place = {_point(cell): value for cell, value in zip(group.cells, group.latencies(metric), strict=True)}
    ratios = []
    for cell in group.cells:
        if repr(cell.values[key]) == repr(level):
            before, after = place.get(_point(cell, {key: first})), place[_point(cell)]
            if before and 0 < after < math.inf and math.isfinite(before):
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
    more = ", among it percentiles with too few tasks" if few else ""
    return f"Not known: what {count(runs, 'replication')} cannot show{more}. What is not shown may still be there."
