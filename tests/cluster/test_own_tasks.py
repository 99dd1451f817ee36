"""Tasks of the user's own: from a client to a function of an app, and back."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import App, AsyncClient, Client, TaskFailed
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.placing import make_executor
from orchestrator.cluster.programs import program_of
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster import own_app as own
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.own_app import Order, Point
from tests.cluster.streams import play

OPTIONS = ("--app", "tests.cluster.own_app:app")
NOON = datetime.datetime(2026, 11, 27, 12, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("own") / "log"
    policies = (*PATIENT, "--check")
    with LocalCluster(2, capacity=4, prefetch=8, policies=policies, options=OPTIONS, log=log) as cluster:
        yield cluster.address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address) as client:
        yield client


def test_values_come_back_as_what_they_are(client: Client):
    """Arguments and results are what the annotations say: bytes, models, dataclasses, times."""
    raw = bytes(range(256))
    assert client.submit(own.turned, raw).result(30) == raw[::-1]
    order = Order(number=1, at=NOON, points=[Point(1.0), Point(2.0, 3.0)])
    moved = client.submit(own.moved, order, Point(1.0, 1.0), Point(0.5), factor=2.0).result(30)
    assert moved == Order(number=1, at=NOON, points=[Point(3.0, 2.0), Point(3.0, 3.0)])
    assert client.submit(own.longest, ["a", "bcd", "ef"], at_least=2).result(30) == "bcd"
    assert client.submit(own.longest, []).result(30) is None
    assert client.submit(own.add, 1).result(30) == 2
    assert client.submit(own.add, one=1, other=5).result(30) == 6


def test_what_is_not_annotated_is_what_json_makes_of_it(client: Client):
    """Tuples are lists, and a call by name alone sends what it was given."""
    assert client.submit(own.anything, (1, 2), None, "ü\n").result(30) == [[1, 2], [None, "ü\n"], {}]
    assert client.submit(App.named("longest"), ["a", "bcd"], at_least=9).result(30) is None
    assert client.submit(App.named("add"), one=1, other=5).result(30) == 6
    assert client.submit(own.anything, 1, 2, three=3).result(30) == [1, [2], {"three": 3}]
    assert client.submit(App.named("anything"), 1, 2, three=3).result(30) == [1, [2], {"three": 3}]
    assert client.submit(App.named("turned"), "AQI=").result(30) == "AgE="


def test_a_task_knows_itself(client: Client):
    """Its id, its attempt, and how long it has left."""
    future = client.submit(own.self_description)
    task_id, attempt, left_s = future.result(30)
    assert (task_id, attempt) == (future.task_id, 1)
    assert 0 < left_s <= 60
    assert client.submit(own.named).result(30) == "of-another-name"
    with pytest.raises(LookupError, match="outside of a task"):
        own.self_description()


def test_plain_and_async_functions_have_processes_of_their_own(client: Client):
    """None of them is the worker's: children of one parent, as many as there are slots for plain ones, one for the
    async ones."""
    plain = {future.result(30) for future in [client.submit(own.where) for _ in range(200)]}
    asynchronous = {future.result(30) for future in [client.submit(own.where_async) for _ in range(200)]}
    assert not plain & asynchronous
    assert len(asynchronous) == len({told.partition("-")[0] for told in asynchronous}) <= 2
    assert len(plain) <= 8


def test_a_map_is_in_order_and_has_only_so_many_under_way(client: Client):
    """Its arguments may have no end; who takes no more cancels the rest."""
    squares = client.map(own.square, itertools.count(), ahead=50)
    assert list(itertools.islice(squares, 120)) == [number**2 for number in range(120)]
    squares.close()  # type: ignore[attr-defined]
    assert list(client.map(own.add, [1, 2, 3], (10, 20))) == [11, 22]
    assert list(client.map(own.square, [])) == []
    with pytest.raises(TypeError, match="print is no task of an App"):
        next(client.map(print, [1]))  # type: ignore[arg-type]


def test_one_failure_keeps_no_other_call_from_its_value(client: Client):
    """Gathered in order, or as they settle; a failure stands where its value would."""
    futures: list[Any] = [client.submit(own.square, 3), client.submit(own.fails, "no"), client.submit(own.add, 1)]
    nine, failed, two = client.gather(futures, return_exceptions=True)
    assert (nine, two) == (9, 2)
    assert isinstance(failed, TaskFailed)
    assert (failed.type, failed.message, failed.kind) == ("ValueError", "no", "fails")
    with pytest.raises(TaskFailed, match="ValueError: no"):
        client.gather(futures)
    assert set(client.as_completed(futures, timeout=30)) == set(futures)


def test_the_cluster_is_an_executor_of_the_standard_library(client: Client):
    """Whatever takes one takes ours: map, wait, `run_in_executor`, shutdown."""
    with client.executor() as pool:
        assert isinstance(pool, concurrent.futures.Executor)
        assert list(pool.map(own.square, range(5), timeout=30)) == [0, 1, 4, 9, 16]
        futures: list[concurrent.futures.Future[Any]] = [pool.submit(own.square, 2), pool.submit(own.naps, 0.01)]
        done, left = concurrent.futures.wait(futures, 30)
        assert (len(done), left) == (2, set())

        async def on_a_loop() -> int:
            return await asyncio.get_running_loop().run_in_executor(pool, own.square, 7)

        assert asyncio.run(on_a_loop()) == 49
        slow = pool.submit(own.naps, 3600)
        pool.shutdown(cancel_futures=True)
        assert slow.cancelled()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(own.square, 1)
    with client.executor() as pool:
        with pytest.raises(TaskFailed, match="ValueError: no"):
            list(pool.map(own.fails, ["no"]))
        with pytest.raises(TypeError, match="print is no task of an App"):
            pool.submit(print, 1)
        numbers = [pool.submit(own.square, number) for number in range(4)]
        assert sorted(done.result() for done in concurrent.futures.as_completed(numbers, 30)) == [0, 1, 4, 9]
        with pytest.raises(TimeoutError):
            list(pool.map(own.naps, [3600, 3600], timeout=0.01))

        forsaken = pool.submit(own.naps, 3600)

        async def wrapped() -> int:
            asyncio.wrap_future(forsaken).cancel()
            return await asyncio.wrap_future(pool.submit(own.square, 9))

        assert asyncio.run(wrapped()) == 81
        assert forsaken.cancelled()
    assert client.submit(own.square, 2).result(30) == 4, "the client goes on"


def test_a_call_may_say_its_priority_and_its_key(client: Client):
    """By a handle of the task, beside its arguments: the same key and arguments are the same task. So with its limits,
    and with what its worker must have."""
    settings: dict[str, Any] = {
        "priority": 3,
        "queue_timeout_s": 60,
        "execution_timeout_s": 60,
        "deadline_s": 60,
        "affinity_key": "a",
    }
    assert client.submit(own.square.options(**settings), 3).result(30) == 9
    late = client.submit(own.square.options(requires={"gpu": "none-has-it"}, queue_timeout_s=0.01), 3)
    with pytest.raises(TaskFailed, match="queue_timeout"):
        late.result(30)
    once = own.where.options(key="only-once", priority=3)
    one, other = client.submit(once), client.submit(once)
    assert one.result(30) == other.result(30)
    with pytest.raises(TypeError, match="colour"):
        client.submit(own.where.options(colour="red"))


def test_the_same_on_an_event_loop(address: str, tmp_path: Path):
    """submit, map, gather, as_completed; and what is cancelled is cancelled where it runs."""

    async def story() -> None:
        async with AsyncClient(address) as client:
            assert await client.submit(own.square, 3) == 9
            assert [value async for value in client.map(own.add, range(5), ahead=2)] == [1, 2, 3, 4, 5]
            calls: list[Any] = [client.submit(own.square, 4), client.submit(own.fails, "no")]
            sixteen, failed = await client.gather(calls, return_exceptions=True)
            assert sixteen == 16
            assert isinstance(failed, TaskFailed)
            assert {call async for call in client.as_completed(calls)} == set(calls)
            urgent = client.submit(own.square.options(priority=3, deadline_s=60, affinity_key="a"), 5)
            assert await urgent == 25
            slow = client.submit(own.waits, tmp_path, "slow", 3600)
            while not (tmp_path / "slow").exists():
                await asyncio.sleep(0.01)
            calls = [slow, urgent]
            settling = client.as_completed(calls, timeout=0.01)
            assert await anext(settling) is urgent
            with pytest.raises(TimeoutError):
                await anext(settling)
            assert not (await client.status(str(slow.task_id))).settled
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(slow, 0.01)
            while not (tmp_path / "slow was cancelled").exists():
                await asyncio.sleep(0.01)
            outcome = await client.submit("1", kind="of no use")
            assert outcome.state is TaskState.FAILED, "single submissions are what they were"

    asyncio.run(asyncio.wait_for(story(), 60))


@pytest.mark.parametrize("task", [own.tells, own.tells_async])
def test_a_task_tells_how_far_it_is(client: Client, tmp_path: Path, task: Any):
    """While it runs; the newest word is on its future."""
    until = tmp_path / "until"
    future = client.submit(task, until)
    while future.progress != (0.5, "half of it"):
        time.sleep(0.01)
    assert not future.done()
    until.touch()
    assert future.result(30) == "done"


def test_a_future_that_is_cancelled_ends_its_coroutine(client: Client, tmp_path: Path):
    """Which may clean up."""
    future = client.submit(own.waits, tmp_path, "slow", 3600.0)
    while not (tmp_path / "slow").exists():
        time.sleep(0.01)
    assert future.cancel()
    while not (tmp_path / "slow was cancelled").exists():
        time.sleep(0.01)


def test_workers_of_several_apps_share_a_cluster(make_cluster: MakeCluster):
    """Each says what it takes: kinds of its own, and labels that some tasks require. What nobody takes waits."""
    cluster = make_cluster(0, executor="process")
    workers = {
        "own": (*OPTIONS, "--own-kinds"),
        "gpu": (*OPTIONS, "--own-kinds", "--label", "gpu=a100"),
        "sleeper": ("--kind", "sleep"),
    }
    for process in [cluster.start_worker(name, options=options) for name, options in workers.items()]:
        process.ready()
    with Client(cluster.address) as client:
        unknown = client.submit(App.named("nobody-has-it"))
        for _ in range(3):
            own_task, on_a_gpu = client.submit(own.square, 2), client.submit(own.on_a_gpu)
            assert client.submit("0", kind="sleep").result(30).worker_id == "sleeper"
            assert client.gather([own_task, on_a_gpu]) == [4, 1]
            assert client.status(str(on_a_gpu.task_id)).worker_id == "gpu"
            assert client.status(str(own_task.task_id)).worker_id in ("own", "gpu")
        assert not unknown.done()
        assert unknown.cancel()


def test_a_killed_worker_costs_no_result(make_cluster: MakeCluster, tmp_path: Path):
    """What it had begun begins again elsewhere: plain and async functions alike."""
    cluster = make_cluster(2, capacity=4, executor="process", options=OPTIONS, policies=("detection.timeout_s=1.5",))
    with Client(cluster.address) as client:
        futures: list[Any] = [client.submit(own.waits, tmp_path, str(number), 0.5) for number in range(12)]
        futures += [client.submit(own.naps, 0.25) for _ in range(12)]
        while len(list(tmp_path.iterdir())) < 4:
            time.sleep(0.01)
        cluster.worker("w1").kill()
        assert client.gather(futures) == [*map(str, range(12)), *[0.25] * 12]


SLOW = """
import time
from orchestrator import App

time.sleep(0.6)
app = App()


@app.task(execution_timeout_s=0.3)
def plain() -> str:
    return "done"


@app.task(execution_timeout_s=0.3)
async def asynchronous() -> str:
    return "done"
"""


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
def test_a_task_has_all_its_time_although_its_app_takes_long_to_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    """The execution timeout counts from when its subprocess has the app."""
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    program = program_of("slow_to_import:app")

    async def story() -> None:
        ends: asyncio.Queue[Ended] = asyncio.Queue()
        executor = make_executor("process", 1, lambda _, ended: ends.put_nowait(ended), program=program)
        executor.start(("task", 1), kind, "[]")
        ended = await ends.get()
        executor.close()
        assert (ended.succeeded, ended.result, ended.error) == (True, '"done"', "")

    play(story)
