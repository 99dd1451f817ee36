"""The scenario: one strict schema for both worlds, loaded from YAML; its errors name file, line, column and key.

Seconds everywhere. `Scenario.load` reads a file and applies overrides; `cells` spans the grid of its sweep;
`dump` writes it resolved, so that it loads again to an equal scenario from any directory.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from orchestrator.policies.config import Count, NonNegative, Positive, Probability, Strict
from orchestrator.policies.detection import TimeoutConfig
from orchestrator.policies.settings import Policies
from orchestrator.scenario.datafiles import DataFile
from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.faults import Fault, FaultConfig, WorkerFault
from orchestrator.scenario.loading import (
    Document,
    KeyPath,
    Misfit,
    ParseError,
    Problem,
    ScenarioError,
    dotted,
    parse,
    read_document,
    to_yaml,
    undotted,
)
from orchestrator.scenario.validation import assign, explain, misfits
from orchestrator.scenario.workload import Closed, Trace, Workload

__all__ = ["Cell", "Group", "Problem", "Scenario", "ScenarioError", "json_schema"]

MAX_WORKERS = 1_000_000
MAX_CELLS = 10_000
MAX_DRAWS = 100_000_000


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
    """The coordinator's own cost."""

    cost_s: NonNegative = 0.0
    """Seconds of its own time per message; messages wait for each other (a serial server)."""


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


class Scenario(Strict):
    """One experiment."""

    name: Annotated[str, Field(min_length=1)]
    """What it is called in tables and plots."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random stream."""
    duration_s: Positive
    """Arrivals stop here."""
    warmup_s: NonNegative = 0.0
    """Latency statistics leave out the arrivals before."""
    drain_s: NonNegative | None = None
    """How long to wait afterwards for what is not settled; null: until all is."""
    workload: Workload
    """The tasks."""
    cluster: Cluster
    """The workers."""
    coordinator: Coordinator = Coordinator()
    """The coordinator's own cost."""
    network: Network = Network()
    """Delay, loss and duplication of messages."""
    policies: Policies = Policies()
    """The coordinator's decisions."""
    faults: list[FaultConfig] = Field(default_factory=list)
    """What goes wrong, and when."""
    live: Live = Live()
    """Settings of live runs."""
    model: DataFile | None = None
    """A calibrated model file. Its values stand below the scenario's own; once it is read, they are the scenario's
    and the file is no longer named."""
    sweep: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to try, by dotted key; a run for every combination."""
    replications: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Runs with different chance, for confidence intervals."""

    @model_validator(mode="before")
    @classmethod
    def _modelled(cls, tree: Any) -> Any:
        file = tree.get("model") if isinstance(tree, dict) else None
        if not isinstance(file, str) or not os.path.isfile(file):
            return tree
        return _completed({**tree, "model": None}, _read_model(file))

    @model_validator(mode="after")
    def _sound(self) -> Self:
        found = [*self._times(), *self._sizes(), *self._victims()]
        if found:
            raise misfits(found)
        return self

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file, with overrides `key=value`; ScenarioError tells all that is wrong.

        Policies of the user's own are imported from the current directory and from the scenario's; files named
        in the scenario are looked for beside it and then in the current directory, those in overrides the other
        way round.
        """
        path = Path(path)
        here, beside = os.getcwd(), os.path.abspath(path.parent)
        sys.path.extend(place for place in dict.fromkeys((here, beside)) if place not in sys.path)
        document = read_document(path)
        document.tree = _absolute(document.tree, (), (beside, here))
        problems = [problem for text in overrides for problem in _override(cls, document, text, (here, beside))]
        if problems:
            raise ScenarioError(problems)
        try:
            scenario = cls.model_validate(document.tree)
        except ValidationError as error:
            found = explain(error, cls, document.tree)
        else:
            found = scenario._broken_cells()
            if not found:
                return scenario
        raise ScenarioError([document.problem(misfit) for misfit in found])

    def dump(self) -> str:
        """The resolved scenario as YAML; loading it gives an equal scenario."""
        return to_yaml(self.model_dump())

    def worker_names(self) -> list[str]:
        """w1, w2, ... through all groups."""
        return [f"w{number}" for number in range(1, self._workers() + 1)]

    def victims(self, fault: Fault) -> list[str]:
        """The workers from which a fault takes its own, all that it hits unless it says `count`."""
        if not isinstance(fault, WorkerFault):
            return []
        if fault.workers is not None:
            return list(dict.fromkeys(fault.workers))
        names = iter(self.worker_names())
        members = {group.name: list(itertools.islice(names, group.workers)) for group in self.cluster.groups}
        return members.get(fault.group, []) if fault.group is not None else list(itertools.chain(*members.values()))

    def cells(self) -> list[Cell]:
        """The grid of the sweep in the order of its keys and values; without a sweep one cell, `base`."""
        if not self.sweep:
            return [Cell("base", {}, self)]
        points = self._grid()
        return [
            Cell(name, values, self.model_validate(self._tree_of(values)))
            for name, values in zip(_names(points), points, strict=True)
        ]

    def offered_load(self) -> float | None:
        """Offered load: work that arrives per second over what all slots do per second.

        Of a trace: the work of its arrivals over their span. Of a closed loop: the load if no task ever waited,
        clients * S / (Z + S) tasks in service, at most 1 (a closed loop can't offer more). None without a span.
        """
        slots = sum(group.workers * group.capacity * group.speed for group in self.cluster.groups)
        arrivals, service = self.workload.arrivals, self.workload.service
        if isinstance(arrivals, Trace):
            return self._trace_load(arrivals, slots)
        assert service is not None
        if isinstance(arrivals, Closed):
            cycle_s = arrivals.think.mean() + service.mean()
            return min(1.0, arrivals.clients * service.mean() / cycle_s / slots) if cycle_s else 1.0
        return arrivals.expected(self.duration_s) / self.duration_s * service.mean() / slots

    def warnings(self) -> list[str]:
        """What is allowed and probably not meant, a sentence each."""
        return [*self._load_warnings(), *self._fault_warnings(), *self._detection_warnings()]

    def _workers(self) -> int:
        return sum(group.workers for group in self.cluster.groups)

    def _times(self) -> Iterator[Misfit]:
        if self.warmup_s >= self.duration_s:
            yield Misfit(("warmup_s",), f"is {self.warmup_s:g}, expected less than duration_s ({self.duration_s:g})")

    def _sizes(self) -> Iterator[Misfit]:
        """What would take all memory and never end."""
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
                message = f"would strike {injections:.3g} times, expected at most {MAX_DRAWS // 10:,}"
                yield Misfit(("faults", i, "mtbf_s" if fault.mtbf_s else "every_s"), message)

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

    def _grid(self) -> list[dict[str, Any]]:
        return [dict(zip(self.sweep, values, strict=True)) for values in itertools.product(*self.sweep.values())]

    def _tree_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """This scenario with some values in place, and no sweep, as a tree that may not fit the schema."""
        tree = self.model_dump(exclude={"sweep"})
        for key, value in values.items():
            assign(type(self), tree, undotted(key), copy.deepcopy(value))
        return tree

    def _broken_cells(self) -> list[Misfit]:
        """What is wrong with the sweep, told at its own keys and values."""
        cells = math.prod(map(len, self.sweep.values()))
        if cells > MAX_CELLS:
            return [Misfit(("sweep",), f"has {cells:,} combinations, expected at most {MAX_CELLS:,}", "key")]
        found: dict[tuple[KeyPath, str], Misfit] = {}
        for key in self.sweep:
            if misfit := self._unsweepable(key):
                found[misfit.path, misfit.message] = misfit
        if not found and self.sweep:
            for indices in itertools.product(*(range(len(values)) for values in self.sweep.values())):
                for misfit in self._broken_cell(dict(zip(self.sweep, indices, strict=True))):
                    found.setdefault((misfit.path, misfit.message), misfit)
        return list(found.values())

    def _unsweepable(self, key: str) -> Misfit | None:
        try:
            path = undotted(key)
            if path[0] in ("model", "replications", "sweep"):
                raise Misfit(path, "cannot be swept, expected a key of one run", "key")
            self._tree_of({key: None})
        except Misfit as misfit:
            return Misfit(("sweep", key), misfit.message, "key")
        return None

    def _broken_cell(self, indices: Mapping[str, int]) -> Iterator[Misfit]:
        tree = self._tree_of({key: self.sweep[key][index] for key, index in indices.items()})
        try:
            type(self).model_validate(tree)
        except ValidationError as error:
            for misfit in explain(error, type(self), tree):
                key = max(indices, key=lambda key: _common(undotted(key), misfit.path))
                swept = undotted(key)
                if misfit.place == "key" and misfit.path == swept[: len(misfit.path)]:
                    yield Misfit(("sweep", key), misfit.message, "key")
                    continue
                inside = "" if misfit.path == swept else f"{dotted(misfit.path)}: "
                yield Misfit(("sweep", key, indices[key]), inside + misfit.message)

    def _trace_load(self, trace: Trace, slots: float) -> float | None:
        data = trace.data()
        arrived = int(min(trace.expected(self.duration_s), self.workload.tasks or math.inf))
        if not arrived or not data.arrival_s[arrived - 1]:
            return None
        span_s = float(data.arrival_s[arrived - 1]) / trace.speedup
        if data.service_s is not None:
            return float(data.service_s[:arrived].sum()) / span_s / slots
        assert self.workload.service is not None
        return arrived * self.workload.service.mean() / span_s / slots

    def _load_warnings(self) -> Iterator[str]:
        workload = self.workload
        offered_load = self.offered_load()
        if offered_load is not None and offered_load > 1:
            yield (
                f"offered load is {offered_load:.3g}: more work arrives than all workers can do, "
                "so the queue grows until duration_s and latencies depend on how long the run is"
            )
        if isinstance(workload.arrivals, Trace):
            data, used = workload.arrivals.data(), int(workload.arrivals.expected(self.duration_s))
            if used < len(data.arrival_s):
                yield (
                    f"{len(data.arrival_s) - used} of the trace's {len(data.arrival_s)} arrivals "
                    f"come after duration_s ({self.duration_s:g}) and are left out"
                )
            if data.has_service and workload.service is not None:
                yield "workload.service is not used: the trace has its own service_s"
        limit_s, service = self.policies.execution_timeout_s, workload.service
        slowest = min(group.speed for group in self.cluster.groups)
        if limit_s is not None and service is not None and service.mean() / slowest >= limit_s:
            yield (
                f"policies.execution_timeout_s ({limit_s:g}) is not above the mean execution "
                f"({service.mean() / slowest:g} s): most tasks are given up, and each retry runs as long again"
            )

    def _fault_warnings(self) -> Iterator[str]:
        for i, fault in enumerate(self.faults):
            if fault.at_s is not None and fault.at_s > self.duration_s:
                yield (
                    f"faults[{i}].at_s ({fault.at_s:g}) is after duration_s ({self.duration_s:g}): "
                    "it strikes only if tasks are still open then"
                )

    def _detection_warnings(self) -> Iterator[str]:
        detection = self.policies.detection
        if not isinstance(detection, TimeoutConfig):
            return
        beat_s, limit_s = detection.heartbeat_s, detection.timeout_s
        beats = limit_s / beat_s
        if beats < 1:
            yield (
                f"policies.detection.timeout_s ({limit_s:g}) is below heartbeat_s ({beat_s:g}): "
                "every healthy worker is convicted between two heartbeats"
            )
        elif math.isclose(beats, round(beats)) and self.network.delay_of("heartbeat").cv2() > 0:
            yield (
                f"policies.detection.timeout_s ({limit_s:g}) is exactly {round(beats)} times heartbeat_s "
                f"({beat_s:g}), a knife-edge: the network's jitter decides whether a heartbeat due just then counts"
            )


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of a sweep: a name fit for a directory, the swept values by key, the scenario to run."""

    name: str
    values: dict[str, Any]
    scenario: Scenario


def json_schema() -> dict[str, Any]:
    """The scenario's JSON Schema (draft 2020-12), for editors of YAML."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Scenario"}


def _read_model(file: str) -> dict[str, Any]:
    """The values of a model file. ScenarioError tells what is wrong, at its place in that file."""
    document = read_document(Path(file))
    document.tree = _absolute(document.tree, (), (os.path.dirname(os.path.abspath(file)), os.getcwd()))
    try:
        Model.model_validate(document.tree)
    except ValidationError as error:
        raise ScenarioError([document.problem(misfit) for misfit in explain(error, Model, document.tree)]) from None
    return {key: value for key, value in document.tree.items() if key != "calibration"}


def _completed(own: Any, below: Any) -> Any:
    """`own`, and what is `below` it where it says nothing, or null. A mapping with a kind is one value."""
    if own is None:
        return below
    if not (isinstance(own, dict) and isinstance(below, dict)) or "kind" in own:
        return own
    return {**below, **{key: _completed(value, below.get(key)) for key, value in own.items()}}


def _override(model: type[Scenario], document: Document, text: str, roots: Sequence[str]) -> Iterator[Problem]:
    """Apply one `key=value` to the document; what keeps it from being applied is a problem."""
    key, equals, value_text = text.partition("=")
    try:
        if not equals:
            raise Misfit((key,), "is no override, expected key=value", "key")
        path = undotted(key.strip())
        value, _ = parse(value_text)
        assign(model, document.tree, path, _absolute(value, path, roots))
        document.override(path)
    except Misfit as misfit:
        yield document.problem(misfit)
    except ParseError as error:
        yield document.problem(Misfit(path, str(error), "key"))


def _absolute(value: Any, path: KeyPath, roots: Sequence[str]) -> Any:
    """A tree whose names of existing files are absolute, looked for from each of the roots in turn."""
    if isinstance(value, dict):
        return {key: _absolute(item, (*path, key), roots) for key, item in value.items()}
    if isinstance(value, list):
        return [_absolute(item, (*path, i), roots) for i, item in enumerate(value)]
    if isinstance(value, str) and _names_a_file(path):
        candidates = (os.path.abspath(os.path.join(root, value)) for root in roots)
        return next(filter(os.path.isfile, candidates), value)
    return value


def _names_a_file(path: KeyPath) -> bool:
    keys = [key for key in re.split(r"[.\[\]]+", dotted(path).removeprefix("sweep.")) if not key.isdecimal()]
    keys = [key for key in keys if key]
    return keys == ["model"] or (keys[-1:] == ["file"] and keys[0] != "policies")


def _common(one: KeyPath, other: KeyPath) -> int:
    """How many leading keys two paths share."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each point of a grid, fit for a directory, no two alike: `timeout_s=2,routing=random`."""
    labels = _labels(list(points[0]))
    names: list[str] = []
    for point in points:
        text = ",".join(f"{labels[key]}={_word(value)}" for key, value in point.items())
        name = re.sub(r"[^\w.,=+-]+", "-", text)[:120]
        names.append(f"{name}-{len(names) + 1}" if name in names else name)
    return names


def _labels(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted key by its last part (of a kind, by what it is the kind of), or in full where two are alike."""
    parts = {key: key.removesuffix(".kind").split(".")[-1] for key in keys}
    labels = list(parts.values())
    return {key: label if labels.count(label) == 1 else key for key, label in parts.items()}


def _word(value: Any) -> str:
    if isinstance(value, dict):
        rest = [f"{key}={_word(item)}" for key, item in value.items() if key != "kind"]
        return "-".join([str(value["kind"]), *rest] if "kind" in value else rest)
    if isinstance(value, list):
        return "-".join(map(_word, value))
    if isinstance(value, str):
        return Path(value).name
    return "null" if value is None else str(value).lower()
