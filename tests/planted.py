"""Pytest in a process of its own, with a bug planted in it and in every process that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.mutations import Bug

ROOT = Path(__file__).resolve().parents[1]
SEEN = r"(?:AssertionError|assert |orchestrator\.core\.invariants\.InvariantError)"
"""How the line of pytest's summary goes on for a test that failed as it should, not by an accidental error."""


def pytest_with(
    bug: Bug | None, scratch: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`scratch`: a folder for what the tests remember."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    ours = {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)]),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch),
        "COLUMNS": "200",
    }
    if bug is not None:
        ours["PLANTED_BUG"] = f"{bug.__module__}:{bug.__name__}"
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **ours, **environment}, capture_output=True, text=True)
