"""What one run is told: a scenario without its sweep, its replications and its model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, WithJsonSchema, model_validator

from orchestrator.policies.config import NonNegative, Positive, Strict
from orchestrator.policies.settings import Policies
from orchestrator.scenario.faults import CoordinatorCrash, Fault, FaultConfig, WorkerFault
from orchestrator.scenario.loading import Misfit
from orchestrator.scenario.sections import Cluster, Coordinator, Live, Network
from orchestrator.scenario.validation import misfits
from orchestrator.scenario.workload import Closed, Trace, Workload

MAX_DRAWS = 100_000_000
NAME = r"^[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]*$"
NAME_BYTES = 200
"""File systems take 255, and `-compared` and others come behind it."""


NUMBER_OR_TRACE: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "trace"}]}


def with_span_of_trace(tree: Any) -> Any:
    """The tree with the time of the trace's last arrival as its duration_s, where that is `trace` or missing for one
    with `until: trace`. The trace then has `until: trace`, so that a sweep of it knows."""
    try:
        workload, arrivals = tree["workload"], tree["workload"]["arrivals"]
        if tree.get("duration_s", arrivals.get("until")) != "trace":
            return tree
        kind, tasks = arrivals.get("kind"), workload.get("tasks")
    except (AttributeError, KeyError, TypeError):
        return tree  # no scenario, as its validation says
    if kind != "trace":
        raise misfits([Misfit(("duration_s",), 'is "trace", but the arrivals are no trace, expected a number')])
    try:
        last_s = Trace.model_validate(arrivals).last_s(tasks if isinstance(tasks, int) and tasks > 0 else None)
    except ValidationError:
        return {**tree, "duration_s": 1.0}  # what is wrong is told where the trace is validated as a part of the tree
    if not last_s:
        raise misfits([Misfit(("duration_s",), "is trace, but all arrivals are at 0 s, expected a number")])
    return {**tree, "duration_s": last_s, "workload": {**workload, "arrivals": {**arrivals, "until": "trace"}}}


class RunSettings(Strict):
    """One run."""

    name: Annotated[str, Field(min_length=1, json_schema_extra={"pattern": NAME})]
    """The scenario's name in tables and plots, and of the folder that holds its results: no slash, no leading dot."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random stream."""
    duration_s: Annotated[Positive, WithJsonSchema(NUMBER_OR_TRACE)]
    """Arrivals stop after this many seconds; `trace`: with the last arrival of the trace."""
    warmup_s: NonNegative = 0.0
    """Latency statistics leave out the arrivals of the first seconds, up to this time."""
    drain_s: NonNegative | None = None
    """Seconds to wait after duration_s for tasks that are not settled; null: wait until all are."""
    workload: Workload
    """The tasks."""
    cluster: Cluster
    """The workers."""
    coordinator: Coordinator = Coordinator()
    """The coordinator's own cost, and its store."""
    network: Network = Network()
    """Delay, loss and duplication of messages."""
    policies: Policies = Policies()
    """The coordinator's decisions."""
    faults: list[FaultConfig] = Field(default_factory=list)
    """What goes wrong, and when."""
    live: Live = Live()
    """Settings of live runs."""

    @model_validator(mode="before")
    @classmethod
    def _with_span_of_trace(cls, tree: Any) -> Any:
        return with_span_of_trace(tree)

    @model_validator(mode="after")
    def _sound(self) -> Self:
        found = [*self._named(), *self._times(), *self._sizes(), *self._victims(), *self._stores()]
        if found:
            raise misfits(found)
        return self

    def worker_names(self) -> list[str]:
        """w1, w2, ... through all groups."""
        return [f"w{number}" for number in range(1, self._workers() + 1)]

    @property
    def attempt_timeout_s(self) -> float | None:
        """Seconds of execution after which an attempt is given up, of kinds that have no timeout of their own."""
        own_s = self.workload.execution_timeout_s
        return self.policies.attempt_timeout_s if own_s is None else own_s

    def victims(self, fault: Fault) -> list[str]:
        """The workers that a fault may hit. A fault with `count` chooses among them; any other fault hits them all."""
        if not isinstance(fault, WorkerFault):
            return []
        if fault.workers is not None:
            return list(dict.fromkeys(fault.workers))
        names = iter(self.worker_names())
        members = {group.name: list(itertools.islice(names, group.workers)) for group in self.cluster.groups}
        return members.get(fault.group, []) if fault.group is not None else list(itertools.chain(*members.values()))

    def slots_of_speed_1(self) -> float:
        """How many slots of speed 1 would do as much as all slots do."""
        return sum(group.workers * group.capacity * group.speed for group in self.cluster.groups)

    def offered_load(self) -> float | None:
        """Offered load: work that arrives per second over the work that all slots do per second.

        For a trace it is the work of its arrivals over their span, or None if they have no span. For a closed loop it
        is the load if no task ever waited: clients * S / (Z + S) tasks in service. A closed loop can't offer more
        than 1.
        """
        slots = self.slots_of_speed_1()
        arrivals = self.workload.arrivals
        if isinstance(arrivals, Trace):
            return self._trace_load(arrivals, slots)
        service_s = self.workload.mean_service_s()
        if isinstance(arrivals, Closed):
            cycle_s = arrivals.think.mean() + service_s
            return min(1.0, arrivals.clients * service_s / cycle_s / slots) if cycle_s else 1.0
        return arrivals.expected(self.duration_s) / self.duration_s * service_s / slots

    def _trace_load(self, trace: Trace, slots: float) -> float | None:
        data = trace.data()
        arrived = self.workload.traced(self.duration_s)
        if not arrived or not data.arrival_s[arrived - 1]:
            return None
        span_s = float(data.arrival_s[arrived - 1]) / trace.speedup
        if data.service_s is not None:
            return float(data.service_s[:arrived].sum()) / span_s / slots
        return arrived * self.workload.mean_service_s(arrived) / span_s / slots

    def _workers(self) -> int:
        return sum(group.workers for group in self.cluster.groups)

    def _named(self) -> Iterator[Misfit]:
        """A folder is named after it, which must not be elsewhere."""
        if not re.fullmatch(NAME, self.name) or self.name != self.name.strip():
            expected = "without slashes, control characters, a dot at its beginning and spaces at its ends"
            yield Misfit(("name",), f"is {self.name!r}, which can't name a folder, expected a name {expected}")
        elif len(self.name.encode()) > NAME_BYTES:
            yield Misfit(("name",), f"has {len(self.name.encode())} bytes, expected at most {NAME_BYTES}")

    def _times(self) -> Iterator[Misfit]:
        if self.warmup_s >= self.duration_s:
            yield Misfit(("warmup_s",), f"is {self.warmup_s:g}, expected less than duration_s ({self.duration_s:g})")
        arrivals = self.workload.arrivals
        if not isinstance(arrivals, Trace):
            return
        if not arrivals.expected(self.duration_s):
            message = f"would use no arrival: the trace's first one comes at {arrivals.first_s():g} s"
            expected = "expected a duration_s that reaches it, or origin: first"
            yield Misfit(("workload", "arrivals", "file"), f"{message}, {expected}")
        elif arrivals.until and self.duration_s != arrivals.last_s(self.workload.tasks):
            message = f"is {self.duration_s:g}, but workload.arrivals.until is trace, expected trace, or no until"
            yield Misfit(("duration_s",), message)

    def _sizes(self) -> Iterator[Misfit]:
        """Sizes that would take all memory and never end."""
        arrivals = self.workload.arrivals
        if not isinstance(arrivals, Closed):
            expected = min(arrivals.expected(self.duration_s), self.workload.tasks or math.inf)
            draws = max(expected, arrivals.periods(self.duration_s))
            if draws > MAX_DRAWS:
                message = f"would draw {draws:.3g} times, expected at most {MAX_DRAWS:,} (shorten duration_s)"
                yield Misfit(("workload", "arrivals"), message)
        for i, fault in enumerate(self.faults):
            every = fault.mtbf_s or fault.every_s
            if every and (injections := len(self.victims(fault)) * self.duration_s / every) > MAX_DRAWS / 10:
                message = f"would be injected {injections:.3g} times, expected at most {MAX_DRAWS // 10:,}"
                yield Misfit(("faults", i, "mtbf_s" if fault.mtbf_s else "every_s"), message)

    def _stores(self) -> Iterator[Misfit]:
        for i, fault in enumerate(self.faults):
            if isinstance(fault, CoordinatorCrash) and self.coordinator.commit is None:
                message = "kills a coordinator that stores nothing, so that every task would be lost"
                expected = "expected coordinator.commit, such as {kind: constant, value_s: 0.002}"
                yield Misfit(("faults", i, "kind"), f"{message}, {expected}")

    def _victims(self) -> Iterator[Misfit]:
        workers = self._workers()
        groups = [group.name for group in self.cluster.groups]
        for i, fault in enumerate(self.faults):
            if not isinstance(fault, WorkerFault):
                continue
            if fault.group is not None and fault.group not in groups:
                message = f'there is no group "{fault.group}", expected {" or ".join(groups)}'
                yield Misfit(("faults", i, "group"), message)
            if fault.count is not None and fault.count > workers:
                message = f"is {fault.count}, expected at most {workers}, the number of workers"
                yield Misfit(("faults", i, "count"), message)
            for j, name in enumerate(fault.workers or ()):
                number = re.fullmatch(r"w([1-9]\d{0,6})", name)
                if number is None or int(number[1]) > workers:
                    range_ = f"a name from w1 to w{workers}" if workers > 1 else "w1, the only worker"
                    yield Misfit(("faults", i, "workers", j), f'there is no worker "{name}", expected {range_}')
