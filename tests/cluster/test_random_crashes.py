"""Coordinators that crash between any two inputs, with any part of what they decided still unstored and untold."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import count

import pytest

from orchestrator.cluster.durability import kept_of, recovered_of
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.store import MemoryStore
from orchestrator.core.group_commit import Noting
from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import Attempt, AttemptKey, Task, Worker, WorkerId
from orchestrator.policies.settings import Policies, build_coordinator

POLICIES = Policies.model_validate({"execution_timeout_s": None})
CAPACITY = 2


class World(EffectLog):
    """Workers that never end and a client that submits again, around coordinators that do end.

    `mail`: what waits until everything is stored that was noted before it, in order.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.now = 0.0
        self.store = MemoryStore()
        self.places = count(1)
        self.held: dict[str, dict[AttemptKey, bool]] = {"w1": {}, "w2": {}, "w3": {}}  # whether it is finished
        self.connected: dict[str, int] = {}  # by which coordinator
        self.ran: Counter[str] = Counter()
        self.wanted: set[str] = set()  # submitted, and not told that it is settled
        self.begin()

    def begin(self) -> None:
        """The next coordinator, with what is stored."""
        self.mail: list[tuple[str, str, AttemptKey]] = []
        self.changed: dict[Task, None] = {}
        self.connected.clear()
        self.term = self.store.begin_term(1)
        self.core = build_coordinator(POLICIES, Noting(self.changed.setdefault, self), term=self.term)
        for kept in self.store.tasks():
            self.core.recovered(recovered_of(kept, 0.0, self.now), self.now)
        self.requests: list[AttemptKey] = []

    # ---- effects

    def assign(self, attempt: Attempt, now: float) -> None:
        self.mail.append(("assign", attempt.worker.id, attempt.key))

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        self.mail += [("drop", worker.id, key) for key in dropped]

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        self.mail.append(("acknowledge", worker_id, self.requests[request]))

    def settled(self, task: Task, now: float) -> None:
        self.mail.append(("settled", "", (task.id, 0)))

    def accepted(self, task: Task, now: float) -> None:
        if task.settled:
            self.mail.append(("settled", "", (task.id, 0)))

    # ---- what may happen

    def commit(self) -> None:
        self.store.append(self.term, [kept_of(0.0, self.places, task) for task in self.changed])
        self.changed.clear()
        mail, self.mail = self.mail, []
        for what, worker, key in mail:
            if what == "assign":
                self.held[worker][key] = False
                self.ran[str(key[0])] += 1
            elif what == "settled":
                self.wanted.discard(str(key[0]))
            else:
                self.held[worker].pop(key, None)

    def reconnect(self) -> None:
        missing = sorted(set(self.held) - set(self.connected))
        if missing:
            worker = self.rng.choice(missing)
            self.connected[worker] = self.term
            registration = Registration(worker, "same", CAPACITY, 0, True, tuple(self.held[worker]))
            known = self.core.knows_incarnation(worker, "same")
            (self.core.reconnected if known else self.core.register)(registration, self.now)

    def submit(self) -> None:
        name = f"t{len(self.ran) + len(self.wanted)}-{self.rng.random()}"
        self.wanted.add(name)
        self.core.submit(name, 1, Job("sleep", "0"), None, self.now)

    def submit_again(self) -> None:
        for name in sorted(self.wanted):
            self.core.submit(name, 1, Job("sleep", "0"), None, self.now)

    def work(self) -> None:
        """A worker says of everything that it has finished how it ended, until that is acknowledged."""
        worker = self.rng.choice(sorted(self.held))
        for key in self.held[worker]:
            self.held[worker][key] |= self.rng.random() < 0.7
            if self.held[worker][key] and worker in self.connected:
                self.requests.append(key)
                report = Report(worker, *key, True, "done", request=len(self.requests) - 1)
                self.core.result(report, self.now)

    def step(self, *ways: str) -> None:
        self.now += 0.001
        getattr(self, self.rng.choice(ways))()
        self.core.check()


@pytest.mark.parametrize("seed", range(40))
def test_no_crash_makes_a_task_run_twice_or_not_at_all(seed: int):
    """As long as their workers live and are waited for."""
    world = World(random.Random(seed))
    for _ in range(12):
        for _ in range(world.rng.randrange(25)):
            world.step("submit", "work", "work", "reconnect", "commit", "submit_again")
        world.begin()
        world.core.check()
    world.submit_again()
    for _ in range(600):
        world.step("work", "reconnect", "commit")
        if not world.wanted:
            break
    assert not world.wanted
    world.commit()
    assert world.ran
    assert set(world.ran.values()) == {1}
    assert {task.state for task in world.store.tasks()} == {3}
