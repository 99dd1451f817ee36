"""What happened to workers lately, and when each was heard last: for those who look, and for no decision."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from orchestrator.cluster.views import EventView
from orchestrator.core.model import Attempt, Detail, Worker, WorkerEvent, WorkerId

REMEMBERED = 200


class Lately:
    """Deaths, doubts, timeouts and what else became of workers, but for the first registration of each.

    `heard[name] = now` at every heartbeat. `deaths`: how many workers were declared dead, in the coordinator's life.
    """

    def __init__(self) -> None:
        self.heard: dict[WorkerId, float] = {}
        self.deaths = 0
        self._events: deque[tuple[int, float, str, str, str, str]] = deque(maxlen=REMEMBERED)
        self._number = 0

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        if event is WorkerEvent.UP:
            self.heard[worker.id] = now
        elif event is WorkerEvent.FORGOTTEN:
            self.heard.pop(worker.id, None)
        self.deaths += event is WorkerEvent.DEAD
        if detail is not Detail.REGISTERED and event is not WorkerEvent.FORGOTTEN:
            self._note(now, event.value, worker.id, "", detail)

    def timed_out(self, attempt: Attempt, now: float) -> None:
        self._note(now, "timeout", attempt.worker.id, str(attempt.task.id), attempt.reason)

    def events(self, most: int, now: float) -> Iterator[EventView]:
        """The last ones, the oldest first."""
        for number, at, *told in list(self._events)[-most:]:
            yield EventView(number, now - at, *told)

    def _note(self, now: float, event: str, worker: str, task_id: str, detail: str) -> None:
        self._number += 1
        self._events.append((self._number, now, event, worker, task_id, str(detail)))
