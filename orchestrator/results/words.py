"""Numbers as people read them, in a terminal and in sentences."""

from __future__ import annotations

from collections.abc import Sequence

MOMENTS = {"mean": "mean", "p50": "p50", "p95": "p95", "p99": "p99", "p999": "p99.9", "max": "max"}
"""What a summary tells of a duration, and what people call it."""


def duration(seconds: float | None) -> str:
    """In the unit that leaves a whole part, to three digits; a dash for nothing."""
    if not seconds:
        return "-" if seconds is None else "0 s"
    factor, unit = next((f, u) for f, u in ((1.0, "s"), (1e3, "ms"), (1e6, "us")) if u == "us" or seconds * f >= 0.9995)
    return f"{number(seconds * factor)} {unit}"


def age(seconds: float) -> str:
    """How long something lasts already: a tenth of a second counts at most."""
    for least, factor, unit in ((36_000 * 10, 86_400, "d"), (6_000, 3600, "h"), (100, 60, "min")):
        if seconds >= least:
            return f"{number(seconds / factor)} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def number(value: float | None) -> str:
    """To three digits, whole from a hundred on; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}".removesuffix(".")


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def signed(share: float | None) -> str:
    return "-" if share is None else f"{share:+.1%}"


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
