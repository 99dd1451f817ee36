"""Kinds and labels: a task goes to a worker that takes it, by the routing policy's own rule, or waits alone."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.inputs import Registration
from orchestrator.core.labels import labels_text
from orchestrator.core.model import Priority, Worker
from orchestrator.core.ports import PolicyError
from orchestrator.policies.placement import Placement
from orchestrator.policies.routing import LeastLoaded, PeakEwma, RoundRobin, Routing
from orchestrator.policies.stealing import LoadedVictim
from tests.core import making
from tests.core.recording import Assign, Recall, Recorder, complete, tell


class Work:
    def __init__(self, kind="", requires=""):
        self.kind, self.requires = kind, requires


def placed(make=lambda: LeastLoaded(random.Random(1)), **settings):
    made = []

    def new(*name):
        made.append(name)
        return make()

    fx = Recorder()
    core = making.coordinator(fx, routing=Placement(new(), new), **settings)
    return core, fx, made


def register(core, name, capacity=1, prefetch=0, kinds=(), labels=()):
    core.register(Registration(name, "", capacity, prefetch, True, kinds=kinds, labels=labels), 0.0)


def submit(core, task, kind="", requires="", now=0.0):
    core.submit(task, Priority.NORMAL, Work(kind, requires), None, now)


def assigned(fx):
    return {effect.task: effect.worker for effect in fx.take(Assign)}


def test_a_task_goes_to_a_worker_that_has_what_it_requires():
    """Both labels, of several that it may have."""
    core, fx, _ = placed()
    register(core, "plain")
    register(core, "gpu", labels=("gpu=a100", "zone=a"))
    register(core, "both", labels=("gpu=a100", "zone=b", "disk=ssd"))
    submit(core, "t1", requires="gpu=a100,zone=b")
    submit(core, "t2", requires="gpu=a100")
    submit(core, "t3", requires="gpu=a100")
    assert assigned(fx) == {"t1": "both", "t2": "gpu"}
    core.check()


def test_what_nobody_can_take_waits_and_blocks_nobody():
    """Until a worker registers that can; others go on."""
    core, fx, made = placed()
    register(core, "w1", capacity=2)
    submit(core, "gpu", requires="gpu=a100")
    submit(core, "any")
    assert assigned(fx) == {"any": "w1"}
    register(core, "w2", labels=("gpu=h100",))
    assert assigned(fx) == {}
    assert len(made) == 1, "a need that nobody meets has no policy"
    register(core, "w3", labels=("gpu=a100",))
    assert assigned(fx) == {"gpu": "w3"}
    core.check()


def test_a_worker_takes_only_the_kinds_that_it_offers():
    """One that names none takes all."""
    core, fx, _ = placed()
    register(core, "resize", capacity=5, kinds=("resize",))
    register(core, "all", capacity=1)
    submit(core, "t1", "report")
    submit(core, "t2", "report")
    submit(core, "t3", "resize")
    assert assigned(fx) == {"t1": "all", "t3": "resize"}
    complete(core, "all", "t1", 1, 1.0)
    assert assigned(fx) == {"t2": "all"}
    core.check()


def test_a_need_may_be_met_by_who_registers_anew_with_other_labels():
    """What counts is what the process says now."""
    core, fx, _ = placed()
    register(core, "w1", labels=("gpu=a100",))
    submit(core, "t1", requires="gpu=a100")
    complete(core, "w1", "t1", 1, 1.0)
    fx.take()
    register(core, "w1", labels=("gpu=h100",))
    submit(core, "t2", requires="gpu=a100")
    submit(core, "t3", requires="gpu=h100")
    assert assigned(fx) == {"t3": "w1"}
    core.check()


def test_each_need_has_a_policy_of_its_own_with_its_own_chance():
    """It hears only of the workers that meet the need."""
    core, fx, made = placed(RoundRobin)
    for number in range(6):
        register(core, f"w{number}", capacity=10, labels=("gpu=a100",) if number % 2 else ())
    for number in range(9):
        submit(core, f"t{number}", requires="gpu=a100")
    assert Counter(assigned(fx).values()) == {"w1": 3, "w3": 3, "w5": 3}
    assert made == [(), ("None gpu=a100",)]
    core.check()


def test_a_policy_that_learns_hears_of_results_for_every_need():
    """Each instance learns for itself."""
    policies = []

    def make():
        policies.append(PeakEwma(random.Random(1), 2, 10.0))
        return policies[-1]

    core, _, _ = placed(make)
    register(core, "w1", labels=("gpu=a100",))
    submit(core, "t1", requires="gpu=a100")
    complete(core, "w1", "t1", 1, 3.0)
    worker = core.worker("w1")
    assert [policy._costs.of(worker) for policy in policies] == [[3.0, 3.0], [3.0, 3.0]]


def test_a_thief_takes_nothing_that_it_can_not_execute():
    """Not the newest, but the newest that it can."""
    core, fx, _ = placed(stealing=LoadedVictim(random.Random(1)))
    register(core, "w1", prefetch=5, labels=("gpu=a100",))
    for task, requires in (("t1", ""), ("t2", ""), ("t3", ""), ("t4", "gpu=a100")):
        submit(core, task, requires=requires)
    tell(core, "started", "w1", "t1", 1, 0.0)
    register(core, "w2", prefetch=5)
    assert fx.take(Recall) == [Recall("t3", "w1", 1)]
    core.check()


def test_needs_that_submitters_make_up_cost_little():
    """Kinds that no worker names share a policy, and of the others no more are kept than MOST."""
    core, _, made = placed()
    register(core, "w1", prefetch=1000, kinds=("a",))
    register(core, "w2", prefetch=10_000, labels=tuple(f"l{number}=1" for number in range(16)))
    for number in range(300):
        submit(core, f"kind {number}", f"made-up-{number}")
    assert made == [(), (" ",)]
    for number in range(500):
        needed = ",".join(f"l{bit}=1" for bit in sorted(range(16), key=str) if number >> bit & 1)
        submit(core, f"labels {number}", requires=needed)
        core.check()
    assert len(core._routing._pools) <= Placement.MOST
    assert all(worker.open for worker in core.workers() if worker.id == "w2")


class Broken(Routing):
    def choose(self, task):
        raise ZeroDivisionError("lost")


def test_the_fault_of_a_policy_is_told_by_its_name():
    """That of the user's class, whether it serves all tasks or those of one need."""
    from orchestrator.core.culprit import explained

    core, _, _ = placed(lambda: Broken(random.Random(1)))
    register(core, "w1", labels=("gpu=a100",))
    for requires in ("", "gpu=a100"):
        with pytest.raises(ZeroDivisionError) as caught:
            submit(core, f"t{requires}", requires=requires)
        told = explained(core, caught.value)
        assert isinstance(told, PolicyError)
        assert str(told) == f"the routing policy {__name__}:Broken raised in choose: ZeroDivisionError: lost"


LABELS = [(), ("gpu=a100",), ("gpu=a100", "zone=a"), ("zone=a",)]
NEEDS = ["", "gpu=a100", "zone=a", "gpu=a100,zone=a"]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["register", "leave", "submit", "submit", "finish"]), st.integers(0, 1000)),
        max_size=60,
    )
)
def test_nothing_waits_that_a_worker_with_room_could_take(steps):
    """Whatever registers, leaves, comes and ends; and nothing runs where it can't."""
    core, fx, _ = placed()
    open_at: dict[str, str] = {}
    for number, (what, pick) in enumerate(steps):
        name = f"w{pick % 4}"
        if what == "register":
            register(core, name, 1 + pick % 2, 0, ("k1",) if pick % 3 == 0 else (), LABELS[pick % 4])
        elif what == "leave":
            core.deregister(name, float(number))
        elif what == "submit":
            submit(core, f"t{number}", f"k{pick % 2}", NEEDS[pick % 4], float(number))
        elif open_at:
            task = sorted(open_at)[pick % len(open_at)]
            complete(core, open_at[task], task, core.task(task).attempt, float(number))
        open_at = {
            attempt.task.id: worker.id
            for worker in core.workers()
            for attempt in worker.open
            if not attempt.task.settled
        }
        core.check()
        fx.take()
        for worker in core.workers():
            for attempt in worker.open:
                assert can_take(worker, attempt.task.payload)
        waiting = [task for task in core.unsettled() if task.id not in open_at]
        for task in waiting:
            assert not any(
                worker.assignable and worker.load < worker.limit and can_take(worker, task.payload)
                for worker in core.workers()
            )


def can_take(worker: Worker, work: Work) -> bool:
    needs = work.requires.split(",") if work.requires else []
    return (not worker.kinds or work.kind in worker.kinds) and set(needs) <= set(worker.labels)


@pytest.mark.parametrize("given", [{"zone": "b", "gpu": "a100"}, ["zone=b", "gpu=a100"], "zone=b,gpu=a100"])
def test_labels_have_one_text(given):
    """In whatever form and order they are given."""
    assert labels_text(given) == "gpu=a100,zone=b"


@pytest.mark.parametrize("given", ["gpu", "=a100", "gpu=a b", "a=1,a=2", "a=1,", {"x" * 64: "1"}])
def test_what_is_no_label_is_refused(given):
    """In a sentence."""
    with pytest.raises(ValueError, match="a label is"):
        labels_text(given)
