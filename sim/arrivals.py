"""Who submits: an open stream that does not wait, or clients that think between their tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.core.model import Task
from orchestrator.scenario.plan import ClosedArrivals, OpenArrivals
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim.network import MessageKind
from sim.worker import Rank

if TYPE_CHECKING:
    from sim.world import World

_CHUNK = 4_096
Row = tuple[float, int, int, float]  # arrival at the coordinator, task, priority, demand


class Submissions:
    """Open arrivals: the times at which they reach the coordinator are known beforehand, so one event is enough."""

    def __init__(self, world: World, plan: OpenArrivals, scenario: Scenario, replication: int) -> None:
        self._world = world
        self._plan = plan
        world.due = len(plan)
        self._at_s, self._task = self._messages(scenario, replication)
        self._rows = self._chunks()
        self._accept = world.received(self._submit)
        self._schedule_next()

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival times, demands and priorities of all tasks, in the order of their ids."""
        return self._plan.arrival_s, self._plan.service_s, self._plan.priority

    def _messages(self, scenario: Scenario, replication: int) -> tuple[np.ndarray, np.ndarray]:
        """When which task reaches the coordinator: a lost message is sent again after the timeout of a call."""
        network, n = scenario.network, len(self._plan)
        delay = network.delay_of("submit")

        def rng(name: str) -> np.random.Generator:
            return generator(scenario.seed, replication, name, "submit")

        at = self._plan.arrival_s + delay.sample(rng("delay"), n)
        tasks = np.arange(n)
        if network.loss:
            at += network.rpc_timeout_s * (rng("loss").geometric(1 - network.loss, n) - 1)
        if network.duplicate:
            copies = np.flatnonzero(rng("duplicate").random(n) < network.duplicate)
            delays = delay.sample(rng("copy"), len(copies))
            at = np.concatenate([at, self._plan.arrival_s[copies] + delays])
            tasks = np.concatenate([tasks, copies])
        order = np.lexsort((tasks, at))
        return at[order], tasks[order]

    def _chunks(self) -> Iterator[Row]:
        for low in range(0, len(self._at_s), _CHUNK):
            tasks = self._task[low : low + _CHUNK]
            yield from zip(
                self._at_s[low : low + _CHUNK].tolist(),
                tasks.tolist(),
                self._plan.priority[tasks].tolist(),
                self._plan.service_s[tasks].tolist(),
                strict=True,
            )

    def _schedule_next(self) -> None:
        row = next(self._rows, None)
        if row is not None:
            self._world.env.call_at(row[0], Rank.SUBMIT + row[1], self._arrive, row)

    def _arrive(self, row: Row) -> None:
        self._schedule_next()
        self._accept(row)

    def _submit(self, row: Row) -> None:
        self._world.coordinator.submit(row[1], row[2], row[3], self._world.env._now)


class Clients:
    """Closed arrivals: each client thinks, submits, waits for the result, and thinks again, until time is over."""

    def __init__(self, world: World, plan: ClosedArrivals, scenario: Scenario, replication: int) -> None:
        self._world = world
        self._until_s = scenario.duration_s
        self._limit = scenario.workload.tasks
        self._message_kind = MessageKind(scenario.network, scenario.seed, replication, "submit")
        self._answer_s = MessageKind(scenario.network, scenario.seed, replication, "answer").delay
        self._rpc_timeout_s = scenario.network.rpc_timeout_s
        self._draws = [plan.client(number) for number in range(plan.clients)]
        self._client_of: list[int] = []
        self._arrival_s: list[float] = []
        self._service_s: list[float] = []
        self._priority: list[int] = []
        self._accept = world.received(self._submit)
        for client in range(plan.clients):
            self._think(client, 0.0)

    def settled(self, task: Task, now: float) -> None:
        assert isinstance(task.id, int)
        self._think(self._client_of[task.id], now + self._answer_s())

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Arrival times, demands and priorities of all tasks, in the order of their ids."""
        return np.array(self._arrival_s), np.array(self._service_s), np.array(self._priority, dtype=np.uint8)

    def _think(self, client: int, since: float) -> None:
        think_s, service_s, priority = next(self._draws[client])
        at = since + think_s
        if at < self._until_s:
            self._world.env.call_at(at, Rank.ARRIVE + client, self._arrive, (client, service_s, priority))

    def _arrive(self, event: tuple[int, float, int]) -> None:
        client, service_s, priority = event
        task, now = len(self._client_of), self._world.now
        if self._limit is not None and task >= self._limit:
            return
        self._world.due += 1
        self._client_of.append(client)
        self._arrival_s.append(now)
        self._service_s.append(service_s)
        self._priority.append(priority)
        at = now + self._message_kind.delay()
        while self._message_kind.lost():
            at += self._rpc_timeout_s
        self._world.env.call_at(at, Rank.SUBMIT + 2 * task, self._accept, task)
        if self._message_kind.duplicated():
            self._world.env.call_at(now + self._message_kind.delay(), Rank.SUBMIT + 2 * task + 1, self._accept, task)

    def _submit(self, task: Any) -> None:
        self._world.coordinator.submit(task, self._priority[task], self._service_s[task], self._world.now)
