"""How a state machine says that one of its invariants is broken, also under `python -O`."""

from __future__ import annotations

from collections.abc import Iterable


class InvariantError(Exception):
    """A state that the rules exclude: a fault of the program, not of its input."""


def raise_if_broken(violations: Iterable[str]) -> None:
    """Raise InvariantError with every violation, a sentence each; nothing where there is none."""
    found = list(violations)
    if found:
        raise InvariantError("; ".join(found))
