"""The answer to a scenario's question in a terminal: a table of differences, and sentences below it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.terminal import WIDEST_TEXT, Refusal, print_paragraph, print_table, terminal_width

if TYPE_CHECKING:
    from orchestrator.analysis.answers import Answer
    from orchestrator.results.runs import Sweep
    from orchestrator.scenario.schema import Cell


def require_cell(baseline: str | None, cells: Sequence[Cell]) -> None:
    """Better known before a long sweep than after it."""
    names = [cell.name for cell in cells]
    if baseline is not None and len(names) < 2:
        raise Refusal(f"--baseline is {baseline}, but nothing is swept")
    if baseline is not None and baseline not in (*names, *(cell.title for cell in cells)):
        raise Refusal(f"--baseline is {baseline}, expected one of {', '.join(names)}")


def answered(sweep: Sweep, folder: Path, baseline: str | None) -> Answer | None:
    """The answer of a sweep of several cells, which is written to `answer.json` in its folder; otherwise None."""
    from orchestrator.analysis.answers import answer
    from orchestrator.results import manifests

    found = answer(sweep, baseline)
    if found is not None:
        manifests.write_json(folder, "answer.json", found.summary())
    return found


def print_answer(found: Answer) -> None:
    """The differences, then the question and what is to be said about it."""
    from orchestrator.analysis.answer_tables import is_pair, meanings_in, table_of, title_of

    table = table_of(found.groups, found.runs)
    if table is None:
        print_paragraph(title_of("Each cell", found.baseline, found.runs))
    else:
        title, *signs = table.title.split("\n")
        columns = list(table.columns)
        widest = [max(len(row[place]) for row in [columns, *table.rows]) for place in range(len(columns))]
        if is_pair(found.groups) and sum(widest) + 9 > terminal_width():
            columns[1:3] = ["baseline", "other"]
        wrapped = textwrap.wrap(title, min(terminal_width(), WIDEST_TEXT))
        print_table("\n".join([*wrapped, *signs]), columns, table.rows)
    meanings = meanings_in(found.groups)
    if meanings:
        print()
    for line in meanings:
        print_paragraph(line, hanging="  ")
    print()
    if found.question:
        print_paragraph(found.question)
        print()
    for sentence in found.sentences:
        print_paragraph(sentence, "- ")
    if found.assumptions:
        print_paragraph(f"assumed: {'; '.join(found.assumptions)}", hanging="  ")
