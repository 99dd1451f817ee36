"""The inputs of the coordinator: declared once, as its methods, and intercepted by whoever records or guards them.

An input is a method of `Coordinator` with the mark `@declared`; its last parameter is `now`. Whatever wraps a core
(the decision record, a guard) wraps all of these, so no input can be missed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from orchestrator.core.model import AttemptKey, TaskId, TaskState, TimeLimits, WorkerId

Core = TypeVar("Core")
Method = TypeVar("Method", bound=Callable[..., None])

INPUTS: dict[str, Callable[..., None]] = {}
"""Every input by its name, as it was declared: its signature gives the types of its arguments."""


def declared(method: Method) -> Method:
    """Mark a method as an input. The method itself stays as it is: a call costs nothing more."""
    INPUTS[method.__name__] = method
    return method


class Report(NamedTuple):
    """A worker's word on how an attempt ended.

    `attempt`: its number; None where the protocol has none, for the worker's newest attempt of the task.
    `started_at`: the driver's estimate of the start, on the coordinator's clock. `ran_s`: seconds of execution by the
    worker's clock. `request`: the driver's name for this message, which the effect `acknowledged` gives back; None
    where no answer is wanted.
    """

    worker_id: WorkerId
    task_id: TaskId
    attempt: int | None
    succeeded: bool
    value: object = None
    error: str = ""
    retryable: bool = False
    started_at: float | None = None
    ran_s: float | None = None
    request: int | None = None


class Registration(NamedTuple):
    """A worker process introduces itself.

    `incarnation`: names the process; empty where the protocol has none. `prefetch`: how many attempts it may hold
    beyond its `capacity`. `reports_start`: it says when the execution of an attempt begins. `held`: the attempts that
    it still has, finished but unacknowledged ones included. `request`: the driver's name for this message, which the
    effect `registered` gives back. `draining`: it takes nothing new.
    """

    worker_id: WorkerId
    incarnation: str
    capacity: int
    prefetch: float
    reports_start: bool
    held: tuple[AttemptKey, ...] = ()
    request: int | None = None
    draining: bool = False


class Holding(NamedTuple):
    """Which worker process had the attempt of that number, when it was last known. `assigned_at`: since when, None
    where that was not stored."""

    number: int
    worker_id: WorkerId
    incarnation: str
    assigned_at: float | None = None


class Recovered(NamedTuple):
    """A task that an earlier coordinator had taken, as it was stored; its times are on this coordinator's clock.

    `attempt`: the number of the newest one. `held`: the attempts that the task counted on.
    """

    task_id: TaskId
    priority: int
    payload: object
    limits: TimeLimits | None
    submitted_at: float
    tries: int = 0
    attempt: int = 0
    held: tuple[Holding, ...] = ()
    state: int = TaskState.PENDING
    worker_id: WorkerId | None = None
    result: object = None
    error: str = ""
    settled_at: float | None = None


Around = Callable[..., None]
"""`around(name, call, *arguments)`: called instead of the input; to apply the input it calls `call(*arguments)`."""


class _Intercepted:
    def __init__(self, core: Any, around: Around) -> None:
        self._core = core
        for name in INPUTS:
            setattr(self, name, partial(around, name, getattr(core, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)


def intercepted(core: Core, around: Around) -> Core:
    """The same core, every input of which goes through `around`."""
    return cast(Core, _Intercepted(core, around))
