"""What becomes of tasks that run, wait or live for too long, and of those for which there is no room."""

from __future__ import annotations

from orchestrator.core.model import Priority, TaskState, TimeLimits
from tests.conformance.behaviour import LONG_S, other, registry
from tests.conformance.cluster import Cluster

LIMITS, behaviour = registry()
TIMING_OUT = {"policies.execution_timeout_s": 1}
HANGS_S = 100.0


# ---- timeouts


@behaviour(TIMING_OUT)
def a_slow_attempt_that_cannot_be_cancelled_may_still_deliver(cluster: Cluster) -> None:
    """After the execution timeout another worker tries too; the first result counts, and the other attempt ends."""
    cluster.start("w1", "w2", contract=True)
    task = cluster.submit(1.5)
    cluster.until(lambda: cluster.settled(task))
    slow = cluster.attempts(task)[0].worker.id
    assert cluster.story(task)[0] == f"{slow} timed_out"
    assert cluster.task(task).worker_id == slow
    cluster.until(lambda: not any(worker.load for worker in cluster.core.workers()))


@behaviour(TIMING_OUT | {"policies.retry.max_attempts": 3})
def a_task_that_hangs_is_stopped_at_its_timeout(cluster: Cluster) -> None:
    """Each attempt is cancelled, and its slot is free for other work; the task fails when its tries are used up."""
    cluster.start("w1", "w2")
    hanging = cluster.submit(HANGS_S)
    cluster.until(lambda: cluster.settled(hanging))
    assert [story.split()[1] for story in cluster.story(hanging)] == ["timed_out"] * 3
    assert cluster.task(hanging).error == "gave up after 3 attempts: ran for over 1.0 s"
    cluster.until(lambda: not any(worker.load for worker in cluster.core.workers()))
    after = [cluster.submit(0.1) for _ in range(2)]
    cluster.until(lambda: cluster.settled(*after))
    assert cluster.core.counters["timeouts"] == 3


@behaviour(TIMING_OUT)
def a_task_that_hangs_takes_no_more_than_its_copies(cluster: Cluster) -> None:
    """Workers that can't be told to cancel keep two copies; the third worker remains for the tasks of others."""
    cluster.start("w1", "w2", "w3", contract=True)
    hanging = cluster.submit(4.0)
    cluster.until(lambda: cluster.core.counters["timeouts"] == 2)
    others = [cluster.submit(0.1) for _ in range(3)]
    cluster.until(lambda: cluster.settled(*others))
    assert len(cluster.attempts(hanging)) == 2


@behaviour(TIMING_OUT)
def what_waits_at_its_worker_does_not_time_out(cluster: Cluster) -> None:
    """The execution timeout runs from the start of the execution, not from the assignment."""
    cluster.start("w1", prefetch=2)
    tasks = [cluster.submit(0.6) for _ in range(3)]
    cluster.until(lambda: cluster.settled(*tasks))
    assert [cluster.story(task) for task in tasks] == [["w1 completed"]] * 3


@behaviour(TIMING_OUT)
def a_task_on_a_paused_worker_times_out(cluster: Cluster) -> None:
    """It is done elsewhere, though nobody is declared dead."""
    cluster.start("w1", "w2")
    task = cluster.submit(0.7)
    paused = cluster.begun(task)
    cluster.pause(paused)
    cluster.until(lambda: cluster.settled(task))
    cluster.resume(paused)
    assert cluster.story(task) == [f"{paused} timed_out", f"{other(paused)} completed"]
    assert cluster.changes(paused) == ["up registered"]


@behaviour({"policies.retry.max_attempts": 2})
def a_task_has_an_execution_timeout_of_its_own(cluster: Cluster) -> None:
    """The coordinator has none: others run on."""
    cluster.start("w1", "w2")
    other_task = cluster.submit(LONG_S)
    hanging = cluster.submit(HANGS_S, limits=TimeLimits(execution_timeout_s=0.5))
    cluster.until(lambda: cluster.settled(hanging, other_task))
    assert [story.split()[1] for story in cluster.story(hanging)] == ["timed_out"] * 2
    assert cluster.task(hanging).error == "gave up after 2 attempts: ran for over 0.5 s"
    assert cluster.task(other_task).state is TaskState.COMPLETED


# ---- waiting, and living, for too long


@behaviour()
def a_task_that_waits_for_too_long_fails(cluster: Cluster) -> None:
    """Nobody ever runs it; one that waits as long, and has no limit, is done."""
    cluster.start("w1")
    first = cluster.submit(LONG_S)
    cluster.begun(first)
    patient = cluster.submit(0.1)
    late = cluster.submit(0.1, limits=TimeLimits(queue_timeout_s=0.3))
    cluster.until(lambda: cluster.settled(late))
    assert not cluster.settled(first)
    assert cluster.task(late).error == "expired: it did not begin within 0.3 s (queue_timeout_s)"
    cluster.until(lambda: cluster.settled(patient))
    assert (cluster.story(late), cluster.story(patient)) == ([], ["w1 completed"])
    assert cluster.core.counters["queue_timeouts"] == 1


@behaviour()
def a_task_that_has_begun_in_time_runs_on(cluster: Cluster) -> None:
    """Its queue timeout is over long before its work is."""
    cluster.start("w1", prefetch=1)
    task = cluster.submit(LONG_S, limits=TimeLimits(queue_timeout_s=0.4))
    cluster.until(lambda: cluster.settled(task))
    assert cluster.story(task) == ["w1 completed"]


@behaviour()
def what_waits_at_its_worker_for_too_long_is_taken_back(cluster: Cluster) -> None:
    """The worker had fetched it beyond its slot, and drops it."""
    cluster.start("w1", prefetch=1)
    first = cluster.submit(LONG_S)
    late = cluster.submit(0.1, limits=TimeLimits(queue_timeout_s=0.3))
    cluster.until(lambda: cluster.settled(late))
    cluster.until(lambda: cluster.settled(first))
    assert (cluster.story(first), cluster.story(late)) == (["w1 completed"], ["w1 cancelled"])


@behaviour()
def a_task_past_its_deadline_is_stopped(cluster: Cluster) -> None:
    """Its slot is free for other work, and it is not tried again."""
    cluster.start("w1")
    hanging = cluster.submit(HANGS_S, limits=TimeLimits(deadline_s=0.5))
    cluster.until(lambda: cluster.settled(hanging))
    assert cluster.task(hanging).error == "expired: it was not settled within 0.5 s (deadline_s)"
    after = cluster.submit(0.1)
    cluster.until(lambda: cluster.settled(after))
    assert (cluster.story(hanging), cluster.story(after)) == (["w1 cancelled"], ["w1 completed"])
    assert cluster.core.counters["missed_deadlines"] == 1


@behaviour({"policies.retry": "{backoff: {kind: constant, delay_s: 60}}"})
def a_deadline_ends_the_wait_for_a_retry(cluster: Cluster) -> None:
    """The task would have been tried again a minute later."""
    cluster.start("w1")
    task = cluster.submit(LONG_S, limits=TimeLimits(deadline_s=1.0))
    cluster.begun(task)
    cluster.kill_executor("w1")
    cluster.until(lambda: cluster.settled(task))
    assert cluster.task(task).error == "expired: it was not settled within 1 s (deadline_s)"
    assert cluster.story(task) == ["w1 failed"]


# ---- no room


@behaviour({"coordinator.max_waiting": 2})
def what_is_refused_comes_again(cluster: Cluster) -> None:
    """While two tasks wait the coordinator takes no third one; its client submits it until there is room."""
    cluster.start("w1")
    first = cluster.submit(LONG_S)
    cluster.begun(first)
    tasks = [cluster.submit(0.1) for _ in range(4)]
    cluster.until(lambda: len(cluster.history.refusals) >= 2)
    assert cluster.core.pending == 2
    cluster.until(lambda: cluster.settled(*tasks))
    assert [cluster.story(task) for task in tasks] == [["w1 completed"]] * 4


@behaviour({"coordinator.max_waiting": 4})
def low_priority_is_refused_first(cluster: Cluster) -> None:
    """Half the room is for other tasks."""
    cluster.start("w1")
    first = cluster.submit(LONG_S)
    cluster.begun(first)
    low = [cluster.submit(0.1, Priority.LOW) for _ in range(3)]
    cluster.until(lambda: cluster.history.refusals)
    assert cluster.history.refusals[0] == "2 tasks wait: no more of low priority are taken at present"
    urgent = [cluster.submit(0.1, Priority.URGENT) for _ in range(2)]
    cluster.until(lambda: cluster.settled(*urgent))
    assert all("low" in why for why in cluster.history.refusals)
    cluster.until(lambda: cluster.settled(*low))
