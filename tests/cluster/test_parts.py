"""The parts of the live world that need no cluster: work, executors, metrics, decision records, stubs."""

from __future__ import annotations

import asyncio
import json
import os
import random
from pathlib import Path

import pytest

from orchestrator.cluster import tasks
from orchestrator.cluster.coordinator import started_at
from orchestrator.cluster.decision_record import DecisionRecord, Recorded, replay
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.executor import Executor, Kind, make_executor
from orchestrator.cluster.jobs import Ended, Job
from orchestrator.cluster.wire.proto import __main__ as proto
from orchestrator.core.inputs import INPUTS, Registration, Report
from orchestrator.core.model import AttemptKey as Key
from orchestrator.policies.settings import Policies


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
    assert tasks.run("prime", payload)[:3] == (True, words, "")
    assert tasks.run("", payload)[:3] == (True, words, "")


@pytest.mark.parametrize("payload", ["", "x", "1.0", "1_0", " 7", "7 ", "0x11", "٣", str(2**63), "9" * 5000])
def test_prime_takes_integers_only(payload: str):
    """Anything else fails with the agreed beginning."""
    succeeded, result, error, _ = tasks.run("prime", payload)
    assert (succeeded, result) == (False, "")
    assert error.startswith("invalid payload: ")
    assert len(error) < 200


@pytest.mark.parametrize("kind", ["sleep", "spin"])
@pytest.mark.parametrize("payload", ["", "soon", "-1", "nan", "inf"])
def test_seconds_are_finite_and_not_negative(kind: str, payload: str):
    """Anything else fails."""
    assert tasks.run(kind, payload)[2].startswith("invalid payload: ")


def test_an_unknown_kind_fails():
    """With a sentence that names it."""
    assert tasks.run("dance", "1") == (False, "", "unknown kind of task: 'dance'", 0.0)


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


LAME = Policies.model_validate({"routing": {"kind": "tests.cluster.lame:Lame", "after": 3}})


def record(path: Path) -> None:
    """A small life: two workers, ties decided by chance, a death, a late result, every input at least once."""
    book = DecisionRecord(path, Policies(), 0)
    core = book.open(EffectLog())
    core.register(Registration("w1", "", 2, 0, False), 0.0)
    core.register(Registration("w2", "b2", 2, float("inf"), True, request=1), 0.0)
    rng = random.Random(1)
    for number in range(20):
        core.submit(f"t{number}", number % 4, Job("sleep", "1"), None, 0.1 + number / 100)
    for number in rng.sample(range(20), 10):
        core.result(Report("w1", f"t{number}", None, True, "", ran_s=0.5, request=number), 1.0 + number / 100)
    core.wake(8.5)
    core.heartbeat("w2", 1, 2, 9.0)
    core.connection_lost("w2", 9.5)
    core.reconnected(Registration("w2", "b2", 2, float("inf"), True, (("t1", 1), ("nobody's", 4))), 9.6)
    for answered in (core.started, core.rejected, core.cancelled, core.call_failed):
        answered("w2", "t1", 1, 9.7)
    core.cancel("t2", 9.75)
    core.drain("w2", 9.8)
    core.deregister("w2", 9.9)
    book.close()


def test_a_decision_record_decides_the_same_again(tmp_path: Path):
    """Input by input, each kind of them, with the ties of its random streams."""
    record(tmp_path / "record")
    assert {item.name for item in Recorded(tmp_path / "record").inputs()} == set(INPUTS)
    assert replay(tmp_path / "record") == (43, None, None)


def test_arguments_are_read_as_they_were_given(tmp_path: Path):
    """Records and tuples, not lists; a task's payload is a job; tasks may go by other names."""
    record(tmp_path / "record")
    recorded = Recorded(tmp_path / "record")
    register, _, reconnected = recorded.inputs(["register", "reconnected"], task_id=str.upper)
    assert register.arguments == (Registration("w1", "", 2, 0, False),)
    assert reconnected.arguments[0].held == (("T1", 1), ("NOBODY'S", 4))
    assert next(recorded.inputs(["submit"])).arguments == ("t0", 0, Job("sleep", "1"), None)
    assert all(isinstance(item.arguments[0], Report) for item in recorded.inputs(["result"]))


def test_a_replay_says_where_and_with_what_it_differs(tmp_path: Path):
    """The line, the input, both decisions, and the state that was at hand."""
    path = tmp_path / "record"
    record(path)
    lines = path.read_text().splitlines()
    effects = json.loads(lines[12])["effects"]
    assign = next(effect for effect in effects if effect[0] == "assign")
    assign[3] = {"w1": "w2", "w2": "w1"}[assign[3]]
    lines[12] = json.dumps({"effects": effects})
    path.write_text("\n".join(lines) + "\n")
    same, difference, _ = replay(path)
    assert difference is not None
    assert (same, difference.input.line, difference.input.name) == (5, 12, "submit")
    assert difference.expected == assign
    assert difference.got is not None
    assert difference.got[:3] == assign[:3]
    assert "w1 ALIVE load" in str(difference)


def test_the_unwritten_end_of_a_record_is_left_out(tmp_path: Path):
    """A killed coordinator leaves half a line; where that says what came of an input, it ended inside that one."""
    path = tmp_path / "record"
    record(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    same, difference, remark = replay(path)
    assert (same, difference) == (42, None)
    assert remark is not None
    assert remark.startswith("line 86: the record ends inside the input deregister('w2') at 9.9")
    path.write_bytes(whole[: whole.rindex(b"[9.9") + 3])
    assert replay(path) == (42, None, None)


def test_an_input_that_raised_is_named(tmp_path: Path):
    """It was written before it was applied, with what it had done until then; the replay raises the same."""
    path = tmp_path / "record"
    book = DecisionRecord(path, LAME, 0)
    core = book.open(EffectLog())
    core.register(Registration("w1", "", 9, 0, False), 0.0)
    for number in range(2):
        core.submit(f"t{number}", 1, Job("", "7"), None, 1.0)
    with pytest.raises(ZeroDivisionError):
        core.submit("t2", 1, Job("", "7"), None, 2.0)
    last = list(Recorded(path).inputs())[-1]  # although it is not closed yet
    book.close()
    assert (last.name, last.raised) == ("submit", "ZeroDivisionError: by zero")
    same, difference, remark = replay(path)
    assert (same, difference) == (4, None)
    assert remark is not None
    assert remark.startswith("line 8: the input submit('t2', 1, ")
    assert remark.endswith("raised ZeroDivisionError: by zero; the replay raises the same")
    path.write_text(path.read_text().replace("by zero", "by two"))
    same, difference, remark = replay(path)
    assert difference is not None
    assert difference.got == ["raised", "ZeroDivisionError: by zero"]
    assert remark is not None
    assert remark.endswith("raised ZeroDivisionError: by two; the replay raises ZeroDivisionError: by zero")


def test_what_is_no_decision_record_is_refused(tmp_path: Path):
    """With a sentence."""
    path = tmp_path / "record"
    path.write_text('{"name": "something else"}\n')
    with pytest.raises(ValueError, match="not a decision record"):
        replay(path)


def test_the_stubs_are_those_of_their_sources(tmp_path: Path):
    """Made anew, they are the same bytes."""
    proto.generate(tmp_path)
    made = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 2 * len(proto.SOURCES) == 4
    for path in made:
        assert path.read_bytes() == (proto.ROOT / path.relative_to(tmp_path)).read_bytes(), path


def test_the_executors_script_is_where_the_module_is():
    """It is run by its path, without the package."""
    assert os.path.isfile(tasks.__file__)
