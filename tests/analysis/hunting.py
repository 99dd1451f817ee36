"""What the tests of chaos do with a planted bug."""

from __future__ import annotations

import sim
from orchestrator.analysis import chaos
from orchestrator.analysis.random_scenarios import Options
from orchestrator.analysis.shrinking import shrink
from orchestrator.scenario.schema import Scenario

SEEDS = 40
"""A planted bug is found within so many."""


def found_and_shrunk(promises: set[str], options: Options) -> Scenario:
    """The smallest scenario that breaks what the first broken run of these seeds breaks: one of these promises."""
    broken = next((trial for trial in chaos.hunt(range(SEEDS), sim.run, options=options) if trial.violations), None)
    assert broken is not None, "no seed shows it"
    promise = broken.violations[0].promise
    assert promise in promises, broken.violations

    def fails(scenario: Scenario) -> bool:
        return any(found.promise == promise for found in chaos.trial(0, scenario, sim.run).violations)

    small = shrink(broken.scenario, fails, most=80)
    assert fails(small)
    return small
