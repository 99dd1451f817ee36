"""The command that finds out how much is enough: size."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import (
    AsJson,
    Demanded,
    Force,
    Jobs,
    Overrides,
    Quiet,
    Replications,
    ScenarioFile,
    Yes,
    examples_of,
)
from orchestrator.cli.objectives import demanded, in_words, value_of
from orchestrator.cli.patience import require_patience
from orchestrator.cli.preparing import Use, load, renew, result_folder, tell_results
from orchestrator.cli.terminal import Refusal, explained, percent, print_table, progress, say

if TYPE_CHECKING:
    from orchestrator.analysis.sizing import Sizing
    from orchestrator.scenario.schema import Scenario

app = typer.Typer()

_RANGE = re.compile(r"\s*(-?\d+)\s*\.\.\s*(-?\d+)\s*")


@app.command(
    epilog=examples_of('size how-many-workers.yaml --over cluster.workers=4..64 --objective "latency_s.p95 < 5"')
)
def size(
    scenario: ScenarioFile,
    over: Annotated[
        str,
        typer.Option(
            "--over",
            metavar="KEY=VALUES",
            help="What is to be found: cluster.workers=4..64, or a list from the least to the most, as 4,8,16.",
        ),
    ],
    objective: Demanded = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where the results go; out/NAME-size/1, 2, ... if not given."),
    ] = None,
    force: Force = False,
    replications: Replications = None,
    jobs: Jobs = None,
    yes: Yes = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the smallest value, of workers for example, that meets all objectives; in the simulated world."""
    with explained():
        import sim
        from orchestrator.analysis.sizing import rounds

        key, values = range_of(over)
        loaded, runs = load_for_sizing(scenario, overrides, key, values)
        objectives = demanded(objective, loaded)
        if not objectives:
            raise Refusal('size needs an --objective to meet, as --objective "latency_s.p95 < 5"')
        number, at_once = replications or loaded.replications, jobs or os.cpu_count() or 1
        tries = rounds(len(values), max(1, at_once // number)) * max(1, at_once // number)
        require_patience([runs[-1]] * min(tries, len(values)), number, at_once, yes)
        folder = result_folder(f"{loaded.name}-size", out, Use(force))
        renew(folder)
        with progress(f"{loaded.name} ({key})", None) as advance:
            found = sim.size(loaded, key, values, objectives, folder, at_once, number, advance)
        found.save(folder)
        tell_results(folder, found.summary(), lambda: print_sizing(found), as_json, quiet)
    if found.answer is None:
        raise typer.Exit(1)


def range_of(text: str) -> tuple[str, Sequence[Any]]:
    """The key and its values: of `cluster.workers=4..64` all whole numbers from 4 to 64. Refusal if it says neither a
    range nor a list."""
    from orchestrator.scenario.loading import ParseError, parse

    key, equals, said = text.partition("=")
    expected = "expected KEY=FROM..TO or KEY=A,B,C, as in cluster.workers=4..64"
    if not equals or not key.strip():
        raise Refusal(f'--over: "{text}" names no values, {expected}')
    if found := _RANGE.fullmatch(said):
        first, last = map(int, found.groups())
        if first > last:
            raise Refusal(f"--over: {said.strip()} is empty, expected the smaller end first")
        return key.strip(), range(first, last + 1)
    try:
        values, _ = parse(said if said.lstrip().startswith("[") else f"[{said}]")
    except ParseError as error:
        raise Refusal(f"--over: {error}; {expected}") from None
    if not isinstance(values, list) or not values or ".." in said:
        raise Refusal(f'--over: "{said}" is neither a range nor a list, {expected}')
    return key.strip(), values


def load_for_sizing(
    path: Path, overrides: Sequence[str] | None, key: str, values: Sequence[Any]
) -> tuple[Scenario, list[Scenario]]:
    """The scenario without a sweep, and those of the smallest and of the largest value, or of each one of a list."""
    import json

    from orchestrator.scenario.schema import Scenario, ScenarioError

    loaded, _ = load(path, overrides)
    others = [swept for swept in loaded.sweep if swept != key]
    if others:
        raise Refusal(f"{path} sweeps {others[0]}: choose one value of it, or sweep={{}}")
    tried = list(dict.fromkeys([values[0], values[-1]])) if isinstance(values, range) else list(values)
    try:
        swept = Scenario.load(path, [*(overrides or ()), f"sweep={json.dumps({key: tried})}"])
    except ScenarioError as error:  # the sweep is none that the user wrote
        told = [f"--over: {problem.key.removeprefix('sweep.')}: {problem.message}" for problem in error.problems]
        raise Refusal("\n".join(told)) from None
    return loaded.model_copy(update={"sweep": {}}), [cell.scenario for cell in swept.cells()]


def print_sizing(found: Sizing) -> None:
    """The values that were tried, each objective with its value and interval; then the answer."""
    from orchestrator.scenario.titles import readable

    print_table(
        f"{found.scenario}: {found.key} from {readable(found.values[0])} to {readable(found.values[-1])}, "
        f"intervals of 95 %",
        ["", *(part for one in found.objectives for part in (str(one), "interval", "")), "busy"],
        [
            [
                str(readable(tried.value)),
                *(part for one in tried.verdicts for part in (value_of(one), one.range(), in_words(one))),
                percent(tried.pooled["utilization"]),
            ]
            for tried in found.tried
        ],
    )
    print()
    say(*found.sentences())
