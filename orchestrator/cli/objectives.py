"""What is demanded of runs on the command line, and how the verdicts read on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.cli.terminal import Refusal, print_table

if TYPE_CHECKING:
    from orchestrator.results.objectives import Objective, Verdict
    from orchestrator.results.runs import Run, Sweep
    from orchestrator.scenario.schema import Scenario

Verdicts = Sequence[tuple[str, "Verdict"]]
"""With the name of the cell each; of a single one, with an empty name."""


def demanded(texts: Iterable[str] | None, scenario: Scenario) -> list[Objective]:
    """Refusal for what is no objective, or what no summary of the scenario has."""
    from orchestrator.results.objectives import ObjectiveError, objectives

    try:
        return objectives(texts or (), scenario)
    except ObjectiveError as error:
        raise Refusal(f"--objective: {error}") from None


def judged(result: Run | Sweep, objectives: Sequence[Objective]) -> Verdicts:
    """Every objective in every cell."""
    from orchestrator.analysis.intervals import intervals_of_run
    from orchestrator.results.runs import Run

    if not objectives:
        return []
    if isinstance(result, Run):
        intervals = intervals_of_run(result)
        return [("", objective.judge(result.summary, intervals)) for objective in objectives]
    found = []
    for cell in result.cells:
        intervals = intervals_of_run(cell.runs[0]) if len(cell.runs) == 1 else {}
        name = cell.name if len(result.cells) > 1 else ""
        found += [(name, objective.judge(cell.pooled, intervals)) for objective in objectives]
    return found


def plain(verdicts: Verdicts) -> list[dict[str, Any]]:
    """As plain numbers, for JSON."""
    return [{**({"cell": cell} if cell else {}), **verdict.plain()} for cell, verdict in verdicts]


def print_verdicts(verdicts: Verdicts) -> None:
    """Each with its value, in the unit of the limit, and its interval; nothing if nothing is demanded."""
    if not verdicts:
        return
    print()
    print_table(
        "objectives, with intervals of 95 %",
        ["", "value", "interval", ""],
        [
            [
                f"{cell}: {verdict.objective}" if cell else str(verdict.objective),
                value_of(verdict),
                verdict.range(),
                in_words(verdict),
            ]
            for cell, verdict in verdicts
        ],
    )


def value_of(verdict: Verdict) -> str:
    if verdict.value is not None:
        return f"{verdict.value:.4g}"
    return "-" if verdict.at_least is None else f"> {verdict.at_least:.4g}"


def in_words(verdict: Verdict) -> str:
    """`met`, `missed`, and why that is not sure."""
    told = "met" if verdict.met else "missed"
    if verdict.value is None:
        return f"{told}: not known" if verdict.at_least is not None else f"{told}: there is no value"
    return f"{told}, not surely" if verdict.sure is False else told
