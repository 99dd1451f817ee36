"""Plain trees and the models that will read them: edits by key, and errors in the words of a scenario.

pydantic gives the place of an error as a path through the branches of unions, and describes it in terms of Python's
types. This module walks the model's annotations beside the tree. So a path consists of keys, a new kind drops the keys
that it does not know, an absent mapping starts from its default, and a message says what was expected.
"""

from __future__ import annotations

import difflib
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, Discriminator, Tag, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from orchestrator.policies.config import Custom
from orchestrator.scenario.loading import KeyPath, Misfit, Place, dotted, show

DOTTED_KIND = "package.module:Class"

WORDS = {
    float: "a number",
    int: "a whole number",
    str: "text",
    bool: "true or false",
    type(None): "null",
    list: "a list",
    dict: "a mapping",
}

EXPECTED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:,.12g}",
    "greater_than_equal": "at least {ge:,.12g}",
    "less_than": "less than {lt:,.12g}",
    "less_than_equal": "at most {le:,.12g}",
    "literal_error": "{expected}",
    "string_too_short": "some text",
    "too_short": "a list of at least {min_length}",
}

RENAMED: dict[KeyPath, str] = {
    ("detection", "max_ejected"): "max_dead_share",
    ("network", "legs"): "message_kinds",
    ("retry", "poison_after"): "max_worker_kills",
}
"""Old keys, each with the one around it, and their new names."""


def with_new_names(tree: Any, around: str = "") -> Any:
    """The tree with new names for old ones, also in the dotted keys of a sweep. `around`: the key of the tree."""
    if isinstance(tree, list):
        return [with_new_names(value, around) for value in tree]
    if not isinstance(tree, dict):
        return tree
    renamed = {}
    for key, value in tree.items():
        *above, last = str(key).split(".")
        new = RENAMED.get(((above or [around])[-1], last))
        renamed[key if new is None else ".".join([*above, new])] = with_new_names(value, last)
    return renamed


def misfit(path: KeyPath, message: str, place: Place = "value") -> PydanticCustomError:
    """What a validator raises to blame the value (or the key) at a path below its own model."""
    return misfits([Misfit(path, message, place)])


def misfits(found: Sequence[Misfit]) -> PydanticCustomError:
    return PydanticCustomError("misfits", "does not fit", {"found": list(found)})


def assign(model: type[BaseModel], tree: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Set one value in a tree that `model` will read, creating the mappings around it.

    A mapping that is absent starts as the schema's default of that key, as it would have been without the
    value. Setting a `kind` drops the parameters beside it that the new kind does not know. Misfit where the path
    leads through something that is no mapping, or past the end of a list.
    """
    node: Any = tree
    annotation: Any = model
    for depth, part in enumerate(path[:-1]):
        part = _part_of(node, part, path[: depth + 1])
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = _default(resolve(annotation, node), part)
        annotation = _child(annotation, node, part)
        node = node[part]
    last = _part_of(node, path[-1], path)
    changed = not isinstance(node, dict) or node.get(last) != value
    node[last] = value
    if last == "kind" and changed:
        known = _known_to(resolve(annotation, node), value)
        for name in [name for name in node if known and name not in known]:
            del node[name]


def explain(error: ValidationError, model: type[BaseModel], tree: Any) -> list[Misfit]:
    """All that pydantic found wrong with a tree, by key and in plain words."""
    return [misfit for details in error.errors() for misfit in _explain(details, model, tree)]


def resolve(annotation: Any, value: Any) -> Any:
    """The model (or plain type) that reads `value` where the schema says `annotation`; None if no kind fits."""
    base, _ = _bare(annotation)
    if get_origin(base) not in (Union, types.UnionType):
        return base
    if choice := _choice(annotation):
        return choice.models.get(choice.tag_of(value))
    members = [member for member in get_args(base) if member is not type(None)]
    return resolve(members[0], value) if len(members) == 1 else None


def kinds(annotation: Any) -> list[str]:
    """The values of `kind` that a union of the schema knows."""
    choice = _choice(annotation)
    return [DOTTED_KIND if tag == "custom" else tag for tag in choice.models] if choice else []


def _explain(details: ErrorDetails, model: type[BaseModel], tree: Any) -> Iterator[Misfit]:
    path, annotation, value = _locate(details["loc"], model, tree)
    kind, context = details["type"], details.get("ctx", {})
    if kind == "misfits":
        for found in context["found"]:
            yield Misfit((*path, *found.path), found.message, found.place)
    elif kind == "missing":
        yield Misfit(path, f"is missing, expected {_wanted(annotation)}", "key")
    elif kind == "extra_forbidden":
        yield Misfit(path, _unknown_key(path, model, tree), "key")
    elif kind in ("union_tag_invalid", "union_tag_not_found", "string_pattern_mismatch"):
        yield _unknown_kind(path, annotation, value, model, tree)
    elif kind in ("model_type", "model_attributes_type"):
        yield Misfit(path, f"is {show(value)}, expected {_wanted(annotation)}")
    elif kind == "value_error":
        shape = resolve(annotation, value)
        is_custom = inspect.isclass(shape) and issubclass(shape, Custom)
        yield Misfit((*path, "kind") if is_custom else path, str(context["error"]))
    elif kind in EXPECTED:
        expected = EXPECTED[kind].format(**context) + _or_null(annotation)
        yield Misfit(path, f"is {show(value)}, expected {expected}")
    else:
        yield Misfit(path, f"is {show(value)}, expected otherwise: {details['msg']}")


def _locate(loc: tuple[str | int, ...], model: type[BaseModel], tree: Any) -> tuple[KeyPath, Any, Any]:
    """pydantic's location as a path of keys, with what the schema says there and the value there."""
    path: KeyPath = ()
    annotation: Any = model
    value = tree
    parts = list(loc)
    while parts:
        if (choice := _choice(annotation)) and parts[0] in choice.models:
            parts.pop(0)
            annotation = choice.models.get(choice.tag_of(value), Any)
            continue
        if not isinstance(value, dict | list):
            break  # a number that stands for a constant distribution: its parts are not in the tree
        part = parts.pop(0)
        path = (*path, part)
        annotation = _child(annotation, value, part)
        value = _get(value, part)
    return path, annotation, value


def _unknown_key(path: KeyPath, model: type[BaseModel], tree: Any) -> str:
    if new := RENAMED.get(path[-2:]):
        return f"was renamed, expected {dotted((*path[:-1], new))}"
    annotation, value = _walk(model, tree, path[:-1])
    known = sorted(_hints(resolve(annotation, value)))
    near = difflib.get_close_matches(str(path[-1]), known, 1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"unknown key, {guess}expected one of {', '.join(known)}"


def _unknown_kind(path: KeyPath, annotation: Any, value: Any, model: type[BaseModel], tree: Any) -> Misfit:
    if path and path[-1] == "kind" and not isinstance(value, dict):
        path = path[:-1]
        annotation, value = _walk(model, tree, path)
    if not isinstance(value, dict):
        return Misfit(path, f"is {show(value)}, expected {_wanted(annotation)}")
    known = ", ".join(kinds(annotation))
    if "kind" not in value:
        return Misfit((*path, "kind"), f"is missing, expected one of {known}", "key")
    kind = value["kind"]
    near = difflib.get_close_matches(str(kind), kinds(annotation), 1)
    guess = f"did you mean {near[0]}? " if near else ""
    return Misfit((*path, "kind"), f"unknown kind {show(kind)}, {guess}expected one of {known}")


def _wanted(annotation: Any) -> str:
    """What belongs at a place of the schema, in a few words."""
    base, metadata = _bare(annotation)
    for item in metadata:
        if isinstance(item, BeforeValidator):
            return _wanted(item.json_schema_input_type)
    if _choice(annotation):
        return f"a mapping with a kind ({', '.join(kinds(annotation))})"
    if get_origin(base) in (Union, types.UnionType):
        words = [_wanted(member) for member in get_args(base)]
        return " or ".join(dict.fromkeys(words))
    if inspect.isclass(base) and issubclass(base, BaseModel):
        return f"a mapping of {', '.join(_hints(base))}"
    return WORDS.get(get_origin(base) or base, "a value")


def _or_null(annotation: Any) -> str:
    base, _ = _bare(annotation)
    return " or null" if type(None) in get_args(base) else ""


def _walk(model: type[BaseModel], tree: Any, path: KeyPath) -> tuple[Any, Any]:
    annotation: Any = model
    value = tree
    for part in path:
        annotation = _child(annotation, value, part)
        value = _get(value, part)
    return annotation, value


def _child(annotation: Any, value: Any, part: str | int) -> Any:
    """What the schema says of one key below a place; Any where it says nothing."""
    shape = resolve(annotation, value)
    if get_origin(shape) in (list, dict):
        return get_args(shape)[-1]
    return _hints(shape).get(str(part), Any)


def _get(value: Any, part: str | int) -> Any:
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return None


def _part_of(node: Any, part: str | int, path: KeyPath) -> str | int:
    """`part` as a key of a mapping, or as an index of a list that reaches so far."""
    if isinstance(node, dict):
        return str(part)
    if not isinstance(node, list):
        raise Misfit(path, f"{dotted(path[:-1])} is {show(node)}, expected a mapping around this key", "key")
    if not isinstance(part, int) or part >= len(node):
        message = f"{dotted(path[:-1])} is a list of {len(node)}, expected an index below that"
        raise Misfit(path, message, "key")
    return part


def _default(shape: Any, name: str | int) -> Any:
    if not (inspect.isclass(shape) and issubclass(shape, BaseModel)) or name not in shape.model_fields:
        return {}
    default = shape.model_fields[str(name)].get_default(call_default_factory=True)
    return default.model_dump() if isinstance(default, BaseModel) else {}


def _known_to(shape: Any, kind: Any) -> set[str]:
    """The keys that a kind's model takes; empty where there is no such kind."""
    known = set(_hints(shape))
    if known and issubclass(shape, Custom):
        with suppress(ValueError, TypeError):
            known.update(inspect.signature(shape.model_construct(kind=kind).load()).parameters)
    return known


@cache
def _hints(shape: Any) -> dict[str, Any]:
    if not (inspect.isclass(shape) and issubclass(shape, BaseModel)):
        return {}
    hints = get_type_hints(shape, include_extras=True)
    return {name: hints[name] for name in shape.model_fields}


def _bare(annotation: Any) -> tuple[Any, Sequence[Any]]:
    if get_origin(annotation) is Annotated:
        base, *metadata = get_args(annotation)
        return base, metadata
    return annotation, ()


class _Choice(NamedTuple):
    """A discriminated union: what tells a value's tag, and the models by tag."""

    tag_of: Callable[[Any], Any]
    models: dict[Any, Any]


def _choice(annotation: Any) -> _Choice | None:
    base, metadata = _bare(annotation)
    discriminator = next((item for item in metadata if isinstance(item, Discriminator)), None)
    if discriminator is None:
        members = [member for member in get_args(base) if member is not type(None)]
        return _choice(members[0]) if type(None) in get_args(base) and len(members) == 1 else None
    assert callable(discriminator.discriminator), "the schema's unions tell their members by a function"
    models = {}
    for member in get_args(base):
        model, member_metadata = _bare(member)
        models[next(item.tag for item in member_metadata if isinstance(item, Tag))] = model
    return _Choice(discriminator.discriminator, models)
