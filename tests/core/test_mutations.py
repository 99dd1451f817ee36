"""The tests of the core see what they claim to see: each planted bug makes them fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.mutations import BUGS, Bug
from tests.planted import SEEN, pytest_with

HERE = Path(__file__).parent
# The state machines come first: they know nothing of the bugs.
FIRST = ("test_cluster.py", "test_state_machine.py")
# Recorded transcripts would see every change, whether it is a bug or not.
LEFT_OUT = (Path(__file__).name, "test_transcripts.py")
FILES = [*FIRST, *sorted({path.name for path in HERE.glob("test_*.py")} - {*FIRST, *LEFT_OUT})]


def run(bug: Bug | None, scratch: Path) -> subprocess.CompletedProcess[str]:
    """The tests with few runs of the state machines, up to the first failure."""
    files = [f"tests/core/{file}" for file in FILES]
    return pytest_with(bug, scratch, "-x", *files, CORE_EXAMPLES="quick")


def test_without_a_bug_the_tests_pass(tmp_path: Path):
    """So a failure is the bug's."""
    done = run(None, tmp_path)
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_seen(bug: Bug, tmp_path: Path):
    """A test fails, by an assertion or an invariant, not by an import that is prevented or by an accidental error."""
    done = run(bug, tmp_path)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert re.search(rf"^FAILED tests/core/test_\w+\.py::\S+ - {SEEN}", done.stdout, re.M), done.stdout
