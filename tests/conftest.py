"""The lanes: what `make check` runs, which must be done in a minute, and what it leaves to `make test`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hypothesis
import pytest

# The tests start hundreds of processes, and each would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no reason to fail: no test asserts a time.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

TESTS = Path(__file__).parent

FAST = (
    "analysis/test_history.py",
    "cluster/test_decision_record.py",
    "cluster/test_parts.py",
    "conformance/test_both_worlds.py::test_simulated",
    "core/",
    "policies/",
    "results/",
    "scenario/",
    "sim/test_drain.py",
    "sim/test_environment.py",
    "test_documents.py",
    "test_house.py",
    "test_structure.py",
)
"""The fast lane, by the beginning of a test's id. Whatever is not here is slow, whoever adds it."""

SLOW = (
    "core/test_cluster.py",
    "core/test_mutations.py",
    "core/test_state_machine.py",
    "results/test_folders.py",
    "scenario/test_errors.py::test_a_file_that_is_no_scenario_says_so",
    "scenario/test_plan.py::test_a_plan_does_not_depend_on_the_hash_seed",
    "scenario/test_schema.py::test_a_scenario_equals_what_its_dump_loads_as",
)
"""What takes long in spite of that."""

FIRST = ("test_wheel.py", "test_notebooks.py", "core/test_cluster.py", "core/test_state_machine.py")
"""Single tests of a minute and more. They begin first, so that no process works on alone at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        test = f"{item.path.relative_to(TESTS).as_posix()}::{item.name}"
        if not test.startswith(FAST) or test.startswith(SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not item.path.relative_to(TESTS).as_posix().startswith(FIRST))
