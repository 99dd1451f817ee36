"""How a client's submissions travel: by one stream, or by calls where the coordinator offers no streams."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Iterator
from typing import Any, Protocol

import grpc
import grpc.aio

from orchestrator.cluster.link import UNANSWERED, Link
from orchestrator.cluster.resubmitting import Resubmissions
from orchestrator.cluster.silence import Silence
from orchestrator.cluster.submissions import (
    CoordinatorStopped,
    KeyTaken,
    Overloaded,
    Submission,
    TaskRefused,
    Unanswered,
)
from orchestrator.cluster.wire import contract, progress, rpc, sizes, translate
from orchestrator.cluster.wire.rpc import first_of, pauses
from orchestrator.core.model import TimeLimits

Code = grpc.StatusCode
DEADLINE_S = 10.0
AT_ONCE = 64  # calls under way at a coordinator without streams
POLL_S = (0.001, 0.2)
FINAL = (Code.INVALID_ARGUMENT, Code.ABORTED, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
"""How a stream ends that would end so again."""

Unsettled = dict[int, Submission]
"""What a client has submitted and not seen settled, by number, in order."""


class NoStreams(Exception):
    """The coordinator speaks only the wire contract."""


class Way(Protocol):
    """Shares the client's `Unsettled`, and takes settled ones out."""

    def submit(self, numbers: range) -> None: ...

    def forsake(self, number: int, submission: Submission) -> bool:
        """One that was taken out of the unsettled. False: it never left, and won't. True: as soon as its `id` is
        known, the coordinator can be told, if it has it at all."""
        ...

    async def run(self) -> None:
        """For ever. Raises what makes it useless to go on."""
        ...


class Streaming:
    """Submissions by number; those not settled yet are submitted again where the stream breaks."""

    IN_A_MESSAGE = 1000

    def __init__(self, link: Link, unsettled: Unsettled, silence: Silence, resubmissions: Resubmissions) -> None:
        self._link = link
        self._silence = silence
        self._resubmissions = resubmissions
        self._now = asyncio.get_running_loop().time
        self._waits_since = self._now()  # for a word of the coordinator
        self._session = secrets.token_hex(6)
        self._unsettled = unsettled
        self._outgoing: deque[int] = deque()
        self._gathered = asyncio.Event()
        self._idle: Any = None  # the stream, while nothing is written to it
        self._begun: asyncio.Task[None] | None = None  # a message, by whoever submitted
        self._newest_sent = 0
        self._forsaken: Unsettled = {}  # sent, but not known to have been accepted

    def submit(self, numbers: range) -> None:
        if len(self._unsettled) == len(numbers):  # nobody waited before
            self._waits_since = self._now()
        self._outgoing.extend(numbers)
        self._gathered.set()
        if self._idle is not None:
            self._begun = rpc.begin(self._idle.write(self._next_message()))
            self._idle = None

    def _silent_s(self) -> float:
        return self._now() - self._waits_since if self._unsettled else 0.0

    def forsake(self, number: int, submission: Submission) -> bool:
        if number > self._newest_sent or self._resubmissions.pauses(number):
            self._resubmissions.forget(number)
            return False
        if not submission.id.done():
            self._forsaken[number] = submission
        return True

    async def run(self) -> None:
        self._silence.begin()
        listen_s = 0.0
        for pause_s in pauses():
            call = self._link.streams.Submit()
            self._outgoing = deque(number for number in self._unsettled if not self._resubmissions.pauses(number))
            self._gathered.set()
            self._waits_since = self._now()
            try:
                reason = await first_of(
                    self._read(call), self._write(call, listen_s), self._link.forsaken(self._silent_s)
                )
                listen_s = 0.0
                self._silence.failed(reason or "it ended the stream")
            except grpc.aio.AioRpcError as error:
                if error.code() is Code.UNIMPLEMENTED:
                    raise NoStreams from None
                if has_stopped(error):
                    raise CoordinatorStopped(error.details()) from None
                if error.code() in FINAL:
                    raise
                listen_s = rpc.listen_s(error)
                self._silence.failed(error.details() or error.code().name)
            finally:
                call.cancel()
                for number in list(self._forsaken):
                    self._release(number)
            await asyncio.sleep(pause_s)

    async def _read(self, call: Any) -> None:
        session, unsettled, forsaken = self._session, self._unsettled, self._forsaken
        resubmissions = self._resubmissions
        async for message in call:
            came_at = self._waits_since = self._now()
            if resubmissions.any:
                for number in (*translate.accepted(message), *dict(translate.known(message))):
                    resubmissions.forget(number)
            for number in translate.accepted(message):
                if number in unsettled:
                    unsettled[number].accept(translate.id_of(session, number))
                elif number in forsaken:
                    self._release(number)
            for number, task_id in translate.known(message):
                if number in unsettled:
                    unsettled[number].accept(task_id)
                elif number in forsaken:
                    self._release(number)
            for number, reason, exists, busy in translate.refused(message):
                if number in forsaken:
                    resubmissions.forget(number)
                    forsaken.pop(number).id.cancel()  # nobody wants it any more, and the coordinator does not have it
                elif number in unsettled and not (busy and resubmissions.later(number, reason, self._submit_again)):
                    failure = KeyTaken if exists else Overloaded if busy else TaskRefused
                    unsettled.pop(number).fail(failure(reason))
            for number, told in progress.of_client(message):
                if number in unsettled:
                    unsettled[number].progress = told
            for number, outcome in translate.outcomes(message):
                if number in unsettled:
                    unsettled.pop(number).settle(translate.id_of(session, number), outcome, came_at)

    def _submit_again(self, number: int) -> None:
        self.submit(range(number, number + 1))

    def _release(self, number: int) -> None:
        """The coordinator can be told now: it has the task, or will never have it."""
        submission = self._forsaken.pop(number)
        submission.accept(submission.task.key or translate.id_of(self._session, number))  # it knows both

    async def _write(self, call: Any, listen_s: float) -> None:
        try:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                if listen_s:
                    await asyncio.sleep(listen_s)
                await call.write(translate.from_client(self._session, ()))
                self._silence.reached()
                while True:
                    self._idle = None if self._outgoing else call
                    await self._gathered.wait()
                    self._idle = None
                    begun, self._begun = self._begun, None
                    await (begun or call.write(self._next_message()))
                    if not self._outgoing:
                        self._gathered.clear()
        finally:
            self._idle = None
            if self._begun is not None:
                self._begun.cancel()
                self._begun = None
        await asyncio.Event().wait()  # the stream is broken: its reader knows why

    def _next_message(self) -> Any:
        return translate.from_client("", self._next_tasks())

    def _next_tasks(self) -> Iterator[tuple[int, str, str, int, str, TimeLimits | None, str, str]]:
        for number in rpc.take(self._outgoing, self._size, self.IN_A_MESSAGE):
            submission = self._unsettled.get(number)
            if submission is None:
                continue  # cancelled, or sent before, by a stream that broke
            task = submission.task
            payload, priority, kind, key, queue_timeout_s, execution_timeout_s, deadline_s, affinity_key, labels = task
            limits = None if queue_timeout_s is execution_timeout_s is deadline_s is None else task.limits
            if number > self._newest_sent:
                self._newest_sent = number
            yield number, kind, payload, priority, key, limits, affinity_key, str(labels)

    def _size(self, number: int) -> int:
        submission = self._unsettled.get(number)
        if submission is None:
            return 0
        payload, _, kind, key, _, _, _, affinity_key, labels = submission.task
        return sizes.task_bytes(kind, payload, key, affinity_key, str(labels))


class Polling:
    """By unary calls: a few at a time to submit, a few at a time to ask, the oldest first."""

    def __init__(self, link: Link, unsettled: Unsettled, silence: Silence, resubmissions: Resubmissions) -> None:
        self._link = link
        self._silence = silence
        self._resubmissions = resubmissions
        self._unsettled = unsettled
        self._outgoing: deque[int] = deque(unsettled)
        self._sent: set[int] = set()
        self._asked: deque[tuple[str, int]] = deque()
        self._gathered = asyncio.Event()
        self._session = secrets.token_hex(8)  # its submissions' keys begin with it

    def submit(self, numbers: range) -> None:
        self._outgoing.extend(numbers)
        self._gathered.set()

    def forsake(self, number: int, submission: Submission) -> bool:
        self._resubmissions.forget(number)
        return submission.id.done() or number in self._sent

    async def run(self) -> None:
        ways = (self._poll(), self._redial(), *(self._send() for _ in range(AT_ONCE)))
        parts = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.gather(*parts)
        finally:
            for part in parts:
                part.cancel()

    async def _redial(self) -> None:
        while True:
            self._silence.failed(await self._link.forsaken(lambda: 0.0))

    async def _send(self) -> None:
        while True:
            while not self._outgoing:
                self._gathered.clear()
                await self._gathered.wait()
            number = self._outgoing.popleft()
            for pause_s in pauses():
                submission = self._unsettled.get(number)
                if submission is None or await self._submit(number, submission):
                    break
                await asyncio.sleep(pause_s)

    async def _submit(self, number: int, submission: Submission) -> bool:
        """Whether that is over, well or badly. One that was forsaken meanwhile learns its id, too."""
        payload, priority, kind, given, *_, affinity_key, labels = submission.task
        self._silence.begin()
        await self._link.connected()  # before that there is no call whose time could pass
        if number not in self._unsettled:
            return True  # cancelled
        self._sent.add(number)
        key = given or f"{self._session}.{number}"
        try:
            limits = submission.task.limits
            request = contract.submit_message(kind, payload, priority, key, limits, affinity_key, str(labels))
            submit = self._link.coordinator.SubmitTask
            answer = await self._link.ask(lambda: submit(request, timeout=DEADLINE_S, wait_for_ready=True))
        except grpc.aio.AioRpcError as error:
            if error.code() not in UNANSWERED:
                self._silence.reached()
            if error.code() is Code.RESOURCE_EXHAUSTED:
                if number not in self._unsettled:
                    submission.id.cancel()  # nobody wants it any more, and the coordinator never had it
                elif not self._resubmissions.later(number, error.details() or "", self._submit_again):
                    self._unsettled.pop(number).fail(Overloaded(error.details()))
                return True
            if has_stopped(error):
                raise CoordinatorStopped(error.details()) from None
            failure: Exception = error
            if error.code() in UNANSWERED:
                self._silence.failed(error.details() or error.code().name)
                if await self._knows_keys():
                    if number not in self._unsettled:
                        submission.accept(key)  # if the coordinator has it, it is by that name
                    return False
                failure = Unanswered(f"the submission was not answered ({error.details()}), and is not made again: "
                                     "this coordinator could execute the task twice")  # fmt: skip
            elif error.code() is Code.ALREADY_EXISTS:
                failure = KeyTaken(error.details())
            elif error.code() is Code.INVALID_ARGUMENT:
                failure = TaskRefused(error.details())
            self._unsettled.pop(number, None)
            submission.fail(failure)
            return True
        finally:
            self._sent.discard(number)
        self._silence.reached()
        self._resubmissions.forget(number)
        submission.accept(answer.task_id)
        self._asked.append((answer.task_id, number))
        return True

    def _submit_again(self, number: int) -> None:
        self.submit(range(number, number + 1))

    async def _knows_keys(self) -> bool:
        """Whether a submission may be made again at the coordinator; waits for one that answers."""
        request = contract.metrics_request()

        def ask() -> Awaitable[Any]:
            return self._link.coordinator.GetMetrics(request, timeout=DEADLINE_S)  # type: ignore[no-any-return]

        for pause_s in pauses():
            try:
                return contract.takes_keys(await self._link.ask_again(ask))
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNANSWERED:
                    return False
            await asyncio.sleep(pause_s)
        raise AssertionError("pauses never end")

    async def _poll(self) -> None:
        """More at a time while all that are asked about are settled, fewer and later while they are not."""
        least_s, most_s = POLL_S
        pause_s, window = least_s, 1
        while True:
            asked = [self._asked.popleft() for _ in range(min(window, len(self._asked)))]
            settled = await asyncio.gather(*(self._ask(task_id, number) for task_id, number in asked))
            self._asked.extend(pair for pair, is_settled in zip(asked, settled, strict=True) if not is_settled)
            if asked and all(settled):
                pause_s, window = least_s, min(AT_ONCE, 2 * window)
            else:
                await asyncio.sleep(pause_s)
                pause_s, window = min(most_s, 1.5 * pause_s), max(1, window // 2)

    async def _ask(self, task_id: str, number: int) -> bool:
        submission = self._unsettled.get(number)
        if submission is None:
            return True  # cancelled
        try:
            request, status = contract.status_request(task_id), self._link.coordinator.GetTaskStatus
            answer = await self._link.ask(lambda: status(request, timeout=DEADLINE_S))
        except grpc.aio.AioRpcError as error:
            if has_stopped(error):
                raise CoordinatorStopped(error.details()) from None
            if error.code() is not Code.NOT_FOUND:
                if error.code() in UNANSWERED:
                    self._silence.failed(error.details() or error.code().name)
                return False
            self._unsettled.pop(number, None)
            submission.fail(error)  # it restarted, or has forgotten it
            return True
        self._silence.reached()
        outcome = contract.outcome_of_status(answer)
        if outcome.settled:
            self._unsettled.pop(number, None)
            submission.settle(task_id, outcome, asyncio.get_running_loop().time())
        return outcome.settled


def has_stopped(error: grpc.aio.AioRpcError) -> bool:
    return error.code() is Code.INTERNAL and (error.details() or "").startswith(rpc.STOPPED)
