"""Where a scenario's values come from besides its own file: overrides, data files, a calibrated model."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.scenario.arguments import require
from orchestrator.scenario.loading import (
    Document,
    KeyPath,
    Mark,
    Misfit,
    ParseError,
    Position,
    Problem,
    ScenarioError,
    dotted,
    parse,
    read_document,
    show,
    undotted,
)
from orchestrator.scenario.validation import assign, explain

Marks = dict[KeyPath, Mark]
Overrides = Mapping[str, Any] | Sequence[str]
"""Values by dotted key, or texts `key=value`."""
_EXPECTED = 'values by dotted key, as {"seed": 7}, or texts, as ["seed=7"]'


def overridden(
    model: type[BaseModel], document: Document, overrides: Overrides, roots: Sequence[str]
) -> Iterator[Problem]:
    """Apply all of them to a scenario's document, in their order. What keeps one from being applied is a problem.

    TypeError for what is neither a mapping nor texts.
    """
    if isinstance(overrides, Mapping):
        for number, (key, value) in enumerate(overrides.items(), start=1):
            yield from _given(model, document, key, value, roots, number)
        return
    if isinstance(overrides, str):
        overrides = [overrides]  # otherwise every letter would be one
    require("overrides", overrides, Iterable, _EXPECTED)
    for number, text in enumerate(overrides, start=1):
        require(f"override {number}", text, str, _EXPECTED)
        yield from override(model, document, text, roots, number, sweepable=True)


def _given(
    model: type[BaseModel], document: Document, key: str, value: Any, roots: Sequence[str], number: int
) -> Iterator[Problem]:
    """Apply one Python value. A list is a list: what is to be swept stands below `sweep`."""
    start = Position(number, 0, str(key))
    try:
        path = undotted(key) if isinstance(key, str) else ()
        if not path:
            raise Misfit((str(key),), "is no key, expected text with dots, as in policies.retry.max_attempts", "key")
        value = with_absolute_files(_plain(value, path), path, roots)
        _forget_sweep(document.tree, path)
        assign(model, document.tree, path, value)
        document.override(path, {(): Mark(start, start)})
    except Misfit as misfit:
        yield Problem.at(document.file, start, misfit.path, misfit.message, document.what)


def hinted(misfit: Misfit, overrides: Overrides) -> Misfit:
    """With a hint where a list was given to a key that takes none."""
    key = dotted(misfit.path)
    listed = isinstance(overrides, Mapping) and isinstance(overrides.get(key), list | tuple | range)
    if not listed or misfit.path[:1] == ("sweep",):
        return misfit
    return Misfit(misfit.path, f"{misfit.message} (to sweep it, give the list to sweep.{key})", misfit.place)


def _plain(value: Any, path: KeyPath) -> Any:
    """What a YAML file could have said instead. Misfit for anything else."""
    if hasattr(value, "tolist"):  # of numpy and pandas, whose numbers may pass for Python's
        return _plain(value.tolist(), path)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(item, (*path, place)) for place, item in enumerate(value)]
    raise Misfit(path, f"is {show(value)}, expected numbers, text, null, lists, and mappings with text as keys")


def override(
    model: type[BaseModel],
    document: Document,
    text: str,
    roots: Sequence[str],
    number: int = 1,
    sweepable: bool = False,
) -> Iterator[Problem]:
    """Apply one `key=value`, the `number`-th one, to the document. What keeps it from being applied is a problem.

    `sweepable`: values between commas sweep the key, and a single value takes the key out of the file's sweep.
    """
    key, equals, value_text = text.partition("=")
    at = partial(_position, number, text)
    try:
        if not equals:
            raise Misfit((key,), "is no override, expected key=value", "key")
        path = undotted(key.strip())
        value, marks, sweeps = _read(value_text, sweepable)
        if sweepable:
            _forget_sweep(document.tree, path)
        if sweeps and path[0] != "sweep":
            path = ("sweep", key.strip())
        assign(model, document.tree, path, with_absolute_files(value, path, roots))
        start = at(0)
        below = {
            inside: Mark(*(at(len(key) + 1 + _offset(value_text, position)) for position in mark))
            for inside, mark in marks.items()
        }
        document.override(path, {**below, (): Mark(start, below[()].value if () in below else start)})
    except Misfit as misfit:
        yield Problem.at(document.file, at(0), misfit.path, misfit.message, document.what)
    except ParseError as error:
        for _, position, message in error.found:
            yield Problem.at(document.file, at(len(key) + 1 + _offset(value_text, position)), path, message)


def _position(number: int, text: str, offset: int) -> Position:
    return Position(number, offset + 1, text)


def _offset(text: str, position: Position) -> int:
    """How many characters of a text stand before a position in it."""
    before = text.splitlines(keepends=True)[: position.line - 1]
    return sum(map(len, before)) + position.column - 1


def _read(text: str, sweepable: bool) -> tuple[Any, Marks, bool]:
    """The value of an override, its marks, and whether it is a list of values between commas."""
    try:
        value, marks = parse(text)
    except ParseError:
        listed = _listed(text) if sweepable else None  # "a","b" or {...},{...}
        if listed is None:
            raise
        return *listed, True
    if sweepable and isinstance(value, str) and text.strip()[:1] not in ("'", '"', "|", ">"):
        listed = _listed(text)
        if listed is not None:
            return *listed, True
    return value, marks, False


def _listed(text: str) -> tuple[list[Any], Marks] | None:
    """The values between the commas of a text, which stand inside of no bracket and no quotes; None if it has none."""
    try:
        values, marks = parse(f"[{text}]")
    except ParseError:
        return None
    if not isinstance(values, list) or len(values) < 2:
        return None
    moved = {
        path: Mark(*(position._replace(column=max(1, position.column - (position.line == 1))) for position in mark))
        for path, mark in marks.items()
    }
    return values, moved


def _forget_sweep(tree: dict[str, Any], path: KeyPath) -> None:
    """The file sweeps that key no longer, whichever way it is written there."""
    swept = tree.get("sweep")
    if isinstance(swept, dict):
        tree["sweep"] = {key: values for key, values in swept.items() if _path_of(key) != path}


def _path_of(key: str) -> KeyPath | None:
    try:
        return undotted(key)
    except Misfit:
        return None


def with_absolute_files(value: Any, path: KeyPath, roots: Sequence[str]) -> Any:
    """The tree at a path, with absolute names of existing files. Each root is searched in turn."""
    if isinstance(value, dict):
        return {key: with_absolute_files(item, (*path, key), roots) for key, item in value.items()}
    if isinstance(value, list):
        return [with_absolute_files(item, (*path, i), roots) for i, item in enumerate(value)]
    if isinstance(value, str) and _names_a_file(path):
        candidates = (os.path.abspath(os.path.join(root, value)) for root in roots)
        return next(filter(os.path.isfile, candidates), value)
    return value


def with_digests(value: Any, path: KeyPath = ()) -> Any:
    """The tree at a path, with the SHA-256 of each data file in the place of its name."""
    if isinstance(value, dict):
        return {key: with_digests(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [with_digests(item, (*path, i)) for i, item in enumerate(value)]
    if isinstance(value, str) and _names_a_file(path) and os.path.isfile(value):
        status = os.stat(value)
        return _digest(value, status.st_mtime_ns, status.st_size)
    return value


@functools.cache
def _digest(file: str, *_: int) -> str:
    """Read once as long as its time and its size are the same: a sweep asks for every run."""
    with open(file, "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def read_model(file: str) -> dict[str, Any]:
    """The values of a model file. ScenarioError says what is wrong, at its place in that file."""
    from orchestrator.scenario.sections import Model  # it needs numpy, which a coordinator given KEY=VALUE does not

    document = read_document(Path(file), "model")
    roots = (os.path.dirname(os.path.abspath(file)), os.getcwd())
    document.tree = with_absolute_files(document.tree, (), roots)
    try:
        Model.model_validate(document.tree)
    except ValidationError as error:
        raise ScenarioError([document.problem(misfit) for misfit in explain(error, Model, document.tree)]) from None
    return {key: value for key, value in document.tree.items() if key != "calibration"}


def completed(own: Any, below: Any) -> Any:
    """`own`, with the values of `below` wherever `own` is silent or null. A mapping with a kind counts as one value."""
    if own is None:
        return below
    if not (isinstance(own, dict) and isinstance(below, dict)) or "kind" in own:
        return own
    return {**below, **{key: completed(value, below.get(key)) for key, value in own.items()}}


def _names_a_file(path: KeyPath) -> bool:
    keys = [key for key in re.split(r"[.\[\]]+", dotted(path).removeprefix("sweep.")) if not key.isdecimal()]
    keys = [key for key in keys if key]
    return keys == ["model"] or (keys[-1:] == ["file"] and keys[0] != "policies")
