"""How a file of recorded arrivals is to be read, inferred from the file: columns, unit, origin, order.

Names and sizes of numbers tell much, not all: whatever is given has precedence, and what was inferred is said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.scenario.datafiles import (
    Columns,
    DataError,
    Floats,
    Format,
    file_format,
    is_moment,
    is_number,
    read_columns,
)
from orchestrator.scenario.traces import LATE, PER_SECOND, TraceFile, Unit

SAMPLE_ROWS = 1000
"""The rows from which names and kinds of columns are inferred."""
MOST_CLASSES = 20
"""A column of words with more different ones tells no classes."""

ARRIVALS = (
    "arrival arrivaltime arrivedat timestamp time submit submittime submittedat createdat starttime datetime ts t"
)
SERVICES = "service servicetime duration runtime executiontime exectime run"
CLASSES = "class kind type model queue partition tenant"
EPOCHS: dict[Unit, tuple[float, float]] = {
    unit: (946_684_800 * per_s, 4_102_444_800 * per_s) for unit, per_s in PER_SECOND.items()
}
"""What the years 2000 to 2099 are since 1970, in each unit."""

_UNITS: dict[str, Unit] = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("us", "usec", "micros", "microsecond", "microseconds"), "us"),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanosecond", "nanoseconds"), "ns"),
}
_NAMED_UNIT = re.compile(rf"(.*?)[\s_.(\[/-]+({'|'.join(sorted(_UNITS, key=len, reverse=True))})[)\]]*", re.I)
_SWF = {"columns": {"arrival_s": "submit_s", "service_s": "run_s", "weight": "processors"}}


@dataclass(frozen=True)
class Inferred:
    """How to read a file, and what was found out on the way."""

    trace: TraceFile
    format: Format
    classes: list[str]
    """Columns that sort the tasks into classes, besides the priority."""
    first_s: float
    """The first arrival, counted from the file's own zero, or from 1970."""
    since_1970: bool
    """Whether that zero is the beginning of 1970."""
    reasons: list[str]
    """A sentence for each setting that the file needs."""


def infer(file: str, given: Mapping[str, Any]) -> Inferred:
    """How to read the file, with these keys of a TraceFile given. DataError where it is no trace, or does not tell."""
    kind = file_format(file)
    swf = kind == "Standard Workload Format"
    sample = read_columns(file, () if swf else None, SAMPLE_ROWS)
    tree = {**given, "file": file, "columns": {**(_SWF["columns"] if swf else {}), **given.get("columns", {})}}
    reasons: list[str] = []
    if not swf:
        _name_columns(tree, sample, given, reasons)
    trace = TraceFile.model_validate(tree)
    times_s, moments = trace.recorded_s(), _begins(sample, trace.columns.arrival_s, is_moment)
    _settle_order(tree, times_s, moments, given, reasons)
    return Inferred(
        TraceFile.model_validate(tree),
        kind,
        ["queue", "partition"] if swf else _classes(sample, tree),
        float(times_s.min()),
        moments or _in_epoch("s", float(times_s.min())),
        reasons,
    )


def _name_columns(tree: dict[str, Any], sample: Columns, given: Mapping[str, Any], reasons: list[str]) -> None:
    """Columns and unit of a table with names, and the service time, where another column has it in another unit."""
    columns = tree["columns"]
    arrival = columns["arrival_s"] = columns.get("arrival_s") or _arrival(sample)
    moments = _begins(sample, arrival, is_moment)
    if arrival != given.get("columns", {}).get("arrival_s", "arrival_s"):
        reasons.append(f"{arrival} is taken for the arrival{', an ISO 8601 time' if moments else ''}")
    service = columns.get("service_s") or (None if tree.get("seconds_per") else _service(sample))
    service_unit = _unit_of(service) if service else None
    if "unit" not in given:
        own = service_unit if moments else _unit_of_arrivals(sample, arrival)
        if own not in (None, "s"):
            tree["unit"] = own
            reasons.append(f"{service if moments else arrival} counts {own}")
    if not service or "service_s" in given.get("columns", {}):
        return
    unit = tree.get("unit", "s")
    # In a file of ours both columns have the same unit, whatever their names say.
    if service_unit in (None, unit) or (arrival == "arrival_s" and service == "service_s"):
        columns |= {"service_s": service} if service != "service_s" else {}
        reasons += [f"{service} is taken for the service time, in {unit}"] if service != "service_s" else []
    else:
        tree["seconds_per"] = {service: 1 / PER_SECOND[service_unit]}
        reasons.append(f"{service} is taken for the service time, in {service_unit}")


def _settle_order(
    tree: dict[str, Any], times_s: Floats, moments: bool, given: Mapping[str, Any], reasons: list[str]
) -> None:
    """Origin and order of the arrivals."""
    first_s, last_s = float(times_s.min()), float(times_s.max())
    if "origin" not in given and not moments and (first_s < 0 or first_s > LATE * last_s):
        tree["origin"] = "first"
        since = "since 1970" if _in_epoch("s", first_s) else "after the file's zero"
        reasons.append(f"the first arrival is at {first_s:.10g} s {since}, so arrivals count from it (origin: first)")
    if "sort" not in given and (times_s[1:] < times_s[:-1]).any():
        tree["sort"] = True
        reasons.append("rows go back in time, so they are sorted (sort: true)")


def _arrival(sample: Columns) -> str:
    """The column of arrivals. DataError where none looks like it, or several do."""
    if "arrival_s" in sample:
        return "arrival_s"
    numbers = {name for name in sample.values if _begins(sample, name, is_number)}
    moments = [name for name in sample.values if _begins(sample, name, is_moment)]
    candidates = [*numbers, *moments]
    for word in ARRIVALS.split():
        for name in sample.values:
            if name in candidates and _word(name) == word:
                return name
    if len(moments) == 1:
        return moments[0]
    if not sample.names or not len(sample):
        sample.column("arrival_s")
    raise DataError(
        f"no column of {sample.base} looks like arrival times, expected columns.arrival_s=NAME with one of "
        + ", ".join(sample.names)
    )


def _service(sample: Columns) -> str | None:
    words = SERVICES.split()
    found = [name for name in sample.values if _word(name) in words and _begins(sample, name, is_number)]
    return min(found, key=lambda name: words.index(_word(name)), default=None)


def is_class(name: str) -> bool:
    """Whether a column's name is a word for classes."""
    return _word(name) in CLASSES.split()


def _classes(sample: Columns, tree: Mapping[str, Any]) -> list[str]:
    """Columns of a few words, and of those numbers that are called a class."""
    used = {*tree["columns"].values(), *tree.get("seconds_per", ()), "priority"} - {tree["columns"].get("kind")}
    found = []
    for name, values in sample.values.items():
        different = len(set(map(str, values)))
        plain = is_class(name) or not (_begins(sample, name, is_number) or _begins(sample, name, is_moment))
        if name not in used and plain and different <= MOST_CLASSES and different <= max(1, len(values) // 2):
            found.append(name)
    return found


def _unit_of_arrivals(sample: Columns, name: str) -> Unit | None:
    """From the column's name, or as the unit in which its first value would be a time since 1970."""
    named = _unit_of(name)
    if named not in (None, "s") or not _begins(sample, name, is_number):
        return named
    first = float(sample.values[name][0])
    return next((unit for unit in PER_SECOND if _in_epoch(unit, first)), named)


def _in_epoch(unit: Unit, value: float) -> bool:
    low, high = EPOCHS[unit]
    return low <= value < high


def _unit_of(name: str) -> Unit | None:
    """Of `duration_ms` and `Duration (ms)`: ms."""
    match = _NAMED_UNIT.fullmatch(name)
    return _UNITS[match[2].lower()] if match else None


def _word(name: str) -> str:
    """A name of a column without its unit, in small letters."""
    match = _NAMED_UNIT.fullmatch(name)
    return re.sub(r"[^a-z]", "", (match[1] if match else name).lower())


def _begins(sample: Columns, name: str, is_one: Any) -> bool:
    return bool(sample.values.get(name)) and is_one(sample.values[name][0])
