"""Ways to plant a bug by its meaning: a method is replaced, or leaves something out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from orchestrator.core.coordinator import Coordinator

Patch = Callable[[type, str, Any], None]
"""`patch(owner, name, new)`: `setattr`, or that of a test that takes it back."""


class Method(NamedTuple):
    """A method of a class, or one that it inherits."""

    owner: type
    name: str


def replace(patch: Patch, method: Method, new: Callable[..., Any]) -> None:
    """`new` is called instead, with the original and then the arguments."""
    original = getattr(method.owner, method.name)

    @functools.wraps(original)
    def replaced(*arguments: Any, **named: Any) -> Any:
        return new(original, *arguments, **named)

    patch(method.owner, method.name, replaced)


def leave_out(patch: Patch, method: Method, within: Method, answer: object = None) -> None:
    """As long as `within` is executed, a call of `method` does nothing and gives `answer`."""
    depth = 0

    def outer(original: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal depth
        depth += 1
        try:
            return original(*arguments)
        finally:
            depth -= 1

    def inner(original: Callable[..., Any], *arguments: Any) -> Any:
        return answer if depth else original(*arguments)

    replace(patch, within, outer)
    replace(patch, method, inner)


def announce_nothing(patch: Patch, effect: str, within: Method) -> None:
    """As long as `within` is executed, this effect is not announced."""

    def silent(original: Callable[..., Any], machine: Any, *arguments: Any) -> Any:
        effects = machine._fx
        machine._fx = _Without(effects, effect)
        try:
            return original(machine, *arguments)
        finally:
            machine._fx = effects

    replace(patch, within, silent)


class _Without:
    def __init__(self, effects: Any, effect: str) -> None:
        self._effects = effects
        getattr(effects, effect)  # it must exist
        setattr(self, effect, lambda *_: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._effects, name)


def of_core(name: str) -> Method:
    return Method(Coordinator, name)
