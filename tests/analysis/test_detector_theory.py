"""Detectors in the judge have the quality that theory gives them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import sim
from orchestrator.policies.detection import ChenConfig, TimeoutConfig
from tests.analysis.judging import judged, scenario, trace


def test_three_lost_beats_in_a_row_are_a_mistake_of_a_timeout_of_more_than_three_beats():
    """With loss p, beats every h and 3h < T < 4h, p^3 (1 - p) / h mistakes per second last 4h - T + h p / (1 - p)."""
    h, p, timeout_s, n = 2.0, 0.05, 7.0, 2_000_000
    rng = np.random.default_rng(1)
    beats = {w: (h * np.arange(1, n + 1))[rng.random(n) >= p] for w in ("w1", "w2")}
    (found,) = judged([trace(beats, h * n)], TimeoutConfig(timeout_s=timeout_s))
    rate, lasting_s = p**3 * (1 - p) / h, 4 * h - timeout_s + h * p / (1 - p)
    assert rate == pytest.approx(5.94e-5, rel=1e-3)
    assert found.rate_per_s == pytest.approx(rate, rel=0.13)
    assert np.mean(found.mistake_s) == pytest.approx(lasting_s, rel=0.05)
    assert 1 - found.accuracy == pytest.approx(rate * lasting_s, rel=0.15)


def test_a_timeout_finds_a_crash_between_itself_less_a_beat_and_itself():
    """The last beat was heard 0 to h before the crash, uniformly distributed."""
    (found,) = judged([sim.heartbeats(scenario())], TimeoutConfig(timeout_s=6.5))
    at = np.linspace(0.01, 0.99, 50)
    assert np.allclose(np.quantile(found.detection_s, at), 4.5 + 2 * at, atol=0.05)
    assert found.mistakes == 0
    assert found.accuracy == 1


def test_a_periodic_check_adds_its_own_phase():
    """The reference's h/T/c of 2/6/2 gives a triangle on [4, 8] with mean 6, p90 7.106 and p99 7.717."""
    periodic = {"detection": {"kind": "timeout", "timeout_s": 6.0, "check_every_s": 2.0}}
    changes: dict[str, Any] = {"policies": periodic, "cluster": {"workers": 600}, "duration_s": 60}
    (found,) = judged([sim.heartbeats(scenario(**changes))], TimeoutConfig(timeout_s=6.0), **changes)
    assert np.mean(found.detection_s) == pytest.approx(6.0, rel=0.02)
    assert np.quantile(found.detection_s, [0.9, 0.99]) == pytest.approx([7.106, 7.717], rel=0.02)


@pytest.mark.parametrize(("delta", "rate", "lasting_s"), [(0.1, 0.01650, 0.5659), (0.5, 0.009900, 0.5301)])
def test_chen_has_the_quality_of_his_paper(delta: float, rate: float, lasting_s: float):
    """The numbers are NFD's with h 1, loss .01, exponential delay of mean .02, delta = alpha + mean delay."""
    detection = {"kind": "chen", "heartbeat_s": 1.0, "alpha_s": delta - 0.02, "window": 1000}
    lossy: dict[str, Any] = {
        "network": {"delay": {"kind": "exponential", "mean_s": 0.02}, "loss": 0.01},
        "policies": {"detection": detection},
        "duration_s": 10_000,
    }
    (found,) = judged([sim.heartbeats(scenario(**lossy))], ChenConfig(**detection), **lossy)  # type: ignore[arg-type]
    deviations = 3 / math.sqrt(found.mistakes)
    assert found.rate_per_s == pytest.approx(rate, rel=deviations)
    assert np.mean(found.mistake_s) == pytest.approx(lasting_s, rel=deviations)
