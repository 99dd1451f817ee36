"""Statistics of plain arrays: quantiles, confidence intervals, ratios. An empty statistic is None.

Quantiles interpolate linearly between order statistics (numpy's default, definition 7 of Hyndman and Fan, "Sample
quantiles in statistical packages", 1996).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.results.tables import Floats


def describe(values: Floats, quantiles: Mapping[str, float]) -> dict[str, float | None]:
    """Mean, named quantiles and maximum, in this order, of the values that are not NaN; None if there are none."""
    values = values[~np.isnan(values)]
    if not len(values):
        return dict.fromkeys(["mean", *quantiles, "max"])
    points = np.quantile(values, list(quantiles.values()))
    return {
        "mean": float(np.mean(values)),
        **{name: float(point) for name, point in zip(quantiles, points, strict=True)},
        "max": float(np.max(values)),
    }


def confidence_interval(values: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Student's t interval of the mean along the first axis, from n >= 2 values: mean -+ t(n - 1) s / sqrt(n)."""
    from scipy.special import stdtrit  # takes a third of the time that importing scipy.stats takes

    n = len(values)
    half = stdtrit(n - 1, (1 + level) / 2) * np.std(values, axis=0, ddof=1) / np.sqrt(n)
    mean = np.mean(values, axis=0)
    return mean - half, mean + half


def ratio(part: float, whole: float) -> float | None:
    """part / whole; None if the whole is not positive."""
    return part / whole if whole > 0 else None


def flatten(summary: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in summary.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
