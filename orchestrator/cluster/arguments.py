"""How arguments and results travel: as JSON, read by pydantic as the annotations of the function say.

Arguments are a JSON array (by position), an object (by name), or, where a call has both, an object whose member `*` is
the array, or `*rest` what a parameter of that name takes. Bytes are base64 in it, and are bytes again where the
annotation says so.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast, get_type_hints

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs, PydanticSerializationError, from_json, to_json

from orchestrator.cluster.invalid import InvalidPayload, InvalidResult, InvalidTask
from orchestrator.cluster.signatures import Signature

BY_POSITION = "*"
"""The member of an object of arguments that has those by position."""
PROBLEMS = 5
_CONFIG = ConfigDict(val_json_bytes="base64", ser_json_bytes="base64", ser_json_inf_nan="constants")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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

        self._function = function
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
        except ValidationError as error:
            raise TypeError(_sentence("wrong arguments", error)) from None
        args, kwargs = all_args[: len(args)], {name: all_kwargs[name] for name in kwargs}  # the defaults stay here
        return _dumped((), self._by_name(args, kwargs)) if args and kwargs else _dumped(args, kwargs)

    def arguments(self, payload: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            named = self._apart(payload) if f'"{BY_POSITION}' in payload else None
            if named is None:
                args, kwargs = self._arguments.validate_json(payload)
                return args, kwargs
            return self._in_order(self._named.validate_json(_json(named, "an argument")))
        except ValidationError as error:
            raise InvalidPayload(_sentence("wrong arguments", error)) from None

    def _apart(self, payload: str) -> dict[str, Any] | None:
        """All by name, where arguments come both by position and by name; None where they do not."""
        try:
            given = from_json(payload)
        except ValueError:
            return None
        if not isinstance(given, dict) or not any(name.startswith(BY_POSITION) for name in given):
            return None
        positional = given.pop(BY_POSITION, [])
        if not isinstance(positional, list):
            raise InvalidPayload(f"wrong arguments: {BY_POSITION} is an array")
        named = self._by_name(tuple(positional), given)
        return {name.removeprefix(BY_POSITION): value for name, value in named.items()}

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """`*rest` is the name of what `rest` takes of those by position."""
        named, left = dict(kwargs), list(args)
        for parameter in self._signature.parameters.values():
            if parameter.kind in _BY_POSITION and left:
                if parameter.name in named:
                    raise InvalidPayload(f"wrong arguments: {parameter.name} is given twice")
                named[parameter.name] = left.pop(0)
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL and left:
                named[f"{BY_POSITION}{parameter.name}"], left = left, []
        if left:
            raise InvalidPayload(f"wrong arguments: {len(left)} too many")
        return named

    @functools.cached_property
    def _named(self) -> TypeAdapter[Any]:
        """Reads all arguments by name."""
        hints = get_type_hints(self._function, include_extras=True)
        parameters = []
        for parameter in self._signature.parameters.values():
            kind, default = parameter.kind, parameter.default
            annotation: Any = hints.get(parameter.name, Any)
            if kind is inspect.Parameter.VAR_POSITIONAL:
                default, annotation = [], list[annotation]
            if kind is not inspect.Parameter.VAR_KEYWORD:
                kind = inspect.Parameter.KEYWORD_ONLY
            parameters.append(inspect.Parameter(parameter.name, kind, default=default, annotation=annotation))

        def given(**named: Any) -> dict[str, Any]:
            return named

        given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return TypeAdapter(cast(Any, given), config=_CONFIG)

    def _in_order(self, named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        for parameter in self._signature.parameters.values():
            if parameter.kind in _BY_POSITION:
                args.append(named.pop(parameter.name))
            elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args += named.pop(parameter.name)
        return tuple(args), named

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
