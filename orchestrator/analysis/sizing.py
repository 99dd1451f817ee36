"""The smallest value of a setting with which a run meets all its objectives, found in few tries.

A larger value is taken to be no worse, as with workers. Tries halve the range that is left (or cut it into more parts
where several run at once); then the values next to the border are tried too. A larger value that misses although a
smaller one meets is told, and the answer is then above it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from orchestrator.results import manifests
from orchestrator.results.objectives import Objective, Verdict
from orchestrator.results.summaries import Summary
from orchestrator.scenario.titles import readable

NAME = "sizing.json"


@dataclass(frozen=True)
class Tried:
    """One value, and what came of it."""

    value: Any
    verdicts: Sequence[Verdict]
    pooled: Summary
    """The pooled summary of its runs."""

    @property
    def met(self) -> bool:
        return all(verdict.met for verdict in self.verdicts)

    @property
    def sure(self) -> bool | None:
        """Whether the intervals leave no doubt of `met`; None if one that decides has no interval."""
        if self.met:
            told = [verdict.sure for verdict in self.verdicts]
            return None if None in told and False not in told else all(told)
        missed = [verdict for verdict in self.verdicts if not verdict.met]
        if any(verdict.sure or verdict.at_least is not None for verdict in missed):
            return True
        return False if any(verdict.sure is False for verdict in missed) else None


@dataclass(frozen=True)
class Sizing:
    """The values that were tried, in the order of the range, and which of them is the answer."""

    scenario: str
    key: str
    values: Sequence[Any]
    """All that could have been tried, the smallest first."""
    objectives: Sequence[Objective]
    replications: int
    tried: Sequence[Tried]
    answer: Tried | None
    """The smallest one above all that missed; None if the largest misses."""

    def __repr__(self) -> str:
        found = "none" if self.answer is None else f"{self.key} = {readable(self.answer.value)}"
        return f"<Sizing {self.scenario}: {found} of {len(self.values)} values, {len(self.tried)} tried>"

    @property
    def below(self) -> Tried | None:
        """The next smaller value, which misses; None if there is none."""
        if self.answer is None:
            return None
        place = [one.value for one in self.tried].index(self.answer.value)
        return self.tried[place - 1] if place else None

    def exceptions(self) -> list[tuple[Any, Any]]:
        """Pairs of a smaller value that meets and a larger one that misses."""
        return [(a.value, b.value) for a, b in combinations(self.tried, 2) if a.met and not b.met]

    def sentences(self) -> list[str]:
        """The answer, the border, and what it rests on."""
        return list(self._told())

    def _told(self) -> Iterator[str]:
        smallest, largest = (str(readable(value)) for value in (self.values[0], self.values[-1]))
        goal = " and ".join(map(str, self.objectives))
        if self.answer is None:
            last = _in_words(self.tried[-1])
            yield f"No {self.key} from {smallest} to {largest} meets {goal}: with {largest} {last}."
        elif self.below is None:
            yield (
                f"{self.key} = {smallest}, the smallest of the range, meets {goal}: {_in_words(self.answer)}. "
                "Whether a smaller one would, was not asked."
            )
        else:
            value, below = readable(self.answer.value), readable(self.below.value)
            yield f"{self.key} = {value} is the smallest from {smallest} to {largest} that meets {goal}."
            yield f"With {value}: {_in_words(self.answer)}. With {below} it is missed: {_in_words(self.below)}."
            yield from self._doubts(self.answer, self.below)
        if exceptions := self.exceptions():
            met, missed = exceptions[-1]
            yield f"More is not always better here: {readable(met)} meets and {readable(missed)} misses."
        else:
            yield (
                f"{len(self.tried)} of {len(self.values)} values were tried, with the same arrivals and demands; that "
                "a larger one is never worse holds for these, and is assumed for the others."
            )

    def _doubts(self, answer: Tried, below: Tried) -> Iterator[str]:
        reach = " and ".join(f"with {readable(one.value)}" for one in (answer, below) if one.sure is False)
        if reach:
            yield f"Of other arrivals like these that is not sure: {reach} the interval of 95 % reaches over the limit."
        if answer.sure is False:
            sure = [one.value for one in self.tried[self.tried.index(answer) :] if one.sure]
            if sure:
                yield f"{readable(sure[0])} is the smallest that was tried whose whole interval keeps it."
        if answer.sure is None or below.sure is None:
            how = " --replications 5 may give one." if self.replications == 1 else ""
            yield f"How sure that is of other arrivals like these, is not known: there is no interval.{how}"

    def summary(self) -> dict[str, Any]:
        """The content of `sizing.json`, as plain numbers."""
        return {
            "scenario": self.scenario,
            "key": self.key,
            "from": self.values[0],
            "to": self.values[-1],
            "values": len(self.values),
            "objectives": list(map(str, self.objectives)),
            "replications": self.replications,
            "answer": None if self.answer is None else self.answer.value,
            "below": None if self.below is None else self.below.value,
            "monotone": not self.exceptions(),
            "sentences": self.sentences(),
            "tried": [
                {
                    "value": one.value,
                    "met": one.met,
                    "sure": one.sure,
                    "objectives": [verdict.plain() for verdict in one.verdicts],
                    "utilization": one.pooled["utilization"],
                    "tasks": one.pooled["tasks"],
                }
                for one in self.tried
            ],
        }

    def save(self, folder: str | Path) -> None:
        """Write `sizing.json` into `folder`, which is made if it does not exist."""
        manifests.write_json(folder, NAME, self.summary())


def border(number: int, tries: Callable[[Sequence[int]], Mapping[int, bool]], at_once: int = 1) -> int | None:
    """The smallest of the positions 0 ... number - 1 that meets and is above all tried ones that miss; None if the last
    one misses.

    `tries` says of positions, at most `at_once` and two at first, which of them meet. The neighbours of the answer are
    tried, so that a miss above it moves it up.
    """
    known = dict(tries(sorted({0, number - 1})))
    while known[number - 1]:
        low = max((place for place, met in known.items() if not met), default=-1)
        high = min(place for place in known if place > low)
        wanted = between(low, high, at_once) or [n for n in (low - 1, high + 1) if 0 <= n < number and n not in known]
        if not wanted:
            return high
        known |= tries(wanted)
    return None


def between(low: int, high: int, at_once: int) -> list[int]:
    """At most so many whole numbers between two, which cut what is between into equal parts."""
    parts = min(at_once, high - low - 1) + 1
    return sorted({low + round((high - low) * part / parts) for part in range(1, parts)})


def rounds(number: int, at_once: int) -> int:
    """How many times `border` asks, if a larger value is never worse."""
    return 2 + math.ceil(math.log(max(number - 1, 1), at_once + 1))


def _in_words(tried: Tried) -> str:
    return ", ".join(f"{verdict.objective.metric} is {verdict.in_words()}" for verdict in tried.verdicts)
