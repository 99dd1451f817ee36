"""What live workers are given to do, so that it takes them a task's seconds."""

from __future__ import annotations

import time

from orchestrator.cluster import tasks
from orchestrator.rehearsal.drive import Payload
from orchestrator.scenario.schema import Scenario

_PRIME_MAX = 3_037_000_493  # the largest whose square is a 64-bit integer


def payload_of(scenario: Scenario) -> Payload:
    """From a task's demand in seconds to what the fastest workers of this scenario take that long for."""
    speed = top_speed(scenario)
    if scenario.workload.task == "prime":
        per_s = _divisions_per_s()
        return lambda demand_s: square_of_prime(demand_s / speed * per_s)
    affinity = scenario.workload.affinity
    if affinity is not None and affinity.hit_factor < 1:
        factor, most = affinity.hit_factor, affinity.remembers
        return lambda demand: tasks.remembering(demand / speed, factor, most, getattr(demand, "affinity_key", ""))
    return lambda demand_s: repr(demand_s / speed)


def top_speed(scenario: Scenario) -> float:
    """Of the fastest workers. All others are slowed down against them: no machine does work faster than it can."""
    return max(group.speed for group in scenario.cluster.groups)


def square_of_prime(divisions: float) -> str:
    """An integer whose primality takes about so many trial divisions, of odd numbers: the square of a prime p, for
    p / 2 of them. A prime near p squared would take as many, and to find it more than to run it."""
    candidate = min(int(2 * divisions) | 1, _PRIME_MAX)
    while tasks.smallest_factor(candidate) != candidate:
        candidate += 2
    return str(candidate**2)


def _divisions_per_s() -> float:
    """Of this machine, as it is now."""
    prime = 1_000_003
    took_s = []
    for _ in range(5):
        begin = time.perf_counter()
        tasks.smallest_factor(prime**2)
        took_s.append(time.perf_counter() - begin)
    return prime / 2 / sorted(took_s)[2]
