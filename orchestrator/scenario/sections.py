"""The sections of a scenario that have no file of their own: cluster, coordinator, network, live runs, models."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from orchestrator.policies.config import Count, NonNegative, Positive, Probability, Strict
from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.loading import Misfit
from orchestrator.scenario.validation import misfits

MAX_WORKERS = 1_000_000


def _prefetch(value: Any) -> Any:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if not is_count and value != "unlimited":
        raise ValueError(f"is {value!r}, expected a whole number of at least 0, or unlimited")
    return value


WorkerCount = Annotated[int, Field(ge=1, le=MAX_WORKERS)]
Prefetch = Annotated[int | Literal["unlimited"], BeforeValidator(_prefetch)]


class WorkerSettings(Strict):
    """What all workers of a group have in common."""

    workers: WorkerCount
    """How many."""
    capacity: Annotated[int, Field(ge=1, le=1_000_000)] = 2
    """Execution slots of each worker."""
    prefetch: Prefetch = 0
    """Attempts that a worker may hold beyond its slots: 0 is late binding, `unlimited` queues at the workers."""
    speed: Positive = 1.0
    """Service times are divided by this."""


class Group(WorkerSettings):
    """Workers that are alike."""

    name: Annotated[str, Field(min_length=1)]
    """The group's name in plots."""


class Overhead(Strict):
    """What the simulated cluster adds to the work itself."""

    overhead: Distribution | None = None
    """Seconds added to every simulated execution, whatever the worker's speed; null: none."""


class FlatCluster(Overhead, WorkerSettings):
    """One group of workers w1, w2, ..."""

    @property
    def groups(self) -> list[Group]:
        """The cluster as a list of one group."""
        return [Group(name="workers", **self.model_dump(include=set(WorkerSettings.model_fields)))]


class GroupedCluster(Overhead):
    """Workers w1, w2, ... in groups, numbered through."""

    groups: Annotated[list[Group], Field(min_length=1)]
    """The groups, in the order of their workers' numbers."""

    @model_validator(mode="before")
    @classmethod
    def _either(cls, value: Any) -> Any:
        beside = [key for key in value if key in WorkerSettings.model_fields] if isinstance(value, dict) else []
        if beside:
            message = "stands beside groups, expected it in each of the groups, or no groups"
            raise misfits([Misfit((key,), message, "key") for key in beside])
        return value

    @model_validator(mode="after")
    def _sound(self) -> Self:
        found = []
        names = [group.name for group in self.groups]
        for i, name in enumerate(names):
            if name in names[:i]:
                message = f'is "{name}" like group {names.index(name) + 1}, expected a name of its own'
                found.append(Misfit(("groups", i, "name"), message))
        total = sum(group.workers for group in self.groups)
        if total > MAX_WORKERS:
            message = f"has {total:,} workers in all, expected at most {MAX_WORKERS:,}"
            found.append(Misfit(("groups",), message))
        if found:
            raise misfits(found)
        return self


def _cluster_tag(value: Any) -> str:
    grouped = "groups" in value if isinstance(value, dict) else isinstance(value, GroupedCluster)
    return "grouped" if grouped else "flat"


Cluster = Annotated[
    Annotated[FlatCluster, Tag("flat")] | Annotated[GroupedCluster, Tag("grouped")],
    Discriminator(_cluster_tag),
]


class Coordinator(Strict):
    """The coordinator itself: its own cost, its store, and how much it takes."""

    cost_s: NonNegative = 0.0
    """Seconds of its own time per message; messages wait for each other (a serial server)."""
    max_waiting: Count | None = None
    """When so many tasks wait, a submission is refused: one of low priority when half as many wait, of normal priority
    at three quarters, of high priority at seven eighths. Its client submits it again; null: none is refused."""
    commit: Distribution | None = None
    """How long it takes to store a group of changes, in seconds: what depends on a change leaves when it is stored, and
    what gathers meanwhile is the next group. null: nothing is stored, and a crash of the coordinator would lose all."""


class MessageKinds(Strict):
    """One-way delays of single kinds of message; null: as all others."""

    submit: Distribution | None = None
    """Of a task, from its client to the coordinator."""
    assign: Distribution | None = None
    """Of an assignment, from the coordinator to the worker."""
    result: Distribution | None = None
    """Of a result, from the worker to the coordinator."""
    heartbeat: Distribution | None = None
    """Of a heartbeat."""


class Network(Strict):
    """What happens to every message between coordinator and workers."""

    delay: Distribution = Constant(kind="constant", value_s=0.0)
    """One-way delay of a message."""
    message_kinds: MessageKinds = MessageKinds()
    """Delays of single kinds of message, instead of `delay`."""
    loss: Probability = 0.0
    """Probability that a message is lost."""
    duplicate: Probability = 0.0
    """Probability that a message arrives twice."""
    rpc_timeout_s: Positive = 2.0
    """After so many seconds the sender of a lost assignment or result notices; nobody misses a heartbeat."""

    def delay_of(self, message_kind: str) -> Distribution:
        """The one-way delay of that kind of message."""
        return getattr(self.message_kinds, message_kind, None) or self.delay


class Live(Strict):
    """Settings of live runs."""

    workers_per_process: Count = 1
    """How many workers share a process."""


class ModelNetwork(Strict):
    """What a model may say of the network."""

    delay: Distribution | None = None
    message_kinds: MessageKinds = MessageKinds()


class Model(Strict):
    """A calibrated model: parameters of the simulated world as they were fitted to a run."""

    coordinator: Coordinator = Coordinator()
    network: ModelNetwork = ModelNetwork()
    cluster: Overhead = Overhead()
    calibration: dict[str, Any] = Field(default_factory=dict)
    """What it was fitted to and how well: for people."""
