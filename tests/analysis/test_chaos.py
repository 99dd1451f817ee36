"""Chaos finds planted bugs, each in a few seeds and by the promise that it breaks, and none where there is none."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner, Result

import sim
from orchestrator.analysis import chaos
from orchestrator.analysis.random_scenarios import Options, draw, live_options
from orchestrator.analysis.shrinking import explicit, shrink
from orchestrator.cli.app import app
from orchestrator.results.runs import Run
from orchestrator.scenario.faults import FaultKind
from orchestrator.scenario.plan import draw_plan
from orchestrator.scenario.schema import Scenario
from tests import mutations
from tests.analysis.hunting import found_and_shrunk
from tests.mutations import Bug

ROOT = Path(__file__).resolve().parents[2]


PLANTED: dict[Bug, set[str]] = {
    mutations.drop_a_requeue: {"order", "progress"},
    mutations.lose_a_retry: {"progress"},
    mutations.skip_a_wake: {"progress"},
    mutations.leak_a_load: {"runs", "progress"},
    mutations.settle_twice: {"outcome"},
    mutations.accept_a_late_result_as_new: {"outcome"},
    mutations.number_attempts_alike: {"numbering"},
    mutations.give_the_dead_tasks: {"membership"},
    mutations.count_on_the_dead: {"membership", "progress"},
    mutations.give_a_draining_worker_tasks: {"membership"},
    mutations.let_the_others_run: {"cancel"},
    mutations.exceed_the_capacity: {"load"},
    mutations.serve_the_lowest_priority_first: {"order"},
    mutations.serve_returned_tasks_last: {"order"},
    mutations.try_once_too_often: {"tries"},
}
"""Bugs, and the promises of which one must be the first that is seen to be broken."""


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found_and_shrunk(bug: Bug, monkeypatch: pytest.MonkeyPatch):
    """The history alone shows the bug within a few seeds, and so does a script of at most five faults."""
    bug(monkeypatch.setattr)
    small = found_and_shrunk(PLANTED[bug], Options(drain_s=100.0, plain=True))  # what never ends costs time
    assert len(small.faults) <= 5


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_two_hundred_seeds_break_nothing(first: int):
    """Every promise is kept and every invariant holds in each of two hundred random scenarios."""
    world = partial(sim.run, check=True)
    broken = {
        trial.seed: list(map(str, trial.violations))
        for trial in chaos.hunt(range(first, first + 50), world)
        if trial.violations
    }
    assert broken == {}


# ---- drawing


def test_a_seed_is_a_scenario():
    """A seed always gives the same scenario, which can be loaded, and another seed gives another one."""
    assert draw(3) == draw(3)
    assert draw(3) != draw(4)
    assert Scenario.model_validate(draw(3).model_dump()) == draw(3)


def test_every_fault_that_is_drawn_ends():
    """Every fault has an end or a worker that joins again, and a hundred seeds inject every kind."""
    kinds = set()
    for seed in range(100):
        plan = draw_plan(draw(seed))
        kinds |= {action.kind for action in plan.faults}
        open_: set[tuple[str | None, str]] = set()
        for action in plan.faults:
            ends = {(action.worker, "drain")} if action.kind == "join" else {(action.worker, action.kind)}
            if action.heals or action.kind == "join":
                open_ -= ends
            else:
                open_ |= ends
        assert open_ == set(), f"seed {seed}"
    assert kinds == set(get_args(FaultKind))


def test_of_a_given_scenario_only_the_faults_are_drawn():
    """The given cluster, work and policies stay."""
    base = Scenario.load(ROOT / "scenarios/worker-crash.yaml")
    drawn = draw(5, base=base)
    assert (drawn.cluster, drawn.workload, drawn.policies) == (base.cluster, base.workload, base.policies)
    assert drawn.faults != base.faults
    assert drawn.drain_s is not None


def test_a_live_run_has_crashes_pauses_and_partitions():
    """Every live scenario has these three kinds at fixed times."""
    for seed in range(20):
        certain = {fault.kind for fault in draw(seed, live_options(30)).faults if fault.at_s is not None}
        assert certain >= {"crash", "pause", "partition"}


# ---- shrinking


def test_an_explicit_script_has_the_same_injections():
    """The explicit faults inject the same at the same times, up to rounding."""
    for seed in range(30):
        scenario = draw(seed)
        tree = scenario.model_dump() | {"faults": explicit(scenario)}
        (one, other) = (draw_plan(plan).faults for plan in (scenario, Scenario.model_validate(tree)))
        injections = [
            sorted((a.kind, a.worker or "", a.heals, round(a.time_s, 6)) for a in plan) for plan in (one, other)
        ]
        assert injections[0] == injections[1], f"seed {seed}"


def test_a_script_shrinks_to_the_faults_that_matter():
    """Of many injections only the pair that fails is left, and everything else becomes plain."""

    def fails(scenario: Scenario) -> bool:
        injected = {(fault.kind, name) for fault in scenario.faults for name in scenario.victims(fault)}
        return {("crash", "w1"), ("pause", "w2")} <= injected

    tree = draw(1, Options(workers=(6, 6), faults=(8, 8))).model_dump()
    tree["faults"] += [
        {"kind": "crash", "at_s": 1.234567, "all": True, "restart_after_s": 0.5},
        {"kind": "pause", "at_s": 3.3, "group": "g1", "for_s": 1.0},
    ]
    tree["cluster"] = {"groups": [{"name": "g1", "workers": 6}]}
    small = shrink(Scenario.model_validate(tree), fails)
    assert sorted((fault.kind, *small.victims(fault)) for fault in small.faults) == [("crash", "w1"), ("pause", "w2")]
    assert small.worker_names() == ["w1", "w2"]
    assert small.policies == Scenario.model_fields["policies"].get_default()
    assert small.workload.tasks == 1


def test_a_run_that_never_ends_breaks_a_promise():
    """A run is stopped at the time limit, and the caller's own timer goes on."""

    def endless(scenario: Scenario) -> Run:
        while True:
            pass

    before_s = signal.setitimer(signal.ITIMER_REAL, 1000.0)
    try:
        trial = chaos.trial(0, draw(0), endless, patience_s=0.05)
        left_s, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before_s)
    assert [violation.promise for violation in trial.violations] == ["ends"]
    assert 900 < left_s < 1000


def test_an_invariant_that_does_not_hold_is_told_from_an_error():
    """Both are violations of different promises, with the place where they were raised."""

    def world(error: Exception) -> chaos.World:
        def run(scenario: Scenario) -> Run:
            raise error

        return run

    kinds = [
        chaos.trial(0, draw(0), world(error)).violations[0] for error in (AssertionError("load"), ValueError("room"))
    ]
    assert [found.promise for found in kinds] == ["invariant", "runs"]
    assert str(kinds[0]).startswith("invariant: load (test_chaos.py:")
    assert str(kinds[1]).startswith("runs: ValueError: room (test_chaos.py:")


# ---- the command


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_chaos_without_a_violation_leaves_nothing(tmp_path):
    """Without a violation the exit code is 0 and no file is left; several processes give the same numbers."""
    out = tmp_path / "chaos"
    shown = command("chaos", "--seeds", 6, "--jobs", 1, "--out", out)
    assert shown.exit_code == 0, shown.stderr
    assert "no promise was broken" in shown.stdout
    told = json.loads(command("chaos", "--seeds", 6, "--jobs", 2, "--out", out, "--json").stdout)
    assert (told["seeds"], told["broken"], told["specimens"]) == (6, {}, [])
    assert f"{told['tasks']:,} in {told['attempts']:,} attempts" in shown.stdout
    assert not out.exists()


def test_a_violation_is_saved_and_can_be_had_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The exit code is 1, and the saved file shows the same violation with `simulate` and `check`."""
    mutations.number_attempts_alike(monkeypatch.setattr)
    found = command("chaos", "--seeds", 20, "--jobs", 1, "--out", tmp_path / "chaos")
    assert found.exit_code == 1, found.stderr
    seed = re.search(r"^seed (\d+): numbering: attempt 1 of task ", found.stdout, re.M)
    assert seed is not None, found.stdout
    file = tmp_path / "chaos" / f"seed-{seed[1]}.yaml"
    assert f"again: orchestrator simulate {file} --out {file.with_suffix('')}" in found.stdout
    assert file.read_text().startswith("# numbering: attempt 1 of task ")
    assert command("simulate", file, "--out", tmp_path / "run", "--no-plots").exit_code == 0
    judged = command("check", tmp_path / "run", "--settled")
    assert judged.exit_code == 1
    assert "  numbering: attempt 1 of task " in judged.stdout
    told = json.loads(command("check", tmp_path / "run", "--json").stdout)["runs"]
    assert told[0]["violations"][0]["promise"] == "numbering"


def test_a_clean_run_is_said_to_be_clean(tmp_path):
    """`check` lists every run of a sweep, with what was checked and what was not."""
    file = ROOT / "scenarios/worker-crash.yaml"
    overrides = ["workload.tasks=200", "replications=2"]
    assert command("simulate", file, *overrides, "--out", tmp_path / "run", "--no-plots").exit_code == 0
    judged = command("check", tmp_path / "run")
    assert judged.exit_code == 0, judged.stderr
    assert re.search(r"^base/r1: 200 tasks in \d+ attempts: clean$", judged.stdout, re.M)
    assert "progress    after the faults, every task is settled (not asked: " in judged.stdout
    refused = command("check", tmp_path / "run", "seed=3")
    assert refused.exit_code == 2
    assert "cannot be changed any more: seed=3" in refused.stderr


def test_an_interrupt_keeps_what_was_found(tmp_path, monkeypatch):
    """An interrupted chaos run says how far it got."""
    trials = [chaos.Trial(0, draw(0))]

    def interrupted(*_: object, **__: object) -> Iterator[chaos.Trial]:
        yield from trials
        raise KeyboardInterrupt

    monkeypatch.setattr(chaos, "hunt", interrupted)
    stopped = command("chaos", "--seeds", 10, "--out", tmp_path)
    assert stopped.exit_code == 130
    assert stopped.stderr == "interrupted: 1 of 10 seeds run, 0 seeds in violation\n"


# ---- the live world


def test_live_chaos_breaks_nothing(tmp_path):
    """Under crashes, pauses and partitions on real processes the history is clean and every decision replays."""
    shown = command("chaos", "--live", "--seconds", 8, "--out", tmp_path, "--json")
    assert shown.exit_code == 0, shown.stdout + shown.stderr
    told = json.loads(shown.stdout)
    assert told["injections"].keys() >= {"crash", "pause", "partition"}
    assert command("check", tmp_path / "live-0", "--settled").exit_code == 0
