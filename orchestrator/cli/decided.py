"""What a coordinator of the command line decides by: policies of a file, of a scenario, and of its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.cli.addresses import exit_with
from orchestrator.cli.arguments import require_no_sweep
from orchestrator.cli.terminal import Refusal

if TYPE_CHECKING:
    from orchestrator.policies.settings import Policies

CALL_TIMEOUT_S = 2.0
CONTRACT_TIMEOUT_S = 3.0  # the reference's


class Decided(NamedTuple):
    """What a coordinator decides by, how long its calls may take, in seconds, and how many tasks may wait (None: any
    number)."""

    policies: Policies
    seed: int
    call_timeout_s: float
    max_waiting: int | None

    @property
    def contract_timeout_s(self) -> float | None:
        """Tasks of the wire contract have the reference's limit, unless the policies say anything of theirs."""
        return None if "execution_timeout_s" in self.policies.model_fields_set else CONTRACT_TIMEOUT_S


def decided_by(
    file: Path | None,
    scenario: Path | None,
    overrides: list[str],
    seed: int | None,
    call_timeout_s: float | None,
    max_waiting: int | None,
) -> Decided:
    """Exits with a sentence where that can't be told."""
    if scenario is None:
        from orchestrator.cli.given_policies import SettingsError, read_policies

        try:
            policies = read_policies(file, overrides)
        except SettingsError as error:
            exit_with(2, *error.problems)
        return Decided(policies, seed or 0, call_timeout_s or CALL_TIMEOUT_S, max_waiting)
    if file is not None:
        exit_with(2, "--policies and --scenario are both given: a scenario has policies of its own")
    from orchestrator.scenario.schema import Scenario, ScenarioError

    try:
        loaded = Scenario.load(scenario, overrides)
    except ScenarioError as error:
        exit_with(2, *map(str, error.problems))
    try:
        require_no_sweep(overrides, loaded.sweep)
    except Refusal as refusal:
        exit_with(2, str(refusal))
    return Decided(
        loaded.policies,
        loaded.seed if seed is None else seed,
        call_timeout_s or loaded.network.rpc_timeout_s,
        max_waiting or loaded.coordinator.max_waiting,
    )


def require_times(decided: Decided) -> None:
    """A coordinator whose workers would refuse what it tells them serves nobody."""
    from orchestrator.cluster.worker import SHORTEST_S

    for what, time_s in (
        ("--call-timeout", decided.call_timeout_s),
        ("detection.heartbeat_s", decided.policies.detection.heartbeat_s),
    ):
        if time_s < SHORTEST_S:
            exit_with(2, f"{what} {time_s:g}: no worker takes a time below {SHORTEST_S:g} s")
