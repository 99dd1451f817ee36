"""Messages to the workers, and the two timers of a call whose answer may not come in time.

Each method sends at once. A message is an event at the time of its arrival; a process that is paused finds it when it
goes on, one that has ended never. An assignment is for one process: that of the same worker that comes after it does
not hear of it, as the connection is another one.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.model import AttemptKey
from orchestrator.scenario.schema import Network
from sim import keys
from sim.environment import Environment
from sim.inbox import Handler, Handlers
from sim.network import Fate, MessageKind
from sim.worker import Job, SimWorker


class ToWorkers:
    """`handlers`: where the coordinator learns what became of a call. `unknown`: a worker hears that the coordinator
    does not know it."""

    def __init__(
        self,
        env: Environment,
        network: Network,
        message_kind: Callable[[str], MessageKind],
        handlers: Handlers,
        unknown: Callable[[SimWorker], None],
    ) -> None:
        self._env = env
        self._handlers = handlers
        self._rpc_timeout_s = network.rpc_timeout_s
        self._cancel = message_kind("cancel")
        self._unknown, self._registered = message_kind("unknown"), message_kind("registered")
        self._hear_unknown = unknown
        self.deliveries: tuple[Handler, ...] = (
            self._deliver,
            self._deliver_copy,
            self._deliver_cancel,
            self._deliver_recall,
            self._deliver_unknown,
            self._deliver_registered,
            self._deliver_acknowledgement,
        )
        """What happens with a message when it arrives at its worker."""

    # ---- assignments

    def send_assignment(self, job: Job, fate: Fate) -> None:
        """`fate`: of the message, on a network in order."""
        worker, now = job.worker, self._env._now
        job.call_ends_at = now + self._rpc_timeout_s
        arrives_s, copy_s = fate
        if worker.link_to_worker is not None:
            arrives_s, copy_s = worker.link_to_worker.message("assign", arrives_s, copy_s)
        if arrives_s is not None:
            worker.jobs[job.key] = job
            self.deliver_at(max(now + arrives_s, worker.registered_arrives_at), job)
        if copy_s is not None:
            copy = Job(
                job.attempt, worker, job.remaining_s, job.result_delay_s, (job.result_fate, job.start_fate), 0.0, job
            )
            worker.expect_copy()
            self._env.call_at(now + copy_s, keys.deliver_copy_key(job.number), self._deliver_copy, copy)
        if arrives_s is None or (worker.link_to_worker is not None and arrives_s > self._rpc_timeout_s):
            self.watch_call(job)

    def deliver_at(self, at: float, job: Job) -> None:
        self._env.call_at(at, keys.deliver_key(job.number), self._deliver, job)

    def watch_call(self, job: Job) -> None:
        """An answer may not come before the call ends. Then the call has failed, whatever the worker does."""
        call = job.call
        if not call.call_watched:
            call.call_watched = True
            at = max(self._env._now, call.call_ends_at)
            self._env.call_at(at, keys.call_ended_key(call.number), self._handlers.call_ended, call)

    def answer_delay_s(self, job: Job) -> float | None:
        """How long the answer to an assignment takes; None: it never arrives."""
        link = job.worker.link_to_coordinator
        return job.result_delay_s if link is None else link.answer(job.result_delay_s)

    def _deliver(self, job: Job) -> None:
        worker = job.worker
        job.arrived = True
        if worker.up and worker.life == job.life:
            if worker.paused:
                self.watch_call(job)
            worker.receive(worker.take, job)
            return
        if worker.jobs.get(job.key) is job:
            del worker.jobs[job.key]
        delay_s, now = self.answer_delay_s(job), self._env._now
        if delay_s is None or now + delay_s > job.call_ends_at:
            self.watch_call(job)
        else:
            self._env.call_at(now + delay_s, keys.call_failed_key(job.number), self._handlers.call_failed, job)

    def _deliver_copy(self, copy: Job) -> None:
        copy.arrived = True
        copy.worker.receive_copy(copy)

    # ---- cancels, and the answers to what a worker sent

    def send_cancel(self, worker: SimWorker, key: AttemptKey, number: int) -> None:
        """`number`: the attempt's, for the keys of its events."""
        delay_s, _ = self._cancel.on(worker.link_to_worker, self._cancel.of_attempt(key))
        if delay_s is not None:
            at = self._env._now + delay_s
            self._env.call_at(at, keys.deliver_cancel_key(number), self._deliver_cancel, (worker, key))

    def send_recall(self, worker: SimWorker, key: AttemptKey, number: int) -> None:
        """It travels as a cancel does."""
        delay_s, _ = self._cancel.on(worker.link_to_worker, self._cancel.of_attempt(key))
        if delay_s is not None:
            at = self._env._now + delay_s
            self._env.call_at(at, keys.deliver_recall_key(number), self._deliver_recall, (worker, key))

    def send_unknown(self, worker: SimWorker) -> None:
        """The answer to a heartbeat of a worker that the coordinator does not know."""
        delay_s, _ = self._unknown.on(worker.link_to_worker, self._unknown.of_owner(worker.index))
        if delay_s is not None:
            at = self._env._now + delay_s
            self._env.call_at(at, keys.deliver_unknown_key(worker.index), self._deliver_unknown, worker)

    def send_registered(self, worker: SimWorker, life: int, term: int, dropped: tuple[AttemptKey, ...]) -> None:
        """The answer to the registration of the process of that `life`."""
        delay_s, _ = self._registered.on(worker.link_to_worker, self._registered.of_owner(worker.index))
        if delay_s is not None:
            at = worker.registered_arrives_at = self._env._now + delay_s
            news = worker, life, term, dropped
            self._env.call_at(at, keys.deliver_registered_key(worker.index), self._deliver_registered, news)

    def send_acknowledgement(self, job: Job) -> None:
        """Of its report. On an unimpaired network the worker has it at once."""
        link = job.worker.link_to_worker
        if link is None:
            self._deliver_acknowledgement(job)
            return
        assert job.report_sent_at is not None
        delay_s, now = link.answer(0.0), self._env._now
        if delay_s is None or now + delay_s > job.report_sent_at + self._rpc_timeout_s:
            self.watch_report(job)
        if delay_s is not None:
            key = keys.deliver_acknowledgement_key(job.number)
            self._env.call_at(now + delay_s, key, self._deliver_acknowledgement, job)

    def watch_report(self, job: Job) -> None:
        """No acknowledgement of the report comes before its sender stops waiting for one."""
        assert job.report_sent_at is not None
        at = max(self._env._now, job.report_sent_at + self._rpc_timeout_s)
        self._env.call_at(at, keys.report_failed_key(job.number), self._deliver_report_failed, job)

    def _deliver_cancel(self, cancel: tuple[SimWorker, AttemptKey]) -> None:
        cancel[0].receive(self._hand_over_cancel, cancel)

    def _hand_over_cancel(self, cancel: tuple[SimWorker, AttemptKey]) -> None:
        worker, key = cancel
        worker.agent.cancel(key, self._env._now)

    def _deliver_recall(self, recall: tuple[SimWorker, AttemptKey]) -> None:
        worker, key = recall
        worker.receive(worker.recall, key)

    def _deliver_unknown(self, worker: SimWorker) -> None:
        worker.receive(self._hear_unknown, worker)

    def _deliver_registered(self, news: tuple[SimWorker, int, int, tuple[AttemptKey, ...]]) -> None:
        news[0].receive(self._hand_over_registered, news)

    def _hand_over_registered(self, news: tuple[SimWorker, int, int, tuple[AttemptKey, ...]]) -> None:
        worker, life, term, dropped = news
        if worker.life == life:
            worker.registered(term, dropped)

    def _deliver_acknowledgement(self, job: Job) -> None:
        job.worker.receive(self._hand_over_acknowledgement, job)

    def _hand_over_acknowledgement(self, job: Job) -> None:
        job.worker.agent.reported(job.key, self._env._now)

    def _deliver_report_failed(self, job: Job) -> None:
        job.worker.receive(self._hand_over_report_failed, job)

    def _hand_over_report_failed(self, job: Job) -> None:
        job.worker.agent.report_failed(job.key, self._env._now)
