"""95 % confidence intervals of pooled statistics, from clusters: independent replications, or the blocks of one run.

The values within a cluster are correlated, so none of them counts as independent. What varies between clusters is all
that is used. An interval is of the pooled statistic itself, and lies within what the statistic can be: times, rates and
counts are taken on a logarithmic scale, shares on a logistic one. docs/intervals.md tells how often they cover.

An interval is a pair of bounds; a bound is None if it is not known. None instead of a pair: too few to tell.
"""

from __future__ import annotations

from collections.abc import Sequence


import numpy as np

from orchestrator.results.statistics import quantile
from orchestrator.results.tables import Floats

LEVEL = 0.95
BODY = (0.5, 0.75, 0.9, 0.95)
"""Quantiles at which the clustering of values is looked at; that of a tail shows too seldom there."""
ENOUGH_BEYOND = 8.0
"""How many independent values are to be expected beyond a quantile for it to have an interval."""
WIDEST = 1.0
"""The half width, on a logarithmic scale, from which a mean has no interval: its clusters differ too much."""

Bounds = tuple[float | None, float | None]


def student(clusters: int) -> float:
    """The two-sided 95 % point of Student's t with one degree of freedom fewer than clusters."""
    from scipy.special import stdtrit  # takes a third of the time that importing scipy.stats takes

    return float(stdtrit(clusters - 1, (1 + LEVEL) / 2))


def ratio_error(parts: Floats, wholes: Floats, serial: bool = False) -> tuple[float, float]:
    """sum(parts) / sum(wholes) over R >= 2 clusters, and its standard error by linearisation (Cochran, "Sampling
    techniques", 1977, 6.4). `serial`: the clusters follow each other, see `inflation`."""
    share = float(np.sum(parts) / np.sum(wholes))
    residuals = parts - share * wholes
    n = len(parts)
    variance = n / (n - 1) * float(np.sum(residuals**2)) / float(np.sum(wholes)) ** 2
    return share, float(np.sqrt(variance * (inflation(residuals) if serial else 1.0)))


def inflation(residuals: Floats) -> float:
    """By how much the variance of a mean grows because neighbouring blocks are alike: (1 + r) / (1 - r), where r is
    their correlation if it is positive (Tafazzoli and Wilson, "Skart", 2011)."""
    total = float(np.sum(residuals**2))
    alike = float(np.sum(residuals[1:] * residuals[:-1])) / total if total else 0.0
    alike = min(max(alike, 0.0), 0.95)
    return (1 + alike) / (1 - alike)


def percentile_intervals(
    clusters: Sequence[Floats], quantiles: Sequence[float], serial: bool = False
) -> list[Bounds | None]:
    """The interval of each pooled quantile (Woodruff, "Confidence intervals for medians and other position measures",
    1952): bounds of the share of values beyond it, read off the pooled values.

    The bounds of the share are those of Korn and Graubard ("Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data", 1998): exact binomial ones, of as many independent values as
    vary between clusters as much. A tail is taken to be no less clustered than the body of the values. None without
    two clusters, or where fewer than ENOUGH_BEYOND independent values are beyond. `clusters` hold no NaN; infinite
    values are slower than all others, and a bound that falls on one is None.
    """
    from scipy.special import betaincinv

    clusters = [np.sort(cluster) for cluster in clusters if len(cluster)]
    if len(clusters) < 2:
        return [None] * len(quantiles)
    values = np.sort(np.concatenate(clusters))
    points = sorted({*BODY, *quantiles})
    independent = dict(zip(points, _independent(clusters, values, points, serial), strict=True))
    found: list[Bounds | None] = []
    for q in quantiles:
        beyond = 1 - q
        n = min(independent[point] for point in points if point <= q)
        if n * beyond < ENOUGH_BEYOND:
            found.append(None)
            continue
        tail = 1 - LEVEL
        least = betaincinv(n * beyond, n * q + 1, tail / 2)
        most = betaincinv(n * beyond + 1, n * q, 1 - tail / 2)
        low, high = quantile(values, [max(1 - most, 0.0), 1 - least])
        found.append((_known(low), _known(high)))
    return found


def _independent(clusters: Sequence[Floats], values: Floats, points: Sequence[float], serial: bool) -> Floats:
    """As how many independent values all these count, at each quantile: p (1 - p) / variance of the share p beyond it.

    Never more than there are. Student's t of few clusters lessens it, as Korn and Graubard have it.
    """
    from scipy.special import ndtri

    n, finite = len(values), int(np.count_nonzero(np.isfinite(values)))
    sizes = np.array([len(cluster) for cluster in clusters], dtype=np.float64)
    fewer = float(ndtri((1 + LEVEL) / 2) / student(len(clusters))) ** 2
    counted = np.full(len(points), float(n))
    for place, q in enumerate(points):
        if not finite:
            break
        at = values[min(int(q * (n - 1)), finite - 1)]
        beyond = np.array([len(cluster) - np.searchsorted(cluster, at, side="right") for cluster in clusters])
        share, error = ratio_error(beyond.astype(np.float64), sizes, serial)
        if error:
            counted[place] = min(share * (1 - share) / error**2, n)
    return counted * fewer


def mean_interval(parts: Floats, wholes: Floats, serial: bool = False) -> Bounds | None:
    """Of sum(parts) / sum(wholes), which is not negative: Student's t on a logarithmic scale.

    [0, None] if every part is 0, None without two clusters or if they differ too much (WIDEST).
    """
    there = wholes > 0
    parts, wholes = parts[there], wholes[there]
    if len(parts) < 2:
        return None
    mean, error = ratio_error(parts, wholes, serial)
    if mean <= 0:
        return 0.0, None
    return around_logarithm(mean, student(len(parts)) * error / mean)


def around_logarithm(value: float, half: float) -> Bounds | None:
    """value divided and multiplied by exp(half); None if that is too wide to say anything."""
    return (value * np.exp(-half), value * np.exp(half)) if half <= WIDEST else None


def share_interval(shares: Floats, serial: bool = False) -> Bounds | None:
    """Of the mean of at least two shares, each from 0 to 1: Student's t on a logistic scale.

    If all are 0, or all are 1, the bound that holds for whatever distribution: with a mean further away, all R would
    be alike in fewer than 5 % of the cases (the rule of three, exactly: 1 - 0.05^(1/R)).
    """
    if len(shares) < 2:
        return None
    mean, error = ratio_error(shares, np.ones(len(shares)), serial)
    away = 1 - (1 - LEVEL) ** (1 / len(shares))
    if mean <= 0:
        return 0.0, away
    if mean >= 1:
        return 1 - away, 1.0
    half = student(len(shares)) * error / (mean * (1 - mean))
    odds = mean / (1 - mean)
    low, high = odds * np.exp(-half), odds * np.exp(half)
    return low / (1 + low), high / (1 + high)


def count_interval(counts: Floats) -> Bounds | None:
    """Of the total of R >= 2 counts, as it would be expected of R such runs: exact Poisson bounds (Garwood, 1936) of as
    many independent events as vary between runs as much.

    Without any event [0, 3.0]: with more to be expected, none would come in fewer than 5 % of the cases. Counts that
    are all alike, such as those of planned events, vary by nothing.
    """
    from scipy.special import gammaincinv, ndtri

    if len(counts) < 2:
        return None
    total, runs = float(np.sum(counts)), len(counts)
    if not total:
        return 0.0, float(-np.log(1 - LEVEL))
    dispersion = float(np.var(counts, ddof=1)) / (total / runs)
    if not dispersion:
        return total, total
    tail = (1 - LEVEL) / 2
    events = total / dispersion * float(ndtri(1 - tail) / student(runs)) ** 2
    scale = total / events
    return float(gammaincinv(events, tail)) * scale, float(gammaincinv(events + 1, 1 - tail)) * scale


def _known(value: np.float64 | float) -> float | None:
    return float(value) if np.isfinite(value) else None
