"""What theory says of how much a queue tells of its times: a run that saw no long queue by chance looks settled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from orchestrator.results.confidence import ENOUGH_BY_THEORY, effective_number
from orchestrator.results.tables import Floats


def relaxations(tasks: int, utilization: float | None, latency_s: Sequence[Floats], wait_s: Sequence[Floats]) -> float:
    """How many relaxation times a queue takes for n tasks: n (1 - sqrt(u))^2 / u at a utilization of u (M/M/1: Cohen,
    "The single server queue", 1982, III.7.3). It forgets within one. With services of a squared coefficient of
    variation c, here of some tasks' latencies without their waits, it takes (1 + c) / 2 times as long (heavy traffic:
    Whitt, "Planning queueing simulations", 1989). Infinite if nothing is executed.
    """
    if not utilization:
        return math.inf
    with np.errstate(invalid="ignore"):
        service_s = _finite([whole - waited for whole, waited in zip(latency_s, wait_s, strict=True)])
    mean = float(np.mean(service_s)) if len(service_s) else 0.0
    varied = float(np.var(service_s)) / mean**2 if mean > 0 else 1.0
    return tasks * (1 - math.sqrt(min(utilization, 1.0))) ** 2 / utilization / ((1 + varied) / 2)


def most_independent(values: Sequence[Floats], wait_s: Sequence[Floats], times: float) -> float:
    """For how many independent ones the `values` of tasks count at most, whose waits are `wait_s`, if the queue takes
    so many relaxation `times`; infinite if none waits.

    Waits count for no more than one in a relaxation time. What else a value is made up of, such as its service, is
    independent. Waiting counts by its part of the standard deviation: tails are long waits more than the variance says.
    """
    if not np.any(_finite(wait_s)):
        return math.inf
    waiting, known = math.sqrt(waiting_part(values, wait_s)), len(_finite(values))
    if not known:
        return math.inf
    if not times:  # a queue that is full takes for ever to forget
        return 0.0 if waiting else float(known)
    each = waiting / times + (1 - waiting) / known
    return 1 / each if each else math.inf


def tells_mean_wait(wait_s: Sequence[Floats], times: float) -> bool:
    """Whether a single run takes long enough. Its mean is made up of the long waits, which count by their effective
    number."""
    waits = _finite(wait_s)
    return not np.any(waits) or times * effective_number(waits) / len(waits) >= ENOUGH_BY_THEORY


def waiting_part(values: Sequence[Floats], wait_s: Sequence[Floats]) -> float:
    """The part of the variance of the values that is waiting."""
    known, waits = _finite(values), _finite(wait_s)
    varies = float(np.var(known)) if len(known) else 0.0
    return min(float(np.var(waits)) / varies, 1.0) if varies and len(waits) else 1.0


def _finite(parts: Sequence[Floats]) -> Floats:
    values: Floats = np.concatenate([np.empty(0), *parts])
    return values[np.isfinite(values)]
