"""The documents name files that exist, and link to pages and headings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_house import ROOT, project_files

DOCUMENTS = sorted(
    path for path in project_files() if path.suffix == ".md" and (path.parent == ROOT or ROOT / "docs" in path.parents)
)
ELSEWHERE = ("out/", "mypkg")
"""Beginnings of what looks like a path and names something that a command makes, or that a reader has."""

_FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"[\w.*<>-]+(/[\w.*<>-]+)*/?(::\w+)?")
_SUFFIXES = (".py", ".md", ".yaml", ".toml", ".proto", ".ipynb", ".svg", ".png", ".txt")


def paths(text: str) -> Iterator[str]:
    """Every word in backticks, outside of fenced blocks, that looks like a file or a folder of this repository.

    It has a slash, and begins with a name at the root or ends like a file or a folder. The name of a file alone does
    not count: a run leaves files too.
    """
    tops = {path.name for path in ROOT.iterdir()}
    for code in _CODE.findall(_FENCED.sub("", text)):
        if not _PATH.fullmatch(code) or code.startswith(ELSEWHERE) or "<" in code:
            continue
        path = code.partition("::")[0]
        top = path.partition("/")[0]
        if "/" in path and (top in tops or path.endswith((*_SUFFIXES, "/"))):
            yield path


def links(text: str) -> Iterator[str]:
    """The targets of links and images that lead to a place in this repository."""
    for target in _LINK.findall(_FENCED.sub("", text)):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as they are made of their words."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing_paths(text: str) -> list[str]:
    """The paths in backticks that lead nowhere; a star stands for any part of a name."""
    return [path for path in paths(text) if not any(ROOT.glob(path.rstrip("/")))]


def broken_links(document: Path, text: str) -> list[str]:
    """The links of a document that lead nowhere."""
    broken = []
    for target in links(text):
        path, _, anchor = target.partition("#")
        page = document.parent / path if path else document
        words = page.read_text() if path and page.suffix == ".md" and page.exists() else text
        if not page.exists() or (anchor and page.suffix == ".md" and anchor not in anchors(words)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(document: Path):
    """A reader who follows a path in backticks finds a file or a folder there."""
    assert missing_paths(document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_resolves(document: Path):
    """A reader who follows a link arrives at a file, and at a heading where the link names one."""
    assert broken_links(document, document.read_text()) == []


@pytest.mark.parametrize(
    "planted",
    [
        "`orchestrator/core/nothing.py`",
        "`sim/nothing.py`",
        "`nothing/`",
        "`docs/nothing`",
        "`tests/nothing.py::test_a`",
    ],
)
def test_a_planted_path_is_seen(planted: str):
    """The first test sees what it claims to see."""
    assert missing_paths(f"See {planted}.")


@pytest.mark.parametrize("planted", ["[a](nothing.md)", "![a](images/nothing.png)", "[a](README.md#nothing-at-all)"])
def test_a_planted_link_is_seen(planted: str):
    """The second test sees what it claims to see."""
    assert broken_links(ROOT / "README.md", f"# A heading\n\nSee {planted}.")


def test_what_is_no_path_is_left_alone():
    """Words with dots and slashes that name no file of this repository are no paths, nor is anything in a listing."""
    text = "`core.check()`, `and/or`, `<cell>/r<k>`, `out/crash/`, `worker-1`\n\n```\n`sim/nothing.py`\n```\n"
    assert missing_paths(text) == []
    assert broken_links(ROOT / "README.md", "# Some words\n\n[a](#some-words) [b](https://example.org/x.md)") == []
