"""How often do the intervals cover the truth, how often do they say "too few", and are runs in order called unsettled?

    python bench/coverage.py [--sets 200] [--only REPLICATIONS...] > table.md

Queues whose truth is known: M/M/c, first come, first served, from an empty start; what arrives in the warm-up is not
counted. Latencies are drawn by recursion (Lindley for one server, Kiefer and Wolfowitz for several), hundreds of runs
at a time, and judged by the very functions that `simulate` and `compare` use.

A cell says how many of the intervals hold the truth. An interval without an upper end (too few) holds all that is above
its lower end; where there are such, the cell also says how many have both ends, and how many of these hold the truth.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from orchestrator.results.confidence import Interval, mean_interval, percentile_intervals
from orchestrator.results.summaries import LATENCY_QUANTILES

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Queue:
    """M/M/c with a mean service of one second."""

    servers: int
    load: float

    def __str__(self) -> str:
        return f"M/M/{self.servers}, load {self.load:g}"

    @property
    def rate_per_s(self) -> float:
        return self.servers * self.load

    def waits(self) -> float:
        """The share of tasks that wait: Erlang's C, by the recursion of Erlang's B."""
        blocked, offered = 1.0, self.rate_per_s
        for server in range(1, self.servers + 1):
            blocked = offered * blocked / (server + offered * blocked)
        return blocked / (1 - self.load * (1 - blocked))

    def mean_s(self) -> float:
        return 1 + self.waits() / (self.servers - self.rate_per_s)

    def longer(self, time_s: float) -> float:
        """The share of latencies longer than this: an exponential service after a wait of 0 or an exponential one."""
        waits, drain = self.waits(), self.servers - self.rate_per_s
        if self.servers == 1:
            return math.exp(-drain * time_s)
        if math.isclose(drain, 1):
            return math.exp(-time_s) * (1 + waits * time_s)
        slower = waits / (drain - 1)
        return math.exp(-time_s) * (1 + slower) - slower * math.exp(-drain * time_s)

    def quantile_s(self, q: float) -> float:
        return float(brentq(lambda time_s: self.longer(time_s) - (1 - q), 0, 1e3))

    def truths(self) -> dict[str, float]:
        return {"mean": self.mean_s(), **{name: self.quantile_s(q) for name, q in LATENCY_QUANTILES.items()}}

    def draw(self, rng: np.random.Generator, runs: int, tasks: int, warmup: int) -> tuple[Floats, Floats]:
        """Arrivals and demands of runs that last until `warmup` + `tasks` tasks are expected; float64[n, runs]."""
        n = int(warmup + tasks + 6 * math.sqrt(warmup + tasks) + 20)
        arrival_s = np.cumsum(rng.exponential(1 / self.rate_per_s, (n, runs)), axis=0)
        return arrival_s, rng.exponential(1.0, (n, runs))

    def latencies(self, arrival_s: Floats, demand_s: Floats) -> Floats:
        """float64[n, runs]."""
        if self.servers == 1:
            steps = np.zeros_like(arrival_s)
            steps[1:] = np.cumsum(demand_s[:-1] - np.diff(arrival_s, axis=0), axis=0)
            waits_s: Floats = steps - np.minimum.accumulate(steps, axis=0)
            return waits_s + demand_s
        free_s = np.zeros((arrival_s.shape[1], self.servers))
        rows = np.arange(len(free_s))
        latency_s = np.empty_like(arrival_s)
        for task, (now_s, takes_s) in enumerate(zip(arrival_s, demand_s, strict=True)):
            first = np.argmin(free_s, axis=1)
            ends_s = np.maximum(now_s, free_s[rows, first]) + takes_s
            free_s[rows, first] = ends_s
            latency_s[task] = ends_s - now_s
        return latency_s

    def counted(self, arrival_s: Floats, latency_s: Floats, tasks: int, warmup: int) -> list[Floats]:
        """The latencies of each run, of what arrived within its window."""
        begins_s, ends_s = warmup / self.rate_per_s, (warmup + tasks) / self.rate_per_s
        inside = (arrival_s >= begins_s) & (arrival_s <= ends_s)
        return [latency_s[inside[:, run], run] for run in range(arrival_s.shape[1])]


class Tally:
    """Of each statistic: the intervals of all sets against the truth."""

    def __init__(self) -> None:
        self.outcomes: dict[str, list[tuple[bool, bool]]] = {}
        """Whether an interval holds the truth, and whether it has both ends."""

    def note(self, name: str, interval: Interval | None, truth: float) -> None:
        held, whole = True, False
        if interval is not None:
            held = interval.low <= truth and (interval.high is None or truth <= interval.high)
            whole = interval.high is not None
        self.outcomes.setdefault(name, []).append((held, whole))

    def cell(self, name: str) -> str:
        """How many hold the truth; then, if any are too few for it, how many have an upper end, and how many of these
        hold the truth."""
        held, whole = np.array(self.outcomes[name]).T
        if whole.all():
            return f"{held.mean():.1%}"
        both = f", {held[whole].mean():.0%} of them" if whole.any() else ""
        return f"{held.mean():.1%} ({whole.mean():.0%} whole{both})"


def table(title: str, cases: Iterator[tuple[str, Tally]]) -> None:
    print(f"\n{title}\n")
    head = False
    for name, tally in cases:
        if not head:
            print(f"| case | {' | '.join(tally.outcomes)} |\n| --- |{' --- |' * len(tally.outcomes)}")
            head = True
        print(f"| {name} | {' | '.join(map(tally.cell, tally.outcomes))} |", flush=True)


def of_latencies(tally: Tally, truths: dict[str, float], clusters: Sequence[Floats], serial: bool = False) -> None:
    parts = [np.array([measure(one) for one in clusters], dtype=np.float64) for measure in (np.sum, len)]
    tally.note("mean", mean_interval(*parts, serial), truths["mean"])
    found = percentile_intervals(clusters, list(LATENCY_QUANTILES.values()), serial)
    for name, interval in zip(LATENCY_QUANTILES, found, strict=True):
        tally.note(name, interval, truths[name])


def chunks(sets: int, runs: int, tasks: int) -> Iterator[tuple[np.random.Generator, int]]:
    """Sets in chunks that fit into memory, each with its generator."""
    size = max(1, min(sets, 8_000_000 // (runs * tasks)))
    for number, begin in enumerate(range(0, sets, size)):
        yield np.random.default_rng((runs, tasks, number)), min(size, sets - begin)


REPLICATIONS = [(10, 2_000), (5, 2_000), (30, 2_000), (10, 20_000)]


def replications(sets: int) -> Iterator[tuple[str, Tally]]:
    for servers in (1, 10):
        for load in (0.5, 0.8, 0.9):
            for runs, tasks in REPLICATIONS:
                queue, tally, warmup = Queue(servers, load), Tally(), 2_000
                truths = queue.truths()
                for rng, many in chunks(sets, runs, tasks):
                    arrival_s, demand_s = queue.draw(rng, many * runs, tasks, warmup)
                    latency_s = queue.latencies(arrival_s, demand_s)
                    samples = queue.counted(arrival_s, latency_s, tasks, warmup)
                    for begin in range(0, len(samples), runs):
                        of_latencies(tally, truths, samples[begin : begin + runs])
                yield f"{queue}, {runs} x {tasks:,}", tally


STUDIES: dict[str, tuple[str, Callable[[int], Iterator[tuple[str, Tally]]]]] = {
    "replications": ("Replications: the interval of the pooled statistic", replications),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    args = parser.parse_args()
    began = time.perf_counter()
    for name in args.only:
        title, study = STUDIES[name]
        table(f"{title} ({args.sets} sets a case)", study(args.sets))
    print(f"took {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
