"""What a cluster does, whichever world it is in. Those of its limits are in `limits`."""

from __future__ import annotations

from collections import Counter
from functools import partial

from orchestrator.core.model import Priority, TaskState
from tests.conformance.behaviour import LONG_S, Behaviour, other, registry
from tests.conformance.cluster import Cluster
from tests.conformance.limits import LIMITS

__all__ = ["BEHAVIOURS", "Behaviour"]

BEHAVIOURS, behaviour = registry()
BEHAVIOURS += LIMITS
DETECTING = {"policies.detection.timeout_s": 1}
CUT = DETECTING | {"network.rpc_timeout_s": 0.4}


# ---- routing and order


@behaviour()
def tasks_go_to_the_least_loaded_worker(cluster: Cluster) -> None:
    """Six tasks at three workers with room for four each: two at each."""
    cluster.start("w1", "w2", "w3", capacity=4)
    tasks = [cluster.submit(1.0) for _ in range(6)]
    cluster.until(lambda: all(cluster.attempts(task) for task in tasks))
    assert Counter(cluster.attempts(task)[0].worker.id for task in tasks) == {"w1": 2, "w2": 2, "w3": 2}


@behaviour()
def urgent_tasks_overtake_others_in_the_queue(cluster: Cluster) -> None:
    """What waits for the only slot gets it by priority, and among equals by age."""
    cluster.start("w1")
    first = cluster.submit(0.5)
    cluster.until(lambda: cluster.attempts(first))
    low, normal, high, urgent, later = (
        cluster.submit(0.01, priority)
        for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.URGENT, Priority.NORMAL)
    )
    cluster.until(lambda: cluster.settled(low))
    order = [attempt.task.seq + 1 for attempt in cluster.history.assigned]
    assert order == [first, urgent, high, normal, later, low]


# ---- crashes


@behaviour(DETECTING)
def a_crashed_workers_task_is_done_elsewhere(cluster: Cluster) -> None:
    """The detector declares the worker dead, and its task is requeued."""
    cluster.start("w1", "w2")
    task = cluster.submit(LONG_S)
    victim = cluster.begun(task)
    cluster.kill(victim)
    cluster.until(lambda: cluster.settled(task))
    assert cluster.story(task) == [f"{victim} worker_died", f"{other(victim)} completed"]
    assert cluster.declared_dead(victim)


@behaviour()
def a_worker_that_begins_again_is_given_its_task_at_once(cluster: Cluster) -> None:
    """The registration of a new process says that what the one before it held is lost: nobody waits for a detector."""
    cluster.start("w1", capacity=2)
    tasks = [cluster.submit(LONG_S) for _ in range(2)]
    cluster.begun(tasks[-1])
    cluster.kill("w1")
    cluster.start("w1", capacity=2)
    cluster.until(lambda: cluster.settled(*tasks))
    assert [cluster.story(task) for task in tasks] == [["w1 worker_died", "w1 completed"]] * 2
    assert cluster.changes("w1") == ["up registered", "up reregistered"]


@behaviour(DETECTING)
def nothing_is_lost_when_one_dies_or_half_or_all(cluster: Cluster) -> None:
    """Ten workers with tasks in flight: one is killed, then half of them, then the rest; new ones finish it."""
    names = [f"w{number}" for number in range(1, 11)]
    cluster.start(*names, capacity=2)
    for victims in (names[:1], names[1:5], names[5:]):
        tasks = [cluster.submit(0.5) for _ in range(30)]
        cluster.begun(tasks[0])
        cluster.kill(*victims)
        cluster.until(partial(cluster.declared_dead, *victims))
    cluster.start("new1", "new2", "new3", capacity=10)


# ---- pauses


@behaviour()
def a_short_pause_is_no_death(cluster: Cluster) -> None:
    """A worker that is back before the timeout goes on with what it had."""
    cluster.start("w1", "w2")
    held = cluster.submit(LONG_S)
    paused = cluster.begun(held)
    cluster.pause(paused)
    meanwhile = cluster.submit(0.5)
    cluster.until(lambda: cluster.settled(meanwhile))
    assert not cluster.settled(held)
    cluster.resume(paused)
    cluster.until(lambda: cluster.settled(held))
    assert cluster.story(held) == [f"{paused} completed"]
    assert cluster.changes(paused) == ["up registered"]


@behaviour(DETECTING)
def a_long_pause_means_death_and_a_heartbeat_revives(cluster: Cluster) -> None:
    """The task is done elsewhere, once; the paused worker is taken back, and its load comes out right."""
    cluster.start("w1", "w2")
    task = cluster.submit(LONG_S)
    paused = cluster.begun(task)
    cluster.pause(paused)
    cluster.until(lambda: cluster.settled(task))
    cluster.resume(paused)
    cluster.until(lambda: "up revived" in cluster.changes(paused))
    assert cluster.story(task) == [f"{paused} worker_died", f"{other(paused)} completed"]
    assert cluster.changes(paused)[:3] == ["up registered", "dead detector", "up revived"]


@behaviour(DETECTING)
def a_late_result_is_counted_and_dropped(cluster: Cluster) -> None:
    """A worker that was declared dead and cannot be told to cancel finishes what was done elsewhere long ago."""
    cluster.start("w1", "w2", contract=True)
    task = cluster.submit(LONG_S)
    paused = cluster.begun(task)
    cluster.pause(paused)
    cluster.until(lambda: cluster.settled(task))
    cluster.resume(paused)
    cluster.until(lambda: cluster.core.counters["late_results"])
    assert cluster.story(task) == [f"{paused} worker_died", f"{other(paused)} completed"]
    assert cluster.core.counters["late_results"] == 1
    assert cluster.task(task).worker_id == other(paused)


# ---- a network that is cut, a host that hangs, and a coordinator that stands still


@behaviour(CUT)
def a_worker_that_is_cut_off_is_declared_dead_and_its_result_is_late(cluster: Cluster) -> None:
    """It works on, and reports until it is heard: by then its task has been done elsewhere."""
    cluster.start("w1", "w2", fragile=True)
    task = cluster.submit(LONG_S)
    victim = cluster.begun(task)
    cluster.cut(victim, "to_workers", "to_coordinator")
    cluster.until(lambda: cluster.settled(task))
    assert cluster.core.counters["late_results"] == 0
    cluster.cut(victim)
    cluster.until(lambda: cluster.core.counters["late_results"])
    cluster.until(lambda: "up revived" in cluster.changes(victim))
    assert cluster.story(task) == [f"{victim} worker_died", f"{other(victim)} completed"]
    assert cluster.task(task).worker_id == other(victim)


@behaviour(CUT)
def a_worker_that_hears_nothing_stays_alive_but_its_calls_fail(cluster: Cluster) -> None:
    """Each after the timeout of a call; when it hears again, the task is done."""
    cluster.start("w1", fragile=True)
    cluster.cut("w1", "to_workers")
    task = cluster.submit(0.1)
    cluster.until(lambda: len(cluster.attempts(task)) == 4)
    cluster.cut("w1")
    cluster.until(lambda: cluster.settled(task))
    *failed, last = cluster.story(task)
    assert set(failed) == {"w1 call_failed"}
    assert last == "w1 completed"
    assert cluster.changes("w1") == ["up registered"]


@behaviour(CUT)
def a_worker_that_is_not_heard_does_the_work_and_its_call_fails(cluster: Cluster) -> None:
    """Its task is done elsewhere as well, before anybody is declared dead; the report comes when it can."""
    cluster.start("w1", fragile=True)
    cluster.cut("w1", "to_coordinator")
    task = cluster.submit(0.1)
    cluster.until(lambda: cluster.story(task) == ["w1 call_failed"])
    cluster.start("w2")
    cluster.until(lambda: cluster.settled(task))
    cluster.until(lambda: cluster.declared_dead("w1"))
    cluster.cut("w1")
    cluster.until(lambda: cluster.core.counters["late_results"])
    assert cluster.story(task) == ["w1 call_failed", "w2 completed"]
    assert cluster.changes("w1")[:2] == ["up registered", "dead detector"]


@behaviour(DETECTING)
def a_host_that_hangs_beats_on(cluster: Cluster) -> None:
    """Nobody is declared dead, and the work goes on where it had stopped."""
    cluster.start("w1")
    cluster.work_at("w1", 0.0)
    task = cluster.submit(0.2)
    cluster.begun(task)
    beats = cluster.history.beats["w1"] + 15
    cluster.until(lambda: cluster.history.beats["w1"] >= beats)
    assert not cluster.settled(task)
    cluster.work_at("w1", 1.0)
    cluster.until(lambda: cluster.settled(task))
    assert cluster.story(task) == ["w1 completed"]
    assert cluster.changes("w1") == ["up registered"]


@behaviour(DETECTING)
def a_coordinator_that_stood_still_declares_nobody_dead(cluster: Cluster) -> None:
    """The silence was its own: first it hears what came meanwhile."""
    cluster.start("w1", "w2")
    task = cluster.submit(LONG_S)
    worker = cluster.begun(task)
    cluster.stand_still(2.0)
    cluster.until(lambda: cluster.settled(task))
    beats = cluster.history.beats["w1"] + 3
    cluster.until(lambda: cluster.history.beats["w1"] >= beats)
    assert cluster.story(task) == [f"{worker} completed"]
    assert cluster.changes("w1") == cluster.changes("w2") == ["up registered"]


# ---- connections that break


@behaviour()
def a_broken_connection_loses_no_attempt(cluster: Cluster) -> None:
    """A worker that returns as the same process keeps what it runs and what it had fetched: none is started twice."""
    cluster.start("w1", capacity=2, prefetch=1, fragile=True)
    tasks = [cluster.submit(LONG_S) for _ in range(3)]
    cluster.begun(tasks[-1])
    for returns in (1, 2):
        cluster.break_connection("w1")
        cluster.registered("w1", 1 + returns)
    cluster.until(lambda: cluster.settled(*tasks))
    assert [cluster.story(task) for task in tasks] == [["w1 completed"]] * 3
    assert cluster.history.registrations["w1"] == [[]] * 3
    assert cluster.changes("w1") == ["up registered"]


@behaviour({"policies.detection.on_failed_call": "dead"})
def a_worker_whose_broken_connection_meant_death_returns_with_its_attempts(cluster: Cluster) -> None:
    """They had been given up, but nothing else had begun them yet."""
    cluster.start("w1", capacity=2, fragile=True)
    tasks = [cluster.submit(LONG_S) for _ in range(2)]
    cluster.begun(tasks[-1])
    cluster.break_connection("w1")
    cluster.until(lambda: cluster.settled(*tasks))
    assert [cluster.story(task) for task in tasks] == [["w1 completed"]] * 2
    assert cluster.changes("w1") == ["up registered", "dead failed_call", "up reconnected"]


@behaviour(CUT)
def a_worker_that_returns_drops_what_was_done_elsewhere(cluster: Cluster) -> None:
    """The answer to its registration names the attempt, which was settled while nobody could reach the worker."""
    cluster.start("w1", "w2", fragile=True)
    task = cluster.submit(LONG_S)
    victim = cluster.begun(task)
    (attempt,) = cluster.attempts(task)
    cluster.work_at(victim, 0.0)
    cluster.cut(victim, "to_workers", "to_coordinator")
    cluster.until(lambda: cluster.settled(task))
    cluster.cut(victim)
    cluster.break_connection(victim)
    # By the answer; or by the cancel, where the old connection still delivered that before it broke.
    cluster.until(lambda: [attempt.key] in cluster.history.registrations[victim] or not attempt.worker.abandoned)
    cluster.work_at(victim, 1.0)
    after = [cluster.submit(LONG_S) for _ in range(2)]
    cluster.until(lambda: cluster.settled(*after))
    assert cluster.story(task) == [f"{victim} worker_died", f"{other(victim)} completed"]
    assert sorted(cluster.story(number) for number in after) == [["w1 completed"], ["w2 completed"]]
    assert cluster.core.counters["late_results"] == 0


# ---- leaving and refusing


@behaviour()
def a_draining_worker_finishes_and_leaves(cluster: Cluster) -> None:
    """It takes nothing new, reports what it has, and is not declared dead."""
    cluster.start("w1", "w2")
    held = cluster.submit(LONG_S)
    leaving = cluster.begun(held)
    cluster.drain(leaving)
    cluster.until(lambda: "drain" in cluster.changes(leaving))
    after = [cluster.submit(0.01) for _ in range(3)]
    cluster.until(lambda: cluster.settled(*after))
    cluster.until(lambda: "left" in cluster.changes(leaving))
    assert cluster.story(held) == [f"{leaving} completed"]
    assert [cluster.story(task) for task in after] == [[f"{other(leaving)} completed"]] * 3
    assert cluster.changes(leaving) == ["up registered", "drain", "left"]


@behaviour()
def a_draining_worker_hands_back_what_has_not_begun(cluster: Cluster) -> None:
    """What it had fetched beyond its slot is done elsewhere, and counts as nobody's attempt."""
    cluster.start("w1", prefetch=2)
    first, *waiting = (cluster.submit(LONG_S) for _ in range(3))
    cluster.begun(waiting[-1])
    cluster.drain("w1")
    cluster.until(lambda: "left" in cluster.changes("w1"))
    assert cluster.story(first) == ["w1 completed"]
    cluster.start("w2", capacity=2)
    cluster.until(lambda: cluster.settled(*waiting))
    assert [cluster.story(task) for task in waiting] == [["w1 rejected", "w2 completed"]] * 2
    assert [cluster.task(task).tries for task in waiting] == [0, 0]


@behaviour()
def a_refused_task_is_offered_again(cluster: Cluster) -> None:
    """A worker that has less room than it is thought to have refuses, without blame, until it has room."""
    cluster.start("w1", contract=True)
    cluster.claim("w1", capacity=2)
    first = cluster.submit(LONG_S)
    cluster.begun(first)
    second = cluster.submit(0.1)
    cluster.until(lambda: cluster.settled(first, second))
    assert cluster.story(first) == ["w1 completed"]
    *refusals, last = cluster.story(second)
    assert set(refusals) == {"w1 rejected"}
    assert last == "w1 completed"
    assert cluster.task(second).tries == 0
    assert not cluster.declared_dead("w1")


@behaviour()
def a_forgotten_worker_registers_again(cluster: Cluster) -> None:
    """The answer to its next heartbeat says that it is unknown; then it gets what it had lost."""
    cluster.start("w1", contract=True)
    task = cluster.submit(LONG_S)
    cluster.begun(task)
    cluster.forget("w1")
    cluster.until(lambda: cluster.settled(task))
    assert cluster.history.unknown["w1"] >= 1
    assert cluster.changes("w1") == ["up registered", "left", "up reregistered"]
    assert cluster.story(task) == ["w1 worker_died", "w1 completed"]


# ---- results


@behaviour()
def a_result_that_comes_twice_counts_once(cluster: Cluster) -> None:
    """The first settles the task; the second, though it comes from the same attempt, is late."""
    cluster.start("w1", contract=True)
    task = cluster.submit(LONG_S)
    cluster.begun(task)
    cluster.report("w1", task, 1)
    cluster.until(lambda: cluster.settled(task))
    cluster.until(lambda: cluster.core.counters["late_results"])
    cluster.report("w1", task, 1)
    cluster.until(lambda: cluster.core.counters["late_results"] == 2)
    assert cluster.story(task) == ["w1 completed"]
    assert cluster.core.completed == 1


@behaviour()
def a_result_for_an_unknown_task_changes_nothing(cluster: Cluster) -> None:
    """Nor does one for an attempt that was never made."""
    cluster.start("w1", contract=True)
    task = cluster.submit(LONG_S)
    cluster.begun(task)
    cluster.report("w1", 999, 1)
    cluster.report("w1", task, 7)
    cluster.until(lambda: cluster.core.counters["unknown_results"] == 2)
    assert not cluster.settled(task)
    cluster.until(lambda: cluster.settled(task))
    assert cluster.story(task) == ["w1 completed"]


@behaviour()
def a_task_that_kills_its_executor_fails_that_attempt_only(cluster: Cluster) -> None:
    """The attempt's reason says what happened; the worker lives on, and the next attempt is its own."""
    cluster.start("w1")
    task = cluster.submit(LONG_S)
    cluster.begun(task)
    cluster.kill_executor("w1")
    cluster.until(lambda: cluster.settled(task))
    assert cluster.story(task) == ["w1 failed", "w1 completed"]
    assert cluster.attempts(task)[0].reason == "its executor was killed by SIGKILL"
    assert cluster.changes("w1") == ["up registered"]


@behaviour({"policies.retry": "{max_attempts: 2, backoff: {kind: constant, delay_s: 0.3}}"})
def a_task_that_keeps_killing_is_given_up(cluster: Cluster) -> None:
    """Its next attempt comes after the pause that the policy wants, and the last one's reason is the task's."""
    cluster.start("w1")
    task = cluster.submit(LONG_S)
    cluster.begun(task)
    cluster.kill_executor("w1")
    cluster.until(lambda: len(cluster.attempts(task)) == 2)
    cluster.begun(task)
    cluster.kill_executor("w1")
    cluster.until(lambda: cluster.settled(task))
    first, second = cluster.attempts(task)
    assert first.ended_at is not None
    assert second.assigned_at >= first.ended_at + 0.3
    assert cluster.story(task) == ["w1 failed", "w1 failed"]
    assert cluster.task(task).state is TaskState.FAILED
    assert cluster.task(task).error == "gave up after 2 attempts: its executor was killed by SIGKILL"


@behaviour()
def a_reported_failure_is_final(cluster: Cluster) -> None:
    """Work that makes no sense is not tried again."""
    cluster.start("w1")
    task = cluster.submit(None)
    cluster.until(lambda: cluster.settled(task))
    assert cluster.task(task).state is TaskState.FAILED
    assert cluster.task(task).error.startswith("invalid payload: ")
    assert cluster.story(task) == ["w1 failed"]
