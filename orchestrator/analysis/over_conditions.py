"""What an answer says where choices are compared under several conditions: loads, networks, faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from orchestrator.analysis.contenders import Against, Group
from orchestrator.analysis.deltas import Delta
from orchestrator.analysis.losses import loses_more
from orchestrator.analysis.phrases import (
    LOST,
    NAMES,
    NO_PRICE,
    Reads,
    change,
    classes,
    cost_of,
    hit_wait_s,
    instead,
    listed,
    price,
    victims,
)
from orchestrator.results.words import count

LONG = 3
"""More conditions than that are told in one sentence by their first and their last; more choices by their largest."""

Places = Mapping[str, str]
"""How a sentence calls each condition."""
Pair = tuple[Group, Against]
Found = Sequence[tuple[Group, Delta]]


def told(groups: Sequence[Group]) -> Iterator[str]:
    """Each choice against the baseline, from condition to condition; what it costs, and whom it hits."""
    places = _places(groups)
    every = [(group, other) for group in groups for other in group.others]
    choices = list(dict.fromkeys(other.cell.choice for _, other in every))
    if len(choices) == 1:
        for metric in ("p99", "p50"):
            yield from _sentences(every, metric, places)
    else:
        yield from _each(choices, every, places)
        yield _best(groups, places)
    yield from _dearest(every, places)
    yield from _victims(every, places)


def _each(choices: Sequence[str], every: Sequence[Pair], places: Places) -> Iterator[str]:
    """A sentence for each choice; of many choices, for those that change most."""
    mine = {choice: [pair for pair in every if pair[1].cell.choice == choice] for choice in choices}
    largest = sorted(choices, key=lambda choice: -max(map(_largest, mine[choice])))
    for choice in choices:
        if choice in largest[:LONG]:
            base = mine[choice][0][0].baseline.choice
            parts = [part for metric in ("p99", "p50") for part in _clauses(mine[choice], metric, places)]
            if choice == largest[:LONG][-1] and len(choices) > LONG:
                parts.append(f"{count(len(choices) - LONG, 'other choice')} differ less")
            yield f"{choice} against {base}: {'; '.join(parts) or 'nothing to compare'}."


def _largest(pair: Pair) -> float:
    return max(abs(pair[1].delta(f"latency_s.{metric}").change or 0.0) for metric in ("p99", "p50"))


def _by_reading(mine: Sequence[Pair], metric: str) -> dict[Reads, Found]:
    found = [(group, other.delta(f"latency_s.{metric}")) for group, other in mine]
    return {kind: [pair for pair in found if Reads.of(pair[1]) is kind] for kind in Reads}


def _clauses(mine: Sequence[Pair], metric: str, places: Places) -> Iterator[str]:
    """`p99 from 5.0 % higher at a load of 70 % to 20 % higher at a load of 90 %, 2.00 s instead of 1.67 s`."""
    reads, name = _by_reading(mine, metric), NAMES[metric]
    for there in _by_direction(reads[Reads.TOLD]):
        yield f"{name} {_range(there, len(mine), places)}"
    if few := reads[Reads.UNSURE]:
        yield f"{name} {_range(few, len(mine), places)}, with too few tasks to tell how sure"
    yield from _rest(reads, f"the {name} is", "", name, len(mine), places)


def _sentences(mine: Sequence[Pair], metric: str, places: Places) -> Iterator[str]:
    """The same of the only choice, in sentences."""
    reads, name = _by_reading(mine, metric), NAMES[metric]
    choice, base = mine[0][1].cell.choice, mine[0][0].baseline.choice
    for there in _by_direction(reads[Reads.TOLD]):
        way = "lower" if (there[0][1].change or 0.0) < 0 else "higher"
        where = _at([group for group, _ in there], len(mine), places)
        yield f"{choice} has a {way} {name} than {base} {where}: {_ends(there, places)}."
    if few := reads[Reads.UNSURE]:
        where = _at([group for group, _ in few], len(mine), places)
        yield f"Too few tasks to tell how sure it is {where}: {choice} has a {name} that is {_ends(few, places)}."
    whose = f" of {choice} and {base}"
    rest = list(_rest(reads, f"the {name}{whose} is", whose, name, len(mine), places))
    if rest:
        said = "; ".join(rest)
        yield f"{said[0].upper() if said.startswith('the ') else said[0]}{said[1:]}."


def _rest(reads: Mapping[Reads, Found], subject: str, whose: str, name: str, of: int, places: Places) -> Iterator[str]:
    """Where it is the same, where no difference is shown, and where it is not known."""

    def at(found: Found) -> str:
        return _at([group for group, _ in found], of, places)

    if same := reads[Reads.SAME]:
        yield f"{subject} the same {at(same)}"
    if silent := [*reads[Reads.SILENT], *reads[Reads.SMALL]]:
        yield f"no difference is shown in the {name}{whose} {at(silent)}"
    if lost := [*reads[Reads.ONE_UNKNOWN], *reads[Reads.BOTH_UNKNOWN]]:
        yield f"{subject} not known {at(lost)}, {LOST}"


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


def _best(groups: Sequence[Group], places: Places) -> str:
    """Who has the lowest p99 in which condition."""
    best = [(group, _lowest(group)) for group in groups]
    names = dict.fromkeys(name for _, name in best)
    where = [f"{name} {_at([group for group, b in best if b == name], len(groups), places)}" for name in names]
    return f"Lowest p99: {'; '.join(where)}."


def _lowest(group: Group) -> str:
    lowest = group.lowest("p99")
    if not lowest:
        return "none that is known"
    return "all alike" if len(lowest) == len(group.cells) else listed([cell.choice for cell in lowest])


def _dearest(every: Sequence[Pair], places: Places) -> Iterator[str]:
    """Where a choice costs most, or saves most."""
    group, other = max(every, key=lambda pair: cost_of(pair[1]))
    if any(cost_of(other)):
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
        return "in every condition"
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
