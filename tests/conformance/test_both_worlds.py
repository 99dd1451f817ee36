"""One kit, two worlds: the simulator, and real processes over real gRPC, each show every behaviour.

Effects are announcements: the simulator shows the same when each of them is delayed at random.
"""

from __future__ import annotations

import pytest

from tests.conformance.behaviours import BEHAVIOURS, Behaviour
from tests.conformance.cluster import scenario
from tests.conformance.live import Live
from tests.conformance.simulated import DelayedStage, Simulated


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_simulated(behaviour: Behaviour):
    """In virtual time."""
    with Simulated(scenario(behaviour.settings)) as cluster:
        behaviour.show(cluster)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_simulated_with_every_effect_delayed(behaviour: Behaviour, seed: int):
    """In virtual time, each effect for a peer later than the state change that it announces, in order for each peer."""
    with Simulated(scenario(behaviour.settings | {"seed": seed}), DelayedStage) as cluster:
        behaviour.show(cluster)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_live(behaviour: Behaviour, loop, tmp_path):
    """With processes, signals and sockets."""
    with Live(scenario(behaviour.settings), loop, tmp_path) as cluster:
        behaviour.show(cluster)
