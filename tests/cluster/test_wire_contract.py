"""A client and a worker that know only the wire contract, against our coordinator: its behaviour, row by row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import grpc
import pytest

from orchestrator.rehearsal.local_cluster import LocalCluster
from tests.cluster.conftest import FAST, MakeCluster
from tests.cluster.contract import peers
from tests.cluster.contract.peers import COMPLETED, FAILED, PENDING, RUNNING, wait_until

MakeWorker = Callable[..., peers.Worker]
Connect = Callable[[LocalCluster], peers.Client]


def test_a_task_goes_round(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """Submitted, assigned, executed, reported, asked for: the result is the worker's."""
    cluster = make_cluster()
    make_worker(cluster, "a").start()
    client = connect(cluster)
    status = client.settled(client.submit("17"))
    assert (status.state, status.result, status.error) == (COMPLETED, "a did 17", "")


def test_the_least_loaded_worker_is_next(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """Four tasks on two workers with two slots each: two each."""
    cluster = make_cluster()
    workers = [make_worker(cluster, name).start() for name in "ab"]
    for worker in workers:
        worker.go.clear()
    client = connect(cluster)
    ids = [client.submit("1") for _ in range(4)]
    wait_until(lambda: sum(len(worker.taken) for worker in workers) == 4)
    assert [len(worker.taken) for worker in workers] == [2, 2]
    assert len({task.task_id for worker in workers for task in worker.taken} & set(ids)) == 4
    for worker in workers:
        worker.go.set()
    assert all(client.settled(task).state == COMPLETED for task in ids)


def test_priority_first_then_the_oldest(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """What waits is taken by priority, and by age inside one."""
    cluster = make_cluster()
    worker = make_worker(cluster, "a", capacity=1).start()
    worker.go.clear()
    client = connect(cluster)
    client.submit("first")
    wait_until(lambda: worker.taken)
    for payload, priority in (("low", 0), ("normal", 1), ("urgent", 3), ("high 1", 2), ("high 2", 2)):
        last = client.submit(payload, priority)
    assert client.metrics().queue_depth == 5
    worker.go.set()
    client.settled(last)
    wait_until(lambda: client.metrics().total_ok == 6)
    assert [task.payload for task in worker.taken] == ["first", "urgent", "high 1", "high 2", "normal", "low"]


def test_nonsense_has_its_status(make_cluster: MakeCluster, connect: Connect):
    """A request that makes no sense is refused, and the coordinator goes on."""
    cluster = make_cluster()
    client = connect(cluster)
    senseless: list[tuple[Callable[[], object], grpc.StatusCode]] = [
        (lambda: client.submit(""), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: client.submit("1", priority=7), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: client.submit("1" * (1 << 20) + "1"), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: client.status("nobody"), grpc.StatusCode.NOT_FOUND),
    ]
    for request, code in senseless:
        with pytest.raises(grpc.RpcError) as caught:
            request()
        assert caught.value.code() is code
    assert client.metrics().queue_depth == 0


def test_a_silent_worker_is_dead_and_a_heartbeat_revives_it(
    make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect
):
    """Its tasks go back to the queue; when it beats again it is given tasks again."""
    cluster = make_cluster(policies=FAST)
    client = connect(cluster)
    worker = make_worker(cluster, "a", capacity=1).start()
    worker.go.clear()
    task = client.submit("1")
    wait_until(lambda: worker.taken)
    worker.silence()
    wait_until(lambda: client.metrics().alive_workers == 0)
    assert client.status(task).state == PENDING
    worker.taken.clear()
    worker.active = 0  # it has forgotten the first
    wait_until(lambda: worker.beat() and worker.taken)
    assert client.metrics().alive_workers == 1
    worker.go.set()
    assert client.settled(task).state == COMPLETED


def test_an_execution_over_the_timeout_goes_back_to_the_queue(
    make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect
):
    """Another worker gets it, and its result counts."""
    policies = ("policies.execution_timeout_s=0.3", "policies.execution_check_every_s=0.1")
    cluster = make_cluster(policies=policies)
    client = connect(cluster)
    slow = make_worker(cluster, "slow", capacity=1).start()
    slow.go.clear()
    task = client.submit("1")
    wait_until(lambda: slow.taken)
    make_worker(cluster, "quick").start()
    assert client.settled(task).result == "quick did 1"


def test_registering_again_requeues_at_once(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """What the old process held is lost: no timeout is waited for."""
    cluster = make_cluster()
    client = connect(cluster)
    old = make_worker(cluster, "a", capacity=1).start()
    old.reports = False
    old.go.clear()
    task = client.submit("1")
    wait_until(lambda: old.taken)
    old.silence()
    new = make_worker(cluster, "a", capacity=1).start()
    assert client.settled(task).result == "a did 1"
    assert len(new.taken) == 1


def test_a_refusal_is_nobodys_fault(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """A worker that does not accept stays alive; its task goes to another."""
    cluster = make_cluster()
    client = connect(cluster)
    full = make_worker(cluster, "full").start()
    full.refuses = True
    task = client.submit("1")
    make_worker(cluster, "free", heartbeat_s=5).start()
    assert client.settled(task).result == "free did 1"
    assert client.metrics().alive_workers == 2


def test_an_unreachable_worker_is_dead_at_once(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """Where the policies say that a failed call means that, as in the reference, whatever the detector's timeout."""
    cluster = make_cluster(policies=("policies.detection.on_failed_call=dead",))
    client = connect(cluster)
    gone = make_worker(cluster, "gone").start()
    client.settled(client.submit("0"))
    gone.silence()
    gone.unlisten()
    task = client.submit("1")
    wait_until(lambda: client.metrics().alive_workers == 0)
    make_worker(cluster, "here").start()
    assert client.settled(task).result == "here did 1"


def test_a_worker_may_register_before_it_listens(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """The first assignment waits until it is there."""
    cluster = make_cluster()
    client = connect(cluster)
    task = client.submit("1")
    worker = make_worker(cluster, "a").register()
    assert client.metrics().queue_depth == 0, "it is assigned although nobody listens"
    worker.listen()
    assert client.settled(task).result == "a did 1"
    assert client.metrics().alive_workers == 1


def test_a_reported_failure_is_final(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """FAILED with the worker's error, and no second attempt."""
    cluster = make_cluster()
    client = connect(cluster)
    worker = make_worker(cluster, "a").start()
    worker.reports = False
    task = client.submit("1")
    wait_until(lambda: client.status(task).state == RUNNING)
    assert worker.report(task, FAILED, error="cannot")
    status = client.status(task)
    assert (status.state, status.error) == (FAILED, "cannot")
    assert client.metrics().total_err == 1
    assert len(worker.taken) == 1


def test_a_result_of_a_worker_that_was_declared_dead_is_accepted_once(
    make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect
):
    """A draining worker of the reference stops beating first: its result still settles the task, only once."""
    cluster = make_cluster(policies=FAST)
    client = connect(cluster)
    worker = make_worker(cluster, "a").start()
    worker.reports = False
    task = client.submit("1")
    wait_until(lambda: worker.taken)
    worker.silence()
    wait_until(lambda: client.metrics().alive_workers == 0)
    assert worker.report(task, result="late, but first")
    assert worker.report(task, result="again")
    assert client.status(task).result == "late, but first"
    assert client.metrics().total_ok == 1


def test_strangers_are_told_so(make_cluster: MakeCluster, make_worker: MakeWorker):
    """A heartbeat of an unknown worker and a result for an unknown task are not acknowledged."""
    cluster = make_cluster()
    worker = make_worker(cluster, "a").listen()
    assert not worker.beat()
    worker.register()
    assert worker.beat()
    assert not worker.report("nobody's task")


def test_a_senseless_registration_is_refused(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """INVALID_ARGUMENT, and no such worker."""
    cluster = make_cluster()
    calls = make_worker(cluster, "a").calls
    for worker_id, address, capacity in [
        ("a", "localhost:1", -1),
        ("a", "localhost:1", 0),
        ("", "localhost:1", 1),
        ("a", "nowhere", 1),
        ("a", "localhost:99999", 1),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            calls.RegisterWorker(worker_id=worker_id, address=address, capacity=capacity)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert connect(cluster).metrics().alive_workers == 0


def test_a_result_in_the_middle_of_life_is_refused(make_cluster: MakeCluster, make_worker: MakeWorker):
    """A report's state is COMPLETED or FAILED."""
    worker = make_worker(make_cluster(), "a").start()
    with pytest.raises(grpc.RpcError) as caught:
        worker.report("x", state=PENDING)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_metrics_tell_the_workers_own_durations(make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect):
    """Percentiles of the reported latency_ms; totals of both outcomes."""
    cluster = make_cluster()
    client = connect(cluster)
    worker = make_worker(cluster, "a", capacity=4).start()
    worker.reports = False

    def taken(number: int) -> bool:
        return len(worker.taken) == number

    def passed(at: float) -> bool:
        return time.monotonic() > at

    for number, ms in enumerate((10, 20, 30, 40), 1):
        task = client.submit("1")
        wait_until(partial(taken, number))
        wait_until(partial(passed, time.monotonic() + ms / 1000))  # a longer time than there was is not believed
        worker.report(task, ms=ms)
    metrics = client.metrics()
    assert (metrics.total_ok, metrics.total_err, metrics.alive_workers, metrics.queue_depth) == (4, 0, 1, 0)
    percentiles = (metrics.p50_latency_ms, metrics.p95_latency_ms, metrics.p99_latency_ms)
    assert percentiles == (20, 40, 40)
    assert metrics.throughput_tasks_per_sec > 0


@pytest.mark.parametrize("count", [500, 2000])
def test_many_short_tasks_are_each_executed_once(
    make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect, count: int
):
    """No execution timeout, no requeue: as many executions as tasks, done when submission is done."""
    cluster = make_cluster(policies=("policies.execution_timeout_s=3",))
    client = connect(cluster)
    workers = [make_worker(cluster, name, capacity=8).start() for name in "abcd"]
    ids = [client.submit("1") for _ in range(count)]
    wait_until(lambda: client.metrics().total_ok == count, timeout_s=5)
    executed = Counter(task.task_id for worker in workers for task in worker.taken)
    assert executed == Counter(ids)


def test_strangers_and_our_own_workers_share_the_work(
    make_cluster: MakeCluster, make_worker: MakeWorker, connect: Connect
):
    """Both kinds of workers serve both kinds of clients."""
    cluster = make_cluster(1, capacity=1, executor="thread")
    make_worker(cluster, "stranger", capacity=1).start()
    client = connect(cluster)
    results = {client.settled(task).result for task in [client.submit("91") for _ in range(40)]}
    assert results == {"stranger did 91", "91 is not prime (smallest factor: 7)"}
