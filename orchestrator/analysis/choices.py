"""Why a task went where it went: what the routing policy saw when it chose, written down while a run is decided again.

`watched` puts an observer around the routing policy, which changes nothing: the same core makes the same choices from
the same random numbers. Both worlds use it: the simulator runs again, a live run's decision record is decided again.
Where neither can be had, `reconstructed` counts the attempts that each worker held by the tables.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.core.model import Task, Worker
from orchestrator.core.ports import EndAware, LaneAware, RoutingPolicy
from orchestrator.policies import RoutingConfig
from orchestrator.policies.routing import PowerOfD, PowerOfDConfig
from orchestrator.policies.settings import Policies
from orchestrator.results.tables import Tables, floats

MOST_NAMED = 4
"""Workers that are named in a sentence."""


@dataclass(frozen=True)
class Choice:
    """One choice of a worker for a task. Loads are those before it."""

    attempt: int
    """The number of the attempt that it led to."""
    worker: str
    loads: Mapping[str, int]
    """Open and abandoned attempts of each worker that could have been chosen, by its name."""
    drawn: Sequence[str] | None
    """Those among which the policy looked, if it looks at a sample only."""
    exact: bool = True
    """False if the loads are reconstructed from the tables, which do not say who could have been chosen."""

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "exact": self.exact,
            "load": self.loads.get(self.worker),
            "candidates": len(self.loads),
            "drawn": None if self.drawn is None else {name: self.loads[name] for name in self.drawn},
            "workers_by_load": {str(load): n for load, n in sorted(Counter(self.loads.values()).items())},
        }


def watched(policies: Policies, task: Hashable, noted: list[Choice]) -> Policies:
    """The same policies; every choice for that task is added to `noted` as it is made."""
    return policies.model_copy(update={"routing": _Watched(policies.routing, task, noted)})


def reason(choice: Choice, kind: str) -> str:
    """Why this worker, in words. `kind`: of the routing policy."""
    load = choice.loads.get(choice.worker, 0)
    n = len(choice.loads)
    if not choice.exact:
        least = min(choice.loads.values())
        alike = sum(held == load for held in choice.loads.values())
        among = "least of all" if load == least else f"the least was {least}"
        return f"it held {load}, {among}; {alike:,} of {n:,} workers held as many, by the tables"
    if n == 1:
        return f"load {load}, the only one with room"
    if choice.drawn is not None:
        others = [f"{name} with load {choice.loads[name]}" for name in choice.drawn if name != choice.worker]
        against = f", against {_some(others)}" if others else ""
        return f"load {load}{against}: the least loaded of {len(choice.drawn)} drawn out of {n:,} with room"
    if kind == "least_loaded":
        alike = sum(held == load for held in choice.loads.values())
        tie = f", one of {alike:,} alike, by chance" if alike > 1 else ""
        return f"load {load}, the least of {n:,} with room{tie}"
    how = {"random": "drawn from", "round_robin": "next in turn of"}.get(kind, f"the choice of {kind} among")
    return f"load {load}, {how} {n:,} with room, whose loads are {_spread(choice.loads)}"


def reconstructed(tables: Tables, workers: Sequence[str], row: int) -> Choice:
    """What each worker held when the attempt in that row of the attempts table was assigned.

    An attempt occupies its worker from its assignment until the coordinator hears of its end. Of those that were
    assigned at the same moment, the earlier rows count.
    """
    attempts = tables.attempts
    assigned_s, ended_s = floats(attempts, "assigned_s"), floats(attempts, "ended_s")
    at = assigned_s[row]
    before = (assigned_s < at) | ((assigned_s == at) & (np.arange(len(assigned_s)) < row))
    held = before & ~(ended_s <= at)
    names = attempts.column("worker").to_pylist()
    loads = Counter(names[place] for place in np.flatnonzero(held))
    number = attempts.column("attempt")[row].as_py()
    return Choice(number, names[row], {name: loads[name] for name in workers}, None, exact=False)


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - MOST_NAMED:,} more" if len(texts) > MOST_NAMED else ""
    return ", ".join(texts[:MOST_NAMED]) + more


def _spread(loads: Mapping[str, int]) -> str:
    counts = sorted(Counter(loads.values()).items())
    return _some([f"{load} ({n:,} worker{'s' * (n > 1)})" for load, n in counts])


@dataclass(frozen=True)
class _Watched:
    """The configuration of a routing policy that is watched; it stands where the policy's own stands."""

    config: RoutingConfig
    task: Hashable
    noted: list[Choice]
    kind: str = field(init=False, default="watched")

    def build(self, rng: random.Random) -> RoutingPolicy:
        if isinstance(self.config, PowerOfDConfig):
            drawing = _Drawing(rng, self.config.d)
            return _Observer(drawing, self.task, self.noted, lambda: drawing.drawn)
        return _Observer(self.config.build(rng), self.task, self.noted)


class _Drawing(PowerOfD):
    """Remembers whom it drew last."""

    drawn: Sequence[Worker] = ()

    def sample(self) -> list[Worker]:
        self.drawn = found = super().sample()
        return found


class _Observer:
    """Passes everything on to a routing policy, and notes what there was to choose from when it chose for one task."""

    def __init__(
        self,
        policy: RoutingPolicy,
        task: Hashable,
        noted: list[Choice],
        drawn: Callable[[], Sequence[Worker]] | None = None,
    ) -> None:
        self._policy, self._task, self._noted, self._drawn = policy, task, noted, drawn
        self._joined: dict[str, Worker] = {}
        self.load_changed = policy.load_changed
        if isinstance(policy, LaneAware):
            self.lane = policy.lane
        if isinstance(policy, EndAware):
            self.ended = policy.ended

    def joined(self, worker: Worker) -> None:
        self._joined[worker.id] = worker
        self._policy.joined(worker)

    def left(self, worker: Worker) -> None:
        self._joined.pop(worker.id, None)
        self._policy.left(worker)

    def choose(self, task: Task) -> Worker | None:
        if task.id != self._task:
            return self._policy.choose(task)
        loads = {name: worker.load for name, worker in self._joined.items() if worker.load < worker.limit}
        chosen = self._policy.choose(task)
        if chosen is not None:
            drawn = None if self._drawn is None else [worker.id for worker in self._drawn()]
            self._noted.append(Choice(task.attempt + 1, chosen.id, loads, drawn))
        return chosen
