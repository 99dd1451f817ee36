"""How often do the intervals cover the truth, how often do they say "too few", and are runs in order called unsettled?

    python bench/coverage.py [--sets 200] [--only REPLICATIONS...] > table.md

Queues whose truth is known: M/M/c, first come, first served, from an empty start; what arrives in the warm-up is not
counted. Latencies are drawn by recursion (Lindley for one server, Kiefer and Wolfowitz for several), hundreds of runs
at a time, and judged by the very functions that `simulate` and `compare` use. The traces that detectors are judged on
are those of bench/detectors.py.

A cell says how many of the intervals hold the truth. An interval without an upper end (too few) holds all that is above
its lower end; where there are such, the cell also says how many have both ends, and how many of these hold the truth.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from detectors import points_of, scenario
from scipy.optimize import brentq

from orchestrator.analysis.detectors import candidates
from orchestrator.analysis.intervals import Spread
from orchestrator.analysis.measures import LATENCY, QUANTILES, Observed
from orchestrator.results import relaxation
from orchestrator.results.confidence import (
    Interval,
    count_interval,
    mean_interval,
    percentile_intervals,
    share_interval,
)
from orchestrator.results.summaries import LATENCY_QUANTILES
from orchestrator.results.transient import Batches, unsettled_until_s

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

    def inside(self, arrival_s: Floats, tasks: int, warmup: int) -> npt.NDArray[np.bool_]:
        """What arrived within the window."""
        begins_s, ends_s = warmup / self.rate_per_s, (warmup + tasks) / self.rate_per_s
        return (arrival_s >= begins_s) & (arrival_s <= ends_s)

    def counted(self, arrival_s: Floats, latency_s: Floats, tasks: int, warmup: int) -> list[Floats]:
        """The latencies of each run, of what arrived within its window."""
        inside = self.inside(arrival_s, tasks, warmup)
        return [latency_s[inside[:, run], run] for run in range(arrival_s.shape[1])]

    def observed(self, arrival_s: Floats, demand_s: Floats, tasks: int, faster: float = 1.0) -> list[Observed]:
        """Each run as `compare` reads it, of demands that are `faster` times as long as those of this queue."""
        latency_s, inside = self.latencies(arrival_s, demand_s), self.inside(arrival_s, tasks, WARMUP)
        begins_s, length_s = WARMUP / self.rate_per_s, tasks / self.rate_per_s
        found = []
        for run, counted in enumerate(inside.T):
            arrived_s, took_s, needs_s = (values[:, run] for values in (arrival_s, latency_s, demand_s))
            ended_s = np.sort(arrived_s + took_s) - begins_s
            starts_s = np.clip(arrived_s + took_s - needs_s - begins_s, 0, length_s)
            stops_s = np.clip(arrived_s + took_s - begins_s, 0, length_s)
            change_s = np.concatenate([[0.0], starts_s, stops_s])
            level = np.repeat([0.0, 1.0, -1.0], [1, len(starts_s), len(stops_s)])
            order = np.argsort(change_s, kind="stable")
            change_s, level = change_s[order], np.cumsum(level[order])
            found.append(
                Observed(
                    arrival_s=arrived_s[counted] - begins_s,
                    latency_s=took_s[counted],
                    wait_s=took_s[counted] - needs_s[counted],
                    excess_s=took_s[counted] - needs_s[counted],
                    age_s=took_s[counted],
                    completed_s=ended_s[(ended_s >= 0) & (ended_s <= length_s)],
                    change_s=change_s,
                    busy_s=np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(change_s))]),
                    slots=self.servers,
                    length_s=length_s,
                    offered_load=faster * self.load,
                )
            )
        return found

    def compared(self) -> dict[str, float]:
        """The truths of SHOWN."""
        quantiles = {f"latency_s.{name}": self.quantile_s(q) for name, q in QUANTILES.items()}
        rates = {"throughput_per_s": self.rate_per_s, "utilization": self.load}
        return {"wait_s.mean": self.mean_s() - 1, **quantiles, **rates}


OTHER_SEED: list[int] = []
"""Empty for the seeds of the tables in docs/intervals.md; rules are to be tried with others."""
WARMUP = 2_000
QUEUES = [Queue(servers, load) for servers in (1, 10) for load in (0.5, 0.8, 0.9)]
SHOWN = ["wait_s.mean", *LATENCY[:-1], "throughput_per_s", "utilization"]


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

    def say(self, name: str, what: bool) -> None:
        """Yes or no, of something that is no interval."""
        self.outcomes.setdefault(name, []).append((what, True))

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


def chunks(sets: int, runs: int, tasks: int) -> Iterator[tuple[np.random.Generator, int]]:
    """Sets in chunks that fit into memory, each with its generator."""
    size = max(1, min(sets, 8_000_000 // (runs * tasks)))
    for number, begin in enumerate(range(0, sets, size)):
        yield np.random.default_rng((runs, tasks, number, *OTHER_SEED)), min(size, sets - begin)


def replications(sets: int) -> Iterator[tuple[str, Tally]]:
    """The pooled statistics of several runs, as in the summary of `simulate --replications`."""
    for queue in QUEUES:
        for runs, tasks in ((10, 2_000), (5, 2_000), (30, 2_000), (10, 20_000)):
            tally, truths = Tally(), queue.truths()
            for rng, many in chunks(sets, runs, tasks):
                arrival_s, demand_s = queue.draw(rng, many * runs, tasks, WARMUP)
                latency_s = queue.latencies(arrival_s, demand_s)
                samples, waits_s = (
                    queue.counted(arrival_s, values, tasks, WARMUP) for values in (latency_s, latency_s - demand_s)
                )
                for part in (slice(begin, begin + runs) for begin in range(0, len(samples), runs)):
                    of_values(tally, truths, samples[part], waits_s[part], queue, tasks)
            yield f"{queue}, {runs} x {tasks:,}", tally


def of_values(
    tally: Tally,
    truths: dict[str, float],
    samples: Sequence[Floats],
    waits_s: Sequence[Floats],
    queue: Queue,
    tasks: int,
) -> None:
    sums, sizes = (np.array([measure(one) for one in samples], dtype=np.float64) for measure in (np.sum, len))
    tally.note("mean", mean_interval(sums, sizes), truths["mean"])
    used = np.array([np.sum(one - waited) for one, waited in zip(samples, waits_s, strict=True)])
    could = np.full(len(used), tasks / queue.load)  # the seconds of all servers in a window for so many tasks
    load = relaxation.likely_load(queue.load, share_interval(used, could))
    theory = relaxation.Queue.of(int(np.sum(sizes)), load, queue.servers, samples, waits_s)
    independent = theory.most_independent(samples, waits_s)
    found = percentile_intervals(samples, list(LATENCY_QUANTILES.values()), independent=independent, wait_s=waits_s)
    for name, interval in zip(LATENCY_QUANTILES, found, strict=True):
        tally.note(name, interval, truths[name])


def single(sets: int) -> Iterator[tuple[str, Tally]]:
    """One side of a comparison of single runs, by blocks."""
    for queue in QUEUES:
        for tasks in (2_000, 20_000):
            tally, truths = Tally(), queue.compared()
            for rng, many in chunks(sets, 1, tasks):
                for run in queue.observed(*queue.draw(rng, many, tasks, WARMUP), tasks):
                    found = Spread.over_blocks(run, run).values
                    for metric in SHOWN:
                        tally.note(metric, found.get(metric), truths[metric])
            yield f"{queue}, {tasks:,}", tally


FASTER = 0.95
"""The demands of the other system in a comparison: it is a queue at 0.95 of the load, on a clock that runs faster."""


def comparisons(sets: int) -> Iterator[tuple[str, Tally]]:
    """The relative errors of a system against one whose demands are 5 % shorter."""
    for queue, (runs, tasks), paired in itertools.product(QUEUES, ((10, 2_000), (1, 20_000)), (True, False)):
        other, tally = Queue(queue.servers, queue.load * FASTER), Tally()
        slow, fast = queue.compared(), {metric: FASTER * truth for metric, truth in other.compared().items()}
        fast |= {"throughput_per_s": queue.rate_per_s, "utilization": other.load}
        for rng, many in chunks(sets, 2 * runs, tasks):
            arrival_s, demand_s = queue.draw(rng, many * runs, tasks, WARMUP)
            ours = queue.observed(arrival_s, demand_s, tasks)
            if not paired:
                arrival_s, demand_s = queue.draw(rng, many * runs, tasks, WARMUP)
            theirs = queue.observed(arrival_s, FASTER * demand_s, tasks, FASTER)
            for begin in range(0, len(ours), runs):
                sides = ours[begin : begin + runs], theirs[begin : begin + runs]
                spread = Spread.over_runs(*sides) if runs > 1 else Spread.over_blocks(sides[0][0], sides[1][0])
                for metric in SHOWN:
                    interval = spread.errors.get(metric)
                    told = None if interval is None else Interval(*interval)
                    tally.note(metric, told, slow[metric] / fast[metric] - 1)
        yield f"{queue}, {runs} x {tasks:,}, {'paired' if paired else 'independent'}", tally


def counts(sets: int) -> Iterator[tuple[str, Tally]]:
    """Totals of events over 10 runs, one by one or in bunches of 8; ten times the sets, which cost nothing. The bound
    of no event is one of bunches."""
    for bunch in (1, 8):
        tally, rng = Tally(), np.random.default_rng((bunch, *OTHER_SEED))
        for expected in (1, 5, 20, 100, 1_000):
            for _ in range(10 * sets):
                events = bunch * rng.poisson(expected / 10, 10)
                truth = expected * bunch if np.any(events) else expected
                tally.note(f"{expected}", count_interval(events.astype(np.float64)), truth)
        yield f"bunches of {bunch}, so many bunches expected", tally


DISTURBANCES = {
    "noisy": "beats lost and late one by one",
    "bursts": "all workers pause at once, 20 times on average",
    "rare_bursts": "all workers pause at once, 3 times on average",
}
"""Models of bench/detectors.py: traces of 4 workers over 3,000 s, with a heartbeat of 1 s."""
TIMEOUTS_S = (1.25, 2.5, 3.5, 5.05)


def detectors(sets: int) -> Iterator[tuple[str, Tally]]:
    """The upper bound of a detector's mistakes: against the true rate, which is that of all sets together, and against
    the next set's trace. It is made for 99 %, so that it holds in 95 % with what is chosen by it. Mistakes are
    independent (`noisy`) or strike all workers at once (bursts)."""
    kind = [one for one in candidates(scenario().policies.detection) if one.detector == "timeout"]
    for model in DISTURBANCES:
        tally = Tally()
        judged = [points_of(model, seed, tuple(kind))[1] for seed in range(*_seeds(sets))]
        for place, one in enumerate(kind):
            if one.value not in TIMEOUTS_S:
                continue
            bounds, rates = np.array([(p[place].rate_upper_per_s, p[place].rate_per_s) for p in judged]).T
            for bound, another in zip(bounds, np.roll(rates, -1), strict=True):
                tally.say(f"{one.value:g} s: true rate", bool(np.mean(rates) <= bound))
                tally.say(f"{one.value:g} s: another trace", bool(another <= bound))
        yield DISTURBANCES[model], tally


def _seeds(sets: int) -> tuple[int, int]:
    begin = 1_000_000 * sum(OTHER_SEED)
    return begin, begin + sets


def transients(sets: int) -> Iterator[tuple[str, Tally]]:
    """How often the warm-up is called too short, with none and with one that is long enough."""
    for queue in QUEUES:
        for runs, tasks in ((1, 2_000), (1, 20_000), (10, 2_000)):
            tally = Tally()
            for warmup in (0, 5 * WARMUP):
                for rng, many in chunks(sets, runs, tasks + warmup):
                    arrival_s, demand_s = queue.draw(rng, many * runs, tasks, warmup)
                    latency_s = queue.latencies(arrival_s, demand_s)
                    inside = queue.inside(arrival_s, tasks, warmup)
                    judged = [Batches.of(arrival_s[w, k], latency_s[w, k]) for k, w in enumerate(inside.T)]
                    for begin in range(0, len(judged), runs):
                        found = unsettled_until_s(judged[begin : begin + runs])
                        tally.say(f"warm-up of {warmup:,} tasks", found is not None)
            yield f"{queue}, {runs} x {tasks:,}", tally


STUDIES: dict[str, tuple[str, Callable[[int], Iterator[tuple[str, Tally]]]]] = {
    "replications": ("Replications: latency", replications),
    "single": ("A single run, by blocks", single),
    "comparisons": ("Comparisons: relative errors against a system with demands 5 % shorter", comparisons),
    "counts": ("Counts over 10 replications, ten times the sets", counts),
    "detectors": ("A detector's upper bound of mistakes, which is to hold in 95 %, by timeout", detectors),
    "transients": ("How often a warm-up is called too short", transients),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--seed", type=int, nargs=1, default=[], help="other seeds than those of the printed tables")
    args = parser.parse_args()
    OTHER_SEED.extend(args.seed)
    began = time.perf_counter()
    for name in args.only:
        title, study = STUDIES[name]
        table(f"{title} ({args.sets} sets a case)", study(args.sets))
    print(f"took {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
