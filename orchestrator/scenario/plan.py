"""Plans: everything about tasks and faults that is random, drawn before a run and executed by both worlds.

Nothing here depends on policies, and a task's arrival, demand and priority do not depend on the cluster either.
Scenarios with the same seed, replication and workload have the same tasks (common random numbers).

Faults of one layer (see `faults`) never overlap on a worker. A fault is not injected into a worker that is crashed,
paused or gone, and a join not into one that is there. The clock of a random fault (`mtbf_s`) runs only while its worker
is well. No random or periodic fault is injected after `duration_s`, but one that was injected before may end later.
After a drain or a crash for good, only a join is injected. A worker whose first process fault is a join is absent
until then.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import count

import numpy as np
from numpy.typing import NDArray

from orchestrator.core.model import TimeLimits
from orchestrator.scenario.datafiles import Floats
from orchestrator.scenario.faults import Fault, FaultKind, Layer, WorkerFault
from orchestrator.scenario.loading import Problem, ScenarioError
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import Stream, generator
from orchestrator.scenario.workload import Closed, Draws, Workload

BLOCK = 64


class Demand(float):
    """A demand, in seconds, that tells the kind of its task: what hedging compares, in both worlds."""

    kind: str


def _of_kinds(demands: Iterable[float], codes: Iterable[int], kinds: Sequence[str]) -> list[float]:
    told: list[float] = []
    for seconds, code in zip(demands, codes, strict=True):
        demand = Demand(seconds)
        demand.kind = kinds[code]
        told.append(demand)
    return told


@dataclass(frozen=True, slots=True)
class OpenArrivals:
    """Tasks by index, in the order of their arrival: seconds, demand at speed 1, priority code 0 to 3."""

    arrival_s: Floats
    service_s: Floats
    priority: NDArray[np.uint8]
    kind: NDArray[np.int32] | None = None
    """Positions in `kinds`; None without kinds."""
    kinds: tuple[str, ...] = ()

    def demands(self, tasks: NDArray[np.int64] | slice) -> list[float]:
        """The demands of these tasks; with kinds, each of its kind."""
        demands: list[float] = self.service_s[tasks].tolist()
        return demands if self.kind is None else _of_kinds(demands, self.kind[tasks].tolist(), self.kinds)

    def kinds_of(self, tasks: NDArray[np.int64] | slice) -> list[str] | None:
        """The names of the kinds of these tasks; None without kinds."""
        return None if self.kind is None else [self.kinds[code] for code in self.kind[tasks].tolist()]

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True, slots=True)
class ClosedArrivals:
    """Clients that think, submit, await the result and think again. All together they submit at most `tasks` tasks."""

    clients: int
    tasks: int | None
    workload: Workload = field(repr=False)
    stream: Stream = field(repr=False)
    drawn: Callable[[Floats, NDArray[np.int32] | None], None] = field(repr=False)
    """Is shown the demands and their kinds before they are used; raises ScenarioError."""

    def client(self, number: int) -> Iterator[tuple[float, float, int]]:
        """Endless (think_s, service_s, priority) of client 0, 1, ..., from streams of its own."""
        arrivals, kinds = self.workload.arrivals, self.workload.kind_names()
        assert isinstance(arrivals, Closed)
        stream = partial(self.stream, "client", number)
        think_rng, draws = stream("think"), Draws(self.workload, stream)
        while True:
            service_s, priority, kind = draws.take(BLOCK)
            self.drawn(service_s, kind)
            demands = service_s.tolist()
            yield from zip(
                arrivals.think.sample(think_rng, BLOCK).tolist(),
                demands if kind is None else _of_kinds(demands, kind.tolist(), kinds),
                priority.tolist(),
                strict=True,
            )


@dataclass(frozen=True, slots=True)
class FaultAction:
    """At `time_s` a fault is injected into a worker (None: the coordinator), or ends (`heals`).

    `index` is the fault's place in the scenario, where its parameters are. A crash or a restart ends when a new process
    starts.
    """

    time_s: float
    kind: FaultKind
    worker: str | None
    index: int
    heals: bool = False

    @property
    def starts(self) -> bool:
        """Whether a new process of the worker begins."""
        return self.kind == "join" or (self.heals and self.kind in ("crash", "restart"))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is given: its tasks, its faults in the order of their times, and which workers are not there yet."""

    arrivals: OpenArrivals | ClosedArrivals
    faults: list[FaultAction]
    absent: frozenset[str] = frozenset()


def draw_plan(scenario: Scenario, replication: int = 0) -> Plan:
    """The plan of one replication."""
    stream = partial(generator, scenario.seed, replication)
    return Plan(_draw_arrivals(scenario, stream), *_draw_faults(scenario, stream))


def _draw_arrivals(scenario: Scenario, stream: Stream) -> OpenArrivals | ClosedArrivals:
    workload = scenario.workload
    arrivals = workload.arrivals
    if isinstance(arrivals, Closed):
        return ClosedArrivals(arrivals.clients, workload.tasks, workload, stream, partial(_refuse_endless, scenario))
    limit = workload.tasks if workload.tasks is not None else np.iinfo(np.int64).max
    arrival_s = arrivals.times(stream, scenario.duration_s, int(limit))
    service_s, priority, kind = workload.demands(len(arrival_s), stream)
    _refuse_endless(scenario, service_s, kind)
    return OpenArrivals(arrival_s, service_s, priority, kind, workload.kind_names())


def _refuse_endless(scenario: Scenario, service_s: Floats, kind: NDArray[np.int32] | None) -> None:
    """Raise ScenarioError if one of these demands times out wherever it is executed, and is tried again for ever.
    `kind`: of each, as in `OpenArrivals`."""
    if scenario.policies.retry.max_attempts is not None or scenario.drain_s is not None:
        return
    limits_s = np.array([_endless_from_s(scenario, name) for name in scenario.workload.kind_names() or ("",)])
    limit_s = limits_s[np.zeros(len(service_s), int) if kind is None else kind]
    fastest = max(group.speed for group in scenario.cluster.groups)
    endless = service_s / fastest >= limit_s
    if endless.any():
        message = (
            f"is null, and {int(endless.sum()):,} of {len(service_s):,} tasks take longer than the timeout of an "
            f"attempt ({limit_s[endless].min():g} s), so the run would never end, expected a number, or drain_s"
        )
        raise ScenarioError([Problem(scenario.name, 1, 1, "policies.retry.max_attempts", message)])


def _endless_from_s(scenario: Scenario, kind: str) -> float:
    """From which demand on a task of that kind is tried for ever at speed 1; one with a deadline never is."""
    limits = scenario.workload.limits_of(kind) or TimeLimits()
    limit_s = limits.execution_timeout_s or scenario.policies.attempt_timeout_s
    return math.inf if limit_s is None or limits.deadline_s is not None else limit_s


def _draw_faults(scenario: Scenario, stream: Stream) -> tuple[list[FaultAction], frozenset[str]]:
    threats: dict[tuple[str | None, Layer], list[_Threat]] = {}
    for index, fault in enumerate(scenario.faults):
        for threat in _threats(fault, index, scenario, stream):
            threats.setdefault((threat.worker, fault.layer), []).append(threat)
    number = {name: i for i, name in enumerate([None, *scenario.worker_names()])}
    actions: list[FaultAction] = []
    absent = set()
    for worker, layer in sorted(threats, key=lambda key: (number[key[0]], key[1])):
        found = list(_actions(threats[worker, layer], scenario.duration_s))
        if found and found[0].kind == "join":
            absent.add(worker)
        actions += found
    # The sort is stable: among simultaneous actions on one worker, a cause stays before its effect.
    return sorted(actions, key=lambda action: action.time_s), frozenset(name for name in absent if name)


def _threats(fault: Fault, index: int, scenario: Scenario, stream: Stream) -> Iterator[_Threat]:
    """One for each of the fault's victims."""
    if not isinstance(fault, WorkerFault):
        yield _Threat(fault, index, None, stream)
        return
    victims = scenario.victims(fault)
    if fault.count is not None:
        chosen = stream("fault", index, "victims").choice(len(victims), fault.count, replace=False)
        victims = [victims[i] for i in sorted(chosen)]
    for place, name in enumerate(victims):
        yield _Threat(fault, index, name, stream, place * fault.stagger_s)


class _Threat:
    """One fault and one of its victims: when it is injected next, and for how long.

    Each victim has a clock and lengths of its own, except for a fault that hits all its victims together. The clock of
    such a fault does not stop while a victim is down.
    """

    def __init__(self, fault: Fault, index: int, worker: str | None, stream: Stream, later_s: float = 0.0) -> None:
        self.index = index
        self.worker = worker
        self.together = worker is None or (isinstance(fault, WorkerFault) and fault.together)
        self._fault = fault
        self._later_s = later_s
        self._length = fault.length()
        self._length_s = math.inf
        self._until_s = 0.0
        self._injections = count(1)
        self._stream = stream

    @cached_property
    def _clock(self) -> np.random.Generator:
        return self._draws("clock")

    @cached_property
    def _lengths(self) -> np.random.Generator:
        return self._draws("length")

    def _draws(self, what: str) -> np.random.Generator:
        own = () if self.together else (self.worker,)
        return self._stream("fault", self.index, what, *own)

    @property
    def kind(self) -> FaultKind:
        return self._fault.kind

    @property
    def once(self) -> bool:
        return self._fault.at_s is not None

    def next_injection_s(self, well_since_s: float) -> float:
        """The time of the next injection; infinity after the only one of a fault with a fixed time."""
        fault, number = self._fault, next(self._injections)
        if fault.mtbf_s is not None:
            since_s = self._until_s if self.together else well_since_s
            at_s = since_s + self._clock.exponential(fault.mtbf_s)
        elif fault.every_s is not None:
            at_s = number * fault.every_s + self._later_s
        else:
            at_s = fault.at_s + self._later_s if number == 1 and fault.at_s is not None else math.inf
        if self.together:
            self._draw_length()
            self._until_s = at_s + self._length_s
        return at_s

    def length_s(self) -> float:
        """Seconds until the injected fault ends; infinity if it never does."""
        if not self.together:
            self._draw_length()
        return self._length_s

    def _draw_length(self) -> None:
        if self._length is not None:
            self._length_s = float(self._length.sample(self._lengths, 1)[0])


def _actions(threats: list[_Threat], duration_s: float) -> Iterator[FaultAction]:
    """What happens to one worker in one layer, in order of time."""
    injections = [(threat.next_injection_s(0.0), threat.index) for threat in threats]
    heapq.heapify(injections)
    threat_of = {threat.index: threat for threat in threats}
    there = threat_of[injections[0][1]].kind != "join"
    well_since_s = 0.0
    while injections:
        at_s, index = heapq.heappop(injections)
        threat = threat_of[index]
        if at_s == math.inf or (at_s > duration_s and not threat.once):
            continue
        kind = threat.kind
        if at_s >= well_since_s and there == (kind != "join"):
            yield FaultAction(at_s, kind, threat.worker, index)
            ends = kind not in ("join", "drain")
            end_s = at_s + threat.length_s() if ends else at_s
            if ends and end_s < math.inf:
                yield FaultAction(end_s, kind, threat.worker, index, heals=True)
            there = kind != "drain" and not (kind == "crash" and end_s == math.inf)
            well_since_s = end_s if there else at_s
        # The clock is memoryless, so one that stood still while the worker was down equals one that starts anew.
        if not threat.once:
            heapq.heappush(injections, (threat.next_injection_s(max(at_s, well_since_s)), index))
