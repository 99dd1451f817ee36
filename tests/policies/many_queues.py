"""Many servers with a queue each and exponential service of mean 1 s, around a routing policy and nothing else.

The whole simulator would take an hour to be stationary near saturation; this chain begins where it is to stay.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from orchestrator.core.model import Task, Worker
from orchestrator.core.ports import RoutingPolicy

TASK = Task("t", 0, 1, None, 0.0)


def fixed_point(d: int, load: float, servers: int) -> list[int]:
    """Lengths of which a share load^((d^i - 1) / (d - 1)) is i at least, as in the mean field (Mitzenmacher 2001)."""
    lengths = [0] * servers
    for i in range(1, 1000):
        share = load ** ((d**i - 1) / (d - 1)) if d**i < 1e6 else 0.0
        for place in range(round(share * servers)):
            lengths[place] = i
    return lengths


def mean_response_s(
    routing: RoutingPolicy, lengths: Sequence[int], load: float, from_s: float, until_s: float, seed: int = 1
) -> float:
    """By Little's law, from the number of tasks in the system over that time. One event of the Markov chain after the
    other: arrivals at rate load x servers, and at each server an end at rate 1, void where it is idle."""
    rng = random.Random(seed)
    draw = rng.random
    workers = []
    for slot, length in enumerate(lengths):
        worker = Worker(f"w{slot}", slot)
        worker.capacity, worker.limit, worker.load = 1, math.inf, length
        worker.assignable = True
        workers.append(worker)
        routing.joined(worker)
    n = len(workers)
    rate = load * n + n
    share, held, area, events = load / (1 + load), sum(lengths), 0, 0
    first, last = int(from_s * rate), int(until_s * rate)
    for event in range(last):
        if draw() < share:
            chosen = routing.choose(TASK)
            assert chosen is not None
            chosen.load += 1
            held += 1
            routing.load_changed(chosen, chosen.load - 1)
        else:
            worker = workers[int(draw() * n)]
            if worker.load:
                worker.load -= 1
                held -= 1
                routing.load_changed(worker, worker.load + 1)
        if event >= first:
            area += held
            events += 1
    return area / events / (load * n)
