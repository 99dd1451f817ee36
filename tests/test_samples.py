"""What the documents show of a command's output is what the command says."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_house import ROOT

CRASH = "orchestrator simulate scenarios/worker-crash.yaml --out out/crash"
SAMPLES = {
    "orchestrator simulate scenarios/rack-timeout.yaml": (["README.md", "docs/getting-started.md"], []),
    "orchestrator trace tests/data/burstgpt.csv": (["README.md", "docs/traces.md"], []),
    "orchestrator check scenarios/worker-crash.yaml policies": (["docs/scenarios.md"], []),
    "orchestrator simulate scenarios/worker-crash.yaml --objective": (["docs/command-line.md"], []),
    "orchestrator explain-task out/crash slowest": (["docs/command-line.md"], [CRASH]),
}
"""The beginning of a command that takes seconds and says the same everywhere; where it is shown; what goes before."""


def shown(text: str, beginning: str) -> tuple[str, list[str]]:
    """The command, and the parts of its output that a document shows; between them, `...` leaves something out."""
    listing = re.search(rf"^\$ ({re.escape(beginning)}[^\n]*)\n(.*?)(?=^\$ |^```)", text, re.M | re.S)
    assert listing, f"no listing of {beginning}"
    return listing[1], [part.strip("\n") for part in re.split(r"^\.\.\.$", listing[2], flags=re.M) if part.strip()]


def steady(text: str) -> str:
    """Without what stands at the end of a line: blanks, and the speed of this machine behind a row's last time."""
    return re.sub(r"(\d s) +[\d,]+$| +$", r"\1", text, flags=re.M)


def wrong(parts: list[str], said: str) -> list[str]:
    """The parts that are not in what a command said, or not behind those before them."""
    found, at = [], 0
    for part in map(steady, parts):
        place = said.find(part, at)
        found += [part] if place < 0 else []
        at = max(place, at)
    return found


def output(command: str, folder: Path) -> str:
    """All that a command says, but for the pictures that it makes."""
    program, *arguments = shlex.split(command)
    if arguments[0] == "simulate":
        arguments.append("--no-plots")
    done = subprocess.run(
        [sys.executable, "-P", "-m", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("beginning", SAMPLES)
def test_a_document_shows_what_the_command_says(beginning: str, tmp_path: Path):
    """Each line of a listing stands in the output, in this order, and nothing between two lines that stand together."""
    documents, before = SAMPLES[beginning]
    listings = [shown((ROOT / document).read_text(encoding="utf-8"), beginning) for document in documents]
    (command,) = {command for command, _ in listings}
    for folder in ("scenarios", "tests"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for earlier in before:
        output(earlier, tmp_path)
    said = steady(output(command, tmp_path))
    for _, parts in listings:
        assert parts
        assert wrong(parts, said) == []


@pytest.mark.parametrize("planted", [["mean 2.00 s"], ["p99 3.00 s", "mean 1.00 s"], ["mean 1.00 s\nmax 4.00 s"]])
def test_a_planted_listing_is_seen(planted: list[str]):
    """A wrong number, parts in another order, and a line that is left out without a word are seen."""
    said = "mean 1.00 s\np99 3.00 s\nmax 4.00 s"
    assert wrong(["mean 1.00 s", "max 4.00 s"], said) == []
    assert wrong(planted, said)
