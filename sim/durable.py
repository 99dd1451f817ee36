"""The simulated world of a coordinator that stores what it promises, and may crash.

What it tells anybody waits until it is stored (`sim.store`). When it crashes, its connections break with it: what is
under way on them is lost, workers go on with what they have, and clients keep what is not settled. The next one takes
what is stored, under a higher term, and everybody dials again as live peers do (`core.redialling`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.group_commit import Noting, stored
from orchestrator.core.invariants import raise_if_broken
from orchestrator.core.model import Task, Worker
from orchestrator.core.redialling import reached_after
from orchestrator.policies.streams import python_random
from orchestrator.results.tables import CoordinatorEvent, Tables
from orchestrator.scenario.plan import FaultAction, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.inbox import Handler
from sim.network import Severed, draws
from sim.store import Store, Submitters
from sim.to_coordinator import Introduction
from sim.worker import SimWorker
from sim.world import World

_DIRECTIONS = ("to_workers", "to_coordinator")
_SEVERED = "coordinator"
"""What the connections of all workers suffer from while the coordinator is down."""


class DurableWorld(World):
    """Needs `coordinator.commit`. No attempt is fused: every assignment waits for the store."""

    def __init__(self, scenario: Scenario, plan: Plan, replication: int = 0, fuse: bool = True) -> None:
        self._crashed_at: float | None = None
        self._store: Store | None = None
        self._submitters = Submitters(self._told_settled)
        self._chance = python_random(scenario.seed, replication, "redialling")
        super().__init__(scenario, plan, replication, fuse=False)
        submit = scenario.network.delay_of("submit")
        self._submit_delay_s = draws(submit, generator(scenario.seed, replication, "delay", "resubmit"))

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    def tables(self) -> Tables:
        if self._crashed_at is not None:
            self._begin_anew()
        return super().tables()

    def check(self) -> None:
        if self._crashed_at is None:
            super().check()
            if self.store.complete:
                unsettled = self.coordinator.unsettled()
                raise_if_broken(filter(None, (_not_as_stored(task, self.store) for task in unsettled)))

    # ---- the parts

    def _new_coordinator(self, *_: Any) -> Coordinator:
        """It knows by their keys what its clients submit again, so it forgets no task."""
        if self._store is None:
            commit = self._scenario.coordinator.commit
            assert commit is not None
            self._store = Store(self.env, commit, partial(generator, self._scenario.seed, self._replication))
        return super()._new_coordinator(math.inf, Noting(self._store.note, self), self._store.begin_term())

    def _from_clients(self, handler: Handler) -> Handler:
        return self._submitters.sending(super()._from_clients(handler))

    # ---- effects of the core, when they are stored

    def _release(self, peer: str, send: Callable[..., None], *values: object) -> None:
        self.store.release(peer, send, *values)

    def accepted(self, task: Task, now: float) -> None:
        self.store.release("clients", self._submitters.acknowledged, task.id)

    def settled(self, task: Task, now: float) -> None:
        self._record_settled(task, now)
        self.store.release("clients", self._submitters.told, task.id)

    def _given_up(self, task: int) -> None:
        self._submitters.given_up(task)
        super()._given_up(task)

    def _request_of(self, introduction: Introduction) -> int | None:
        """Every process learns the term."""
        return introduction.life

    # ---- faults

    def inject_into_coordinator(self, action: FaultAction) -> None:
        if action.kind != "coordinator_crash":
            super().inject_into_coordinator(action)
        elif action.heals:
            self._restart()
        else:
            self._crash()

    def _crash(self) -> None:
        self._crashed_at = self.now
        self.store.crash()
        self.recorder.crashed(self.coordinator, self.store.tasks, self.now)
        self.env.drop({*self.inbox.close(), *self._to_workers.deliveries})
        self._alarm_at = math.inf
        self._reports.clear()
        self._submitters.connected = False
        self._refusals.forget_pauses()
        self._by_slot.clear()
        for worker in self.workers:
            worker.record = Worker(worker.name, -1)
            worker.lose_what_is_under_way()
            for direction in _DIRECTIONS:
                worker.impair(direction, _SEVERED, Severed())
            worker.receive(self._lose_connection, worker)

    def _lose_connection(self, worker: SimWorker) -> None:
        worker.agent.connection_lost(self.now)

    def _restart(self) -> None:
        """The next coordinator: it reads what is stored, and then everybody reaches it, one after the other."""
        assert self._crashed_at is not None
        absent_s = self.now - self._crashed_at
        self._begin_anew()
        since, crashes = self.now - absent_s, self.store.crashes
        for worker in self.workers:
            at = since + reached_after(absent_s, self._chance)
            self.env.call_at(at, keys.connect_key(worker.index), self._connect, (worker, crashes))
        at = since + reached_after(absent_s, self._chance) + self._submit_delay_s()
        self.env.call_at(at, keys.Rank.RESUBMIT, self._submit_again, crashes)

    def _begin_anew(self) -> None:
        self._crashed_at = None
        self.inbox.open(self.now)
        former, self.coordinator = self.coordinator, self._new_coordinator()
        self.coordinator.counters.update(former.counters)
        self.arrivals.coordinator = self.coordinator
        for task in self.store.recovered():
            self.coordinator.recovered(task, self.now)
        for record in self.coordinator.workers():
            self._introduce(record)
        adopted = {attempt.key: attempt for record in self.coordinator.workers() for attempt in record.open}
        for worker in self.workers:
            for job in worker.jobs.values():
                job.attempt = adopted.get(job.key, job.attempt)
        self.recorder.recovered(self.coordinator)
        self.recorder.event(self.now, CoordinatorEvent.RECOVERED, None, f"term {self.store.term}")
        for lost in self._submitters.lost(self.coordinator):
            self.recorder.event(self.now, CoordinatorEvent.LOST, None, str(lost))

    def _connect(self, event: tuple[SimWorker, int]) -> None:
        worker, crashes = event
        if crashes != self.store.crashes:
            return
        for direction in _DIRECTIONS:
            worker.impair(direction, _SEVERED, None)
        worker.receive(self._introduce_again, worker)

    def _introduce_again(self, worker: SimWorker) -> None:
        self._register_again(worker)
        if worker.agent.draining:
            self._to_coordinator.send_drain(worker)

    def _submit_again(self, crashes: int) -> None:
        if crashes != self.store.crashes:
            return
        self._submitters.connected = True
        for submit, message in self._submitters.unsettled():
            known = self.coordinator.task(message[-3])
            if known is None:
                submit(message)
            elif known.settled:
                self.store.release("clients", self._submitters.told, known.id)


def _not_as_stored(task: Task, store: Store) -> str:
    """What an attempt that was given up silently may leave behind is no difference, nor that a task has begun."""
    kept, now = store.tasks.get(task.id), stored(task)
    if kept is None:
        return f"{task} is not stored"
    held, now = now.held, now._replace(held=(), limits=None)
    if not set(held) <= set(kept.held) or kept._replace(held=(), limits=None, state=now.state) != now:
        return f"{task} is {now}, and {kept} is stored"
    return ""


def world_of(scenario: Scenario, plan: Plan, replication: int = 0) -> World:
    """With a store where the scenario has one."""
    kind = World if scenario.coordinator.commit is None else DurableWorld
    return kind(scenario, plan, replication)
