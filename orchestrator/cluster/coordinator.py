"""The coordinator's process: the core, and the way from its effects to whoever is connected.

Everything here runs on one event loop, and nothing awaits between an input to the core and its effects. An exception
that escapes an input stops the coordinator: nothing is served on from a state that nobody can vouch for.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

import grpc

from orchestrator.cluster.believed import believed
from orchestrator.cluster.calling import CalledWorker
from orchestrator.cluster.calls import Calls
from orchestrator.cluster.decision_record import FLUSH_EVERY_S, DecisionRecord
from orchestrator.cluster.durability import Release, at_once
from orchestrator.cluster.guard import Guard
from orchestrator.cluster.jobs import Job, digest_of
from orchestrator.cluster.lately import Lately
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.metrics import Window
from orchestrator.cluster.peers import ClientPeer, Refused, StreamedWorker, WorkerPeer, unknown
from orchestrator.cluster.repeats import Repeats
from orchestrator.cluster.room import Room
from orchestrator.cluster.sparing_log import SparingLog
from orchestrator.cluster.wire import rpc, translate
from orchestrator.cluster.wire.translate import Introduction, Refusal, Registered, Reported
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.culprit import checked_review_at
from orchestrator.core.deadlines import EXPIRED
from orchestrator.core.inputs import Recovered, Registration, intercepted
from orchestrator.core.model import (
    Attempt,
    AttemptKey,
    Task,
    TaskState,
    TimeLimits,
    Worker,
    WorkerEvent,
    WorkerId,
    WorkerState,
)
from orchestrator.core.ports import Effects

log = logging.getLogger("orchestrator.coordinator")

Code = grpc.StatusCode
_COMPLETED = TaskState.COMPLETED
NUMBER_BITS = 32
"""Of a request: below them the number that a report has on its stream, above them the stream's serial, 0 for calls."""
NUMBER_MASK = (1 << NUMBER_BITS) - 1


class Stopped(Exception):
    """An exception escaped an input, or an invariant does not hold: the coordinator serves nothing more."""


class LiveCoordinator:
    """Implements the core's `Effects`: what is for a peer is copied and passes `release` on its way there.

    `call_timeout_s`: an assignment of which nothing is heard for so long is a failed call. `contract_timeout_s`: how
    long a task of the wire contract may be executed; None: as any other. `check`: prove the core's invariants after
    inputs, as often as a tenth of the time allows. `failed` is set with Stopped when the coordinator has stopped.
    """

    def __init__(
        self,
        build: Callable[[Effects], Coordinator],
        *,
        call_timeout_s: float = 2.0,
        contract_timeout_s: float | None = None,
        limits: Limits | None = None,
        record: DecisionRecord | None = None,
        check: bool = False,
        release: Release = at_once,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time
        self.call_timeout_s = call_timeout_s
        self._contract_timeout_s = contract_timeout_s
        self.limits = limits or Limits()
        self.workers: dict[WorkerId, WorkerPeer] = {}
        self.clients: dict[str, ClientPeer] = {}
        self.failed: asyncio.Future[NoReturn] = self._loop.create_future()
        self.parting = asyncio.Event()  # it has stopped, or closes
        self._parting: Refused | None = None
        self._release = release
        self._alarm: asyncio.TimerHandle | None = None
        self._flushing: asyncio.TimerHandle | None = None
        self._serials = itertools.count(1)
        self._streams: dict[int, StreamedWorker] = {}  # by what they count their requests from
        self._calls = Calls(release)
        self._names = 0  # of the workers that the core knows
        self.lines = SparingLog(log, self._loop)
        self._record = record
        # Inputs go by the guarded core; questions that are asked for every task go straight.
        self._asked = record.open(self, build) if record else build(self)
        self._guard = Guard(self._asked, self.stop, check, self.now)
        self.core = intercepted(self._asked, self._guard)
        self.repeats = Repeats(self._asked.task, self.limits.keyed_s)
        self.room = Room(self.limits, self._asked, self.repeats)
        self.window = Window(self.now())
        self.lately = Lately()
        self._flush_regularly()

    # ---- effects of the core

    def accepted(self, task: Task, now: float) -> None:
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        client = self.clients.get(job.session)
        if client is not None:
            self._release(job.session, client.accept, job.number)
        elif not job.session:
            self._calls.answer(str(task.id), str(task.id), True)

    def refused(self, task: Task, why: str, now: float) -> None:
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        self.room.characters -= len(job.payload)
        refused = Refused(Code.RESOURCE_EXHAUSTED, why)
        client = self.clients.get(job.session)
        if client is not None:
            self.refuse(job.session, client, job.number, refused)
        elif not job.session:
            self._calls.refuse(str(task.id), str(task.id), refused)

    def registered(self, worker: Worker, request: int | None, dropped: Sequence[AttemptKey], now: float) -> None:
        if request is not None:
            self._calls.answer(worker.id, request, True)
            return
        if (peer := self.workers.get(worker.id)) is not None:
            core, silence_s = self._asked, self._silence_s(worker, now)
            answer = Registered(core.term, core.heartbeat_s, self.call_timeout_s, tuple(dropped), silence_s)
            self._release(worker.id, peer.register, answer)

    def assign(self, attempt: Attempt, now: float) -> None:
        worker_id = attempt.worker.id
        assignment = translate.assignment_of(attempt)
        peer = self.workers.get(worker_id)
        if peer is None:
            self._loop.call_soon(self._cannot_reach, worker_id, assignment.key)
        else:
            self._release(worker_id, peer.assign, assignment)

    def cancel(self, attempt: Attempt, now: float) -> None:
        if (peer := self.workers.get(attempt.worker.id)) is not None:
            self._release(attempt.worker.id, peer.cancel, attempt.key)

    def recall(self, attempt: Attempt, now: float) -> None:
        if (peer := self.workers.get(attempt.worker.id)) is not None:
            self._release(attempt.worker.id, peer.recall, attempt.key)

    def timed_out(self, attempt: Attempt, now: float) -> None:
        about = {"task": attempt.task.id, "worker": attempt.worker.id, "attempt": attempt.number}
        line = "task %s on worker %s %s: attempt %s is cancelled"
        log.warning(line, about["task"], about["worker"], attempt.reason, attempt.number, extra=about)
        self.lately.timed_out(attempt, now)

    def ended(self, attempt: Attempt, now: float) -> None:
        if attempt.settles and attempt.ran_s is not None and attempt.task.state is _COMPLETED:
            self.window.executed(attempt.ran_s)

    def settled(self, task: Task, now: float) -> None:
        job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        self.window.settled(task.state is _COMPLETED, now - task.submitted_at, now)
        if task.error and task.error.startswith(EXPIRED):
            self.lines.write(logging.WARNING, "tasks that expire", "task %s %s", task.id, task.error, task=task.id)
        self.room.characters -= len(job.payload)
        if job.key:
            job.digest = digest_of(job.payload)
        job.payload = ""  # nobody needs it any more, and settled tasks are many
        client = self.clients.get(job.session)
        if client is not None:
            self._release(job.session, client.settle, job.number, translate.outcome_of(task))
        if self.repeats.count:
            for session, number in self.repeats.settled(task.id):
                self._tell_settled(session, number, task)
        self.room.made()

    def acknowledged(self, worker_id: WorkerId, request: int, known: bool, now: float) -> None:
        reporter = self._streams.get(request >> NUMBER_BITS)
        if reporter is None:
            self._calls.answer(worker_id, request, known)
        else:
            if not known or reporter.refused_in_a_row:
                reporter.note(known)
            self._release(worker_id, reporter.acknowledge, request & NUMBER_MASK)

    def heartbeat_answered(self, worker_id: WorkerId, request: int | None, known: bool, now: float) -> None:
        if request is not None:
            self._calls.answer(worker_id, request, known)
            return
        if (peer := self.workers.get(worker_id)) is not None:
            if known:
                self._release(worker_id, peer.answer_beat)
            else:
                self._release(worker_id, peer.end, unknown(worker_id))

    def worker_changed(self, worker: Worker, event: WorkerEvent, detail: str, now: float) -> None:
        level = logging.WARNING if event is WorkerEvent.DEAD else logging.INFO
        happened = f"{event} {detail}".rstrip()
        self.lines.write(level, f"worker {worker.id}", "worker %s: %s", worker.id, happened, worker=worker.id)
        self.lately.worker_changed(worker, event, detail, now)
        if event is WorkerEvent.FORGOTTEN:
            self._names -= 1
        peer = self.workers.get(worker.id)
        if peer is None:
            return
        if event is WorkerEvent.DRAIN:
            self._release(worker.id, peer.hurry)
        elif event is WorkerEvent.FORGOTTEN:
            del self.workers[worker.id]
            self._release(worker.id, peer.end, unknown(worker.id))
        elif event in (WorkerEvent.SUSPECT, WorkerEvent.DEAD) and isinstance(peer, StreamedWorker):
            peer.doubt()

    def _silence_s(self, worker: Worker, now: float) -> float:
        """After which silence the worker makes another connection, 0 for never: in time to be back before its detector
        would call it dead, but not before the answer to a beat is late."""
        heartbeat_s = self._asked.heartbeat_s
        until = checked_review_at("failure detector", worker.detector)
        return max(until - now - 2 * heartbeat_s, 1.5 * heartbeat_s) if until < math.inf else 0.0

    def wake_at(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self.core.wake(self.now())

    def _cannot_reach(self, worker_id: WorkerId, key: AttemptKey) -> None:
        self.core.call_failed(worker_id, *key, self.now())

    # ---- tasks

    def recover(self, tasks: Iterable[Recovered]) -> None:
        """What an earlier coordinator had taken, before anybody is heard."""
        now = self.now()
        for task in tasks:
            job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
            self.room.characters += len(job.payload)
            self.core.recovered(task, now)
            if job.key:
                self.repeats.note_first(job.key, task.task_id)
        self._names = sum(1 for _ in self.core.workers())

    def submit(self, task_id: str, job: Job, priority: int, limits: TimeLimits | None = None) -> None:
        """Raises Refused for a task that makes no sense, or whose key is that of other work."""
        nonsense = self.limits.nonsense(job, priority, limits)
        if nonsense:
            raise Refused(Code.INVALID_ARGUMENT, nonsense)
        now = self.now()
        known = self._asked.task(task_id) or (self.repeats.first(job.key, now) if job.key else None)
        if known is not None:
            self._submit_again(known, job, priority)
            return
        if job.key:
            self.repeats.note_first(job.key, task_id)
        self.room.characters += len(job.payload)
        self.core.submit(task_id, priority, job, limits, now)

    def _submit_again(self, task: Task, job: Job, priority: int) -> None:
        """No input: nothing changes but who is told."""
        first: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
        is_first = job.session != "" and (first.session, first.number) == (job.session, job.number)
        if not is_first and not (task.priority == priority and first.is_same(job)):
            raise Refused(Code.ALREADY_EXISTS, f"the key {job.key!r} is that of a task with other content: {task.id}")
        client = self.clients.get(job.session)
        if client is None:
            return
        self._release(job.session, client.accept, job.number, "" if is_first else task.id)
        if task.settled:
            self._tell_settled(job.session, job.number, task)
        elif not is_first:
            self.repeats.add(task.id, (job.session, job.number))

    def _tell_settled(self, session: str, number: int, task: Task) -> None:
        client = self.clients.get(session)
        if client is not None:
            self._release(session, client.settle, number, translate.outcome_of(task))

    def refuse(self, session: str, client: ClientPeer, number: int, refused: Refused) -> None:
        """One of the client's tasks. That its key is known may be known only once that is stored."""
        exists, busy = refused.code is Code.ALREADY_EXISTS, refused.code is Code.RESOURCE_EXHAUSTED
        self._release(session, client.refuse, Refusal(number, str(refused), exists, busy))

    async def accept(self, job: Job, priority: int, limits: TimeLimits | None = None) -> str:
        """Take a task of the wire contract, if it is new, and wait until its submitter may be told its id. Raises
        Refused."""
        known = self.repeats.first(job.key, self.now()) if job.key else None
        if known is not None:
            try:
                self._submit_again(known, job, priority)
            finally:
                await self.may_be_told(job.key)
            return str(known.id)
        if self.room.full:
            raise Refused(Code.RESOURCE_EXHAUSTED, "too many tasks are waiting")
        task_id = secrets.token_hex(8)
        call = self._calls.submission(task_id)
        if self._contract_timeout_s is not None and (limits is None or limits.execution_timeout_s is None):
            limits = (limits or TimeLimits())._replace(execution_timeout_s=self._contract_timeout_s)
        try:
            self.submit(task_id, job, priority, limits)
            await call
        finally:
            self._calls.forget(task_id)
        return task_id

    def find(self, name: str) -> Task:
        """By its id or its key. Raises Refused for an unknown one."""
        task = self._asked.task(name) or self.repeats.first(name, self.now())
        if task is None:
            raise Refused(Code.NOT_FOUND, f"no task {name[:80]!r}")
        return task

    async def cancel_task(self, name: str) -> Task:
        """Cancel it, and wait until whoever asked may be told. Raises Refused for an unknown one."""
        task = self.find(name)
        self.require_running()
        self.core.cancel(task.id, self.now())
        await self.may_be_told(name)
        return task

    async def may_be_told(self, peer: str) -> None:
        """Wait until that peer may be told what is decided by now."""
        request, call = self._calls.begin()
        self._calls.answer(peer, request, True)
        await call

    # ---- workers

    def report(self, worker_id: str, reported: Reported, reporter: StreamedWorker) -> None:
        """What a worker says on its stream, where its acknowledgement goes too."""
        self._hear(worker_id, reported, reporter.serial << NUMBER_BITS | reported.number)

    async def answer_report(self, worker_id: str, reported: Reported) -> bool:
        """What a worker says by a call. Whether the task is known."""
        request, call = self._calls.begin()
        self._hear(worker_id, reported, request)
        return bool(await call)

    async def answer_heartbeat(self, worker_id: str, active: int) -> bool:
        """A heartbeat by a call. Whether the worker is known."""
        request, call = self._calls.begin()
        self.lately.heard[worker_id] = now = self.now()
        self.core.heartbeat(worker_id, max(0, active), request, now)
        return bool(await call)

    async def register_called(self, worker_id: str, address: str, capacity: int) -> None:
        """A worker of the wire contract, which says neither what it holds nor which process it is."""
        self._require_place(worker_id)
        request, call = self._calls.begin()
        peer = CalledWorker(worker_id, address, self.core, self.call_timeout_s)
        self._attach(worker_id, peer, Refused(Code.ABORTED, f"worker {worker_id} goes on by calls"))
        self._note_name(worker_id)
        registration = Registration(worker_id, "", capacity, 0, reports_start=False, request=request)
        self.core.register(registration, self.now())
        await call

    async def admit(self, introduction: Introduction) -> None:
        """Wait until it is known whether another process of that name still beats. Raises Refused if one does."""
        name = introduction.name
        self._require_place(name)
        while (rival := self._rival(introduction)) is not None:
            if await rival.still_beats(lambda rival=rival: self._is_alive(name, rival)):  # type: ignore[misc]
                reason = f"a worker {name} is connected, and beats: give this one another name"
                raise Refused(Code.ALREADY_EXISTS, reason)

    def _rival(self, introduction: Introduction) -> StreamedWorker | None:
        peer = self.workers.get(introduction.name)
        if not isinstance(peer, StreamedWorker) or not self._is_alive(introduction.name, peer):
            return None
        return None if self.core.knows_incarnation(introduction.name, introduction.incarnation) else peer

    def _is_alive(self, name: str, peer: StreamedWorker) -> bool:
        worker = self.core.worker(name)
        return self.workers.get(name) is peer and worker is not None and worker.state is WorkerState.ALIVE

    def register_streamed(self, introduction: Introduction, draining: bool) -> StreamedWorker:
        """A worker whose stream begins; the answer waits in what it is to be told. `draining`: it takes nothing new."""
        name, incarnation, capacity, prefetch, held, _, kinds, labels = introduction
        peer = StreamedWorker(name, self.core, self.call_timeout_s, next(self._serials))
        self._streams[peer.serial] = peer
        known = self.core.knows_incarnation(name, incarnation)
        # Streams of one process may be read in another order than it began them: should the newest be ended here, the
        # process has to come again.
        code, how = (Code.UNAVAILABLE, "by another stream") if known else (Code.ABORTED, "as another process")
        self._attach(name, peer, Refused(code, f"worker {name} goes on {how}"))
        self._note_name(name)
        register = self.core.reconnected if known else self.core.register
        prefetch = min(prefetch, max(0, self.limits.held - capacity))
        registration = Registration(
            *(name, incarnation, capacity, prefetch, True, held), draining=draining, kinds=kinds, labels=labels
        )
        register(registration, self.now())
        worker = self._asked.worker(name)
        if worker is not None and worker.draining and not draining:
            peer.drain()  # it was asked to, and has not heard that
        return peer

    def _require_place(self, worker_id: str) -> None:
        """Raises Refused where a new name is one too many."""
        if self._names >= self.limits.workers and self._asked.worker(worker_id) is None:
            raise Refused(Code.RESOURCE_EXHAUSTED, f"{self._names} workers are known: no more are taken")

    def _note_name(self, worker_id: str) -> None:
        if self._asked.worker(worker_id) is None:
            self._names += 1

    def speaks(self, worker_id: str, peer: StreamedWorker) -> bool:
        """Whether it is by this stream that the worker is heard: a former one says nothing for its successor."""
        return self.workers.get(worker_id) is peer

    def _attach(self, worker_id: str, peer: WorkerPeer, reason: Refused) -> None:
        """From now on this is the way to the worker; the former one ends at once, for that reason."""
        former = self.workers.get(worker_id)
        if former is not None:
            former.end(reason)
        self.workers[worker_id] = peer

    def detach(self, worker_id: str, peer: StreamedWorker, left: bool) -> None:
        """The peer's stream has ended."""
        del self._streams[peer.serial]
        if self.workers.get(worker_id) is not peer:
            return
        if left:
            self.core.deregister(worker_id, self.now())
        else:
            self.lines.warning(f"worker {worker_id}", "worker %s: its stream broke", worker_id, worker=worker_id)
            self.core.connection_lost(worker_id, self.now())
        self.workers.pop(worker_id, None)

    def _hear(self, worker_id: str, reported: Reported, request: int) -> None:
        now, task = self.now(), self._asked.task(reported.task_id)
        self.core.result(believed(reported, worker_id, task, request, self.limits.payload_characters, now), now)

    # ---- the end

    def require_running(self) -> None:
        """Raises Refused once the coordinator has stopped, or closes."""
        if self._parting is not None:
            raise self._parting

    def close(self) -> None:
        """What ends from now on is this process, not its peers."""
        self._part(Refused(Code.UNAVAILABLE, "the coordinator is shutting down"))
        for timer in (self._alarm, self._flushing):
            if timer is not None:
                timer.cancel()

    def _part(self, reason: Refused) -> None:
        """Every stream ends with that reason, and so does every call that waits for an answer."""
        if self._parting is not None:
            return
        self._parting = reason
        self.parting.set()
        self._guard.closed = True
        peers: list[WorkerPeer | ClientPeer] = [*self.workers.values(), *self.clients.values()]
        for peer in peers:
            peer.end(reason)
        self.workers.clear()
        self.clients.clear()
        self._calls.end(reason)

    def stop(self, sentence: str) -> None:
        log.critical("%s%s", rpc.STOPPED, sentence)
        self._part(Refused(Code.INTERNAL, f"{rpc.STOPPED}{sentence}"))
        self.flush()
        if not self.failed.done():
            self.failed.set_exception(Stopped(sentence))
            self.failed.exception()  # whoever only asks whether it is done does not retrieve it

    def flush(self) -> None:
        """What is recorded so far outlives this process."""
        if self._record is not None:
            self._record.flush()

    def _flush_regularly(self) -> None:
        if self._record is not None:
            self.flush()
            self._flushing = self._loop.call_later(FLUSH_EVERY_S, self._flush_regularly)
