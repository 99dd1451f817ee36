"""Effects of the core noted as plain values, as they happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.model import Attempt, AttemptKey, Task, Worker, WorkerEvent, WorkerId
from orchestrator.core.ports import Effects


class EffectLog:
    """Implements `Effects`: notes each one, and passes it on."""

    def __init__(self, onward: Effects | None = None) -> None:
        self.noted: list[list[Any]] = []
        self._onward = onward

    def take(self) -> list[list[Any]]:
        """What was noted since the last call."""
        noted, self.noted = self.noted, []
        return noted

    def accepted(self, task: Task, now: float) -> None:
        self.noted.append(["accepted", task.id])
        if self._onward:
            self._onward.accepted(task, now)

    def refused(self, task: Task, why: str, now: float) -> None:
        self.noted.append(["refused", task.id, why])
        if self._onward:
            self._onward.refused(task, why, now)

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        self.noted.append(["registered", worker.id, request, [list(key) for key in dropped]])
        if self._onward:
            self._onward.registered(worker, request, dropped, now)

    def assign(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["assign", *_named(attempt)])
        if self._onward:
            self._onward.assign(attempt, now)

    def cancel(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["cancel", *_named(attempt)])
        if self._onward:
            self._onward.cancel(attempt, now)

    def timed_out(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["timed_out", *_named(attempt)])
        if self._onward:
            self._onward.timed_out(attempt, now)

    def ended(self, attempt: Attempt, now: float) -> None:
        self.noted.append(["ended", *_named(attempt), attempt.outcome.name, attempt.settles])
        if self._onward:
            self._onward.ended(attempt, now)

    def settled(self, task: Task, now: float) -> None:
        self.noted.append(["settled", task.id, task.state.name, task.worker_id, task.error])
        if self._onward:
            self._onward.settled(task, now)

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        self.noted.append(["acknowledged", worker_id, request, known])
        if self._onward:
            self._onward.acknowledged(worker_id, request, known, now)

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        self.noted.append(["heartbeat_answered", worker_id, request, known])
        if self._onward:
            self._onward.heartbeat_answered(worker_id, request, known, now)

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        self.noted.append(["worker_changed", worker.id, event, detail])
        if self._onward:
            self._onward.worker_changed(worker, event, detail, now)

    def wake_at(self, at: float) -> None:
        self.noted.append(["wake_at", at])
        if self._onward:
            self._onward.wake_at(at)


def _named(attempt: Attempt) -> list[Any]:
    return [attempt.task.id, attempt.number, attempt.worker.id]
