"""What a behaviour of the kit is: a function of a `Cluster`, in whichever world, that fails by raising.

Work lasts long enough for a fault to hit it in the middle, and no longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.conformance.cluster import Cluster

Show = Callable[[Cluster], None]
LONG_S = 0.7


@dataclass(frozen=True)
class Behaviour:
    """`settings`: of the scenario, by their dotted keys."""

    show: Show
    settings: dict[str, Any]

    def __str__(self) -> str:
        return self.show.__name__


def registry() -> tuple[list[Behaviour], Callable[..., Callable[[Show], Show]]]:
    """A list, and a decorator that takes settings and adds behaviours to it."""
    behaviours: list[Behaviour] = []

    def behaviour(settings: dict[str, Any] | None = None) -> Callable[[Show], Show]:
        def register(show: Show) -> Show:
            behaviours.append(Behaviour(show, settings or {}))
            return show

        return register

    return behaviours, behaviour


def other(name: str) -> str:
    """Of two workers, w1 and w2."""
    return {"w1": "w2", "w2": "w1"}[name]
