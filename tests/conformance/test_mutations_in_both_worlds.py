"""There is one coordinator, and both worlds run it: a bug planted in the core makes the kit fail in each of them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import Bug
from tests.planted import SEEN, pytest_with

WORLDS = ["test_live", "test_simulated"]
PATIENCE_S = 8
"""What a bug keeps from happening is waited for in real time; without a bug it takes a second or two."""
# A behaviour that sees the bug, of those that are shown quickly.
SEEN_BY: dict[Bug, str] = {
    mutations.drop_a_requeue: "a_refused_task_is_offered_again",
    mutations.leak_a_load: "a_reported_failure_is_final",
    mutations.settle_twice: "a_reported_failure_is_final",
    mutations.accept_a_late_result_as_new: "a_result_that_comes_twice_counts_once",
    mutations.skip_a_wake: "a_slow_attempt_that_cannot_be_cancelled_may_still_deliver",
    mutations.lose_what_a_returning_worker_holds: "a_broken_connection_loses_no_attempt",
}


def show(
    bug: Bug | None, behaviours: set[str], scratch: Path, patience_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """These behaviours in both worlds, with the bug in all processes."""
    tests = [f"tests/conformance/test_both_worlds.py::{world}[{name}]" for world in WORLDS for name in behaviours]
    return pytest_with(bug, scratch, *tests, KIT_PATIENCE_S=str(patience_s))


def test_without_a_bug_the_kit_passes(tmp_path: Path):
    """So a failure is the bug's."""
    done = show(None, set(SEEN_BY.values()), tmp_path, patience_s=30)  # nothing is waited for in vain
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("bug", SEEN_BY, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_seen_in_both_worlds(bug: Bug, tmp_path: Path):
    """The same behaviour fails in the simulator and live, by an assertion or an invariant."""
    done = show(bug, {SEEN_BY[bug]}, tmp_path)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    failed = re.findall(rf"^FAILED \S+::(\w+)\[\w+\] - {SEEN}", done.stdout, re.M)
    assert sorted(failed) == WORLDS, done.stdout
