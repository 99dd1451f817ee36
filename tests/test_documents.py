"""The documents name files, pages, headings, commands and options that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from orchestrator.cli.app import app
from orchestrator.scenario.schema import Scenario
from tests.test_house import ROOT, project_files

DOCUMENTS = sorted(
    path
    for path in project_files()
    if path.suffix == ".md" and (path.parent in (ROOT, ROOT / "examples") or ROOT / "docs" in path.parents)
)
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""Those that tell what is; the changelog also tells what was."""
ELSEWHERE = ("out/", "mypkg")
"""Beginnings of what looks like a path and names something that a command makes, or that a reader has."""

_FENCED = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.M | re.S)
_LISTING = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"[\w.*<>-]+(/[\w.*<>-]+)*/?(::\w+)?")
_OPTION = re.compile(r"`(--[a-z][a-z-]*)[^`\n]*`")
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


def listings(text: str, *languages: str) -> Iterator[str]:
    """The fenced blocks in these languages; "" is one without."""
    return (code for language, code in _LISTING.findall(text) if language in languages)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every `orchestrator ...` in listings and in backticks, where a command's name may stand alone."""
    lines = [line.removeprefix("$ ") for code in listings(text, "", "console") for line in code.splitlines()]
    for line in [line for line in lines if re.match(r"(orchestrator|sleep) ", line)]:
        yield from (words for words in words_of(line) if words[0] == "orchestrator")
    for code in _CODE.findall(_FENCED.sub("", text)):
        if code.startswith("orchestrator "):
            yield from (words if len(words) > 2 else [*words, "-h"] for words in words_of(code))


def words_of(line: str) -> Iterator[list[str]]:
    """The words of each command of a line, as a shell takes them apart."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if not set(word) <= set("();<>|&"):
            command.append(word)
        elif command:
            yield command
            command = []


@cache
def commands() -> dict[str, Any]:
    return dict(getattr(get_command(app), "commands"))  # noqa: B009  typer's own click has no public types


def complaint(words: list[str]) -> str | None:
    """What the command line has against these words, which it takes apart and does not execute."""
    name, *arguments = words[1:]
    if name.startswith("-"):
        return None if name in {"-h", "--version", "--install-completion"} else f"no option {name}"
    if name not in commands():
        return f"no command {name}"
    if arguments in (["-h"], ["--help"]):
        return None
    try:
        commands()[name].make_context(name, list(arguments))
    except Exception as error:  # whatever the parser raises is what is wrong
        return f"{' '.join(words)}: {getattr(error, 'message', error)}"
    return None


@cache
def options() -> set[str]:
    """The options of all commands, and those of the programs in bench/."""
    parsers = [get_command(app), *commands().values()]
    ours = {name for parser in parsers for given in parser.params for name in (*given.opts, *given.secondary_opts)}
    return ours.union(*(re.findall(r'"(--[a-z-]+)"', path.read_text()) for path in (ROOT / "bench").glob("*.py")))


def unknown_options(text: str) -> list[str]:
    """The options in backticks that no command has."""
    return [option for option in _OPTION.findall(_FENCED.sub("", text)) if option not in options()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_that_a_document_names_exists(document: Path):
    """A reader who follows a path in backticks finds a file or a folder there."""
    assert missing_paths(document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_resolves(document: Path):
    """A reader who follows a link arrives at a file, and at a heading where the link names one."""
    assert broken_links(document, document.read_text()) == []


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_document_shows_parses(document: Path):
    """A reader who types a command as it is shown is not told of a name, an option or a value that is wrong."""
    assert [told for words in command_lines(document.read_text()) if (told := complaint(words))] == []


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_a_document_names_exists(document: Path):
    """An option in backticks is one of some command."""
    assert unknown_options(document.read_text()) == []


@pytest.mark.parametrize("document", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_python_of_a_document_compiles(document: Path):
    """A listing in Python is Python."""
    for code in listings(document.read_text(), "python"):
        assert compile(code, str(document), "exec")


def test_the_scenario_of_the_readme_is_the_shipped_one(tmp_path: Path):
    """The commented file says what the file says that it is a commented copy of."""
    (shown,) = listings((ROOT / "README.md").read_text(), "yaml")
    (tmp_path / "shown.yaml").write_text(shown)
    shipped = Scenario.load(ROOT / "scenarios/rack-timeout.yaml")
    assert Scenario.load(tmp_path / "shown.yaml").model_dump() == shipped.model_dump()


def test_every_shipped_scenario_has_a_row_of_its_own():
    """Who looks for a scenario finds it in the table, by its name and its question."""
    rows = re.findall(
        r"^\| \[`([\w-]+)`\]\(\.\./scenarios/\1\.yaml\) \| .+\? \|$", (ROOT / "docs/scenarios.md").read_text(), re.M
    )
    shipped = [path.stem for path in (ROOT / "scenarios").glob("*.yaml")]
    assert sorted(rows) == sorted(shipped)


@pytest.mark.parametrize(
    "planted",
    [
        "```\norchestrator simulat scenarios/worker-crash.yaml\n```\n",
        "```\n$ orchestrator simulate scenarios/worker-crash.yaml --replication 3\n```\n",
        "```\norchestrator worker --capacity many\n```\n",
        "```\nsleep 5 && orchestrator coordinator --date state &\n```\n",
        "See `orchestrator plots`.",
        "See `orchestrator chaos --seeds`.",
    ],
)
def test_a_planted_command_is_seen(planted: str):
    """The test of commands sees what it claims to see."""
    assert [told for words in command_lines(planted) if (told := complaint(words))]


def test_a_planted_option_is_seen():
    """So does that of options."""
    assert unknown_options("Give it `--no-such-thing`, or `--data DIR`.") == ["--no-such-thing"]


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
