"""Objectives: what a run's summary must keep, such as `latency_s.p99 < 2`, and whether it does.

Every number of `summary.json` can be asked for by its dotted key, also those of classes, as in
`by_priority.high.latency_s.p95`. A number that is not known, because its rank falls on a task that never completed, or
that no task or crash gave, misses every objective.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from orchestrator.results.columns import SUMMARY
from orchestrator.results.confidence import Interval
from orchestrator.results.summaries import DETECTION_QUANTILES, LATENCY_QUANTILES, has_limits
from orchestrator.results.tables import PRIORITIES
from orchestrator.scenario.arguments import require

if TYPE_CHECKING:
    from orchestrator.scenario.schema import Scenario

OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
EXAMPLE = '"latency_s.p99 < 2"'

_OBJECTIVE = re.compile(r"\s*(?P<metric>[^\s<>=]+)\s*(?P<operator><=|>=|<|>)\s*(?P<limit>\S+)\s*")
_STATISTICS = ("mean", "max", "n", "unknown")
_NO_NUMBERS = ("scenario", "world", "seed", "interrupted")


class ObjectiveError(ValueError):
    """No objective, or one of a number that a summary does not have. One sentence."""


@dataclass(frozen=True)
class Objective:
    """One bound of one number."""

    metric: str
    operator: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} {self.operator} {self.limit:.15g}"

    @classmethod
    def parse(cls, text: str) -> Objective:
        """From `METRIC OPERATOR NUMBER`; ObjectiveError if it is none, TypeError if it is no text."""
        require("objective", text, str, f"a text, as {EXAMPLE}")
        found = _OBJECTIVE.fullmatch(text)
        expected = f"expected KEY < NUMBER (or <=, >, >=), as in {EXAMPLE}"
        if found is None:
            raise ObjectiveError(f'"{text}" is no objective, {expected}')
        try:
            limit = float(found["limit"])
        except ValueError:
            limit = math.nan
        if not math.isfinite(limit):
            raise ObjectiveError(f'"{text}" is no objective: {found["limit"]} is no finite number, {expected}')
        return cls(found["metric"], found["operator"], limit)

    def judge(self, summary: Mapping[str, Any], intervals: Mapping[str, Interval] = MappingProxyType({})) -> Verdict:
        """Whether a summary keeps it. `intervals`: those of a single run; a pooled summary has its own."""
        *path, name = self.metric.split(".")
        group = _at(summary, path)
        value = group.get(name)
        bounds = summary.get("ci95", {}).get(self.metric)
        if bounds is None and self.metric in intervals:
            bounds = intervals[self.metric][:2]
        interval = None if bounds is None else (bounds[0], bounds[1])
        return Verdict(self, value, group.get("at_least", {}).get(name), interval)

    def holds(self, value: float) -> bool:
        return bool(OPERATORS[self.operator](value, self.limit))


@dataclass(frozen=True)
class Verdict:
    """What one summary says of one objective."""

    objective: Objective
    value: float | None
    """None if it is not known, or there is none."""
    at_least: float | None = None
    """A lower bound of a value that is not known."""
    interval: tuple[float, float | None] | None = None
    """Of 95 %; its upper end is None if it is not known."""
    met: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "met", self.value is not None and self.objective.holds(self.value))

    @property
    def sure(self) -> bool | None:
        """Whether the whole interval says the same as the value; None without an interval."""
        if self.interval is None or self.value is None:
            return None
        low, high = self.interval
        ends = (low, math.inf if high is None else high)
        return all(self.objective.holds(end) == self.met for end in ends)

    def in_words(self) -> str:
        """The value, in the unit of the limit, and its interval."""
        if self.value is None:
            return "without a value" if self.at_least is None else f"not known, but over {self.at_least:.4g}"
        if self.interval is None:
            return f"{self.value:.4g}"
        return f"{self.value:.4g} (interval {self.range()})"

    def range(self) -> str:
        """The interval; a dash without one."""
        if self.interval is None:
            return "-"
        low, high = self.interval
        return f"> {low:.4g}" if high is None else f"{low:.4g} to {high:.4g}"

    def plain(self) -> dict[str, Any]:
        """As plain numbers, for JSON."""
        return {
            "objective": str(self.objective),
            "metric": self.objective.metric,
            "met": self.met,
            "value": self.value,
            "at_least": self.at_least,
            "ci95": None if self.interval is None else list(self.interval),
            "sure": self.sure,
        }


def objectives(wanted: str | Objective | Iterable[str | Objective], scenario: Scenario) -> list[Objective]:
    """Each of them as an objective of a run of the scenario. ObjectiveError says what is wrong, and names keys that
    exist and are alike; TypeError says what is no text."""
    listed = [wanted] if isinstance(wanted, str | Objective) else wanted
    require("objectives", listed, Iterable, f"a list of texts, as [{EXAMPLE}]")
    known = metrics(scenario)
    found = [one if isinstance(one, Objective) else Objective.parse(one) for one in listed]
    for one in found:
        if one.metric not in known:
            raise ObjectiveError(f'there is no number "{one.metric}" in a summary: {_instead(one.metric, known)}')
    return found


def metrics(scenario: Scenario) -> list[str]:
    """The dotted key of every number that the summary of a run of the scenario has."""
    named = {"by_priority": PRIORITIES, "by_kind": scenario.workload.kind_names()}
    found = []
    for pattern, column in SUMMARY.items():
        if (
            pattern in _NO_NUMBERS
            or (pattern.startswith("limits.") and not has_limits(scenario))
            or (pattern.startswith("commits.") and scenario.coordinator.commit is None)
        ):
            continue
        group, star, rest = pattern.partition(".*.")
        keys = [f"{group}.{name}.{rest}" for name in named[group]] if star else [pattern]
        if column.meaning.endswith("statistics."):
            quantiles = DETECTION_QUANTILES if pattern.startswith("detection.") else LATENCY_QUANTILES
            keys = [f"{key}.{name}" for key in keys for name in (*quantiles, *_STATISTICS)]
        found += keys
    return found


def _instead(metric: str, known: Sequence[str]) -> str:
    below = [key for key in known if key.startswith(f"{metric}.")]
    if below:
        return f"expected one of {', '.join(below)}"
    if close := get_close_matches(metric, known, 3, 0.75):
        return f"did you mean {' or '.join(close)}?"
    groups = list(dict.fromkeys(key.partition(".")[0] for key in known))
    return f"expected a number of summary.json; these begin with {', '.join(groups)}"


def _at(summary: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """The mapping at a path; an empty one if there is none, as of a class without any task."""
    place: Any = summary
    for name in path:
        place = place.get(name, {})
    return place if isinstance(place, Mapping) else {}
