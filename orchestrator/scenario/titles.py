"""What people call the values and the cells of a sweep, in pictures, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.scenario.sweeps import short_keys

NO_FAULT = "no fault"
_WHEN = {"at_s": "at {} s", "every_s": "every {} s", "mtbf_s": "every {} s on average"}
_THEN = {"for_s": "for {} s", "restart_after_s": "back after {} s", "mttr_s": "back after {} s on average"}


def readable(value: Any) -> Any:
    """A swept value that fits a table cell or a legend: `{kind: power_of_d, d: 2}` becomes `power_of_d d=2`."""
    if isinstance(value, Mapping):
        return " ".join(str(v) if key == "kind" else f"{key}={readable(v)}" for key, v in value.items())
    if isinstance(value, list):
        return " + ".join(str(readable(item)) for item in value) or "none"
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return "none" if value is None else value


def value_title(key: str, value: Any) -> str:
    """A value of a swept key, where the key is written beside it: `no fault`, `crash of w3 at 10 s, back after 5 s`."""
    if key == "faults" and isinstance(value, list):
        return " + ".join(_fault(one) if isinstance(one, Mapping) else str(readable(one)) for one in value) or NO_FAULT
    return str(readable(value))


def table_value(key: str, value: Any) -> Any:
    """The same for a column of a table: a number stays one."""
    return value_title(key, value) if key == "faults" else readable(value)


def cell_title(values: Mapping[str, Any]) -> str:
    """A cell by its swept values: `no fault, routing=random`; different for different values.

    Empty for a cell without any.
    """
    keys = short_keys(list(values))
    return ", ".join(_part(key, keys[key], value) for key, value in values.items())


def _part(key: str, short: str, value: Any) -> str:
    if key == "faults" and isinstance(value, list):
        return value_title(key, value)
    if value is None or value == []:
        return f"no {short.rpartition('.')[2].removesuffix('_s').replace('_', ' ')}"
    if isinstance(value, bool):
        return f"{short}={str(value).lower()}"
    named = isinstance(value, Mapping) and "kind" not in value  # its first key would stand behind two signs
    return f"{short}{' ' if named else '='}{readable(value)}"


def _fault(fault: Mapping[str, Any]) -> str:
    """Everything that is said of a fault, so that two faults never look alike."""
    rest = dict(fault)
    words = [str(rest.pop("kind", "fault")).replace("_", " ")]
    if isinstance(rest.get("workers"), list):
        words.append(f"of {', '.join(map(str, rest.pop('workers')))}")
    elif rest.get("group") is not None:
        words.append(f"of {rest.pop('group')}")
    elif rest.get("all") is True:
        words.append("of all")
        rest.pop("all")
    when = [_WHEN[key].format(readable(rest.pop(key))) for key in _WHEN if rest.get(key) is not None]
    then = [_THEN[key].format(readable(rest.pop(key))) for key in _THEN if isinstance(rest.get(key), int | float)]
    return ", ".join([" ".join([*words, *when]), *then, *(f"{key}={readable(other)}" for key, other in rest.items())])
