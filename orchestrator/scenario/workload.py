"""The tasks of a scenario: when they arrive, how long each runs, how urgent it is."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from orchestrator.core.model import Priority, TimeLimits
from orchestrator.policies.config import Count, NonNegative, Positive, Strict, tag_of
from orchestrator.scenario.datafiles import DataError, Floats
from orchestrator.scenario.distributions import Distribution
from orchestrator.scenario.streams import Stream
from orchestrator.scenario.traces import KIND_NAME, MOST_KINDS, TraceData, TraceFile, is_kind
from orchestrator.scenario.validation import misfit

PRIORITIES = tuple(priority.name.lower() for priority in Priority)
"""Priority names; a name's index is its code: low 0, normal 1, high 2, urgent 3."""


class OpenLoop(Strict):
    """Arrivals at times of their own, whatever becomes of the tasks before them."""

    @abstractmethod
    def times(self, stream: Stream, duration_s: float, limit: int) -> Floats:
        """Increasing arrival times in [0, duration_s], the first `limit` of them at most."""

    def periods(self, duration_s: float) -> float:
        """About how many changes of the rate have to be drawn."""
        return 0.0

    @abstractmethod
    def expected(self, duration_s: float) -> float:
        """The mean number of arrivals in [0, duration_s]."""


class Poisson(OpenLoop):
    """A Poisson process."""

    kind: Literal["poisson"]
    rate_per_s: Positive
    """Mean arrivals per second."""

    def times(self, stream: Stream, duration_s: float, limit: int) -> Floats:
        # One process of rate 1 is scaled, so that scenarios with different rates share its pattern.
        return unit_poisson(stream("arrivals"), duration_s * self.rate_per_s, limit) / self.rate_per_s

    def expected(self, duration_s: float) -> float:
        return self.rate_per_s * duration_s


class Regular(OpenLoop):
    """One every 1 / rate_per_s seconds, the first after one such gap."""

    kind: Literal["constant"]
    rate_per_s: Positive
    """Arrivals per second."""

    def times(self, stream: Stream, duration_s: float, limit: int) -> Floats:
        count = int(min(limit, duration_s * self.rate_per_s + 1))
        times = np.arange(1, count + 1) / self.rate_per_s
        return times[times <= duration_s]

    def expected(self, duration_s: float) -> float:
        return self.rate_per_s * duration_s


class OnOff(OpenLoop):
    """Bursts: a Poisson process whose rate switches after exponential times (MMPP-2), from its steady state."""

    kind: Literal["on_off"]
    rate_on_per_s: Positive
    """Mean arrivals per second while on."""
    rate_off_per_s: NonNegative
    """Mean arrivals per second while off."""
    mean_on_s: Positive
    """Mean seconds that it stays on."""
    mean_off_s: Positive
    """Mean seconds that it stays off."""

    def times(self, stream: Stream, duration_s: float, limit: int) -> Floats:
        ends_s, rates = self._periods(stream("arrivals", "periods"), duration_s)
        starts_s = np.concatenate([[0.0], ends_s[:-1]])
        # Unit-rate points u, put where the integral of the rate reaches u.
        integral = np.cumsum((ends_s - starts_s) * rates)
        points = unit_poisson(stream("arrivals"), float(integral[-1]), limit)
        points = points[points < integral[-1]]
        period = np.searchsorted(integral, points, side="right")
        before = np.concatenate([[0.0], integral[:-1]])[period]
        times: Floats = np.minimum(starts_s[period] + (points - before) / rates[period], ends_s[period])
        return times

    def expected(self, duration_s: float) -> float:
        per_cycle = self.rate_on_per_s * self.mean_on_s + self.rate_off_per_s * self.mean_off_s
        return duration_s * per_cycle / (self.mean_on_s + self.mean_off_s)

    def periods(self, duration_s: float) -> float:
        return 2 * duration_s / (self.mean_on_s + self.mean_off_s)

    def _periods(self, rng: np.random.Generator, duration_s: float) -> tuple[Floats, Floats]:
        """Ends of the periods, the last one at duration_s, and the rate in each."""
        starts_on = rng.random() * (self.mean_on_s + self.mean_off_s) < self.mean_on_s
        on_first = (self.mean_on_s, self.mean_off_s), (self.rate_on_per_s, self.rate_off_per_s)
        means, rates = on_first if starts_on else tuple(pair[::-1] for pair in on_first)
        block = 16 + int(self.periods(duration_s))
        lengths = np.empty(0)
        while lengths.sum() < duration_s:
            lengths = np.concatenate([lengths, np.ravel(rng.standard_exponential((block, 2)) * means)])
        ends = np.cumsum(lengths)
        ends = np.append(ends[ends < duration_s], duration_s)
        return ends, np.resize(rates, len(ends))


class Trace(OpenLoop, TraceFile):
    """Recorded arrivals: a column arrival_s and, where present, service_s and priority, or columns of other names."""

    kind: Literal["trace"]
    speedup: Positive = 1.0
    """Arrival times are divided by this; service times are not."""
    until: Literal["trace"] | None = None
    """`trace`: duration_s is the time of the trace's last arrival, as after `duration_s: trace`; null: a number."""

    @model_validator(mode="after")
    def _readable(self) -> Trace:
        try:
            self.data()
        except DataError as error:
            raise misfit(("file",), str(error)) from None
        return self

    def times(self, stream: Stream, duration_s: float, limit: int) -> Floats:
        times = self.data().arrival_s / self.speedup
        return times[times <= duration_s][:limit]

    def expected(self, duration_s: float) -> float:
        return float(np.searchsorted(self.data().arrival_s / self.speedup, duration_s, side="right"))

    def first_s(self) -> float:
        """The time of the first arrival."""
        return float(self.data().arrival_s[0] / self.speedup)

    def last_s(self, tasks: int | None = None) -> float:
        """The time of the last arrival, or of the last of so many tasks."""
        return float(self.data().arrival_s[:tasks][-1] / self.speedup)


class Closed(Strict):
    """Clients that think, submit one task, wait for its result, and think again."""

    kind: Literal["closed"]
    clients: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many."""
    think: Distribution
    """Seconds before each submission, the first one included."""


Arrivals = Annotated[
    Annotated[Poisson, Tag("poisson")]
    | Annotated[Regular, Tag("constant")]
    | Annotated[OnOff, Tag("on_off")]
    | Annotated[Trace, Tag("trace")]
    | Annotated[Closed, Tag("closed")],
    Discriminator(tag_of),
]


class Priorities(Strict):
    """Shares of the tasks by priority; they sum to 1."""

    low: NonNegative = 0.0
    normal: NonNegative = 0.0
    high: NonNegative = 0.0
    urgent: NonNegative = 0.0

    @model_validator(mode="after")
    def _complete(self) -> Priorities:
        total = sum(self._given())
        if abs(total - 1) > 1e-6:
            raise misfit((), f"the shares sum to {total:g}, expected a sum of 1")
        return self

    def draw(self, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
        """`size` priority codes."""
        upper = np.cumsum(self._given())
        codes = np.searchsorted(upper / upper[-1], rng.random(size), side="right")
        return codes.astype(np.uint8)

    def _given(self) -> tuple[float, ...]:
        return self.low, self.normal, self.high, self.urgent


class Kind(Strict):
    """Tasks that are alike: what they have instead of the workload's own settings."""

    share: Positive | None = None
    """Their share of all tasks; the shares of all kinds sum to 1. Null where a trace tells each task's kind."""
    service: Distribution | None = None
    """Seconds that such a task runs at speed 1; null: as workload.service."""
    priority: Literal["low", "normal", "high", "urgent"] | None = None
    """The priority of all of them; null: as workload.priorities."""
    queue_timeout_s: Positive | None = None
    """As workload.queue_timeout_s, of these; null: as all."""
    execution_timeout_s: Positive | None = None
    """As workload.execution_timeout_s, of these; null: as all."""
    deadline_s: Positive | None = None
    """As workload.deadline_s, of these; null: as all."""


class Demands(NamedTuple):
    """Of tasks in their order: seconds at speed 1, priority codes 0 to 3, and positions in `Workload.kind_names()`."""

    service_s: Floats
    priority: NDArray[np.uint8]
    kind: NDArray[np.int32] | None
    """None without kinds."""


class Resubmit(Strict):
    """Clients that lose patience."""

    after_s: Positive
    """A task that is not settled so many seconds after it was last submitted is submitted again."""
    most: Count = 1
    """So many times at most."""
    keys: bool = True
    """Each task has a key, by which the coordinator knows it when it comes again. Without keys what comes again is
    another task, which is executed as well; its client takes the first result."""


class Workload(Strict):
    """The tasks."""

    arrivals: Arrivals
    """When tasks arrive."""
    service: Distribution | None = None
    """Seconds that a task runs at speed 1; needed unless a trace brings its own service_s."""
    priorities: Priorities = Priorities(normal=1.0)
    """Shares by name; a trace's own column priority has precedence."""
    kinds: dict[str, Kind] = Field(default_factory=dict)
    """Kinds of tasks by name; those of a trace with columns.kind are in the trace."""
    tasks: Count | None = None
    """At most so many tasks; null: as many as arrive."""
    queue_timeout_s: Positive | None = None
    """A task fails that has not begun so many seconds after it was accepted; null: it waits for ever."""
    execution_timeout_s: Positive | None = None
    """Seconds of execution after which an attempt is given up; null: policies.execution_timeout_s."""
    deadline_s: Positive | None = None
    """A task fails that is not settled so many seconds after it was accepted; null: none does."""
    give_up_after_s: NonNegative | None = None
    """A task that is refused (coordinator.max_waiting) is submitted again, after pauses that grow, for so many seconds;
    then it counts as failed. Null: for ever."""
    resubmit: Resubmit | None = None
    """Which tasks are submitted again; null: none."""
    task: Literal["sleep", "spin", "prime"] = "sleep"
    """What a live worker does for a task's seconds."""

    @model_validator(mode="after")
    def _served(self) -> Workload:
        trace = self._trace()
        without = [name for name in self.kind_names() or ("",) if not self._serves(name)]
        if without and not self.served_by_trace:
            which = "a trace with a column service_s, or " if trace else ""
            whose = f" (kind {without[0]} has none of its own)" if without[0] else ""
            raise misfit(("service",), f"is missing, expected {which}a distribution of seconds{whose}", "key")
        return self

    @model_validator(mode="after")
    def _shared(self) -> Workload:
        trace, known = self._trace(), self.kind_names()
        in_trace = trace is not None and trace.kind is not None
        if len(self.kinds) > MOST_KINDS:
            raise misfit(("kinds",), f"has {len(self.kinds)} kinds, expected at most {MOST_KINDS}")
        for name, kind in self.kinds.items():
            if not is_kind(name):
                raise misfit(("kinds", name), f"is no name of a kind, expected {KIND_NAME}", "key")
            if name not in known:
                message = f"is no kind of the trace, expected one of {', '.join(known)}"
                raise misfit(("kinds", name), message, "key")
            if in_trace and kind.share is not None:
                raise misfit(("kinds", name, "share"), "is given, but the trace tells each task's kind, expected none")
            if not in_trace and kind.share is None:
                raise misfit(("kinds", name, "share"), "is missing, expected the share of these tasks", "key")
        total = sum(kind.share or 0.0 for kind in self.kinds.values())
        if self.kinds and not in_trace and abs(total - 1) > 1e-6:
            raise misfit(("kinds",), f"the shares sum to {total:g}, expected a sum of 1")
        return self

    def kind_names(self) -> tuple[str, ...]:
        """The names of the kinds of tasks; none where all are of one kind."""
        trace = self._trace()
        return trace.kinds if trace and trace.kinds else tuple(self.kinds)

    def limits_of(self, kind: str = "") -> TimeLimits | None:
        """The own limits of tasks of that kind; None for none."""
        own = self.kinds.get(kind, Kind())
        limits = [
            getattr(self, name) if getattr(own, name) is None else getattr(own, name) for name in TimeLimits._fields
        ]
        return None if limits == [None] * len(limits) else TimeLimits(*limits)

    def limits(self) -> dict[str, TimeLimits]:
        """By kind ("" without kinds), of those that have any."""
        found = {name: self.limits_of(name) for name in self.kind_names() or ("",)}
        return {name: limits for name, limits in found.items() if limits is not None}

    @property
    def served_by_trace(self) -> bool:
        """Whether a trace brings the service seconds, so that none are drawn."""
        trace = self._trace()
        return trace is not None and trace.has_service

    def mean_service_s(self, tasks: int | None = None) -> float:
        """Mean service seconds where they are drawn, of all kinds in their shares; of a trace's first so many tasks."""
        return float(sum(share * service.mean() for share, service in self.services(tasks)))

    def services(self, tasks: int | None = None) -> list[tuple[float, Distribution]]:
        """The same as distributions, each with its share of the tasks."""
        names, trace = self.kind_names(), self._trace()
        if not names:
            return [(1.0, self._service_of(""))]
        if trace and trace.kind is not None:
            counts = np.bincount(trace.kind[:tasks], minlength=len(names))
            shares = (counts / counts.sum()).tolist()
        else:
            shares = [self.kinds[name].share for name in names]
        return [(share, self._service_of(name)) for share, name in zip(shares, names, strict=True)]

    def traced(self, duration_s: float) -> int:
        """How many of a trace's arrivals are used; 0 without a trace."""
        if not isinstance(self.arrivals, Trace):
            return 0
        return int(min(self.arrivals.expected(duration_s), self.tasks or math.inf))

    def demands(self, arrivals: int, stream: Stream) -> Demands:
        """Of the first so many tasks of an open loop."""
        trace = self._trace() or TraceData(np.empty(0))
        given = None if trace.kind is None else trace.kind[:arrivals]
        drawn = Draws(self, stream, trace.has_service).take(arrivals, given)
        return Demands(
            drawn.service_s if trace.service_s is None else trace.service_s[:arrivals],
            drawn.priority if trace.priority is None else trace.priority[:arrivals],
            drawn.kind,
        )

    def _trace(self) -> TraceData | None:
        return self.arrivals.data() if isinstance(self.arrivals, Trace) else None

    def _serves(self, name: str) -> bool:
        own = self.kinds.get(name)
        return self.service is not None or (own is not None and own.service is not None)

    def _service_of(self, name: str) -> Distribution:
        own = self.kinds.get(name)
        service = own.service if own and own.service else self.service
        assert service is not None
        return service


class Draws:
    """Kinds, service seconds and priorities of tasks, block after block, each from a stream of its own.

    What a kind has of its own is drawn for every task and used for those of the kind, so that no task depends on
    the kinds of others. `served`: the service seconds are known, and none are drawn.
    """

    def __init__(self, workload: Workload, stream: Stream, served: bool = False) -> None:
        self._workload = workload
        self._service = None if served else workload.service
        self._service_rng, self._priority_rng = stream("service"), stream("priority")
        self._kind_rng = stream("kind")
        kinds = [workload.kinds.get(name, Kind()) for name in workload.kind_names()]
        self._upper = np.cumsum([kind.share or 0.0 for kind in kinds])
        self._own = [
            (code, kind, None if served else kind.service, stream("service", "kind", code))
            for code, kind in enumerate(kinds)
        ]

    def take(self, size: int, kind: NDArray[np.int32] | None = None) -> Demands:
        """The next `size` tasks; `kind`: of each one, where it is known."""
        service_s = np.zeros(size) if self._service is None else self._service.sample(self._service_rng, size)
        priority = self._workload.priorities.draw(self._priority_rng, size)
        if not self._own:
            return Demands(service_s, priority, None)
        if kind is None:
            places = np.searchsorted(self._upper / self._upper[-1], self._kind_rng.random(size), side="right")
            kind = places.astype(np.int32)
        for code, own, service, rng in self._own:
            mine = kind == code
            if service is not None:
                service_s = np.where(mine, service.sample(rng, size), service_s)
            if own.priority is not None:
                priority[mine] = PRIORITIES.index(own.priority)
        return Demands(service_s, priority, kind)


def unit_poisson(rng: np.random.Generator, span: float, limit: int) -> Floats:
    """The points of a Poisson process of rate 1 in [0, span], the first `limit` of them at most."""
    block = int(min(limit, 16 + span + 6 * span**0.5))
    gaps = rng.standard_exponential(block)
    # Summed from the start each time, so that no point depends on where the blocks end.
    while (points := np.cumsum(gaps))[-1] <= span and len(points) < limit:
        gaps = np.concatenate([gaps, rng.standard_exponential(block)])
    return points[: np.searchsorted(points, span, side="right")][:limit]
