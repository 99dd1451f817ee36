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
from typing import Any, NamedTuple

import numpy as np
from simpy.core import StopSimulation

from orchestrator.core.model import Attempt, Task, TaskId, Worker, WorkerId
from orchestrator.core.worker import Key
from orchestrator.policies.settings import build_coordinator
from orchestrator.results.recorder import Recorder
from orchestrator.results.tables import Tables
from orchestrator.scenario.distributions import Constant
from orchestrator.scenario.plan import ClosedArrivals, Plan
from orchestrator.scenario.schema import Scenario
from orchestrator.scenario.streams import generator
from sim.arrivals import Clients, Submissions
from sim.environment import Environment
from sim.faults import Faults
from sim.inbox import Handler, Inbox
from sim.network import MessageKind, draws
from sim.worker import Job, Rank, SimWorker, number_of

_MESSAGE_KINDS = (
    *("assign", "start", "result", "cancel", "cancelled"),
    *("heartbeat", "unknown", "register", "drain", "leave"),
)
# Numbers of a rank beyond those of any worker: a worker's further kinds of event there.
_SECOND, _THIRD, _AGAIN = 1 << 40, 2 << 40, 3 << 40
_ARRIVED = -math.inf  # in the place of a fused result's delay


class Insistent(NamedTuple):
    """A message that a process repeats until it passes; `key_again` is that of the repetition."""

    message_kind: MessageKind
    worker: SimWorker
    life: int
    key: int
    key_again: int
    handler: Handler
    argument: Any
    passed: Callable[[SimWorker], None] | None = None


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
        timeout_s = policies.attempt_timeout_s
        self._timeout_s = math.inf if timeout_s is None else timeout_s
        self._rpc_timeout_s = network.rpc_timeout_s
        self._message_kinds = {name: MessageKind(network, seed, replication, name) for name in _MESSAGE_KINDS}
        self._out_s, self._back_s = self._message_kinds["assign"].delay, self._message_kinds["result"].delay
        self._back_again_s = draws(network.delay_of("result"), generator(seed, replication, "delay", "result again"))
        overhead = scenario.cluster.overhead or Constant(kind="constant", value_s=0.0)
        self._overhead_s = draws(overhead, generator(seed, replication, "overhead"))
        pauses = any(action.worker is None for action in plan.faults)
        self.inbox = Inbox(self.env, scenario.coordinator.cost_s, pauses)
        self.received = self.inbox.received
        self._unfused_in_queue: dict[Attempt, Job] = {}
        self._wake_time = math.inf
        self._name_handlers()

        # Late reports come from attempts that are still known; only a copy of a message needs a longer memory.
        keep_settled = 100_000 if network.duplicate else 1_000
        self.coordinator = build_coordinator(policies, self, seed, replication, keep_settled)
        fuse = fuse and network.loss == 0 and network.duplicate == 0
        self.workers = self._make_workers(scenario, fuse)
        self.by_name = {worker.name: worker for worker in self.workers}
        self._by_slot: list[SimWorker] = []
        self.faults = Faults(self, scenario, plan, replication)
        self._boot(plan, generator(seed, replication, "phase", "heartbeat"))
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

    def listen(self, heard: Callable[[WorkerId, float], None]) -> None:
        """Tell of every heartbeat as the coordinator gets it; to be asked before the run."""

        def hear(event: tuple[WorkerId, int]) -> None:
            heard(event[0], self.env._now)
            self._heartbeat(event)

        self._on_heartbeat = self.received(hear)

    def tables(self) -> Tables:
        """What the run leaves behind; to be asked once, at its end."""
        for worker in self.workers:
            for attempt in (*worker.record.open, *worker.record.abandoned):
                if attempt.note is not None and attempt.note[0] <= self.now:
                    self.recorder.started(attempt, attempt.note[0])
        self.recorder.close(self.coordinator)
        return self.recorder.tables(*self.arrivals.columns(), [worker.name for worker in self.workers])

    def _name_handlers(self) -> None:
        """What the coordinator does with each kind of message, behind its queue."""
        self._on_fused_result = self._fused_result_arrives if self.inbox.queues else self._fused_result
        self._on_fused_result_queued = self.received(self._fused_result_served)
        self._on_result = self.received(self._result, held=self._unacknowledged)
        self._on_start = self.received(self._start)
        self._on_refusal = self.received(self._refusal)
        self._on_call_failed = self.received(self._call_failed)
        self._on_call_over = self.inbox.awake(self._call_over)
        self._on_cancelled = self.received(self._cancelled)
        self._on_heartbeat = self.received(self._heartbeat)
        self._on_register = self.received(self._register_again)
        self._on_drain = self.received(self._drain)
        self._on_leave = self.received(self._leave)

    def _make_workers(self, scenario: Scenario, fuse: bool) -> list[SimWorker]:
        workers: list[SimWorker] = []
        names = iter(scenario.worker_names())
        for group in scenario.cluster.groups:
            prefetch = math.inf if group.prefetch == "unlimited" else group.prefetch
            may_fuse = fuse and prefetch == 0
            for _ in range(group.workers):
                index, name = len(workers), next(names)
                workers.append(SimWorker(self, index, name, group.capacity, prefetch, group.speed, may_fuse))
        return workers

    def _boot(self, plan: Plan, phases: np.random.Generator) -> None:
        """The cluster as it stands at the beginning: whoever is there is registered, and has its phase of beating."""
        for worker, phase in zip(self.workers, phases.random(len(self.workers)).tolist(), strict=True):
            if worker.name not in plan.absent:
                worker.boot(phase * self.heartbeat_s)
                self._register(worker)

    # ---- effects of the core

    def accepted(self, task: Task, now: float) -> None:
        pass

    def assign(self, attempt: Attempt, now: float) -> None:
        worker = self._by_slot[attempt.worker.slot]
        out_s, back_s = self._out_s(), self._back_s()
        # The payload is the demand, in seconds.
        work_s = attempt.task.payload / worker.speed + self._overhead_s()  # type: ignore[operator]
        if worker.fusible and not worker.jobs:
            start = now + out_s
            finish = start + work_s
            back = finish + back_s
            if back < worker.next_fault_s and back < now + self._timeout_s:
                attempt.note = (start, finish, work_s, back_s)
                self._call_at(back, Rank.RESULT + number_of(attempt) + 2, self._on_fused_result, attempt)
                return
        self.unfuse(worker)
        self._send_assignment(Job(attempt, worker, work_s, back_s), out_s, now)

    def cancel(self, attempt: Attempt, now: float) -> None:
        worker = self._by_slot[attempt.worker.slot]
        self.unfuse(worker)
        delay_s = self._message_kinds["cancel"].once(worker.out)
        if delay_s is not None:
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
            worker = self.by_name[worker_id]
            delay_s = self._message_kinds["unknown"].once(worker.out)
            if delay_s is not None:
                key = Rank.BEAT + _SECOND + worker.index
                self.env.call_at(self.now + delay_s, key, self._deliver_unknown, worker)

    def worker_changed(self, worker: Worker, kind: str, detail: str, now: float) -> None:
        self.recorder.worker_changed(worker, kind, detail, now)
        if kind == "dead":
            self.unfuse(self._by_slot[worker.slot])
        elif detail == "registered":
            self.by_name[worker.id].record = worker
            self._by_slot.append(self.by_name[worker.id])

    def wake_at(self, at: float) -> None:
        self._wake_time = at
        self.env.call_at(max(at, self.env._now), Rank.WAKE, self._wake, at)

    # ---- messages to the workers

    def _send_assignment(self, job: Job, out_s: float, now: float) -> None:
        worker = job.worker
        job.call_ends_at = now + self._rpc_timeout_s
        arrives_s, copy_s = self._message_kinds["assign"].fate(worker.out, out_s)
        if arrives_s is not None:
            worker.jobs[job.key] = job
            self.env.call_at(now + arrives_s, Rank.DELIVER + job.number, self._deliver, job)
        if copy_s is not None:
            copy = Job(job.attempt, worker, job.left_s, job.back_s, job)
            worker.expect_copy(copy)
            self.env.call_at(now + copy_s, Rank.DELIVER + job.number + 1, self._deliver_copy, copy)
        if arrives_s is None or (worker.out is not None and arrives_s > self._rpc_timeout_s):
            self._watch_call(job)

    def _deliver(self, job: Job) -> None:
        worker = job.worker
        job.arrived = True
        if worker.up:
            if worker.paused:
                self._watch_call(job)
            worker.receive(worker.take, job)
            return
        if worker.jobs.get(job.key) is job:
            del worker.jobs[job.key]
        delay_s = self._answer_s(job)
        if delay_s is None or self.now + delay_s > job.call_ends_at:
            self._watch_call(job)
        else:
            self.env.call_at(self.now + delay_s, Rank.REFUSAL + job.number + 2, self._on_call_failed, job)

    def _deliver_copy(self, copy: Job) -> None:
        copy.arrived = True
        copy.worker.receive_copy(copy)

    def _watch_call(self, job: Job) -> None:
        """An answer may not come before the call ends: then it has failed, whatever its worker does."""
        call = job.original or job
        if not call.watched:
            call.watched = True
            at = max(self.now, call.call_ends_at)
            self.env.call_at(at, Rank.REFUSAL + call.number, self._on_call_over, call)

    def _deliver_cancel(self, attempt: Attempt) -> None:
        worker = self._by_slot[attempt.worker.slot]
        worker.receive(self._hand_over_cancel, attempt)

    def _hand_over_cancel(self, attempt: Attempt) -> None:
        self._by_slot[attempt.worker.slot].agent.cancel((attempt.task.id, attempt.number), self.now)

    def _deliver_unknown(self, worker: SimWorker) -> None:
        worker.receive(self._begin_again, worker)

    def _begin_again(self, worker: SimWorker) -> None:
        self.unfuse(worker)
        worker.start_over(self.now)
        self.send_registration(worker)

    # ---- messages to the coordinator, as the workers send them

    def _answer_s(self, job: Job) -> float | None:
        """How long the answer to an assignment takes; None: it does not come."""
        link = job.worker.back
        return job.back_s if link is None else link.answer(job.back_s)

    def _answer_call(self, job: Job, delay_s: float | None, now: float) -> None:
        """The call ends well if its answer is there in time."""
        call = job.original or job
        if delay_s is None or now + delay_s > call.call_ends_at:
            self._watch_call(call)
        else:
            call.answered = True

    def send_confirmation(self, job: Job, now: float) -> None:
        """Of an assignment that was taken. Only a troubled network makes a difference to it."""
        self._answer_call(job, self._answer_s(job), now)

    def send_refusal(self, job: Job, now: float) -> None:
        """The answer to an assignment, or the return of what was taken."""
        delay_s = self._answer_s(job)
        self._answer_call(job, delay_s, now)
        if delay_s is not None:
            job.worker.last_word_at = max(job.worker.last_word_at, now + delay_s)
            self.env.call_at(now + delay_s, Rank.REFUSAL + job.number + 1, self._on_refusal, job)

    def send_start(self, job: Job, now: float) -> None:
        key = Rank.START + job.number
        self._insist(
            Insistent(self._message_kinds["start"], job.worker, job.worker.life, key, key + 1, self._on_start, job)
        )

    def send_result(self, job: Job, now: float) -> None:
        if job.sent_at is not None:
            job.back_s = self._back_again_s()
        job.sent_at = now
        link = job.worker.back
        arrives_s, copy_s = self._message_kinds["result"].fate(link, job.back_s)
        if arrives_s is None or (link is not None and arrives_s > self._rpc_timeout_s):
            self._unacknowledged(job)
        if arrives_s is not None:
            self.env.call_at(now + arrives_s, Rank.RESULT + job.number, self._on_result, job)
        if copy_s is not None:
            self.env.call_at(now + copy_s, Rank.RESULT + job.number + 1, self._on_result, job)

    def send_cancelled(self, worker: SimWorker, key: Key, now: float) -> None:
        delay_s = self._message_kinds["cancelled"].once(worker.back)
        if delay_s is not None:
            task, number = key
            rank = Rank.CANCELLED + (task << 24 | number)  # type: ignore[operator]
            self.env.call_at(now + delay_s, rank, self._on_cancelled, (worker.name, task, number))

    def send_heartbeat(self, worker: SimWorker, active: int, now: float) -> None:
        for attempt in worker.record.open:
            if attempt.note is not None and attempt.note[0] <= now < attempt.note[1]:
                active += 1
        message_kind = self._message_kinds["heartbeat"]
        worker.beats += 1
        key = Rank.HEARTBEAT + (worker.index << 36) + 2 * worker.beats
        arrives_s, copy_s = message_kind.fate(worker.back, message_kind.delay())
        if arrives_s is not None:
            self.env.call_at(now + arrives_s, key, self._on_heartbeat, (worker.name, active))
        if copy_s is not None:
            self.env.call_at(now + copy_s, key + 1, self._on_heartbeat, (worker.name, active))

    def send_registration(self, worker: SimWorker) -> None:
        worker.joining = True
        self._insist(self._insistent("register", worker, 0, self._on_register, SimWorker.joined))

    def send_drain(self, worker: SimWorker) -> None:
        self._insist(self._insistent("drain", worker, _SECOND, self._on_drain))

    def send_leave(self, worker: SimWorker) -> None:
        self._insist(self._insistent("leave", worker, _THIRD, self._on_leave, SimWorker.end))

    def _insistent(
        self,
        kind: str,
        worker: SimWorker,
        place: int,
        handler: Handler,
        passed: Callable[[SimWorker], None] | None = None,
    ) -> Insistent:
        key = Rank.REGISTER + place + worker.index
        return Insistent(self._message_kinds[kind], worker, worker.life, key, key + _AGAIN, handler, worker, passed)

    def _insist(self, message: Insistent) -> None:
        """Send it, and again after the timeout of a call, until it passes or the process is no more."""
        message_kind, worker, life, key, key_again, handler, argument, passed = message
        if worker.life != life:
            return
        delay_s = message_kind.once(worker.back)
        if delay_s is None:
            self.env.call_at(self.now + self._rpc_timeout_s, key_again, self._insist_again, message)
            return
        at = self.now + delay_s
        if argument is worker:  # these keep their order: a leave is the last that is heard of a process
            at = worker.last_word_at = max(at, worker.last_word_at)
        self.env.call_at(at, key, handler, argument)
        if passed is not None:
            passed(worker)

    def _insist_again(self, message: Insistent) -> None:
        message.worker.receive(self._insist, message)

    # ---- messages at the coordinator

    def _fused_result(self, attempt: Attempt) -> None:
        note = attempt.note
        if note is not None:
            attempt.note = None
            start, finish, _, _ = note
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

    def _fused_result_arrives(self, attempt: Attempt) -> None:
        """Where messages wait for each other, the attempt may be unfused while its result does."""
        if attempt.note is not None:
            start, finish, work_s, _ = attempt.note
            attempt.note = start, finish, work_s, _ARRIVED
            self.recorder.started(attempt, start)  # it may be given up while its result waits
            self._on_fused_result_queued(attempt)

    def _fused_result_served(self, attempt: Attempt) -> None:
        job = self._unfused_in_queue.pop(attempt, None)
        if job is None:
            self._fused_result(attempt)
        else:
            self._result(job)

    def _result(self, job: Job) -> None:
        worker, attempt = job.worker, job.attempt
        if worker.jobs.get(job.key) is job:
            del worker.jobs[job.key]
        assert job.started_at is not None
        self.coordinator.result(
            worker.name, attempt.task.id, attempt.number, True, None, "", False,
            job.started_at, job.finish_at - job.started_at, self.now,
        )  # fmt: skip
        self._acknowledge(job)

    def _acknowledge(self, job: Job) -> None:
        """Tell the worker that its report is here; where nothing is wrong with its network, it knows at once."""
        link = job.worker.out
        if link is None:
            self._deliver_acknowledgement(job)
            return
        assert job.sent_at is not None
        delay_s = link.answer(0.0)
        if delay_s is None or self.now + delay_s > job.sent_at + self._rpc_timeout_s:
            self._unacknowledged(job)
        if delay_s is not None:
            self.env.call_at(self.now + delay_s, Rank.FINISH + job.number + 1, self._deliver_acknowledgement, job)

    def _deliver_acknowledgement(self, job: Job) -> None:
        job.worker.receive(self._reported, job)

    def _reported(self, job: Job) -> None:
        job.worker.agent.reported(job.key, self.now)

    def _unacknowledged(self, job: Job) -> None:
        """No acknowledgement of the report will come before its sender loses patience."""
        assert job.sent_at is not None
        at = max(self.now, job.sent_at + self._rpc_timeout_s)
        self.env.call_at(at, Rank.DELIVER + job.number + 2, self._deliver_report_failed, job)

    def _deliver_report_failed(self, job: Job) -> None:
        job.worker.receive(self._report_failed, job)

    def _report_failed(self, job: Job) -> None:
        job.worker.agent.report_failed(job.key, self.now)

    def _start(self, job: Job) -> None:
        (job.original or job).answered = True
        self.coordinator.started(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _refusal(self, job: Job) -> None:
        self.coordinator.rejected(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _call_failed(self, job: Job) -> None:
        self.coordinator.call_failed(job.worker.name, job.attempt.task.id, job.attempt.number, self.now)

    def _call_over(self, job: Job) -> None:
        if not job.answered:
            self._on_call_failed(job)

    def _cancelled(self, event: tuple[WorkerId, TaskId, int]) -> None:
        self.coordinator.cancelled(*event, self.now)

    def _heartbeat(self, event: tuple[WorkerId, int]) -> None:
        self.coordinator.heartbeat(*event, self.env._now)

    def _register(self, worker: SimWorker) -> None:
        self.coordinator.register(worker.name, worker.capacity, worker.prefetch, True, self.now)

    def _register_again(self, worker: SimWorker) -> None:
        self.unfuse(worker)  # what it was given since it restarted, the coordinator now gives up
        self._register(worker)

    def _drain(self, worker: SimWorker) -> None:
        self.coordinator.drain(worker.name, self.now)

    def _leave(self, worker: SimWorker) -> None:
        self.unfuse(worker)  # it may be a new process, of whom the old one's leave comes late
        self.coordinator.deregister(worker.name, self.now)
        self.end_if_hopeless()

    def _wake(self, at: float) -> None:
        if at == self._wake_time and not self.inbox.asleep:
            self._wake_time = math.inf
            self.coordinator.wake(self.env._now)

    # ---- the fused path

    def unfuse(self, worker: SimWorker) -> None:
        """Put each fused attempt of the worker back where it would be by now."""
        if not worker.may_fuse:
            return
        now = self.now
        fused = [attempt for attempt in (*worker.record.open, *worker.record.abandoned) if attempt.note is not None]
        fused.sort(key=lambda attempt: (attempt.note[1], number_of(attempt)))  # in the order in which they finish
        for attempt in fused:
            start, finish, work_s, back_s = attempt.note
            attempt.note = None
            job = Job(attempt, worker, work_s, back_s)
            job.call_ends_at = attempt.assigned_at + self._rpc_timeout_s
            worker.jobs[job.key] = job
            if now < start:
                self.env.call_at(start, Rank.DELIVER + job.number, self._deliver, job)
                continue
            worker.adopt(job, start, finish, now)
            if back_s == _ARRIVED:
                self._unfused_in_queue[attempt] = job
            elif now >= finish:
                self.env.call_at(finish + back_s, Rank.RESULT + job.number, self._on_result, job)

    # ---- faults, and the end

    def start_process(self, worker: SimWorker) -> None:
        """A new one, where there is none."""
        worker.boot(self.now + self.heartbeat_s)
        self.send_registration(worker)

    def drain(self, name: str) -> None:
        """Ask a worker to leave; one that stands still hears it when it goes on."""
        worker = self.by_name[name]
        self.unfuse(worker)
        worker.receive(self._tell_to_leave, worker)

    def _tell_to_leave(self, worker: SimWorker) -> None:
        worker.drain(self.now)

    def sleep(self) -> None:
        """The coordinator's process stands still."""
        self.inbox.sleep(self.now)

    def go_on(self) -> None:
        """It finds its alarm, long overdue, and then all that has arrived."""
        self.inbox.asleep = False
        if self._wake_time <= self.now:
            self._wake(self._wake_time)
        self.inbox.wake(self.now)

    def end_if_hopeless(self) -> None:
        """No worker is up, and none will come."""
        if self._closing and not self.faults.starting and not any(worker.up for worker in self.workers):
            self._stop_at(self.now)

    def check(self) -> None:
        """Raise AssertionError where an invariant of the coordinator or of a worker's agent does not hold."""
        self.coordinator.check()
        for worker in self.workers:
            if worker.up:
                worker.agent.check()

    def _arrivals_over(self, _: None) -> None:
        self._closing = True
        if not self.due:
            self._stop_at(self.now)
        self.end_if_hopeless()

    def _stop_at(self, at: float) -> None:
        self.env.call_at(at, Rank.STOP, self._stop, None)

    def _stop(self, _: None) -> None:
        raise StopSimulation
