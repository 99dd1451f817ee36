"""The fused path: an attempt that nothing can disturb is one event, the arrival of its result.

An attempt is fused at its assignment if its worker has no prefetch, the network loses and repeats none of its messages,
the worker's process, host and links are in order, and no fault and no timeout comes before the result. Something may
still disturb it: the worker is declared dead, the attempt is cancelled, or another attempt of the worker is not fused.
Then all attempts of the worker are unfused first: each is put back where it would be by now. `World(fuse=False)` runs
every attempt the long way, and the tests compare both, task by task.

The state of a fused attempt is in `attempt.note`, which is None for any other attempt: a mere tuple with the fields of
the `Fused` record, because every task makes one and reads it once, and a named tuple takes twice as long for that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.model import Attempt
from sim import keys
from sim.environment import Environment
from sim.inbox import Inbox
from sim.to_coordinator import ToCoordinator
from sim.to_workers import ToWorkers
from sim.worker import Job, SimWorker


class Fused(NamedTuple):
    """When its execution begins and ends, its demand on this worker, and the delay of its result.

    `arrived`: the result waits in the queue of the coordinator's server.
    """

    starts_at: float
    finishes_at: float
    work_s: float
    result_delay_s: float
    arrived: bool = False


class FusedPath:
    """`result`: handles the event that a fused attempt is. `unfused_result`: what the coordinator does with the
    report of an attempt that is not fused. `execution_started`: for the record."""

    def __init__(
        self,
        env: Environment,
        coordinator: Coordinator,
        inbox: Inbox,
        to_workers: ToWorkers,
        to_coordinator: ToCoordinator,
        rpc_timeout_s: float,
        unfused_result: Callable[[Job], None],
        execution_started: Callable[[Attempt, float], None],
    ) -> None:
        self._env = env
        self._coordinator = coordinator
        self._to_workers = to_workers
        self._to_coordinator = to_coordinator
        self._rpc_timeout_s = rpc_timeout_s
        self._unfused_result = unfused_result
        self._execution_started = execution_started
        self._unfused_in_queue: dict[Attempt, Job] = {}
        self._queued = inbox.received(self._served)
        # No pause of the coordinator meets a fused result: a pause is a fault.
        self.result: Callable[[Attempt], None] = self._arrives if inbox.queues else self._result

    def unfuse(self, worker: SimWorker) -> None:
        """Put each fused attempt of the worker back where it would be by now."""
        held = (*worker.record.open, *worker.record.abandoned)
        if not worker.may_fuse or not held:
            return
        now = self._env._now
        fused = [(attempt, Fused(*attempt.note)) for attempt in held if attempt.note is not None]
        fused.sort(key=lambda pair: (pair[1].finishes_at, keys.attempt_number(pair[0])))  # the order of their ends
        for attempt, was in fused:
            attempt.note = None
            call_ends_at = attempt.assigned_at + self._rpc_timeout_s
            fates = (was.result_delay_s, None), (None, None)  # its worker has no prefetch, and tells no start
            job = Job(attempt, worker, was.work_s, was.result_delay_s, fates, call_ends_at)
            worker.jobs[job.key] = job
            if now < was.starts_at:
                self._to_workers.deliver_at(was.starts_at, job)
                continue
            worker.restore(job, was.starts_at, was.finishes_at)
            if was.arrived:
                self._unfused_in_queue[attempt] = job
            elif now >= was.finishes_at:
                self._to_coordinator.deliver_result_at(was.finishes_at + was.result_delay_s, job)

    def note_starts(self, worker: SimWorker) -> None:
        """At the end of a run: record the starts of fused attempts that still run."""
        for attempt in (*worker.record.open, *worker.record.abandoned):
            if attempt.note is not None:
                starts_at = Fused(*attempt.note).starts_at
                if starts_at <= self._env._now:
                    self._execution_started(attempt, starts_at)

    def _result(self, attempt: Attempt) -> None:
        if attempt.note is not None:
            starts_at, finishes_at, _, _, _ = attempt.note
            attempt.note = None
            # A mere tuple with the fields of a Report: a named one costs 3,000 instructions more, of 85,000 for a task.
            report: Any = (
                attempt.worker.id,
                attempt.task.id,
                attempt.number,
                True,
                None,
                "",
                False,
                starts_at,
                finishes_at - starts_at,
                None,
                0.0,
            )
            self._coordinator.result(report, self._env._now)

    def _arrives(self, attempt: Attempt) -> None:
        """Where messages wait for each other, the attempt may be unfused while its result does."""
        if attempt.note is not None:
            fused = Fused(*attempt.note)
            attempt.note = fused._replace(arrived=True)
            self._execution_started(attempt, fused.starts_at)  # it may be given up while its result waits
            self._queued(attempt)

    def _served(self, attempt: Attempt) -> None:
        job = self._unfused_in_queue.pop(attempt, None)
        if job is None:
            self._result(attempt)
        else:
            self._unfused_result(job)
