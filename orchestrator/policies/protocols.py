"""Whether a class of the user's own has the methods that its protocol asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any


def methods(protocol: type) -> dict[str, list[str]]:
    """The methods that a protocol declares, and the parameters that each is called with."""
    return {
        name: [parameter.name for parameter in list(inspect.signature(method).parameters.values())[1:]]
        for declaring in reversed(protocol.__mro__)
        for name, method in vars(declaring).items()
        if isinstance(method, FunctionType) and method.__module__ == declaring.__module__ != "typing"
    }


def objection(cls: Any, protocol: type, extensions: Sequence[type], role: str) -> str | None:
    """Why an object of this class can't serve as `role` ("a queue"), or None. The sentence continues the class's name.

    Methods of an extension may be missing. Those that are there must fit.
    """
    if not inspect.isclass(cls):
        return f"is {_described(cls)}, expected a class"
    required = methods(protocol)
    missing = [_call(name, parameters) for name, parameters in required.items() if _is_missing(cls, name, protocol)]
    if missing:
        return f"lacks {_listed(missing)}, expected a class with every method of {role}"
    optional = {name: parameters for extension in extensions for name, parameters in methods(extension).items()}
    for name, parameters in {**required, **optional}.items():
        if given := _misfit(cls, name, len(parameters)):
            return f"has {given}, expected {_call(name, parameters)} of {role}"
    return None


def signature_of(call: Callable[..., Any]) -> inspect.Signature | None:
    """The signature, or None where it is not known, as of some callables that are written in C."""
    try:
        return inspect.signature(call)
    except (TypeError, ValueError):
        return None


def _attribute(cls: type, name: str) -> Any:
    """What the class and its bases say of a name, and None if they say nothing. A metaclass says nothing here."""
    return next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)


def _is_missing(cls: type, name: str, protocol: type) -> bool:
    attribute = _attribute(cls, name)
    if attribute is None:
        # What `__getattr__` will answer is not known. Python looks up special methods without it.
        return name.startswith("__") or _attribute(cls, "__getattr__") is None
    # A stub that was inherited from the protocol does nothing.
    return attribute is _attribute(protocol, name) or getattr(attribute, "__isabstractmethod__", False)


def _misfit(cls: type, name: str, arguments: int) -> str | None:
    """The attribute as it is, if it can't be called with so many positional arguments."""
    attribute = _attribute(cls, name)
    if attribute is None or isinstance(attribute, property):
        return None  # what it answers is not known before the object exists
    method = getattr(cls, name)
    if not callable(method):
        return f"{name} = {method!r}"
    signature = signature_of(method)
    if signature is None:
        return None
    is_bound_later = hasattr(type(attribute), "__get__") and not isinstance(attribute, classmethod | staticmethod)
    try:
        signature.bind(*[None] * (arguments + is_bound_later))
    except TypeError:
        return f"{name}{signature}"
    return None


def _call(name: str, parameters: list[str]) -> str:
    return f"{name}({', '.join(parameters)})"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _described(value: Any) -> str:
    kind = "function" if isinstance(value, FunctionType) else type(value).__name__
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
