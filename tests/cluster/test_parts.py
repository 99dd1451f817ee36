"""The parts of the live world that need no cluster: work, executors, metrics, stubs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from orchestrator.cluster import tasks
from orchestrator.cluster.app import DEFAULT, work_of
from orchestrator.cluster.believed import started_at
from orchestrator.cluster.executor import Executor
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.placing import Kind, make_executor
from orchestrator.cluster.wire.proto import __main__ as proto
from orchestrator.core.model import AttemptKey as Key


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("2", "2 is prime"),
        ("+7", "7 is prime"),
        ("0", "0 is not prime (smallest factor: 0)"),
        ("1", "1 is not prime (smallest factor: 0)"),
        ("-7", "-7 is not prime (smallest factor: 0)"),
        ("49", "49 is not prime (smallest factor: 7)"),
        ("4294967296", "4294967296 is not prime (smallest factor: 2)"),
    ],
)
def test_prime_answers_in_the_agreed_words(payload: str, words: str):
    """The result text of the wire contract."""
    assert tasks.app.run("prime", payload)[:3] == (True, words, "")
    assert tasks.app.run("", payload)[:3] == (True, words, "")


@pytest.mark.parametrize("payload", ["", "x", "1.0", "1_0", " 7", "7 ", "0x11", "٣", str(2**63), "9" * 5000])
def test_prime_takes_integers_only(payload: str):
    """Anything else fails with the agreed beginning."""
    succeeded, result, error, *_ = tasks.app.run("prime", payload)
    assert (succeeded, result) == (False, "")
    assert error.startswith("invalid payload: ")
    assert len(error) < 200


@pytest.mark.parametrize("kind", ["sleep", "spin"])
@pytest.mark.parametrize("payload", ["", "soon", "-1", "nan", "inf"])
def test_seconds_are_finite_and_not_negative(kind: str, payload: str):
    """Anything else fails."""
    assert tasks.app.run(kind, payload)[2].startswith("invalid payload: ")


def test_an_unknown_kind_fails():
    """With a sentence that names it."""
    answer = tasks.app.run("dance", "1")
    assert answer[:2] == (False, "")
    assert answer.error == "unknown kind of task: 'dance'; this worker's app has prime, sleep, spin"


def test_a_kind_may_have_a_name_behind_what_it_does():
    """It is for hedging alone; the name may have colons of its own."""
    assert tasks.app.run("prime:of:mine", "2")[:3] == tasks.app.run("prime", "2")[:3]
    assert tasks.app.run("dance:mine", "1")[2].startswith("unknown kind of task: 'dance:mine'")
    assert work_of(tasks.named_kind("spin", "a:b")) == "spin"
    assert work_of("") == work_of(":x") == DEFAULT


def test_a_worker_that_only_sleeps_takes_every_kind_of_sleep():
    """And says no to other work of that name."""
    ends = asyncio.run(work("inline", 1, [("sleep:short", "0"), ("spin:short", "0")]))
    assert [end.succeeded for end in ends] == [True, False]


async def work(kind: Kind, slots: int, jobs: list[tuple[str, str]]) -> list[Ended]:
    """Run all the jobs at once."""
    ends: dict[Key, asyncio.Future[Ended]] = {}
    executor = make_executor(kind, slots, lambda key, ended: ends[key].set_result(ended))
    try:
        for number, (what, payload) in enumerate(jobs):
            key = (f"task {number}", 1)
            ends[key] = asyncio.get_running_loop().create_future()
            executor.start(key, what, payload)
        return list(await asyncio.wait_for(asyncio.gather(*ends.values()), 20))
    finally:
        executor.close()


@pytest.mark.parametrize("kind", ["process", "thread", "inline"])
def test_every_executor_sleeps_and_fails(kind: Kind):
    """The same ends, wherever a task runs."""
    good, bad = asyncio.run(work(kind, 2, [("sleep", "0.02"), ("sleep", "x")]))
    assert good.succeeded
    assert good.ran_s >= 0.02
    assert (bad.succeeded, bad.retryable) == (False, False)
    assert bad.error.startswith("invalid payload: ")


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_a_large_payload_reaches_its_executor(kind: Kind):
    """In pieces, if need be; a result comes back the same way."""
    (ended,) = asyncio.run(work(kind, 1, [("sleep", "0" * (1 << 20))]))
    assert ended.succeeded


@pytest.mark.parametrize("kind", ["process", "thread", "inline"])
def test_the_end_of_a_stopped_task_is_not_told(kind: Kind):
    """And its slot serves the next one."""

    async def story() -> list[tuple[Key, Ended]]:
        told: list[tuple[Key, Ended]] = []
        done = asyncio.Event()

        def finished(key: Key, ended: Ended) -> None:
            told.append((key, ended))
            done.set()

        executor: Executor = make_executor(kind, 1, finished)
        executor.start(("a", 1), "sleep", "0.1")
        executor.stop(("a", 1))
        executor.start(("b", 1), "sleep", "0.2")
        await asyncio.wait_for(done.wait(), 20)
        executor.close()
        return told

    assert [key for key, _ in asyncio.run(story())] == [("b", 1)]


def test_only_sleeping_is_done_inline():
    """Whatever computes would keep the heartbeats from going out."""
    (ended,) = asyncio.run(work("inline", 1, [("prime", "7")]))
    assert "only sleeps" in ended.error


@pytest.mark.parametrize(
    ("assigned_at", "queued_s", "ran_s", "now", "expected"),
    [
        (10.0, 0.0, 1.0, 11.0, 10.0),  # no network: it began when it was assigned
        (10.0, 0.0, 1.0, 11.5, 10.25),  # half a second of network, a quarter each way
        (10.0, 2.0, 1.0, 13.5, 12.25),  # and two seconds in the worker's queue
        (10.0, 0.0, 9.0, 11.0, 10.0),  # a clock that runs fast claims more than there was
        (10.0, 9.0, 0.0, 11.0, 11.0),  # never after the report of its end
    ],
)
def test_a_start_is_estimated_from_durations(
    assigned_at: float, queued_s: float, ran_s: float, now: float, expected: float
):
    """Both messages are taken to last equally long; clocks are not compared."""
    assert started_at(assigned_at, queued_s, ran_s, now) == expected


def test_the_stubs_are_those_of_their_sources(tmp_path: Path):
    """Made anew, they are the same bytes."""
    proto.generate(tmp_path)
    made = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 2 * len(proto.SOURCES) == 6
    for path in made:
        assert path.read_bytes() == (proto.ROOT / path.relative_to(tmp_path)).read_bytes(), path


def test_the_executors_script_is_where_the_module_is():
    """It is run by its path, without the package."""
    assert os.path.isfile(tasks.__file__)
