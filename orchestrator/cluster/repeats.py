"""Submissions of a task that is known already by its key: it is found, and who made them is told how it ends."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.model import Task, TaskId

Submitter = tuple[str, int]
"""A client's session, and the number by which it submitted."""


class Repeats:
    """`task_of`: the task of an id, None for one that is forgotten. `count`: of the submissions that wait."""

    def __init__(self, task_of: Callable[[TaskId], Task | None], keyed_s: float) -> None:
        self.count = 0
        self._task_of = task_of
        self._keyed_s = keyed_s
        self._ids: dict[str, TaskId] = {}  # by key
        self._of_task: dict[TaskId, dict[Submitter, None]] = {}
        self._of_session: dict[str, set[TaskId]] = {}

    def first(self, key: str, now: float) -> Task | None:
        """The task that has this key."""
        task = self._task_of(self._ids.get(key))
        return None if task is None or self._is_over(task, now) else task

    def note_first(self, key: str, task_id: TaskId) -> None:
        """A task that has it from now on. For each that comes two are looked at, and go if they are forgotten."""
        for _ in range(min(2, len(self._ids))):
            oldest = next(iter(self._ids))
            id_ = self._ids.pop(oldest)
            if self._task_of(id_) is not None:
                self._ids[oldest] = id_
        self._ids[key] = task_id

    def _is_over(self, task: Task, now: float) -> bool:
        return task.settled_at is not None and task.settled_at < now - self._keyed_s

    def add(self, task_id: TaskId, submitter: Submitter) -> None:
        """It waits for a task that is not settled."""
        submitters = self._of_task.setdefault(task_id, {})
        if submitter not in submitters:
            submitters[submitter] = None
            self.count += 1
            self._of_session.setdefault(submitter[0], set()).add(task_id)

    def settled(self, task_id: TaskId) -> list[Submitter]:
        """Who waits for that task. Nobody does any more."""
        submitters = self._of_task.pop(task_id, {})
        self.count -= len(submitters)
        for session in {session for session, _ in submitters}:
            tasks = self._of_session[session]
            tasks.remove(task_id)
            if not tasks:
                del self._of_session[session]
        return list(submitters)

    def gone(self, session: str) -> None:
        """It waits for nothing any more."""
        for task_id in self._of_session.pop(session, ()):
            submitters = self._of_task[task_id]
            left = {submitter: None for submitter in submitters if submitter[0] != session}
            self.count -= len(submitters) - len(left)
            if left:
                self._of_task[task_id] = left
            else:
                del self._of_task[task_id]
