"""Small tables of texts, for a page or a notebook. Whatever a user wrote is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Table(NamedTuple):
    """Texts as a terminal shows them. What precedes the first line break of the title is its name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def html_of(table: Table) -> str:
    """A row that is too short is filled with empty cells."""
    width = len(table.columns)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{_indented(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in [*row[1:], *[""] * (width - len(row))])
        + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _indented(text: str) -> str:
    bare = text.lstrip()
    return "&nbsp;" * (len(text) - len(bare)) + escape(bare)
