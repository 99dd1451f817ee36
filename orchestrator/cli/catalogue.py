"""Commands that say what there is: schema, policies."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.arguments import AsJson
from orchestrator.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer()


@app.command()
def schema() -> None:
    """Print the JSON Schema of a scenario, for editors."""
    from orchestrator.scenario.schema import json_schema

    print_json(json_schema())


@app.command()
def policies(as_json: AsJson = False) -> None:
    """List every kind of policy with its parameters, their types, defaults and meaning."""
    from orchestrator.policies import catalogue

    families = {family: [describe(config) for config in configs] for family, configs in catalogue().items()}
    if as_json:
        print_json(families)
        return
    for family, kinds in families.items():
        rows = []
        for kind in kinds:
            rows.append([kind["kind"], "", "", "", kind["meaning"]])
            for p in kind["parameters"]:
                rows.append(
                    ["", p["name"], p["type"], json.dumps(p["default"]) if "default" in p else "-", p["meaning"]]
                )
        print_table(family, ["kind", "parameter", "type", "default", "meaning"], rows, numbers=False)
        print()


def describe(config: type[BaseModel]) -> dict[str, Any]:
    """One kind of policy, from its configuration model."""
    form = config.model_json_schema()
    fields = form["properties"]
    kind = fields.pop("kind", {"const": ""})
    return {
        "kind": kind.get("const", "package.module:Class"),
        "meaning": form.get("description", ""),
        "parameters": [
            {
                "name": name,
                "type": type_in_words(field),
                **({"default": field["default"]} if "default" in field else {}),
                "meaning": field.get("description", ""),
            }
            for name, field in fields.items()
        ],
    }


def type_in_words(field: dict[str, Any]) -> str:
    """`number > 0`, `integer or null`, `hold | dead`: the type of a JSON Schema and its bounds."""
    if "anyOf" in field:
        return " or ".join(map(type_in_words, field["anyOf"]))
    if "enum" in field:
        return " | ".join(field["enum"])
    bounds = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in bounds.items() if bound in field]
    return " ".join([field.get("type", "any"), " and ".join(limits)]).strip()
