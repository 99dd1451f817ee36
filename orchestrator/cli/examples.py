"""Commands that hand out the scenarios which come with the package: examples, init."""

from __future__ import annotations

import difflib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import Refusal, explained, print_facts, print_json

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

FIRST = "worker-crash"
"""The example for somebody who begins: small, half a minute long, with one fault."""

app = typer.Typer()


@app.command(epilog=examples_of("examples"))
def examples(as_json: AsJson = False) -> None:
    """List the scenarios that come with the package, and the question that each one asks."""
    questions = {name: question(file) for name, file in shipped().items()}
    if as_json:
        print_json(questions)
        return
    print_facts([(f"{name} ", asked) for name, asked in questions.items()])


@app.command(epilog=examples_of("init rack-failure"))
def init(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One of those that `examples` lists.")] = FIRST,
    as_json: AsJson = False,
) -> None:
    """Copy one of the examples into the current directory, as NAME.yaml."""
    with explained():
        known = shipped()
        name = name.removesuffix(".yaml")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise Refusal(f"there is no example {name}, {guess}expected one of {', '.join(known)}")
        copies = {Path(f"{name}.yaml"): known[name]} | {Path(file.name): file for file in traces_of(name)}
        for copy in copies:
            if copy.exists():
                raise Refusal(f"{copy} exists already, and init replaces no file")
        for copy, original in copies.items():
            copy_new(original, copy)
        if as_json:
            print_json({"files": list(map(str, copies))})
        else:
            print(f"wrote {' and '.join(map(str, copies))}; run it with: orchestrator simulate {name}.yaml")


def copy_new(original: Traversable, copy: Path) -> None:
    try:
        with copy.open("xb") as file:
            file.write(original.read_bytes())
    except FileExistsError:
        raise Refusal(f"{copy} exists already, and init replaces no file") from None
    except OSError:
        copy.unlink(missing_ok=True)  # half of it would be in the way of the next try
        raise


def shipped() -> dict[str, Traversable]:
    """The scenarios in the package, by name."""
    found = {file.name: file for file in (files("orchestrator.cli") / "scenarios").iterdir()}
    return {name.removesuffix(".yaml"): found[name] for name in sorted(found) if name.endswith(".yaml")}


def traces_of(name: str) -> list[Traversable]:
    """The trace that the scenario of that name replays, if it has one: it is called alike."""
    trace = files("orchestrator.cli") / "scenarios" / f"{name}.csv"
    return [trace] if trace.is_file() else []


def question(file: Traversable) -> str:
    """What the first line of a scenario asks."""
    first_line = file.read_text(encoding="utf-8").partition("\n")[0]
    return first_line.removeprefix("question:").strip().strip('"')
