"""The grid of a sweep: its points, a name for each of them, and what is wrong with it.

Everything here works on plain trees and the model that reads them.
"""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from orchestrator.scenario.loading import KeyPath, Misfit, dotted, show, undotted
from orchestrator.scenario.validation import assign, explain

Sweep = Mapping[str, Sequence[Any]]
"""The values to try, by dotted key."""

MAX_CELLS = 10_000
TEXTS = ("name", "question")
"""What a scenario is called, and what it asks: of all its cells together."""


def points(sweep: Sweep) -> list[dict[str, Any]]:
    """Every combination of the values, in the order of the keys and their values."""
    return [dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]


def tree_at(model: type[BaseModel], tree: Mapping[str, Any], point: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with the values of one point in place. The result may not fit the model."""
    changed = copy.deepcopy(dict(tree))
    for key, value in point.items():
        assign(model, changed, undotted(key), copy.deepcopy(value))
    return changed


def misfits_of(model: type[BaseModel], tree: Mapping[str, Any], sweep: Sweep) -> list[Misfit]:
    """What is wrong with a sweep of the tree, each at the sweep's own key or value."""
    cells = math.prod(map(len, sweep.values()))
    if cells > MAX_CELLS:
        return [Misfit(("sweep",), f"has {cells:,} combinations, expected at most {MAX_CELLS:,}", "key")]
    found: dict[tuple[KeyPath, str], Misfit] = {}
    for key, values in sweep.items():
        for misfit in (*_unsweepable(model, tree, key), *_repeated(key, values)):
            found[misfit.path, misfit.message] = misfit
    if not found and sweep:
        for indices in itertools.product(*(range(len(values)) for values in sweep.values())):
            for misfit in _misfits_at(model, tree, sweep, dict(zip(sweep, indices, strict=True))):
                found.setdefault((misfit.path, misfit.message), misfit)
    return list(found.values())


def _unsweepable(model: type[BaseModel], tree: Mapping[str, Any], key: str) -> Iterator[Misfit]:
    try:
        path = undotted(key)
        if path[0] in TEXTS:
            raise Misfit(path, "cannot be swept, expected one text, in quotes if it has a comma", "key")
        if path[0] in ("model", "replications", "sweep"):
            raise Misfit(path, "cannot be swept, expected a key of one run", "key")
        tree_at(model, tree, {key: None})
    except Misfit as misfit:
        yield Misfit(("sweep", key), misfit.message, "key")


def _repeated(key: str, values: Sequence[Any]) -> Iterator[Misfit]:
    """Cells that are alike would be one cell, run twice."""
    first: dict[str, int] = {}
    for place, value in enumerate(values):
        earlier = first.setdefault(json.dumps(_plain(value), sort_keys=True, default=str), place)
        if earlier != place:
            message = f"is {show(value)} like value {earlier + 1}, expected each value once"
            yield Misfit(("sweep", key, place), message)


def _plain(value: Any) -> Any:
    """With 2 for 2.0, which are one value of a setting."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _misfits_at(
    model: type[BaseModel], tree: Mapping[str, Any], sweep: Sweep, indices: Mapping[str, int]
) -> Iterator[Misfit]:
    """What is wrong with one point, blamed on the swept key that is nearest to each misfit."""
    changed = tree_at(model, tree, {key: sweep[key][index] for key, index in indices.items()})
    try:
        model.model_validate(changed)
    except ValidationError as error:
        for misfit in explain(error, model, changed):
            key = max(indices, key=lambda key: _common(undotted(key), misfit.path))
            swept = undotted(key)
            if misfit.place == "key" and misfit.path == swept[: len(misfit.path)]:
                yield Misfit(("sweep", key), misfit.message, "key")
                continue
            inside = "" if misfit.path == swept else f"{dotted(misfit.path)}: "
            yield Misfit(("sweep", key, indices[key]), inside + misfit.message)


def _common(one: KeyPath, other: KeyPath) -> int:
    """How many leading keys two paths share."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A different name for each point, fit for a directory: `timeout_s=2,routing=random`."""
    found: list[str] = []
    for label in _labels(points):
        name = label[:120]
        found.append(f"{name}-{len(found) + 1}" if name in found else name)
    return found


def _labels(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The same, in full, and alike for points that are; empty for a point without keys."""
    keys = short_keys(list(points[0]))
    texts = (",".join(f"{keys[key]}={_word(value)}" for key, value in point.items()) for point in points)
    return [re.sub(r"[^\w.,=+-]+", "-", text) for text in texts]


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """A short label for each dotted key: its last part, the part before `.kind`, or the whole key if two are alike."""
    parts = {key: key.removesuffix(".kind").split(".")[-1] for key in keys}
    labels = list(parts.values())
    return {key: label if labels.count(label) == 1 else key for key, label in parts.items()}


def _word(value: Any) -> str:
    if isinstance(value, dict):
        rest = [f"{key}={_word(item)}" for key, item in value.items() if key != "kind"]
        return "-".join([str(value["kind"]), *rest] if "kind" in value else rest)
    if isinstance(value, list):
        return "-".join(map(_word, value))
    if isinstance(value, str):
        return Path(value).name
    return "null" if value is None else str(value).lower()
