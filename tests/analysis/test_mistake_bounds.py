"""The upper bound of mistakes holds on another trace as long, whether they come one by one or together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sim
from orchestrator.analysis.detectors import dispersion
from tests.analysis.judging import DAY_S, judged, point, scenario

SETS = 400


def bound_per_day(moments_s: np.ndarray) -> float:
    """Of mistakes at those moments of a day."""
    made = replace(point(1.0, len(moments_s)), dispersion=dispersion(moments_s, DAY_S))
    return DAY_S * made.rate_upper_per_s


@pytest.mark.parametrize("workers", [1, 8], ids=["one by one", "all workers together"])
@pytest.mark.parametrize("incidents", [5, 10, 50, 200])
def test_the_bound_covers_another_trace(workers: int, incidents: int):
    """In 99 % of the pairs, within what 400 pairs can tell; five incidents hardly tell how they come together."""
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(SETS):
        seen, other = rng.poisson(incidents, 2)
        moments_s = np.repeat(rng.uniform(0, DAY_S, seen), workers)
        covered += bound_per_day(moments_s) >= other * workers
    assert covered / SETS >= 0.97


def test_mistakes_that_come_one_by_one_are_not_dispersed():
    """Few or none have no dispersion to tell of."""
    assert dispersion(np.empty(0), DAY_S) == dispersion(np.array([5.0]), DAY_S) == 1.0
    assert dispersion(np.arange(500) * DAY_S / 500, DAY_S) == 1.0


def test_pauses_that_strike_all_workers_widen_the_bound():
    """Each pause makes a mistake of each worker, so the bound is that of the number of pauses."""
    pauses = [
        {"kind": "pause", "at_s": at, "workers": [f"w{number}" for number in range(1, 9)], "for_s": 9}
        for at in (100, 700, 1200, 2300, 2800)
    ]
    chosen = scenario(duration_s=3_000, faults=pauses)
    (found,) = judged([sim.heartbeats(chosen)], chosen.policies.detection, faults=pauses)
    assert found.mistakes == 5 * 8
    assert found.dispersion == pytest.approx(8, rel=0.1)
    assert found.rate_upper_per_s > 1.5 * replace(found, dispersion=1.0).rate_upper_per_s
