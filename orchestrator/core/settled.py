"""Which settled tasks are remembered, and for how long."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, MutableMapping

from orchestrator.core.model import Task, TaskId

RECORD_BYTES = 1000
"""What a remembered task takes beside its result and its error, roughly."""


class SettledTasks:
    """The settled tasks that nothing occupies a worker with any more, the oldest first.

    Those beyond `most` in number, `most_s` in age or `most_bytes` in size are forgotten: they leave `tasks`, which are
    all that the coordinator knows. One whose payload has a `key` is remembered for `keyed_s` instead, and goes for its
    size only when no other is left. Age and size, where limited, are looked at when a task is added.
    """

    __slots__ = ("_bytes", "_ids", "_keyed", "_keyed_s", "_limited", "_most", "_most_bytes", "_most_s", "_old_at",
                 "_tasks")  # fmt: skip

    def __init__(
        self,
        tasks: MutableMapping[TaskId, Task],
        most: float,
        most_s: float = math.inf,
        most_bytes: float = math.inf,
        keyed_s: float = math.inf,
    ) -> None:
        self._tasks = tasks
        self._ids: deque[TaskId] = deque()
        self._keyed: deque[TaskId] = deque()  # where age or size are limited
        self._most = most
        self._most_s = most_s
        self._keyed_s = keyed_s
        self._most_bytes = most_bytes
        self._limited = min(most_s, keyed_s, most_bytes) < math.inf
        self._bytes = 0
        self._old_at = -math.inf  # before then none is too old

    def add(self, task: Task, now: float) -> None:
        ids = self._ids
        if not self._limited:
            ids.append(task.id)
            if len(ids) > self._most:
                del self._tasks[ids.popleft()]
            return
        # Submitted with a key, by which it may be submitted again: its payload says so.
        (self._keyed if getattr(task.payload, "key", "") else ids).append(task.id)
        self._bytes += size_of(task)
        if now > self._old_at or self._bytes > self._most_bytes or len(ids) + len(self._keyed) > self._most:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """Those that are old, and those for which there is no room."""
        old_at = math.inf
        for ids, most_s in ((self._ids, self._most_s), (self._keyed, self._keyed_s)):
            while ids and (
                len(self._ids) + len(self._keyed) > self._most
                or self._bytes > self._most_bytes
                or self._oldest_since(ids) < now - most_s
            ):
                self._bytes -= size_of(self._tasks.pop(ids.popleft()))
            old_at = min(old_at, (self._oldest_since(ids) if ids else now) + most_s)
        self._old_at = old_at

    def violations(self) -> Iterator[str]:
        if self._limited:
            size = sum(size_of(self._tasks[task_id]) for ids in (self._ids, self._keyed) for task_id in ids)
            if self._bytes != size:
                yield f"the settled tasks take {size} bytes, not {self._bytes}"
            if size > self._most_bytes:
                yield f"the settled tasks take {size} bytes, more than {self._most_bytes}"

    def _oldest_since(self, ids: deque[TaskId]) -> float:
        settled_at = self._tasks[ids[0]].settled_at
        return math.inf if settled_at is None else settled_at


def size_of(task: Task) -> int:
    """Bytes, roughly: what a result takes that is not text is not known."""
    result = task.result
    size = RECORD_BYTES + len(task.error)
    return size + len(result) if isinstance(result, (str, bytes)) else size
