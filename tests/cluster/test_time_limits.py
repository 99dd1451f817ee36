"""A task's own limits, live: by streams and by the contract, on the command line, and across a coordinator's end."""

from __future__ import annotations

import asyncio
import json
import math
import time
from itertools import count
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from orchestrator.cluster.client import AsyncClient, Client, NewTask
from orchestrator.cluster.decision_record import DecisionRecord, Recorded, replay
from orchestrator.cluster.durability import kept_of, recovered_of
from orchestrator.cluster.effect_log import EffectLog
from orchestrator.cluster.jobs import Job
from orchestrator.cluster.wire import contract, rpc
from orchestrator.cluster.wire.proto import stream_pb2, wire_pb2
from orchestrator.core.model import Task, TaskState, TimeLimits
from orchestrator.policies.settings import Policies
from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import PATIENT, MakeCluster
from tests.cluster.test_commands import at, facts

BOTH = pytest.mark.parametrize("by_contract", [False, True], ids=["streams", "contract"])
HANGS = "100000"
NEVER_BEGAN = "expired: it did not begin within 0.2 s (queue_timeout_s)"
NEVER_SETTLED = "expired: it was not settled within 0.3 s (deadline_s)"


def run(story: Any) -> Any:
    return asyncio.run(asyncio.wait_for(story, 60))


@BOTH
def test_tasks_expire_by_either_protocol(make_cluster: MakeCluster, by_contract: bool):
    """Where they wait and where they run; the metrics count both, and a task without limits waits on."""
    cluster = make_cluster(1, capacity=1)
    with Client(cluster.address, contract=by_contract) as client:
        running = client.submit(HANGS, kind="sleep", deadline_s=0.3)
        while running.task_id is None:  # calls may overtake each other
            time.sleep(0.001)
        waiting = client.submit("0", 0, "sleep", queue_timeout_s=0.2)
        patient = client.submit("0", kind="sleep")
        outcomes = [future.result(30) for future in (running, waiting, patient)]
        assert [outcome.error for outcome in outcomes] == [NEVER_SETTLED, NEVER_BEGAN, ""]
        assert [outcome.state.name for outcome in outcomes] == ["FAILED", "FAILED", "COMPLETED"]
        told = client.metrics()
    assert (told.queue_timeouts, told.missed_deadlines, told.timeouts) == (1, 1, 0)
    assert (told.completed, told.failed) == (1, 2)


def test_a_task_of_the_contract_may_run_for_longer_or_shorter_than_the_references_3_s(make_cluster: MakeCluster):
    """Its own field says so; what it does not say stays as it was."""
    cluster = make_cluster(1, policies=("policies.detection.timeout_s=10", "policies.retry.max_attempts=1"))
    with Client(cluster.address, contract=True) as client:
        short = client.submit(HANGS, kind="sleep", execution_timeout_s=0.2)
        long = client.submit("3.3", kind="sleep", execution_timeout_s=60)
        assert short.result(30).error == "gave up after 1 attempts: ran for over 0.2 s"
        assert long.result(30).state is TaskState.COMPLETED


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("name", ["queue_timeout_s", "execution_timeout_s", "deadline_s"])
def test_a_limit_that_is_none_is_refused_wherever_it_is_given(make_cluster: MakeCluster, name: str, seconds: float):
    """By the client at once, and by the coordinator whoever sends it: 0 is not the same as no limit."""
    cluster = make_cluster(0)
    sentence = f"a task's {name} is a number of seconds above 0, not {seconds:g}"

    async def story() -> None:
        async with AsyncClient(cluster.address) as client:
            with pytest.raises(ValueError, match=sentence):
                client.submit("0", **cast(dict[str, Any], {name: seconds}))
            with pytest.raises(TypeError, match=f"a task's {name} is a number of seconds, or None, not '5'"):
                client.submit("0", **cast(dict[str, Any], {name: "5"}))
        async with rpc.channel(cluster.address) as channel:
            request = wire_pb2.SubmitTaskRequest(payload="7", **cast(dict[str, Any], {name: seconds}))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await rpc.Stub(channel, rpc.COORDINATOR).SubmitTask(request)
            assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, sentence)
            call = rpc.Stub(channel, rpc.CLIENT_STREAM).Submit()
            limits = stream_pb2.TimeLimits(**{name: seconds})
            await call.write(stream_pb2.FromClient(session="s"))
            await call.write(stream_pb2.FromClient(tasks=[stream_pb2.NewTask(number=1, payload="7", limits=limits)]))
            (refusal,) = (await call.read()).refused
            assert (refusal.number, refusal.reason, refusal.busy) == (1, sentence, False)
            call.cancel()

    run(story())


def test_a_message_without_limits_has_none():
    """And one with empty limits as well; those that are given are read as they are."""
    assert contract.job_of(wire_pb2.SubmitTaskRequest(payload="7"))[2] is None
    given = contract.job_of(wire_pb2.SubmitTaskRequest(payload="7", deadline_s=0.5))[2]
    assert given == (None, None, 0.5)
    assert contract.job_of(wire_pb2.SubmitTaskRequest(payload="7", deadline_s=0))[2] == (None, None, 0.0)


def test_a_deadline_passes_while_the_coordinator_is_down(tmp_path: Path):
    """The next one lets the task fail at once, whatever worker comes; one whose deadline is later is executed."""
    policies = [*PATIENT, "--check", "--data", str(tmp_path / "data")]
    with LocalCluster(0, executor="inline", heartbeat_s=0.1, policies=policies, log=tmp_path / "log") as cluster:

        async def story() -> None:
            async with AsyncClient(cluster.address) as client:
                submissions = client.submit_batch(
                    [NewTask("0", kind="sleep", deadline_s=seconds) for seconds in (0.3, 3600)]
                )
                ids = [await submission.id for submission in submissions]
                cluster.coordinator.kill()
                cluster.coordinator.wait(20)
                await asyncio.sleep(0.3)  # the coordinator is down for so long
                cluster.start_coordinator()
                cluster.start_worker("w1")
                late, other = [await submission for submission in submissions]
                assert (late.error, late.attempts) == (NEVER_SETTLED, 0)
                assert other.state is TaskState.COMPLETED
                assert [outcome.task_id for outcome in (late, other)] == ids

        run(story())


def test_what_has_begun_before_a_restart_does_not_expire_in_the_queue(tmp_path: Path):
    """Its worker runs it on."""
    policies = [*PATIENT, "--check", "--data", str(tmp_path / "data")]
    with LocalCluster(1, executor="inline", heartbeat_s=0.1, policies=policies, log=tmp_path / "log") as cluster:

        async def story() -> None:
            async with AsyncClient(cluster.address) as client:
                submission = client.submit("1.5", kind="sleep", queue_timeout_s=0.5)
                task_id = await submission.id
                while (await client.status(task_id)).state is TaskState.PENDING:
                    await asyncio.sleep(0.01)
                cluster.coordinator.kill()
                cluster.coordinator.wait(20)
                cluster.start_coordinator()
                outcome = await submission
                assert (outcome.state, outcome.attempts) == (TaskState.COMPLETED, 1)

        run(story())


def test_limits_on_the_command_line(make_cluster: MakeCluster):
    """Each by its flag; a task that expired is a failed one, exit 1."""
    cluster = make_cluster(0)
    waits = at(cluster, "submit", "--kind", "sleep", "--payload", "0", "--queue-timeout", "0.2")
    assert (waits.returncode, facts(waits.stdout)["error"]) == (1, NEVER_BEGAN)
    lives = at(cluster, "submit", "--kind", "sleep", "--payload", "0", "--deadline", "0.3", "--json")
    assert (lives.returncode, json.loads(lives.stdout)["error"]) == (1, NEVER_SETTLED)
    for flag in ("--queue-timeout", "--execution-timeout", "--deadline"):
        wrong = at(cluster, "submit", "--payload", "7", flag, "0")
        assert (wrong.returncode, flag in wrong.stderr) == (2, True)
    told = facts(at(cluster, "metrics").stdout)
    assert (told["queue_timeouts"], told["missed_deadlines"], told["failed"]) == ("1", "1", "2")


def test_limits_are_stored_by_the_wall_clock_and_recorded():
    """The next coordinator's clock says something else; what has begun is not stored as waiting."""
    places = count(1)
    task = Task("t", 0, 1, Job("sleep", "0"), 100.0, TimeLimits(5.0, None, 7.0))
    kept = kept_of(1000.0, places, task)
    assert (kept.accepted_at, kept.queue_timeout_s, kept.deadline_s) == (1100.0, 5.0, 7.0)
    again = recovered_of(kept, 1090.0, 20.0)
    assert (again.submitted_at, again.limits) == (10.0, TimeLimits(5.0, None, 7.0))
    task.begin()
    assert kept_of(1000.0, places, task).queue_timeout_s is None
    assert recovered_of(kept_of(0.0, places, Task("t", 0, 1, Job("sleep", "0"), 0.0)), 0.0, 0.0).limits is None


def test_limits_and_refusals_are_decided_again(tmp_path: Path):
    """From the record; one of a former version names a single limit by its number."""
    path = tmp_path / "record"
    book = DecisionRecord(path, Policies(), 0, max_waiting=4)
    core = book.open(EffectLog())
    limits = TimeLimits(queue_timeout_s=1.0, deadline_s=2.0)
    core.submit("t1", 1, Job("sleep", "0"), limits, 0.0)
    for number in range(2, 6):
        core.submit(f"t{number}", 1, Job("sleep", "0"), None, 0.5)
    core.wake(1.0)
    book.close()
    assert replay(path) == (6, None, None)
    first = next(Recorded(path).inputs())
    assert first.arguments[3] == limits
    effects = [effect for item in Recorded(path).inputs() for effect in item.effects or ()]
    assert [effect[:2] for effect in effects if effect[0] in ("refused", "settled")] == [
        ["refused", "t4"], ["refused", "t5"], ["settled", "t1"]
    ]  # fmt: skip
    path.write_text(path.read_text().replace("[1.0,null,2.0]", "3.0"))
    assert next(Recorded(path).inputs()).arguments[3] == TimeLimits(execution_timeout_s=3.0)
