"""Published figures of routing near saturation, with many queues."""

from __future__ import annotations

import random

import pytest

from orchestrator.policies.routing import JoinIdleQueue, PowerOfD
from tests.policies.many_queues import fixed_point, mean_response_s


@pytest.mark.parametrize(("d", "response"), [(2, 5.432), (3, 3.858)])
def test_power_of_d_near_saturation(d: int, response: float):
    """At .99 in the mean field, T = sum of .99^((d^i - d) / (d - 1)) (Mitzenmacher 2001): where it begins, it stays."""
    found = mean_response_s(PowerOfD(random.Random(2), d), fixed_point(d, 0.99, 2000), 0.99, 20, 120)
    assert found == pytest.approx(response, rel=0.04)


def test_join_idle_queue_at_light_load():
    """Hardly a wait at .5 (Lu et al. 2011): with 1,000 queues an idle one is always there."""
    found = mean_response_s(JoinIdleQueue(random.Random(2)), [0] * 1000, 0.5, 20, 100)
    assert found == pytest.approx(1, abs=0.02)
