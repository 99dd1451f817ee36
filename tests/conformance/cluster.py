"""What the kit's behaviours are written for: a cluster, in whichever world, and the record of what it decided."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    Detail,
    Priority,
    Task,
    TaskId,
    TimeLimits,
    Worker,
    WorkerEvent,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import Effects
from orchestrator.scenario.schema import Scenario
from tests.reference import REFERENCE

Direction = Literal["to_workers", "to_coordinator"]
PATIENCE_S = float(os.environ.get("KIT_PATIENCE_S", "20"))
"""How long anything may take, by the world's own clock, before it counts as never."""
CLOCK_S = 0.05
"""How much later the history may look at the clock than the coordinator did."""

# No worker is declared dead for being slow to get a processor, and nothing times out, unless a behaviour asks for it.
PATIENT = {
    "duration_s": 1e6,
    "network.delay": "{kind: constant, value_s: 0.001}",
    "policies.detection": "{kind: timeout, heartbeat_s: 0.1, timeout_s: 30}",
    "policies.execution_timeout_s": None,
    "policies.execution_check_every_s": None,
}


def scenario(settings: dict[str, Any]) -> Scenario:
    """The same for every world; `settings` by their dotted keys."""
    return Scenario.load(
        REFERENCE, [f"{key}={'null' if value is None else value}" for key, value in (PATIENT | settings).items()]
    )


class History:
    """Implements the core's `Effects`: remembers them, tells that there is news, and passes them on.

    `number_of`: as the kit numbers its tasks. `refusals`: why a submission was refused, each time.

    `registrations`: of each worker, which of the attempts that it held it was told to drop, each time it registered.
    `silences`: how long each worker that the detector declared dead had not been heard, in seconds.
    """

    def __init__(
        self,
        onward: Effects,
        clock: Callable[[], float],
        number_of: Callable[[Task], int],
        news: Callable[[], None] = lambda: None,
    ) -> None:
        self.onward = onward
        self.number_of = number_of
        self.clock = clock
        self.news = news
        self.ids: dict[int, TaskId] = {}
        self.refusals: list[str] = []
        self.assigned: list[Attempt] = []
        self.settled_tasks: list[Task] = []
        self.workers: list[tuple[WorkerId, str]] = []
        self.beats: Counter[WorkerId] = Counter()
        self.unknown: Counter[WorkerId] = Counter()
        self.registrations: defaultdict[WorkerId, list[list[AttemptKey]]] = defaultdict(list)
        self.silences: list[float] = []
        self._heard: dict[WorkerId, float] = {}

    def accepted(self, task: Task, now: float) -> None:
        self.ids[self.number_of(task)] = task.id
        self.onward.accepted(task, now)
        self.news()

    def refused(self, task: Task, why: str, now: float) -> None:
        self.refusals.append(why)
        self.onward.refused(task, why, now)
        self.news()

    def assign(self, attempt: Attempt, now: float) -> None:
        self.assigned.append(attempt)
        self.onward.assign(attempt, now)
        self.news()

    def cancel(self, attempt: Attempt, now: float) -> None:
        self.onward.cancel(attempt, now)
        self.news()

    def timed_out(self, attempt: Attempt, now: float) -> None:
        self.onward.timed_out(attempt, now)
        self.news()

    def ended(self, attempt: Attempt, now: float) -> None:
        self.onward.ended(attempt, now)
        self.news()

    def settled(self, task: Task, now: float) -> None:
        self.settled_tasks.append(task)
        self.onward.settled(task, now)
        self.news()

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        self.registrations[worker.id].append(list(dropped))
        self.onward.registered(worker, request, dropped, now)
        self.news()

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        self.onward.acknowledged(worker_id, request, known, now)
        self.news()

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        (self.beats if known else self.unknown)[worker_id] += 1
        self._heard[worker_id] = self.clock()
        self.onward.heartbeat_answered(worker_id, request, known, now)
        self.news()

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        self.workers.append((worker.id, f"{event} {detail}".rstrip()))
        if event is WorkerEvent.UP:
            self._heard[worker.id] = self.clock()
        elif detail == Detail.DETECTOR:
            self.silences.append(self.clock() - self._heard[worker.id])
        self.onward.worker_changed(worker, event, detail, now)
        self.news()

    def wake_at(self, at: float) -> None:
        self.onward.wake_at(at)


class Cluster(ABC):
    """A coordinator and its workers. Tasks are numbered from 1 by `submit`; `timeout_s` is the detector's.

    `with` proves at the end, if nothing went wrong before, that nothing is lost and nothing is left.
    """

    core: Coordinator
    history: History
    submitted: list[int]
    timeout_s: float

    # ---- what a world does

    @abstractmethod
    def start(
        self, *names: str, capacity: int = 1, prefetch: int = 0, contract: bool = False, fragile: bool = False
    ) -> None:
        """Worker processes begin, where there was one of that name too, and are registered on return.

        `contract`: they speak only the wire contract, and cannot be told to cancel. `fragile`: their network can be
        cut."""

    @abstractmethod
    def kill(self, *names: str) -> None: ...

    @abstractmethod
    def pause(self, name: str) -> None: ...

    @abstractmethod
    def resume(self, name: str) -> None: ...

    @abstractmethod
    def work_at(self, name: str, factor: float) -> None:
        """Its host goes on at that share of its speed; 0: it hangs."""

    @abstractmethod
    def cut(self, name: str, *directions: Direction) -> None:
        """No message passes in these directions; in none of them: all pass again."""

    @abstractmethod
    def break_connection(self, name: str) -> None:
        """The connection of a worker whose network can be cut breaks; its process lives on, and dials again."""

    @abstractmethod
    def stand_still(self, seconds: float) -> None:
        """The coordinator's process does, and then goes on."""

    @abstractmethod
    def drain(self, name: str) -> None: ...

    @abstractmethod
    def kill_executor(self, name: str) -> None:
        """What the worker executes takes its executor with it."""

    @abstractmethod
    def submit(
        self, work_s: float | None, priority: Priority = Priority.NORMAL, limits: TimeLimits | None = None
    ) -> int:
        """A task of so much work; None: of work that makes no sense."""

    @abstractmethod
    def report(self, name: str, task: int, attempt: int) -> None:
        """A successful result in the name of a worker arrives."""

    @abstractmethod
    def claim(self, name: str, capacity: int) -> None:
        """A registration in the name of a worker that speaks the contract arrives; its process knows nothing."""

    @abstractmethod
    def forget(self, name: str) -> None:
        """A worker's leave arrives, of which its process knows nothing."""

    @abstractmethod
    def until(self, condition: Callable[[], object]) -> None:
        """Let time pass until it holds. Raises AssertionError where it does not within PATIENCE_S."""

    @abstractmethod
    def close(self) -> None: ...

    # ---- what a behaviour may ask

    def core_id(self, task: int) -> TaskId:
        """What the coordinator calls it; it may not have heard of it yet."""
        return self.history.ids.get(task, f"unheard of {task}")

    def task(self, task: int) -> Task:
        known = self.core.task(self.core_id(task))
        assert known is not None, f"task {task} is unknown"
        return known

    def attempts(self, task: int) -> list[Attempt]:
        """All that there were, in order."""
        return [attempt for attempt in self.history.assigned if attempt.task.id == self.core_id(task)]

    def story(self, task: int) -> list[str]:
        """How each attempt ended, such as `w1 worker_died`."""
        return [f"{attempt.worker.id} {attempt.outcome.name.lower()}" for attempt in self.attempts(task)]

    def settled(self, *tasks: int) -> bool:
        known = [self.core.task(self.core_id(task)) for task in tasks]
        return all(task is not None and task.settled for task in known)

    def changes(self, name: str) -> list[str]:
        """What happened to a worker as the coordinator sees it, such as `dead detector`."""
        return [change for worker, change in self.history.workers if worker == name]

    def declared_dead(self, *names: str) -> bool:
        """Whether the detector has declared each of them dead."""
        return all("dead detector" in self.changes(name) for name in names)

    def registered(self, name: str, times: int) -> None:
        """Wait until the worker has registered so often."""
        self.until(lambda: len(self.history.registrations[name]) == times)

    def begun(self, task: int) -> str:
        """Wait until the newest attempt of a task is being executed, as far as one can tell: its worker has beaten
        twice since. The worker's name."""
        self.until(lambda: self.attempts(task))
        name = self.attempts(task)[-1].worker.id
        beats = self.history.beats[name] + 2
        self.until(lambda: self.history.beats[name] >= beats)
        return name

    def prove(self) -> None:
        """Every task is settled exactly once, no worker that is up keeps a load, and none died too early."""
        self.until(lambda: self.settled(*self.submitted))
        self.until(lambda: not any(worker.load for worker in self.core.workers() if worker.state is WorkerState.ALIVE))
        settled = Counter(task.id for task in self.history.settled_tasks)
        assert settled == Counter(self.core_id(task) for task in self.submitted)
        for task in self.submitted:
            assert sum(attempt.settles for attempt in self.attempts(task)) <= 1, f"{task}: {self.story(task)}"
        assert all(silence >= self.timeout_s - CLOCK_S for silence in self.history.silences), self.history.silences
        self.core.check()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.prove()
        finally:
            self.close()

    def in_vain(self) -> AssertionError:
        """What `until` raises."""
        stories = {task: self.story(task) for task in self.submitted[:50]}
        return AssertionError(f"waited in vain; attempts: {stories}; workers: {self.history.workers[-50:]}")
