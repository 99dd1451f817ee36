"""Plans: all that chance decides about tasks and faults, drawn before a run, for both worlds to execute.

Nothing here depends on policies, and a task's arrival, demand and priority depend on no cluster either:
scenarios that share seed, replication and workload see the same tasks (common random numbers).

Faults on one worker never overlap. A fault that would strike a worker which is crashed or paused misses it; the
clock of a random fault (`mtbf_s`) runs only while its worker is well, and strikes no more after `duration_s`.
What struck before may heal later. A worker that crashed for good is not struck again.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.experiment.datafiles import Floats
from orchestrator.experiment.scenario import Crash, Fault, Pause, Scenario
from orchestrator.experiment.streams import Stream, generator
from orchestrator.experiment.workload import Closed, Workload

BLOCK = 64

FaultKind = Literal["crash", "restart", "pause", "resume"]


@dataclass(frozen=True, slots=True)
class OpenArrivals:
    """Tasks by index, in the order of their arrival: seconds, demand at speed 1, priority code 0 to 3."""

    arrival_s: Floats
    service_s: Floats
    priority: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class ClosedArrivals:
    """Clients that each think, submit, await the result and think again; `tasks` limits them all together."""

    clients: int
    tasks: int | None
    workload: Workload = field(repr=False)
    stream: Stream = field(repr=False)

    def client(self, number: int) -> Iterator[tuple[float, float, int]]:
        """Endless (think_s, service_s, priority) of client 0, 1, ..., from streams of its own."""
        arrivals, service = self.workload.arrivals, self.workload.service
        assert isinstance(arrivals, Closed)
        assert service is not None
        think_rng, service_rng, priority_rng = (
            self.stream("client", number, what) for what in ("think", "service", "priority")
        )
        while True:
            yield from zip(
                arrivals.think.sample(think_rng, BLOCK).tolist(),
                service.sample(service_rng, BLOCK).tolist(),
                self.workload.priorities.draw(priority_rng, BLOCK).tolist(),
                strict=True,
            )


@dataclass(frozen=True, slots=True)
class FaultAction:
    """At `time_s`, do this to that worker; `index` is the fault's place in the scenario."""

    time_s: float
    kind: FaultKind
    worker: str
    index: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is given: its tasks, and its faults in the order of their times."""

    arrivals: OpenArrivals | ClosedArrivals
    faults: list[FaultAction]


def draw_plan(scenario: Scenario, replication: int = 0) -> Plan:
    """The plan of one replication."""
    stream = partial(generator, scenario.seed, replication)
    return Plan(_draw_arrivals(scenario, stream), _draw_faults(scenario, stream))


def _draw_arrivals(scenario: Scenario, stream: Stream) -> OpenArrivals | ClosedArrivals:
    workload = scenario.workload
    arrivals = workload.arrivals
    if isinstance(arrivals, Closed):
        return ClosedArrivals(arrivals.clients, workload.tasks, workload, stream)
    limit = workload.tasks if workload.tasks is not None else np.iinfo(np.int64).max
    arrival_s = arrivals.times(stream, scenario.duration_s, int(limit))
    return OpenArrivals(arrival_s, *workload.demands(len(arrival_s), stream))


def _draw_faults(scenario: Scenario, stream: Stream) -> list[FaultAction]:
    names = scenario.worker_names()
    threats: dict[str, list[_Threat]] = {}
    for index, fault in enumerate(scenario.faults):
        for name in _victims(fault, names, stream, index):
            threats.setdefault(name, []).append(_Threat(fault, index, name, stream))
    number = {name: i for i, name in enumerate(names)}
    actions = [
        action
        for name in sorted(threats, key=number.__getitem__)
        for action in _actions(threats[name], scenario.duration_s)
    ]
    # Stable: of one worker's simultaneous actions the cause stays before its effect.
    return sorted(actions, key=lambda action: action.time_s)


def _victims(fault: Fault, names: list[str], stream: Stream, index: int) -> list[str]:
    if fault.workers is not None:
        return list(dict.fromkeys(fault.workers))
    if fault.count is not None:
        chosen = stream("fault", index, "victims").choice(len(names), fault.count, replace=False)
        return [names[i] for i in sorted(chosen)]
    return names


class _Threat:
    """One fault over one worker: when it strikes next, and for how long; a clock and a length of its own."""

    __slots__ = ("_clock", "_fault", "_lengths", "_stream", "index", "worker")

    def __init__(self, fault: Crash | Pause, index: int, worker: str, stream: Stream) -> None:
        self.index = index
        self.worker = worker
        self._fault = fault
        self._stream = stream
        self._clock: np.random.Generator | None = None
        self._lengths: np.random.Generator | None = None

    def next_strike_s(self, well_since_s: float) -> float:
        """Of a random fault, the strike after a worker became well; inf for a fault with a fixed time."""
        if self._fault.mtbf_s is None:
            return math.inf
        if self._clock is None:
            self._clock = self._stream("fault", self.index, "clock", self.worker)
        return well_since_s + self._clock.exponential(self._fault.mtbf_s)

    def first_strike_s(self) -> float:
        return self._fault.at_s if self._fault.at_s is not None else self.next_strike_s(0.0)

    def length_s(self) -> float:
        """Seconds until the worker is well again; inf for a crash for good."""
        fault = self._fault
        if isinstance(fault, Crash) and fault.restart_after_s is not None:
            return fault.restart_after_s
        if isinstance(fault, Crash) and fault.mttr_s is None:
            return math.inf
        if self._lengths is None:
            self._lengths = self._stream("fault", self.index, "length", self.worker)
        if isinstance(fault, Pause):
            return float(fault.for_s.sample(self._lengths, 1)[0])
        assert fault.mttr_s is not None
        return self._lengths.exponential(fault.mttr_s)

    @property
    def kinds(self) -> tuple[FaultKind, FaultKind]:
        return ("crash", "restart") if isinstance(self._fault, Crash) else ("pause", "resume")

    @property
    def random(self) -> bool:
        return self._fault.mtbf_s is not None


def _actions(threats: list[_Threat], duration_s: float) -> Iterator[FaultAction]:
    """What happens to one worker, in order of time."""
    strikes = [(threat.first_strike_s(), threat.index) for threat in threats]
    heapq.heapify(strikes)
    threat_of = {threat.index: threat for threat in threats}
    well_since_s = 0.0
    while strikes and well_since_s < math.inf:
        at_s, index = heapq.heappop(strikes)
        threat = threat_of[index]
        if threat.random and at_s > duration_s:
            continue
        if at_s >= well_since_s:
            begin, end = threat.kinds
            yield FaultAction(at_s, begin, threat.worker, index)
            well_since_s = at_s + threat.length_s()
            if well_since_s < math.inf:
                yield FaultAction(well_since_s, end, threat.worker, index)
        # A memoryless clock that stood still while the worker was down is as good as one that starts anew.
        if threat.random:
            heapq.heappush(strikes, (threat.next_strike_s(well_since_s), index))
