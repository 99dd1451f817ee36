"""A class of the user's own is checked against its protocol when the configuration is read."""

# The classes of this test break their protocols on purpose.
# mypy: disable-error-code="override, assignment"

from __future__ import annotations

from functools import partialmethod
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.core.ports import QueueDiscipline
from orchestrator.policies.protocols import methods, objection
from orchestrator.policies.queueing import Fifo
from tests.policies.test_config import FAMILIES, FirstFit, Lifo, NeverEject, NeverHedge, Patient, Square

HERE = __name__


class NoChoice:
    def joined(self, worker): ...
    def left(self, worker): ...
    def load_changed(self, worker, before): ...


class ChoiceOfTwo(FirstFit):
    def choose(self, task, workers): ...


class LaneOfNothing(FirstFit):
    def lane(self): ...


class NoIteration:
    def push(self, task): ...
    def pop(self): ...
    def __len__(self): ...


class PopByIndex(Lifo):
    def pop(self, index): ...


class Deaf:
    def __init__(self, now): ...
    def verdict(self, now): ...
    def review_at(self): ...


class TimelessVerdict(Patient):
    def verdict(self): ...


class SleepWithoutEnd(Patient):
    def slept(self): ...


class NoBudget:
    def began(self, kind, hedge): ...
    def finished(self, kind, seconds): ...
    def due_s(self, kind): ...


class DueAtOnce(NeverHedge):
    due_s = 0.0


class NoReview:
    def ended(self, attempt, now): ...
    def review_at(self): ...


class ReviewOfNobody(NeverEject):
    def review(self, now): ...


class NotCallable:
    def delay_s(self, tries): ...


class CalledWithTwo:
    def __call__(self, tries, now): ...


LACKING = [
    ("routing", "NoChoice", "lacks choose(task), expected a class with every method of a routing policy"),
    ("routing", "ChoiceOfTwo", "has choose(self, task, workers), expected choose(task) of a routing policy"),
    ("routing", "LaneOfNothing", "has lane(self), expected lane(task) of a routing policy"),
    ("queue", "NoIteration", "lacks __iter__(), expected a class with every method of a queue"),
    ("queue", "PopByIndex", "has pop(self, index), expected pop() of a queue"),
    ("detection", "Deaf", "lacks heard(now), expected a class with every method of a failure detector"),
    ("detection", "TimelessVerdict", "has verdict(self), expected verdict(now) of a failure detector"),
    ("detection", "SleepWithoutEnd", "has slept(self), expected slept(until) of a failure detector"),
    ("hedging", "NoBudget", "lacks may_begin(), expected a class with every method of a hedging policy"),
    ("hedging", "DueAtOnce", "has due_s = 0.0, expected due_s(kind) of a hedging policy"),
    ("ejection", "NoReview", "lacks review(workers, now), expected a class with every method of an ejection policy"),
    ("ejection", "ReviewOfNobody", "has review(self, now), expected review(workers, now) of an ejection policy"),
    ("backoff", "NotCallable", "lacks __call__(tries), expected a class with every method of a backoff"),
    ("backoff", "CalledWithTwo", "has __call__(self, tries, now), expected __call__(tries) of a backoff"),
]


@pytest.mark.parametrize(("family", "name", "sentence"), LACKING, ids=[f"{case[0]}-{case[1]}" for case in LACKING])
def test_a_class_that_lacks_its_protocol_is_refused(family, name, sentence):
    """A missing method and one with other arguments are named, in every family."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter[Any](FAMILIES[family]).validate_python({"kind": f"{HERE}:{name}"})
    [error] = caught.value.errors()
    assert str(error["ctx"]["error"]) == f"{HERE}:{name} {sentence}"


def test_every_method_that_is_missing_is_named():
    """One sentence names them all, with their arguments."""
    why = objection(type("Empty", (), {}), QueueDiscipline, (), "a queue")
    assert why == "lacks push(task), pop(), __len__() and __iter__(), expected a class with every method of a queue"


def test_a_stub_inherited_from_the_protocol_is_missing():
    """A class that only inherits the protocol does nothing when it is called."""
    stub = type("Stub", (QueueDiscipline,), {"push": Fifo.push, "pop": Fifo.pop, "__len__": Fifo.__len__})
    why = objection(stub, QueueDiscipline, (), "a queue")
    assert why == "lacks __iter__(), expected a class with every method of a queue"


class Delegating:
    """Answers everything by another object, apart from what Python itself looks up at the class."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return iter(self.inner)


class Flexible:
    """Methods of every form that can be called."""

    @staticmethod
    def push(task): ...

    @classmethod
    def pop(cls, index=-1): ...

    def __len__(self, *rest): ...

    def _from(self, start): ...

    __iter__ = partialmethod(_from, 0)


@pytest.mark.parametrize("usable", [Fifo, Lifo, Delegating, Flexible])
def test_a_class_that_can_be_called_as_asked_is_taken(usable):
    """Inherited, static, class and partial methods count, and so do further parameters with a default."""
    assert objection(usable, QueueDiscipline, (), "a queue") is None


@pytest.mark.parametrize(
    ("value", "words"), [(Square(), "a Square"), (len, "a builtin"), (lambda: 0, "a function"), (3, "an int")]
)
def test_what_is_no_class_is_refused(value, words):
    """A policy is built for each run, so an object that exists already is refused."""
    assert str(objection(value, QueueDiscipline, (), "a queue")).startswith(f"is {words}")


def test_the_methods_of_a_protocol_come_with_their_parameters():
    """They are read from the protocol itself, so that they are said once."""
    assert methods(QueueDiscipline) == {"push": ["task"], "pop": [], "__len__": [], "__iter__": []}
