"""Failure detectors: their formulas as tables, and verdicts that change exactly when they said."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.ports import Verdict
from orchestrator.policies.detection import (
    SLACK_S,
    BertierConfig,
    ChenConfig,
    PhiAccrualConfig,
    PhiAccrualRule,
    TimeoutConfig,
    TwoLevelConfig,
    bertier_margin_s,
    phi,
    phi_timeout_s,
    sequence_number,
)

ALIVE, SUSPECT, DEAD = Verdict


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


# ---- chen and bertier: the rhythm of the beats


def chen(**settings):
    return ChenConfig(kind="chen", **({"heartbeat_s": 1.0, "alpha_s": 0.2} | settings)).build()


def bertier(**settings):
    return BertierConfig(kind="bertier", **({"heartbeat_s": 1.0} | settings)).build()


def hear(detector, *times):
    for now in times:
        detector.heard(now)
    return detector


@pytest.mark.parametrize(
    ("arrival", "number"), [(10.3, 0), (11.3, 1), (11.7, 1), (10.9, 1), (15.2, 5), (1010.35, 1000), (9.3, -1)]
)
def test_the_number_of_a_beat_follows_from_its_arrival(arrival, number):
    """The nearest one, when number 0 was expected at 10.3 and they come every second."""
    assert sequence_number(arrival, 10.3, 1.0) == number


def test_chen_expects_the_next_beat_by_the_mean_rhythm():
    """Arrivals .1, .3 and .2 behind the seconds: the next is expected at 4.2, and tolerated to be alpha later."""
    detector = hear(chen()(0.0), 1.1, 2.3, 3.2)
    assert detector.review_at() == pytest.approx(4.2 + 0.2)


def test_chen_waits_a_heartbeat_and_alpha_for_the_first_beat():
    """The phase of a worker is not known before."""
    assert chen()(10.0).review_at() == pytest.approx(11.2)


def test_chen_forgets_what_left_its_window():
    """The rhythm of the last two beats only."""
    detector = hear(chen(window=2)(0.0), 1.0, 2.3, 3.1, 4.2)
    assert detector.review_at() == pytest.approx(5.15 + 0.2)


def test_a_missing_beat_does_not_shift_the_rhythm():
    """The numbers of lost beats are passed over."""
    detector = hear(chen()(0.0), 1.0, 2.0, 5.0, 6.0)
    assert detector.review_at() == pytest.approx(7.2)


def test_a_repeated_or_overtaken_beat_prolongs_nothing():
    """Only a newer one makes a worker fresher."""
    detector = hear(chen()(0.0), 1.0, 2.0)
    hear(detector, 2.0, 2.05, 2.4)
    assert detector.review_at() == pytest.approx(3.2)


@pytest.mark.parametrize("make", [chen, bertier], ids=["chen", "bertier"])
def test_the_beat_at_the_end_of_a_pause_is_off_the_rhythm(make):
    """A process that goes on after 6.4 s beats at once, and then again at its old times: its expected beats stay."""
    paused = hear(make()(0.0), *map(float, range(1, 41)), 46.4, *map(float, range(47, 50)))
    steady = hear(make()(0.0), *map(float, range(1, 50)))
    assert paused.review_at() == pytest.approx(steady.review_at(), abs=0.02)


@pytest.mark.parametrize("make", [chen, bertier], ids=["chen", "bertier"])
def test_the_rhythm_is_kept_over_a_drift_and_any_silence(make):
    """A clock that is 1 in 1000 fast, losses, silences of 100 beats: each beat is expected about when it comes."""
    rng = random.Random(5)
    detector = make(window=32)(0.0)
    number = 0
    for _ in range(20_000):
        number += 100 if rng.random() < 1e-3 else 1 + (rng.random() < 0.05)
        now = 0.999 * number + rng.uniform(0.0, 0.02)
        detector.heard(now)
        assert number < 50 or 0.9 < detector.review_at() - now < 1.6, number


def test_a_worker_with_a_new_phase_is_followed():
    """Its beats come .4 later for good: after a window of them they are expected then."""
    detector = hear(chen()(0.0), *map(float, range(1, 41)), *(number + 0.4 for number in range(41, 81)))
    assert detector.review_at() == pytest.approx(81.4 + 0.2)


def test_bertiers_margin():
    """beta * delay + phi * deviation."""
    assert bertier_margin_s(0.1, 0.02, 1.0, 4.0) == pytest.approx(0.18)


def test_bertier_learns_from_the_error_of_its_expectation():
    """Gamma .5: of an error of .2 half goes into the delay, and the deviation goes half the way there from h/4."""
    detector = hear(bertier(gamma=0.5)(0.0), 1.0, 2.2)
    expected = 3.0 + 0.1  # the mean of 1.0 and 1.2 before 2 beats
    assert detector.review_at() == pytest.approx(expected + 1.0 * 0.1 + 4 * (0.25 + 0.5 * (0.2 - 0.25)))


# ---- suspicion before death, two levels


def test_suspicion_comes_at_its_share_of_the_tolerated_silence():
    """Half of 6 s; then the next change is death."""
    detector = TimeoutConfig(timeout_s=6.0, suspect_after=0.5).build()(10.0)
    assert detector.review_at() == pytest.approx(13.0)
    assert [detector.verdict(now) for now in (12.9, 13.1, 16.1)] == [ALIVE, SUSPECT, DEAD]
    detector.verdict(13.1)
    assert detector.review_at() == pytest.approx(16.0)
    detector.heard(14.0)
    assert detector.review_at() == pytest.approx(17.0)


def test_two_levels_judge_silence_as_the_inner_rule_does():
    """With the outer heartbeat and the outer share of suspicion."""
    config = TwoLevelConfig(
        kind="two_level", heartbeat_s=1.0, start_to_close_s=3.0, suspect_after=0.5,
        detector=PhiAccrualRule(kind="phi_accrual", threshold=3),
    )  # fmt: skip
    inner = accrual(heartbeat_s=1.0, threshold=3, suspect_after=0.5)
    assert config.build()(5.0).review_at() == inner(5.0).review_at()


# ---- pauses of the coordinator itself


@pytest.mark.parametrize("make", [accrual, chen, bertier], ids=["phi", "chen", "bertier"])
def test_a_pause_of_the_judge_teaches_nothing(make):
    """20 s in which nothing was heard, then what had piled up, all at once: the next beat is expected as before."""
    slept = hear(make(heartbeat_s=1.0)(0.0), *(number + 0.3 for number in range(1, 101)))
    steady = hear(make(heartbeat_s=1.0)(0.0), *(number + 0.3 for number in range(1, 131)))
    slept.slept(until=122.0)
    hear(slept, *([120.6] * 20), *(number + 0.3 for number in range(121, 131)))
    assert slept.review_at() == pytest.approx(steady.review_at(), abs=1e-4)


@pytest.mark.parametrize("make", [accrual, chen, bertier], ids=["phi", "chen", "bertier"])
def test_a_pause_before_the_first_beat_teaches_nothing_either(make):
    """What arrives late then is no beginning of a rhythm."""
    slept = make(heartbeat_s=1.0)(0.0)
    slept.slept(until=12.0)
    assert hear(slept, 10.0, 10.0, 10.1).verdict(10.9) is ALIVE
    steady = hear(make(heartbeat_s=1.0)(0.0), *(number + 0.3 for number in range(1, 6)))
    hear(slept, *(number + 0.3 for number in range(11, 18)))
    assert slept.review_at() - 17.3 == pytest.approx(steady.review_at() - 5.3, rel=0.3)


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
    "chen": chen(alpha_s=0.1),
    "bertier": bertier(),
    "two levels": TwoLevelConfig(kind="two_level", start_to_close_s=3.0).build(),
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
