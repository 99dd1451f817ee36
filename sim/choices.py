"""Why a task of a simulated run went where it went: the run is simulated again, up to the end of that task."""

from __future__ import annotations

from orchestrator.analysis.choices import Choice, watched
from orchestrator.core.model import Task
from orchestrator.scenario.plan import Plan, draw_plan
from orchestrator.scenario.schema import Scenario
from sim.durable import world_of
from sim.world import World


def choices(scenario: Scenario, task: int, replication: int = 0) -> list[Choice]:
    """Every choice of a worker for a task, in their order, of one replication of a scenario without a sweep."""
    noted: list[Choice] = []
    policies = watched(scenario.policies, task, noted)
    again = scenario.model_copy(update={"policies": policies})
    plan = draw_plan(scenario, replication)
    if scenario.coordinator.commit is None:
        _UntilSettled(again, plan, replication, task).run()
    else:  # that a task is settled may not be stored when the coordinator crashes
        world_of(again, plan, replication).run()
    return noted


class _UntilSettled(World):
    """Ends with one task: no choice is made for it afterwards."""

    def __init__(self, scenario: Scenario, plan: Plan, replication: int, task: int) -> None:
        super().__init__(scenario, plan, replication)
        self._last = task

    def settled(self, task: Task, now: float) -> None:
        super().settled(task, now)
        if task.id == self._last:
            self._stop_at(now)
