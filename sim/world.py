"""The simulated world: a scenario's plan, network, workers and faults around the coordinator.

It implements the core's `Effects`; every decision is the core's. A message is an event at the time of its arrival.

The fused path. An attempt on a worker without prefetch, which nothing can disturb before its result arrives (no loss,
no duplication, no fault, no timeout until then), is one event: the arrival of its result. Whatever may yet disturb it
(a conviction, a cancel, another attempt that is not fused) first unfuses the worker's attempts: each is put back
where it would be by now. `fuse=False` runs every attempt the long way; the tests compare both, task by task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from simpy.core import StopSimulation

from orchestrator.core.model import Attempt, Task, TaskId, Worker, WorkerId
from orchestrator.core.worker import Key
from orchestrator.experiment.assembly import build_coordinator
from orchestrator.experiment.distributions import Constant
from orchestrator.experiment.plan import ClosedArrivals, FaultAction, Plan
from orchestrator.experiment.recorder import Recorder
from orchestrator.experiment.scenario import Scenario
from orchestrator.experiment.streams import generator
from orchestrator.experiment.tables import Tables
from sim.arrivals import Clients, Submissions
from sim.environment import Environment
from sim.network import Leg, draws
from sim.worker import Job, Rank, SimWorker, number_of

_LEGS = (
    *("assign", "start", "result", "cancel", "cancelled"),
    *("heartbeat", "unknown", "register", "drain", "leave"),
)
# Numbers of a rank beyond those of any worker: a worker's second and third kind of event there.
_SECOND, _THIRD = 1 << 40, 2 << 40


def _events_per_s(scenario: Scenario, plan: Plan) -> float:
    """Two events a task and two a heartbeat, roughly; for closed clients as if each submitted once a second."""
    tasks = plan.arrivals.clients if isinstance(plan.arrivals, ClosedArrivals) else len(plan.arrivals)
    beats = len(scenario.worker_names()) / scenario.policies.detection.heartbeat_s
    return 2 * (tasks / scenario.duration_s + beats)


class World:
    """One run of a plan, replication `replication` of `scenario`."""

    def __init__(self, scenario: Scenario, plan: Plan, replication: int = 0, fuse: bool = True) -> None:
        network, seed, policies = scenario.network, scenario.seed, scenario.policies
        self.env = Environment(events_per_s=_events_per_s(scenario, plan))
        self._call_at = self.env.call_at
        self.recorder = Recorder()
        self.ended = self.recorder.ended
        self.heartbeat_s = policies.detection.heartbeat_s
        self._timeout_s = math.inf if policies.execution_timeout_s is None else policies.execution_timeout_s
        self._rpc_timeout_s = network.rpc_timeout_s
        legs = (
            "assign",
            "start",
            "result",
            "cancel",
            "cancelled",
            "heartbeat",
            "unknown",
            "register",
            "drain",
            "leave",
        )
        self._legs = {name: Leg(network, seed, replication, name) for name in legs}
        self._out_s, self._back_s = self._legs["assign"].delay, self._legs["result"].delay
        overhead = scenario.cluster.overhead or Constant(kind="constant", value_s=0.0)
        self._overhead_s = draws(overhead, generator(seed, replication, "overhead"))
        self._cost_s = scenario.coordinator.cost_s
        self._free_at, self._served = 0.0, 0
        self._wake_time = math.inf
        self._name_handlers()

        # Late reports come from attempts that are still known; only a copy of a message needs a longer memory.
        self.coordinator = build_coordinator(scenario, self, replication, 100_000 if network.duplicate else 1_000)
        fuse = fuse and network.loss == 0 and network.duplicate == 0
        self.workers = self._boot(scenario, generator(seed, replication, "phase", "heartbeat"), fuse)
        self._by_name = {worker.name: worker for worker in self.workers}
        self._down = 0
        self._returning = sum(action.starts for action in plan.faults)
        self._plan_faults(plan.faults)
        self.due = 0  # tasks that are not settled yet; of open arrivals, those to come included
        self._clients: Clients | None = None
        self.arrivals: Submissions | Clients
        if isinstance(plan.arrivals, ClosedArrivals):
            self.arrivals = self._clients = Clients(self, plan.arrivals, scenario, replication)
        else:
            self.arrivals = Submissions(self, plan.arrivals, scenario, replication)
        self._closing = False
        self.env.call_at(scenario.duration_s, Rank.STOP - 1, self._arrivals_over, None)
        if scenario.drain_s is not None:
            self._stop_at(scenario.duration_s + scenario.drain_s)

    @property
    def now(self) -> float:
        return self.env._now

    def run(self) -> None:
        """Until everything is settled after the last arrival, or what remains can't be. A KeyboardInterrupt leaves
        the record of what was done until then."""
        self.env.run_callbacks()

    def watch(self, every_s: float, progress: Callable[[float], None]) -> None:
        """Call `progress(now)` every so many simulated seconds; it changes nothing else."""

        def tick(_: None) -> None:
            progress(self.now)
            self.watch(every_s, progress)

        self.env.call_at(self.now + every_s, Rank.TICK, tick, None)

    def tables(self) -> Tables:
        """What the run leaves behind; to be asked once, at its end."""
        self.recorder.close(self.coordinator)
        return self.recorder.tables(*self.arrivals.columns(), [worker.name for worker in self.workers])

    def _name_handlers(self) -> None:
        """What the coordinator does with each kind of message, behind its queue."""
        self._on_fused_result = self.received(self._fused_result)
        self._on_result = self.received(self._result)
        self._on_start = self.received(self._start)
        self._on_refusal = self.received(self._refusal)
        self._on_call_failed = self.received(self._call_failed)
        self._on_cancelled = self.received(self._cancelled)
        self._on_heartbeat = self.received(self._heartbeat)
        self._on_register = self.received(self._register_again)
        self._on_drain = self.received(self._drain)
        self._on_leave = self.received(self._leave)

    def _boot(self, scenario: Scenario, phases: np.random.Generator, fuse: bool) -> list[SimWorker]:
        """The cluster as it stands at the beginning: every worker registered, each at its own phase of beating."""
        workers: list[SimWorker] = []
        names = iter(scenario.worker_names())
        for group in scenario.cluster.groups:
            prefetch = math.inf if group.prefetch == "unlimited" else group.prefetch
            for _ in range(group.workers):
                slot = len(workers)
                may_fuse = fuse and prefetch == 0
                workers.append(SimWorker(self, slot, next(names), group.capacity, prefetch, group.speed, may_fuse))
        for worker, phase in zip(workers, phases.random(len(workers)).tolist(), strict=True):
            worker.boot(phase * self.heartbeat_s)
            self._register(worker)
            record = self.coordinator.worker(worker.name)
            assert record is not None
            worker.record = record
        return workers

    def _plan_faults(self, faults: list[FaultAction]) -> None:
        times: dict[str, list[float]] = {}
        for number, action in enumerate(faults):
            assert action.worker is not None
            times.setdefault(action.worker, []).append(action.time_s)
            self.env.call_at(action.time_s, Rank.FAULT + number, self._strike, action)
        for name, at in times.items():
            self._by_name[name].expect(at)

    # ---- effects of the core

    def accepted(self, task: Task, now: float) -> None:
        pass

    def assign(self, attempt: Attempt, now: float) -> None:
        worker = self.workers[attempt.worker.slot]
        out_s, back_s = self._out_s(), self._back_s()
        # The payload is the demand, in seconds.
        work_s = attempt.task.payload / worker.speed + self._overhead_s()  # type: ignore[operator]
        if worker.fusible and not worker.jobs:
            start = now + out_s
            finish = start + work_s
            back = finish + back_s
            if back < worker.next_fault_s and back < now + self._timeout_s:
                attempt.note = (start, finish, back)
                self._call_at(back, Rank.RESULT + number_of(attempt) + 2, self._on_fused_result, attempt)
                return
        self._unfuse(worker, now)
        self._send_assignment(Job(attempt, worker, work_s, back_s), out_s, now)

    def cancel(self, attempt: Attempt, now: float) -> None:
        self._unfuse(self.workers[attempt.worker.slot], now)
        leg = self._legs["cancel"]
        delay_s = leg.delay()
        if not leg.lost():
            self.env.call_at(now + delay_s, Rank.DELIVER + number_of(attempt) + 3, self._deliver_cancel, attempt)

    def settled(self, task: Task, now: float) -> None:
        self.recorder.settled(task, now)
        self.due -= 1
        if self._clients is not None:
            self._clients.settled(task, now)
        if not self.due and self._closing:
            self._stop_at(now)

    def acknowledged(self, worker_id: WorkerId, task_id: TaskId, number: int | None, known: bool) -> None:
        pass

    def heartbeat_answered(self, worker_id: WorkerId, known: bool) -> None:
        if not known:
            worker, leg = self._by_name[worker_id], self._legs["unknown"]
            delay_s = leg.delay()
            if not leg.lost():
                self.env.call_at(self.now + delay_s, Rank.BEAT + _SECOND + worker.slot, self._deliver_unknown, worker)

    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None:
        self.recorder.worker_changed(worker, kind, detail, now)
        if kind == "dead":
            self._unfuse(self.workers[worker.slot], now)

    def wake_at(self, at: float) -> None:
        self._wake_time = at
        self.env.call_at(at, Rank.WAKE, self._wake, at)

    # ---- messages to the workers

    def _send_assignment(self, job: Job, out_s: float, now: float) -> None:
        leg = self._legs["assign"]
        job.worker.jobs[job.key] = job
        job.call_ends_at = now + self._rpc_timeout_s
        if leg.lost():
            self.env.call_at(job.call_ends_at, Rank.REFUSAL + job.number, self._call_lost, job)
        else:
            self.env.call_at(now + out_s, Rank.DELIVER + job.number, self._deliver, job)
        if leg.duplicated():
            self.env.call_at(now + leg.delay(), Rank.DELIVER + job.number + 1, self._deliver_copy, job)

    def _deliver(self, job: Job) -> None:
        worker = job.worker
        if not worker.up:
            self.env.call_at(self.now + job.back_s, Rank.REFUSAL + job.number, self._on_call_failed, job)
            return
        if worker.paused:
            at = max(self.now, job.call_ends_at)
            self.env.call_at(at, Rank.REFUSAL + job.number, self._call_unanswered, job)
        worker.receive(worker.take, job)

    def _deliver_copy(self, job: Job) -> None:
        job.worker.receive(job.worker.take, job)

    def _deliver_cancel(self, attempt: Attempt) -> None:
        worker = self.workers[attempt.worker.slot]
        worker.receive(self._hand_over_cancel, attempt)

    def _hand_over_cancel(self, attempt: Attempt) -> None:
        self.workers[attempt.worker.slot].agent.cancel((attempt.task.id, attempt.number), self.now)

    def _deliver_unknown(self, worker: SimWorker) -> None:
        worker.receive(self._begin_again, worker)

    def _begin_again(self, worker: SimWorker) -> None:
        worker.agent.start_over(self.now)
        self.send_registration(worker, self.now)

    # ---- messages to the coordinator, as the workers send them

    def send_refusal(self, job: Job, now: float) -> None:
        self.env.call_at(now + job.back_s, Rank.REFUSAL + job.number + 1, self._on_refusal, job)

    def send_start(self, job: Job, now: float) -> None:
        self.env.call_at(self._in_the_end("start", now), Rank.START + job.number, self._on_start, job)

    def send_result(self, job: Job, now: float) -> None:
        leg = self._legs["result"]
        if leg.lost():
            at = now + self._rpc_timeout_s
            self.env.call_at(at, Rank.DELIVER + job.number + 2, self._deliver_report_failed, job)
        else:
            self.env.call_at(now + job.back_s, Rank.RESULT + job.number, self._on_result, job)
        if leg.duplicated():
            self.env.call_at(now + leg.delay(), Rank.RESULT + job.number + 1, self._on_result, job)

    def send_cancelled(self, worker: SimWorker, key: Key, now: float) -> None:
        leg = self._legs["cancelled"]
        delay_s = leg.delay()
        if not leg.lost():
            task, number = key
            rank = Rank.CANCELLED + (task << 24 | number)  # type: ignore[operator]
            self.env.call_at(now + delay_s, rank, self._on_cancelled, (worker.name, task, number))

    def send_heartbeat(self, worker: SimWorker, active: int, now: float) -> None:
        for attempt in worker.record.open:
            if attempt.note is not None and attempt.note[0] <= now < attempt.note[1]:
                active += 1
        leg = self._legs["heartbeat"]
        worker.beats += 1
        key = Rank.HEARTBEAT + (worker.slot << 36) + 2 * worker.beats
        delay_s = leg.delay()
        if not leg.lost():
            self.env.call_at(now + delay_s, key, self._on_heartbeat, (worker.name, active))
        if leg.duplicated():
            self.env.call_at(now + leg.delay(), key + 1, self._on_heartbeat, (worker.name, active))

    def send_registration(self, worker: SimWorker, now: float) -> None:
        self.env.call_at(self._in_the_end("register", now), Rank.REGISTER + worker.slot, self._on_register, worker)

    def send_drain(self, worker: SimWorker, now: float) -> None:
        at = self._in_the_end("drain", now)
        self.env.call_at(at, Rank.REGISTER + _SECOND + worker.slot, self._on_drain, worker)

    def send_leave(self, worker: SimWorker, now: float) -> None:
        self._down += 1
        at = self._in_the_end("leave", now)
        self.env.call_at(at, Rank.REGISTER + _THIRD + worker.slot, self._on_leave, worker)

    def _in_the_end(self, kind: str, now: float) -> float:
        """When a message of that kind arrives that is sent again until it does."""
        leg = self._legs[kind]
        at = now + leg.delay()
        while leg.lost():
            at += self._rpc_timeout_s
        return at

    # ---- messages at the coordinator

    def received(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        """The handler, behind the coordinator's own queue where a message costs it time: one server, FIFO."""
        if not self._cost_s:
            return handler

        def wait(argument: Any) -> None:
            self._free_at = max(self.env._now, self._free_at) + self._cost_s
            self._served += 1
            self.env.call_at(self._free_at, Rank.SERVER + self._served, handler, argument)

        return wait

    def _fused_result(self, attempt: Attempt) -> None:
        note = attempt.note
        if note is not None:
            attempt.note = None
            start, finish, _ = note
            self.coordinator.result(
                attempt.worker.id,
                attempt.task.id,
                attempt.number,
                True,
                None,
                "",
                False,
                start,
                finish - start,
                self.env._now,
            )

    def _result(self, job: Job) -> None:
        worker, attempt = job.worker, job.attempt
        if worker.jobs.get(job.key) is job:
            del worker.jobs[job.key]
        assert job.started_at is not None
        self.coordinator.result(
            worker.name, attempt.task.id, attempt.number, True, None, "", False,
            job.started_at, job.finish_at - job.started_at, self.now,
        )  # fmt: skip
        worker.receive(self._acknowledge, job)

    def _acknowledge(self, job: Job) -> None:
        job.worker.agent.reported(job.key, self.now)

    def _deliver_report_failed(self, job: Job) -> None:
        job.worker.receive(self._report_failed, job)

    def _report_failed(self, job: Job) -> None:
        job.back_s = self._legs["result"].delay()
        job.worker.agent.report_failed(job.key, self.now)

    def _start(self, job: Job) -> None:
        self.coordinator.started(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _refusal(self, job: Job) -> None:
        self.coordinator.rejected(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _call_failed(self, job: Job) -> None:
        self.coordinator.call_failed(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _call_lost(self, job: Job) -> None:
        job.worker.jobs.pop(job.key, None)
        self._on_call_failed(job)

    def _call_unanswered(self, job: Job) -> None:
        if not job.answered:
            self._on_call_failed(job)

    def _cancelled(self, event: tuple[WorkerId, TaskId, int]) -> None:
        self.coordinator.cancelled(*event, self.now)

    def _heartbeat(self, event: tuple[WorkerId, int]) -> None:
        self.coordinator.heartbeat(*event, self.env._now)

    def _register(self, worker: SimWorker) -> None:
        self.coordinator.register(worker.name, worker.capacity, worker.prefetch, True, self.now)

    def _register_again(self, worker: SimWorker) -> None:
        self._unfuse(worker, self.now)  # what it was given since it restarted, the coordinator now gives up
        self._register(worker)

    def _drain(self, worker: SimWorker) -> None:
        self.coordinator.drain(worker.name, self.now)

    def _leave(self, worker: SimWorker) -> None:
        self.coordinator.deregister(worker.name, self.now)
        self._end_if_hopeless(self.now)

    def _wake(self, at: float) -> None:
        if at == self._wake_time:
            self.coordinator.wake(at)

    # ---- the fused path

    def _unfuse(self, worker: SimWorker, now: float) -> None:
        """Put each fused attempt of the worker back where it would be by now."""
        for attempt in (*worker.record.open, *worker.record.abandoned):
            if attempt.note is None:
                continue  # it went the long way
            start, finish, back = attempt.note
            if now >= finish:
                self.recorder.started(attempt, start)
                continue  # it has left the worker: its result is on the way, and may yet be overtaken
            attempt.note = None
            job = Job(attempt, worker, finish - start, back - finish)
            worker.jobs[job.key] = job
            if now < start:
                self.env.call_at(start, Rank.DELIVER + job.number, self._deliver, job)
            else:
                worker.adopt(job, start, finish)

    # ---- faults, and the end

    def drain(self, name: str) -> None:
        """Ask a worker to leave."""
        worker = self._by_name[name]
        self._unfuse(worker, self.now)
        worker.drain(self.now)

    def _strike(self, action: FaultAction) -> None:
        assert action.worker is not None
        worker, now = self._by_name[action.worker], self.now
        worker.struck()
        kind = action.kind
        if kind == "crash" and not action.heals:
            worker.crash()
            self._down += 1
        elif kind == "crash":
            worker.boot(now + self.heartbeat_s)
            self._down -= 1
            self._returning -= 1
            self.send_registration(worker, now)
        elif action.heals:
            worker.resume(now)
        else:
            worker.pause(now)
        detail = {"crash": "restart", "pause": "resume"}[kind] if action.heals else None
        self.recorder.event(now, "heal" if action.heals else kind, worker.name, detail)
        self._end_if_hopeless(now)

    def _arrivals_over(self, _: None) -> None:
        self._closing = True
        if not self.due:
            self._stop_at(self.now)
        self._end_if_hopeless(self.now)

    def _end_if_hopeless(self, now: float) -> None:
        """No worker is up, and none will come back."""
        if self._closing and self._down == len(self.workers) and not self._returning:
            self._stop_at(now)

    def _stop_at(self, at: float) -> None:
        self.env.call_at(at, Rank.STOP, self._stop, None)

    def _stop(self, _: None) -> None:
        raise StopSimulation
