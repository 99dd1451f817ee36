"""Routing by latency: what the results of each worker took, seen from the coordinator."""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from typing import Annotated, Literal

from pydantic import Field

from orchestrator.core.model import Attempt, AttemptKey, Task, Worker
from orchestrator.core.ports import RoutingPolicy
from orchestrator.policies.config import Count, Positive, Strict
from orchestrator.policies.hedging import Durations
from orchestrator.policies.routing.index import BySlot, Routing, latency_s
from orchestrator.policies.routing.load import PowerOfD


class PeakEwma(PowerOfD):
    """Of `d` workers drawn at random the one with the least cost (pending + 1), after Finagle's and Linkerd's `p2c`.

    The cost of a worker is a latency: a slower result raises it to that at once; a faster one, after t seconds, makes
    it w cost + (1 - w) latency with w = exp(-t / tau). It decays by w also while nothing is heard. A worker of which
    nothing is known comes first while it is idle, and last while it has something in hand.
    """

    UNKNOWN = 1e12
    """Seconds, in the place of the cost."""

    def __init__(self, rng: random.Random, d: int, tau_s: float) -> None:
        super().__init__(rng, d)
        self._tau_s = tau_s
        self._heard_at = 0.0  # the last result of any worker
        self._costs: BySlot[list[float]] = BySlot(lambda: [0.0, 0.0])  # the cost, and since when it is that

    def ended(self, attempt: Attempt, now: float) -> None:
        latency = latency_s(attempt, now)
        if latency is not None:
            cost = self._costs.of(attempt.worker)
            weight = math.exp((cost[1] - now) / self._tau_s)
            decayed = cost[0] * weight
            cost[:] = max(latency, decayed + (1 - weight) * latency), now
            self._heard_at = now

    def choose(self, task: Task) -> Worker | None:
        # All costs decay alike, so at which moment they are compared is all the same.
        return min(self.sample(), key=self._expected_s)

    def _expected_s(self, worker: Worker) -> float:
        cost, since = self._costs.of(worker)
        cost *= math.exp((since - self._heard_at) / self._tau_s)
        return cost * (worker.load + 1) if cost else self.UNKNOWN * worker.load


class Prequal(Routing):
    """Of a pool of probed workers the fastest that is not hot; if all are hot, the least loaded.

    Wydrowski, Kleinberg, Rumble, Archer, "Load is not what you should balance", 2024. Each choice probes `probes`
    workers at random; the pool keeps the newest `pool`, and the chosen one leaves it. A worker is hot if it holds more
    attempts than the quantile `hot_quantile` of what the last RECENT probes found. A probe's latency is the median
    of those of the worker's last REMEMBERED results that began at the load nearest to its present one; 0 without any.

    There, servers answer probes, and what they said of their load ages. Here the coordinator knows the load of all.
    """

    RECENT = 128
    REMEMBERED = 16

    def __init__(self, rng: random.Random, pool: int, probes: int, hot_quantile: float) -> None:
        super().__init__(rng)
        self._size = pool
        self._probes = probes
        self._hot_quantile = hot_quantile
        self._pool: OrderedDict[Worker, float] = OrderedDict()  # latencies, the oldest probe first
        self._loads = Durations(self.RECENT)
        self._latencies: BySlot[deque[tuple[int, float]]] = BySlot(lambda: deque(maxlen=self.REMEMBERED))
        self._began_at: dict[AttemptKey, int] = {}  # how many others its worker held

    def load_changed(self, worker: Worker, before: int) -> None:
        super().load_changed(worker, before)
        if worker.load >= worker.limit:
            self._pool.pop(worker, None)

    def left(self, worker: Worker) -> None:
        super().left(worker)
        self._pool.pop(worker, None)

    def ended(self, attempt: Attempt, now: float) -> None:
        load, latency = self._began_at.pop(attempt.key, None), latency_s(attempt, now)
        if load is not None and latency is not None:
            self._latencies.of(attempt.worker).append((load, latency))

    def choose(self, task: Task) -> Worker | None:
        pool = self._pool
        for worker in self.rng.sample(self.roomy, min(self._probes, len(self.roomy))):
            pool[worker] = self._probed_latency_s(worker)
            pool.move_to_end(worker)
            self._loads.add(worker.load)
        while len(pool) > self._size:
            pool.popitem(last=False)
        hot = self._loads.quantile(self._hot_quantile)
        # True is more than False: the cold ones first, by latency.
        chosen = min(pool, key=lambda worker: (worker.load > hot, worker.load if worker.load > hot else pool[worker]))
        del pool[chosen]
        self._began_at[task.id, task.attempt + 1] = chosen.load
        return chosen

    def _probed_latency_s(self, worker: Worker) -> float:
        known = self._latencies.of(worker)
        if not known:
            return 0.0
        nearest = min(abs(load - worker.load) for load, _ in known)
        latencies = sorted(latency for load, latency in known if abs(load - worker.load) == nearest)
        return latencies[len(latencies) // 2]


class PeakEwmaConfig(Strict):
    """The least latency times load of d workers drawn at random; a slow result counts at once, and fades."""

    kind: Literal["peak_ewma"]
    d: Annotated[int, Field(ge=1)] = 2
    """How many workers are drawn."""
    tau_s: Positive = 10.0
    """In so many seconds what was heard of a worker fades to 37 %."""

    def build(self, rng: random.Random) -> RoutingPolicy:
        return PeakEwma(rng, self.d, self.tau_s)


class PrequalConfig(Strict):
    """Of a few probed workers the fastest that does not hold too much; if all do, the least loaded."""

    kind: Literal["prequal"]
    pool: Count = 16
    """How many probed workers are compared."""
    probes: Count = 3
    """How many are probed anew for each choice."""
    hot_quantile: Annotated[float, Field(ge=0, le=1)] = 0.84
    """A worker is hot if it holds more than this share of the recently probed ones; 0 looks at load alone."""

    def build(self, rng: random.Random) -> RoutingPolicy:
        return Prequal(rng, self.pool, self.probes, self.hot_quantile)
