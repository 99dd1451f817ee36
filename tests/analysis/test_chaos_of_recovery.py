"""Chaos finds bugs planted in what outlives a coordinator, each by a promise that it breaks, and none where there is
none."""

from __future__ import annotations

from functools import partial

import pytest

import sim
from orchestrator.analysis import chaos
from orchestrator.analysis.random_scenarios import Options, draw
from orchestrator.scenario.plan import draw_plan
from tests import mutations_of_recovery as mutations
from tests.analysis.hunting import found_and_shrunk
from tests.mutations import Bug

OPTIONS = Options(
    tasks=(10, 60),
    duration_s=(5.0, 15.0),
    faults=(2, 5),
    kinds=("coordinator_crash", "crash", "restart", "pause"),
    always=("coordinator_crash",),
    drain_s=100.0,  # what never ends costs time
    plain=True,
)

PLANTED: dict[Bug, set[str]] = {
    mutations.acknowledge_before_the_commit: {"durable"},
    mutations.tell_a_result_before_the_commit: {"durable"},
    mutations.let_nothing_wait: {"durable"},
    mutations.send_what_waited_for_a_group_that_was_lost: {"durable"},
    mutations.store_every_other_group: {"durable"},
    mutations.store_no_results: {"durable"},
    mutations.store_no_assignments: {"order", "numbering", "adopted"},
    mutations.forget_keys: {"durable"},
    mutations.forget_a_settled_result: {"outcome", "durable"},
    mutations.lose_the_tries: {"tries"},
    mutations.number_attempts_anew: {"numbering"},
    mutations.make_resubmissions_tasks_of_their_own: {"runs", "outcome", "numbering"},
    mutations.keep_the_term: {"terms"},
    mutations.adopt_what_a_dead_process_had: {"progress"},
    mutations.run_what_workers_hold_again: {"adopted"},
    mutations.wait_for_nobody: {"numbering"},
}
"""Bugs, and the promises of which one must be the first that is seen to be broken."""


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_of_recovery_is_found_and_shrunk(bug: Bug, monkeypatch: pytest.MonkeyPatch):
    """The history alone shows the bug within a few seeds, and so does a script of at most three faults, one of them a
    crash of the coordinator."""
    bug(monkeypatch.setattr)
    small = found_and_shrunk(PLANTED[bug], OPTIONS)
    assert len(small.faults) <= 3
    assert "coordinator_crash" in {fault.kind for fault in small.faults}


def test_sixty_seeds_with_crashes_of_the_coordinator_break_nothing():
    """Whatever else fails at the same time; what is stored is what each coordinator knew."""
    options = Options(always=("coordinator_crash",))
    broken = {
        trial.seed: list(map(str, trial.violations))
        for trial in chaos.hunt(range(60), partial(sim.run, check=True), options=options)
        if trial.violations
    }
    assert broken == {}


def test_a_worker_that_stood_still_refuses_an_assignment_and_its_copy_at_once():
    """Two messages of one moment, which the order of events tells apart: this seed has them."""
    trial = chaos.trial(602_449, draw(602_449, Options(always=("coordinator_crash",))), partial(sim.run, check=True))
    assert not trial.violations


def test_a_crash_of_the_coordinator_is_drawn_with_a_store():
    """Without one there would be nothing to go on from; and often it crashes more than once."""
    crashes = 0
    for seed in range(50):
        scenario = draw(seed, Options(always=("coordinator_crash",)))
        assert scenario.coordinator.commit is not None
        crashed = [each for each in draw_plan(scenario).faults if each.kind == "coordinator_crash" and not each.heals]
        crashes += len(crashed) > 1
    assert crashes > 2
