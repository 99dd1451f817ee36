"""Real processes over real gRPC, killed and stopped with real signals: nothing is lost, nothing is settled twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from orchestrator.cluster.client import AsyncClient, NewTask, Submission
from orchestrator.cluster.wire.translate import Outcome
from orchestrator.core.model import TaskState
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import FAST, MakeCluster
from tests.cluster.contract.peers import wait_until

T = TypeVar("T")
Story = Callable[[AsyncClient], Coroutine[Any, Any, T]]


def talk(cluster: LocalCluster, story: Story[T]) -> T:
    """Run a client's story against the cluster."""

    async def run() -> T:
        async with AsyncClient(cluster.address) as client:
            return await asyncio.wait_for(story(client), 40)

    return asyncio.run(run())


async def all_of(submissions: list[Submission]) -> list[Outcome]:
    return [await submission for submission in submissions]


async def until(true: Callable[[Any], bool], client: AsyncClient) -> None:
    """Until the metrics say so."""
    while not true(await client.metrics()):
        await asyncio.sleep(0.01)


def sleeps(count: int, seconds: float = 0) -> list[NewTask]:
    return [NewTask(str(seconds), number % 4, "sleep") for number in range(count)]


@pytest.mark.parametrize("count", [500, 5000])
def test_many_short_tasks_are_each_executed_once(make_cluster: MakeCluster, count: int):
    """One attempt a task, on every worker."""
    cluster = make_cluster(4, capacity=8, policies=("policies.execution_timeout_s=3",))

    async def story(client: AsyncClient) -> list[Outcome]:
        return await all_of(client.submit_batch(sleeps(count)))

    outcomes = talk(cluster, story)
    assert Counter(outcome.attempts for outcome in outcomes) == {1: count}
    assert {outcome.worker_id for outcome in outcomes} == set(cluster.names)
    assert len({outcome.task_id for outcome in outcomes}) == count


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("victims", [["w1"], ["w1", "w2"], ["w1", "w2", "w3", "w4"]], ids=["one", "half", "all"])
def test_killed_workers_lose_nothing(make_cluster: MakeCluster, victims: list[str], prefetch: int):
    """SIGKILL with tasks in flight: all are settled by who is left, or by new workers."""
    cluster = make_cluster(4, prefetch=prefetch)

    async def story(client: AsyncClient) -> list[Outcome]:
        submissions = client.submit_batch(sleeps(200, 0.02))
        await submissions[0]
        for name in victims:
            cluster.worker(name).kill()
        if len(victims) == len(cluster.names):
            await until(lambda metrics: metrics.alive_workers == 0, client)
            cluster.start_worker("new")
        outcomes = await all_of(submissions)
        metrics = await client.metrics()
        assert (metrics.completed, metrics.failed, metrics.queue_depth) == (200, 0, 0)
        return outcomes

    outcomes = talk(cluster, story)
    assert all(outcome.state is TaskState.COMPLETED for outcome in outcomes)
    assert max(outcome.attempts for outcome in outcomes) > 1


def test_a_stopped_worker_is_declared_dead_and_revived(make_cluster: MakeCluster):
    """SIGSTOP beyond the timeout: another takes over; after SIGCONT it is given tasks again."""
    cluster = make_cluster(1, capacity=2, policies=(*FAST, "policies.execution_timeout_s=null"))

    async def story(client: AsyncClient) -> list[Outcome]:
        submissions = client.submit_batch(sleeps(2, 0.3))
        await submissions[0].id
        cluster.worker("w1").signal(signal.SIGSTOP)
        await until(lambda metrics: metrics.alive_workers == 0, client)
        helper = cluster.start_worker("helper")
        first = await all_of(submissions)
        helper.kill()
        cluster.worker("w1").signal(signal.SIGCONT)
        await until(lambda metrics: metrics.alive_workers == 1, client)
        return first + await all_of(client.submit_batch(sleeps(2, 0.01)))

    outcomes = talk(cluster, story)
    assert [outcome.worker_id for outcome in outcomes] == ["helper", "helper", "w1", "w1"]


def test_a_stopped_coordinator_declares_nobody_dead(make_cluster: MakeCluster, tmp_path: Path):
    """After its own pause it first hears what the workers said meanwhile."""
    cluster = make_cluster(3, policies=FAST)
    cluster.coordinator.signal(signal.SIGSTOP)
    time.sleep(1.0)  # the pause itself
    cluster.coordinator.signal(signal.SIGCONT)

    async def story(client: AsyncClient) -> list[Outcome]:
        return await all_of(client.submit_batch(sleeps(6, 0.5)))

    assert [outcome.attempts for outcome in talk(cluster, story)] == [1] * 6
    assert "dead" not in (tmp_path / "log").read_text()


def test_a_stopped_coordinator_takes_nothing_away(make_cluster: MakeCluster):
    """Its silence lasts longer than its workers bear: what they run then is executed once all the same."""
    cluster = make_cluster(3, policies=FAST)

    async def story(client: AsyncClient) -> list[Outcome]:
        submissions = client.submit_batch(sleeps(6, 1.5))
        await submissions[0].id
        await until(lambda metrics: metrics.queue_depth == 0, client)
        cluster.coordinator.signal(signal.SIGSTOP)
        await asyncio.sleep(2.0)  # the pause itself
        cluster.coordinator.signal(signal.SIGCONT)
        return await all_of(submissions)

    assert [outcome.attempts for outcome in talk(cluster, story)] == [1] * 6


def test_a_killed_executor_fails_its_attempt_not_its_worker(make_cluster: MakeCluster):
    """The reason is told; the worker lives on with a new subprocess."""
    policies = ("policies.retry.max_attempts=1", "policies.execution_timeout_s=null")
    cluster = make_cluster(1, capacity=1, executor="process", policies=policies)
    worker = psutil.Process(cluster.worker("w1").pid)
    (child,) = worker.children()

    async def story(client: AsyncClient) -> list[Outcome]:
        doomed = client.submit("60", kind="sleep")
        await doomed.id
        child.kill()
        return [await doomed, await client.submit("0", kind="sleep")]

    doomed, next_one = talk(cluster, story)
    assert doomed.state is TaskState.FAILED
    assert "killed by SIGKILL" in doomed.error
    assert next_one.state is TaskState.COMPLETED
    assert worker.is_running()


def test_busy_workers_do_not_look_dead(make_cluster: MakeCluster):
    """Twice as many spinning tasks as processors: heartbeats come from a process that runs none of them."""
    policies = ("policies.detection.timeout_s=1.5", "policies.execution_timeout_s=null")
    cluster = make_cluster(1, capacity=4, executor="process", policies=policies)

    async def story(client: AsyncClient) -> list[Outcome]:
        return await all_of(client.submit_batch([NewTask("0.6", 1, "spin")] * 4))

    assert [outcome.attempts for outcome in talk(cluster, story)] == [1, 1, 1, 1]


def test_a_drained_worker_hands_back_what_has_not_begun(make_cluster: MakeCluster):
    """SIGTERM: what runs is finished and reported, what waits goes to others, and it leaves with status 0."""
    cluster = make_cluster(1, capacity=1, prefetch=3)

    async def story(client: AsyncClient) -> list[Outcome]:
        submissions = client.submit_batch(sleeps(4, 1.5))
        first = await submissions[0].id
        while (await client.status(first)).state is not TaskState.RUNNING:  # by w1's own word
            await asyncio.sleep(0.01)
        await until(lambda metrics: metrics.queue_depth == 0, client)
        cluster.worker("w1").terminate()
        await until(lambda metrics: metrics.queue_depth == 3, client)
        cluster.start_worker("w2", options=("--capacity", "3"))
        outcomes = await all_of(submissions)
        await until(lambda metrics: metrics.alive_workers == 1, client)
        return outcomes

    outcomes = talk(cluster, story)
    assert cluster.worker("w1").wait(10) == 0
    assert Counter(outcome.worker_id for outcome in outcomes) == {"w1": 1, "w2": 3}


def test_a_lost_coordinator_is_found_again(make_cluster: MakeCluster):
    """It is killed and starts anew, remembering nothing: workers register again, the client submits again."""
    cluster = make_cluster(2)

    async def story(client: AsyncClient) -> list[Outcome]:
        submissions = client.submit_batch(sleeps(100, 0.02))
        await submissions[0]
        cluster.coordinator.kill()
        cluster.start_coordinator()
        return await all_of(submissions)

    assert all(outcome.state is TaskState.COMPLETED for outcome in talk(cluster, story))


def test_the_second_process_of_a_name_replaces_one_that_stands_still(make_cluster: MakeCluster):
    """As soon as it is declared dead; what it held is requeued at once, and when it goes on it is told, and ends."""
    cluster = make_cluster(1, policies=FAST)
    first = cluster.worker("w1")

    async def story(client: AsyncClient) -> Outcome:
        submission = client.submit("0.5", kind="sleep")
        await submission.id
        first.signal(signal.SIGSTOP)
        cluster.start_worker("w1").ready()
        return await submission

    assert talk(cluster, story).attempts == 2
    first.signal(signal.SIGCONT)
    assert first.wait(10) == 1


def test_too_many_tasks_wait_at_their_client(make_cluster: MakeCluster):
    """Beyond --max-unsettled a stream is not read on; all tasks are settled in the end."""
    policies = ("--max-unsettled", "300", "policies.execution_timeout_s=null")
    cluster = make_cluster(1, capacity=50, policies=policies)

    async def story(client: AsyncClient) -> int:
        submissions = client.submit_batch(sleeps(3000))
        deepest = 0
        while not submissions[-1].outcome.done():
            deepest = max(deepest, (await client.metrics()).queue_depth)
        return deepest + len(await all_of(submissions)) - 3000

    assert talk(cluster, story) <= 300


def test_many_workers_share_a_process(make_cluster: MakeCluster):
    """Ten workers in two processes, each with its own stream, heartbeat and tasks."""
    cluster = make_cluster(10, capacity=1, workers_per_process=5)
    assert len({cluster.worker(name).pid for name in cluster.names}) == 2

    async def story(client: AsyncClient) -> list[Outcome]:
        return await all_of(client.submit_batch(sleeps(10, 0.2)))

    assert {outcome.worker_id for outcome in talk(cluster, story)} == set(cluster.names)


PARENT = """
    import sys, time
    from orchestrator.rehearsal.local_cluster import LocalCluster
    with LocalCluster(2, capacity=2, executor="process") as cluster:
        print("ready", flush=True)
        {then}
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [("time.sleep(60)", signal.SIGKILL), ("time.sleep(60)", signal.SIGINT), ("1 / 0", None), ("pass", None)],
    ids=["killed", "interrupted", "error", "end"],
)
def test_no_process_outlives_its_cluster(tmp_path: Path, then: str, number: signal.Signals | None):
    """However the parent ends, a stopped worker included, none of its processes is left."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT.format(then=then)))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        family = psutil.Process(parent.pid).children(recursive=True) if number else []
        if number is not None:
            assert len(family) == 3 + 4, "a coordinator, two workers, their subprocesses"
            os.kill(family[1].pid, signal.SIGSTOP)
            parent.send_signal(number)
        parent.wait(20)
    wait_until(lambda: not any(map(lives, family)))
    assert not [process for process in psutil.process_iter() if started_by(process, parent.pid)]


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def started_by(process: psutil.Process, pid: int) -> bool:
    """Every process of a cluster is told its parent's id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return str(pid) in process.cmdline()
    return False
