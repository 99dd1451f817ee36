"""Failure detectors against theory: their mistakes on a long trace of heartbeats of a worker that never fails.

Chen, Toueg and Aguilera ("On the quality of service of failure detectors", 2002) call a mistake a change from trust
to suspicion of a process that is up; it lasts until trust returns. Mistakes are rare events, so that the relative
standard error of their number n is 1/sqrt(n), and of their mean duration about as much.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pytest

import sim
from orchestrator.core.ports import DetectorFactory, Verdict
from orchestrator.policies.detection import BertierConfig, ChenConfig, PhiAccrualConfig, TimeoutConfig, phi_timeout_s
from tests.sim.conftest import MakeScenario


def beats(number: int, heartbeat_s: float, loss: float, mean_delay_s: float = 0.0, seed: int = 1) -> list[float]:
    """When the beats arrive that are not lost, each with an exponential delay of its own."""
    rng = np.random.default_rng(seed)
    sent = heartbeat_s * np.arange(1, number + 1)
    arrivals = sent + (rng.exponential(mean_delay_s, number) if mean_delay_s else 0.0)
    return sorted(arrivals[rng.random(number) >= loss].tolist())


class Verdicts(NamedTuple):
    """How many mistakes, how many a second, and how many seconds long."""

    number: int
    rate_per_s: float
    duration_s: float


def mistakes(detector: DetectorFactory, arrivals: list[float]) -> Verdicts:
    judge = detector(0.0)
    count, wrong_s = 0, 0.0
    since: float | None = None
    for now in arrivals:
        if since is None and judge.review_at() <= now:
            since = judge.review_at()
            count += 1
        judge.heard(now)
        if since is not None and judge.verdict(now) is Verdict.ALIVE:
            wrong_s += now - since
            since = None
    return Verdicts(count, count / arrivals[-1], wrong_s / count)


def nfd_s(heartbeat_s: float, loss: float, mean_delay_s: float, delta_s: float) -> tuple[float, float]:
    """Mistakes per second and their mean duration, delays exponential (Chen et al. 2002, theorem 5)."""

    def late(after_s: float | np.ndarray) -> np.ndarray:
        """Probability that a beat has not arrived so long after it was sent."""
        return loss + (1 - loss) * np.exp(-np.maximum(after_s, 0.0) / mean_delay_s)

    k = math.ceil(delta_s / heartbeat_s)

    def none_fresh(x: float | np.ndarray) -> np.ndarray:
        return np.prod([late(delta_s + x - j * heartbeat_s) for j in range(k + 1)], axis=0)

    before = 1 - float(late(delta_s + heartbeat_s))
    per_beat = before * float(none_fresh(0.0))
    x = np.linspace(0.0, heartbeat_s, 200_001)
    return per_beat / heartbeat_s, float(np.trapezoid(none_fresh(x), x)) / per_beat


@pytest.mark.parametrize(
    ("delta_s", "rate_per_s", "duration_s"),
    [(0.1, 0.01650, 0.5659), (0.5, 0.009900, 0.5301)],
)
def test_the_published_quality_of_chens_detector(delta_s, rate_per_s, duration_s):
    """h 1, loss .01, exponential delay of mean .02: the formulas, and NFD-E with alpha = delta - mean delay."""
    assert nfd_s(1.0, 0.01, 0.02, delta_s) == pytest.approx((rate_per_s, duration_s), rel=1e-3)
    detector = ChenConfig(kind="chen", heartbeat_s=1.0, alpha_s=delta_s - 0.02).build()
    count, rate, duration = mistakes(detector, beats(300_000, 1.0, 0.01, 0.02))
    assert (rate, duration) == pytest.approx((rate_per_s, duration_s), rel=3 / math.sqrt(count))


@pytest.mark.parametrize(
    ("heartbeat_s", "loss", "mean_delay_s", "delta_s"),
    [(2.0, 0.05, 0.1, 0.4), (0.5, 0.02, 0.02, 0.6), (1.0, 0.1, 0.05, 1.2)],
)
def test_chens_detector_at_other_settings(heartbeat_s, loss, mean_delay_s, delta_s):
    """Also where the freshness point lies beyond the next beat."""
    rate_per_s, duration_s = nfd_s(heartbeat_s, loss, mean_delay_s, delta_s)
    detector = ChenConfig(kind="chen", heartbeat_s=heartbeat_s, alpha_s=delta_s - mean_delay_s).build()
    count, rate, duration = mistakes(detector, beats(200_000, heartbeat_s, loss, mean_delay_s))
    assert (rate, duration) == pytest.approx((rate_per_s, duration_s), rel=3 / math.sqrt(count))


@pytest.mark.parametrize(
    ("timeout_s", "losses"), [(2.5, 1), (4.5, 2), (6.5, 3)], ids=["one miss", "two misses", "three misses"]
)
def test_misses_in_a_row(timeout_s, losses):
    """With h 2 and T between 2n and 2n + 2 a mistake is n lost beats after one that came: (1 - p) p^n / h."""
    count, rate, duration = mistakes(TimeoutConfig(timeout_s=timeout_s).build(), beats(1_000_000, 2.0, 0.05))
    assert rate == pytest.approx(0.95 * 0.05**losses / 2, rel=3 / math.sqrt(count))
    assert rate == pytest.approx({1: 2.375e-2, 2: 1.1875e-3, 3: 5.94e-5}[losses], rel=3 / math.sqrt(count))
    assert duration == pytest.approx(2 * losses + 2 / 0.95 - timeout_s, rel=0.05)


def test_phi_under_loss_is_a_lazy_timeout():
    """h 2, p .05: gaps of geometric length have mean 2.105 and deviation .471, whose phi of 8 is 4.75 s of silence:
    two misses in a row are a mistake, one is none."""
    mean_s, sd_s = 2 / 0.95, 2 * math.sqrt(0.05) / 0.95
    assert phi_timeout_s(8, mean_s, sd_s) == pytest.approx(4.75, abs=0.01)
    detector = PhiAccrualConfig(kind="phi_accrual", heartbeat_s=2.0, threshold=8).build()
    arrivals = beats(500_000, 2.0, 0.05)
    count, rate, _ = mistakes(detector, arrivals)
    assert rate == pytest.approx(1.19e-3, rel=3 / math.sqrt(count))
    judge = detector(0.0)
    silences = []
    for now in arrivals[:20_000]:
        judge.heard(now)
        silences.append(judge.review_at() - now)
    assert np.mean(silences[1_000:]) == pytest.approx(4.75, rel=0.02)


def test_phi_makes_the_mistakes_of_its_threshold_on_normal_gaps():
    """At threshold 2 one gap in a hundred, if gaps are independent and normal, and a little more for not knowing
    their mean and deviation exactly."""
    rng = np.random.default_rng(7)
    arrivals = np.cumsum(np.maximum(rng.normal(2.0, 0.2, 200_000), 0.0)).tolist()
    detector = PhiAccrualConfig(kind="phi_accrual", heartbeat_s=2.0, threshold=2, min_std_s=0.01).build()
    count, rate, _ = mistakes(detector, arrivals)
    assert 2.0 * rate == pytest.approx(0.01, rel=3 / math.sqrt(count) + 0.01)


def test_bertiers_margin_is_beta_times_the_delay_and_phi_times_the_deviation():
    """Independent normal delays of deviation s: the error's mean absolute value is s * sqrt(2 / pi), so that phi 4
    tolerates 3.19 deviations beyond the expectation: a mistake in 1400 beats, a few more for its own error."""
    rng = np.random.default_rng(3)
    arrivals = (np.arange(1, 50_001) + rng.normal(0.3, 0.02, 50_000)).tolist()
    judge = BertierConfig(kind="bertier", heartbeat_s=1.0, gamma=0.01).build()(0.0)
    margins = []
    for number, now in enumerate(arrivals, 1):
        judge.heard(now)
        margins.append(judge.review_at() - (number + 1.3))
    assert np.mean(margins[2_000:]) == pytest.approx(4 * 0.02 * math.sqrt(2 / math.pi), rel=0.02)
    count, rate, _ = mistakes(BertierConfig(kind="bertier", heartbeat_s=1.0, gamma=0.01).build(), arrivals)
    exact = 1 - NormalDist().cdf(4 * math.sqrt(2 / math.pi))
    assert 0.9 * exact - 3 * math.sqrt(count) / 50_000 < rate < 4 * exact


# ---- the same through the simulator: deaths and revivals are the transitions of the theory


def judged(make: MakeScenario, seconds: float, workers: int, network: dict[str, Any], **detection: Any) -> Verdicts:
    """Mistakes of a run in which nothing fails, from its events."""
    scenario = make(
        duration_s=seconds,
        workload={
            "arrivals": {"kind": "constant", "rate_per_s": 0.01},
            "service": {"kind": "constant", "value_s": 0.01},
        },
        cluster={"workers": workers, "capacity": 1},
        network=network,
        policies={"detection": detection},
    )
    events = sim.run(scenario).events
    count, wrong_s, since = 0, 0.0, {}
    for time_s, kind, worker in events[["time_s", "kind", "worker"]].itertuples(index=False):
        if kind == "dead":
            since[worker] = time_s
            count += 1
        elif kind == "up" and worker in since:
            wrong_s += time_s - since.pop(worker)
    wrong_s += sum(seconds - at for at in since.values())
    return Verdicts(count, count / (seconds * workers), wrong_s / count)


def test_chens_quality_in_a_simulated_cluster(make):
    """Forty workers with h 1, loss .01, and exponential delay of mean .02: a false positive, and the revival by the
    next fresh beat, are mistakes as the formulas count them."""
    network = {"delay": {"kind": "exponential", "mean_s": 0.02}, "loss": 0.01}
    found = judged(make, 3_000.0, 40, network, kind="chen", heartbeat_s=1.0, alpha_s=0.08)
    assert (found.rate_per_s, found.duration_s) == pytest.approx((0.01650, 0.5659), rel=3 / math.sqrt(found.number))


def test_two_misses_in_a_row_in_a_simulated_cluster(make):
    """h 2, loss .05, T 4.5: 1.19e-3 a second and worker."""
    found = judged(make, 4_000.0, 100, {"loss": 0.05}, kind="timeout", heartbeat_s=2.0, timeout_s=4.5)
    assert found.rate_per_s == pytest.approx(1.1875e-3, rel=3 / math.sqrt(found.number))
    assert found.duration_s == pytest.approx(4.0 + 2 / 0.95 - 4.5, rel=0.1)
