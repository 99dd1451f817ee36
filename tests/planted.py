"""Pytest in a process of its own, with a bug planted in it."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations import Bug

ROOT = Path(__file__).resolve().parents[1]
SEEN = r"(?:AssertionError|assert |orchestrator\.core\.invariants\.InvariantError)"
"""How the line of pytest's summary goes on for a test that failed as it should, not by an accidental error."""
OPTIONS = ["-q", "-p", "no:cacheprovider"]

# Not the tests themselves: their settings come from the environment, and pytest rewrites their assertions.
WARM = ["hypothesis.stateful", "pytest", "tests.core.making", "tests.mutations"]
"""What a forked process finds imported."""
# Nobody needs the assertions of hypothesis rewritten.
IS_WARM = ["-W", "ignore:Module already imported so cannot be rewritten:pytest.PytestAssertRewriteWarning"]


def pytest_with(
    bug: Bug | None, scratch: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The bug is also in every process that the tests start. `scratch`: a folder for what the tests remember."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "planting"), str(ROOT)])}
    planted = {"PLANTED_BUG": f"{bug.__module__}:{bug.__name__}"} if bug is not None else {}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
        cwd=ROOT,
        env={**os.environ, **_ours(scratch), **paths, **planted, **environment},
        capture_output=True,
        text=True,
    )


def forked_pytest_with(bug: Bug | None, scratch: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """For tests that start no processes: the exit status and all that was printed, without the second that it takes
    to import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(WARM)
    printed = scratch / "printed"
    process = context.Process(target=_run, args=(bug, printed, arguments, {**_ours(scratch), **environment}))
    process.start()
    try:
        process.join()
    finally:
        process.kill()
    assert process.exitcode is not None
    return process.exitcode, printed.read_text(encoding="utf-8")


def _ours(scratch: Path) -> dict[str, str]:
    return {"HYPOTHESIS_STORAGE_DIRECTORY": str(scratch), "COLUMNS": "200"}


def _run(bug: Bug | None, printed: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    os.chdir(ROOT)
    os.environ.update(environment)
    with printed.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    if bug is not None:
        bug(setattr)
    sys.exit(int(pytest.main([*OPTIONS, *IS_WARM, *arguments])))
