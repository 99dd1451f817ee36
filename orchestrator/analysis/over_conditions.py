"""What an answer says where choices are compared under several conditions: loads, networks, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from orchestrator.analysis.by_class import classes
from orchestrator.analysis.contenders import Against, Group
from orchestrator.analysis.deltas import Delta
from orchestrator.analysis.losses import loses_more
from orchestrator.analysis.phrases import (
    LOST,
    NAMES,
    NO_PRICE,
    Reads,
    a_run,
    change,
    cost_of,
    costs_of,
    gains_of,
    hit_wait_s,
    instead,
    price,
    victims,
)
from orchestrator.results.words import count, listed

LONG = 3
"""More conditions than that are told in one sentence by their first and their last; more choices by their largest."""
EVERYWHERE = "in every condition"

Places = Mapping[str, str]
"""How a sentence calls each condition."""
Pair = tuple[Group, Against]
Found = Sequence[tuple[Group, Delta]]


def told(groups: Sequence[Group]) -> Iterator[str]:
    """Each choice against the baseline, from condition to condition; what it costs, and whom it hits."""
    places = _places(groups)
    every = [(group, other) for group in groups for other in group.others]
    choices = list(dict.fromkeys(other.cell.quoted for _, other in every))
    if len(choices) == 1:
        for metric in dict.fromkeys(("p99", _tail(every), "p50")):
            yield from _sentences(every, metric, places)
        yield from _dearest(every, places)
    else:
        yield from _each(choices, every, places)
        yield _best(groups, _tail(every), places)
        if not any(_costly(other) for _, other in every):
            yield NO_PRICE
    yield from _victims(every, places)


def _tail(every: Sequence[Pair]) -> str:
    """p99, or p95 where too many tasks are lost for it in all conditions."""
    known = (
        metric
        for metric in ("p99", "p95")
        if any(other.delta(f"latency_s.{metric}").difference is not None for _, other in every)
    )
    return next(known, "p99")


def _each(choices: Sequence[str], every: Sequence[Pair], places: Places) -> Iterator[str]:
    """A sentence for each choice; of many choices, for those that change most."""
    mine = {choice: [pair for pair in every if pair[1].cell.quoted == choice] for choice in choices}
    largest = sorted(choices, key=lambda choice: -max(map(_largest, mine[choice])))
    for choice in choices:
        if choice in largest[:LONG]:
            base, of = mine[choice][0][0].baseline.quoted, len(mine[choice])
            tail = _tail(every)
            by_metric = {metric: _by_reading(mine[choice], metric) for metric in (tail, "p50")}
            parts = [part for metric, reads in by_metric.items() for part in _clauses(reads, metric, of, places)]
            parts += _rest(by_metric, "", of, places)
            parts += _price(mine[choice], places)
            if choice == largest[:LONG][-1] and len(choices) > LONG:
                rest = len(choices) - LONG
                parts.append(f"{count(rest, 'other choice')} {'differ' if rest > 1 else 'differs'} less")
            yield f"{choice} against {base}: {'; '.join(parts) or 'nothing to compare'}."


def _largest(pair: Pair) -> float:
    return max(abs(pair[1].delta(f"latency_s.{metric}").change or 0.0) for metric in ("p99", "p50"))


def _by_reading(mine: Sequence[Pair], metric: str) -> dict[Reads, Found]:
    found = [(group, other.delta(f"latency_s.{metric}")) for group, other in mine]
    return {kind: [pair for pair in found if Reads.of(pair[1]) is kind] for kind in Reads}


def _clauses(reads: Mapping[Reads, Found], metric: str, of: int, places: Places) -> Iterator[str]:
    """`p99 from 5.0 % higher at a load of 70 % to 20 % higher at a load of 90 %, 2.00 s instead of 1.67 s`."""
    for there in _by_direction(reads[Reads.TOLD]):
        yield f"{NAMES[metric]} {_range(there, of, places)}"
    if few := reads[Reads.UNSURE]:
        yield f"{NAMES[metric]} {_range(few, of, places)}, with too few tasks to tell how sure"


def _sentences(mine: Sequence[Pair], metric: str, places: Places) -> Iterator[str]:
    """The same of the only choice, in sentences."""
    reads, name = _by_reading(mine, metric), NAMES[metric]
    choice, base = mine[0][1].cell.quoted, mine[0][0].baseline.quoted
    for there in _by_direction(reads[Reads.TOLD]):
        way = "lower" if (there[0][1].change or 0.0) < 0 else "higher"
        where = _at([group for group, _ in there], len(mine), places)
        yield f"{choice} has a {way} {name} than {base} {where}: {_ends(there, places)}."
    if few := reads[Reads.UNSURE]:
        where = _at([group for group, _ in few], len(mine), places)
        yield f"Too few tasks to tell how sure it is {where}: {choice} has a {name} that is {_ends(few, places)}."
    if rest := "; ".join(_rest({metric: reads}, f" of {choice} and {base}", len(mine), places)):
        yield f"{rest[0].upper() if rest.startswith('no ') else rest[0]}{rest[1:]}."


def _rest(by_metric: Mapping[str, Mapping[Reads, Found]], whose: str, of: int, places: Places) -> Iterator[str]:
    """Where percentiles are the same, where no difference is shown, and where they are not known."""

    def at(*kinds: Reads) -> Iterator[tuple[str, str, bool]]:
        wheres: dict[str, list[str]] = {}
        for metric, reads in by_metric.items():
            if found := [pair for kind in kinds for pair in reads[kind]]:
                wheres.setdefault(_at([group for group, _ in found], of, places), []).append(NAMES[metric])
        return ((f"{listed(names)}{whose}", where, len(names) == 1) for where, names in wheres.items())

    for what, where, one in at(Reads.SAME):
        yield f"{what} {'is' if one else 'are'} the same {where}"
    for what, where, _ in at(Reads.SILENT, Reads.SMALL):
        yield f"no difference is shown in {what} {where}"
    for what, where, one in at(Reads.ONE_UNKNOWN, Reads.BOTH_UNKNOWN):
        there = "in any condition" if where == EVERYWHERE else where
        yield f"{what} {'is' if one else 'are'} not known {there}, {LOST}"


def _by_direction(found: Found) -> Iterator[Found]:
    for way in (1, -1):
        if there := [pair for pair in found if way * (pair[1].change or 0.0) > 0]:
            yield there


def _range(found: Found, of: int, places: Places) -> str:
    if len(found) > 1:
        return _ends(found, places)
    return f"{_ends(found, places)}, {_at([found[0][0]], of, places)}"


def _ends(found: Found, places: Places) -> str:
    """The least and the largest change, and where; only the change if there is one."""
    least, most = (side(found, key=lambda pair: pair[1].change or 0.0) for side in (min, max))
    if abs(least[1].change or 0.0) > abs(most[1].change or 0.0):
        least, most = most, least
    if len(found) == 1:
        return f"{change(most[1])}, {instead(most[1])}"
    ends = [f"{change(one)} {places[group.condition]}" for group, one in (least, most)]
    return f"from {ends[0]} to {ends[1]}, {instead(most[1])}"


def _best(groups: Sequence[Group], tail: str, places: Places) -> str:
    """Who has the lowest p99 in which condition."""
    best = [(group, _lowest(group, tail)) for group in groups]
    names = dict.fromkeys(name for _, name in best)
    where = [f"{name} {_at([group for group, b in best if b == name], len(groups), places)}" for name in names]
    aside = "" if tail == "p99" else f". p99 is known in no condition, {LOST}"
    return f"Lowest {NAMES[tail]}: {'; '.join(where)}{aside}."


def _lowest(group: Group, tail: str) -> str:
    lowest = group.lowest(tail)
    if not lowest:
        return "none that is known"
    return "all alike" if len(lowest) == len(group.cells) else listed([cell.quoted for cell in lowest])


def _price(mine: Sequence[Pair], places: Places) -> Iterator[str]:
    """Of one choice among several, where it is highest."""
    group, other = max(mine, key=lambda pair: cost_of(pair[1]))
    where = f"{a_run(other)} {places[group.condition]}"
    if costs := costs_of(other):
        yield f"its price{where}: {listed(costs)}"
    if gains := gains_of(other, loses_more(group.baseline, other.cell)):
        yield f"it saves {listed(gains)}{where}"


def _costly(other: Against) -> bool:
    return any(cost_of(other))


def _dearest(every: Sequence[Pair], places: Places) -> Iterator[str]:
    """Where the only choice costs most, or saves most."""
    group, other = max(every, key=lambda pair: cost_of(pair[1]))
    if _costly(other):
        yield _there(price(group.baseline, other, loses_more(group.baseline, other.cell)), group, places)
    else:
        yield NO_PRICE


def _victims(every: Sequence[Pair], places: Places) -> Iterator[str]:
    """The condition in which those that a fault hit gain or lose most; without faults, that of the last class."""
    hit = [(group, other) for group, other in every if other.shifts is not None and other.shifts.hit]
    if hit:
        group, other = max(hit, key=lambda pair: abs(hit_wait_s(pair[1])))
        found = victims(group.baseline, other)
    else:
        group, other = every[-1]
        found = classes(other)
    for sentence in found:
        yield _there(sentence, group, places)


def _there(sentence: str, group: Group, places: Places) -> str:
    place = places[group.condition]
    told_as: Callable[[str], str] = str.lower if sentence.startswith(("With ", "By ", "The ")) else str
    return f"{place[0].upper()}{place[1:]}: {told_as(sentence[0])}{sentence[1:]}"


def _at(groups: Sequence[Group], of: int, places: Places) -> str:
    if len(groups) == of and of > 1:
        return EVERYWHERE
    if len(groups) > LONG:
        return f"{places[groups[0].condition]} and {len(groups) - 1} others"
    return listed([places[group.condition] for group in groups])


def _places(groups: Sequence[Group]) -> Places:
    """`at a load of 70 %` where that tells the conditions apart, `at loss=0.01` otherwise."""
    loads = [group.load for group in groups]
    shown = [None if load is None else f"{100 * load:.0f}" for load in loads]
    if None not in shown and len(set(shown)) == len(shown):
        return {group.condition: f"at a load of {load} %" for group, load in zip(groups, shown, strict=True)}
    return {group.condition: f"{'at' if '=' in group.condition[:20] else 'with'} {group.condition}" for group in groups}
