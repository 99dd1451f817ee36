"""There is one scheduler, and both worlds run it: a bug planted in the core makes the kit fail in each of them."""

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
WORLDS = ["test_live", "test_simulated"]
# A behaviour that sees the bug, of those that are shown quickly.
SEEN_BY = {
    "drop a requeue": "a_refused_task_is_offered_again",
    "leak a load": "a_reported_failure_is_final",
    "settle twice": "a_reported_failure_is_final",
    "accept a late result as new": "a_result_that_comes_twice_counts_once",
    "skip a wake": "a_slow_attempt_is_given_up_but_may_still_deliver",
}


@pytest.fixture
def tree(tmp_path):
    """A copy of both worlds and of the kit."""
    for part in ("orchestrator", "sim", "tests/conformance"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "tests/__init__.py", "tests/reference.py", "tests/reference.yaml"):
        shutil.copy(ROOT / part, tmp_path / part)
    return tmp_path


def show(tree: Path, behaviours: set[str]) -> subprocess.CompletedProcess[str]:
    """These behaviours in both worlds, by the tree's own code, that of the worker processes included."""
    tests = [f"tests/conformance/test_both_worlds.py::{world}[{name}]" for world in WORLDS for name in behaviours]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_without_a_mutation_the_kit_passes(tree):
    """The copy is sound, so that a failure is the mutation's."""
    done = show(tree, set(SEEN_BY.values()))
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("mutation", [mutation for mutation in MUTATIONS if mutation.name in SEEN_BY], ids=str)
def test_a_planted_bug_is_seen_in_both_worlds(tree, mutation: Mutation):
    """The same behaviour fails in the simulator and live, by an assertion."""
    mutation.apply(tree)
    done = show(tree, {SEEN_BY[mutation.name]})
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    failed = re.findall(r"^FAILED \S+::(\w+)\[\w+\] - (?:AssertionError|assert )", done.stdout, re.M)
    assert sorted(failed) == WORLDS, done.stdout


def test_every_named_mutation_is_planted():
    """None has been renamed away."""
    assert SEEN_BY.keys() <= {mutation.name for mutation in MUTATIONS}
