"""95 % confidence intervals of pooled statistics, from clusters: independent replications, or the blocks of one run.

The values within a cluster are correlated, so none of them counts as independent. What varies between clusters is all
that is used. An interval is of the pooled statistic itself, and lies within what the statistic can be: times, rates and
counts are taken on a logarithmic scale, shares on a logistic one. docs/intervals.md tells how often they cover.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from orchestrator.results.statistics import quantile
from orchestrator.results.tables import Floats

LEVEL = 0.95
BODY = (0.5, 0.75, 0.9, 0.95)
"""Quantiles at which it is seen how clustered values are; beyond a quantile of the tail there are too few to see it."""
ENOUGH_BEYOND = 10.0
"""How many independent values must be expected beyond a quantile for its interval to have an upper end."""
ENOUGH_BY_THEORY = 25.0
"""The same of those that theory knows of, for each that is not beyond: the share beyond is then known to within 20 %.
Where it has fewer, a sample that looks like ten is mostly a lucky one."""
SAME = 1e-3
"""Clusters that vary by less than this part of what independent values would are copies, and say nothing of it."""
_EXPLAINED = 1e-3
"""A part of a variance that is no less than chance leaves of it."""
WIDEST = 1.0
"""The half width on a logarithmic scale from which an interval says too little: its clusters differ too much."""


class Interval(NamedTuple):
    """An upper end is None if it is not known, or if the clusters are too few to tell it; `too_few` says which."""

    low: float
    high: float | None
    too_few: bool = False


def student(clusters: float) -> float:
    """The two-sided 95 % point of Student's t with one degree of freedom fewer than clusters, and at least one."""
    from scipy.special import stdtrit  # takes a third of the time that importing scipy.stats takes

    return float(stdtrit(max(clusters - 1, 1.0), (1 + LEVEL) / 2))


def inflation(residuals: Floats) -> float:
    """By how much the variance of a mean grows because neighbouring blocks are alike: (1 + r) / (1 - r), where r is
    their correlation if it is positive (Tafazzoli and Wilson, "Skart: a skewness- and autoregression-adjusted
    batch-means procedure", 2011). The correlation of few residuals is too small on average; on the other hand only
    what is positive of it counts.
    """
    total = float(np.sum(residuals**2))
    alike = float(np.sum(residuals[1:] * residuals[:-1])) / total if total else 0.0
    alike = min(max(alike, 0.0), 0.9)
    return (1 + alike) / (1 - alike)


def bounds(intervals: Sequence[Interval | Sequence[float | None] | None]) -> Floats:
    """The lower ends and the upper ends, float64[2, n]; NaN where one is not known."""
    return np.array([(interval or (None, None))[:2] for interval in intervals], dtype=np.float64).T


def percentile_intervals(
    clusters: Sequence[Floats],
    quantiles: Sequence[float] | Floats,
    serial: bool = False,
    independent: float = math.inf,
    wait_s: Sequence[Floats] = (),
) -> list[Interval | None]:
    """The interval of each pooled quantile (Woodruff, "Confidence intervals for medians and other position measures",
    1952): bounds of the share of values beyond it, read off the pooled values. None without two clusters.

    The bounds of the share are those of Korn and Graubard ("Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", 1998): exact binomial ones, of as many independent values as
    vary between clusters as much, lessened by Student's t. A quantile is taken to be no less clustered than the body of
    the values below it is on average; see `_beyond_the_body` for the tail. Where fewer than ENOUGH_BEYOND independent
    values are beyond, the upper end is not told.

    `clusters` hold no NaN. An infinite value is slower than all others, and an upper end that falls on one is not
    known. `serial`: the clusters are blocks that follow each other, see `inflation`. `independent`: of how many
    independent values they tell no more, whatever they look like, see `results.relaxation`. `wait_s`: the waits of the
    same tasks, cluster by cluster, if they are known.
    """
    from scipy.special import betaincinv, ndtri

    given, clusters = clusters, [np.sort(cluster) for cluster in clusters if len(cluster)]
    if len(clusters) < 2:
        return [None] * len(quantiles)
    values = np.sort(np.concatenate(clusters))
    q, tail = np.array(quantiles, dtype=np.float64), (1 - LEVEL) / 2
    body, own = np.split(_design_effects(clusters, values, np.append(BODY, q), serial), [len(BODY)])
    means = np.append(0.0, np.cumsum(body) / np.arange(1, len(BODY) + 1))[np.searchsorted(BODY, q, side="right")]
    if wait_s and np.any(q > BODY[-1]):
        means = np.where(q > BODY[-1], np.minimum(means, _beyond_the_body(body, q, values, given, wait_s)), means)
    widened = (student(len(clusters)) / float(ndtri(1 - tail))) ** 2
    clustered = np.maximum(own * widened, means)
    n = len(values) / np.where(clustered > SAME, clustered, 1.0)
    least = betaincinv(n * (1 - q), n * q + 1, tail)
    most = betaincinv(n * (1 - q) + 1, n * q, 1 - tail)
    low, high = (quantile(values, np.asarray(1 - beyond, dtype=np.float64)) for beyond in (most, least))
    few = (np.minimum(n, len(values)) * (1 - q) < ENOUGH_BEYOND) | (independent * (1 - q) / q < ENOUGH_BY_THEORY)
    return [
        Interval(float(a), float(b) if np.isfinite(b) and not lacks else None, bool(lacks)) if np.isfinite(a) else None
        for a, b, lacks in zip(low, high, few, strict=True)
    ]


def named_percentile_intervals(
    name: str,
    clusters: Sequence[Floats],
    quantiles: Mapping[str, float],
    serial: bool = False,
    independent: float = math.inf,
    wait_s: Sequence[Floats] = (),
) -> dict[str, Interval | None]:
    """`percentile_intervals` of values that may be NaN, by names such as `latency_s.p99`."""
    known = [~np.isnan(one) for one in clusters]
    values, waits = ([one[there] for one, there in zip(each, known, strict=False)] for each in (clusters, wait_s))
    found = percentile_intervals(values, list(quantiles.values()), serial, independent, waits)
    return dict(zip((f"{name}.{quantile}" for quantile in quantiles), found, strict=True))


def pooled_mean_interval(clusters: Sequence[Floats], serial: bool = False) -> Interval | None:
    """`mean_interval` of the mean of all values that are finite."""
    finite = [one[np.isfinite(one)] for one in clusters]
    sums, sizes = (np.array([measure(one) for one in finite], dtype=np.float64) for measure in (np.sum, len))
    return mean_interval(sums, sizes, serial)


def mean_interval(parts: Floats, wholes: Floats, serial: bool = False) -> Interval | None:
    """Of sum(parts) / sum(wholes), which is not negative. None without two clusters.

    Student's t on a logarithmic scale, or, where it reaches farther, on the plain one with Willink's correction for
    skewness ("A confidence interval and test for the mean of an asymmetric distribution", 2005). [0, None] if every
    part is 0. The upper end is not told if the clusters differ by too much (WIDEST).
    """
    there = wholes > 0
    parts, wholes = parts[there], wholes[there]
    if len(parts) < 2:
        return None
    (mean, error, residuals), t = _ratio(parts, wholes, serial), student(len(parts))
    if mean <= 0:
        return Interval(0.0, None)
    half = t * error / mean
    below, above = _skewed(residuals, t)
    low = min(mean * np.exp(-half), max(mean - below * error, 0.0)) if half <= WIDEST else mean * np.exp(-half)
    high = max(mean * np.exp(half), mean + above * error)
    return Interval(float(low), float(high) if half <= WIDEST else None, half > WIDEST)


def share_interval(parts: Floats, wholes: Floats, serial: bool = False) -> Interval | None:
    """Of sum(parts) / sum(wholes), which is a share: Student's t on a logistic scale. None without two clusters.

    If all are 0, or all are 1, the bound that holds for any distribution: with a mean further away, all R clusters
    would be alike in fewer than 5 % of the cases, 1 - 0.05^(1/R).
    """
    there = wholes > 0
    parts, wholes = parts[there], wholes[there]
    if len(parts) < 2:
        return None
    mean, error, _ = _ratio(parts, wholes, serial)
    away = 1 - (1 - LEVEL) ** (1 / len(parts))
    if mean <= 0:
        return Interval(0.0, away)
    if mean >= 1:
        return Interval(1 - away, 1.0)
    half = student(len(parts)) * error / (mean * (1 - mean))
    low, high = (1 / (1 + (1 - mean) / mean * np.exp(side)) for side in (half, -half))
    return Interval(float(low), float(high))


def count_interval(counts: Floats) -> Interval | None:
    """Of the total that is to be expected of R >= 2 such replications: exact Poisson bounds (Garwood, "Fiducial limits
    for the Poisson distribution", 1936) of as many independent events as vary between replications as much.

    Without any event [0, 3.0]: if more were to be expected, none would come in fewer than 5 % of the cases. That takes
    them as independent: only events tell whether they come in bunches. Counts that are all alike, such as those of
    planned events, vary by nothing, unless independent ones would be alike in 5 % of the cases, too: of so many events
    in all, by the multinomial distribution.
    """
    from scipy.special import gammaincinv, ndtri

    if len(counts) < 2:
        return None
    total, runs = float(np.sum(counts)), len(counts)
    if not total:
        return Interval(0.0, float(-np.log(1 - LEVEL)))
    dispersion = float(np.var(counts, ddof=1)) / (total / runs)
    tail = (1 - LEVEL) / 2
    if dispersion:
        events = total / dispersion * float(ndtri(1 - tail) / student(runs)) ** 2
    elif math.lgamma(total + 1) - runs * math.lgamma(total / runs + 1) - total * math.log(runs) < math.log(1 - LEVEL):
        return Interval(total, total)
    else:
        events = total
    low, high = gammaincinv(events, tail), gammaincinv(events + 1, 1 - tail)
    return Interval(float(low) * total / events, float(high) * total / events)


def jackknife(
    value: float, without: Floats, serial: bool = False, effective: float = math.inf, cancel: bool = False
) -> tuple[float, float]:
    """The interval of a statistic of R >= 2 clusters, from the statistics without one of them each (Tukey's jackknife).

    Student's t and Willink's correction for skewness, whichever reaches farther. `effective`: as how many clusters
    these count at most. `cancel`: what one block lacks the next one has, so that all of them vary together as one does.
    Neighbours then have a correlation r of -1/2, and n of them tell their variance like n / (1 + 2 r^2) independent
    ones (Bartlett 1946).
    """
    n = len(without)
    residuals = (n - 1) * (np.mean(without) - without)
    counted = min(n / 1.5 if cancel else n, effective)
    grown = 1 / n if cancel else max(inflation(residuals) if serial else 1.0, n / counted)
    t, error = student(counted), float(np.sqrt(np.sum(residuals**2) / (n - 1) / n * grown))
    below, above = (max(t, reach) * error for reach in _skewed(residuals, t))
    return value - below, value + above


def effective_number(weights: Floats) -> float:
    """As how many equal ones these count (Kish, "Survey sampling", 1965, 11.7): (sum)^2 / sum of squares; 0 if all are
    0."""
    squares = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / squares if squares else 0.0


def _ratio(parts: Floats, wholes: Floats, serial: bool) -> tuple[float, float, Floats]:
    """sum(parts) / sum(wholes) over R >= 2 clusters, its standard error by linearisation (Cochran, "Sampling
    techniques", 1977, section 6.4), and the residuals of the clusters."""
    n, whole = len(parts), float(np.sum(wholes))
    ratio = float(np.sum(parts)) / whole
    residuals = parts - ratio * wholes
    grown = inflation(residuals) if serial else 1.0
    return ratio, float(np.sqrt(n / (n - 1) * np.sum(residuals**2) * grown)) / whole, residuals


def _skewed(residuals: Floats, t: float) -> tuple[float, float]:
    """How many standard errors an interval reaches below and above the mean if the residuals are skewed (Willink)."""
    n, spread = len(residuals), float(np.mean(residuals**2))
    if n < 3 or not spread:
        return t, t
    skewness = float(np.mean(residuals**3)) / spread**1.5 * np.sqrt(n * (n - 1)) / (n - 2)
    bend = skewness / (6 * np.sqrt(n))
    if abs(bend) < 1e-6:
        return t, t
    below, above = ((np.cbrt(1 + 6 * bend * (side - bend)) - 1) / (2 * bend) for side in (t, -t))
    return float(below), -float(above)


def _beyond_the_body(
    body: Floats, points: Floats, values: Floats, clusters: Sequence[Floats], wait_s: Sequence[Floats]
) -> Floats:
    """How clustered the body makes a quantile of the tail: only waits are, and what else a value is made up of is not.

    So of the variance of "beyond a quantile or not" as large a part is clustered as the waits explain (Pearson's
    correlation ratio), as much as it is where the body, whose design effects are `body`, shows it most.
    """
    every, waits = np.concatenate(clusters), np.concatenate(wait_s)
    n, ordered = len(every), every[np.argsort(waits, kind="stable")]
    halved = np.arange(8 * max(math.log2(n / 10), 1))  # groups of like waits, the finer the longer
    starts = np.unique((n * (1 - 2 ** (-halved / 8))).astype(np.int64))
    sizes, chance = np.diff(np.append(starts, n)), (len(starts) - 1) / n
    explained = []
    for at in values[(np.append(BODY, points) * (n - 1)).astype(np.int64)]:
        groups = np.add.reduceat((ordered > at).astype(np.float64), starts) / sizes
        share = float(np.dot(sizes, groups)) / n
        ratio = float(np.dot(sizes, (groups - share) ** 2)) / n / (share * (1 - share)) if share else 1.0
        explained.append(max((ratio - chance) / (1 - chance), 0.0))
    below, own = np.split(np.array(explained), [len(BODY)])
    most: Floats = 1 + own * np.max(np.maximum(body - 1, 0.0) / np.maximum(below, _EXPLAINED))
    return most


def _design_effects(clusters: Sequence[Floats], values: Floats, points: Floats, serial: bool) -> Floats:
    """Of the share of values beyond each quantile: its variance between clusters over that of independent values."""
    n, finite = len(values), int(np.count_nonzero(np.isfinite(values)))
    effects = np.zeros(len(points))
    if not finite:
        return effects
    sizes = np.array([len(cluster) for cluster in clusters], dtype=np.float64)
    at = values[np.minimum((points * (n - 1)).astype(np.int64), finite - 1)]
    beyond = [len(cluster) - np.searchsorted(cluster, at, side="right") for cluster in clusters]
    for place, parts in enumerate(np.array(beyond, dtype=np.float64).T):
        share, error, _ = _ratio(parts, sizes, serial)
        if error:
            effects[place] = error**2 * n / (share * (1 - share))
    return effects
