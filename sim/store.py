"""A modelled store: what of a coordinator is durable, group by group, and what waits until it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.group_commit import GroupCommit
from orchestrator.core.inputs import Recovered
from orchestrator.core.model import Task, TaskId
from orchestrator.scenario.distributions import Distribution
from orchestrator.scenario.streams import Stream
from sim import keys
from sim.environment import Environment
from sim.network import draws


class Store:
    """Outlives the coordinators that write to it. `tasks`: as they are stored, in the order in which they came.
    `crashes`: of its coordinators; what was begun before the last one is void.

    `commit`: how long a group takes. Of the one that is being written as a coordinator crashes, chance decides whether
    it is durable; nobody was told of it.
    """

    def __init__(self, env: Environment, commit: Distribution, stream: Stream) -> None:
        self.tasks: dict[TaskId, Recovered] = {}
        self.term = 0
        self.crashes = 0
        self._env = env
        self._commit_s = draws(commit, stream("store", "commit"))
        self._luck = stream("store", "crash")
        self._commit = GroupCommit(self._begin_soon)
        self._group: list[Recovered] = []

    def begin_term(self) -> int:
        self.term += 1
        return self.term

    def note(self, task: Task) -> None:
        """It has changed, and is of the next group."""
        self._commit.note(task)

    def release(self, peer: str, call: Callable[..., None], *values: object) -> None:
        """Make the call as soon as everything is stored that has been noted by now."""
        self._commit.release(peer, call, *values)

    @property
    def complete(self) -> bool:
        """Nothing waits to be stored."""
        return not (self._commit.due or self._commit.writing)

    def crash(self) -> None:
        """The coordinator is gone: what it had not stored did not happen, and what waited for that is never sent."""
        if self._commit.writing and self._luck.random() < 0.5:
            self._keep(self._group)
        self._commit = GroupCommit(self._begin_soon)
        self.crashes += 1

    def _begin_soon(self) -> None:
        """When everything of this moment is decided, so between two inputs."""
        self._env.call_at(self._env._now, keys.Rank.GROUP, self._begin, self.crashes)

    def _begin(self, crashes: int) -> None:
        if crashes == self.crashes and self._commit.due:
            self._write()

    def _write(self) -> None:
        self._group = self._commit.begin()
        self._env.call_at(self._env._now + self._commit_s(), keys.Rank.STORED, self._written, self.crashes)

    def _written(self, crashes: int) -> None:
        if crashes != self.crashes:
            return
        self._keep(self._group)
        covered = self._commit.end()
        if self._commit.due:
            self._write()
        for call, values in covered:
            call(*values)

    def _keep(self, group: list[Recovered]) -> None:
        for task in group:
            self.tasks[task.task_id] = task

    def recovered(self) -> list[Recovered]:
        """Everything, settled tasks first."""
        return sorted(self.tasks.values(), key=lambda task: (task.settled_at is None, task.settled_at or 0.0))


Handler = Callable[[Any], None]


class Submitters:
    """The clients of a coordinator that may crash, behind one connection: what they sent and have not seen settled.

    A message ends in task, priority and payload. While the connection is broken they keep what they want to send; when
    it stands again, they send everything that is not settled once more.
    """

    def __init__(self, settled: Callable[[TaskId], None]) -> None:
        self.connected = True
        self._settled = settled
        self._unsettled: dict[TaskId, tuple[Handler, Any]] = {}
        self._known: set[TaskId] = set()
        self._acknowledged: dict[TaskId, None] = {}
        self._told: dict[TaskId, None] = {}

    def sending(self, submit: Handler) -> Handler:
        """`submit`, for as long as the connection stands."""

        def send(message: Any) -> None:
            task = message[-3]
            if task not in self._known:
                self._known.add(task)
                self._unsettled[task] = submit, message
            if self.connected:
                submit(message)

        return send

    def acknowledged(self, task: TaskId) -> None:
        """The coordinator says that it has the task."""
        if self.connected:
            self._acknowledged[task] = None

    def told(self, task: TaskId) -> None:
        """The coordinator says that it is settled."""
        if self.connected and self._unsettled.pop(task, None) is not None:
            self._told[task] = None
            self._settled(task)

    def given_up(self, task: TaskId) -> None:
        """Nobody wants it any more."""
        self._unsettled.pop(task, None)

    def lost(self, coordinator: Coordinator) -> list[TaskId]:
        """What a new coordinator does not know, although one before had said it."""
        taken = [task for task in self._acknowledged if coordinator.task(task) is None]
        return [*taken, *(task for task in self._told if (known := coordinator.task(task)) and not known.settled)]

    def unsettled(self) -> list[tuple[Handler, Any]]:
        """In the order in which they were sent."""
        return list(self._unsettled.values())
