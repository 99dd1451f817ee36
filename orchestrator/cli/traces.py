"""The command that looks at a file of recorded arrivals, and writes the scenario that uses it: trace."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.arguments import AsJson, examples_of
from orchestrator.cli.terminal import (
    Refusal,
    count,
    duration,
    explained,
    number,
    percent,
    print_facts,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from orchestrator.scenario.trace_settings import Inferred

app = typer.Typer()

SHADES = " ▁▂▃▄▅▆▇█"
STATISTICS = ("mean", "p50", "p90", "p95", "p99", "max")


@app.command(epilog=examples_of("trace requests.csv", "trace requests.csv --yaml > mine.yaml"))
def trace(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV, Parquet or a log in the Standard Workload Format; gzip or not.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="What the file does not tell, as in workload.arrivals: columns.arrival_s=Timestamp unit=ms "
            "'seconds_per={GeneratedTokens: 0.02}'",
        ),
    ] = None,
    only_yaml: Annotated[bool, typer.Option("--yaml", help="Print the scenario, and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what is in a trace: rate, bursts, service times, classes; and print the scenario that uses it."""
    with explained():
        from orchestrator.analysis.arrivals import profile, scenario_tree

        if only_yaml and as_json:
            raise Refusal("--yaml and --json are both given, expected one of them")
        inferred = _inferred(file, settings or ())
        told = profile(inferred)
        tree, assumptions = scenario_tree(inferred, told, file)
        if as_json:
            print_json({**told, "file": file, "assumptions": assumptions, "scenario": tree})
        elif only_yaml:
            print(_yaml(tree, assumptions), end="")
        else:
            _print_profile(file, told)
            print(f"\n{_yaml(tree, assumptions)}", end="")


def _inferred(file: str, settings: Sequence[str]) -> Inferred:
    """DataError for what is no trace, Refusal for a setting that makes no sense."""
    from pydantic import ValidationError

    from orchestrator.scenario.loading import Document
    from orchestrator.scenario.sources import override
    from orchestrator.scenario.trace_settings import infer
    from orchestrator.scenario.traces import TraceFile
    from orchestrator.scenario.validation import explain

    document = Document(file, {"file": file, "columns": {}})  # a column that is not given is inferred, no default
    problems = [
        problem
        for number, text in enumerate(settings, start=1)
        for problem in override(TraceFile, document, text, [os.getcwd()], number)
    ]
    if document.tree["file"] != file:
        raise Refusal("file is the first argument, expected no other one")
    if not problems:
        try:
            TraceFile.model_validate(document.tree)
            return infer(file, document.tree)
        except ValidationError as error:
            problems = [document.problem(misfit) for misfit in explain(error, TraceFile, document.tree)]
    raise Refusal("\n".join(f"{problem.key}: {problem.message}" for problem in problems))


def _yaml(tree: Mapping[str, Any], assumptions: Sequence[str]) -> str:
    from orchestrator.scenario.loading import to_yaml

    return "".join(f"# {assumption}\n" for assumption in assumptions) + to_yaml(dict(tree))


def _print_profile(file: str, told: Mapping[str, Any]) -> None:
    packed = ", gzip" if told["gzip"] else ""
    begin = told["first"] or f"{number(told['first_s'])} s"
    title = (
        f"{file}: {told['format']}{packed}, {count(told['rows'], 'arrival')} in {duration(told['span_s'])} from {begin}"
    )
    rows = [("interarrival", told["interarrival_s"]), ("service", told["service_s"])]
    print_table(
        title,
        ["", *STATISTICS, "cv"],
        [[name, *(duration(one[s]) for s in STATISTICS), number(one["cv"])] for name, one in rows if one],
    )
    print()
    print_facts(_facts(told), 12)


def _facts(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    from orchestrator.scenario.loading import one_line

    facts = []
    over_time = told["rate_over_time"]
    if over_time:
        rates, window = over_time["per_s"], duration(over_time["window_s"])
        facts.append(
            ("rate", f"{number(told['rate_per_s'])}/s; {number(min(rates))} to {number(max(rates))}/s in {window}")
        )
        facts.append(("", f"|{sparkline(rates)}|"))
    if told["dispersion"]:
        indices = ", ".join(f"{number(one['index'])} in {duration(one['window_s'])}" for one in told["dispersion"])
        facts.append(
            ("burstiness", f"index of dispersion of counts {indices} (1 if Poisson, as the cv of interarrival times)")
        )
    if told["busy_slots"] is not None:
        facts.append(("work", f"{number(told['busy_slots'])} slots busy in the mean"))
    if told["left_out"]:
        facts.append(("left out", f"{count(told['left_out'], 'row')}: a value in them is not known (-1)"))
    for column, shares in told["classes"].items():
        words = ", ".join(f"{value} {percent(share)}" for value, share in shares.items())
        facts.append((one_line(column), one_line(words)))
    facts += [("settings" if not place else "", one_line(reason)) for place, reason in enumerate(told["reasons"])]
    return facts


def sparkline(values: Sequence[float]) -> str:
    """A column for each value, as high as its share of the greatest one; a blank is none at all."""
    greatest = max(values)
    return "".join(SHADES[math.ceil(value / greatest * (len(SHADES) - 1))] for value in values)
