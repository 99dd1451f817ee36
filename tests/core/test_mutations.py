"""The tests of the core see what they claim to see: each planted bug makes them fail."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import BUGS, Bug
from tests.planted import SEEN, forked_pytest_with

HERE = Path(__file__).parent
# They know nothing of the bugs.
MACHINES = ["test_cluster.py", "test_state_machine.py"]
# Recorded transcripts would see every change, whether it is a bug or not.
LEFT_OUT = [Path(__file__).name, "test_transcripts.py"]
EXAMPLES = sorted({path.name for path in HERE.glob("test_*.py")} - {*MACHINES, *LEFT_OUT})
RARE: set[Bug] = {
    mutations.wait_behind_a_stale_place,
    mutations.time_out_prefetched_work_while_it_waits,
    mutations.lose_what_a_returning_worker_holds,
    mutations.count_on_what_never_arrived,
    mutations.check_a_tick_too_late,
    mutations.learn_from_a_sleep,
    mutations.never_forget_a_worker,
    mutations.try_poison_again,
    mutations.never_open_a_lane,
    mutations.execute_a_repeated_assignment,
    mutations.stop_what_has_begun,
    mutations.forget_what_was_recalled,
}
"""What few runs of the state machines don't show: it is left to the written examples."""


def run(bug: Bug | None, scratch: Path) -> tuple[int, str]:
    """The tests up to the first failure: the state machines with few runs, then the examples."""
    files = EXAMPLES if bug in RARE else [*MACHINES, *EXAMPLES]
    return forked_pytest_with(bug, scratch, "-x", *(f"tests/core/{file}" for file in files), CORE_EXAMPLES="quick")


def test_without_a_bug_the_tests_pass(tmp_path: Path):
    """So a failure is the bug's."""
    status, printed = run(None, tmp_path)
    assert status == pytest.ExitCode.OK, printed


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_seen(bug: Bug, tmp_path: Path):
    """A test fails, by an assertion or an invariant, not by an import that is prevented or by an accidental error."""
    status, printed = run(bug, tmp_path)
    assert status == pytest.ExitCode.TESTS_FAILED, printed
    assert re.search(rf"^FAILED tests/core/test_\w+\.py::\S+ - {SEEN}", printed, re.M), printed
