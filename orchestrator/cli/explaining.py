"""What one key of a scenario means, or one number of the results: from their descriptions, which are kept elsewhere."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.cli.examples import shipped

UNITS = {"_per_s": "per second", "_s": "seconds", "_bytes": "bytes"}
NOTHING = {"[]": "empty", "{}": "empty"}
NO_DEFAULT = "none, it need not be given"
ANY = "*"
"""In a key, the place of a name that the user chooses."""


@dataclass
class Form:
    """What a key is where the mapping around it has one of these kinds; of all of them, if there are none."""

    type: str
    meaning: str
    default: str | None
    """As YAML; None where there is none."""
    without: str
    """What holds where the key is not given."""
    kinds: list[str] = field(default_factory=list)


@dataclass
class Key:
    """A key of a scenario with all its forms, which is more than one where kinds differ in it."""

    name: str
    forms: list[Form] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """The kinds of the mapping, or of the list's items, that stands here."""
    meanings: dict[str, str] = field(default_factory=dict)
    """What each kind is, where it says so."""
    children: list[str] = field(default_factory=list)
    example: str = ""

    @property
    def unit(self) -> str:
        return next((unit for end, unit in UNITS.items() if self.name.endswith(end)), "")

    def summary(self) -> dict[str, Any]:
        return {**asdict(self), "unit": self.unit}


def scenario_keys() -> dict[str, Key]:
    """Every key of a scenario by its dotted name; without indices, and with `*` where a name is the user's own."""
    from orchestrator.scenario.schema import json_schema

    schema = json_schema()
    found = {"": Key("")}
    _collect(schema, schema["$defs"], "", found)
    return found


def _collect(node: dict[str, Any], defs: dict[str, Any], name: str, found: dict[str, Key]) -> None:
    here = found[name]
    shapes = list(_shapes(node, defs))
    for shape in shapes:
        if "items" in shape:
            _collect(shape["items"], defs, name, found)
        properties = dict(shape.get("properties", {}))
        if isinstance(shape.get("additionalProperties"), dict) and name != "sweep":
            properties[ANY] = shape["additionalProperties"]
        kind = properties.get("kind", {}).get("const")
        if kind is None and "kind" in properties:
            kind = "package.module:Class"
        if kind is not None and kind not in here.kinds:
            here.kinds.append(kind)
            if "description" in shape:
                here.meanings[kind] = " ".join(shape["description"].split())
        for child, below in properties.items():
            path = f"{name}.{child}" if name else child
            if path not in found:
                found[path] = Key(path)
                here.children.append(path)
            _add_form(
                found[path],
                below,
                defs,
                kind,
                _required(shape, child, name, shapes),
                here.forms[0].meaning if here.forms else "",
            )
            _collect(below, defs, path, found)


def _add_form(
    key: Key, node: dict[str, Any], defs: dict[str, Any], kind: str | None, required: str, around: str
) -> None:
    meaning = " ".join(node.get("description", "").split()) or _described(node, defs)
    if not meaning and key.name.endswith("kind"):
        meaning = "Which kind it is; each has keys of its own."
    meaning = meaning or around
    default = None if required else _default(node)
    form = Form(in_words(node, defs), meaning, default, required or NOTHING.get(default or "", default or NO_DEFAULT))
    same = next(
        (one for one in key.forms if (one.type, one.meaning, one.default) == (form.type, meaning, default)), None
    )
    if same is None:
        key.forms.append(form)
        same = form
    if kind is not None and kind not in same.kinds:
        same.kinds.append(kind)


def _required(shape: dict[str, Any], child: str, name: str, shapes: list[dict[str, Any]]) -> str:
    """A sentence on a key that must be given; empty where it need not be. Mappings without kinds that stand for each
    other, each with keys that it demands, are told apart by these."""
    if child not in shape.get("required", ()):
        return ""
    others = [one for one in shapes if one is not shape and child not in one.get("properties", {})]
    instead = [
        f"{name}.{key}"
        for other in others
        for key in other.get("required", ())
        if "kind" not in other["properties"] and key not in shape["properties"]
    ]
    return f"none, it or {' or '.join(instead)} must be given" if instead else "none, it must be given"


def _default(node: dict[str, Any]) -> str | None:
    """As JSON; the schema is silent of what is made anew for each scenario, which is an empty list or mapping."""
    if "default" in node:
        return json.dumps(node["default"])
    return {"array": "[]", "object": "{}"}.get(node.get("type", ""))


def _shapes(node: dict[str, Any], defs: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The alternatives of a node that are not made of others."""
    if "$ref" in node:
        yield from _shapes(defs[node["$ref"].rpartition("/")[2]], defs)
    for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _shapes(choice, defs)
    if not {"$ref", "anyOf", "oneOf"} & node.keys():
        yield node


def _described(node: dict[str, Any], defs: dict[str, Any]) -> str:
    return next((" ".join(one["description"].split()) for one in _shapes(node, defs) if "description" in one), "")


def in_words(node: dict[str, Any], defs: dict[str, Any]) -> str:
    """`number > 0`, `integer or null`, `hold | dead`: what a JSON Schema takes, and its bounds."""
    return " or ".join(dict.fromkeys(_type_in_words(shape, defs) for shape in _shapes(node, defs)))


def _type_in_words(shape: dict[str, Any], defs: dict[str, Any]) -> str:
    if "enum" in shape:
        return " | ".join(map(str, shape["enum"]))
    if "const" in shape:
        return str(shape["const"])
    if shape.get("type") == "array":
        return f"list of {in_words(shape.get('items', {}), defs)}"
    if shape.get("type") == "object":
        return "mapping"
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {shape[bound]:,.12g}" for bound, sign in bounds.items() if bound in shape]
    return " ".join([shape.get("type", "any"), " and ".join(limits)]).strip()


def find(text: str, keys: dict[str, Key]) -> list[Key]:
    """The keys that are meant: the one of that name, or all that end so; none if there is none."""
    wanted = [part for part in re.split(r"[.\[\]]+", text) if part and not part.isdecimal()]
    exact = [key for key in keys.values() if key.name and _fits(key.name.split("."), wanted)]
    return exact or [key for key in keys.values() if key.name.split(".")[-len(wanted) :] == wanted]


def find_kinds(text: str, keys: dict[str, Key]) -> list[Key]:
    """Of `faults.crash`, the mapping of that kind, with the keys that it has."""
    around, _, kind = text.rpartition(".")
    return [
        Key(
            f"{one.name}, kind: {kind}",
            [Form("mapping", one.meanings[kind], None, NO_DEFAULT)],
            children=[name for name in one.children if _is_key_of(keys[name], kind)],
        )
        for one in find(around, keys)
        if kind in one.meanings
    ]


def _is_key_of(child: Key, kind: str) -> bool:
    return not child.name.endswith(".kind") and any(kind in form.kinds or not form.kinds for form in child.forms)


def _fits(name: list[str], wanted: list[str]) -> bool:
    pairs = zip(name, wanted, strict=False)
    return bool(wanted) and len(name) == len(wanted) and all(part in (given, ANY) for part, given in pairs)


def near(text: str, names: list[str]) -> list[str]:
    """Up to three of the names that somebody may have meant, by the whole or by the last part."""
    last = {name.rpartition(".")[2]: name for name in reversed(names)}
    close = difflib.get_close_matches(text.rpartition(".")[2], list(last), 3, 0.7)
    return list(dict.fromkeys([*difflib.get_close_matches(text, names, 3, 0.75), *(last[one] for one in close)]))[:3]


def example_of(key: Key) -> str:
    """The key as an override: as one of the shipped scenarios has it, otherwise with its default; empty without."""
    from orchestrator.scenario.loading import parse

    wanted = key.name.split(".")
    for name, file in shipped().items():
        for path, value in _leaves(parse(file.read_text(encoding="utf-8"))[0], ()):
            if _fits(wanted, [str(part) for part in path if not isinstance(part, int)]):
                dotted = ".".join(map(str, path))
                return f"{_override(dotted, value)}   (as in {name})"
    default = next((form.default for form in key.forms if form.default not in (None, "null", "{}", "[]")), None)
    if default is not None:
        return _override(key.name, json.loads(default))
    return ""


def _leaves(tree: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of a tree with its path, what holds others included."""
    if path:
        yield path, tree
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for part, value in items:
        if part != "sweep":
            yield from _leaves(value, (*path, part))


def _override(key: str, value: Any) -> str:
    shown = _flow(value)
    text = f"{key}={shown}"
    return f"'{text}'" if re.search(r"[\s{}\[\]*&;]", text) else text


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def result_names() -> dict[str, tuple[str, str]]:
    """Unit and meaning of the tables' columns (`tasks.latency_s`) and of the summary's keys (`summary.latency_s`)."""
    from orchestrator.results.columns import COLUMNS, SUMMARY

    tables = {**COLUMNS, "summary": SUMMARY}
    return {
        f"{table}.{name}": (one.unit, one.meaning) for table, named in tables.items() for name, one in named.items()
    }


def find_results(text: str) -> dict[str, dict[str, str]]:
    """Columns and summary keys of that name, with or without their table; a statistic below one is explained by it."""
    wanted = text.split(".")
    found = {}
    for name, (unit, meaning) in result_names().items():
        parts = name.split(".")
        below = len(parts) > 1 and parts[0] == "summary" and wanted[: len(parts) - 1] == parts[1:]
        if parts == wanted or parts[1:] == wanted or below:
            found[name] = {"unit": unit, "meaning": meaning}
    return found
