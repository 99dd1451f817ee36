"""The simulated world: a scenario's plan, network, workers and faults around the coordinator.

It implements the core's `Effects`; every decision is the core's. A message is an event at the time of its arrival.
`sim.keys` orders simultaneous events, `sim.fused` explains the fused path.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from simpy.core import StopSimulation

from orchestrator.core.coordinator import Coordinator
from orchestrator.core.culprit import explained
from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import Attempt, AttemptKey, Detail, Task, TaskId, Worker, WorkerEvent, WorkerId
from orchestrator.core.ports import Effects
from orchestrator.policies.settings import build_coordinator
from orchestrator.results.recorder import Recorder
from orchestrator.results.sweeps import Progress
from orchestrator.results.tables import Tables
from orchestrator.scenario.driving import RunEnd
from orchestrator.scenario.plan import ClosedArrivals, FaultAction, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim import keys
from sim.arrivals import ClientSubmissions, OpenSubmissions
from sim.draws import AttemptDraws, Draws, fates_of
from sim.environment import Environment
from sim.faults import Faults
from sim.fused import FusedPath
from sim.inbox import Handler, Handlers, Inbox
from sim.keys import fused_result_key
from sim.network import MessageKind
from sim.patience import Impatient
from sim.refusals import Refusals
from sim.to_coordinator import Introduction, ToCoordinator
from sim.to_workers import ToWorkers
from sim.worker import Job, SimWorker

_REPORTS = 200
"""How often progress is reported while tasks arrive."""


def _events_per_s(scenario: Scenario, plan: Plan) -> float:
    """Two events for each task and each heartbeat, roughly. Closed clients count as if each submitted once a second."""
    tasks = plan.arrivals.clients if isinstance(plan.arrivals, ClosedArrivals) else len(plan.arrivals)
    beats = len(scenario.worker_names()) / scenario.policies.detection.heartbeat_s
    return 2 * (tasks / scenario.duration_s + beats)


class World:
    """One run of a plan, replication `replication` of `scenario`.

    A subclass that delays effects overrides `_release`, and passes `fuse=False`.
    """

    def __init__(self, scenario: Scenario, plan: Plan, replication: int = 0, fuse: bool = True) -> None:
        network, seed, policies = scenario.network, scenario.seed, scenario.policies
        stream = partial(generator, seed, replication)
        message_kind = partial(MessageKind, network, seed, replication)
        self.env = Environment(events_per_s=_events_per_s(scenario, plan))
        self.recorder = Recorder()
        self.ended = self.recorder.ended
        self._duration_s = scenario.duration_s
        self._heartbeat_s = policies.detection.heartbeat_s
        self._rpc_timeout_s = network.rpc_timeout_s
        self._draws = AttemptDraws(scenario, replication)
        self._alarm_at = math.inf
        self._next_request = 0
        self._reports: dict[int, Job] = {}  # by the request that names them at the coordinator
        self._scenario, self._replication = scenario, replication
        # Late reports come from attempts that are still known; only a copy of a message needs a longer memory.
        self.coordinator = self._new_coordinator(100_000 if network.duplicate else 1_000)

        pauses = any(action.worker is None for action in plan.faults)
        self.inbox = Inbox(self.env, scenario.coordinator.cost_s, pauses)
        self._handlers = self._name_handlers()
        self._to_workers = ToWorkers(self.env, network, message_kind, self._handlers, self._register_again)
        workers = len(scenario.worker_names())
        self._to_coordinator = ToCoordinator(
            self.env, network, message_kind, workers, self._heartbeat_s, self._handlers, self._to_workers
        )
        self._fused_path = FusedPath(
            self.env,
            self.coordinator,
            self.inbox,
            self._to_workers,
            self._to_coordinator,
            network.rpc_timeout_s,
            self._result,
            self.recorder.started,
        )
        # Bound once: the fused path calls these for every task.
        self._call_at = self.env.call_at
        self._fused_result = self._fused_path.result
        self._draws_of = self._draws.of
        self._record_settled = self.recorder.settled
        self.unfuse = self._fused_path.unfuse

        self._impatient: Impatient | None = None
        self.workers: list[SimWorker] = []
        self.by_name: dict[WorkerId, SimWorker] = {}
        self._by_slot: list[SimWorker] = []
        self._make_workers(scenario, fuse)
        self.faults = Faults(self, scenario, plan, replication)
        self._phases = stream("phase", "heartbeat").random(len(self.workers)) * self._heartbeat_s
        self._absent = plan.absent
        self._submit_all(scenario, plan, replication)
        self.env.call_at(scenario.duration_s, keys.Rank.ARRIVALS_OVER, self._arrivals_over, None)
        if scenario.drain_s is not None:
            self._stop_at(scenario.duration_s + scenario.drain_s)

    @property
    def now(self) -> float:
        return self.env._now

    def run(self) -> None:
        """Run until everything is settled after the last arrival, or what remains can't be.

        After a KeyboardInterrupt the record holds what was done until then. Raises PolicyError if a policy fails.
        """
        try:
            self._boot()
            self.env.run_callbacks()
        except Exception as error:  # whatever a policy raises
            fault = explained(self.coordinator, error)
            if fault is None or fault is error:
                raise
            raise fault from error

    def watch(self, progress: Progress) -> None:
        """Report now and then which share of the scenario's duration is over. It changes nothing else."""
        self.env.call_at(self.now + self._duration_s / _REPORTS, keys.Rank.PROGRESS, self._report, progress)

    def listen(self, heard: Callable[[WorkerId, float, float], None]) -> None:
        """Report every heartbeat as the coordinator gets it: when it was sent, and the time. Call this before the
        run."""

        def hear(beat: tuple[WorkerId, int, float]) -> None:
            heard(beat[0], beat[2], self.env._now)
            self._heartbeat(beat)

        self._handlers.heartbeat = self.inbox.received(hear)

    def tables(self) -> Tables:
        """What the run leaves behind. Call this once, at its end."""
        for worker in self.workers:
            self._fused_path.note_starts(worker)
        self.recorder.close(self.coordinator)
        tables = self.recorder.tables(*self.arrivals.columns(), [worker.name for worker in self.workers], self.now)
        return tables.with_kinds(self.arrivals.kinds())

    def check(self) -> None:
        """Raise InvariantError where an invariant of the coordinator or of a worker's agent does not hold."""
        self.coordinator.check()
        for worker in self.workers:
            if worker.up:
                worker.agent.check()

    # ---- the parts

    def _new_coordinator(self, keep_settled: float, effects: Effects | None = None, term: int = 1) -> Coordinator:
        scenario = self._scenario
        return build_coordinator(
            scenario.policies,
            effects or self,
            scenario.seed,
            self._replication,
            keep_settled=keep_settled,
            term=term,
            call_timeout_s=self._rpc_timeout_s,
            max_waiting=scenario.coordinator.max_waiting,
        )

    def _from_clients(self, handler: Handler) -> Handler:
        """What the coordinator does with a submission, behind the queue of its server."""
        return self.inbox.received(handler)

    def _name_handlers(self) -> Handlers:
        received = self.inbox.received
        return Handlers(
            result=received(self._result, held=self._result_held),
            start=received(self._start),
            refusal=received(self._refusal),
            call_failed=received(self._call_failed),
            call_ended=self.inbox.awake(self._call_ended),
            cancelled=received(self._cancelled),
            heartbeat=received(self._heartbeat),
            register=received(self._register),
            connection_lost=received(self._connection_lost),
            drain=received(self._drain),
            leave=received(self._leave),
        )

    def _make_workers(self, scenario: Scenario, may_fuse: bool) -> None:
        names = iter(scenario.worker_names())
        for group in scenario.cluster.groups:
            prefetch = math.inf if group.prefetch == "unlimited" else group.prefetch
            for _ in range(group.workers):
                self.add_worker(next(names), group.capacity, prefetch, group.speed, may_fuse and prefetch == 0)

    def add_worker(
        self, name: str, capacity: int, prefetch: float, speed: float = 1.0, may_fuse: bool = False
    ) -> SimWorker:
        """A worker that has no process yet."""
        worker = SimWorker(
            len(self.workers),
            name,
            capacity,
            prefetch,
            speed,
            may_fuse,
            self._heartbeat_s,
            self.env,
            self._to_coordinator,
            self.recorder.started,
        )
        self.workers.append(worker)
        self.by_name[name] = worker
        return worker

    def _boot(self) -> None:
        """At the beginning the workers that are present are registered, and each has its phase of beating."""
        for worker, phase_s in zip(self.workers, self._phases.tolist(), strict=True):
            if worker.name not in self._absent:
                worker.boot(phase_s)
                self._register(Introduction(worker, worker.life, ()))

    def _submit_all(self, scenario: Scenario, plan: Plan, replication: int) -> None:
        arrivals = plan.arrivals
        received: Callable[[Handler], Handler] = self._from_clients
        resubmit = scenario.workload.resubmit
        if resubmit is not None:
            self._impatient = Impatient(self.env, resubmit, self._draws, lambda *task: self.arrivals.repeat(*task))
            received = self._impatient.patient(received)
        due = 0 if isinstance(arrivals, ClosedArrivals) else len(arrivals)
        self.end = RunEnd(due, lambda: self._stop_at(self.now), self._is_hopeless)
        again = self.inbox.received, scenario, replication, self._submit_refused, self._given_up
        self._refusals = Refusals(self.env, *again)
        self._clients: ClientSubmissions | None = None
        self.arrivals: OpenSubmissions | ClientSubmissions
        of_run = scenario, replication, self.end, self._draws, self._refusals.over
        if isinstance(arrivals, ClosedArrivals):
            self._clients = ClientSubmissions(self.env, self.coordinator, received, arrivals, *of_run)
            self.arrivals = self._clients
        else:
            self.arrivals = OpenSubmissions(self.env, self.coordinator, received, arrivals, *of_run)

    # ---- effects of the core

    def _release(self, peer: str, send: Callable[..., None], *values: object) -> None:
        """Every effect that goes to a peer passes here, off the fused path. `values` are the effect's own copies."""
        send(*values)

    def accepted(self, task: Task, now: float) -> None:
        pass

    def refused(self, task: Task, why: str, now: float) -> None:
        self._release(f"client of {task.id}", self._refusals.later, task)

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        if request is not None:
            to = self.by_name[worker.id]
            self._release(
                worker.id, self._to_workers.send_registered, to, request, self.coordinator.term, tuple(dropped)
            )

    def assign(self, attempt: Attempt, now: float) -> None:
        worker = self._by_slot[attempt.worker.slot]
        # The payload holds the demand, in seconds, and what was drawn for the first attempt.
        draws: Draws = attempt.task.payload if attempt.number == 1 else self._draws_of(attempt)  # type: ignore[assignment]
        service_s, overhead_s, delay_s, result_delay_s, _, fates = draws
        work_s = service_s / worker.speed + overhead_s
        if fates is None and worker.fusible and not worker.jobs:
            starts_at = now + delay_s
            finishes_at = starts_at + work_s
            arrives_at = finishes_at + result_delay_s
            undisturbed = arrives_at < worker.next_fault_s and arrives_at < attempt.times_out_at
            if undisturbed and starts_at >= worker.registered_arrives_at:
                attempt.note = starts_at, finishes_at, work_s, result_delay_s, False
                self._call_at(arrives_at, fused_result_key(attempt), self._fused_result, attempt)
                return
        self.unfuse(worker)
        there, back, start = fates_of(draws)
        job = Job(attempt, worker, work_s, result_delay_s, (back, start), now + self._rpc_timeout_s)
        self._release(worker.name, self._to_workers.send_assignment, job, there)

    def cancel(self, attempt: Attempt, now: float) -> None:
        worker = self._by_slot[attempt.worker.slot]
        self.unfuse(worker)
        number = keys.attempt_number(attempt)
        self._release(worker.name, self._to_workers.send_cancel, worker, attempt.key, number)

    def timed_out(self, attempt: Attempt, now: float) -> None:
        pass

    def settled(self, task: Task, now: float) -> None:
        self._record_settled(task, now)
        number: Any = task.id
        first = self._impatient is None or self._impatient.settled(number)
        if first and self._clients is not None:
            client = self._clients.client_of(number)
            self._release(f"client {client}", self._clients.send_settled, number)
        self.end.settled()

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        self._release(worker_id, self._to_workers.send_acknowledgement, self._reports.pop(request))

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        if not known:
            self._release(worker_id, self._to_workers.send_unknown, self.by_name[worker_id])

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        self.recorder.worker_changed(worker, event, detail, now)
        if event is WorkerEvent.DEAD:
            self.unfuse(self._by_slot[worker.slot])
        elif detail == Detail.REGISTERED:
            self._introduce(worker)

    def wake_at(self, at: float) -> None:
        self._alarm_at = at
        self.env.call_at(max(at, self.env._now), keys.Rank.ALARM, self._wake, at)

    def _submit_refused(self, task: Task) -> None:
        self.coordinator.submit(task.id, task.priority, task.payload, task.limits, self.now)

    def _given_up(self, task: int) -> None:
        """Its client does not want it any more, and the coordinator never took it."""
        self.recorder.refused(task, self.now)
        self._told_settled(task)

    def _told_settled(self, number: Any) -> None:
        first = self._impatient is None or self._impatient.settled(number)
        if first and self._clients is not None:
            self._clients.send_settled(number)
        self.end.settled()

    def _introduce(self, record: Worker) -> None:
        """The coordinator has a new record of a worker. Its slot may have been another worker's."""
        worker = self.by_name[record.id]
        worker.record = record
        self._by_slot[record.slot : record.slot + 1] = [worker]

    # ---- messages at the coordinator

    def _result(self, job: Job) -> None:
        worker = job.worker
        if worker.jobs.get(job.key) is job:
            del worker.jobs[job.key]
        self._next_request += 1
        self._reports[self._next_request] = job
        report = self._report_of(job, self._next_request)
        self.coordinator.result(report, self.now)
        if job.attempt.ran_s is None and report.ran_s is not None:  # it was closed before
            self.recorder.reported(*job.key, report.started_at, report.ran_s)

    def _report_of(self, job: Job, request: int) -> Report:
        assert job.started_at is not None
        task, number = job.key
        return Report(
            job.worker.name,
            task,
            number,
            succeeded=True,
            started_at=job.started_at,
            ran_s=job.finish_at - job.started_at,
            request=request,
        )

    def _result_held(self, job: Job) -> None:
        """The coordinator stands still as a report arrives: its sender does not wait for ever."""
        self._to_workers.watch_report(job)

    def _start(self, job: Job) -> None:
        job.call.answer_in_time = True
        self.coordinator.started(job.worker.name, *job.key, self.now)

    def _refusal(self, job: Job) -> None:
        self.coordinator.rejected(job.worker.name, *job.key, self.now)

    def _call_failed(self, job: Job) -> None:
        self.coordinator.call_failed(job.worker.name, *job.key, self.now)

    def _call_ended(self, job: Job) -> None:
        if not job.answer_in_time:
            self._handlers.call_failed(job)

    def _cancelled(self, answer: tuple[WorkerId, TaskId, int]) -> None:
        self.coordinator.cancelled(*answer, self.now)

    def _heartbeat(self, beat: tuple[WorkerId, int, float]) -> None:
        self.coordinator.heartbeat(beat[0], beat[1], None, self.env._now)

    def _register(self, introduction: Introduction) -> None:
        worker, life, held = introduction
        self.unfuse(worker)  # the coordinator may give up what it assigned since the process sent this
        incarnation = f"{life}"  # names the process
        request = self._request_of(introduction)
        registration = Registration(worker.name, incarnation, worker.capacity, worker.prefetch, True, held, request)
        if self.coordinator.knows_incarnation(worker.name, incarnation):
            self.coordinator.reconnected(registration, self.now)
        else:
            self.coordinator.register(registration, self.now)

    def _request_of(self, introduction: Introduction) -> int | None:
        """To a process that held nothing the answer says nothing."""
        return introduction.life if introduction.held else None

    def _connection_lost(self, worker: SimWorker) -> None:
        self.unfuse(worker)
        self.coordinator.connection_lost(worker.name, self.now)

    def _drain(self, worker: SimWorker) -> None:
        self.coordinator.drain(worker.name, self.now)

    def _leave(self, worker: SimWorker) -> None:
        self.unfuse(worker)  # it may be a new process already: the leave of the old one was late
        self.coordinator.deregister(worker.name, self.now)
        self.check_hopeless()

    def _wake(self, at: float) -> None:
        if at == self._alarm_at and not self.inbox.asleep:
            self._alarm_at = math.inf
            self.coordinator.wake(self.env._now)

    # ---- faults, and the end

    def start_process(self, worker: SimWorker) -> None:
        """Start a process of a worker that has none."""
        worker.boot(self.now + self._heartbeat_s)
        self._to_coordinator.send_registration(worker)

    def drain(self, name: str) -> None:
        """Ask a worker to leave; a paused one hears it when it goes on."""
        worker = self.by_name[name]
        self.unfuse(worker)
        worker.receive(SimWorker.drain, worker)

    def disconnect(self, name: str) -> None:
        """Break a worker's connection. Its process runs on, and registers again in the same incarnation."""
        worker = self.by_name[name]
        self._handlers.connection_lost(worker)
        worker.receive(self._register_again, worker)

    def _register_again(self, worker: SimWorker) -> None:
        self.unfuse(worker)  # for the process to say what it holds
        self._to_coordinator.send_registration(worker)

    def inject_into_coordinator(self, action: FaultAction) -> None:
        """Its process stands still, or goes on."""
        (self.go_on if action.heals else self.sleep)()

    def sleep(self) -> None:
        """The coordinator's process stands still."""
        self.inbox.sleep(self.now)

    def go_on(self) -> None:
        """The coordinator's process goes on: first its overdue alarm rings, then it hears all that has arrived."""
        self.inbox.asleep = False
        if self._alarm_at <= self.now:
            self._wake(self._alarm_at)
        self.inbox.wake(self.now)

    def check_hopeless(self) -> None:
        """A worker is gone: end the run if no other will ever come."""
        self.end.check_hopeless()

    def _is_hopeless(self) -> bool:
        return not self.faults.starting and not any(worker.up for worker in self.workers)

    def _report(self, progress: Progress) -> None:
        progress(self.now / self._duration_s)
        self.watch(progress)

    def _arrivals_over(self, _: None) -> None:
        self.end.arrivals_over()

    def _stop_at(self, at: float) -> None:
        self.env.call_at(at, keys.Rank.END, self._stop, None)

    def _stop(self, _: None) -> None:
        raise StopSimulation
