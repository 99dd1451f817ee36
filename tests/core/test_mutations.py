"""The tests of the core see what they claim to see: each planted bug makes them fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[2]
# The state machines come first: they know nothing of the bugs.
FILES = [
    *("test_cluster.py", "test_state_machine.py", "test_tasks.py", "test_attempts.py", "test_workers.py"),
    *("test_suspicion.py", "test_returns.py", "test_hedging.py", "test_worker.py", "test_deadlines.py"),
]


@pytest.fixture
def tree(tmp_path):
    """A copy of the core, of the policies that it is tested with, and of its tests."""
    for part in ("orchestrator/core", "orchestrator/policies", "tests/core"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("orchestrator/__init__.py", "pyproject.toml"):
        shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def run(tree: Path) -> subprocess.CompletedProcess[str]:
    """The tests of the tree on the tree's own core, with few runs of the state machines, up to the first failure."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-qx",
        "-p",
        "no:cacheprovider",
        *(f"tests/core/{file}" for file in FILES),
    ]
    environment = os.environ | {"PYTHONPATH": str(tree), "CORE_EXAMPLES": "quick", "COLUMNS": "200"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_without_a_mutation_the_tests_pass(tree):
    """The copy is sound, so that a failure is the mutation's."""
    done = run(tree)
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_planted_bug_is_seen(tree, mutation: Mutation):
    """A test fails, and by an assertion: the bug neither prevents an import nor raises an accidental error."""
    mutation.apply(tree)
    done = run(tree)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert re.search(r"^FAILED tests/core/test_\w+\.py::\S+ - (AssertionError|assert )", done.stdout, re.M), done.stdout
