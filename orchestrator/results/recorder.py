"""The recorder collects what the coordinator does, row by row, and makes the three tables of it. Both worlds use it.

`ended`, `settled` and `worker_changed` have the signatures of the core's effects. A driver binds them directly as its
own effects, which saves a call for every attempt.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import Recovered
from orchestrator.core.model import Attempt, Outcome, Task, TaskState, Worker, WorkerEvent
from orchestrator.results.tables import STATES, State, Tables

Floats = npt.NDArray[np.float64]

_COMPLETED = Outcome.COMPLETED
_STATE_OF = {TaskState.COMPLETED: State.COMPLETED, TaskState.FAILED: State.FAILED}
_FLUSH = 14_000  # numbers in the list before they are packed
_PLAIN = 7  # numbers in a plain row
_ASSIGNED_S, _STARTED_S, _ENDED_S, _RAN_S, _OUTCOME, _SETTLED = 3, 4, 6, 7, 8, 9  # places in a row of the attempts
_ABSENT = float("nan")


class Recorder:
    """Rows of tasks, attempts and events. The id of a task is its row number in the plan.

    The first attempt settles nearly every task, at the moment at which the attempt ends. One plain row of seven
    numbers then stands for the rows in both tables. Rows name workers by positions in `_names`, because a slot may
    pass from a forgotten worker to another one; `tables` turns them into positions in the scenario's order.
    """

    def __init__(self) -> None:
        self._plain: list[float] = []
        self._packed = array("d")
        self._last_plain: Task | None = None
        self._attempts: list[tuple[Any, ...]] = []
        self._tasks: list[tuple[Any, ...]] = []
        self._starts: dict[Attempt, float] = {}
        self._first_start: dict[int, float] = {}
        self._begun: dict[tuple[Any, int], float] = {}
        """When attempts began that a former coordinator knew: by task and number."""
        self._events: list[tuple[float, str, str | None, str | None]] = []
        self._silent: dict[tuple[Any, int], int] = {}
        """The rows of attempts that began, and were closed without a report: by task and number."""
        self._names: list[str] = []
        self._position: list[int] = []
        """By slot: the position in `_names` of the worker that has it now."""

    # ---- effects of the core

    def ended(self, attempt: Attempt, now: float) -> None:
        task = attempt.task
        if self._starts:
            start = self._starts.pop(attempt, None)
            if attempt.started_at is None:
                attempt.started_at = start
        if attempt.settles and task.attempt == 1 and attempt.outcome is _COMPLETED:
            self._last_plain = task
            plain = self._plain
            plain += (
                task.id,
                self._position[attempt.worker.slot],
                task.submitted_at,
                attempt.assigned_at,
                attempt.started_at,
                now,
                attempt.ran_s,
            )  # type: ignore[arg-type]  # in a run, all of these are numbers
            if len(plain) > _FLUSH:
                self._pack()
        else:
            self._attempt(attempt)

    def settled(self, task: Task, now: float) -> None:
        if task is self._last_plain:
            self._last_plain = None  # if the task is settled once more, it gets a row of its own
        else:
            self._task(task)

    def worker_changed(self, worker: Worker, event: str, detail: str, now: float) -> None:
        if event == WorkerEvent.UP:
            self._seat(worker)
        self.event(now, event, worker.id, detail or None)

    # ---- what the driver adds

    def started(self, attempt: Attempt, at: float) -> None:
        """An attempt's execution began. The coordinator may never hear of it: the worker may die first."""
        self._starts[attempt] = at

    def reported(self, task_id: Any, number: int, started_at: float | None, ran_s: float) -> None:
        """A report says when an attempt began, and how long it ran. Only the record still asks, if the coordinator had
        closed it. The report may be a repetition, and the news of the start late: what says the earliest is nearest."""
        row = self._silent.pop((task_id, number), None)
        if row is None:
            return
        told = list(self._attempts[row])
        if started_at is not None:
            told[_STARTED_S] = max(min(started_at, told[_STARTED_S]), told[_ASSIGNED_S])
            self._first_start[task_id] = min(told[_STARTED_S], self._first_start[task_id])
        told[_RAN_S] = max(0.0, ran_s)
        self._attempts[row] = tuple(told)

    def refused(self, task_id: Any, at: float) -> None:
        """The coordinator never took the task, and its client wants it no more."""
        self._tasks.append((task_id, _ABSENT, at, State.FAILED, 0, None))

    def event(self, time_s: float, kind: str, worker: str | None, detail: str | None = None) -> None:
        """A row of the events table. `kind`: a WorkerEvent or a FaultEvent; `worker`: None for the coordinator."""
        self._events.append((time_s, kind, worker, detail))

    def crashed(self, coordinator: Coordinator, stored: Mapping[Any, Recovered], at: float) -> None:
        """The coordinator ended at that time, and of what it decided only what is stored has happened: the rest is
        taken out. An attempt that counts by the store gets its row when it ends, under whichever coordinator."""
        self._pack()
        last = _Stored(stored)
        # Those that their clients gave up were never a coordinator's to lose.
        self._tasks = [task for task in self._tasks if task[0] in last.settled or math.isnan(task[1])]
        attempts, self._attempts = [*self._take_unsettled(last), *self._attempts], []
        self._silent, self._first_start, self._begun = {}, {}, {}
        for row in attempts:
            self._keep_or_leave_out(row if row[0] in last.settled else _given_up(row, at), last)
        for worker in coordinator.workers():
            for attempt in (*worker.open, *worker.abandoned):
                attempt.started_at = self._starts.pop(attempt, attempt.started_at)
                attempt.ended_at = at
                self._keep_or_leave_out(self._row_of(attempt), last)
        self._last_plain = None
        self._starts.clear()
        self._position.clear()

    def recovered(self, coordinator: Coordinator) -> None:
        """The next one goes on from what is stored."""
        for worker in coordinator.workers():
            self._seat(worker)
            for attempt in worker.open:
                start = self._begun.get(attempt.key)
                if start is not None:
                    self._starts[attempt] = start

    def close(self, coordinator: Coordinator) -> None:
        """At the end of a run, record the attempts still with a worker and the tasks not settled."""
        for worker in coordinator.workers():
            for attempt in (*worker.open, *worker.abandoned):
                self.ended(attempt, attempt.assigned_at)
        for task in coordinator.unsettled():
            self._task(task)

    def tables(
        self,
        arrival_s: Floats,
        service_s: Floats,
        priority: npt.NDArray[np.uint8],
        workers: Sequence[str],
        ended_s: float,
    ) -> Tables:
        """The record as tables, of a run that ended at `ended_s`.

        The plan's columns give what the coordinator does not know: float64[tasks] arrival and demand in seconds, and
        uint8[tasks] priority codes. `workers`: the names of all workers in the order of
        the tables, including those that never registered."""
        self._pack()
        place = {name: position for position, name in enumerate(workers)}
        places = np.array([place[name] for name in self._names], dtype=np.int64)
        plain = np.frombuffer(self._packed, dtype=np.float64).reshape(-1, _PLAIN)
        n = len(arrival_s)
        tasks: dict[str, npt.NDArray[Any]] = {
            "task": np.arange(n),
            "priority": priority,
            "arrival_s": arrival_s,
            "accepted_s": np.full(n, _ABSENT),
            "started_s": np.full(n, _ABSENT),
            "settled_s": np.full(n, _ABSENT),
            "service_s": service_s,
            "state": np.full(n, STATES.index(State.UNFINISHED)),
            "attempts": np.zeros(n, dtype=np.int64),
            "worker": np.full(n, -1),
        }
        rows = plain[:, 0].astype(np.int64)
        tasks["accepted_s"][rows] = plain[:, 2]
        tasks["started_s"][rows] = plain[:, 4]
        tasks["settled_s"][rows] = plain[:, 5]
        tasks["state"][rows] = STATES.index(State.COMPLETED)
        tasks["attempts"][rows] = 1
        attempts = self._attempt_columns(plain)
        attempts["worker"] = places[attempts["worker"]]
        tasks["worker"][rows] = attempts["worker"][: len(rows)]
        for name, column in self._other_tasks(place).items():
            tasks[name][column[0]] = column[1]
        again = self._settled_again(rows)
        if len(again):
            tasks = {name: np.concatenate([column, column[again]]) for name, column in tasks.items()}
        return Tables.from_columns(tasks, attempts, self._event_columns(place), workers, ended_s)

    # ---- inside

    def _seat(self, worker: Worker) -> None:
        """Note which worker has the slot from now on."""
        position, slot = self._position, worker.slot
        position.extend([-1] * (slot + 1 - len(position)))
        if position[slot] < 0 or self._names[position[slot]] != worker.id:
            position[slot] = len(self._names)
            self._names.append(worker.id)

    def _attempt(self, attempt: Attempt) -> None:
        assert isinstance(attempt.task.id, int)
        self._keep(self._row_of(attempt))

    def _row_of(self, attempt: Attempt) -> tuple[Any, ...]:
        return (
            attempt.task.id,
            attempt.number,
            self._position[attempt.worker.slot],
            attempt.assigned_at,
            attempt.started_at,
            attempt.given_up_at,
            attempt.ended_at,
            attempt.ran_s,
            int(attempt.outcome),
            attempt.settles,
        )

    def _keep(self, row: tuple[Any, ...]) -> None:
        task_id, number, start = row[0], row[1], row[_STARTED_S]
        if start is not None:
            self._first_start[task_id] = min(start, self._first_start.get(task_id, start))
            if row[_RAN_S] is None:
                self._silent[task_id, number] = len(self._attempts)
        self._attempts.append(row)

    def _keep_or_leave_out(self, row: tuple[Any, ...], stored: _Stored) -> None:
        """A row of a coordinator that is gone."""
        key = row[0], row[1]
        if key not in stored.held:
            if key[1] <= stored.attempts.get(key[0], 0):
                self._keep(row)
        elif row[_STARTED_S] is not None:
            self._begun[key] = row[_STARTED_S]

    def _take_unsettled(self, stored: _Stored) -> list[tuple[Any, ...]]:
        """The plain rows of tasks that are not settled after all, as rows of attempts."""
        plain = np.frombuffer(self._packed, dtype=np.float64).reshape(-1, _PLAIN)
        lasts = np.isin(plain[:, 0], np.array(list(stored.settled), dtype=np.float64))
        self._packed = array("d", plain[lasts].tobytes())
        return [
            (int(task), 1, int(position), assigned_s, started_s, None, ended_s, ran_s, int(_COMPLETED), True)
            for task, position, _, assigned_s, started_s, ended_s, ran_s in plain[~lasts].tolist()
        ]

    def _task(self, task: Task) -> None:
        state = _STATE_OF.get(task.state, State.UNFINISHED)
        self._tasks.append((task.id, task.submitted_at, task.settled_at, state, task.attempt, task.worker_id))

    def _pack(self) -> None:
        self._packed.fromlist(self._plain)
        self._plain.clear()

    def _settled_again(self, plain: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The tasks with more than one row, once each. The rows stay, so that the history checker sees them."""
        settled = np.concatenate([plain, np.array([task[0] for task in self._tasks], dtype=np.int64)])
        return np.flatnonzero(np.bincount(settled) > 1)

    def _other_tasks(self, place: Mapping[str, int]) -> dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """For each column of the tasks table: the rows and values of the tasks without a plain row."""
        if not self._tasks:
            return {}
        ids, accepted, settled, states, attempts, names = zip(*self._tasks, strict=True)
        rows = np.array(ids, dtype=np.int64)
        starts = [self._first_start.get(task_id, _ABSENT) for task_id in ids]
        return {
            "accepted_s": (rows, np.array(accepted, dtype=np.float64)),
            "started_s": (rows, np.array(starts, dtype=np.float64)),
            "settled_s": (rows, np.array(settled, dtype=np.float64)),
            "state": (rows, np.array([STATES.index(state) for state in states])),
            "attempts": (rows, np.array(attempts)),
            "worker": (rows, np.array([place.get(name, -1) for name in names])),
        }

    def _attempt_columns(self, plain: Floats) -> dict[str, npt.NDArray[Any]]:
        n = len(plain)
        absent = np.full(n, _ABSENT)
        columns: dict[str, npt.NDArray[Any]] = {
            "task": plain[:, 0].astype(np.int64),
            "attempt": np.ones(n, dtype=np.int64),
            "worker": plain[:, 1].astype(np.int64),
            "assigned_s": plain[:, 3],
            "started_s": plain[:, 4],
            "given_up_s": absent,
            "ended_s": plain[:, 5],
            "ran_s": plain[:, 6],
            "outcome": np.full(n, int(_COMPLETED)),
            "settled": np.ones(n, dtype=bool),
        }
        if not self._attempts:
            return columns
        others = list(zip(*self._attempts, strict=True))
        return {
            name: np.concatenate([column, np.array(values, dtype=column.dtype)])
            for (name, column), values in zip(columns.items(), others, strict=True)
        }

    def _event_columns(self, place: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        times, kinds, names, details = zip(*self._events, strict=True) if self._events else ((), (), (), ())
        workers = [-1 if name is None else place[name] for name in names]
        return {"time_s": times, "kind": kinds, "worker": workers, "detail": details}


class _Stored:
    """Of what is stored: which tasks are `settled`, the attempts that count (`held`), and how many each task had.
    Attempts beyond those never left their coordinator."""

    def __init__(self, tasks: Mapping[Any, Recovered]) -> None:
        self.settled = {task_id for task_id, task in tasks.items() if task.state >= TaskState.COMPLETED}
        self.held = {(task_id, each.number) for task_id, task in tasks.items() for each in task.held}
        self.attempts = {task_id: task.attempt for task_id, task in tasks.items()}


def _given_up(row: tuple[Any, ...], at: float) -> tuple[Any, ...]:
    """An attempt whose task is not settled. If it has settled it, that is not stored: that it had been given up before
    is, and the next coordinator knows nothing of it."""
    if not row[_SETTLED]:
        return row
    told = list(row)
    told[_ENDED_S], told[_SETTLED] = at, False
    if told[_OUTCOME] == _COMPLETED:
        told[_OUTCOME] = int(Outcome.WORKER_DIED)  # and it was open again since, which is not stored either
    return tuple(told)
