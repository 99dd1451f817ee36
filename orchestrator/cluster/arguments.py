"""How arguments and results travel: as JSON, read by pydantic as the annotations of the function say.

Arguments are a JSON array (by position), an object (by name), or, where a call has both, an object whose member `*` is
the array. Bytes are base64 in it, and are bytes again where the annotation says so.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, PydanticSerializationError, from_json, to_json

from orchestrator.cluster.invalid import InvalidPayload, InvalidResult, InvalidTask
from orchestrator.cluster.signatures import Signature

BY_POSITION = "*"
"""The member of an object of arguments that has those by position."""
PROBLEMS = 5
_CONFIG = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64", arbitrary_types_allowed=False)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class UncheckedSignature(Signature):
    """Of a task whose function is not here."""

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        return _dumped(args, kwargs)

    def result(self, text: str) -> Any:
        return from_json(text)


class CheckedSignature(Signature):
    """Of a function that is here. InvalidTask where one of its annotations means nothing to pydantic."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        def given(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return args, kwargs

        functools.update_wrapper(given, function)
        try:
            self._signature = inspect.signature(function)
            self._arguments: TypeAdapter[Any] = TypeAdapter(cast(Any, given), config=_CONFIG)
            returned = inspect.signature(function, eval_str=True).return_annotation
            returned = Any if returned is inspect.Signature.empty else returned
            try:
                self._result: TypeAdapter[Any] = TypeAdapter(returned, config=_CONFIG)
            except PydanticUserError:  # models, dataclasses and typed dictionaries have a configuration of their own
                self._result = TypeAdapter(returned)
        except Exception as error:  # also whatever evaluating an annotation raises
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InvalidTask(f"the annotations of task {name!r} can't be used: {reason}") from None

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        try:
            all_args, all_kwargs = self._arguments.validate_python(ArgsKwargs(args, kwargs))
            args, kwargs = all_args[: len(args)], {name: all_kwargs[name] for name in kwargs}  # the defaults stay here
            if args and kwargs:
                args, kwargs = self._by_name(args, kwargs)
        except ValidationError as error:
            raise TypeError(_sentence("wrong arguments", error)) from None
        except InvalidPayload as error:
            raise TypeError(str(error)) from None
        return _dumped(args, kwargs)

    def arguments(self, payload: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if f'"{BY_POSITION}"' in payload:
            payload = self._apart(payload)
        try:
            args, kwargs = self._arguments.validate_json(payload)
        except ValidationError as error:
            raise InvalidPayload(_sentence("wrong arguments", error)) from None
        return args, kwargs

    def _apart(self, payload: str) -> str:
        """Where arguments come both by position and by name: all by name, if that is what they are."""
        try:
            given = from_json(payload)
        except ValueError:
            return payload
        if not isinstance(given, dict) or not isinstance(given.get(BY_POSITION), list):
            return payload
        positional = given.pop(BY_POSITION)
        return _json(self._by_name(tuple(positional), given)[1], "an argument")

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All arguments by name. InvalidPayload where some can't be."""
        parameters = list(self._signature.parameters.values())
        named = [parameter.name for parameter in parameters[: len(args)] if parameter.kind in _BY_NAME]
        twice = [name for name in named if name in kwargs]
        if twice or len(named) < len(args):
            wanted = f"{twice[0]} is given twice" if twice else "those by position can't be given by name"
            raise InvalidPayload(f"wrong arguments: {wanted}, and others are given by name")
        return (), {**dict(zip(named, args, strict=True)), **kwargs}

    def dump_result(self, value: Any) -> str:
        try:
            return self._result.dump_json(self._result.validate_python(value)).decode()
        except ValidationError as error:
            raise InvalidResult(_sentence("its result is not what its annotation says", error)) from None
        except Exception as error:  # of a serializer of the user's own, too
            raise InvalidResult(f"its result can't travel as JSON: {error}") from None

    def result(self, text: str) -> Any:
        try:
            return self._result.validate_json(text)
        except ValidationError as error:
            raise ValueError(_sentence("the result is not what the annotation says", error)) from None


def signature_of(name: str, function: Callable[..., Any] | None) -> Signature:
    return UncheckedSignature() if function is None else CheckedSignature(name, function)


def _dumped(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if BY_POSITION in kwargs:
        raise TypeError(f"no argument can be named {BY_POSITION!r}")
    return _json({BY_POSITION: list(args), **kwargs} if args and kwargs else kwargs or list(args), "an argument")


def _json(value: Any, what: str) -> str:
    try:
        return to_json(value, bytes_mode="base64").decode()
    except PydanticSerializationError as error:
        raise TypeError(f"{what} can't travel as JSON: {error}") from None


def _sentence(what: str, error: ValidationError) -> str:
    """Each mistake with its place."""
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'all of them'}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" and {len(problems) - PROBLEMS} more" if len(problems) > PROBLEMS else ""
    return f"{what}: {'; '.join(problems[:PROBLEMS])}{more}"
