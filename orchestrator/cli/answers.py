"""The answer to a scenario's question in a terminal: a table of differences, and sentences below it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.terminal import Refusal, duration, number, print_table, signed, terminal_width

if TYPE_CHECKING:
    from orchestrator.analysis.answers import Answer
    from orchestrator.analysis.contenders import Group
    from orchestrator.analysis.deltas import Delta
    from orchestrator.results.runs import Sweep
    from orchestrator.scenario.schema import Cell

NOT_SHOWN, TOO_FEW, EQUAL = "·", "~ ", "="
WIDEST_TEXT = 100
"""Sentences are not set wider than people read."""
NAMES = {
    "latency_s.p50": "p50",
    "latency_s.p95": "p95",
    "latency_s.p99": "p99",
    "latency_s.p999": "p99.9",
    "latency_s.max": "max",
    "sped_up": "sped up",
    "wasted_s": "wasted",
    "false_positives": "mistakes",
}
MEANINGS = {
    "hit": "hit: tasks at a worker while a fault of it lasted",
    "delayed": "delayed, sped up: tasks whose latency differs from their own in the baseline by over {threshold}",
    "sped_up": "delayed, sped up: tasks whose latency differs from their own in the baseline by over {threshold}",
    "wasted_s": "wasted: slot time of attempts that settled nothing",
    "false_positives": "mistakes: healthy workers declared dead",
}


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
    table = table_of(found)
    if table is None:
        _say(_title("Each cell", found.baseline, found.runs))
    else:
        title, columns, rows = table
        widest = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
        if _is_pair(found) and sum(widest) + 9 > terminal_width():
            columns[1:3] = ["baseline", "other"]
        print_table(title, columns, rows)
    meanings = meanings_in(found)
    if meanings:
        print()
    for line in meanings:
        _say(line, hanging="  ")
    print()
    if found.question:
        _say(found.question)
        print()
    for sentence in found.sentences:
        _say(sentence, "- ")
    if found.assumptions:
        _say(f"assumed: {'; '.join(found.assumptions)}", hanging="  ")


def _different(found: Answer) -> list[str]:
    """The measures that differ in any cell, in the order of the first cell that has them."""
    every = [delta for group in found.groups for other in group.others for delta in other.deltas]
    return [measure for measure in dict.fromkeys(one.measure for one in every) if _any(every, measure)]


def _any(every: Sequence[Delta], measure: str) -> bool:
    return any(one.differs for one in every if one.measure == measure)


def table_of(found: Answer) -> tuple[str, list[str], list[list[str]]] | None:
    """Title, columns and rows: of two cells one row a measure, of more one row a cell; None if nothing differs."""
    measures = _different(found)
    if not measures:
        return None
    return _pair(found, measures) if _is_pair(found) else _cells(found, measures)


def _is_pair(found: Answer) -> bool:
    return len(found.groups) == len(found.groups[0].others) == 1


def _pair(found: Answer, measures: Sequence[str]) -> tuple[str, list[str], list[list[str]]]:
    baseline, other = found.groups[0].baseline.choice, found.groups[0].others[0]
    rows = []
    for measure in measures:
        one = other.delta(measure)
        sides = _value(one, one.baseline, one.baseline_at_least), _value(one, one.value, one.at_least)
        rows.append([name_of(measure), *sides, _difference(one)])
    columns = ["", baseline, other.cell.choice, "difference (95 %)"]
    return _title(other.cell.choice, baseline, found.runs), columns, rows


def _title(what: str, baseline: str, runs: int) -> str:
    over = f"{runs:,} paired replications; counts are those of a run" if runs > 1 else "one run each"
    return "\n".join(textwrap.wrap(f"{what} against {baseline}: {over}", min(terminal_width(), WIDEST_TEXT)))


def _cells(found: Answer, measures: Sequence[str]) -> tuple[str, list[str], list[list[str]]]:
    """The baseline of each condition as it is, the others as differences from it."""
    rows: list[list[str]] = []
    for group in found.groups:
        rows += _rows_of(group, measures, len(found.groups) > 1)
    signs = f"{NOT_SHOWN} no difference shown (95 %), {TOO_FEW}too few to tell how sure"
    where = " of the same condition" if len(found.groups) > 1 else ""
    title = _title("Each cell", f"{found.baseline}{where}", found.runs)
    return f"{title}\n{signs}", ["", *map(name_of, measures)], rows


def _rows_of(group: Group, measures: Sequence[str], conditions: bool) -> Iterator[list[str]]:
    indent = ""
    if conditions:
        indent = "  "
        load = "" if group.load is None else f", load {group.load:.0%}"
        yield [f"{group.condition}{load}", *([""] * len(measures))]
    first = {one.measure: one for one in group.others[0].deltas}
    yield [
        f"{indent}{group.baseline.choice}",
        *(_value(first[m], first[m].baseline, first[m].baseline_at_least) if m in first else "-" for m in measures),
    ]
    for other in group.others:
        mine = {one.measure: one for one in other.deltas}
        yield [f"{indent}{other.cell.choice}", *(_short(mine[m]) if m in mine else "-" for m in measures)]


def meanings_in(found: Answer) -> list[str]:
    """What the measures of the table are, where a name does not say it; and which measures differ nowhere."""
    measures = _different(found)
    every = [other for group in found.groups for other in group.others]
    thresholds = {other.shifts.threshold_s for other in every if other.shifts is not None}
    threshold = duration(thresholds.pop()) if len(thresholds) == 1 else "the baseline's p50"
    told = list(dict.fromkeys(MEANINGS[m].format(threshold=threshold) for m in measures if m in MEANINGS))
    same = [
        name_of(m) for m in dict.fromkeys(one.measure for other in every for one in other.deltas) if m not in measures
    ]
    if same:
        told.append(f"the same in all cells: {', '.join(same)}")
    return told


def name_of(measure: str) -> str:
    """`by_kind.report.latency_s.p99` reads `report p99`."""
    parts = measure.split(".")
    if parts[0] in ("by_priority", "by_kind"):
        return f"{'.'.join(parts[1:-2])} {parts[-1]}"
    return NAMES.get(measure, measure)


def _show(one: Delta) -> Callable[[float | None], str]:
    return duration if "_s" in one.measure else _count


def _count(value: float | None) -> str:
    return f"{value:,.0f}" if value is not None and float(value).is_integer() else number(value)


def _value(one: Delta, value: float | None, bound: float | None) -> str:
    return f"> {duration(bound)}" if bound is not None else _show(one)(value)


def _difference(one: Delta) -> str:
    """With its interval, or what keeps it from having one."""
    if one.verdict == "equal":
        return EQUAL
    if one.verdict == "no difference shown":
        return str(one.verdict)
    if one.difference is None:
        return "not known"
    if one.ci95 is not None and one.ci95[0] != one.ci95[1]:
        show: Any = _percent if one.change is not None else lambda value: _signed(one, value)
        return f"{_by(one)} ({show(one.ci95[0])} to {show(one.ci95[1])})"
    return f"{_by(one)} (too few)" if one.verdict == "too few" else _by(one)


def _short(one: Delta) -> str:
    if one.verdict == "equal":
        return EQUAL
    if one.verdict == "no difference shown":
        return NOT_SHOWN
    if one.difference is None:
        return _value(one, one.value, one.at_least)
    return f"{TOO_FEW if one.verdict == 'too few' else ''}{_by(one)}"


def _by(one: Delta) -> str:
    if one.change is not None and not one.measure.endswith(".max"):
        return signed(one.change)
    return _signed(one, one.difference or 0.0)


def _percent(share: float) -> str:
    return f"{share:+.1%}"


def _signed(one: Delta, value: float) -> str:
    return f"{'-' if value < 0 else '+'}{_show(one)(abs(value))}"


def _say(text: str, bullet: str = "", hanging: str = "") -> None:
    """A paragraph, or a point of a list, as wide as the terminal."""
    width = min(terminal_width(), WIDEST_TEXT)
    indent = " " * len(bullet) or hanging
    whole = re.sub(r"(?<=\d) (?=%|s\b|ms\b|us\b)", "\N{NO-BREAK SPACE}", text)
    lines = textwrap.fill(whole, width, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)
    print(lines.replace("\N{NO-BREAK SPACE}", " "))
