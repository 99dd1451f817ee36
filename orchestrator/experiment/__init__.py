"""What both worlds share around the core: scenarios, plans, records, statistics and pictures."""

from orchestrator.experiment.loading import Problem, ScenarioError
from orchestrator.experiment.scenario import Scenario

__all__ = ["Problem", "Scenario", "ScenarioError"]
