"""Where a scenario's values come from besides its own file: overrides, data files, a calibrated model."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.scenario.loading import (
    Document,
    KeyPath,
    Misfit,
    ParseError,
    Problem,
    ScenarioError,
    dotted,
    parse,
    read_document,
    undotted,
)
from orchestrator.scenario.validation import assign, explain


def override(model: type[BaseModel], document: Document, text: str, roots: Sequence[str]) -> Iterator[Problem]:
    """Apply one `key=value` to the document. What keeps it from being applied is a problem."""
    key, equals, value_text = text.partition("=")
    try:
        if not equals:
            raise Misfit((key,), "is no override, expected key=value", "key")
        path = undotted(key.strip())
        value, _ = parse(value_text)
        assign(model, document.tree, path, with_absolute_files(value, path, roots))
        document.override(path)
    except Misfit as misfit:
        yield document.problem(misfit)
    except ParseError as error:
        yield document.problem(Misfit(path, str(error), "key"))


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
