"""Failure detectors: one object per worker, O(1) per heartbeat, and nothing polls.

The rules are functions of the silence since the last beat, so `review_at` is the last beat plus the silence at
which the verdict turns. `check_every_s` and `on_failed_call` belong to the coordinator, and stand here because a
scenario gives them together with the detector.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from orchestrator.core.ports import DetectorFactory, FailureDetector, Verdict
from orchestrator.policies.config import Custom, NonNegative, Positive, Strict, tag_of

# A beat that is due at the very end of the timeout is in time: sums of floats differ in their last digit.
SLACK_S = 1e-9


class Timeout:
    """Dead when the last beat is over `timeout_s` old."""

    __slots__ = ("_last", "_silence_s")

    def __init__(self, timeout_s: float, now: float) -> None:
        self._silence_s = timeout_s + SLACK_S
        self._last = now

    def heard(self, now: float) -> None:
        self._last = now

    def verdict(self, now: float) -> Verdict:
        return Verdict.DEAD if now >= self._last + self._silence_s else Verdict.ALIVE

    def review_at(self) -> float:
        return self._last + self._silence_s


def phi(silence_s: float, mean_s: float, sd_s: float) -> float:
    """Suspicion level -log10 P(gap > silence), gaps normal (Hayashibara et al. 2004, eq. 1)."""
    z = (silence_s - mean_s) / sd_s
    # erfc keeps its precision far out in the tail, where 1 - cdf would be 0.
    tail = 0.5 * math.erfc(z / math.sqrt(2))
    return -math.log10(tail) if tail > 0 else math.inf


def phi_timeout_s(threshold: float, mean_s: float, sd_s: float) -> float:
    """The silence at which phi reaches `threshold`: mean + sd * z, z the normal tail's quantile at 10^-threshold."""
    return mean_s - sd_s * NormalDist().inv_cdf(10.0**-threshold)


class PhiAccrual:
    """Dead when phi of the silence reaches a threshold, over a window of the last gaps between beats.

    Until the first gap the expected one is `heartbeat_s`, with a quarter of it as deviation (as Akka seeds it).
    """

    __slots__ = ("_beating", "_config", "_gaps", "_last", "_silence_s", "_squares", "_sum", "_z")

    def __init__(self, config: PhiAccrualConfig, now: float) -> None:
        self._config = config
        self._z = -NormalDist().inv_cdf(10.0**-config.threshold)
        self._gaps: deque[float] = deque()
        self._sum = self._squares = 0.0
        self._last = now
        self._beating = False
        self._silence_s = self._turning_point()

    def heard(self, now: float) -> None:
        # Running sums of the gaps' excess over the expected one, so that no precision is lost in the squares.
        excess = now - self._last - self._config.heartbeat_s
        self._last = now
        if not self._beating:  # the time from the registration to the first beat is a matter of phase, no gap
            self._beating = True
            return
        self._gaps.append(excess)
        self._sum += excess
        self._squares += excess * excess
        if len(self._gaps) > self._config.window:
            oldest = self._gaps.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._silence_s = self._turning_point()

    def verdict(self, now: float) -> Verdict:
        return Verdict.DEAD if now >= self._last + self._silence_s else Verdict.ALIVE

    def review_at(self) -> float:
        return self._last + self._silence_s

    def _turning_point(self) -> float:
        config, n = self._config, len(self._gaps)
        if n:
            excess = self._sum / n
            sd_s = math.sqrt(max(0.0, self._squares / n - excess * excess))
        else:
            excess, sd_s = 0.0, config.heartbeat_s / 4
        mean_s = config.heartbeat_s + excess + config.acceptable_pause_s
        return mean_s + max(sd_s, config.min_std_s) * self._z + SLACK_S


class Detection(Strict):
    """What every detector's settings have in common."""

    heartbeat_s: Positive = 2.0
    """Seconds between a worker's heartbeats."""
    check_every_s: Positive | None = None
    """Look at the verdicts only every so many seconds, at a random phase; null: at the exact moment."""
    on_failed_call: Literal["hold", "dead"] = "hold"
    """After a call to a worker failed: give it nothing until its next heartbeat, or convict it at once."""


class TimeoutConfig(Detection):
    """Dead when the last heartbeat is over timeout_s old."""

    kind: Literal["timeout"] = "timeout"
    timeout_s: Positive = 6.0
    """Silence after which a worker is dead."""

    def build(self) -> DetectorFactory:
        return lambda now: Timeout(self.timeout_s, now)


class PhiAccrualConfig(Detection):
    """Dead when the silence is too unlikely, given the gaps between the last heartbeats."""

    kind: Literal["phi_accrual"]
    threshold: Annotated[float, Field(gt=0, le=300)] = 8.0
    """Suspicion level that convicts; 8 is a mistake in 10^8 if gaps were normal."""
    window: Annotated[int, Field(ge=1)] = 1000
    """How many gaps are remembered."""
    min_std_s: Positive = 0.1
    """Floor of the gaps' standard deviation."""
    acceptable_pause_s: NonNegative = 0.0
    """Added to the mean gap."""

    def build(self) -> DetectorFactory:
        return lambda now: PhiAccrual(self, now)


class CustomDetection(Custom, Detection):
    """Your own `FailureDetector`: built per worker with `now`, the time of its first beat, and the other keys."""

    model_config = ConfigDict(extra="allow")

    def build(self) -> DetectorFactory:
        make: Callable[..., FailureDetector] = self.load()
        parameters = self.parameters()
        return lambda now: make(now=now, **parameters)


DetectionConfig = Annotated[
    Annotated[TimeoutConfig, Tag("timeout")]
    | Annotated[PhiAccrualConfig, Tag("phi_accrual")]
    | Annotated[CustomDetection, Tag("custom")],
    Discriminator(tag_of),
]
