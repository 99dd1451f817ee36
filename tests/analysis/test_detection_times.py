"""How long a crash goes unnoticed on a trace, against what loss and delay of heartbeats make of it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

import sim
from orchestrator.analysis.detector_replay import follow
from orchestrator.analysis.traces import Alarm
from orchestrator.policies.detection import TimeoutConfig
from orchestrator.results.tables import Floats
from tests.analysis.judging import judged, scenario, trace


class Network(NamedTuple):
    """Heartbeats every second are lost with that probability, and delayed exponentially."""

    loss: float
    delay_s: float
    timeout_s: float


POINTS = [
    Network(0.05, 0.5, 1.8),
    Network(0.0, 0.5, 2.5),
    Network(0.2, 0.1, 3.0),
    Network(0.05, 1.5, 4.0),
    Network(0.3, 0.8, 2.0),
    Network(0.01, 0.02, 1.2),
]


def times_s(network: Network, crashes: int, rng: np.random.Generator) -> Floats:
    """By the definition: from a crash to the verdict that stays, a timeout after the last beat ever heard."""
    before = 60  # beats that matter
    crash_s = before + rng.random(crashes)[:, None]
    sent_s = np.arange(before + 1)[None, :]
    arrives_s = sent_s + rng.exponential(network.delay_s, (crashes, before + 1))
    heard = (sent_s < crash_s) & (rng.random(arrives_s.shape) >= network.loss)
    last_s = np.max(np.where(heard, arrives_s, -np.inf), axis=1)
    return np.maximum(0.0, last_s + network.timeout_s - crash_s[:, 0])


def batches(values: Floats) -> tuple[Floats, Floats]:
    """Mean and p99 of each of twenty batches."""
    parts = np.array_split(values, 20)
    return np.array([part.mean() for part in parts]), np.array([np.quantile(part, 0.99) for part in parts])


@pytest.mark.parametrize("network", POINTS, ids=str)
def test_a_beat_that_is_under_way_at_a_crash_still_counts(network: Network):
    """Mean and p99 of the judged detection times are those of a Monte Carlo, within three standard errors."""
    timeout = {"kind": "timeout", "heartbeat_s": 1, "timeout_s": network.timeout_s}
    chosen = scenario(
        cluster={"workers": 20},
        duration_s=5_000,
        network={"delay": {"kind": "exponential", "mean_s": network.delay_s}, "loss": network.loss},
        policies={"detection": timeout},
    )
    (found,) = judged([sim.heartbeats(chosen)], chosen.policies.detection, policies={"detection": timeout})
    expected = batches(times_s(network, 40_000, np.random.default_rng(1)))
    for value, truth in zip((found.detection_s.mean(), found.p99_s), expected, strict=True):
        # Of 5,000 crashes, twenty batches of 2,000 tell the error: a batch has the spread of sqrt(5,000 / 2,000) of it.
        error = np.std(truth, ddof=1) * np.sqrt(2_000 / 5_000 + 1 / 20)
        assert abs(value - truth.mean()) < 3 * error


def test_detection_ends_with_the_verdict_that_stays():
    """A beat sent before the crash arrives after a first verdict, and undoes it."""
    (life,) = trace({"w1": [1.0, 2.0, 6.0]}, 20.0, sent={"w1": [0.9, 1.9, 2.9]}).lives
    tally = follow(TimeoutConfig(timeout_s=3, heartbeat_s=1).build(), life, Alarm(None, []), np.array([2.5, 2.95, 7.0]))
    assert tally.detection_s == pytest.approx([2.5, 6.05, 2.0])


def test_beats_that_overtake_each_other_are_told_apart():
    """What was sent after the crash does not count, even where it arrives before what was sent earlier."""
    (life,) = trace({"w1": [1.0, 4.0, 4.5]}, 20.0, sent={"w1": [1.0, 3.0, 2.0]}).lives
    assert life.under_way(np.array([0.5, 2.5, 3.5, 4.2])) == [[], [4.5], [4.0, 4.5], [4.5]]


def test_where_sending_times_are_not_known_nothing_is_under_way():
    """As in the decision record of a live run."""
    (life,) = trace({"w1": [1.0, 2.0, 6.0]}, 20.0).lives
    assert life.under_way(np.array([0.5, 2.5])) == [[], []]


def test_a_beat_of_the_new_process_is_no_sign_of_the_old_one():
    """It has overtaken its registration: the crash was noticed, and not missed."""
    crash, restart, again = (
        (3.0, "crash", "w1", None),
        (9.0, "heal", "w1", "restart"),
        (9.6, "up", "w1", "reregistered"),
    )
    made = trace({"w1": [1.0, 2.0, 9.5, 10.0]}, 20.0, crash, restart, again, sent={"w1": [0.9, 1.9, 9.1, 9.9]})
    old, new = made.lives
    assert (old.beats_s.tolist(), new.beats_s.tolist()) == ([1, 2], [10])
    tally = follow(TimeoutConfig(timeout_s=3, heartbeat_s=1).build(), old, Alarm(None, []), np.empty(0))
    assert tally.own_detection_s == pytest.approx([2.0])
    assert tally.missed == 0
