"""Does the detector that `orchestrator detectors` recommends keep its promises on traces that it has not seen?

    python bench/detectors.py [--sets 100] [--fresh 100] [--jobs 2]

Each model makes `--sets` traces. Each is judged with a limit of mistakes, with a limit of detection time, and with
both. The recommended setting then meets `--fresh` traces of the same model. A recommendation holds if both of its
promises hold there: mistakes a day within the limit, and 99 % of the crashes found within the time that was told.
Counted is in how many of all pairs of a recommendation and a fresh trace it holds, and in how many traces nothing was
recommended, because the trace can't tell.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from orchestrator.analysis.detectors import DAY_S, DISTURBED, FEW, Budget, Candidate, Point, judge
from orchestrator.analysis.traces import Trace
from orchestrator.results.tables import Event
from orchestrator.scenario.schema import Scenario

WORKERS, HEARTBEAT_S, LENGTH_S = 4, 1.0, 3_000.0
FRESH_SEED = 1_000_000
Draw = Callable[[np.random.Generator, np.ndarray], np.ndarray]
"""From when heartbeats are due, to when they are sent; NaN for one that is not."""


def noisy(rng: np.random.Generator) -> Trace:
    """Five of a hundred beats are lost, and the others take half a beat, exponentially distributed."""
    return _trace(rng, loss=0.05, delay_s=0.5)


def noiseless(rng: np.random.Generator) -> Trace:
    """Every beat arrives at once."""
    return _trace(rng, loss=0.0, delay_s=0.0)


def late(rng: np.random.Generator) -> Trace:
    """No beat is lost, and each takes a few milliseconds."""
    return _trace(rng, loss=0.0, delay_s=0.005)


def bursts(rng: np.random.Generator) -> Trace:
    """Now and then all workers stand still at once, for seconds; few beats are lost."""
    number = rng.poisson(LENGTH_S / 150)
    since_s = np.sort(rng.uniform(0, LENGTH_S, number))
    return _trace(rng, loss=0.01, delay_s=0.05, pauses=(since_s, since_s + rng.lognormal(0.5, 0.8, number)))


def rare_bursts(rng: np.random.Generator) -> Trace:
    """The same, but only three times in a trace on average."""
    number = rng.poisson(3)
    since_s = np.sort(rng.uniform(0, LENGTH_S, number))
    return _trace(rng, loss=0.01, delay_s=0.05, pauses=(since_s, since_s + rng.lognormal(0.5, 0.8, number)))


MODELS = {model.__name__: model for model in (noisy, noiseless, late, bursts, rare_bursts)}
BUDGETS = {
    "mistakes": Budget(mistakes_per_day=1_000),
    "detection": Budget(detection_s=6.0),
    "both": Budget(mistakes_per_day=1_500, detection_s=8.0),
}


def _trace(
    rng: np.random.Generator,
    loss: float,
    delay_s: float,
    pauses: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0)),
) -> Trace:
    since_s, until_s = pauses
    beats, sent, names = {}, {}, [f"w{number}" for number in range(WORKERS)]
    for name in names:
        due_s = np.arange(rng.random(), LENGTH_S, HEARTBEAT_S)
        # A beat that falls due in a pause is sent once, at its end.
        for begin_s, end_s in zip(since_s, until_s, strict=True):
            due_s = np.where((due_s >= begin_s) & (due_s < end_s), end_s, due_s)
        due_s = np.unique(due_s)
        due_s = due_s[rng.random(len(due_s)) >= loss]
        heard_s = due_s + (rng.exponential(delay_s, len(due_s)) if delay_s else 0.0)
        order = np.argsort(heard_s)
        sent[name], beats[name] = due_s[order], heard_s[order]
    ups = [Event(0.0, "up", name, "registered") for name in names]
    return Trace.of("sim", HEARTBEAT_S, ups, beats, LENGTH_S, sent=sent)


def scenario() -> Scenario:
    return Scenario.model_validate(
        {
            "name": "beating",
            "seed": 3,
            "duration_s": LENGTH_S,
            "workload": {
                "arrivals": {"kind": "poisson", "rate_per_s": 2},
                "service": {"kind": "constant", "value_s": 0.5},
            },
            "cluster": {"workers": WORKERS},
            "policies": {"detection": {"kind": "timeout", "heartbeat_s": HEARTBEAT_S, "timeout_s": 3.5}},
        }
    )


def points_of(model: str, seed: int, tried: tuple[Candidate, ...] | None = None) -> tuple[Trace, list[Point]]:
    """All settings, or those that are tried, judged on the trace of that number."""
    trace = MODELS[model](np.random.default_rng([*model.encode(), seed]))
    return trace, list(judge(scenario(), [trace], tried=tried).points)


def recommended(model: str, seed: int) -> dict[str, tuple[Candidate, float] | None]:
    """For each budget the setting and the detection time that is told of it; None where the trace can't tell."""
    trace, points = points_of(model, seed)
    found: dict[str, tuple[Candidate, float] | None] = {}
    for name, budget in BUDGETS.items():
        best = budget.recommend(points, trace.workers, trace.disturbed(DISTURBED) < FEW)
        found[name] = (best.point.candidate, best.point.p99_upper_s) if best is not None and best.qualifies else None
    return found


def fared(model: str, tried: tuple[Candidate, ...], seed: int) -> list[tuple[float, float]]:
    """Mistakes a day and the detection time of 99 %, of each tried setting on a fresh trace."""
    trace, points = points_of(model, FRESH_SEED + seed, tried)
    return [(point.rate_per_s * trace.workers * DAY_S, point.p99_s) for point in points]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--fresh", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs) as pool:
        for model in options.models:
            began = time.perf_counter()
            found = list(pool.map(partial(recommended, model), range(options.sets)))
            chosen = tuple({one[0].config: one[0] for each in found for one in each.values() if one}.values())
            fresh = list(pool.map(partial(fared, model, chosen), range(options.fresh))) if chosen else []
            place = {candidate.config: index for index, candidate in enumerate(chosen)}
            for name, budget in BUDGETS.items():
                told = [one for each in found if (one := each[name]) is not None]
                few = quick = both = 0
                for candidate, told_s in told:
                    for trace in fresh:
                        per_day, p99_s = trace[place[candidate.config]]
                        kept = budget.mistakes_per_day is None or per_day <= budget.mistakes_per_day
                        found_in_time = p99_s <= told_s
                        few, quick, both = few + kept, quick + found_in_time, both + (kept and found_in_time)
                pairs = len(told) * len(fresh)
                shares = " ".join(f"{100 * hold / pairs:6.1f}" for hold in (few, quick, both)) if pairs else "-"
                settings = Counter(f"{c.detector} {c.value:g}" for c, _ in told).most_common(4)
                print(
                    f"{model:12} {name:10} told {len(told):3} of {len(found)}; % hold: mistakes, detection, both "
                    f"{shares}  {dict(settings)}",
                    flush=True,
                )
            print(f"{'':12} {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
