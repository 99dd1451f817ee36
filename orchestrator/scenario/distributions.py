"""Distributions of seconds: parameters of each kind, its draws, its mean and squared coefficient of variation, and what
a limit on the seconds makes of it.

Draws come one after the other from the generator, so the first n draws of a longer sample equal a sample of n. A
task's demand therefore depends only on the task's index.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from orchestrator.policies.config import NonNegative, Positive, Strict, tag_of
from orchestrator.scenario.datafiles import DataError, DataFile, Floats, read_columns, stamp
from orchestrator.scenario.validation import misfit


class Seconds(Strict):
    """What every distribution answers."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        """`size` independent draws, in seconds."""

    @abstractmethod
    def mean(self) -> float:
        """Seconds."""

    @abstractmethod
    def cv2(self) -> float:
        """Variance over squared mean: 0 for a constant, 1 for an exponential, inf without a variance."""

    @abstractmethod
    def share_from(self, limit_s: float) -> float:
        """The probability of a draw of at least so many seconds, which are more than 0."""

    @abstractmethod
    def mean_up_to(self, limit_s: float) -> float:
        """The mean if every longer draw is cut to so many seconds, which are more than 0."""


class Constant(Seconds):
    """Always the same."""

    kind: Literal["constant"]
    value_s: NonNegative
    """Seconds."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        return np.full(size, self.value_s)

    def mean(self) -> float:
        return self.value_s

    def cv2(self) -> float:
        return 0.0

    def share_from(self, limit_s: float) -> float:
        return float(self.value_s >= limit_s)

    def mean_up_to(self, limit_s: float) -> float:
        return min(self.value_s, limit_s)


class Uniform(Seconds):
    """Between two values, all equally likely."""

    kind: Literal["uniform"]
    low_s: NonNegative
    """The least, in seconds."""
    high_s: NonNegative
    """The most, in seconds."""

    @model_validator(mode="after")
    def _ordered(self) -> Uniform:
        if self.low_s > self.high_s:
            raise misfit(("high_s",), f"{self.high_s:g} is below low_s, expected at least {self.low_s:g}")
        return self

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        return rng.uniform(self.low_s, self.high_s, size)

    def mean(self) -> float:
        return (self.low_s + self.high_s) / 2

    def cv2(self) -> float:
        mean = self.mean()
        return ((self.high_s - self.low_s) / mean) ** 2 / 12 if mean else 0.0

    def share_from(self, limit_s: float) -> float:
        if self.low_s >= limit_s:
            return 1.0
        return max(0.0, self.high_s - limit_s) / (self.high_s - self.low_s) if self.high_s > self.low_s else 0.0

    def mean_up_to(self, limit_s: float) -> float:
        beyond = self.share_from(limit_s)
        return beyond * limit_s + (1 - beyond) * (self.low_s + min(self.high_s, limit_s)) / 2


class Exponential(Seconds):
    """Memoryless."""

    kind: Literal["exponential"]
    mean_s: Positive
    """Mean in seconds."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        return rng.exponential(self.mean_s, size)

    def mean(self) -> float:
        return self.mean_s

    def cv2(self) -> float:
        return 1.0

    def share_from(self, limit_s: float) -> float:
        return math.exp(-limit_s / self.mean_s)

    def mean_up_to(self, limit_s: float) -> float:
        return -self.mean_s * math.expm1(-limit_s / self.mean_s)


class Lognormal(Seconds):
    """The exponential of a normal, given by its own mean and coefficient of variation."""

    kind: Literal["lognormal"]
    mean_s: Positive
    """Mean in seconds."""
    cv: Annotated[float, Field(ge=0, le=1000)]
    """Coefficient of variation: standard deviation over mean."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        # E = exp(mu + sigma^2 / 2) and cv^2 = exp(sigma^2) - 1.
        variance = math.log1p(self.cv**2)
        return rng.lognormal(math.log(self.mean_s) - variance / 2, math.sqrt(variance), size)

    def mean(self) -> float:
        return self.mean_s

    def cv2(self) -> float:
        return self.cv**2

    def share_from(self, limit_s: float) -> float:
        return 1 - self._normal_below(limit_s, 0.5)

    def mean_up_to(self, limit_s: float) -> float:
        return self.mean_s * self._normal_below(limit_s, -0.5) + limit_s * self.share_from(limit_s)

    def _normal_below(self, limit_s: float, variances: float) -> float:
        """The standard normal distribution at ln(limit / mean) plus so many variances, in standard deviations."""
        variance = math.log1p(self.cv**2)
        distance = math.log(limit_s / self.mean_s) + variances * variance
        if not variance:
            return float(distance > 0)
        return math.erfc(-distance / math.sqrt(2 * variance)) / 2


class Pareto(Seconds):
    """A power law, P(X > x) = (minimum / x)^alpha, with minimum = mean_s (alpha - 1) / alpha."""

    kind: Literal["pareto"]
    mean_s: Positive
    """Mean in seconds."""
    alpha: Annotated[float, Field(gt=1)]
    """Tail index; up to 2 the variance is infinite."""

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        return self._minimum_s * (1 + rng.pareto(self.alpha, size))

    def mean(self) -> float:
        return self.mean_s

    def cv2(self) -> float:
        return 1 / (self.alpha * (self.alpha - 2)) if self.alpha > 2 else math.inf

    def share_from(self, limit_s: float) -> float:
        return math.pow(min(1.0, self._minimum_s / limit_s), self.alpha)

    def mean_up_to(self, limit_s: float) -> float:
        return min(limit_s, self.mean_s - limit_s * self.share_from(limit_s) / (self.alpha - 1))

    @property
    def _minimum_s(self) -> float:
        return self.mean_s * (self.alpha - 1) / self.alpha


class Empirical(Seconds):
    """Values of a data file's column, drawn with replacement."""

    kind: Literal["empirical"]
    file: DataFile
    """CSV or Parquet."""
    column: str
    """The column of seconds."""

    @model_validator(mode="after")
    def _readable(self) -> Empirical:
        try:
            self.values()
        except DataError as error:
            raise misfit(("column" if "no column" in str(error) else "file",), str(error)) from None
        return self

    def values(self) -> Floats:
        return _column(self.file, self.column, stamp(self.file))

    def sample(self, rng: np.random.Generator, size: int) -> Floats:
        values = self.values()
        return values[rng.integers(0, len(values), size)]

    def mean(self) -> float:
        return float(self.values().mean())

    def cv2(self) -> float:
        values = self.values()
        return float(values.var() / values.mean() ** 2) if values.any() else 0.0

    def share_from(self, limit_s: float) -> float:
        return float(np.mean(self.values() >= limit_s))

    def mean_up_to(self, limit_s: float) -> float:
        return float(np.mean(np.minimum(self.values(), limit_s)))


@lru_cache(maxsize=8)
def _column(file: str, column: str, stamp: tuple[int, int]) -> Floats:
    return read_columns(file, (column,)).numbers(column)


Distribution = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[Lognormal, Tag("lognormal")]
    | Annotated[Pareto, Tag("pareto")]
    | Annotated[Empirical, Tag("empirical")],
    Discriminator(tag_of),
]


def _constant(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"kind": "constant", "value_s": value} if is_number else value


DurationOrDistribution = Annotated[
    Distribution, BeforeValidator(_constant, json_schema_input_type=NonNegative | Distribution)
]
"""A distribution, or a number of seconds that stands for a constant."""


def longest_s(distribution: Distribution) -> float:
    """The longest time that can be drawn; infinity if there is no bound."""
    match distribution:
        case Constant():
            return distribution.value_s
        case Uniform():
            return distribution.high_s
        case Empirical():
            return float(distribution.values().max())
    return math.inf
