"""A key makes a submission that may be made again, by whomever and whenever: it is the same task, and executed once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import peers
from orchestrator.cluster.client import AsyncClient, Client, KeyTaken, NewTask
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.limits import Limits
from orchestrator.cluster.repeats import Repeats
from orchestrator.cluster.wire.proto import stream_pb2
from orchestrator.cluster.wire.rpc import CLIENT_STREAM, Stub
from orchestrator.core.model import Task, TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.streams import Hand, coordinator, key, play

BOTH = pytest.mark.parametrize("contract", [False, True], ids=["streams", "contract"])
ORDER = NewTask("0", 1, "sleep", "order-17")
OTHERS = (ORDER._replace(payload="0.0"), ORDER._replace(priority=2), ORDER._replace(kind="sleep:other"))

TAKEN = "the key 'order-17' is that of a task with other content"


def run(story: Any) -> Any:
    return asyncio.run(asyncio.wait_for(story, 60))


@BOTH
@pytest.mark.parametrize("first_by_contract", [False, True], ids=["after a stream", "after a call"])
def test_the_same_key_and_content_are_the_same_task(make_cluster: MakeCluster, contract: bool, first_by_contract: bool):
    """Twice at once, from another client, by another protocol, before and after it is settled."""
    cluster = make_cluster(0)

    async def story() -> None:
        async with (
            AsyncClient(cluster.address, contract=first_by_contract) as first,
            AsyncClient(cluster.address, contract=contract) as second,
        ):
            submissions = first.submit_batch([ORDER, ORDER])
            await asyncio.gather(*(submission.id for submission in submissions))
            submissions += second.submit_batch([ORDER, ORDER])
            ids = {await submission.id for submission in submissions}
            assert len(ids) == 1
            cluster.start_worker("w1").ready(cluster.coordinator)
            outcomes = [await submission for submission in submissions]
            outcomes.append(await second.submit(*ORDER))
            outcomes += [await second.status(name) for name in (*ids, "order-17")]
            assert {outcome[:6] for outcome in outcomes} == {outcomes[0][:6]}
            assert (await second.cancel("order-17")).state is TaskState.COMPLETED
            assert outcomes[0].task_id in ids
            assert outcomes[0].state is TaskState.COMPLETED
            assert (await first.metrics()).completed == 1

    run(story())


@BOTH
def test_a_key_with_other_content_fails_that_submission_alone(make_cluster: MakeCluster, contract: bool):
    """Whether its task is settled or not; the session goes on."""
    cluster = make_cluster(0)

    async def refused(client: AsyncClient) -> None:
        for other in OTHERS:
            taken, good = client.submit_batch([other, NewTask("0", kind="sleep")])
            with pytest.raises(KeyTaken, match=TAKEN):
                await taken
            assert await good.id

    async def story() -> None:
        async with AsyncClient(cluster.address, contract=contract) as client:
            submission = client.submit(*ORDER)
            await submission.id
            await refused(client)
            cluster.start_worker("w1").ready(cluster.coordinator)
            await submission
            await refused(client)
            assert (await client.submit(*ORDER)).state is TaskState.COMPLETED

    run(story())


@BOTH
def test_a_key_outlives_its_coordinator(tmp_path: Path, contract: bool):
    """One that is killed, before the task is settled and after it; in the end nobody is there who could execute it."""
    policies = [*PATIENT, "--check", "--data", str(tmp_path / "data")]
    with LocalCluster(0, executor="inline", heartbeat_s=0.1, policies=policies, log=tmp_path / "log") as cluster:

        async def submitted() -> str:
            async with AsyncClient(cluster.address, contract=contract) as client:
                return await client.submit(*ORDER).id

        def restart() -> None:
            cluster.coordinator.kill()
            cluster.coordinator.wait(20)
            cluster.start_coordinator()

        async def outcomes() -> Sequence[Any]:
            async with AsyncClient(cluster.address, contract=contract) as client:
                return [await submission for submission in client.submit_batch([ORDER, ORDER])]

        run(submitted())
        restart()
        worker = cluster.start_worker("w1")
        worker.ready(cluster.coordinator)
        first = run(outcomes())
        worker.kill()
        worker.wait(20)
        restart()
        assert {outcome[:6] for outcome in run(outcomes())} == {outcome[:6] for outcome in first}
        with Client(cluster.address, contract=contract) as client:
            with pytest.raises(KeyTaken):
                client.submit(*OTHERS[0]).result(20)
            assert client.metrics().completed == 1


def test_a_key_is_free_again_after_its_time(make_cluster: MakeCluster):
    """The next task of that key may be another one; those without a key are remembered for longer."""
    cluster = make_cluster(1, policies=(*PATIENT, "--dedup-ttl", "0.1"))

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            other = await client.submit("0", kind="sleep")
            first = await client.submit(*ORDER)
            while True:
                try:
                    outcome = await client.submit(*OTHERS[0])
                    break
                except KeyTaken:
                    await asyncio.sleep(0.02)
            assert (outcome.task_id != first.task_id, outcome.attempts) == (True, 1)
            assert (await client.status("order-17")).task_id == outcome.task_id
            assert (await client.metrics()).completed == 3
            assert (await client.status(other.task_id)).state is TaskState.COMPLETED

    run(story())


def test_however_many_keys_are_taken_the_session_goes_on(monkeypatch: pytest.MonkeyPatch):
    """It is no stranger that says what makes no sense."""
    monkeypatch.setattr(peers, "REFUSED_MAX", 3)

    async def story() -> None:
        async with coordinator() as (_, channel):
            client = Stub(channel, CLIENT_STREAM).Submit()
            task = stream_pb2.NewTask(number=1, kind="sleep", payload="0", key="k")
            others = [stream_pb2.NewTask(number=n, kind="sleep", payload="1", key="k") for n in range(2, 12)]
            await client.write(stream_pb2.FromClient(session="s", tasks=[task, *others]))
            refused: list[Any] = []
            while len(refused) < len(others):
                refused += (await client.read()).refused
            assert all(refusal.exists for refusal in refused)
            hand = await Hand(channel, "w1").register()
            await hand.report(1, key("s-1"))
            results: list[Any] = []
            while not results:
                results += (await client.read()).results
            assert [result.number for result in results] == [1]

    play(story)


def test_who_waits_for_anothers_task_counts_as_a_task_while_its_stream_lasts():
    """So that nobody fills the coordinator with repetitions, and nothing is left of those that have gone."""

    async def story() -> None:
        async with coordinator(limits=Limits(unsettled=4)) as (live, channel):
            client = Stub(channel, CLIENT_STREAM).Submit()
            tasks = [stream_pb2.NewTask(number=n, kind="sleep", payload="0", key="k") for n in range(1, 9)]
            await client.write(stream_pb2.FromClient(session="s", tasks=tasks))
            accepted: list[int] = []
            while len(accepted) < 4:
                message = await client.read()
                accepted += [*message.accepted, *(item.number for item in message.known)]
            assert (live.core.submitted, live.repeats.count, live.room.full) == (1, 3, True)
            client.cancel()
            while live.repeats.count:
                await asyncio.sleep(0.01)
            assert not live.room.full

    play(story)


def task(name: str, settled_at: float | None = None) -> Task:
    made = Task(name, 0, 1, Job("sleep", "0"), 0.0)
    made.settled_at = settled_at
    return made


def test_repeats_are_kept_by_task_and_by_session():
    """Each is told once; nothing stays of what is settled or gone."""
    repeats = Repeats(lambda _: None, 10.0)
    for name, submitter in (("t", ("a", 2)), ("t", ("a", 2)), ("t", ("b", 1)), ("u", ("a", 3)), ("v", ("b", 2))):
        repeats.add(name, submitter)
    assert repeats.count == 4
    assert repeats.settled("t") == [("a", 2), ("b", 1)]
    repeats.gone("a")
    assert (repeats.count, repeats.settled("u"), repeats.settled("t")) == (1, [], [])
    repeats.gone("b")
    assert (repeats.count, repeats._of_task, repeats._of_session) == (0, {}, {})


def test_keys_take_no_more_room_than_the_tasks_that_are_remembered():
    """Those of forgotten tasks go as others come; one that is settled for too long is not found."""
    tasks: dict[Any, Task] = {f"t{number}": task(f"t{number}") for number in range(100)}
    repeats = Repeats(tasks.get, 10.0)
    for name in tasks:
        repeats.note_first(f"key of {name}", name)
    for number in range(90):
        del tasks[f"t{number}"]
    for number in range(100):
        repeats.note_first("the same", f"t{90 + number % 10}")
    assert sorted(map(str, repeats._ids.values())) == sorted([*tasks, "t99"])
    tasks["t95"].settled_at = 5.0
    assert repeats.first("key of t95", 15.0) is tasks["t95"]
    assert repeats.first("key of t95", 15.1) is None
    assert repeats.first("key of t1", 0.0) is None


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (17, TypeError, "key is a str, not int: 17"),
        ("k" * 201, ValueError, "key has at most 200 characters, not 201"),
        ("a\nb", ValueError, r"key has printable characters only, not 'a\\nb'"),
    ],
)
def test_what_cannot_be_a_key_is_refused_at_once(given: Any, error: type[Exception], sentence: str):
    """By the client, before anything is sent."""

    async def story() -> None:
        async with AsyncClient("localhost:1") as client:
            with pytest.raises(error, match=sentence):
                client.submit("0", key=given)

    run(story())


def test_the_command_line_submits_with_a_key(make_cluster: MakeCluster):
    """A second time it prints the same result; with other content it says so, exit 2."""
    cluster = make_cluster(1)

    def submit(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "orchestrator", "submit", "-c", cluster.address, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    order = ("--kind", "sleep", "--key", "order-17", "--json")
    first, second = (submit(*order, "--payload", "0") for _ in range(2))
    said = [json.loads(done.stdout) | {"latency_s": None} for done in (first, second)]
    assert said[0] == said[1]
    taken = submit(*order, "--payload", "1")
    assert (taken.returncode, taken.stderr) == (2, f"refused: {TAKEN}: {said[0]['id']}\n")
    assert submit("--batch", "2", "--key", "k").returncode == 2
