"""Commands that say what there is: schema, policies, explain."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import Refusal, explained, print_facts, print_json

if TYPE_CHECKING:
    from pydantic import BaseModel

    from orchestrator.cli.explaining import Key

app = typer.Typer()


@app.command(epilog=examples_of("schema > scenario.schema.json"))
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from orchestrator.scenario.schema import json_schema

    print_json(json_schema())


@app.command(epilog=examples_of("policies", "policies detection"))
def policies(
    family: Annotated[
        str | None, typer.Argument(metavar="[FAMILY]", help="Only these: routing, queue, detection, ...")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List every kind of policy with its parameters, their types, defaults and meaning."""
    from orchestrator.policies import catalogue

    with explained():
        known = catalogue()
        if family is not None and family not in known:
            raise Refusal(
                f"there is no family {family}, {_guess(family, list(known))}expected one of {', '.join(known)}"
            )
        chosen = known if family is None else {family: known[family]}
        families = {name: [describe(config) for config in configs] for name, configs in chosen.items()}
        if as_json:
            print_json(families)
            return
        for place, (name, kinds) in enumerate(families.items()):
            print("\n" * (place > 0) + name)
            common = [
                one
                for one in kinds[0]["parameters"]
                if len(kinds) > 1 and all(one in kind["parameters"] for kind in kinds)
            ]
            for kind in kinds:
                _print_kind(kind["kind"] or name, kind["meaning"], [p for p in kind["parameters"] if p not in common])
            if common:
                _print_kind("every kind", "Whichever it is.", common)


@app.command(
    epilog=examples_of("explain policies.detection", "explain faults.restart_after_s", "explain latency_s.p99")
)
def explain(
    key: Annotated[
        str | None,
        typer.Argument(
            metavar="[KEY]", help="A key of a scenario, or its end; a column or a summary's key; all if none is given."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a key of a scenario means: type, default, unit, example; of what holds others, also those."""
    from orchestrator.cli import explaining

    with explained():
        if key is not None and not key.strip():
            raise Refusal("the key is empty, expected one that `orchestrator explain` lists")
        keys = explaining.scenario_keys()
        chosen = [keys[""]] if key is None else explaining.find(key, keys)
        results = {} if key is None else explaining.find_results(key)
        if not chosen and not results:
            chosen = explaining.find_kinds(key or "", keys)
        if not chosen and not results:
            near = explaining.near(key or "", [*keys, *explaining.result_names()])
            guess = f"did you mean {' or '.join(near)}? " if near else ""
            raise Refusal(f"there is no key {key}, {guess}expected one that `orchestrator explain` lists")
        for one in chosen if len(chosen) == 1 and chosen[0].name in keys else ():
            one.example = explaining.example_of(one)
        if as_json:
            print_json({"keys": [one.summary() for one in chosen], "results": results})
            return
        if len(chosen) == 1:
            _print_key(chosen[0], keys)
        elif chosen:
            print(f"{key} stands in several places:\n")
            print_facts([(one.name, one.forms[0].meaning) for one in chosen])
        if results:
            print("\n" * bool(chosen) + "In the results:\n")
            print_facts([(name, f"{one['meaning']}{_unit(one['unit'])}") for name, one in results.items()])


def _print_kind(kind: str, meaning: str, parameters: Sequence[Mapping[str, Any]]) -> None:
    print()
    told = [(f"    {one['name']}", f"{_type_and_default(one)}. {one['meaning']}") for one in parameters]
    print_facts([(f"  {kind}", meaning), *told], 20)


def _print_key(key: Key, keys: Mapping[str, Key]) -> None:
    if key.name:
        print(key.name)
    for form in key.forms:
        facts = [("  meaning", form.meaning), ("  type", form.type)]
        facts.append(("  default", form.without))
        if key.unit:
            facts.append(("  unit", key.unit))
        around = key.name.rpartition(".")[0]
        if form.kinds and form.kinds != keys[around].kinds:
            facts.append(("  where", f"{around}.kind is {' or '.join(form.kinds)}"))
        print_facts(facts, 10)
    if key.kinds:
        print_facts([("  kinds", ", ".join(key.kinds))], 10)
    if key.example:
        print_facts([("  example", key.example)], 10)
    if key.meanings:
        print(f"\nKinds of {key.name}:\n")
        print_facts([(f"  {kind}", meaning) for kind, meaning in key.meanings.items()], 10)
    if key.children:
        print("\n" * bool(key.name) + f"Keys{f' of {key.name}' if key.name else ' of a scenario'}:\n")
        print_facts([(f"  {name.rpartition('.')[2]}", _of_child(keys[name], key)) for name in key.children], 10)


def _of_child(key: Key, around: Key) -> str:
    kinds = dict.fromkeys(kind for form in key.forms for kind in form.kinds)
    where = f" ({', '.join(kinds)})" if around.kinds and list(kinds) != around.kinds else ""
    return f"{key.forms[0].meaning}{where}"


def _unit(unit: str) -> str:
    return f" ({unit})" if unit else ""


def _guess(text: str, known: list[str]) -> str:
    near = difflib.get_close_matches(text, known, 1)
    return f"did you mean {near[0]}? " if near else ""


def _type_and_default(parameter: Mapping[str, Any]) -> str:
    default = f", default {json.dumps(parameter['default'])}" if "default" in parameter else ""
    return f"{parameter['type']}{default}"


def describe(config: type[BaseModel]) -> dict[str, Any]:
    """One kind of policy, from its configuration model."""
    from orchestrator.cli.explaining import in_words

    form = config.model_json_schema()
    fields = form["properties"]
    kind = fields.pop("kind", {"const": ""})
    return {
        "kind": kind.get("const", "package.module:Class"),
        "meaning": " ".join(form.get("description", "").split()),
        "parameters": [
            {
                "name": name,
                "type": in_words(field, form.get("$defs", {})),
                **({"default": field["default"]} if "default" in field else {}),
                "meaning": " ".join(field.get("description", "").split()),
            }
            for name, field in fields.items()
        ],
    }
