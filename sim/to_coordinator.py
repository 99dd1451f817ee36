"""Messages to the coordinator, as the workers send them. Each is an event at the time of its arrival there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from orchestrator.core.model import AttemptKey
from orchestrator.scenario.schema import Network
from sim import keys
from sim.environment import Environment
from sim.inbox import Handler, Handlers
from sim.network import Fate, MessageKind
from sim.to_workers import ToWorkers
from sim.worker import Job, SimWorker


class Introduction(NamedTuple):
    """A registration under way: the process of that `life` says what it holds."""

    worker: SimWorker
    life: int
    held: tuple[AttemptKey, ...]


class Repeated(NamedTuple):
    """A message that a process sends again, with `key_again`, until it passes.

    `content`: what arrives. It is asked for at each sending, so that it is as new as the message. `passed` is called
    when the message is sure to arrive. `attempt`: the one that it is about, if it is about one, and `first` what
    becomes of its first sending; `sent`: how often it was sent before.
    """

    message_kind: MessageKind
    worker: SimWorker
    life: int
    key: int
    key_again: int
    handler: Handler
    content: Callable[[], Any]
    in_order: bool
    passed: Callable[[SimWorker], None] | None = None
    attempt: AttemptKey | None = None
    first: Fate | None = None
    sent: int = 0


class ToCoordinator:
    """Implements `Outbox`."""

    def __init__(
        self,
        env: Environment,
        network: Network,
        message_kind: Callable[[str], MessageKind],
        workers: int,
        heartbeat_s: float,
        handlers: Handlers,
        to_workers: ToWorkers,
    ) -> None:
        self._env = env
        self._handlers = handlers
        self._to_workers = to_workers
        self._rpc_timeout_s = network.rpc_timeout_s
        self._workers, self._heartbeat_s = workers, heartbeat_s
        self._repeating: dict[int, int] = {}  # what waits to be sent again: by its key the life of its process
        self._result = message_kind("result")
        self._start, self._cancelled = message_kind("start"), message_kind("cancelled")
        self._heartbeat, self._register = message_kind("heartbeat"), message_kind("register")
        self._drain, self._leave = message_kind("drain"), message_kind("leave")

    # ---- about attempts

    def send_confirmation(self, job: Job, now: float) -> None:
        """The answer to an assignment that was taken. It matters on an impaired network only."""
        self._answer_call(job, self._to_workers.answer_delay_s(job), now)

    def send_refusal(self, job: Job, now: float) -> None:
        """The answer to an assignment, or the return of one that was taken."""
        delay_s = self._to_workers.answer_delay_s(job)
        self._answer_call(job, delay_s, now)
        if delay_s is not None:
            worker, at = job.worker, now + delay_s
            worker.last_message_arrives_at = max(worker.last_message_arrives_at, at)
            key_of = keys.refusal_key if job.original is None else keys.refusal_of_copy_key
            self._env.call_at(at, key_of(job.number), self._handlers.refusal, job)

    def send_start(self, job: Job, now: float) -> None:
        key, key_again = keys.start_key(job.number), keys.start_again_key(job.number)
        worker, handler = job.worker, self._handlers.start
        message = Repeated(self._start, worker, worker.life, key, key_again, handler, lambda: job, in_order=False)
        self._repeat(message._replace(attempt=job.key, first=None if job.original else job.start_fate))

    def send_result(self, job: Job, now: float) -> None:
        fate = job.result_fate
        if job.reports or job.original is not None:
            fate = self._result.of_attempt(job.key, job.reports, job.original is not None)
            job.result_delay_s = job.result_delay_s if fate[0] is None else fate[0]
        job.reports += 1
        job.report_sent_at = now
        link = job.worker.link_to_coordinator
        arrives_s, copy_s = self._result.on(link, fate)
        if arrives_s is None or (link is not None and arrives_s > self._rpc_timeout_s):
            self._to_workers.watch_report(job)
        if arrives_s is not None:
            self.deliver_result_at(now + arrives_s, job)
        if copy_s is not None:
            self._env.call_at(now + copy_s, keys.result_copy_key(job.number), self._handlers.result, job)

    def deliver_result_at(self, at: float, job: Job) -> None:
        self._env.call_at(at, keys.result_key(job.number), self._handlers.result, job)

    def send_cancelled(self, worker: SimWorker, key: AttemptKey, recalled: bool, now: float) -> None:
        task, number = key
        fate = self._cancelled.of_attempt(key)
        delay_s, _ = self._cancelled.on(worker.link_to_coordinator, fate)
        if delay_s is not None:
            order = keys.cancelled_key(task, number, recalled)  # type: ignore[arg-type]  # ids are row numbers here
            self._env.call_at(now + delay_s, order, self._handlers.cancelled, (worker.name, task, number))

    def _answer_call(self, job: Job, delay_s: float | None, now: float) -> None:
        """The call ends well if its answer is there in time."""
        if delay_s is None or now + delay_s > job.call.call_ends_at:
            self._to_workers.watch_call(job)
        else:
            job.call.answer_in_time = True

    # ---- about workers

    def send_heartbeat(self, worker: SimWorker, active: int, now: float) -> None:
        for attempt in worker.record.open:
            if attempt.note is not None:
                starts_at, finishes_at, _, _, _ = attempt.note
                active += starts_at <= now < finishes_at
        # Its number is that of the round of beats at this time, and larger than before.
        worker.beats = max(worker.beats + 1, int(now / self._heartbeat_s))
        message_kind, handler, beat = self._heartbeat, self._handlers.heartbeat, (worker.name, active, now)
        fate = message_kind.certain or message_kind.of_round(worker.beats, worker.index, self._workers)
        link = worker.link_to_coordinator
        arrives_s, copy_s = fate if link is None else message_kind.on(link, fate)
        if arrives_s is not None:
            self._env.call_at(now + arrives_s, keys.heartbeat_key(worker.index, worker.beats), handler, beat)
        if copy_s is not None:
            self._env.call_at(now + copy_s, keys.heartbeat_copy_key(worker.index, worker.beats), handler, beat)

    def send_registration(self, worker: SimWorker) -> None:
        """It says what it holds at that moment."""
        worker.registering = True

        def introduction() -> Introduction:
            return Introduction(worker, worker.life, worker.agent.held)

        key = keys.register_key(worker.index)
        self._repeat_in_order(self._register, worker, key, self._handlers.register, introduction, _registration_passed)

    def send_drain(self, worker: SimWorker) -> None:
        self._repeat_in_order(self._drain, worker, keys.drain_key(worker.index), self._handlers.drain, lambda: worker)

    def send_leave(self, worker: SimWorker) -> None:
        self._repeat_in_order(
            self._leave, worker, keys.leave_key(worker.index), self._handlers.leave, lambda: worker, SimWorker.end
        )

    def _repeat_in_order(
        self,
        message_kind: MessageKind,
        worker: SimWorker,
        key: int,
        handler: Handler,
        content: Callable[[], Any],
        passed: Callable[[SimWorker], None] | None = None,
    ) -> None:
        """None of these overtakes another: a leave is the last that arrives from a process."""
        key_again = keys.again_key(key)
        self._repeat(
            Repeated(message_kind, worker, worker.life, key, key_again, handler, content, in_order=True, passed=passed)
        )

    def _repeat(self, message: Repeated) -> None:
        """Send it, and again after the timeout of a call, until it passes or its process has ended."""
        worker, now = message.worker, self._env._now
        if worker.life != message.life:
            return
        message_kind, attempt = message.message_kind, message.attempt
        if attempt is None:
            fate = message_kind.of_owner(worker.index)
        elif message.first is not None and not message.sent:
            fate = message.first
        else:
            fate = message_kind.of_attempt(attempt, message.sent)
        delay_s, _ = message_kind.on(worker.link_to_coordinator, fate)
        if delay_s is None:
            if message.in_order:
                if self._repeating.get(message.key) == message.life:
                    return  # this process sends it again already
                self._repeating[message.key] = message.life
            again = message._replace(sent=message.sent + 1)
            self._env.call_at(now + self._rpc_timeout_s, message.key_again, self._repeat_later, again)
            return
        at = now + delay_s
        if message.in_order:
            at = worker.last_message_arrives_at = max(at, worker.last_message_arrives_at)
        self._env.call_at(at, message.key, message.handler, message.content())
        if message.passed is not None:
            message.passed(worker)

    def _repeat_later(self, message: Repeated) -> None:
        if self._repeating.get(message.key) == message.life:
            del self._repeating[message.key]
        message.worker.receive(self._repeat, message)


def _registration_passed(worker: SimWorker) -> None:
    worker.registering = False
