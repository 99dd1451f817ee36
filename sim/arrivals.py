"""How tasks reach the coordinator through the simulated network: from an open stream, or from closed clients."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from functools import partial
from itertools import chain

import numpy as np

from orchestrator.core.coordinator import Coordinator
from orchestrator.scenario.driving import ClosedClients, Columns, OpenStream, RunEnd
from orchestrator.scenario.plan import ClosedArrivals, Demand, OpenArrivals
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.draws import AttemptDraws, Draws, DrawsOfKind
from sim.environment import Environment
from sim.inbox import Handler
from sim.network import MessageKind

_CHUNK = 4_096
_Row = tuple[float, int, int, int, Draws]  # arrival at the coordinator, key, task, priority, payload
_Message = tuple[int, int, Draws]  # task, priority, payload


class OpenSubmissions:
    """Open arrivals. The times at which they reach the coordinator are known beforehand. `unwanted`: tasks that their
    clients have given up; the network's copy of such a submission is nobody's."""

    def __init__(
        self,
        env: Environment,
        coordinator: Coordinator,
        received: Callable[[Handler], Handler],
        plan: OpenArrivals,
        scenario: Scenario,
        replication: int,
        end: RunEnd,
        draws: AttemptDraws,
        unwanted: Container[int],
    ) -> None:
        self._env = env
        self.coordinator = coordinator
        self._plan = plan
        self._end = end
        self._repeats: list[tuple[int, float]] = []  # whose work, and when
        self._first_attempts = draws.of_tasks(plan.service_s)
        self._at_s, self._task = self._messages(scenario, replication)
        self._limits = scenario.workload.limits()
        rows = chain.from_iterable(self._chunks())
        self._unwanted = unwanted
        plain = not self._limits and scenario.coordinator.max_waiting is None
        submit = self._submit if plain else self._submit_if_wanted
        OpenStream(rows, env.call_at, received(submit)).begin()

    def columns(self) -> Columns:
        """Of all tasks, in the order of their ids: those of the plan, and then those that are the work of one again."""
        plan, repeats = self._plan, self._repeats
        if not repeats:
            return plan.arrival_s, plan.service_s, plan.priority
        whose = np.array([task for task, _ in repeats])
        return (
            np.append(plan.arrival_s, [at_s for _, at_s in repeats]),
            np.append(plan.service_s, plan.service_s[whose]),
            np.append(plan.priority, plan.priority[whose]),
        )

    def kinds(self) -> list[str] | None:
        """The kind of each task; None without kinds."""
        told = self._plan.kinds_of(slice(None))
        return None if told is None else [*told, *(told[task] for task, _ in self._repeats)]

    def repeat(self, task: int, at_s: float) -> int:
        """Its client submits its work once more, as another task: its id."""
        self._end.submitted()
        self._repeats.append((task, at_s))
        return len(self._plan) + len(self._repeats) - 1

    def _messages(self, scenario: Scenario, replication: int) -> tuple[np.ndarray, np.ndarray]:
        """When which task reaches the coordinator. A lost message is sent again after the timeout of a call."""
        network, n = scenario.network, len(self._plan)
        delay = network.delay_of("submit")
        stream = partial(generator, scenario.seed, replication)
        at = self._plan.arrival_s + delay.sample(stream("delay", "submit"), n)
        tasks = np.arange(n)
        if network.loss:
            at += network.rpc_timeout_s * (stream("loss", "submit").geometric(1 - network.loss, n) - 1)
        if network.duplicate:
            copies = np.flatnonzero(stream("duplicate", "submit").random(n) < network.duplicate)
            delays = delay.sample(stream("copy", "submit"), len(copies))
            at = np.concatenate([at, self._plan.arrival_s[copies] + delays])
            tasks = np.concatenate([tasks, copies])
        order = np.lexsort((tasks, at))
        return at[order], tasks[order]

    def _chunks(self) -> Iterator[Iterable[_Row]]:
        for low in range(0, len(self._at_s), _CHUNK):
            tasks = self._task[low : low + _CHUNK]
            yield zip(
                self._at_s[low : low + _CHUNK].tolist(),
                (keys.submit_key(0) + tasks).tolist(),
                tasks.tolist(),
                self._plan.priority[tasks].tolist(),
                self._payloads(tasks),
                strict=True,
            )

    def _payloads(self, tasks: np.ndarray) -> Iterable[Draws]:
        drawn, kinds = self._first_attempts.payloads(tasks), self._plan.kinds_of(tasks)
        return drawn if kinds is None else map(DrawsOfKind, drawn, kinds)

    def _submit(self, row: _Row) -> None:
        self.coordinator.submit(row[2], row[3], row[4], None, self._env._now)

    def _submit_if_wanted(self, row: _Row) -> None:
        _, _, task, priority, payload = row
        if task not in self._unwanted:
            limits = self._limits.get(getattr(payload, "kind", ""))
            self.coordinator.submit(task, priority, payload, limits, self._env._now)


class ClientSubmissions:
    """Closed clients. Their tasks, and the news that a task is settled, take the network's time."""

    def __init__(
        self,
        env: Environment,
        coordinator: Coordinator,
        received: Callable[[Handler], Handler],
        plan: ClosedArrivals,
        scenario: Scenario,
        replication: int,
        end: RunEnd,
        draws: AttemptDraws,
        unwanted: Container[int],
    ) -> None:
        network, seed = scenario.network, scenario.seed
        self._draws = [draws.of_client(client) for client in range(plan.clients)]
        self._env = env
        self.coordinator = coordinator
        self._message_kind = MessageKind(network, seed, replication, "submit")
        safe = network.model_copy(update={"loss": 0.0, "duplicate": 0.0})
        self._answer = MessageKind(safe, seed, replication, "answer")
        self._rpc_timeout_s = network.rpc_timeout_s
        self._limits = scenario.workload.limits()
        self._unwanted = unwanted
        self._accept = received(self._submit)
        self._clients = ClosedClients(plan, scenario.duration_s, end, env.call_at, self._send, keys.client_key(0))
        self.columns = self._clients.columns
        self.kinds = self._clients.kinds
        self.client_of = self._clients.client_of
        self.repeat = self._clients.repeat
        self._clients.begin()

    def send_settled(self, task: int) -> None:
        """Tell its client that the task is settled."""
        client = self.client_of(task)
        self._clients.told(task, self._env._now + self._answer.delay_s(client))

    def _send(self, task: int, now: float, service_s: float, priority: int) -> None:
        client = self.client_of(task)
        draws: Draws = (service_s, *next(self._draws[client]))
        if isinstance(service_s, Demand):
            draws = DrawsOfKind(draws, service_s.kind)
        message: _Message = task, priority, draws
        at = now
        delay_s, copy_s = self._message_kind.of_owner(client)
        while delay_s is None:
            at += self._rpc_timeout_s
            delay_s, _ = self._message_kind.of_owner(client)
        self._env.call_at(at + delay_s, keys.client_submit_key(task), self._accept, message)
        if copy_s is not None:
            self._env.call_at(now + copy_s, keys.client_submit_copy_key(task), self._accept, message)

    def _submit(self, message: _Message) -> None:
        task, priority, payload = message
        if task not in self._unwanted:
            limits = self._limits.get(getattr(payload, "kind", "")) if self._limits else None
            self.coordinator.submit(task, priority, payload, limits, self._env._now)
