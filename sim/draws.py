"""What chance does to an attempt: its overhead, and the delays and fates of the messages that every attempt has.

These numbers belong to the task and to the number of the attempt, not to the order in which attempts are made. Runs
that share a seed, but not a policy or a fault, then differ by that policy or fault alone (common random numbers). Those
of a first attempt are drawn with its task, and travel in its payload at the coordinator. Those of later attempts, which
are few, are drawn in blocks of tasks when the first of a block needs them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from orchestrator.core.model import Attempt
from orchestrator.scenario.distributions import Constant, Distribution
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import Stream, generator
from sim.network import ByTask, Fate, mishaps

_CLIENT_BLOCK = 64


class Fates(NamedTuple):
    """Of an assignment, of its report and of the news of its start, where messages are lost or repeated: whether it is
    lost, and after how many seconds its copy arrives, NaN without one."""

    assign_lost: bool
    assign_copy_s: float
    result_lost: bool
    result_copy_s: float
    start_lost: bool


Draws = tuple[float, float, float, float, float, Fates | None]
"""A task's demand; then of one attempt the overhead, the delays of its assignment, of its report and of the news of its
start, and the fates of these, None where every message arrives once. A mere tuple, because every task makes one."""


class DrawsOfKind(tuple[float, float, float, float, float, Fates | None]):
    """The same, of a task that has a kind: what hedging compares, in both worlds."""

    kind: str

    def __new__(cls, draws: Draws, kind: str) -> DrawsOfKind:
        told = super().__new__(cls, draws)
        told.kind = kind
        return told


def fates_of(draws: Draws) -> tuple[Fate, Fate, Fate]:
    """What becomes of an attempt's assignment, of its report and of the news of its start, on a network in order."""
    _, _, assign_s, result_s, start_s, fates = draws
    if fates is None:
        return (assign_s, None), (result_s, None), (start_s, None)
    return (
        (None if fates.assign_lost else assign_s, None if math.isnan(fates.assign_copy_s) else fates.assign_copy_s),
        (None if fates.result_lost else result_s, None if math.isnan(fates.result_copy_s) else fates.result_copy_s),
        (None if fates.start_lost else start_s, None),
    )


class AttemptDraws:
    """The draws of one run."""

    def __init__(self, scenario: Scenario, replication: int) -> None:
        network = scenario.network
        self._stream: Stream = partial(generator, scenario.seed, replication)
        self._loss, self._duplicate = network.loss, network.duplicate
        overhead = scenario.cluster.overhead or Constant(kind="constant", value_s=0.0)
        self._assign, self._result = network.delay_of("assign"), network.delay_of("result")
        # Only a worker with prefetch tells when it starts.
        tells = any(group.prefetch for group in scenario.cluster.groups)
        self._of: dict[tuple[str, ...], Distribution] = {
            ("overhead",): overhead,
            ("delay", "assign"): self._assign,
            ("delay", "result"): self._result,
            ("delay", "start"): network.delay_of("start") if tells else Constant(kind="constant", value_s=0.0),
        }
        self._later = ByTask(self._stream, lambda rng, n: list(_rows(self._columns(lambda *_: rng, n))))
        self._by_chance = bool(self._loss or self._duplicate) or not all(
            isinstance(one, Constant) for one in self._of.values()
        )

    def of_tasks(self, service_s: np.ndarray) -> Columns:
        """Of the first attempts of all tasks of an open stream, which have these demands."""
        return Columns(service_s, *self._columns(self._stream, len(service_s)))

    def of_client(self, client: int) -> Iterator[tuple[Any, ...]]:
        """The same without the demands, endless: of the tasks of one closed client, in its own order."""

        streams: dict[tuple[str | int, ...], np.random.Generator] = {}

        def named(*name: str | int) -> np.random.Generator:
            if name not in streams:
                streams[name] = self._stream(*name, "client", client)
            return streams[name]

        while True:
            yield from _rows(self._columns(named, _CLIENT_BLOCK))

    def of(self, attempt: Attempt) -> Draws:
        """Of an attempt that is not its task's first, whose payload holds those of the first."""
        draws: Draws = attempt.task.payload  # type: ignore[assignment]
        if not self._by_chance:
            return draws
        return (draws[0], *self._later.of(attempt.task.id, attempt.number))

    def again(self, task: int, payload: Draws) -> Draws:
        """Of the first attempt of a task that is the work of another one, whose payload is given, once more."""
        if not self._by_chance:
            return payload
        draws: Draws = (payload[0], *self._later.of(task, 1))
        return DrawsOfKind(draws, payload.kind) if isinstance(payload, DrawsOfKind) else draws

    def _columns(self, stream: Stream, n: int) -> tuple[Column, Column, Column, Column, list[np.ndarray] | None]:
        overhead, assign, result, start = (
            one.value_s if isinstance(one, Constant) else one.sample(stream(*name), n) for name, one in self._of.items()
        )
        if not self._loss and not self._duplicate:
            return overhead, assign, result, start, None
        never, nothing = np.zeros(n, dtype=np.bool_), np.full(n, np.nan)
        fates = []
        for name, delay in (("assign", self._assign), ("result", self._result)):
            lost, copy_s = mishaps(delay, self._loss, self._duplicate, lambda what, name=name: stream(what, name), n)
            fates += [never if lost is None else lost, nothing if copy_s is None else copy_s]
        lost, _ = mishaps(self._assign, self._loss, 0.0, lambda what: stream(what, "start"), n)
        return overhead, assign, result, start, [*fates, never if lost is None else lost]


Column = float | np.ndarray
"""Of all tasks: one number, where it is the same for all."""


class Columns(NamedTuple):
    """Of all tasks of an open stream."""

    service_s: np.ndarray
    overhead_s: Column
    assign_s: Column
    result_s: Column
    start_s: Column
    fates: list[np.ndarray] | None

    def payloads(self, tasks: np.ndarray) -> Iterable[Draws]:
        """Of these tasks."""
        return zip(
            self.service_s[tasks].tolist(),
            _items(self.overhead_s, tasks),
            _items(self.assign_s, tasks),
            _items(self.result_s, tasks),
            _items(self.start_s, tasks),
            _fates(self.fates, tasks),
            strict=False,
        )


def _rows(columns: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Of each attempt its own; `columns` as `AttemptDraws._columns` gives them, of which one is not a constant."""
    everything = slice(None)
    numbers = (_items(column, everything) for column in columns[:-1])
    return zip(*numbers, _fates(columns[-1], everything), strict=False)


def _items(column: Column, tasks: Any) -> Iterable[float]:
    return column[tasks].tolist() if isinstance(column, np.ndarray) else repeat(column)


def _fates(columns: list[np.ndarray] | None, tasks: Any) -> Iterable[Fates | None]:
    if columns is None:
        return repeat(None)
    assign_lost, assign_copy_s, result_lost, result_copy_s, start_lost = columns = [column[tasks] for column in columns]
    hit = np.flatnonzero(
        assign_lost | result_lost | start_lost | ~np.isnan(assign_copy_s) | ~np.isnan(result_copy_s)
    ).tolist()
    fates: list[Fates | None] = [None] * len(assign_lost)
    for place, *fate in zip(hit, *(column[hit].tolist() for column in columns), strict=True):
        fates[place] = Fates(*fate)
    return fates
