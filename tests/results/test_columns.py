import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from orchestrator.core.model import Detail
from orchestrator.results import folders
from orchestrator.results.columns import COLUMNS, SUMMARY, WORDS
from orchestrator.results.columns_page import page
from orchestrator.results.tables import (
    EVENT_KINDS,
    KIND,
    OUTCOMES,
    PRIORITIES,
    RARE_KINDS,
    SCHEMAS,
    STATES,
    HealDetail,
)
from tests.results.synthetic import mm1

ROOT = Path(__file__).resolve().parents[2]
STATISTICS = {"mean", "max", "n", "unknown", "too_few", "at_least"} | {f"p{digits}" for digits in (50, 90, 95, 99, 999)}


def test_every_column_is_described():
    """Each column of each schema has a unit and a meaning, also in the metadata of a run's tables."""
    made = mm1(10).tables
    for name, schema in SCHEMAS.items():
        assert list(COLUMNS[name]) == [*schema.names, *([KIND.name] if name == "tasks" else [])]
        for field in getattr(made, name).schema:
            about = COLUMNS[name][field.name]
            assert field.metadata == {b"unit": about.unit.encode(), b"meaning": about.meaning.encode()}
            assert (about.unit == "s") == field.name.endswith("_s")
            assert about.meaning.endswith(".")


def test_every_column_of_every_file_is_described(tmp_path: Path):
    """The Parquet files of a run, as another program reads them, say of each column what the page says."""
    folders.save(tmp_path / "run", mm1(50))
    text = (ROOT / "docs/columns.md").read_text(encoding="utf-8")
    files = sorted((tmp_path / "run").glob("*.parquet"))
    assert [file.name for file in files] == ["attempts.parquet", "events.parquet", "tasks.parquet"]
    for file in files:
        section = text.partition(f"## {file.name}\n")[2].partition("\n## ")[0]
        for field in pq.read_schema(file):
            row = rf"^\| `{field.name}` \| .* \| {re.escape(field.metadata[b'meaning'].decode())} \|$"
            assert re.search(row, section, re.M), (file.name, field.name)


def test_every_word_is_described():
    """The words that a table may hold are those that the page explains."""
    assert tuple(WORDS["priority"]) == PRIORITIES
    assert tuple(WORDS["state"]) == STATES
    assert tuple(WORDS["outcome"]) == OUTCOMES
    assert tuple(WORDS["kind"]) == (*EVENT_KINDS, *RARE_KINDS)
    assert tuple(WORDS["detail"]) == (*(detail for detail in Detail if detail), *HealDetail)


def test_every_key_of_a_summary_is_described():
    """The keys of a summary are those that the page explains, and no others."""
    sometimes = {key for key in SUMMARY if key.startswith(("by_kind.", "commits.", "limits."))}
    assert set(keys(mm1(100).summary)) == SUMMARY.keys() - {"interrupted"} - sometimes


def keys(summary: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys, `*` instead of a priority, and none below a key with statistics."""
    found: set[str] = set()
    for key, value in summary.items():
        name = prefix + ("*" if prefix == "by_priority." else key)
        nested = isinstance(value, dict) and not value.keys() <= STATISTICS
        found |= keys(value, f"{name}.") if nested else {name}
    return found


def test_the_page_is_made_of_the_descriptions():
    """`docs/columns.md` is what `python -m orchestrator.results.columns_page` prints."""
    assert (ROOT / "docs/columns.md").read_text(encoding="utf-8") == page()
