"""What both worlds need to drive a run: open arrivals, closed clients, and the end.

A world passes in how it calls something at a time of the run, how it submits a task, and how it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.scenario.plan import ClosedArrivals, Demand
from orchestrator.scenario.workload import Resubmit

CallAt = Callable[[float, int, Callable[[Any], None], Any], None]
"""`call_at(at_s, key, function, argument)`: call `function(argument)` at that second of the run. The key orders what
happens at one time; real time has no use for it."""
Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]
"""Arrival times, demands and priorities of tasks, in the order of their submission."""


class RunEnd:
    """Decides when a run is over: all tasks are settled after the last arrival, or what remains never can be.

    `due`: tasks that are not settled yet; of open arrivals, those to come included. `finish` ends the run and may be
    called more than once. `hopeless`: no worker is up, and none will come.
    """

    def __init__(self, due: int, finish: Callable[[], None], hopeless: Callable[[], bool]) -> None:
        self.due = due
        self._finish = finish
        self._hopeless = hopeless
        self._arrivals_over = False

    def submitted(self) -> None:
        """A closed client submits a task."""
        self.due += 1

    def settled(self) -> None:
        """A task is settled."""
        self.due -= 1
        if not self.due and self._arrivals_over:
            self._finish()

    def arrivals_over(self) -> None:
        """`duration_s` is over."""
        self._arrivals_over = True
        if not self.due:
            self._finish()
        self.check_hopeless()

    def check_hopeless(self) -> None:
        """A worker may have been the last one."""
        if self._arrivals_over and self._hopeless():
            self._finish()


class Patience:
    """Clients that submit a task again where it takes too long, by the number of the task.

    `again(number, at_s)` does it, and gives the number of the task that comes of it: the same where tasks have keys.
    `first_key`: of the task of number 0.
    """

    def __init__(
        self, resubmit: Resubmit, call_at: CallAt, again: Callable[[int, float], int], first_key: int = 0
    ) -> None:
        self._resubmit = resubmit
        self._call_at = call_at
        self._again = again
        self._first_key = first_key
        self._seen: set[int] = set()
        self._left: dict[int, int] = {}  # how often those that are not settled may be submitted again
        self._original: dict[int, int] = {}  # of what came of a repetition

    def submitted(self, number: int, at_s: float) -> None:
        """A client submits a task for the first time; the network's copies of that are none of its business."""
        if number not in self._seen:
            self._seen.add(number)
            self._left[number] = self._resubmit.most
            self._look_later(number, at_s)

    def settled(self, number: int) -> bool:
        """The task is; whether it is the first of those that its client submitted for the same work."""
        return self._left.pop(self._original.get(number, number), None) is not None

    def _look_later(self, number: int, at_s: float) -> None:
        due_s = at_s + self._resubmit.after_s
        self._call_at(due_s, self._first_key + number, self._look, (number, due_s))

    def _look(self, event: tuple[int, float]) -> None:
        number, at_s = event
        left = self._left.get(number, 0)
        if left:
            self._left[number] = left - 1
            again = self._again(number, at_s)
            if again != number:
                self._original[again] = number
            self._look_later(number, at_s)


class OpenStream:
    """Open arrivals: each row at its own time, whatever becomes of the tasks before it. One timer is enough.

    A row begins with its time and its key.
    """

    def __init__(self, rows: Iterator[tuple[Any, ...]], call_at: CallAt, submit: Callable[[Any], None]) -> None:
        self._rows = rows
        self._call_at = call_at
        self._submit = submit

    def begin(self) -> None:
        row = next(self._rows, None)
        if row is not None:
            self._call_at(row[0], row[1], self._arrive, row)

    def _arrive(self, row: tuple[Any, ...]) -> None:
        following = next(self._rows, None)
        if following is not None:
            self._call_at(following[0], following[1], self._arrive, following)
        self._submit(row)


class ClosedClients:
    """Closed arrivals: each client thinks, submits, waits for the result and thinks again, until time is over.

    `first_key`: the key of client 0. `submit(number, at_s, service_s, priority)`: of the task of that number, from 0.
    """

    def __init__(
        self,
        plan: ClosedArrivals,
        until_s: float,
        end: RunEnd,
        call_at: CallAt,
        submit: Callable[[int, float, float, int], None],
        first_key: int = 0,
    ) -> None:
        self._until_s = until_s
        self._limit = plan.tasks
        self._end = end
        self._call_at = call_at
        self._submit = submit
        self._first_key = first_key
        self._draws = [plan.client(number) for number in range(plan.clients)]
        self._client_of: list[int] = []
        self._rows: list[tuple[float, float, int]] = []

    def begin(self) -> None:
        for client in range(len(self._draws)):
            self._think(client, 0.0)

    def client_of(self, number: int) -> int:
        """Who submitted that task."""
        return self._client_of[number]

    def told(self, number: int, at_s: float) -> None:
        """The client of that task hears that it is settled."""
        self._think(self._client_of[number], at_s)

    def row(self, number: int) -> tuple[float, float, int]:
        """When that task was submitted, its demand and priority."""
        return self._rows[number]

    def repeat(self, number: int, at_s: float) -> int:
        """The client of that task submits its work once more, as another task: its number."""
        _, service_s, priority = self._rows[number]
        self._end.submitted()
        self._client_of.append(self._client_of[number])
        self._rows.append((at_s, service_s, priority))
        return len(self._rows) - 1

    def kinds(self) -> list[str] | None:
        """The kind of each task; None without kinds."""
        told = [service_s.kind for _, service_s, _ in self._rows if isinstance(service_s, Demand)]
        return told or None

    def columns(self) -> Columns:
        arrival_s, service_s, priority = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return np.array(arrival_s, float), np.array(service_s, float), np.array(priority, np.uint8)

    def _think(self, client: int, since_s: float) -> None:
        think_s, service_s, priority = next(self._draws[client])
        at_s = since_s + think_s
        if at_s < self._until_s:
            row = client, at_s, service_s, priority
            self._call_at(at_s, self._first_key + client, self._arrive, row)

    def _arrive(self, row: tuple[int, float, float, int]) -> None:
        client, at_s, service_s, priority = row
        number = len(self._rows)
        if self._limit is not None and number >= self._limit:
            return
        self._end.submitted()
        self._client_of.append(client)
        self._rows.append((at_s, service_s, priority))
        self._submit(number, at_s, service_s, priority)
