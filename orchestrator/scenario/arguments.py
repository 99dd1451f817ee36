"""What Python code gives to a function, checked: one sentence names the argument, what it is and what was expected."""

from __future__ import annotations

import operator
from typing import Any

from orchestrator.scenario.loading import one_line, show


def require(name: str, value: object, kind: type | tuple[type, ...], expected: str) -> None:
    """TypeError for a value of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {one_line(show(value))}, expected {expected}")


def require_number(name: str, value: Any, least: int) -> int:
    """The same as a plain number. TypeError for what is no whole number, ValueError for one below `least`."""
    expected = f"expected a whole number, {least} or more"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {one_line(show(value))}, {expected}") from None
    if number < least:
        raise ValueError(f"{name} is {number}, {expected}")
    return number
