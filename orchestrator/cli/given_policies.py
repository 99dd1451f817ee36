"""Policies as a person gives them to a coordinator: a YAML file, and KEY=VALUE instead of some of its values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.policies.settings import Policies

DEFAULTS = Policies()
PREFIX = "policies."
"""A key may begin with it, as it does in a scenario."""


class SettingsError(Exception):
    """Policies that make no sense: `problems`, a sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def read_policies(file: Path | None = None, overrides: Iterable[str] = ()) -> Policies:
    """The file's policies, or the defaults, with these keys set. Raises SettingsError.

    Parameters without a kind are those of the default one. A kind that is set anew has none of the parameters of the
    kind before.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        try:
            read = _yaml(file.read_text(encoding="utf-8"), str(file))
        except OSError as error:
            raise SettingsError([f"{file}: {error.strerror}"]) from None
        if not isinstance(read, dict):
            raise SettingsError([f"{file}: expected a mapping, such as `routing: {{kind: random}}`"])
        tree = read
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise SettingsError([f"{override}: expected KEY=VALUE, such as detection.timeout_s=10"])
        _set(tree, key.removeprefix(PREFIX).split("."), _yaml(value, override), override)
    for name, given in tree.items():
        kind = getattr(getattr(DEFAULTS, name, None), "kind", None)
        if kind is not None and isinstance(given, dict) and "kind" not in given:
            tree[name] = {"kind": kind, **given}
    try:
        return Policies.model_validate(tree)
    except ValidationError as error:
        raise SettingsError([_told(tree, problem["loc"], problem["msg"]) for problem in error.errors()]) from None


def _yaml(text: str, source: str) -> Any:
    from ruamel.yaml import YAML  # it takes a while, and most coordinators are given nothing to read
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SettingsError([f"{source}: this is no YAML: {' '.join(str(error).split())}"]) from None


def _set(tree: dict[str, Any], path: list[str], value: Any, source: str) -> None:
    here = tree
    for part in path[:-1]:
        below = here.setdefault(part, {})
        if not isinstance(below, dict):
            raise SettingsError([f"{source}: {part} is {below!r}, which has no keys"])
        here = below
    if path[-1] == "kind" and here.get("kind", value) != value:
        here.clear()
    here[path[-1]] = value


def _told(tree: Any, location: Sequence[str | int], message: str) -> str:
    """The key as a person writes it: a location names the kinds of policies too, where the tree has none."""
    path: list[str] = []
    for number, part in enumerate(location):
        last = number == len(location) - 1
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
            path.append(str(part))
        elif last:
            path.append(str(part))
    return f"{PREFIX}{'.'.join(path)}: {message}"
