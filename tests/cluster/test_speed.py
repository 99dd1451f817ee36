"""Workers that are slow, hang or were stopped: work takes longer, what says so is true, and beats flow on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from orchestrator.cluster.client import AsyncClient
from orchestrator.cluster.control import hear
from orchestrator.cluster.executor import Executor
from orchestrator.cluster.jobs import Ended
from orchestrator.cluster.placing import Kind, make_executor
from orchestrator.core.model import AttemptKey as Key
from orchestrator.rehearsal.local_cluster import LocalCluster, NotReady, Process
from tests.cluster.conftest import FAST, MakeCluster
from tests.cluster.contract.peers import wait_until
from tests.cluster.test_cluster import talk, until

KEY: Key = ("task", 1)
Story = Callable[[Executor, "asyncio.Queue[Ended]"], Awaitable[None]]


LEFT: list[psutil.Process] = []


def play(kind: Kind, slots: int, story: Story) -> None:
    LEFT[:] = psutil.Process().children()

    async def run() -> None:
        ends: asyncio.Queue[Ended] = asyncio.Queue()
        executor = make_executor(kind, slots, lambda _, ended: ends.put_nowait(ended))
        try:
            await asyncio.wait_for(story(executor, ends), 20)
        finally:
            executor.close()

    asyncio.run(run())


def children() -> list[psutil.Process]:
    """The executor's, without those that an earlier test left, such as multiprocessing's own helper."""
    return [child for child in psutil.Process().children() if child not in LEFT]


async def until_they_are_stopped() -> None:
    while any(child.status() != psutil.STATUS_STOPPED for child in children()):
        await asyncio.sleep(0.005)


# ---- tasks that wait


def test_a_sleep_takes_longer_while_it_is_slow():
    """A quarter of it at a tenth of the speed: what is left then goes on at full speed."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        executor.set_speed(0.1)
        executor.start(KEY, "sleep", "0.04")
        await asyncio.sleep(0.1)
        executor.set_speed(1)
        assert (await ends.get()).ran_s >= 0.1 + 0.03 - 0.005

    play("inline", 1, story)


@pytest.mark.parametrize("seconds", ["0", "0.01"])
def test_a_sleep_that_hangs_ends_when_it_goes_on(seconds: str):
    """Begun before, or while it stands still."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        executor.start(("before", 1), "sleep", seconds)
        executor.set_speed(0)
        executor.start(("within", 1), "sleep", seconds)
        executor.start(("stopped", 1), "sleep", seconds)
        executor.stop(("stopped", 1))
        await asyncio.sleep(0.05)
        assert ends.empty()
        executor.set_speed(1)
        assert min((await ends.get()).ran_s, (await ends.get()).ran_s) >= 0.05
        assert ends.empty()

    play("inline", 3, story)


def test_a_sleep_does_not_pass_while_the_process_is_stopped():
    """It is told of that before what fell due meanwhile ends; a sleep that has only begun is not longer."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        heard, said = os.pipe()

        def control(lines: list[dict[str, float]]) -> None:
            executor.start(("new", 1), "sleep", "0")
            for line in lines:
                executor.frozen(line["frozen_s"])

        hear(heard, control)
        executor.start(KEY, "sleep", "0.1")
        await asyncio.sleep(0.01)
        os.write(said, b'{"frozen_s": 0.3}\n')
        time.sleep(0.3)
        os.close(said)
        assert (await ends.get()).ran_s < 0.1
        assert (await ends.get()).ran_s >= 0.4

    play("inline", 2, story)


SLEEPER = """
    import asyncio
    from orchestrator.cluster.control import hear
    from orchestrator.cluster.placing import make_executor

    async def sleep():
        ends = asyncio.Queue()
        executor = make_executor("inline", 1, lambda _, ended: ends.put_nowait(ended))
        hear(0, lambda lines: executor.frozen(lines[0]["frozen_s"]))
        executor.start(("task", 1), "sleep", "0.3")
        print("begun", flush=True)
        print((await ends.get()).ran_s)

    asyncio.run(sleep())
"""


def test_the_word_of_a_stop_comes_before_what_fell_due_in_it():
    """On every loop: where epoll waits, a process that goes on finds its timers first and its pipes later."""
    command = [sys.executable, "-c", textwrap.dedent(SLEEPER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        process.stdin.write('{"frozen_s": 0.5}\n')
        process.stdin.flush()
        process.send_signal(signal.SIGCONT)
        assert float(process.stdout.readline()) >= 0.75


# ---- tasks that compute


def test_a_slow_subprocess_computes_for_its_share_of_the_time():
    """By the worker's clock it takes that much longer, and what begins later is slow too."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        executor.set_speed(0.2)
        for _ in range(2):
            executor.start(KEY, "spin", "0.06")
            assert (await ends.get()).ran_s >= 0.2
        executor.set_speed(1)
        executor.start(KEY, "spin", "0.01")
        assert (await ends.get()).succeeded

    play("process", 1, story)


def test_hanging_subprocesses_can_be_cancelled_replaced_and_closed():
    """A new one hangs as well; a signal to the group does not wake them for long."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        executor.start(KEY, "spin", "0.05")
        executor.set_speed(0)
        await until_they_are_stopped()
        first = set(children())
        executor.stop(KEY)
        executor.start(KEY, "spin", "0.01")
        assert len(set(children()) - first) == 1
        await until_they_are_stopped()
        (idle,) = set(children()) & first
        for child in children():
            child.send_signal(signal.SIGCONT)
        await until_they_are_stopped()
        idle.kill()
        while idle in children():
            await asyncio.sleep(0.005)
        while len(children()) < 2:  # it died before it listened, so the next one comes after a pause
            await asyncio.sleep(0.005)
        await until_they_are_stopped()
        assert ends.empty()
        executor.set_speed(1)
        assert (await ends.get()).succeeded
        executor.set_speed(0)

    play("process", 2, story)
    assert not children()


def test_what_cannot_be_slowed_down_says_so(caplog: pytest.LogCaptureFixture):
    """One line, and the work goes on as before."""

    async def story(executor: Executor, ends: asyncio.Queue[Ended]) -> None:
        executor.set_speed(0)
        executor.start(KEY, "sleep", "0")
        assert (await ends.get()).succeeded

    play("thread", 1, story)
    assert [record.message for record in caplog.records] == ["threads keep their speed: 0 is refused"]


# ---- real processes


def test_a_stopped_worker_sleeps_on_for_what_was_left(make_cluster: MakeCluster):
    """SIGSTOP beyond the end of its task, the word of it, SIGCONT."""
    cluster = make_cluster(1)
    worker = cluster.worker("w1")

    async def story(client: AsyncClient) -> float:
        submission = client.submit("0.5", kind="sleep")
        await submission.id
        await asyncio.sleep(0.1)
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(0.8)
        worker.control({"frozen_s": 0.8})
        worker.signal(signal.SIGCONT)
        return (await submission).latency_s

    assert talk(cluster, story) >= 1.3


@pytest.mark.parametrize("executor", ["inline", "process"])
def test_a_worker_that_hangs_beats_on(make_cluster: MakeCluster, tmp_path: Path, executor: str):
    """Well beyond the detector's timeout; then it finishes what it had begun."""
    policies = (*FAST, "policies.execution_timeout_s=null")
    cluster = make_cluster(1, executor=executor, policies=policies)
    kind = "sleep" if executor == "inline" else "spin"

    async def story(client: AsyncClient) -> int:
        cluster.worker("w1").control({"speed": 0})
        submission = client.submit("0.05", kind=kind)
        await submission.id
        await asyncio.sleep(1.0)
        assert not submission.outcome.done()
        cluster.worker("w1").control({"speed": 1})
        return (await submission).attempts

    assert talk(cluster, story) == 1
    assert "dead" not in (tmp_path / "log").read_text()


def test_a_worker_may_be_slow_from_the_start(make_cluster: MakeCluster):
    """What a control line says is relative to that."""
    cluster = make_cluster(0)
    worker = cluster.start_worker("w1", options=("--speed", "0.1"))
    worker.ready()

    async def story(client: AsyncClient) -> list[float]:
        slow = await client.submit("0.02", kind="sleep")
        worker.control({"speed": 10})
        while (quick := await client.submit("0.1", kind="sleep")).latency_s > 0.9:
            pass  # the line has not been read yet
        return [slow.latency_s, quick.latency_s]

    slow_s, quick_s = talk(cluster, story)
    assert slow_s >= 0.2
    assert quick_s >= 0.1


def test_options_that_make_no_sense_are_refused():
    """Before anything is begun."""
    for options in (("--executor", "thread", "--speed", "0.5"), ("--speed", "2"), ("--beat-phase", "1") * 2):
        process = Process(["worker", "--id", "w1", *options])
        with pytest.raises(NotReady, match="exit status 2"):
            process.ready()
        process.close()


# ---- the whole group of a process


def test_assignments_to_a_stopped_worker_go_to_another(make_cluster: MakeCluster, tmp_path: Path):
    """It has not confirmed them: failed calls, long before the detector; when it beats again it gets more."""
    patient = ("policies.detection.timeout_s=30", "policies.detection.on_failed_call=hold")
    policies = (*patient, "policies.execution_timeout_s=null", "--call-timeout", "0.5")
    cluster = make_cluster(1, policies=policies)

    async def story(client: AsyncClient) -> None:
        cluster.worker("w1").signal(signal.SIGSTOP)
        submissions = [client.submit("0", kind="sleep") for _ in range(2)]
        for submission in submissions:
            await submission.id
        cluster.start_worker("w2").ready()
        assert {(await submission).worker_id for submission in submissions} == {"w2"}
        cluster.worker("w1").signal(signal.SIGCONT)
        cluster.worker("w2").kill()
        # Until the coordinator has noticed, it may still get a task, which then counts on it.
        while "worker w2: its stream broke" not in (tmp_path / "log").read_text():
            await asyncio.sleep(0.01)
        assert (await client.submit("0", kind="sleep")).worker_id == "w1"

    talk(cluster, story)
    assert "dead" not in (tmp_path / "log").read_text()


def test_a_stopped_coordinator_loses_no_stream_and_fails_no_call(make_cluster: MakeCluster, tmp_path: Path):
    """Tasks under way, reports that nobody acknowledges: all is settled by its first attempt."""
    policies = ("policies.execution_timeout_s=null", "--call-timeout", "0.4")
    cluster = make_cluster(3, capacity=4, policies=policies)

    async def story(client: AsyncClient) -> list[int]:
        submissions = [client.submit(str(0.01 * (number % 20)), kind="sleep") for number in range(300)]
        await submissions[20]
        for _ in range(2):
            cluster.coordinator.signal(signal.SIGSTOP)
            await asyncio.sleep(1.2)
            cluster.coordinator.signal(signal.SIGCONT)
            await until(lambda metrics: metrics.alive_workers == 3, client)
        return [(await submission).attempts for submission in submissions]

    assert set(talk(cluster, story)) == {1}
    log = (tmp_path / "log").read_text()
    assert "lost the coordinator" not in log
    assert "dead" not in log


def test_a_control_pipe_that_closes_is_let_go(make_cluster: MakeCluster):
    """Its worker goes on."""
    cluster: LocalCluster = make_cluster(1)
    process = psutil.Process(cluster.worker("w1").pid)
    before = process.num_fds()
    os.close(cluster.worker("w1")._control)
    cluster.worker("w1")._control = -1
    wait_until(lambda: process.num_fds() < before)

    async def story(client: AsyncClient) -> bool:
        return (await client.submit("0", kind="sleep")).settled

    assert talk(cluster, story)
