"""Failure detectors: their formulas as tables, and verdicts that change exactly when they said."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.ports import Verdict
from orchestrator.policies.detection import SLACK_S, PhiAccrualConfig, TimeoutConfig, phi, phi_timeout_s

ALIVE, DEAD = Verdict.ALIVE, Verdict.DEAD


def accrual(**settings):
    return PhiAccrualConfig(kind="phi_accrual", **settings).build()


# ---- phi


@pytest.mark.parametrize(
    ("threshold", "silence_s"),
    [(1, 2.12816), (3, 2.30902), (8, 2.56120), (12, 2.70345)],
)
def test_the_silence_that_phi_allows(threshold, silence_s):
    """Mean 2 s and deviation 0.1 s: 2 + 0.1 times the normal quantile of 1 - 10^-threshold."""
    assert phi_timeout_s(threshold, 2.0, 0.1) == pytest.approx(silence_s, abs=1e-4)


@pytest.mark.parametrize(
    ("silence_s", "level"),
    [(2.0, 0.30103), (2.1, 0.79955), (2.3, 2.86970), (2.5, 6.54265)],
)
def test_phi_of_a_silence(silence_s, level):
    """-log10 of the normal tail: a half at the mean, 0.1587 one deviation later, 0.00135 three, 2.87e-7 five."""
    assert phi(silence_s, 2.0, 0.1) == pytest.approx(level, abs=1e-4)


@given(st.floats(0.1, 300.0), st.floats(0.1, 10.0), st.floats(0.01, 3.0))
def test_phi_and_its_inverse_agree(threshold, mean_s, sd_s):
    """Also far out in the tail, where 1 - cdf would be nothing."""
    assert phi(phi_timeout_s(threshold, mean_s, sd_s), mean_s, sd_s) == pytest.approx(threshold, rel=1e-6)


def test_phi_of_an_endless_silence_is_infinite():
    """Beyond what a float can hold there is certainty."""
    assert phi(1e6, 2.0, 0.1) == math.inf


def test_the_first_gap_is_expected_to_be_the_heartbeat():
    """Before any gap was seen: mean h, deviation h/4."""
    detector = accrual(heartbeat_s=2.0, threshold=8.0)(10.0)
    assert detector.review_at() == pytest.approx(10.0 + phi_timeout_s(8.0, 2.0, 0.5))


def test_regular_beats_bring_the_deviation_to_its_floor():
    """Equal gaps of 2 s leave the minimum of 0.1 s."""
    detector = accrual(heartbeat_s=2.0, threshold=3.0, min_std_s=0.1)(0.0)
    for beat in range(1, 50):
        detector.heard(2.0 * beat)
    assert detector.review_at() - 98.0 == pytest.approx(2.30902, abs=1e-4)


def test_the_acceptable_pause_is_added():
    """As in Akka, to the mean."""
    lenient = accrual(heartbeat_s=1.0, acceptable_pause_s=3.0)(0.0)
    strict = accrual(heartbeat_s=1.0)(0.0)
    assert lenient.review_at() - strict.review_at() == pytest.approx(3.0)


def test_phi_adapts_to_the_gaps_of_its_window_only():
    """Running sums forget the oldest gap as a fresh computation over the window would."""
    rng = random.Random(3)
    detector = accrual(heartbeat_s=1.0, window=10, threshold=8.0, min_std_s=0.001)(0.0)
    now, gaps = 0.0, []
    for _ in range(5000):
        gaps.append(rng.expovariate(1.0))
        now += gaps[-1]
        detector.heard(now)
    window = gaps[-10:]
    mean_s = sum(window) / 10
    sd_s = math.sqrt(sum((gap - mean_s) ** 2 for gap in window) / 10)
    assert detector.review_at() - now == pytest.approx(phi_timeout_s(8.0, mean_s, sd_s), abs=1e-5)


# ---- the timeout


@pytest.mark.parametrize(
    ("now", "verdict"),
    [(10.0, ALIVE), (16.0, ALIVE), (16.0 + 2 * SLACK_S, DEAD), (100.0, DEAD)],
)
def test_a_silence_over_the_timeout_is_death(now, verdict):
    """6 s are still in time, more are not."""
    assert TimeoutConfig(timeout_s=6.0).build()(10.0).verdict(now) is verdict


def test_the_knife_edge_of_three_heartbeats():
    """T = 3h: the third beat on time is in time, in whatever steps the sums of floats were made."""
    for heartbeat_s in (0.1, 0.7, 2.0, 1 / 3):
        detector = TimeoutConfig(timeout_s=3 * heartbeat_s).build()(0.0)
        last = 0.0
        for beat in range(1, 3000):
            now = beat * heartbeat_s
            if beat % 3 == 0:
                assert detector.verdict(now) is ALIVE, (heartbeat_s, beat)
                detector.heard(now)
                last = now
        assert detector.verdict(last + 3.01 * heartbeat_s) is DEAD


# ---- all of them

DETECTORS = {
    "timeout": TimeoutConfig(timeout_s=6.0).build(),
    "phi": accrual(heartbeat_s=1.0),
    "phi, small window": accrual(heartbeat_s=1.0, window=1, threshold=1.0, acceptable_pause_s=0.5),
}


@pytest.mark.parametrize("name", DETECTORS)
@settings(deadline=None, derandomize=True)
@given(start=st.floats(0.0, 1e6), gaps=st.lists(st.floats(0.0, 20.0), max_size=30))
def test_the_verdict_changes_at_the_moment_that_was_named(name, start, gaps):
    """ALIVE just before `review_at`, DEAD at it: nobody needs to poll, and nobody asks twice."""
    detector = DETECTORS[name](start)
    now = start
    for gap in gaps:
        now += gap
        detector.heard(now)
    at = detector.review_at()
    assert at > now
    assert detector.verdict(math.nextafter(at, -math.inf)) is ALIVE
    assert detector.verdict(at) is DEAD


@pytest.mark.parametrize("name", DETECTORS)
def test_a_beat_brings_the_dead_back(name):
    """The verdict follows the last beat."""
    detector = DETECTORS[name](0.0)
    assert detector.verdict(100.0) is DEAD
    detector.heard(100.0)
    assert detector.verdict(100.1) is ALIVE
