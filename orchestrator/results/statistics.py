"""Statistics of plain arrays: quantiles and ratios. An empty statistic is None.

Quantiles interpolate linearly between order statistics (numpy's default, definition 7 of Hyndman and Fan, "Sample
quantiles in statistical packages", 1996).

A duration that never ended is infinite: it is slower than every one that did. Left out, it would make a system that
drops its slow tasks look fast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.results.tables import Floats
from orchestrator.results.words import duration

UNKNOWN, TOO_FEW = "> ", "~ "
"""Signs of a statistic: it is not known but longer than what follows; the sample is too small for it."""
_ROUNDING = 1e-9


def describe(values: Floats, quantiles: Mapping[str, float], age: Floats | None = None) -> dict[str, Any]:
    """Mean, named quantiles and maximum of the values that are not NaN, and how far they can be trusted.

    The mean is that of the finite values; a quantile or maximum that falls on an infinite one is None. `n` counts the
    values and `unknown` the infinite ones. `too_few` names the quantiles that the sample is too small for.
    `at_least` has a lower bound for each quantile that is None because it falls on an infinite value: the `age` of
    that value, at which it had not ended, but no less than the largest finite value.
    """
    present = ~np.isnan(values)
    age = np.zeros(np.count_nonzero(present)) if age is None else age[present]
    values = values[present]
    finite = values[np.isfinite(values)]
    named = {**quantiles, "max": 1.0}
    points = quantile(values, list(named.values())) if len(values) else np.full(len(named), np.nan)
    ages = np.sort(np.maximum(age[np.isinf(values)], np.max(finite, initial=0.0)))
    return {
        "mean": float(np.mean(finite)) if len(finite) else None,
        **{name: float(point) if np.isfinite(point) else None for name, point in zip(named, points, strict=True)},
        "n": len(values),
        "unknown": len(ages),
        "too_few": [name for name, q in quantiles.items() if len(values) and not carries(len(values), q)],
        "at_least": {
            name: float(ages[_rank(len(values), q) - len(finite)])
            for (name, q), point in zip(named.items(), points, strict=True)
            if np.isinf(point)
        },
    }


def with_sign(described: Mapping[str, Any], name: str) -> tuple[float | None, str]:
    """What to show of one of the statistics of `describe`: its value, or else its lower bound, and its sign if any."""
    if name in described["at_least"]:
        return described["at_least"][name], UNKNOWN
    return described.get(name), TOO_FEW if name in described["too_few"] else ""


def statistic_of(described: Mapping[str, Any], name: str) -> str:
    """A duration with its sign: `> 3 s` if it is not known but longer, `~ 3 s` if the sample is too small for it."""
    value, sign = with_sign(described, name)
    return sign + duration(value)


def quantile(values: Floats, points: Sequence[float] | Floats) -> Floats:
    """Quantiles of at least one value; infinite where the rank falls on an infinite value, or next to one."""
    known = np.isfinite(values)
    found: Floats = np.quantile(np.where(known, values, np.max(values[known], initial=0.0)), points)
    return np.where(_rank(len(values), np.asarray(points)) < np.count_nonzero(known), found, np.inf)


def carries(n: int, q: float) -> bool:
    """Whether at least one of n values is to be expected beyond quantile q: if not, q says little but the maximum."""
    return n * (1 - q) > 1 - _ROUNDING


def _rank(n: int, q: Any) -> Any:
    """The position, in order, of the larger of the two values between which quantile q interpolates."""
    return np.ceil(np.asarray(q) * (n - 1) - _ROUNDING).astype(np.int64)


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None if the whole is not positive."""
    return part / whole if whole > 0 else None


def flatten(summary: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in summary.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
