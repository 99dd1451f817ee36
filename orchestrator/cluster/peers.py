"""Who is connected to the coordinator: workers on a stream, workers that are called, clients on a stream.

What is for a peer on a stream gathers while the last message to it is being written, and travels in the next one.
It is bounded: for a worker by the attempts that it may hold, and for both because nothing more is read from a peer for
which too much is waiting. Peers are handed copies: nothing here looks at a record of the core.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Any, Protocol

import grpc

from orchestrator.cluster.answers import LARGE_CHARACTERS, Unread
from orchestrator.cluster.overdue import Overdue, awake_s, confirm_s
from orchestrator.cluster.wire import rpc, sizes, translate
from orchestrator.cluster.wire.progress import Progress, some
from orchestrator.cluster.wire.translate import Assignment, Key, Outcome, Refusal, Registered
from orchestrator.core.coordinator import Coordinator

COMPANY_WAITS_S = 0.002
"""How long news for a client may wait for more: a message of its own costs as much as a task."""
MANY_UNSETTLED = 1000
"""A client with more of them waits far longer than that for each: its results may wait for company too."""
BEATS_OF_PROOF = 2
UNREAD_MAX = 20_000  # acknowledgements
OWED_MAX = 8 << 20  # characters
REFUSED_MAX = 10_000
PROGRESS_MAX = 10_000
"""A peer of which so much was refused, and nothing taken in between, is told to go."""
SLICE = 256
"""What a peer says is taken in slices: between them it is the turn of the others."""
UNANSWERED_MAX = 2 * SLICE
"""Of a client's submissions, until they are stored: with more of them no other slice is taken, for a group would be so
large that whatever else is to be stored waits for it."""
Write = Callable[[Any], Awaitable[None]]


class Refused(Exception):
    """A request or a stream that is answered with a status."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def unknown(worker_id: str) -> Refused:
    return Refused(grpc.StatusCode.UNAVAILABLE, f"worker {worker_id} is unknown: it is to register again")


class WorkerPeer(Protocol):
    """The way to a worker. `end`: the reason that its stream is given."""

    def register(self, answer: Registered) -> None: ...
    def assign(self, assignment: Assignment) -> None: ...
    def cancel(self, key: Key) -> None: ...
    def recall(self, key: Key) -> None: ...
    def acknowledge(self, number: int) -> None: ...
    def answer_beat(self) -> None: ...
    def hurry(self) -> None: ...
    def drain(self) -> None: ...
    def end(self, reason: Refused) -> None: ...


class Stream:
    """What the streams of workers and clients have in common: how the coordinator ends one."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[Refused] = asyncio.get_running_loop().create_future()
        self.refused_in_a_row = 0

    def note(self, taken: bool) -> None:
        """Something that the peer said was taken, or was refused."""
        if taken:
            self.refused_in_a_row = 0
            return
        self.refused_in_a_row += 1
        if self.refused_in_a_row >= REFUSED_MAX:
            reason = f"the last {REFUSED_MAX} items of this stream were refused"
            self.end(Refused(grpc.StatusCode.INVALID_ARGUMENT, reason))

    def end(self, reason: Refused) -> None:
        """The first reason counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    @property
    def reason(self) -> Refused | None:
        """Why the coordinator ended it, if it did."""
        return self._ended.result() if self._ended.done() else None

    async def ended(self) -> None:
        await asyncio.shield(self._ended)


class StreamedWorker(Stream):
    """A worker that holds a stream. It says of every assignment that it is there, or what became of it: one that it
    has not said a word of `call_timeout_s` after it was made is a failed call, whether or not the worker reads.
    `serial`: of its stream."""

    def __init__(self, worker_id: str, core: Coordinator, call_timeout_s: float, serial: int) -> None:
        super().__init__()
        self.serial = serial
        self._worker_id = worker_id
        self._core = core
        self._call_timeout_s = call_timeout_s
        self._loop = asyncio.get_running_loop()
        self._unconfirmed: Overdue[Key] = Overdue(call_timeout_s, self._fail, awake_s(call_timeout_s))
        self._registered: Registered | None = None
        self._answer: Registered | None = None
        self._acknowledged: list[int] = []
        self._patience = 64
        self._patience_s = confirm_s(call_timeout_s)
        self._impatient: asyncio.TimerHandle | None = None
        self._assignments: deque[Assignment] = deque()
        self._cancels: deque[Key] = deque()
        self._recalls: deque[Key] = deque()
        self._is_to_drain = False
        self._late: dict[Key, None] = {}  # they fail slice by slice, unless they are confirmed in the meantime
        self._gathered = asyncio.Event()
        self._read = asyncio.Event()
        self._beats = 0
        self._proof: asyncio.Event = asyncio.Event()
        self._closed = False

    # ---- what it is to be told

    def register(self, answer: Registered) -> None:
        self._registered = self._answer = answer
        self._gathered.set()

    def register_again(self) -> None:
        """It has asked again: the answer was lost, or is still to come."""
        if self._answer is not None:
            self.register(self._answer)

    def assign(self, assignment: Assignment) -> None:
        self._assignments.append(assignment)
        self._unconfirmed.expect(assignment.key, self._loop.time())
        self._gathered.set()

    def cancel(self, key: Key) -> None:
        self._cancels.append(key)
        self._gathered.set()

    def recall(self, key: Key) -> None:
        self._recalls.append(key)
        self._gathered.set()

    def acknowledge(self, number: int) -> None:
        """Travels with whatever is written next; many of them, a heartbeat, or the first one after a while do not
        wait for that."""
        self._acknowledged.append(number)
        if len(self._acknowledged) >= self._patience:
            self._gathered.set()
        elif self._impatient is None:
            self._impatient = self._loop.call_later(self._patience_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._impatient = None
        if self._acknowledged:
            self._gathered.set()

    def answer_beat(self) -> None:
        self._gathered.set()

    def hurry(self) -> None:
        """It waits for every acknowledgement: it is about to leave."""
        self._patience = 1
        self._gathered.set()

    def drain(self) -> None:
        """Every message says so, until the worker does."""
        self._is_to_drain = True
        self._gathered.set()

    # ---- what it has said

    def drains(self) -> None:
        self._is_to_drain = False

    def confirmed(self, key: Key) -> None:
        """The worker has said something of that attempt."""
        self._unconfirmed.met(key)
        if self._late:
            self._late.pop(key, None)

    @property
    def overlooks(self) -> bool:
        """Its acknowledgements wait, because it does not read them."""
        return len(self._acknowledged) >= UNREAD_MAX

    async def reads(self) -> None:
        """Wait until it has read most of its acknowledgements."""
        while self.overlooks:
            self._read.clear()
            await self._read.wait()

    def beats(self) -> None:
        self._beats += 1
        self._proof.set()

    def doubt(self) -> None:
        """The detector believes that it is not there any more."""
        self._proof.set()

    async def still_beats(self, alive: Callable[[], bool]) -> bool:
        """Wait for what shows whether the process at the other end lives: some more beats, or the end of its stream,
        or that it is not `alive` in the detector's eyes."""
        enough = self._beats + BEATS_OF_PROOF
        while not self._closed and alive() and self._beats < enough:
            self._proof.clear()
            await self._proof.wait()
        return not self._closed and alive()

    def close(self) -> None:
        """The stream is over. What it held is for the detector, or the worker's next registration, to decide."""
        self._closed = True
        self._proof.set()
        self._unconfirmed.clear()
        self._late.clear()
        if self._impatient is not None:
            self._impatient.cancel()

    async def write_to(self, write: Write) -> None:
        while True:
            await self._gathered.wait()
            await write(self._next_message())
            self._read.set()

    def _next_message(self) -> Any:
        room = rpc.Room()
        registered, self._registered = self._registered, None
        if registered is not None:
            room.charge(sizes.keys_bytes(registered.dropped))
        acknowledged = room.take_numbers(self._acknowledged)
        assignments = room.take(self._assignments, sizes.assignment_bytes) if self._assignments else ()
        # A cancel never overtakes its assignment, nor does a recall.
        cancels = room.take(self._cancels, sizes.key_bytes) if self._cancels and not self._assignments else ()
        recalls = room.take(self._recalls, sizes.key_bytes) if self._recalls and not self._assignments else ()
        if not (self._acknowledged or self._assignments or self._cancels or self._recalls):
            self._gathered.clear()
        return translate.to_worker(registered, acknowledged, assignments, cancels, recalls, self._is_to_drain)

    def _fail(self, keys: list[Key]) -> None:
        """What is still here, because the worker does not read, is sent no more."""
        waits = bool(self._late)
        self._late.update(dict.fromkeys(keys))
        self._assignments = deque(each for each in self._assignments if each.key not in self._late)
        if not waits:
            self._fail_some()

    def _fail_some(self) -> None:
        now = self._loop.time()
        for task_id, number in list(islice(self._late, SLICE)):
            self._late.pop((task_id, number), None)
            self._core.call_failed(self._worker_id, task_id, number, now)
        if self._late and not self._closed:
            self._loop.call_soon(self._fail_some)


class ClientPeer(Stream):
    """A client's session, for as long as its stream lasts. `unread`: what all clients together need not have read.

    One that has not read more of its large results than there is room for is told to go. It may come again, and ask for
    them again; it is read no further while much waits for it.
    """

    def __init__(self, unread: Unread) -> None:
        super().__init__()
        self._unread = unread
        self._owed = 0  # characters of large results that it has not read
        self.accepted: list[int] = []
        self.known: deque[tuple[int, str]] = deque()
        self.refused: deque[Refusal] = deque()
        self.settled: deque[tuple[int, Outcome]] = deque()
        self.progress: dict[int, Progress] = {}  # what it has not been told yet, of tasks that run
        self.unanswered = 0  # submissions, which are neither accepted nor refused; whoever submits one counts it
        self.unsettled = 0  # of what it has submitted on this stream
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        self._gathered = asyncio.Event()
        self._few_unanswered = asyncio.Event()

    @property
    def waiting(self) -> int:
        """What it has not been told yet, in messages' parts."""
        return len(self.accepted) + len(self.known) + len(self.refused) + len(self.settled)

    @property
    def owes_reading(self) -> bool:
        """So much waits for it that nothing more is taken from it."""
        return self._owed >= OWED_MAX

    def accept(self, number: int, known: str = "") -> None:
        """Waits a moment for results to travel with. `known`: the id, where it is a task that was known already."""
        if known:
            self.known.append((number, known))
        else:
            self.accepted.append(number)
        self.unsettled += 1
        self._answered()
        if self._patience is None:
            self._wait_for_company()

    def refuse(self, refusal: Refusal) -> None:
        self.refused.append(refusal)
        self._gathered.set()
        self._answered()
        if not (refusal.exists or refusal.busy):
            self.note(taken=False)

    def settle(self, number: int, outcome: Outcome) -> None:
        if len(outcome.result) >= LARGE_CHARACTERS and not self._owe(len(outcome.result)):
            return
        self.settled.append((number, outcome))
        self.progress.pop(number, None)
        self.unsettled -= 1
        if self.unsettled <= MANY_UNSETTLED or len(self.settled) >= SLICE:
            self._gathered.set()
        elif self._patience is None:
            self._wait_for_company()

    def _answered(self) -> None:
        self.unanswered -= 1
        if self.unanswered == UNANSWERED_MAX:
            self._few_unanswered.set()

    async def answers(self) -> None:
        """Wait until not too many submissions are unanswered."""
        while self.unanswered > UNANSWERED_MAX:
            self._few_unanswered.clear()
            await self._few_unanswered.wait()

    def tell_progress(self, number: int, progress: Progress) -> None:
        """The newest word counts; a client that reads nothing is told of some only."""
        if number in self.progress or len(self.progress) < PROGRESS_MAX:
            self.progress[number] = progress
        if self._patience is None:
            self._wait_for_company()

    def _owe(self, characters: int) -> bool:
        if self.reason is None and self._unread.take(self, characters):
            self._owed += characters
            return True
        self.end(Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self._owed} characters of results are not read yet"))
        self.settled.clear()
        return False

    def _was_read(self, settled: Sequence[tuple[int, Outcome]]) -> None:
        sizes_ = (len(outcome.result) for _, outcome in settled)
        characters = sum(size for size in sizes_ if size >= LARGE_CHARACTERS)
        self._owed -= characters
        self._unread.give_back(self, characters)

    def close(self) -> None:
        """The stream is over."""
        if self._owed:
            self._unread.give_back(self, self._owed)
            self._owed = 0

    def _wait_for_company(self) -> None:
        self._patience = self._loop.call_later(COMPANY_WAITS_S, self._gathered.set)

    async def write_to(self, write: Write, written: Callable[[], None]) -> None:
        while True:
            await self._gathered.wait()
            if self.unsettled > 0:
                await asyncio.sleep(0)  # the assignments first
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            room = rpc.Room()
            accepted = room.take_numbers(self.accepted)
            known = room.take(self.known, sizes.known_bytes) if self.known else ()
            refused = room.take(self.refused, sizes.refusal_bytes) if self.refused else ()
            settled = room.take(self.settled, sizes.outcome_bytes)
            progress = list(some(self.progress)) if self.progress else ()
            if not self.waiting and not self.progress:
                self._gathered.clear()
            await write(translate.to_client(accepted, known, refused, settled, progress))
            if self._owed:
                self._was_read(settled)
            written()
