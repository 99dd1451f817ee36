"""Bugs to plant in what outlives a coordinator, as in `mutations`: of the core, of group commit, and of the driver
that keeps the store, which here is the simulated world."""

from __future__ import annotations

from typing import Any

from orchestrator.core.group_commit import GroupCommit, Noting
from orchestrator.core.inputs import Recovered, Registration
from orchestrator.core.model import TaskState
from sim.durable import DurableWorld
from sim.store import Store
from tests.ways_to_plant import Method, Patch, leave_out, of_core, replace

_COMPLETED = TaskState.COMPLETED


def _recovering(patch: Patch, changed: Any) -> None:
    """`changed`: a task as it is recovered instead, or None for one that is forgotten."""

    def recovered(original: Any, core: Any, stored: Recovered, now: float) -> None:
        other = changed(stored)
        if other is not None:
            original(core, other, now)

    replace(patch, of_core("recovered"), recovered)


# ---- what is told too early


def acknowledge_before_the_commit(patch: Patch) -> None:
    """A client hears that its task is taken before it is stored."""

    def at_once(original: Any, world: Any, task: Any, now: float) -> None:
        world._submitters.acknowledged(task.id)

    replace(patch, Method(DurableWorld, "accepted"), at_once)


def tell_a_result_before_the_commit(patch: Patch) -> None:
    def at_once(original: Any, world: Any, task: Any, now: float) -> None:
        world._record_settled(task, now)
        world._submitters.told(task.id)

    replace(patch, Method(DurableWorld, "settled"), at_once)


def let_nothing_wait(patch: Patch) -> None:
    """Everything leaves as it is decided, assignments and acknowledgements of reports too."""
    replace(patch, Method(GroupCommit, "release"), lambda original, commit, peer, call, *values: call(*values))


def send_what_waited_for_a_group_that_was_lost(patch: Patch) -> None:
    """As the coordinator ends, it says what it had not stored."""

    def crash(original: Any, store: Any) -> None:
        commit = store._commit
        for call, values in (*commit._covered, *commit._held):
            call(*values)
        original(store)

    replace(patch, Method(Store, "crash"), crash)


# ---- what is not stored


def store_every_other_group(patch: Patch) -> None:
    """And say of all of them that they are."""
    count = 0

    def keep(original: Any, store: Any, group: Any) -> None:
        nonlocal count
        count += 1
        original(store, group if count % 2 else [])

    replace(patch, Method(Store, "_keep"), keep)


def store_no_results(patch: Patch) -> None:
    """Tasks are stored, and how they ended is not."""

    def settled(original: Any, noting: Any, task: Any, now: float) -> None:
        noting._onward.settled(task, now)

    replace(patch, Method(Noting, "settled"), settled)


def store_no_assignments(patch: Patch) -> None:
    """Who has a task is known to nobody afterwards, nor how often it was assigned."""

    def assign(original: Any, noting: Any, attempt: Any, now: float) -> None:
        noting._onward.assign(attempt, now)

    replace(patch, Method(Noting, "assign"), assign)


# ---- what is forgotten on the way back


def forget_keys(patch: Patch) -> None:
    """What was settled is not known by its key any more: submitted again, it is another task."""
    _recovering(patch, lambda stored: None if stored.state >= _COMPLETED else stored)


def forget_a_settled_result(patch: Patch) -> None:
    """A task that is settled is one that waits."""

    def waiting(stored: Recovered) -> Recovered:
        return stored._replace(state=TaskState.PENDING, held=(), settled_at=None)

    _recovering(patch, lambda stored: waiting(stored) if stored.state >= _COMPLETED else stored)


def lose_the_tries(patch: Patch) -> None:
    _recovering(patch, lambda stored: stored._replace(tries=0))


def number_attempts_anew(patch: Patch) -> None:
    """An attempt of the next coordinator has the number of one that was."""
    _recovering(patch, lambda stored: stored if stored.state >= _COMPLETED else stored._replace(attempt=0))


def make_resubmissions_tasks_of_their_own(patch: Patch) -> None:
    """A task that is submitted again is a new one, whether it is known or not."""

    def submit(original: Any, core: Any, task_id: Any, *arguments: Any) -> None:
        known = core.task(task_id)
        if known is not None and core.term > 1:
            del core._tasks[task_id]
        original(core, task_id, *arguments)

    replace(patch, of_core("submit"), submit)


# ---- terms, and workers that come back


def keep_the_term(patch: Patch) -> None:
    def begin_term(original: Any, store: Any) -> int:
        store.term = 1
        return 1

    replace(patch, Method(Store, "begin_term"), begin_term)


def adopt_what_a_dead_process_had(patch: Patch) -> None:
    """Another process of the name counts as the one that had it, and as holding it."""

    def reconnected(original: Any, core: Any, registration: Registration, now: float) -> None:
        worker = core.worker(registration.worker_id)
        if worker is not None and worker.awaited:
            held = dict.fromkeys((*registration.held, *(attempt.key for attempt in worker.open)))
            registration = registration._replace(held=tuple(held))
        original(core, registration, now)

    def register(original: Any, core: Any, registration: Registration, now: float) -> None:
        worker = core.worker(registration.worker_id)
        if worker is not None and worker.awaited:
            worker.incarnation = registration.incarnation
            core.reconnected(registration, now)
        else:
            original(core, registration, now)

    replace(patch, of_core("reconnected"), reconnected)
    replace(patch, of_core("register"), register)


def run_what_workers_hold_again(patch: Patch) -> None:
    """Nobody asks a worker that is back what it holds."""

    def empty(original: Any, core: Any, registration: Registration, now: float) -> None:
        worker = core.worker(registration.worker_id)
        if worker is not None and worker.awaited:
            registration = registration._replace(held=())
        original(core, registration, now)

    replace(patch, of_core("reconnected"), empty)


def wait_for_nobody(patch: Patch) -> None:
    """A task that a worker may still run waits as if nobody had it."""
    leave_out(patch, of_core("_recover_attempt"), within=of_core("recovered"))
