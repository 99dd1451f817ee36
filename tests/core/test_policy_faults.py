"""What a policy does against its protocol is named: the policy, the method, and what it did."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.culprit import explained
from orchestrator.core.deadlines import Ticks
from orchestrator.core.invariants import InvariantError
from orchestrator.core.model import Priority
from orchestrator.core.ports import PolicyError, Verdict
from orchestrator.policies.queueing import Fifo
from orchestrator.policies.routing import RoundRobin
from tests.core import making
from tests.core.recording import Recorder, heartbeat, register, tell

HERE = "tests.core.test_policy_faults:"


def cluster(*workers, **settings):
    core = making.coordinator(Recorder(), **settings)
    for worker in workers:
        register(core, worker, 1, 0, False, 0.0)
    return core


def submit(core, *tasks, now=0.0):
    for task in tasks:
        tell(core, "submit", task, Priority.NORMAL, None, now)


# ---- exceptions


class Bug(Exception):
    pass


class Crashing(RoundRobin):
    def choose(self, task):
        return self.helper()

    def helper(self):
        raise Bug("no luck")


class CrashingQueue(Fifo):
    def pop(self):
        raise Bug("no luck")


class CrashingDetector:
    def __init__(self, now):
        pass

    def heard(self, now):
        raise Bug("no luck")

    def verdict(self, now):
        return Verdict.ALIVE

    def review_at(self):
        return math.inf


class CrashingRetry:
    max_attempts = None

    def delay_s(self, tries):
        raise Bug("no luck")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"routing": Crashing()}, f"the routing policy {HERE}Crashing raised in choose"),
        ({"queue": CrashingQueue}, f"the queue {HERE}CrashingQueue raised in pop"),
        ({"detector": CrashingDetector}, f"the failure detector {HERE}CrashingDetector raised in heard"),
        ({"retry": CrashingRetry()}, f"the retry policy {HERE}CrashingRetry raised in delay_s"),
    ],
    ids=["routing", "queue", "detector", "retry"],
)
def test_an_exception_is_explained_by_the_policy_that_it_came_from(settings, said):
    """The sentence names the policy, its method, and what it raised."""
    core = cluster("w1", **settings)

    def begin():
        submit(core, "t1", "t2")
        heartbeat(core, "w1", 1, 1.0)
        core.deregister("w1", 2.0)
        register(core, "w1", 1, 0, False, 3.0)

    with pytest.raises(Bug) as caught:
        begin()
    assert str(explained(core, caught.value)) == f"{said}: Bug: no luck"


def test_an_exception_of_the_world_is_no_fault_of_a_policy():
    """What an effect raises is blamed on no policy."""

    class Broken(Recorder):
        def assign(self, attempt, now):
            raise Bug("no luck")

    core = making.coordinator(Broken())
    register(core, "w1", 1, 0, False, 0.0)
    with pytest.raises(Bug) as caught:
        submit(core, "t1")
    assert explained(core, caught.value) is None


# ---- nonsense


def nonsense(what, begin):
    with pytest.raises(PolicyError) as caught:
        begin()
    assert what in str(caught.value)
    assert HERE in str(caught.value)


class Choosing(RoundRobin):
    """Chooses whatever it is told to."""

    chosen: object = None

    def choose(self, task):
        return self.chosen if self.chosen is not None else super().choose(task)


def test_a_routing_policy_that_returns_a_full_worker_is_named():
    """It would be an overloaded worker."""
    routing = Choosing()
    core = cluster("w1", "w2", routing=routing)
    routing.chosen = core.worker("w1")
    submit(core, "t1")
    nonsense("choose gave <Worker w1 ALIVE load 1/1>, which is full", lambda: submit(core, "t2"))


@pytest.mark.parametrize("how", ["deregister", "drain", "connection_lost"])
def test_a_routing_policy_that_returns_a_worker_which_is_not_to_be_used_is_named(how):
    """One that left, drains or is quarantined gets nothing."""
    routing = Choosing()
    core = cluster("w1", "w2", routing=routing)
    routing.chosen = core.worker("w1")
    getattr(core, how)("w1", 1.0)
    nonsense("which gets no tasks at present", lambda: submit(core, "t1"))


def test_a_routing_policy_that_returns_no_worker_is_named():
    """A name is not a worker."""
    routing = Choosing()
    core = cluster("w1", routing=routing)
    routing.chosen = "w1"
    nonsense("choose gave 'w1', not a worker", lambda: submit(core, "t1"))


class Dropping(Fifo):
    """Loses every second task."""

    seen = 0

    def push(self, task):
        self.seen += 1
        if self.seen % 2:
            super().push(task)


class Doubling(Fifo):
    def push(self, task):
        super().push(task)
        super().push(task)


class Repeating(Fifo):
    """Gives the first task for ever, and counts as if it had removed it."""

    def __init__(self):
        super().__init__()
        self.size = 0

    def push(self, task):
        super().push(task)
        self.size += 1

    def pop(self):
        self.size -= 1
        return next(iter(self.fresh))

    def __len__(self):
        return self.size


class Inventing(Fifo):
    def pop(self):
        super().pop()
        return "t1"


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        (Dropping, "push was given <Task t2 PENDING attempt 0> and says that it holds 1 of 2"),
        (Doubling, "push was given <Task t1 PENDING attempt 0> and says that it holds 2 of 1"),
        (Repeating, "pop gave <Task t1 "),
        (Inventing, "pop gave 't1'"),
    ],
)
def test_a_queue_that_loses_or_invents_tasks_is_named(queue, said):
    """What is pushed stands in it once, until it is popped once."""
    core = cluster(queue=queue)

    def begin():
        submit(core, "t1", "t2", "t3")
        register(core, "w1", 3, 0, False, 1.0)

    nonsense(said, begin)


def test_the_proof_finds_a_task_that_the_queue_lost_in_secret():
    """A queue may lie about its length, but not about what stands in it."""

    class Lying(Fifo):
        def __iter__(self):
            return iter(list(super().__iter__())[1:])

    core = cluster(queue=Lying)
    submit(core, "t1", "t2")
    with pytest.raises(InvariantError, match="the queue lost <Task t1"):
        core.check()


class Odd:
    """A detector that answers what its class says."""

    answer: object = Verdict.ALIVE
    review: object = 1.0

    def __init__(self, now):
        self.now = now

    def heard(self, now):
        self.now = now

    def verdict(self, now):
        return self.answer

    def review_at(self):
        return self.review


class OddVerdict(Odd):
    answer = "dead"


class OddReview(Odd):
    review = math.nan


class WordsForTimes(Odd):
    review = "soon"


@pytest.mark.parametrize(
    ("detector", "said"),
    [
        (OddVerdict, "verdict gave 'dead', not a Verdict"),
        (OddReview, "review_at gave nan, not a time"),
        (WordsForTimes, "review_at gave 'soon', not a time"),
    ],
)
def test_a_detector_that_returns_nonsense_is_named(detector, said):
    """Neither a word nor NaN is a verdict or a time."""

    def begin():
        core = cluster("w1", detector=detector)
        heartbeat(core, "w1", 0, 0.5)
        core.wake(1.0)

    nonsense(said, begin)


class NeverSatisfied(Odd):
    review = 0.0


class Strict(Odd):
    """Dead when the last beat is over 1 s old; at exactly 1 s it is not."""

    def verdict(self, now):
        return Verdict.DEAD if now - self.now > 1.0 else Verdict.ALIVE

    def review_at(self):
        return self.now + 1.0


class OneSuspicion(Strict):
    def verdict(self, now):
        return Verdict.SUSPECT if now == self.now + 1.0 else Verdict.ALIVE


@pytest.mark.parametrize("check_every_s", [None, 1.0])
@pytest.mark.parametrize(
    ("detector", "said"),
    [
        (NeverSatisfied, "review_at gave 0.0 at 1.0, where verdict still says ALIVE: it must be later"),
        (Strict, "review_at gave 1.0 at 1.0, where verdict still says ALIVE: it must be later"),
        (OneSuspicion, "review_at gave 1.0 at 1.0, where verdict still says SUSPECT: it must be later"),
    ],
)
def test_a_detector_that_would_be_asked_at_one_moment_for_ever_is_named(detector, said, check_every_s):
    """The moment of the next review lies after the one at which the verdict was asked for."""
    core = cluster("w1", detector=detector, detection_check=check_every_s and Ticks(check_every_s, 0.0))
    nonsense(said, lambda: core.wake(1.0))


@pytest.mark.parametrize("review", [math.nan, "soon"])
def test_a_detector_that_loses_its_senses_later_is_named_at_the_next_beat(review):
    """The fast path of a heartbeat looks too."""
    core = cluster("w1", detector=Odd)
    core.worker("w1").detector.review = review
    nonsense("review_at gave", lambda: heartbeat(core, "w1", 0, 0.5))


@pytest.mark.parametrize("delay_s", [-1.0, math.nan, math.inf, "a second"])
def test_a_retry_policy_that_returns_nonsense_is_named(delay_s):
    """A pause is a number of seconds."""

    class OddRetry:
        max_attempts = None

        def delay_s(self, tries):
            return delay_s

    core = cluster("w1", retry=OddRetry())
    submit(core, "t1")
    nonsense("delay_s gave", lambda: core.deregister("w1", 1.0))


class OddEjection:
    """Ejects w1 for whatever number of seconds its class says, and asks to be asked again at once."""

    for_s: object = 1.0

    def ended(self, attempt, now):
        pass

    def review_at(self):
        return 0.0

    def review(self, workers, now):
        return [(worker, "for no reason", self.for_s) for worker in workers]


class NeverBack(OddEjection):
    for_s = math.nan


@pytest.mark.parametrize(
    ("ejection", "said"),
    [(NeverBack, "review gave nan, not a number of seconds"), (OddEjection, "wants to be asked again at once")],
)
def test_an_ejection_policy_that_returns_nonsense_is_named(ejection, said):
    """A worker is out for a time, and a review is over at some time."""
    core = cluster("w1", ejection=ejection())
    nonsense(said, lambda: core.wake(1.0))


@pytest.mark.parametrize("due_s", [math.nan, "late", -1.0])
def test_a_hedging_policy_that_returns_nonsense_is_named(due_s):
    """An age is a number of seconds."""

    class OddHedging:
        def began(self, kind, hedge):
            pass

        def finished(self, kind, seconds):
            pass

        def due_s(self, kind):
            return due_s

        def may_begin(self):
            return True

    core = cluster("w1", hedging=OddHedging())
    nonsense("due_s gave", lambda: submit(core, "t1"))
