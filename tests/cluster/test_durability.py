"""What is for a peer leaves when everything is stored that was decided before it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from orchestrator.cluster.durability import Durability
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.store import Kept, MemoryStore
from orchestrator.cluster.store_process import Outdated
from orchestrator.core.coordinator import Coordinator
from orchestrator.core.inputs import Registration, Report
from orchestrator.core.model import TaskState
from orchestrator.policies.settings import Policies, build_coordinator


class Gate:
    """Lets a group be written, or one that is to come: in the next turn of the loop."""

    def __init__(self) -> None:
        self._groups: deque[Callable[[], None]] = deque()
        self._let = 0

    def wait(self, write: Callable[[], None]) -> None:
        self._groups.append(write)
        self._open()

    def release(self) -> None:
        self._let += 1
        self._open()

    def _open(self) -> None:
        if self._groups and self._let:
            self._let -= 1
            asyncio.get_running_loop().call_soon(self._groups.popleft())


class Gated(MemoryStore):
    """Writes a group whenever it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.groups: list[list[str]] = []
        self.fails = ""

    def listen(self, stored: Callable[[], None], failed: Callable[[str], None]) -> None:
        self._stored, self._failed = stored, failed

    def write(self, term: int, tasks: Sequence[Kept], outdated: Outdated | None) -> None:
        self.gate.wait(partial(self._end, term, tasks, outdated))

    def _end(self, term: int, tasks: Sequence[Kept], outdated: Outdated | None) -> None:
        if self.fails:
            self._failed(self.fails)
            return
        self.append(term, tasks)
        if outdated is not None:
            self.forget(term, *outdated)
        self.groups.append([task.id for task in tasks])
        self._stored()


class Kit:
    """A core whose changes are stored, and what a peer was told."""

    def __init__(self, keep_s: float, keep_bytes: float, keyed_s: float) -> None:
        self.store = Gated()
        self.durable = Durability(self.store, self.store.begin_term(1), keep_s, keep_bytes, keyed_s)
        self.core: Coordinator = build_coordinator(Policies(), self.durable.noting(EffectLog()))
        self.told: list[str] = []
        self.heard = asyncio.Event()
        self.now = asyncio.get_running_loop().time
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.durable.driver = self
        assert not list(self.durable.recovered(self.now()))

    def flush(self) -> None:
        pass

    def stop(self, sentence: str) -> None:
        self.failed.set_result(None)
        self.told.append(sentence)
        self.heard.set()

    def tell(self, word: str) -> None:
        self.durable.release("peer", self._hear, word)

    def _hear(self, word: str) -> None:
        self.told.append(word)
        self.heard.set()

    def submit(self, name: str, key: str = "") -> None:
        self.core.submit(name, 1, Job("sleep", "0", key=key), None, self.now())

    async def hears(self, count: int) -> list[str]:
        while len(self.told) < count:
            self.heard.clear()
            await asyncio.wait_for(self.heard.wait(), 20)
        return self.told


@asynccontextmanager
async def kit(keep_s: float = 100.0, keep_bytes: float = 1e9, keyed_s: float = 100.0) -> AsyncIterator[Kit]:
    made = Kit(keep_s, keep_bytes, keyed_s)
    try:
        yield made
    finally:
        for _ in range(10):
            made.store.gate.release()
        await made.durable.close()


def test_a_call_waits_for_what_was_decided_before_it():
    """And keeps its place; where nothing has changed it is made at once. What gathers meanwhile is one group."""

    async def story() -> None:
        async with kit() as made:
            made.tell("nothing has changed")
            assert made.told == ["nothing has changed"]
            made.submit("t1")
            made.tell("t1 is accepted")
            await asyncio.sleep(0)
            made.tell("behind it")  # although nothing has changed since the group began
            for name in ("t2", "t3"):
                made.submit(name)
                made.tell(f"{name} is accepted")
            assert made.told == ["nothing has changed"]
            made.store.gate.release()
            assert await made.hears(3) == ["nothing has changed", "t1 is accepted", "behind it"]
            made.store.gate.release()
            assert (await made.hears(5))[3:] == ["t2 is accepted", "t3 is accepted"]
            assert made.store.groups == [["t1"], ["t2", "t3"]]
            made.tell("nothing has changed")
            assert made.told[5:] == ["nothing has changed"]
            told = made.durable.groups.summary(made.now())
            assert told.per_s > 0
            assert told.tasks_each == 1.5
            assert told.latency_ms is not None

    asyncio.run(story())


def test_a_store_that_fails_stops_the_driver():
    """With the reason; nothing that waits is told, then or later."""

    async def story() -> None:
        async with kit() as made:
            made.store.fails = "the disk is full"
            made.submit("t1")
            made.tell("t1 is accepted")
            made.store.gate.release()
            assert await made.hears(1) == ["the disk is full"]
            made.tell("later")
            made.submit("t2")
            assert made.told == ["the disk is full"]
        assert made.told == ["the disk is full"]

    asyncio.run(story())


def test_what_a_failed_driver_decided_is_not_stored():
    """Nobody can vouch for it."""

    async def story() -> None:
        async with kit() as made:
            made.submit("t1")
            made.failed.set_result(None)
        assert not list(made.store.tasks())

    asyncio.run(story())


def test_what_is_stored_is_the_state_that_recovers():
    """Tries, numbers of attempts, who holds what, results; on a clock that says something else."""

    async def story() -> None:
        async with kit() as made:
            core = made.core
            core.register(Registration("w1", "a", 2, 0, True), made.now())
            for name in ("t1", "t2", "t3"):
                made.submit(name)
            core.result(Report("w1", "t1", 1, True, "done"), made.now())
            core.result(Report("w1", "t2", 1, False, error="again", retryable=True), made.now())
            before = {task.id: task for task in core.unsettled()}
            age_s = made.now() - before["t3"].submitted_at
        first, *others = made.durable.recovered(1000.0)
        assert (first.task_id, first.state, first.result) == ("t1", TaskState.COMPLETED, "done")
        by_name = {task.task_id: task for task in others}
        assert [by_name[name].tries for name in ("t2", "t3")] == [1, 0]
        assert [by_name[name].attempt for name in ("t2", "t3")] == [before[name].attempt for name in ("t2", "t3")]
        [holding] = by_name["t3"].held
        assert holding[:3] == (1, "w1", "a")
        for since in (by_name["t3"].submitted_at, holding.assigned_at):
            assert since is not None
            assert 1000.0 - since == pytest.approx(age_s, abs=5.0)
        assert by_name["t3"].payload == Job("sleep", "0")
        again = build_coordinator(Policies(), EffectLog())
        for task in (first, *others):
            again.recovered(task, 1000.0)
            again.check()

    asyncio.run(story())


async def settle(made: Kit, name: str, key: str = "") -> None:
    """And let the store forget what it may."""
    made.submit(name, key)
    made.core.result(Report("w1", name, 1, True, "done"), made.now())
    made.tell(name)
    made.store.gate.release()
    await made.hears(1)
    made.told.clear()
    made.durable._forgets_at = 0.0


def test_settled_tasks_are_kept_within_bounds():
    """Beyond the size the oldest are forgotten, also those of an earlier process; those with a key last."""

    async def story() -> None:
        async with kit(keep_bytes=3500.0) as made:
            made.core.register(Registration("w1", "a", 2, 0, True), made.now())
            for name, key in (("k1", "key"), ("t1", ""), ("t2", ""), ("t3", "")):
                await settle(made, name, key)
            made.submit("t4")
        assert [task.id for task in made.store.tasks()] == ["t2", "t3", "k1", "t4"]

    asyncio.run(story())


def test_settled_tasks_with_a_key_are_kept_for_a_time_of_their_own():
    """Here for none."""

    async def story() -> None:
        async with kit(keyed_s=0.0) as made:
            made.core.register(Registration("w1", "a", 2, 0, True), made.now())
            for name, key in (("t1", ""), ("k1", "key"), ("t2", ""), ("t3", "")):
                await settle(made, name, key)
        assert [task.id for task in made.store.tasks()] == ["t1", "t2", "t3"]

    asyncio.run(story())


def test_nothing_is_written_behind_a_group_that_fails_while_it_is_closed(caplog: pytest.LogCaptureFixture):
    """It is told, although nobody is there any more who could be stopped for it."""

    async def story() -> None:
        async with kit() as made:
            made.submit("t1")
            await asyncio.sleep(0)
            made.submit("t2")
            made.tell("t2 is accepted")
            made.store.fails = "the disk is gone"
        assert not made.store.groups
        assert not made.told
        assert caplog.messages == ["the disk is gone"]

    asyncio.run(story())
