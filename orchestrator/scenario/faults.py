"""Faults: what goes wrong in a scenario, where, when and for how long. Both worlds inject the same faults.

A fault belongs to a layer of its worker: the process, the work in it, or one kind of network impairment. Faults of one
layer never overlap on a worker, but faults of different layers may. Faults of the work and of the network belong to the
host: they outlive the process, and a process that restarts there is affected again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from orchestrator.policies.config import Count, NonNegative, Positive, Probability, Strict, tag_of
from orchestrator.scenario.distributions import Constant, Distribution, DurationOrDistribution, Exponential
from orchestrator.scenario.loading import Misfit
from orchestrator.scenario.validation import misfits

FaultKind = Literal[
    "crash",
    "restart",
    "pause",
    "slow",
    "hang",
    "partition",
    "delay",
    "loss",
    "duplicate",
    "coordinator_pause",
    "coordinator_crash",
    "drain",
    "join",
]
Direction = Literal["both", "to_workers", "to_coordinator"]
Layer = Literal["process", "work", "partition", "delay", "loss", "duplicate", "coordinator"]


class Fault(Strict):
    """When something goes wrong."""

    at_s: NonNegative | None = None
    """Once, at this time."""
    every_s: Positive | None = None
    """Again and again: at every_s, 2 every_s, ... until duration_s."""
    mtbf_s: Positive | None = None
    """At random until duration_s: mean seconds of health between two faults, exponential."""

    @model_validator(mode="after")
    def _aimed(self) -> Self:
        found = list(self._misfits())
        if found:
            raise misfits(found)
        return self

    kind: FaultKind
    """Which fault it is."""

    def __str__(self) -> str:
        """As in `pause of w2 at 20 s`."""
        if self.at_s is not None:
            return f"{self.kind.replace('_', ' ')}{self._of_whom()} at {self.at_s:g} s"
        every = f"{self.every_s:g} s" if self.every_s is not None else f"{self.mtbf_s:g} s on average"
        return f"{self.kind.replace('_', ' ')}{self._of_whom()} every {every}"

    @property
    def layer(self) -> Layer:
        """Faults of one layer on one worker exclude each other."""
        return "process"

    def length(self) -> Distribution | None:
        """How long it lasts; None: until the end of the run, or there is nothing that could end."""
        return None

    def _of_whom(self) -> str:
        return ""

    def _misfits(self) -> Iterator[Misfit]:
        yield from self._one_of(("at_s", "every_s", "mtbf_s"), "a time")

    def _one_of(self, names: Sequence[str], what: str, needed: bool = True) -> Iterator[Misfit]:
        # By identity: a fault at 0 s has a time, though 0 equals False.
        given = [name for name in names if getattr(self, name) is not None and getattr(self, name) is not False]
        count = "exactly" if needed else "at most"
        choice = f"expected {count} one of {', '.join(names)}"
        if len(given) > 1:
            yield Misfit((given[1],), f"stands beside {given[0]}, {choice}", "key")
        elif needed and not given:
            yield Misfit((), f"has not {what}, {choice}", "key")

    @model_serializer(mode="wrap")
    def _only_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        given = dump(self)
        if not given.get("stagger_s"):
            given.pop("stagger_s", None)
        return {key: value for key, value in given.items() if value is not None and value is not False}


class WorkerFault(Fault):
    """Which workers it hits."""

    workers: Annotated[list[str], Field(min_length=1)] | None = None
    """The workers, by name."""
    count: Count | None = None
    """So many workers, chosen at random once for the whole run."""
    all: bool = False
    """Every worker."""
    group: str | None = None
    """Every worker of this group of the cluster, such as a rack."""
    stagger_s: NonNegative = 0.0
    """With at_s or every_s: each selected worker is hit so many seconds after the one before."""
    together: bool = False
    """With mtbf_s: all selected workers are hit at the same times and for as long; otherwise each at its own."""

    def _of_whom(self) -> str:
        if self.workers is not None:
            return f" of {', '.join(self.workers)}"
        return " of all workers" if self.all else f" of {self.count} workers" if self.count else f" of {self.group}"

    def _misfits(self) -> Iterator[Misfit]:
        yield from super()._misfits()
        yield from self._one_of(("workers", "count", "all", "group"), "a selection of workers")
        if self.together and self.mtbf_s is None:
            yield Misfit(("together",), "stands without mtbf_s: at a fixed time all are hit at once anyway", "key")
        if self.stagger_s and self.mtbf_s is not None:
            yield Misfit(("stagger_s",), "stands beside mtbf_s, expected at_s or every_s", "key")


class Lasting(Fault):
    """A fault that may end."""

    for_s: DurationOrDistribution | None = None
    """How long: seconds, or a distribution."""
    mttr_s: Positive | None = None
    """Mean seconds until it is over, exponential."""

    def length(self) -> Distribution | None:
        return self.for_s or (Exponential(kind="exponential", mean_s=self.mttr_s) if self.mttr_s else None)

    def _misfits(self) -> Iterator[Misfit]:
        yield from super()._misfits()
        yield from self._one_of(("for_s", "mttr_s"), "a length", needed=False)


class Ending(Lasting):
    """A fault that has to end."""

    def _misfits(self) -> Iterator[Misfit]:
        yield from Fault._misfits(self)
        yield from self._one_of(("for_s", "mttr_s"), "a length")


class Restarting(Fault):
    """A process dies with all it was doing, and another one comes in its place."""

    restart_after_s: NonNegative | None = None
    """Seconds until it is back."""
    mttr_s: Positive | None = None
    """Mean seconds until it is back, exponential."""

    def length(self) -> Distribution | None:
        if self.restart_after_s is not None:
            return Constant(kind="constant", value_s=self.restart_after_s)
        return Exponential(kind="exponential", mean_s=self.mttr_s) if self.mttr_s else None


class Crash(WorkerFault, Restarting):
    """The process dies with all it was doing; it restarts after restart_after_s or mttr_s, or never."""

    kind: Literal["crash"]

    def _misfits(self) -> Iterator[Misfit]:
        yield from super()._misfits()
        yield from self._one_of(("restart_after_s", "mttr_s"), "a length", needed=False)


class Restart(WorkerFault):
    """The process is told to leave, and finishes what it runs; grace_s later a new one starts in its place."""

    kind: Literal["restart"]
    grace_s: NonNegative = 5.0
    """Seconds after which an old process that has not left yet is killed."""

    def length(self) -> Distribution | None:
        return Constant(kind="constant", value_s=self.grace_s)


class Drain(WorkerFault):
    """The process is told to leave, finishes what it runs, and is gone until a `join`."""

    kind: Literal["drain"]


class Join(WorkerFault):
    """A new process starts. A worker whose first process fault is this one is not there until then."""

    kind: Literal["join"]


class Pause(WorkerFault, Ending):
    """The process stands still, as in a long garbage collection, and then goes on."""

    kind: Literal["pause"]


class OfWork(WorkerFault, Lasting):
    """Something is wrong with the work, but heartbeats go on: a gray failure."""

    @property
    def layer(self) -> Layer:
        return "work"


class Slow(OfWork):
    """The work goes on at a fraction of its speed; heartbeats go on."""

    kind: Literal["slow"]
    factor: Annotated[float, Field(gt=0, le=1)]
    """The speed is multiplied by this."""


class Hang(OfWork):
    """The work stands still; heartbeats go on."""

    kind: Literal["hang"]


class OfNetwork(WorkerFault, Lasting):
    """Something is wrong between a worker and the coordinator."""

    direction: Direction = "both"
    """Which messages it concerns."""

    @property
    def directions(self) -> tuple[Literal["to_workers", "to_coordinator"], ...]:
        """The same, one by one."""
        return ("to_workers", "to_coordinator") if self.direction == "both" else (self.direction,)


class Partition(OfNetwork):
    """No message passes."""

    kind: Literal["partition"]

    @property
    def layer(self) -> Layer:
        return "partition"


class Delay(OfNetwork):
    """Messages take longer."""

    kind: Literal["delay"]
    delay: DurationOrDistribution
    """Added to the one-way delay of each message: seconds, or a distribution."""

    @property
    def layer(self) -> Layer:
        return "delay"


class Loss(OfNetwork):
    """More messages are lost than the network loses anyway."""

    kind: Literal["loss"]
    probability: Probability
    """Probability that a message is lost."""

    @property
    def layer(self) -> Layer:
        return "loss"


class Duplicate(OfNetwork):
    """More messages arrive twice than the network repeats anyway."""

    kind: Literal["duplicate"]
    probability: Probability
    """Probability that a message arrives twice."""

    @property
    def layer(self) -> Layer:
        return "duplicate"


class CoordinatorPause(Ending):
    """The coordinator's process stands still, and then goes on."""

    kind: Literal["coordinator_pause"]

    @property
    def layer(self) -> Layer:
        return "coordinator"


class CoordinatorCrash(Restarting):
    """The coordinator's process dies with all that it had not stored; another one goes on from what is stored."""

    kind: Literal["coordinator_crash"]

    @property
    def layer(self) -> Layer:
        return "coordinator"

    def _misfits(self) -> Iterator[Misfit]:
        yield from super()._misfits()
        yield from self._one_of(("restart_after_s", "mttr_s"), "a length")


FaultConfig = Annotated[
    Annotated[Crash, Tag("crash")]
    | Annotated[Restart, Tag("restart")]
    | Annotated[Pause, Tag("pause")]
    | Annotated[Slow, Tag("slow")]
    | Annotated[Hang, Tag("hang")]
    | Annotated[Partition, Tag("partition")]
    | Annotated[Delay, Tag("delay")]
    | Annotated[Loss, Tag("loss")]
    | Annotated[Duplicate, Tag("duplicate")]
    | Annotated[CoordinatorPause, Tag("coordinator_pause")]
    | Annotated[CoordinatorCrash, Tag("coordinator_crash")]
    | Annotated[Drain, Tag("drain")]
    | Annotated[Join, Tag("join")],
    Discriminator(tag_of),
]
