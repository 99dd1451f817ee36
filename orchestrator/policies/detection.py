"""Failure detectors: one object per worker, O(1) per heartbeat, and nothing polls.

After each heartbeat a detector knows the moment at which its verdict changes if no further one comes: `review_at`. A
rule (`...Rule`) has a detector's own parameters. A configuration (`...Config`) adds the parameters that all detectors
have in common. Most of those belong to the coordinator, and a scenario gives them together with the detector.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from statistics import NormalDist
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, Discriminator, Field, Tag

from orchestrator.core.ports import DetectorFactory, FailureDetector, SleepAware, Verdict
from orchestrator.policies.config import Count, Custom, NonNegative, Positive, Strict, tag_of

# A heartbeat that is due at the very end of the timeout is in time, because sums of floats differ in the last digit.
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

    __slots__ = ("_gaps", "_heartbeat_s", "_last", "_rule", "_silence_s", "_sound_from", "_squares", "_sum", "_z")

    def __init__(self, rule: PhiAccrualRule, heartbeat_s: float, now: float) -> None:
        self._rule = rule
        self._heartbeat_s = heartbeat_s
        self._z = -NormalDist().inv_cdf(10.0**-rule.threshold)
        self._gaps: deque[float] = deque()
        self._sum = self._squares = 0.0
        self._last = now
        self._sound_from = now  # the time from the registration to the first beat is a matter of phase, no gap
        self._silence_s = self._turning_point()

    def heard(self, now: float) -> None:
        # Running sums of the gaps' excess over the expected one, so that no precision is lost in the squares.
        last, self._last = self._last, now
        if last <= self._sound_from:
            return
        excess = now - last - self._heartbeat_s
        self._gaps.append(excess)
        self._sum += excess
        self._squares += excess * excess
        if len(self._gaps) > self._rule.window:
            oldest = self._gaps.popleft()
            self._sum -= oldest
            self._squares -= oldest * oldest
        self._silence_s = self._turning_point()

    def slept(self, until: float) -> None:
        self._sound_from = until

    def verdict(self, now: float) -> Verdict:
        return Verdict.DEAD if now >= self._last + self._silence_s else Verdict.ALIVE

    def review_at(self) -> float:
        return self._last + self._silence_s

    def _turning_point(self) -> float:
        rule, n = self._rule, len(self._gaps)
        if n:
            excess = self._sum / n
            sd_s = math.sqrt(max(0.0, self._squares / n - excess * excess))
        else:
            excess, sd_s = 0.0, self._heartbeat_s / 4
        mean_s = self._heartbeat_s + excess + rule.acceptable_pause_s
        return mean_s + max(sd_s, rule.min_std_s) * self._z + SLACK_S


def sequence_number(arrival: float, expected_first: float, heartbeat_s: float) -> int:
    """Of a beat, from when it arrives and when number 0 would have been expected: the wire does not carry it."""
    return round((arrival - expected_first) / heartbeat_s)


class ExpectedArrivals:
    """When the next beat is expected: EA(k) = mean over the last `window` of (arrival_i - h * i) + h * k
    (Chen, Toueg, Aguilera, "On the quality of service of failure detectors", 2002, section 6.3)."""

    __slots__ = ("_excesses", "_first", "_heartbeat_s", "_mean", "_sum", "_window", "newest")

    # A beat that ends a longer silence may be off the rhythm: a process that goes on after a pause beats at once.
    RHYTHM = 3

    def __init__(self, heartbeat_s: float, window: int) -> None:
        self._heartbeat_s = heartbeat_s
        self._window = window
        self._excesses: deque[float] = deque()  # of arrivals over _first + h * i: small numbers
        self._first = 0.0
        self._sum = self._mean = 0.0
        self.newest = -1

    def of(self, number: int) -> float:
        return self._first + self._mean + self._heartbeat_s * number

    def infer(self, arrival: float) -> int:
        """The number of a beat that arrives now; 0 for the first."""
        return sequence_number(arrival, self._first + self._mean, self._heartbeat_s) if self._excesses else 0

    def take(self, number: int, arrival: float, sound: bool) -> bool:
        """A beat newer than the newest; whether it was on the rhythm, and counts in the mean."""
        silence, self.newest = number - self.newest, number
        if not self._excesses:
            self._first = arrival
        elif silence > self.RHYTHM or not sound:
            return False
        excess = arrival - self._first - self._heartbeat_s * number
        self._excesses.append(excess)
        self._sum += excess
        if len(self._excesses) > self._window:
            self._sum -= self._excesses.popleft()
        self._mean = self._sum / len(self._excesses)
        return True


class Chen:
    """NFD-E: dead from the freshness point EA(k + 1) + alpha on, k the newest beat, until a newer one arrives
    (Chen, Toueg, Aguilera 2002). Beats that are repeated or overtaken prolong nothing."""

    __slots__ = ("_alpha_s", "_due", "_expected", "_heartbeat_s", "_sound_from")

    def __init__(self, rule: ChenRule, heartbeat_s: float, now: float) -> None:
        self._alpha_s = rule.alpha_s
        self._heartbeat_s = heartbeat_s
        self._expected = ExpectedArrivals(heartbeat_s, rule.window)
        self._sound_from = now
        self._due = now + heartbeat_s + rule.alpha_s + SLACK_S

    def heard(self, now: float) -> None:
        expected = self._expected
        number = expected.infer(now)
        if expected.newest < 0 and now < self._sound_from:
            self._due = now + self._heartbeat_s + self._alpha_s + SLACK_S
        elif number > expected.newest:
            expected.take(number, now, now >= self._sound_from)
            self._due = expected.of(number + 1) + self._alpha_s + SLACK_S

    def slept(self, until: float) -> None:
        self._sound_from = until

    def verdict(self, now: float) -> Verdict:
        return Verdict.DEAD if now >= self._due else Verdict.ALIVE

    def review_at(self) -> float:
        return self._due


def bertier_margin_s(delay_s: float, deviation_s: float, beta: float, phi: float) -> float:
    """alpha = beta * delay + phi * deviation (Bertier, Marin, Sens 2002, after Jacobson's round-trip estimate)."""
    return beta * delay_s + phi * deviation_s


class Bertier:
    """As `Chen`, with a margin that follows the error e of the last expectation: delay += gamma * (e - delay),
    deviation += gamma * (abs(e - delay) - deviation) (Bertier, Marin, Sens, "Implementation and performance
    evaluation of an adaptable failure detector", 2002). Before the first error the deviation is h/4."""

    __slots__ = ("_delay_s", "_deviation_s", "_due", "_expected", "_heartbeat_s", "_rule", "_sound_from")

    def __init__(self, rule: BertierRule, heartbeat_s: float, now: float) -> None:
        self._rule = rule
        self._heartbeat_s = heartbeat_s
        self._expected = ExpectedArrivals(heartbeat_s, rule.window)
        self._delay_s = 0.0
        self._deviation_s = heartbeat_s / 4
        self._sound_from = now
        self._due = now + heartbeat_s + self._margin_s()

    def heard(self, now: float) -> None:
        expected, rule = self._expected, self._rule
        number = expected.infer(now)
        if expected.newest < 0 and now < self._sound_from:
            self._due = now + self._heartbeat_s + self._margin_s()
        elif number > expected.newest:
            is_first = expected.newest < 0
            error_s = now - expected.of(number) - self._delay_s
            if expected.take(number, now, now >= self._sound_from) and not is_first:
                self._delay_s += rule.gamma * error_s
                self._deviation_s += rule.gamma * (abs(error_s) - self._deviation_s)
            self._due = expected.of(number + 1) + self._margin_s()

    def slept(self, until: float) -> None:
        self._sound_from = until

    def verdict(self, now: float) -> Verdict:
        return Verdict.DEAD if now >= self._due else Verdict.ALIVE

    def review_at(self) -> float:
        return self._due

    def _margin_s(self) -> float:
        rule = self._rule
        return bertier_margin_s(self._delay_s, self._deviation_s, rule.beta, rule.phi) + SLACK_S


class Suspecting:
    """Any detector, with suspicion after a share of the silence that it tolerates."""

    __slots__ = ("_inner", "_last", "_share", "_suspected")

    def __init__(self, inner: FailureDetector, share: float, now: float) -> None:
        self._inner = inner
        self._share = share
        self._last = now
        self._suspected = False

    def heard(self, now: float) -> None:
        self._inner.heard(now)
        self._last = now
        self._suspected = False

    def slept(self, until: float) -> None:
        if isinstance(self._inner, SleepAware):
            self._inner.slept(until)

    def verdict(self, now: float) -> Verdict:
        verdict = self._inner.verdict(now)
        self._suspected = verdict is Verdict.ALIVE and now >= self._suspect_at()
        return Verdict.SUSPECT if self._suspected else verdict

    def review_at(self) -> float:
        due = self._inner.review_at()
        return due if self._suspected else min(due, self._suspect_at())

    def _suspect_at(self) -> float:
        return self._last + self._share * (self._inner.review_at() - self._last)


class Main(NamedTuple):
    """The parameter by which a detector trades speed against mistakes, and values worth trying.

    Values of a parameter in seconds are in heartbeats. None is a whole number, because there the last digit decides.
    """

    name: str
    values: tuple[float, ...]


class TimeoutRule(Strict):
    """Dead when the last heartbeat is over timeout_s old."""

    main: ClassVar = Main("timeout_s", (1.05, 1.25, 1.75, 2.05, 2.5, 3.05, 3.5, 4.05, 5.05, 6.05))
    kind: Literal["timeout"] = "timeout"
    timeout_s: Positive = 6.0
    """Silence after which a worker is dead."""

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        return lambda now: Timeout(self.timeout_s, now)


class PhiAccrualRule(Strict):
    """Dead when the silence is too unlikely, given the gaps between the last heartbeats."""

    main: ClassVar = Main("threshold", (0.5, 1, 2, 4, 6, 8, 12, 20, 40, 80))
    kind: Literal["phi_accrual"]
    threshold: Annotated[float, Field(gt=0, le=300)] = 8.0
    """Suspicion level at which a worker is declared dead; 8 is one mistake in 10^8 if gaps are normally distributed."""
    window: Count = 1000
    """How many gaps are remembered."""
    min_std_s: Positive = 0.1
    """Floor of the gaps' standard deviation."""
    acceptable_pause_s: NonNegative = 0.0
    """Added to the mean gap."""

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        return lambda now: PhiAccrual(self, heartbeat_s, now)


class ChenRule(Strict):
    """Dead alpha_s after the next heartbeat was expected, by the mean rhythm of the last ones."""

    main: ClassVar = Main("alpha_s", (0.05, 0.1, 0.25, 0.75, 1.05, 1.5, 2.05, 3.05, 4.05, 5.05))
    kind: Literal["chen"]
    alpha_s: NonNegative = 1.0
    """Seconds that a heartbeat may be later than expected."""
    window: Count = 32
    """How many arrivals the expectation is the mean of."""

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        return lambda now: Chen(self, heartbeat_s, now)


class BertierRule(Strict):
    """As chen, with a margin that follows the error of the expectation: beta * delay + phi * deviation."""

    main: ClassVar = Main("phi", (1, 2, 4, 8, 16, 32, 64, 128, 256, 512))
    kind: Literal["bertier"]
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of the newest error."""
    beta: NonNegative = 1.0
    """Weight of the mean error in the margin."""
    phi: NonNegative = 4.0
    """Weight of the errors' deviation in the margin."""
    window: Count = 1000
    """How many arrivals the expectation is the mean of."""

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        return lambda now: Bertier(self, heartbeat_s, now)


class CustomRule(Custom):
    """Your own `FailureDetector`: built per worker with `now`, the time of its first beat, and the other keys."""

    protocol = FailureDetector
    extensions = (SleepAware,)
    role = "a failure detector"

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        make: Callable[..., FailureDetector] = self.instance
        return lambda now: make(now=now)


DetectorRule = Annotated[
    Annotated[TimeoutRule, Tag("timeout")]
    | Annotated[PhiAccrualRule, Tag("phi_accrual")]
    | Annotated[ChenRule, Tag("chen")]
    | Annotated[BertierRule, Tag("bertier")]
    | Annotated[CustomRule, Tag("custom")],
    Discriminator(tag_of),
]


class Detection(Strict, ABC):
    """What every detector's settings have in common."""

    heartbeat_s: Positive = 2.0
    """Seconds between a worker's heartbeats."""
    check_every_s: Positive | None = None
    """Look at the verdicts only every so many seconds, at a random phase; null: at the exact moment."""
    on_failed_call: Literal["hold", "dead"] = "hold"
    """After a failed call: no tasks for the worker until its next heartbeat (hold), or declare it dead at once."""
    suspect_after: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the tolerated silence after which a worker is suspect and gets no new tasks; null: never."""
    on_suspect: Literal["hold", "hedge"] = "hold"
    """A suspect's running attempts go on (hold), or they go on and hedges of them start elsewhere (hedge)."""
    max_dead_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the workers (at least one) that the detector may hold dead at the same time; null: no limit."""
    own_pause_s: Positive | None = 0.5
    """An alarm that rings later than this means that the coordinator itself stood still; null: it never does."""

    @abstractmethod
    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        """The factory of the rule itself, without suspicion."""

    def build(self) -> DetectorFactory:
        plain, share = self.detectors(self.heartbeat_s), self.suspect_after
        if share is None:
            return plain
        return lambda now: Suspecting(plain(now), share, now)


class TimeoutConfig(TimeoutRule, Detection):
    """Dead when the last heartbeat is over timeout_s old."""


class PhiAccrualConfig(PhiAccrualRule, Detection):
    """Dead when the silence is too unlikely, given the gaps between the last heartbeats."""


class ChenConfig(ChenRule, Detection):
    """Dead alpha_s after the next heartbeat was expected, by the mean rhythm of the last ones."""


class BertierConfig(BertierRule, Detection):
    """As chen, with a margin that follows the error of the expectation: beta * delay + phi * deviation."""


class TwoLevelConfig(Detection):
    """Another detector for silent workers, and a time limit for attempts that are stuck while their worker beats."""

    kind: Literal["two_level"]
    detector: DetectorRule = TimeoutRule()
    """The rule for silent workers: a mapping with a kind and that kind's own keys."""
    start_to_close_s: Positive
    """Seconds of execution after which an attempt is given up, unless policies.execution_timeout_s is less."""

    def detectors(self, heartbeat_s: float) -> DetectorFactory:
        return self.detector.detectors(heartbeat_s)


class CustomDetection(CustomRule, Detection):
    """Your own `FailureDetector`: built per worker with `now`, the time of its first beat, and the other keys."""

    model_config = ConfigDict(extra="allow")


DetectionConfig = Annotated[
    Annotated[TimeoutConfig, Tag("timeout")]
    | Annotated[PhiAccrualConfig, Tag("phi_accrual")]
    | Annotated[ChenConfig, Tag("chen")]
    | Annotated[BertierConfig, Tag("bertier")]
    | Annotated[TwoLevelConfig, Tag("two_level")]
    | Annotated[CustomDetection, Tag("custom")],
    Discriminator(tag_of),
]
