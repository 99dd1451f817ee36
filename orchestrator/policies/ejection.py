"""Ejection of gray workers: they beat, but they are slow or fail (after Envoy's outlier detection)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from statistics import median
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from orchestrator.core.model import Attempt, Outcome, Worker, WorkerState
from orchestrator.core.ports import EjectionPolicy
from orchestrator.policies.config import Count, Custom, Positive, Strict, tag_of


class Record:
    """One worker's attempts since the last review, and its errors since the last success."""

    __slots__ = ("done", "errors", "spent_s", "times")

    def __init__(self) -> None:
        self.done = 0  # attempts that ended with a result
        self.spent_s = 0.0  # by all that ended, with a result or not
        self.errors = 0  # in a row
        self.times = 0  # it was ejected


def mean_duration_s(spent_s: float, done: int) -> float:
    """Time spent over results: the maximum likelihood estimate of an exponential mean under censoring.

    Censored are the durations of attempts that still run or ended without a result. Without any result, the estimate
    counts one, as if the next result came at once.
    """
    return spent_s / max(1, done)


class Outlier:
    """Looks every `interval_s` for workers whose mean duration is over `factor` times the median of all workers' means.

    Running attempts count with their age, so a worker that hardly ever reports can't hide. Only workers that had time
    for `min_samples` attempts of the median worker are judged. `errors` failures or timeouts in a row eject a worker
    at once. A worker stays out for `base_s` times the number of its ejections. At most `max_share` of the workers, but
    at least one, may be out at the same time.
    """

    def __init__(
        self, interval_s: float, min_samples: int, factor: float, errors: int | None, base_s: float, max_share: float
    ) -> None:
        self._interval_s = interval_s
        self._min_samples = min_samples
        self._factor = factor
        self._errors = math.inf if errors is None else errors
        self._base_s = base_s
        self._max_share = max_share
        self._records: dict[Worker, Record] = {}
        self._next_look = -math.inf
        self._failing: dict[Worker, None] = {}

    def ended(self, attempt: Attempt, now: float) -> None:
        outcome = attempt.outcome
        if outcome is Outcome.REJECTED or outcome is Outcome.CALL_FAILED:
            return  # it never ran
        worker = attempt.worker
        record = self._records.get(worker)
        if record is None:
            record = self._records[worker] = Record()
        record.spent_s += now - attempt.assigned_at
        if outcome is Outcome.COMPLETED:
            record.done += 1
            record.errors = 0
        elif outcome is Outcome.FAILED or outcome is Outcome.TIMED_OUT:
            record.done += 1
            record.errors += 1
            if record.errors >= self._errors:
                self._failing[worker] = None

    def review_at(self) -> float:
        return -math.inf if self._failing else self._next_look

    def review(self, workers: Iterable[Worker], now: float) -> Iterable[tuple[Worker, str, float]]:
        known = dict.fromkeys(workers)
        present = [worker for worker in known if worker.state is not WorkerState.LEFT]
        inside = [worker for worker in present if worker.ejected_until == -math.inf]
        room = max(1, math.floor(self._max_share * len(present) + 1e-9)) - (len(present) - len(inside))
        suspects = [
            (worker, f"{self._records[worker].errors} errors in a row")
            for worker in self._failing
            if worker.ejected_until == -math.inf and worker.state is not WorkerState.LEFT
        ]
        self._failing.clear()
        if now >= self._next_look:
            suspects += [found for found in self._slow(inside, now) if all(found[0] is not w for w, _ in suspects)]
            self._next_look = now + self._interval_s
            self._records = {worker: record for worker, record in self._records.items() if worker in known}
            for record in self._records.values():
                record.done, record.spent_s = 0, 0.0
        return [self._out(worker, why) for worker, why in suspects[: max(0, room)]]

    def _slow(self, workers: list[Worker], now: float) -> list[tuple[Worker, str]]:
        """The slowest first."""
        seen = []
        for worker in workers:
            record = self._records.get(worker)
            done, spent_s = (record.done, record.spent_s) if record is not None else (0, 0.0)
            spent_s += sum(now - attempt.assigned_at for attempt in (*worker.open, *worker.abandoned))
            if spent_s:
                seen.append((mean_duration_s(spent_s, done), spent_s, worker))
        if len(seen) < 3:
            return []  # of two workers nobody can tell which one is the outlier
        usual_s = median(mean_s for mean_s, _, _ in seen)
        slow = [
            (mean_s, worker)
            for mean_s, spent_s, worker in seen
            if mean_s > self._factor * usual_s and spent_s >= self._min_samples * usual_s
        ]
        slow.sort(key=lambda found: -found[0])
        return [(worker, f"{mean_s:.3g} s an attempt, {usual_s:.3g} s is usual") for mean_s, worker in slow]

    def _out(self, worker: Worker, why: str) -> tuple[Worker, str, float]:
        record = self._records.setdefault(worker, Record())
        record.errors = 0
        record.times += 1
        return worker, why, self._base_s * record.times


class OutlierEjection(Strict):
    """Workers that are much slower than the others, or fail again and again, get no new tasks for a while."""

    kind: Literal["outlier"] = "outlier"
    interval_s: Positive = 10.0
    """Seconds between two looks at all the workers' durations."""
    min_samples: Count = 20
    """A worker is judged when it had time for so many attempts of the median worker."""
    factor: Annotated[float, Field(gt=1)] = 3.0
    """A worker is ejected when its mean duration is over this many times the median of all workers' means."""
    consecutive_errors: Count | None = 5
    """A worker is ejected at once after so many failures or timeouts in a row; null: errors don't count."""
    base_s: Positive = 30.0
    """An ejection lasts for this long, times the number of ejections of that worker."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the workers that may be ejected at the same time; one always may."""

    def build(self, rng: random.Random) -> EjectionPolicy:
        return Outlier(
            self.interval_s, self.min_samples, self.factor, self.consecutive_errors, self.base_s, self.max_share
        )


class CustomEjection(Custom):
    """Your own `EjectionPolicy`."""

    protocol = EjectionPolicy
    role = "an ejection policy"

    def build(self, rng: random.Random) -> EjectionPolicy:
        policy: EjectionPolicy = self.make(rng)
        return policy


def _tag(value: Any) -> str | None:
    """A mapping without a kind is of the only kind."""
    return "outlier" if isinstance(value, dict) and "kind" not in value else tag_of(value)


EjectionConfig = Annotated[
    Annotated[OutlierEjection, Tag("outlier")] | Annotated[CustomEjection, Tag("custom")],
    Discriminator(_tag),
]
