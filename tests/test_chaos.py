"""Chaos finds planted bugs, each in a few seeds and by the promise that it breaks, and none where there is none."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import sim
from orchestrator.experiment import assembly, chaos
from orchestrator.experiment.scenario import Scenario
from orchestrator.experiment.shrinking import shrink
from orchestrator.policies import queueing, retry
from tests.mutations import COORDINATOR, Mutation

ROOT = Path(__file__).resolve().parents[1]
QUEUEING = "orchestrator/policies/queueing.py"
RETRY = "orchestrator/policies/retry.py"
SEEDS = 40
"""A planted bug is found within so many."""


@dataclass(frozen=True)
class Planted:
    """A bug, and the promises of which one must be the first that is seen to be broken."""

    mutation: Mutation
    promises: set[str]

    def __str__(self) -> str:
        return self.mutation.name


PLANTED = [
    Planted(
        Mutation(
            "drop a requeue",
            COORDINATOR,
            "            self._make_pending(task)\n            self._enqueue(task)\n\n    def _fail(",
            "            self._make_pending(task)\n\n    def _fail(",
        ),
        {"order", "progress"},
    ),
    Planted(
        Mutation("lose a retry", COORDINATOR, "            self._retries.add(now + delay_s, task)\n", ""),
        {"progress"},
    ),
    Planted(Mutation("skip a wake", COORDINATOR, "            self._fx.wake_at(at)\n", ""), {"progress"}),
    Planted(
        Mutation("leak a load", COORDINATOR, "        worker.load = before - 1\n", "        worker.load = before\n"),
        {"runs", "progress"},
    ),
    Planted(
        Mutation(
            "settle twice",
            COORDINATOR,
            "        self._fx.settled(task, now)\n",
            2 * "        self._fx.settled(task, now)\n",
        ),
        {"outcome"},
    ),
    Planted(
        Mutation("accept a late result as new", COORDINATOR, "settles = task.state < _COMPLETED and ", "settles = "),
        {"outcome"},
    ),
    Planted(
        Mutation("number attempts alike", COORDINATOR, "number = task.attempt + 1", "number = max(1, task.attempt)"),
        {"numbering"},
    ),
    Planted(
        Mutation(
            "assign to the dead",
            COORDINATOR,
            '        self._make_unassignable(worker)\n        self._fx.worker_changed(worker, "dead"',
            '        self._fx.worker_changed(worker, "dead"',
        ),
        {"membership"},
    ),
    Planted(
        Mutation(
            "count on the dead",
            COORDINATOR,
            '            self._give_up(attempt, Outcome.WORKER_DIED, "its worker was declared dead", now)\n'
            "            self._retry_or_fail(attempt, now)\n",
            "            pass\n",
        ),
        {"membership", "progress"},
    ),
    Planted(
        Mutation(
            "assign while it drains",
            COORDINATOR,
            "            worker.draining = True\n            self._make_unassignable(worker)\n",
            "            worker.draining = True\n",
        ),
        {"membership"},
    ),
    Planted(Mutation("let twins run", COORDINATOR, "            self._fx.cancel(twin, now)\n", ""), {"cancel"}),
    Planted(
        Mutation(
            "exceed the capacity",
            COORDINATOR,
            "worker.limit = capacity + prefetch",
            "worker.limit = capacity + prefetch + 1",
        ),
        {"load"},
    ),
    Planted(
        Mutation("serve the lowest priority first", QUEUEING, "in reversed(self._lanes):", "in self._lanes:"),
        {"order"},
    ),
    Planted(Mutation("serve returned tasks last", QUEUEING, " or returned[0][0] < fresh[0].seq)", ")"), {"order"}),
    Planted(
        Mutation("try once too often", RETRY, "tries >= self.max_attempts", "tries > self.max_attempts"), {"tries"}
    ),
]
HOMES: dict[str, tuple[ModuleType, tuple[str, ...]]] = {
    COORDINATOR: (assembly, ("Coordinator",)),
    QUEUEING: (queueing, ("StrictPriority", "Fifo")),
    RETRY: (retry, ("Retry",)),
}
"""Where the classes of a mutated file are looked up when a run is put together."""


@pytest.fixture
def planted(request, monkeypatch) -> Planted:
    bug: Planted = request.param
    module = ModuleType(f"mutated_{bug.mutation.file.replace('/', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where dataclasses look for their annotations
    exec(compile(bug.mutation.source(ROOT), bug.mutation.file, "exec"), module.__dict__)
    home, names = HOMES[bug.mutation.file]
    for name in names:
        monkeypatch.setattr(home, name, getattr(module, name))
    return bug


@pytest.mark.parametrize("planted", PLANTED, ids=str, indirect=True)
def test_a_planted_bug_is_found_and_shrunk(planted: Planted):
    """By the history alone, within a few seeds; a script of at most five faults still shows it."""
    options = chaos.Options(drain_s=300.0)  # what never ends costs time
    broken = next((trial for trial in chaos.hunt(range(SEEDS), sim.run, options=options) if trial.violations), None)
    assert broken is not None, "no seed shows it"
    promise = broken.violations[0].promise
    assert promise in planted.promises, broken.violations

    def fails(scenario: Scenario) -> bool:
        return any(found.promise == promise for found in chaos.trial(0, scenario, sim.run).violations)

    small = shrink(broken.scenario, fails, most=80)
    assert len(small.faults) <= 5
    assert fails(small)


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_two_hundred_seeds_break_nothing(first: int):
    """Whatever is drawn and whatever strikes, every promise is kept and every invariant holds."""
    world = partial(sim.run, check=True)
    broken = {
        trial.seed: list(map(str, trial.violations))
        for trial in chaos.hunt(range(first, first + 50), world)
        if trial.violations
    }
    assert broken == {}
