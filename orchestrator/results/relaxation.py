"""What theory says of how much a queue tells of its times: a run that saw no long queue by chance looks settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.results.confidence import ENOUGH_BY_THEORY, Interval, effective_number
from orchestrator.results.tables import Floats


def likely_load(offered: float | None, utilization: Interval | None) -> float | None:
    """The load that theory is asked about: the offered one, as far as the interval of the utilization allows. Lucky
    runs that had less to do must not look as if they told more. Without an offered load it is the upper end. None if
    nothing is executed.
    """
    if utilization is None or utilization.high is None:
        return offered
    if not utilization.low:
        return None
    return min(max(utilization.high if offered is None else offered, utilization.low), utilization.high)


@dataclass(frozen=True)
class Queue:
    """What theory knows of a queue."""

    times: float
    """How many relaxation times it takes, within one of which it forgets; infinite if nothing is executed."""
    waiting: float
    """The share of tasks that wait."""
    understated: float
    """How many times as large as in the sample the variance of its waits is to be, if more than 1."""

    @classmethod
    def of(
        cls, tasks: int, load: float | None, slots: float, latency_s: Sequence[Floats], wait_s: Sequence[Floats]
    ) -> Queue:
        """For n tasks at a load of u n (1 - sqrt(u))^2 / u relaxation times (M/M/1: Cohen, "The single server queue",
        1982, III.7.3). With services of a squared coefficient of variation c, here of some tasks' latencies without
        their waits, one takes (1 + c) / 2 times as long (heavy traffic: Whitt, "Planning queueing simulations", 1989).

        As many tasks wait as Erlang's C says, and for an exponential time, whose mean is (1 + c) / 2 times that of
        exponential services (Allen, "Probability, statistics, and queueing theory", 1990).
        """
        if not load:
            return cls(math.inf, 0.0, 1.0)
        load = min(load, 1.0)
        with np.errstate(invalid="ignore"):
            service_s = _finite([whole - waited for whole, waited in zip(latency_s, wait_s, strict=True)])
        mean = float(np.mean(service_s)) if len(service_s) else 0.0
        grown = (1 + (float(np.var(service_s)) / mean**2 if mean > 0 else 1.0)) / 2
        waiting, waits = erlang_c(slots, load), _finite(wait_s)
        varies = float(np.var(waits)) if len(waits) else 0.0
        expected = waiting * (2 - waiting) * (grown * mean / (slots * (1 - load))) ** 2 if load < 1 else math.inf
        return cls(
            times=tasks * (1 - math.sqrt(load)) ** 2 / load / grown,
            waiting=waiting,
            understated=max(expected / varies, 1.0) if varies else 1.0,
        )

    def most_independent(self, values: Sequence[Floats], wait_s: Sequence[Floats]) -> float:
        """For how many independent ones the `values` of tasks count at most, whose waits are `wait_s`; infinite if none
        waits.

        Waits count for no more than one in a relaxation time. What else a value is made up of, such as its service, is
        independent. Waiting counts by its part of the standard deviation: tails are long waits more than the variance
        says.
        """
        known = len(_finite(values))
        if not known or not np.any(_finite(wait_s)):
            return math.inf
        waiting = math.sqrt(waiting_part(values, wait_s, self.understated))
        if not self.times:  # a queue that is full takes for ever to forget
            return 0.0 if waiting else float(known)
        each = waiting / self.times + (1 - waiting) / known
        return 1 / each if each else math.inf

    def tells_mean_wait(self, wait_s: Sequence[Floats]) -> bool:
        """Whether a single run takes long enough. Its mean is made up of the long waits, which count by their effective
        number: by theory half of those that wait, unless these of the sample are not even half of that."""
        waits = _finite(wait_s)
        if not np.any(waits):
            return True
        share = min(self.waiting / 2, 2 * effective_number(waits) / len(waits))
        return self.times * share >= ENOUGH_BY_THEORY


def erlang_c(slots: float, load: float) -> float:
    """The share of tasks that wait at a load of at most 1; Erlang's B, which it is made of, by the Poisson distribution
    (Jagerman, "Some properties of the Erlang loss function", 1974)."""
    from scipy.special import gammaincc, gammaln, xlogy

    offered = slots * load
    blocked = math.exp(xlogy(slots, offered) - offered - gammaln(slots + 1)) / float(gammaincc(slots + 1, offered))
    return blocked / (1 - load * (1 - blocked))


def waiting_part(values: Sequence[Floats], wait_s: Sequence[Floats], understated: float = 1.0) -> float:
    """The part of the variance of the values that is waiting, if that of waits is so many times what it looks like."""
    known, waits = _finite(values), _finite(wait_s)
    varies, waiting = (float(np.var(one)) if len(one) else 0.0 for one in (known, waits))
    if not varies or not len(waits):
        return 1.0
    if not waiting:
        return 0.0
    return 1 / (1 + max(varies - waiting, 0.0) / waiting / understated)


def _finite(parts: Sequence[Floats]) -> Floats:
    values: Floats = np.concatenate([np.empty(0), *parts])
    return values[np.isfinite(values)]
