"""Between a core, its driver and a store: groups are written elsewhere, and what waits for them is on a loop.

`orchestrator.core.group_commit` says what waits for which change.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Protocol

from orchestrator.cluster.jobs import Job
from orchestrator.cluster.metrics import Groups
from orchestrator.cluster.store import Kept
from orchestrator.cluster.store_process import Outdated
from orchestrator.cluster.wire import translate
from orchestrator.core.group_commit import GroupCommit, Noting
from orchestrator.core.inputs import Holding, Recovered
from orchestrator.core.model import AttemptState, Task, TaskState, TimeLimits
from orchestrator.core.ports import Effects

log = logging.getLogger("orchestrator.coordinator")

Release = Callable[..., None]
"""`release(peer, call, *values)` makes the call, at once or later, in order for each peer. It is given copies."""

RECORD_BYTES = 1000
"""What a settled task takes in the store beside its result and its error, roughly."""
FORGET_EVERY_S = 1.0
_OPEN = AttemptState.OPEN


def at_once(peer: str, call: Callable[..., None], *values: object) -> None:
    """The release of a coordinator that keeps nothing back."""
    call(*values)


class Driver(Protocol):
    """Of the core whose changes are stored. `failed` is done when its state is nothing that may be stored. `flush`
    hands over what is recorded of decisions: the record has whatever is stored."""

    failed: asyncio.Future[Any]

    def flush(self) -> None: ...
    def stop(self, sentence: str) -> None: ...


class Writer(Protocol):
    """Of a store, elsewhere: `orchestrator.cluster.store_process`.

    `listen` comes before the first `write`. `stored` is called for each group that is, one after the other; `failed`
    once, with a sentence, when no other will be.
    """

    def tasks(self) -> Iterator[Kept]: ...
    def listen(self, stored: Callable[[], None], failed: Callable[[str], None]) -> None: ...
    def write(self, term: int, tasks: Sequence[Kept], outdated: Outdated | None) -> None: ...
    def close(self) -> None: ...


class Durability:
    """Stands between a core, its driver and a store: `noting` goes around the driver's effects, `release` is for them:
    it makes a call as soon as everything is stored that has been noted by then.

    Settled tasks are kept for `keep_settled_s`, those with a key for `keep_keyed_s`, as long as they take no more than
    `keep_settled_bytes`; those with a key go last. When the store cannot be written any more, `driver` is stopped, and
    nothing that waits is ever released.
    """

    def __init__(
        self, store: Writer, term: int, keep_settled_s: float, keep_settled_bytes: float, keep_keyed_s: float
    ) -> None:
        self.driver: Driver | None = None
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._term = term
        self._keep_bytes = keep_settled_bytes
        self._commit = GroupCommit(self._begin_soon)
        self.release: Release = self._commit.release
        self._writing = 0  # groups
        self._begun = (0, 0.0)  # the tasks of the last group, and when that was handed over
        self._over = False  # nothing is released any more
        self._broken = ""  # why nothing is stored any more
        self._settled_down = asyncio.Event()  # since it is over: no group is being written
        self.groups = Groups(self._loop.time())
        # Without a key, and with one: how long they are kept; when each was settled, by the wall clock, and its bytes.
        self._settled: tuple[tuple[float, deque[tuple[float, int]]], ...] = (
            (keep_settled_s, deque()),
            (keep_keyed_s, deque()),
        )
        self._bytes = 0
        self._forgets_at = 0.0
        self._places = count(1)

    def recovered(self, now: float) -> Iterator[Recovered]:
        """What the store holds, for a core whose clock says `now`; when all of it is taken, groups can be written.
        Raises Unusable."""
        since_1970 = time.time() - now
        last = 0
        for kept in self._store.tasks():
            if kept.place > last:
                last = kept.place
            if kept.settled_at is not None:
                self._note_settled(kept)
            yield recovered_of(kept, since_1970, now)
        self._places = count(last + 1)
        self._store.listen(self._stored, self._fail)

    def noting(self, onward: Effects) -> Effects:
        """Effects that are passed on, and of which it is noted what they change."""
        return Noting(self._commit.note, onward)

    async def close(self) -> None:
        """Write what is still to be written, unless the driver has failed; nothing is released any more."""
        vouched = not self._over and not self._failed
        self._over = True
        if vouched and (group := self._next_group()):
            self._write(group, None)
        self._commit.close()
        if self._writing and not self._broken:
            await self._settled_down.wait()
            if vouched and self._broken:
                log.error("%s", self._broken)
        self._store.close()

    # ---- groups

    @property
    def _failed(self) -> bool:
        return self.driver is not None and self.driver.failed.done()

    def _begin_soon(self) -> None:
        self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Hand over what has changed, where no input is under way."""
        if not self._commit.due or self._over or self._failed:
            return
        if self.driver is not None:
            self.driver.flush()
        self._write(self._next_group(), self._outdated())

    def _write(self, group: Sequence[Kept], outdated: Outdated | None) -> None:
        self._writing += 1
        self._store.write(self._term, group, outdated)
        self._begun = (len(group), self._loop.time())

    def _next_group(self) -> Sequence[Kept]:
        since_1970 = time.time() - self._loop.time()
        group: list[Kept] = self._commit.begin(partial(kept_of, since_1970, self._places))
        for kept in group:
            if kept.settled_at is not None:
                self._note_settled(kept)
        return group

    def _stored(self) -> None:
        self._writing -= 1
        if self._over:
            if not self._writing:
                self._settled_down.set()
            return
        now, (tasks, begun_at) = self._loop.time(), self._begun
        self.groups.stored(tasks, now - begun_at, now)
        covered = self._commit.end()
        self._begin()  # it is written while this one's calls are made
        try:
            for call, values in covered:
                call(*values)
        except Exception as fault:
            log.error("a fault of the coordinator itself", exc_info=fault)
            self._stop(f"what was stored could not be told: {fault!r}")
        covered.clear()

    def _fail(self, sentence: str) -> None:
        self._broken = sentence
        self._settled_down.set()
        if not self._over:
            self._stop(sentence)

    def _stop(self, sentence: str) -> None:
        self._over = True
        self._commit.close()
        if self.driver is not None:
            self.driver.stop(sentence)

    # ---- settled tasks

    def _note_settled(self, kept: Kept) -> None:
        size = RECORD_BYTES + len(kept.error) + len(kept.result or "")
        self._settled[kept.key != ""][1].append((kept.settled_at, size))  # type: ignore[arg-type]  # it is settled
        self._bytes += size

    def _outdated(self) -> Outdated | None:
        """Until when settled tasks are to be forgotten now, without a key and with one; None for none."""
        now = time.time()
        if now < self._forgets_at:
            return None
        self._forgets_at = now + FORGET_EVERY_S
        until = [-math.inf, -math.inf]
        for keyed, (keep_s, settled) in enumerate(self._settled):
            while settled and (settled[0][0] < now - keep_s or self._bytes > self._keep_bytes):
                until[keyed], size = settled.popleft()
                self._bytes -= size
        return (until[0], until[1]) if max(until) > -math.inf else None


def kept_of(since_1970: float, places: Iterator[int], task: Task) -> Kept:
    """`since_1970`: what the wall clock is ahead of the core's. `places`: the next ones. Called for every change, so
    nothing lies between."""
    job: Job = task.payload  # type: ignore[assignment]  # every task's payload in this world
    if not job.place:
        job.place = next(places)
    result, settled_at = task.result, task.settled_at
    queue_timeout_s, execution_timeout_s, deadline_s = task.limits or translate.NO_LIMITS
    fields = (
        task.id,
        task.priority,
        job.kind,
        job.payload,
        job.session,
        job.number,
        execution_timeout_s,
        task.submitted_at + since_1970,
        task.tries,
        task.attempt,
        [
            (attempt.number, attempt.worker.id, attempt.worker.incarnation, attempt.assigned_at + since_1970)
            for attempt in task.live
            if attempt.state is _OPEN
        ]
        if task.live
        else (),
        int(task.state),
        task.worker_id,
        None if result is None else str(result),
        task.error,
        None if settled_at is None else settled_at + since_1970,
        job.key,
        job.digest,
        queue_timeout_s,
        deadline_s,
        job.affinity_key,
        job.requires,
        job.place,
    )
    return translate.make(Kept, fields)


def recovered_of(kept: Kept, since_1970: float, now: float) -> Recovered:
    """Nothing happened after `now`, whatever the wall clock has said meanwhile."""
    limits = TimeLimits(kept.queue_timeout_s, kept.execution_timeout_s, kept.deadline_s)
    return Recovered(
        kept.id,
        kept.priority,
        Job(
            *(kept.kind, kept.payload, kept.session, kept.number, kept.key, kept.digest),
            *(kept.affinity_key, kept.requires, kept.place),
        ),
        None if limits == translate.NO_LIMITS else limits,
        min(now, kept.accepted_at - since_1970),
        kept.tries,
        kept.attempt,
        tuple(_later(Holding(*holding), -since_1970, now) for holding in kept.held),
        TaskState(kept.state),
        kept.worker_id,
        kept.result,
        kept.error,
        None if kept.settled_at is None else min(now, kept.settled_at - since_1970),
    )


def _later(holding: Holding, by_s: float, at_most: float = math.inf) -> Holding:
    at = holding.assigned_at
    return holding if at is None else holding._replace(assigned_at=min(at_most, at + by_s))
