"""One kit, two worlds: the simulator, and real processes over real gRPC, each show every behaviour."""

from __future__ import annotations

import pytest

from tests.conformance.behaviours import BEHAVIOURS, Behaviour
from tests.conformance.cluster import scenario
from tests.conformance.live import Live
from tests.conformance.simulated import Simulated


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_simulated(behaviour: Behaviour):
    """In virtual time."""
    with Simulated(scenario(behaviour.settings)) as cluster:
        behaviour.show(cluster)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_live(behaviour: Behaviour, loop, tmp_path):
    """With processes, signals and sockets."""
    with Live(scenario(behaviour.settings), loop, tmp_path) as cluster:
        behaviour.show(cluster)
