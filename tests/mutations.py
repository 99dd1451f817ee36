"""Bugs to plant in the product, one at a time: tests that claim to see such a bug must fail with it.

A bug is planted by its meaning: a method is replaced, or leaves something out. So it survives code that moves, and an
owner that has no such method any more is an error. `planting/sitecustomize.py` plants one in all processes of a test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from orchestrator.core.backlog import Backlog
from orchestrator.core.blame import Blame
from orchestrator.core.dead_share import DeadShare
from orchestrator.core.deadlines import Expiries, Ticks
from orchestrator.core.model import Task, TaskState
from orchestrator.core.worker import WorkerAgent
from orchestrator.policies.queueing import Fifo, StrictPriority
from orchestrator.policies.retry import Retry
from tests.ways_to_plant import Method, Patch, announce_nothing, leave_out, of_core, replace

Bug = Callable[[Patch], None]

BUGS: list[Bug] = []
"""Of the core. Its own tests see each of them."""
BUGS_OF_POLICIES: list[Bug] = []


def of_the_core(bug: Bug) -> Bug:
    BUGS.append(bug)
    return bug


def of_a_policy(bug: Bug) -> Bug:
    BUGS_OF_POLICIES.append(bug)
    return bug


# ---- tasks


@of_the_core
def drop_a_requeue(patch: Patch) -> None:
    """A task that comes back without blame waits nowhere."""
    leave_out(patch, Method(Backlog, "add"), within=of_core("_requeue_if_orphaned"))


@of_the_core
def lose_a_retry(patch: Patch) -> None:
    """A task that is to wait before its next attempt is forgotten."""
    leave_out(patch, Method(Backlog, "retry_later"), within=of_core("_retry_or_fail"))


@of_the_core
def settle_twice(patch: Patch) -> None:
    """The outcome of a task is announced twice."""

    def twice(original: Any, core: Any, task: Any, now: float) -> None:
        core._fx.settled(task, now)
        original(core, task, now)

    replace(patch, of_core("_announce"), twice)


@of_the_core
def accept_a_late_result_as_new(patch: Patch) -> None:
    """A result settles a task that is settled already."""

    def accepting(original: Any, core: Any, report: Any, now: float) -> None:
        task = core.task(report.task_id)
        if task is None or not task.settled:
            original(core, report, now)
            return
        before, task.state = task.state, TaskState.RUNNING
        original(core, report, now)
        if not task.settled:
            task.state = before

    replace(patch, of_core("result"), accepting)


@of_the_core
def count_no_late_result(patch: Patch) -> None:
    """Late results are dropped, but not counted."""

    def uncounted(original: Any, core: Any, report: Any, now: float) -> None:
        before = core.counters["late_results"]
        original(core, report, now)
        core.counters["late_results"] = before

    replace(patch, of_core("result"), uncounted)


@of_the_core
def let_the_others_run(patch: Patch) -> None:
    """The other attempts of a settled task are not cancelled."""
    announce_nothing(patch, "cancel", within=of_core("_announce"))


@of_the_core
def wait_behind_a_stale_place(patch: Patch) -> None:
    """A new task is not tried at once where the queue holds only places that lost their meaning."""
    leave_out(patch, of_core("_dispatch"), within=of_core("submit"))


# ---- attempts


@of_the_core
def number_attempts_alike(patch: Patch) -> None:
    """Every attempt of a task has number 1."""

    def alike(original: Any, core: Any, task: Any, *further: Any) -> None:
        task.attempt = max(0, task.attempt - 1)
        original(core, task, *further)

    replace(patch, of_core("_assign"), alike)


@of_the_core
def leak_a_load(patch: Patch) -> None:
    """A closed attempt still counts among those that its worker holds."""

    def leaking(original: Any, core: Any, attempt: Any, now: float) -> None:
        original(core, attempt, now)
        worker = attempt.worker
        worker.load += 1
        if worker.assignable:
            core._roomy -= worker.load - 1 < worker.limit <= worker.load
            core._routing.load_changed(worker, worker.load - 1)

    replace(patch, of_core("_close"), leaking)


@of_the_core
def never_lower_abandoned(patch: Patch) -> None:
    """What a worker says of the number of its attempts is ignored."""

    def deaf(original: Any, core: Any, worker_id: str, active: int, request: int | None, now: float) -> None:
        original(core, worker_id, 1 << 30, request, now)

    replace(patch, of_core("heartbeat"), deaf)


@of_the_core
def time_out_prefetched_work_while_it_waits(patch: Patch) -> None:
    """The execution timeout runs from the assignment, although the worker reports starts."""

    def ignoring(original: Any, core: Any, registration: Any, now: float) -> None:
        original(core, registration._replace(reports_start=False), now)

    replace(patch, of_core("register"), ignoring)


@of_the_core
def lose_what_a_returning_worker_holds(patch: Patch) -> None:
    """A worker that returns in the same incarnation counts as a new process."""

    def forgetful(original: Any, core: Any, registration: Any, now: float) -> None:
        core.register(registration, now)

    replace(patch, of_core("reconnected"), forgetful)


@of_the_core
def count_on_what_never_arrived(patch: Patch) -> None:
    """An attempt stays open although its worker returned without it."""

    def believing(original: Any, core: Any, registration: Any, now: float) -> None:
        worker = core.worker(registration.worker_id)
        opened = tuple(attempt.key for attempt in worker.open) if worker is not None else ()
        original(core, registration._replace(held=(*registration.held, *opened)), now)

    replace(patch, of_core("reconnected"), believing)


# ---- the alarm


@of_the_core
def skip_a_wake(patch: Patch) -> None:
    """Nobody is asked to wake the coordinator."""
    announce_nothing(patch, "wake_at", within=of_core("_ring_by"))


@of_the_core
def set_no_alarm_after_it_rang(patch: Patch) -> None:
    """The deadlines after the first one are forgotten."""
    leave_out(patch, of_core("_rearm"), within=of_core("wake"))


@of_the_core
def check_a_tick_too_late(patch: Patch) -> None:
    """What falls due at a tick waits for the next one."""

    def late(original: Any, ticks: Ticks, at: float) -> float:
        tick: float = original(ticks, at)
        return tick + ticks.every_s if tick == at else tick

    replace(patch, Method(Ticks, "at_or_after"), late)


@of_the_core
def act_on_deadlines_right_after_a_sleep(patch: Patch) -> None:
    """The coordinator does not listen first."""

    def hasty(original: Any, core: Any, now: float) -> None:
        original(core, now)
        core._listens_until = -math.inf

    replace(patch, of_core("_note_sleep"), hasty)


@of_the_core
def judge_right_after_a_sleep(patch: Patch) -> None:
    """No worker gets the time to beat again."""

    def hasty(original: Any, core: Any, now: float) -> None:
        original(core, now)
        core._judges_from = -math.inf

    replace(patch, of_core("_note_sleep"), hasty)


@of_the_core
def learn_from_a_sleep(patch: Patch) -> None:
    """No detector is told that the coordinator slept."""

    def silent(original: Any, core: Any, now: float) -> None:
        workers, core._workers = core._workers, {}
        original(core, now)
        core._workers = workers

    replace(patch, of_core("_note_sleep"), silent)


# ---- workers


@of_the_core
def give_a_quarantined_worker_tasks(patch: Patch) -> None:
    """A quarantine keeps nothing away from the worker."""
    leave_out(patch, of_core("_make_unassignable"), within=of_core("_quarantine"))


@of_the_core
def give_a_suspect_tasks(patch: Patch) -> None:
    """A suspicion keeps nothing away from the worker."""
    leave_out(patch, of_core("_make_unassignable"), within=of_core("_suspect"))


@of_the_core
def give_the_dead_tasks(patch: Patch) -> None:
    """A worker that was declared dead gets tasks."""
    leave_out(patch, of_core("_make_unassignable"), within=of_core("_declare_dead"))


@of_the_core
def count_on_the_dead(patch: Patch) -> None:
    """The attempts of a worker that was declared dead are not given up."""
    for step in ("_give_up", "_retry_or_fail"):
        leave_out(patch, of_core(step), within=of_core("_declare_dead"))


@of_the_core
def give_a_draining_worker_tasks(patch: Patch) -> None:
    """A worker that drains gets tasks."""
    leave_out(patch, of_core("_make_unassignable"), within=of_core("drain"))


@of_the_core
def exceed_the_capacity(patch: Patch) -> None:
    """Every worker may hold one attempt more than it says."""

    def generous(original: Any, core: Any, registration: Any, now: float) -> None:
        original(core, registration._replace(capacity=registration.capacity + 1), now)

    replace(patch, of_core("register"), generous)


@of_the_core
def declare_more_dead_than_the_share(patch: Patch) -> None:
    """The share of workers that may be dead at once limits nothing."""
    assert hasattr(DeadShare, "has_room")
    patch(DeadShare, "has_room", property(lambda _: True))


@of_the_core
def spare_a_worker_for_ever(patch: Patch) -> None:
    """A suspect that only the share saved is never judged again."""
    leave_out(patch, of_core("_review_later"), within=of_core("_judge_spared"))


@of_the_core
def keep_both_after_a_return(patch: Patch) -> None:
    """Neither the attempt of a worker that returned is cancelled, nor the one that replaced it."""
    announce_nothing(patch, "cancel", within=of_core("_compare_with_replacements"))


@of_the_core
def never_forget_a_worker(patch: Patch) -> None:
    """Workers that left long ago are remembered for ever."""
    leave_out(patch, of_core("_forget_gone"), within=of_core("wake"))


@of_the_core
def never_readmit(patch: Patch) -> None:
    """An ejected worker gets no tasks when its time is over."""
    leave_out(patch, of_core("_reconsider"), within=of_core("_eject_and_readmit"))


# ---- hedges and blame


@of_the_core
def start_a_hedge_beside_its_original(patch: Patch) -> None:
    """A hedge may go to the worker that it is to save the task from."""
    leave_out(patch, of_core("_make_unassignable"), within=of_core("_start_hedge"))


@of_the_core
def count_a_hedge_as_a_try(patch: Patch) -> None:
    """The end of a hedge counts against the limit of its task."""

    def counting(original: Any, core: Any, attempt: Any, now: float) -> None:
        attempt.task.tries += attempt.hedge
        original(core, attempt, now)

    replace(patch, of_core("_retry_or_fail"), counting)


@of_the_core
def blame_the_innocent(patch: Patch) -> None:
    """The tasks of a worker that returned still count as its killers."""
    leave_out(patch, Method(Blame, "absolve"), within=of_core("_revive"))


@of_the_core
def try_poison_again(patch: Patch) -> None:
    """A task that killed too many workers is tried on."""
    leave_out(patch, Method(Blame, "is_poison"), within=of_core("_retry_or_fail"), answer=False)


@of_the_core
def blame_company_as_if_alone(patch: Patch) -> None:
    """A death counts in full for each of the tasks that the worker was running."""

    def in_full(original: Any, blame: Any, task: Any) -> bool:
        return len(blame.victims(task)) >= blame._limit

    replace(patch, Method(Blame, "is_poison"), in_full)


# ---- copies, and strangers


@of_the_core
def copy_without_end(patch: Patch) -> None:
    """A task that hangs gets one worker after the other."""
    replace(patch, of_core("_is_crowded"), lambda original, core, task: False)


@of_the_core
def leave_a_crowded_task_waiting(patch: Patch) -> None:
    """A task that waits for one of its attempts is not told that it ended."""
    replace(patch, Method(Backlog, "release"), lambda original, backlog, task: None)


@of_the_core
def let_a_timed_out_attempt_run_on(patch: Patch) -> None:
    """Its worker is not told to stop it."""
    announce_nothing(patch, "cancel", within=of_core("wake"))


@of_the_core
def let_a_stranger_settle(patch: Patch) -> None:
    """A result counts, whoever says it."""

    def trusting(original: Any, core: Any, report: Any, now: float) -> None:
        task = core.task(report.task_id)
        if task is not None and not task.settled:
            task.past = {**(task.past or {}), report.attempt or 0: report.worker_id}
        original(core, report, now)

    replace(patch, of_core("result"), trusting)


@of_the_core
def condemn_the_spared_at_once(patch: Patch) -> None:
    """A suspect that only the share saved is judged by its silence from before, when the share holds no more."""

    def at_once(original: Any, core: Any, worker: Any, now: float) -> None:
        for spared in core._dead_share.release(worker):
            core._review_later(spared, now)

    replace(patch, of_core("_judge_spared"), at_once)


@of_the_core
def try_a_silent_worker_at_every_beat(patch: Patch) -> None:
    """However often its calls failed, the next heartbeat makes a worker as good as any other."""

    def forgiving(original: Any, core: Any, worker: Any, now: float) -> None:
        worker.quarantined = None

    replace(patch, of_core("_end_quarantine"), forgiving)


# ---- limits


@of_the_core
def forget_a_limit(patch: Patch) -> None:
    """A task waits and lives for as long as it likes."""
    replace(patch, Method(Expiries, "begin"), lambda original, *arguments: math.inf)


@of_the_core
def expire_what_has_begun(patch: Patch) -> None:
    """The queue timeout holds on after the first start."""
    replace(patch, Method(Task, "begin"), lambda original, task: None)


@of_the_core
def forget_that_an_assignment_was_no_start(patch: Patch) -> None:
    """A task that its worker did not take waits for ever, if its time was over by then."""
    replace(patch, Method(Expiries, "wait_again"), lambda original, *arguments: math.inf)


# ---- lanes


@of_the_core
def never_open_a_lane(patch: Patch) -> None:
    """Tasks that were refused are not tried again when something has changed."""
    leave_out(patch, Method(Backlog, "_open"), within=of_core("_dispatch"))


# ---- the worker's half


@of_the_core
def execute_a_repeated_assignment(patch: Patch) -> None:
    """An assignment that is executed is executed again when it is repeated."""

    def again(original: Any, agent: Any, key: Any, payload: object, now: float) -> None:
        agent._running.pop(key, None)
        original(agent, key, payload, now)

    replace(patch, Method(WorkerAgent, "assigned"), again)


@of_the_core
def report_once(patch: Patch) -> None:
    """A report that is not acknowledged is not sent again."""
    announce_nothing(patch, "report", within=Method(WorkerAgent, "wake"))


# ---- policies


@of_a_policy
def serve_the_lowest_priority_first(patch: Patch) -> None:
    def reversed_pop(original: Any, queue: Any) -> Any:
        queue._highest_first.reverse()
        try:
            return original(queue)
        finally:
            queue._highest_first.reverse()

    replace(patch, Method(StrictPriority, "pop"), reversed_pop)


@of_a_policy
def serve_returned_tasks_last(patch: Patch) -> None:
    replace(
        patch,
        Method(Fifo, "pop"),
        lambda original, queue: queue.fresh.popleft() if queue.fresh else original(queue),
    )


@of_a_policy
def try_once_too_often(patch: Patch) -> None:
    replace(patch, Method(Retry, "delay_s"), lambda original, retry, tries: original(retry, tries - 1))
