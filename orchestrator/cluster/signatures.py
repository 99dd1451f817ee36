"""How the arguments and the result of a task travel: as one text each. `arguments` makes it JSON."""

from __future__ import annotations

from typing import Any

from orchestrator.cluster.invalid import InvalidResult


class Signature:
    """Of a function; the first and the last method are its client's, the others its worker's."""

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """TypeError where they do not fit, or can't travel."""
        raise NotImplementedError

    def arguments(self, payload: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """InvalidPayload where they do not fit."""
        raise NotImplementedError

    def dump_result(self, value: Any) -> str:
        """InvalidResult for one that can't travel, or is not as annotated."""
        raise NotImplementedError

    def result(self, text: str) -> Any:
        """ValueError for what is no such result."""
        raise NotImplementedError


class TextSignature(Signature):
    """One text in, one text out, as they are."""

    def dump_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if kwargs or len(args) != 1 or not isinstance(args[0], str):
            raise TypeError("this task takes one text")
        return args[0]

    def arguments(self, payload: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (payload,), {}

    def dump_result(self, value: Any) -> str:
        if not isinstance(value, str):
            raise InvalidResult(f"a task of texts returns a text, not {value!r:.80}")
        return value

    def result(self, text: str) -> Any:
        return text
